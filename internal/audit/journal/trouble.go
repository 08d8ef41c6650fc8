package journal

import (
	"errors"
	"fmt"
	"time"

	"github.com/moat-gateway/moat/internal/audit"
)

// Pauses between attempts on a broken trail: a failed fsync is over with the
// next segment, a full disk is not.
const (
	firstRetry = 10 * time.Millisecond
	lastRetry  = time.Second
)

// broken makes the trail broken, and tells so at the first time.
func (w *writer) broken(kind string, err error) {
	first := w.err == nil
	w.err = err
	w.j.trouble.Store(&err)
	if first {
		w.retry = 0
		w.j.settings.Load().onTrouble(kind, err)
	}
}

func (w *writer) healed() {
	if w.err == nil {
		return
	}
	w.err = nil
	w.j.trouble.Store(nil)
	w.j.settings.Load().onTrouble(TroubleOver, nil)
}

// giveUp ends a broken trail: what is pending or queued is lost, and whoever
// waits is told.
func (w *writer) giveUp() {
	lost := 0
	cause := w.err
	for {
		lost += len(w.pending)
		for _, en := range w.pending {
			w.j.drops.add(en.class, w.j.now())
		}
		w.answer(fmt.Errorf("%w: %w", audit.ErrClosed, cause))
		en, ok := <-w.queue
		if !ok {
			next, more := w.j.nextQueue()
			if !more {
				break
			}
			w.queue = next
			continue
		}
		w.pending = append(w.pending, en)
	}
	w.closeErr = fmt.Errorf("journal: closed with %d events unwritten: %w", lost, cause)
}

// pause waits before the next attempt on a broken trail, longer each time. What was
// written before goes to the disk in its time: a disk can stay full for days.
func (w *writer) pause() {
	w.retry = min(max(2*w.retry, firstRetry), lastRetry)
	timer := time.NewTimer(w.retry)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			return
		case <-w.j.closing:
			return
		case <-w.flush.C:
			if w.flushes = w.torn; w.torn {
				// First the part of a line has to go; a failed sync would seal it in.
				w.flush.Reset(w.j.settings.Load().fsync)
				continue
			}
			_ = w.sync() // It keeps the error, for the next segment.
		}
	}
}

// writeFailed keeps the lines that are whole among the n bytes that were
// written, because a reader may have seen them, and cuts off the rest.
func (w *writer) writeFailed(n int, err error) error {
	size, whole, c := 0, 0, w.chain
	for whole < len(w.pending) {
		line, _, ok := cutLine(w.buf[size:n])
		if !ok {
			break
		}
		c = chain{seq: c.seq + 1, last: lineHash(line)}
		size += len(line) + 1
		whole++
	}
	w.torn = true
	keepErr := w.keep(c, size, whole)
	if w.file != nil && keepErr == nil && !noSpace(err) && w.sync() == nil {
		w.seal("write-failed")
	}
	return errors.Join(err, keepErr)
}

// keep settles the first whole entries, whose lines are in the trail, and cuts
// off what is behind them. The error says why that end is not a safe one.
func (w *writer) keep(c chain, size, whole int) error {
	if whole > 0 {
		w.advance(c, size)
	}
	err := w.mend()
	if err == nil && w.mustSync(w.pending[:whole]) {
		err = w.sync()
	}
	rest := w.pending[whole:]
	w.pending = w.pending[:whole]
	w.settle(err)
	w.pending = append(w.pending, rest...)
	return err
}

// mend cuts off the part of a line that a failed write may have left.
func (w *writer) mend() error {
	if !w.torn {
		return nil
	}
	if err := w.file.Truncate(w.segment.size); err != nil {
		return fmt.Errorf("cut %s: %w", w.segment.name(), err)
	}
	// Not on disk yet: a loss of power could bring the part of a line back, into the
	// middle of a trail that has gone on elsewhere.
	w.torn, w.dirty = false, true
	return nil
}
