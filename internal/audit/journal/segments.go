package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/moat-gateway/moat/internal/audit"
)

// rotate sees to a segment that is open and has room for n more bytes.
func (w *writer) rotate(n int64) error {
	if w.file != nil && w.segment.size+n <= w.j.settings.Load().segment {
		return nil
	}
	if w.file != nil {
		// A sync that fails here seals the segment itself.
		if err := w.sync(); err == nil {
			w.seal("full")
		}
	}
	return w.begin()
}

// seal closes the current segment for good. The next one says why.
func (w *writer) seal(why string) {
	// Everything that mattered was synced, or its failure is being told.
	_ = w.closeFile()
	w.old = append(w.old, w.segment)
	w.segment = segment{}
	w.dirty = false
	w.why = why
}

// begin creates the next segment with its first line, durable before it is
// used. When any step fails nothing has changed, in the chain or on the disk.
func (w *writer) begin() error {
	if w.leftover != "" {
		if err := w.fs.Remove(w.path(w.leftover)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		w.leftover = ""
	}
	c := w.chain
	name := segmentName(c.seq + 1)
	line := w.beginLines(&c)
	f, err := w.fs.Create(w.path(name))
	if err != nil {
		return err
	}
	if _, err = f.Write(line); err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = w.fs.SyncDir(w.j.dir)
	}
	if err != nil {
		err = errors.Join(fmt.Errorf("begin %s: %w", name, err), f.Close())
		if w.fs.Remove(w.path(name)) != nil {
			w.leftover = name
		}
		return err
	}
	w.segment = segment{first: w.chain.seq + 1, size: int64(len(line)), mtime: w.j.now().Unix()}
	lines := c.seq - w.chain.seq
	w.file, w.chain, w.torn, w.dirty = f, c, false, false
	w.durable()
	if w.signer != nil {
		w.trailKey = w.signer.public()
	}
	w.removeDue = true
	w.mu.Lock()
	w.snap.events[order(audit.Admin)] += lines
	w.mu.Unlock()
	return nil
}

// segmentEvent is the first line of a segment.
func (w *writer) segmentEvent() *audit.Event {
	e := w.event(audit.ActionSegment, segmentName(w.chain.seq+1))
	if w.why == "fsync-failed" || w.why == "write-failed" {
		e.Severity = audit.High
	}
	e.Reason = w.why
	e.Details.Set("epoch", w.epoch)
	e.Details.Set("lastSeq", int64(w.chain.seq)) // #nosec G115 -- far below 2^63
	e.Details.Set("lastHash", w.chain.last)
	return e
}

// event returns an event of the journal about itself.
func (w *writer) event(action, resource string) *audit.Event {
	now := w.j.now()
	return &audit.Event{
		Timestamp: now, ID: audit.NewID(now), Action: action, Resource: resource,
		Class: audit.Admin, Outcome: audit.Allow,
	}
}

// removeOld removes segments that are older than Keep or beyond MaxSize, oldest
// first, and never the current one. Each removal is in the trail, durable,
// before the file goes: otherwise a crash could leave a trail whose missing
// beginning nothing explains.
func (w *writer) removeOld() {
	w.removeDue, w.removing = false, true
	defer func() { w.removing = false }()
	n := 0
	for reason := w.expired(n); reason != ""; reason = w.expired(n) {
		if !w.old[n].told {
			e, err := w.removalEvent(n, reason)
			if err != nil {
				w.j.settings.Load().onTrouble(TroubleRemove, err)
				break
			}
			w.add(e)
		}
		n++
	}
	if n == 0 || w.err != nil {
		return
	}
	if w.commit(); w.err != nil || w.sync() != nil {
		return
	}
	// Signed before the files go: a record of a removal that nothing signs could be
	// anybody's.
	w.writeHead()
	for i := range n {
		w.old[i].told = true
	}
	if err := w.unlink(n); err != nil {
		w.j.settings.Load().onTrouble(TroubleRemove, err)
	}
	w.publish()
}

// unlink removes the first n old segments, up to the first that resists: a hole
// in the middle would look like tampering.
func (w *writer) unlink(n int) error {
	for range n {
		err := w.fs.Remove(w.path(w.old[0].name()))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		w.old = w.old[1:]
	}
	return w.fs.SyncDir(w.j.dir)
}

// expired returns why the old segment i is to be removed once those before it
// are gone, or "".
func (w *writer) expired(i int) string {
	if i >= len(w.old) {
		return ""
	}
	set := w.j.settings.Load()
	if set.hold != nil && set.hold() < w.after(i).first-1 {
		return ""
	}
	if set.keep > 0 && w.j.now().Sub(time.Unix(w.old[i].mtime, 0)) > set.keep {
		return "keep"
	}
	total := w.segment.size
	for _, s := range w.old[i:] {
		total += s.size
	}
	switch {
	case set.maxSize > 0 && total > set.maxSize:
		return "max_size"
	case w.short > 0:
		// Each removal frees what the segment had.
		freed := int64(0)
		for _, s := range w.old[:i] {
			freed += s.size
		}
		if freed < w.short {
			return "reserve"
		}
	}
	return ""
}

// after returns the segment behind old segment i.
func (w *writer) after(i int) segment {
	if i+1 < len(w.old) {
		return w.old[i+1]
	}
	return w.segment
}

// removalEvent names the end of old segment i, so that what remains can be
// joined to it.
func (w *writer) removalEvent(i int, reason string) (*audit.Event, error) {
	next := w.after(i)
	first, err := firstLine(w.path(next.name()))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", next.name(), err)
	}
	gone := w.old[i]
	e := w.event(audit.ActionRemoved, gone.name())
	e.Reason = reason
	e.Details.Set("firstSeq", int64(gone.first)) // #nosec G115 -- 63 bits, see segmentFirst
	e.Details.Set("lastSeq", int64(first.Seq-1)) // #nosec G115 -- far below 2^63
	e.Details.Set("lastHash", first.Prev)
	e.Details.Set("bytes", gone.size)
	return e, nil
}

func firstLine(path string) (head, error) {
	lines, err := firstLines(path, 1)
	if err != nil {
		return head{}, err
	}
	if len(lines) == 0 {
		return head{}, errNotAnEvent
	}
	return lines[0], nil
}

// firstLines reads up to n events from the beginning of a segment.
func firstLines(path string, n int) ([]head, error) {
	f, err := os.Open(filepath.Clean(path))
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	buf := make([]byte, n*(audit.MaxLine+1))
	size, err := readFull(f, buf)
	if err != nil {
		return nil, err
	}
	var heads []head
	for rest := buf[:size]; len(heads) < n; {
		line, after, ok := cutLine(rest)
		if !ok {
			break
		}
		h, err := parseHead(line)
		if err != nil {
			return heads, err
		}
		heads, rest = append(heads, h), after
	}
	return heads, nil
}
