package journal

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/moat-gateway/moat/internal/audit"
)

// upkeep is how often old segments are looked for.
const upkeep = time.Minute

// writer is the one goroutine that appends. Everything but the snapshot
// belongs to it alone.
type writer struct {
	j     *Journal
	fs    fileSystem
	epoch string
	queue chan *entry

	chain   chain
	pending []*entry // taken from the queue and not yet in the trail
	buf     []byte

	file     file // nil between segments
	segment  segment
	old      []segment
	leftover string // a segment that failed at birth and could not be removed
	torn     bool   // the file ends in part of a line
	dirty    bool   // written since the last sync
	why      string // why the next segment is begun
	err      error  // why nothing can be written

	signer   *signer           // nil: nothing is signed
	trailKey ed25519.PublicKey // that the trail goes by so far
	checked  uint64            // the last checkpoint's number
	due      string            // why the next write ends in a checkpoint, if it does
	beats    *time.Timer
	synced   chain  // the end of what is on disk
	headSeq  uint64 // the number that HEAD says
	headDue  bool
	hadHead  bool // from before this opening
	heads    *time.Timer

	short     int64 // bytes that are free too few
	spaceAt   time.Time
	removeDue bool
	removing  bool

	retry   time.Duration
	flush   *time.Timer
	flushes bool
	tick    *time.Ticker

	done     chan struct{}
	closeErr error

	mu   sync.Mutex
	snap snapshot
}

// snapshot is what Stats may see.
type snapshot struct {
	events   [3]uint64
	chain    chain
	bytes    int64
	segments int
}

// startWriter repairs the trail, begins a segment and starts the goroutine.
func startWriter(j *Journal, fs fileSystem, keys *signer) (*writer, error) {
	w := &writer{
		j: j, fs: fs, queue: j.queue, epoch: audit.NewID(j.now()), why: "start",
		flush: stoppedTimer(), beats: stoppedTimer(), heads: stoppedTimer(), tick: time.NewTicker(upkeep),
		signer: keys, done: make(chan struct{}),
	}
	recovered, err := w.recover()
	if err == nil {
		recovered = w.checkHead(recovered)
	}
	if err == nil {
		err = w.begin()
	}
	if err == nil && recovered != nil {
		w.add(recovered)
		err = w.write()
	}
	if err != nil {
		w.tick.Stop()
		return nil, errors.Join(fmt.Errorf("journal: %w", err), w.closeFile())
	}
	w.settle(nil)
	w.removeOld()
	w.beat("start")
	if w.signer != nil && w.err == nil && w.sync() == nil {
		w.writeHead()
	}
	// A trail that is signed and goes on without a HEAD looks like one that was cut.
	if w.signer != nil && w.headSeq == 0 && !w.hadHead {
		w.tick.Stop()
		return nil, errors.Join(errors.New("journal: the first HEAD could not be written"), w.closeFile())
	}
	w.publish()
	go w.run()
	return w, nil
}

func (w *writer) run() {
	defer close(w.done)
	for more := true; more || len(w.pending) > 0; {
		if w.err != nil && w.closing() {
			w.giveUp()
			break
		}
		if w.err != nil {
			w.pause()
		} else if len(w.pending) == 0 {
			more = w.gather()
		}
		w.commit()
		if w.removeDue && w.err == nil {
			w.removeOld()
		}
	}
	w.finish()
}

func (w *writer) closing() bool {
	select {
	case <-w.j.closing:
		return true
	default:
		return false
	}
}

// gather waits for something to do and takes what is queued, up to a batch. It
// is false when the queue was closed and there is no next one.
func (w *writer) gather() bool {
	select {
	case en, ok := <-w.queue:
		if !ok {
			next, more := w.j.nextQueue()
			if more {
				w.queue = next
			}
			return more
		}
		w.take(en)
	case <-w.flush.C:
		w.flushes = false
		_ = w.sync() // It keeps the error, for Err and for the next segment.
	case <-w.heads.C:
		w.writeHead()
	case <-w.beats.C:
		w.beat("time")
	case <-w.tick.C:
		w.removeDue = true
	}
	return true
}

func (w *writer) take(en *entry) {
	room := w.j.settings.Load().batch
	for {
		w.pending = append(w.pending, en)
		if room -= len(en.line); room <= 0 {
			return
		}
		select {
		case next, ok := <-w.queue:
			if !ok {
				return // gather meets the closed queue again
			}
			en = next
		default:
			return
		}
	}
}

// add puts an event of the journal itself behind the pending ones.
func (w *writer) add(e *audit.Event) { w.pending = append(w.pending, w.j.encode(e)) }

// commit writes what is pending and answers who waits for it, or notes why it
// can not. With nothing pending it repairs a broken trail.
func (w *writer) commit() {
	if w.err == nil {
		if gap := w.j.drops.gap(w.j.now()); gap != nil {
			w.add(gap)
		}
		if len(w.pending) == 0 && w.due == "" {
			return
		}
	}
	if err := w.write(); err != nil {
		// Whole lines of it may be in the trail, and have to get to the disk in time.
		if w.dirty && !w.flushes {
			w.flushes = true
			w.flush.Reset(w.j.settings.Load().fsync)
		}
		kind := TroubleWrite
		if noSpace(err) {
			kind = TroubleFull
		}
		w.broken(kind, err)
		return
	}
	w.healed()
	var err error
	if w.mustSync(w.pending) {
		err = w.sync()
	} else if w.dirty && !w.flushes {
		w.flushes = true
		w.flush.Reset(w.j.settings.Load().fsync)
	}
	w.settle(err)
	w.publish()
}

// write brings the pending entries into the trail; the chain moves on only with
// the lines. What could not be written is still pending.
func (w *writer) write() error {
	if err := w.mend(); err != nil {
		return err
	}
	if err := w.room(); err != nil {
		return err
	}
	if err := w.rotate(w.pendingSize()); err != nil {
		return err
	}
	if len(w.pending) == 0 && w.due == "" {
		return nil
	}
	c := w.chain
	w.buf = w.buf[:0]
	for _, en := range w.pending {
		w.buf = c.extend(w.buf, en.line, w.j.instance)
	}
	signs := w.checkpointDue(c)
	if signs {
		w.appendCheckpoint(&c)
	}
	n, err := w.file.Write(w.buf)
	if err != nil {
		return w.writeFailed(n, err)
	}
	w.advance(c, n)
	if signs {
		w.checked = c.seq
		w.mu.Lock()
		w.snap.events[order(audit.Admin)]++
		w.mu.Unlock()
	}
	return nil
}

// mustSync reports whether somebody waits until an entry is on disk. What the
// settings say now counts for entries from before, too.
func (w *writer) mustSync(entries []*entry) bool {
	levels := &w.j.settings.Load().levels
	return slices.ContainsFunc(entries, func(en *entry) bool {
		return en.level == Synced || levels[order(en.class)] == Synced
	})
}

// durable notes that everything up to the end of the trail is on disk.
func (w *writer) durable() {
	w.synced = w.chain
	if w.signer != nil && !w.headDue {
		w.headDue = true
		w.heads.Reset(headDelay)
	}
}

// advance moves the end of the trail behind n more bytes.
func (w *writer) advance(c chain, n int) {
	w.chain, w.dirty = c, true
	w.segment.size += int64(n)
	w.segment.mtime = w.j.now().Unix()
}

// chainRoom is what a line grows by when it is completed, at most.
const chainRoom = 128 + 2*maxInstance

func (w *writer) pendingSize() int64 {
	n := 0
	for _, en := range w.pending {
		n += len(en.line) + chainRoom
	}
	if w.signer != nil {
		n += checkpointRoom
	}
	return int64(n)
}

// settle answers for the entries that were written.
func (w *writer) settle(err error) {
	if err != nil {
		err = fmt.Errorf("%w: %w", audit.ErrFull, err)
	}
	w.mu.Lock()
	for _, en := range w.pending {
		w.snap.events[order(en.class)]++
	}
	w.mu.Unlock()
	w.answer(err)
}

func (w *writer) answer(err error) {
	for i, en := range w.pending {
		if en.state.CompareAndSwap(attended, answered) {
			en.done <- err
		} else {
			w.j.release(en)
		}
		w.pending[i] = nil
	}
	w.pending = w.pending[:0]
}

// sync makes what is written durable. When that fails the segment is done for:
// the kernel may have dropped the pages and would call the next sync a success.
func (w *writer) sync() error {
	if !w.dirty || w.file == nil {
		return nil
	}
	w.dirty = false
	err := w.file.Sync()
	if err == nil {
		w.durable()
		return nil
	}
	err = fmt.Errorf("sync %s: %w", w.segment.name(), err)
	w.seal("fsync-failed")
	w.broken(TroubleFsync, err)
	return err
}

// finish leaves everything durable and closed.
func (w *writer) finish() {
	w.tick.Stop()
	w.flush.Stop()
	if w.err == nil && w.closeErr == nil {
		w.beat("stop")
	}
	w.beats.Stop()
	err := w.sync()
	w.writeHead()
	if err == nil && w.closeErr == nil {
		w.closeErr = w.closeFile()
	} else {
		w.closeErr = errors.Join(w.closeErr, err, w.closeFile())
	}
	w.publish()
}

func (w *writer) closeFile() error {
	if w.file == nil {
		return nil
	}
	f := w.file
	w.file = nil
	return f.Close()
}

func (w *writer) publish() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.snap.chain = w.chain
	w.snap.bytes, w.snap.segments = w.segment.size, len(w.old)
	if w.segment.first > 0 {
		w.snap.segments++
	}
	for _, s := range w.old {
		w.snap.bytes += s.size
	}
}

func (w *writer) stats() Stats {
	w.mu.Lock()
	defer w.mu.Unlock()
	return Stats{
		Events: byClass(w.snap.events), Seq: w.snap.chain.seq, LastHash: w.snap.chain.last,
		Bytes: w.snap.bytes, Segments: w.snap.segments,
	}
}

func (w *writer) path(name string) string { return filepath.Join(w.j.dir, name) }
