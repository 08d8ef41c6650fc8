// Package journal keeps audit events in append-only files of JSON lines, each
// line chained to the one before. It knows files, hashes and when an event is
// safe; it knows nothing of requests, configuration files or who reads the
// trail later.
//
// # The trail
//
// A trail is a directory of segments. A segment is named after the number of
// its first line, padded to twelve digits ("000000000001.jsonl"). Every line is
// one event as audit.Event.AppendJSON writes it: "seq" counts from 1 through
// all segments, and "prev" is the lower-case hex SHA-256 of the bytes of the
// line before, without its line end; the first line of a trail carries 64
// zeros. A segment begins with an event "audit.segment" that names the
// instance, the epoch (a UUID of this opening of the journal), why the segment
// was begun and the last hash before it.
//
// # What is promised
//
// When Record returns nil for an event of class security or admin, its line was
// handed to the operating system and survives the end of the process, also by
// kill -9; Config.Waits changes that by class. A group commit makes it survive the end of the machine: after at
// most Config.Fsync, or, with Config.FsyncAlways, before Record returns for any
// class. Events of class access are queued; when the queue is full they are
// dropped, counted, and an event "audit.gap" says how many. One goroutine
// writes; it takes whatever is queued into one write.
//
// A failed fsync closes a segment for good, because the kernel may have dropped
// what it could not write and would report success the next time. A full disk, or
// one with less than Config.Reserve left and nothing to remove, stops the trail,
// visible in Err; what is queued is written when space returns.
//
// # Signatures
//
// With a key file the trail is signed. Each segment names the public key that the
// trail goes by ("publicKey", base64). Events "audit.checkpoint" carry a Statement
// about the line before them, at the start and the end of each opening, after
// Config.CheckpointEvents lines and Config.Checkpoint of time, also when nothing
// happens. HEAD is the same Statement about the last line that is on disk, a second
// old at most, so that a tail cut at a line end shows; the next opening compares it
// and records a difference. A new key is introduced by an "audit.key" that the old
// one signed.
//
// # What is not promised
//
// Who can write to the directory can change the lines behind the last signature,
// and can put the whole directory back to an earlier state: compare with a HEAD, or
// a checkpoint in a sink, from elsewhere. Who has the private key can write
// everything anew from where they got it; keep it apart from the trail.
package journal

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/moat-gateway/moat/internal/audit"
)

// Journal is an open trail. It implements audit.Recorder and is safe for
// concurrent use.
type Journal struct {
	dir      string
	instance string
	now      func() time.Time
	settings atomic.Pointer[settings]
	autoSize int64 // what AutoSize means, as of Open
	entries  sync.Pool
	drops    drops
	trouble  atomic.Pointer[error]
	lock     releaser
	w        *writer

	// mu guards the life of the queues: senders hold it for reading, so that
	// nobody sends on a closed one.
	mu     sync.RWMutex
	queue  chan *entry // the one that is filled
	closed bool

	// laterMu is apart from mu, which a sender may hold while it waits for the
	// writer to come to its queue.
	laterMu sync.Mutex
	later   []chan *entry // the queues the writer has not come to yet, in order

	closing   chan struct{}
	closeOnce sync.Once
	closeErr  error
}

var _ audit.Recorder = (*Journal)(nil)

// Open takes possession of the directory, creating it when needed, repairs the
// end of the trail, begins a new segment and starts the writer. A line that was
// torn by a crash is cut off and recorded as "audit.recovered". Open fails with
// ErrLocked when another process (or another Journal of this one) holds the
// directory for longer than a second.
func Open(cfg Config) (*Journal, error) { return open(cfg, osFiles{}) }

func open(cfg Config, fs fileSystem) (*Journal, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	if err := fs.MkdirAll(cfg.Dir); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	lock, err := acquire(cfg.Dir)
	if err != nil {
		return nil, err
	}
	j := &Journal{
		dir: cfg.Dir, instance: cfg.Instance, now: cfg.Now, lock: lock,
		queue:   make(chan *entry, cfg.Queue),
		closing: make(chan struct{}),
	}
	j.entries.New = func() any { return &entry{line: make([]byte, 0, lineRoom)} }
	keys, err := keysOf(cfg)
	if err != nil {
		return nil, errors.Join(err, lock.release())
	}
	if cfg.MaxSize == AutoSize {
		if cfg.MaxSize, err = autoSize(cfg.Dir, fs, cfg.Segment); err != nil {
			return nil, errors.Join(fmt.Errorf("journal: %w", err), lock.release())
		}
	}
	j.autoSize = cfg.MaxSize
	j.settings.Store(newSettings(cfg))
	if j.w, err = startWriter(j, fs, keys); err != nil {
		return nil, errors.Join(err, lock.release())
	}
	return j, nil
}

func keysOf(cfg Config) (*signer, error) {
	if cfg.KeyFile == "" {
		return nil, nil
	}
	return openKeys(cfg.KeyFile)
}

// autoSize is 80 % of what the trail may grow to, and two segments at least.
func autoSize(dir string, fs fileSystem, segment int64) (int64, error) {
	free, err := fs.Space(dir)
	if err != nil {
		return 0, err
	}
	list, err := listSegments(dir)
	if err != nil {
		return 0, err
	}
	for _, s := range list {
		free += s.size
	}
	return max(free/10*8, 2*segment), nil
}

// Record takes e. See the package comment for when it returns; the wait is
// bounded by Config.Wait. It returns nil for an event of class access that was
// dropped because the queue is full, unless the trail is broken.
//
// The context does not shorten the wait: a client that hangs up must not be
// able to take the event about it along.
func (j *Journal) Record(_ context.Context, e *audit.Event) error {
	set := j.settings.Load()
	if strings.HasPrefix(e.Action, "audit.") && e.Action != audit.ActionSummary {
		// Such words are the journal's own: a client chooses a method, and must not
		// write what reads as a checkpoint.
		c := *e
		c.Action = "x-" + e.Action
		e = &c
	}
	en := j.encode(e)
	en.level = set.levels[order(en.class)]
	waits := en.level != Queued
	if waits {
		en.arm(set.wait)
	}
	err := j.enqueue(en, waits)
	switch {
	case err == nil && waits:
		return j.await(en)
	case err == nil:
		return nil
	case errors.Is(err, audit.ErrFull):
		j.drops.add(en.class, j.now())
	}
	j.release(en)
	if !waits && errors.Is(err, audit.ErrFull) && j.Err() == nil {
		return nil
	}
	return err
}

// full is ErrFull with its cause, if the trail is broken.
func (j *Journal) full() error {
	if cause := j.Err(); cause != nil {
		return fmt.Errorf("%w: %w", audit.ErrFull, cause)
	}
	return audit.ErrFull
}

// encode writes everything but the chain on the goroutine of the caller, so
// that the one writer has little left to do.
func (j *Journal) encode(e *audit.Event) *entry {
	en := j.entries.Get().(*entry)
	en.class, en.level = e.Class.Known(), Queued
	en.state.Store(unattended)
	if e.ID == "" || e.Timestamp.IsZero() {
		c := *e
		if c.Timestamp.IsZero() {
			c.Timestamp = j.now()
		}
		if c.ID == "" {
			c.ID = audit.NewID(c.Timestamp)
		}
		en.line = c.AppendOpen(en.line[:0])
		return en
	}
	en.line = e.AppendOpen(en.line[:0])
	return en
}

// enqueue hands en to the writer. After nil, en belongs to the writer, except
// that one who armed it must await it.
func (j *Journal) enqueue(en *entry, waits bool) error {
	j.mu.RLock()
	defer j.mu.RUnlock()
	if j.closed {
		return audit.ErrClosed
	}
	select {
	case j.queue <- en:
		return nil
	default:
	}
	if !waits {
		return j.full()
	}
	select {
	case j.queue <- en:
		return nil
	case <-en.timer.C:
		return j.full()
	case <-j.closing:
		return audit.ErrClosed
	}
}

// await waits for the answer of the writer. Who leaves early leaves en to the
// writer.
func (j *Journal) await(en *entry) error {
	select {
	case err := <-en.done:
		j.release(en)
		return err
	case <-en.timer.C:
	}
	if en.state.CompareAndSwap(attended, unattended) {
		return j.full()
	}
	err := <-en.done
	j.release(en)
	return err
}

func (j *Journal) release(en *entry) {
	if en.timer != nil {
		en.timer.Stop()
	}
	j.entries.Put(en)
}

// Reconfigure changes the tunables of an open journal: all but Dir and Instance,
// which must stay as they are, and Now and KeyFile, which are ignored. On an error
// nothing is changed.
func (j *Journal) Reconfigure(cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	cfg = cfg.withDefaults()
	if filepath.Clean(cfg.Dir) != filepath.Clean(j.dir) {
		return fmt.Errorf("journal: dir %q: must stay %q while the journal is open", cfg.Dir, j.dir)
	}
	if cfg.Instance != j.instance {
		return fmt.Errorf("journal: instance %q: must stay %q while the journal is open", cfg.Instance, j.instance)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return audit.ErrClosed
	}
	if cfg.MaxSize == AutoSize {
		// What was free when the trail was opened; by now it has taken some itself.
		cfg.MaxSize = j.autoSize
	}
	j.settings.Store(newSettings(cfg))
	if cap(j.queue) != cfg.Queue {
		// The writer empties the old queue to its end, then asks for the next,
		// which must be there by then.
		old := j.queue
		j.queue = make(chan *entry, cfg.Queue)
		j.laterMu.Lock()
		j.later = append(j.later, j.queue)
		j.laterMu.Unlock()
		close(old)
	}
	return nil
}

// nextQueue returns the queue that follows one that was emptied to its end, or
// false after the last.
func (j *Journal) nextQueue() (chan *entry, bool) {
	j.laterMu.Lock()
	defer j.laterMu.Unlock()
	if len(j.later) == 0 {
		return nil, false
	}
	next := j.later[0]
	j.later = j.later[1:]
	return next, true
}

// Close writes what is queued, syncs it and gives the directory back. When the
// trail is broken it tries once more and then gives up; the error says how many
// events were lost. A second Close returns the same.
func (j *Journal) Close() error {
	j.closeOnce.Do(func() {
		close(j.closing)
		j.mu.Lock()
		j.closed = true
		close(j.queue)
		j.mu.Unlock()
		<-j.w.done
		j.closeErr = errors.Join(j.w.closeErr, j.lock.release())
	})
	return j.closeErr
}

// Err returns why the trail cannot be written at the moment, or nil.
func (j *Journal) Err() error {
	if err := j.trouble.Load(); err != nil {
		return *err
	}
	return nil
}

// Stats are the figures of a journal since it was opened.
type Stats struct {
	// Events are the lines written, by class.
	Events map[audit.Class]uint64
	// Dropped are the events that were not taken, by class.
	Dropped map[audit.Class]uint64
	// Seq is the number of the last line, LastHash its SHA-256 in hex.
	Seq      uint64
	LastHash string
	// Bytes is the size of all segments, Segments their number.
	Bytes    int64
	Segments int
	// Healthy is whether Err is nil.
	Healthy bool
}

// Stats returns the figures of this moment.
func (j *Journal) Stats() Stats {
	s := j.w.stats()
	s.Dropped = j.drops.totals()
	s.Healthy = j.Err() == nil
	return s
}
