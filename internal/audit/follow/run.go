package follow

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"
)

const (
	// saveEvery is the least time between two writes of the cursor while
	// lines flow: a crash repeats at most what was delivered meanwhile.
	saveEvery = 250 * time.Millisecond
	// growAfter is the number of deliveries after which a halved batch
	// doubles again.
	growAfter = 16
)

// Run delivers until ctx ends and then returns nil, or an error if the place
// could not be stored. It returns early only when the cursor file cannot be
// read or belongs to another sink, which counts as a failure, or the follower runs
// already. A delivery
// under way when ctx ends is cancelled and comes again after the next start.
func (f *Follower) Run(ctx context.Context) error {
	if !f.running.CompareAndSwap(false, true) {
		return ErrRunning
	}
	defer f.running.Store(false)
	f.trail = &trail{dir: f.cfg.Dir, now: f.cfg.Now, keep: &f.cfg.Filter, restarted: f.restarted}
	if err := f.start(); err != nil {
		f.failed(err)
		return err
	}
	defer f.trail.close()
	for ctx.Err() == nil {
		batch, err := f.trail.next(f.cfg.Batch)
		switch {
		case err != nil:
			f.backOff(ctx, fmt.Errorf("follow: journal: %w", err))
		case len(batch) == 0:
			f.level()
			f.healthy()
			_ = f.store(false) // tells the owner itself
			f.idle(ctx)
		default:
			f.deliver(ctx, batch)
			_ = f.store(false)
			f.measure(false)
		}
	}
	return f.store(true)
}

func (f *Follower) start() error {
	if err := os.MkdirAll(filepath.Dir(f.cfg.Cursor), 0o700); err != nil {
		return fmt.Errorf("follow: cursor: %w", err)
	}
	at, err := loadCursor(f.cfg.Cursor, f.cfg.Sink.Name())
	if err != nil && !errors.Is(err, errCursor) {
		return err
	}
	f.trail.at = at
	f.done, f.saved = at, at
	f.stored.Store(at.Seq)
	f.moved(at.Seq)
	f.placed(err)
	return nil
}

// moved notes that the sink is done with everything up to seq.
func (f *Follower) moved(seq uint64) {
	f.position.Store(seq)
	f.change(func(s *State) { s.Position = seq })
}

// restarted notes that the journal begins anew behind seq, which is before the place.
func (f *Follower) restarted(seq uint64) {
	f.stored.Store(min(f.stored.Load(), seq))
	f.moved(seq)
}

// deliver brings a batch to the sink, as often as it takes.
func (f *Follower) deliver(ctx context.Context, batch []entry) {
	f.dress(batch)
	for len(batch) > 0 && ctx.Err() == nil {
		n := firstOf(batch, f.limit)
		if f.attempt(ctx, batch[:n]) {
			f.passed(batch[n-1].at)
			batch = batch[n:]
			continue
		}
		if refusal := f.refused; refusal != nil {
			batch = f.probe(ctx, batch, refusal)
			f.refused = nil
		}
	}
}

// firstOf returns how many entries hold the first lines for the sink, at most
// limit of them.
func firstOf(batch []entry, limit int) int {
	for i, e := range batch {
		if e.skip {
			continue
		}
		if limit--; limit < 0 {
			return i
		}
	}
	return len(batch)
}

// dress gives the lines their other format. A line that has none is bad.
func (f *Follower) dress(batch []entry) {
	if f.cfg.Format == nil {
		return
	}
	for i := range batch {
		e := &batch[i]
		if e.bad != nil || e.skip {
			continue
		}
		if text, err := f.cfg.Format(nil, e.line.Raw); err != nil {
			e.bad = err
		} else {
			e.line.Text = text
		}
	}
}

// attempt delivers part once and reports whether all of it is done with. It
// may leave part smaller in what is to be delivered, or the limit lower, or the
// refusal of its only line, or have waited.
func (f *Follower) attempt(ctx context.Context, part []entry) bool {
	if err := f.sift(part); err != nil {
		f.backOff(ctx, err)
		return false
	}
	lines, index := good(part)
	if len(lines) == 0 {
		return true
	}
	err := f.hand(ctx, lines)
	var poison *Poison
	switch {
	case err == nil:
		f.arrived()
		return true
	case ctx.Err() != nil:
		return false
	case errors.As(err, &poison) && poison.Index >= 0 && poison.Index < len(lines):
		part[index[poison.Index]].bad = cmp.Or(poison.Err, errNoReason)
	case errors.Is(err, ErrTooLarge) && len(lines) == 1:
		part[index[0]].bad = err
	case errors.Is(err, ErrRefused) && len(lines) == 1:
		f.refused = err
	case errors.Is(err, ErrTooLarge), errors.Is(err, ErrRefused):
		f.limit, f.streak = len(lines)/2, 0
	default:
		f.backOff(ctx, err)
	}
	return false
}

// arrived notes that a delivery arrived.
func (f *Follower) arrived() {
	f.grow()
	first := false
	f.change(func(s *State) { first, s.LastSuccess = s.LastSuccess.IsZero(), f.cfg.Now() })
	if told := f.healthy(); first && !told {
		f.tell(func(*State) {})
	}
}

// hand gives the lines to the sink within the budget.
func (f *Follower) hand(ctx context.Context, lines []Line) error {
	ctx, cancel := context.WithTimeout(ctx, f.cfg.Timeout)
	defer cancel()
	return f.cfg.Sink.Deliver(ctx, lines)
}

// errNoReason stands for what a sink did not say of a poisonous line.
var errNoReason = errors.New("the sink gives no reason")

// errAside marks an entry whose line is in the rejected file already.
var errAside = errors.New("set aside")

// sift counts lost lines and sets aside what cannot be delivered, each once.
func (f *Follower) sift(part []entry) error {
	var lost, aside uint64
	for i := range part {
		e := &part[i]
		lost += e.lost
		e.lost = 0
		if e.bad == nil || errors.Is(e.bad, errAside) {
			continue
		}
		if err := f.reject(*e, e.bad); err != nil {
			f.change(func(s *State) { s.Lost += lost; s.SetAside += aside })
			return err
		}
		e.bad = errAside
		aside++
	}
	if lost+aside > 0 {
		f.tell(func(s *State) { s.Lost += lost; s.SetAside += aside })
	}
	return nil
}

// good returns the lines that can be delivered and their places in part.
func good(part []entry) ([]Line, []int) {
	lines, index := make([]Line, 0, len(part)), make([]int, 0, len(part))
	for i, e := range part {
		if e.bad == nil && !e.skip && !e.done {
			lines, index = append(lines, e.line), append(index, i)
		}
	}
	return lines, index
}

// grow lets a batch that was halved for its size become larger again.
func (f *Follower) grow() {
	if f.limit == f.cfg.Batch {
		return
	}
	if f.streak++; f.streak >= growAfter {
		f.limit, f.streak = min(2*f.limit, f.cfg.Batch), 0
	}
}

// passed moves the follower's place.
func (f *Follower) passed(at cursor) {
	gone := at.Seq - min(at.Seq, f.position.Load())
	f.done = at
	f.position.Store(at.Seq)
	f.change(func(s *State) {
		s.Position = at.Seq
		s.Lag -= min(s.Lag, gone)
	})
}

// store writes the cursor if it has moved and, unless forced, the last write
// is some time ago. A cursor that cannot be written is reported but holds up
// nothing: the lines did arrive, and come twice if the process dies now.
func (f *Follower) store(force bool) error {
	now := f.cfg.Now()
	if f.done == f.saved || (!force && now.Sub(f.savedAt).Abs() < saveEvery) {
		return nil
	}
	f.savedAt = now
	err := f.done.save(f.cfg.Cursor, f.cfg.Sink.Name())
	if err == nil {
		f.saved = f.done
		f.stored.Store(f.done.Seq)
	}
	f.placed(err)
	return err
}

// idle waits for the journal to grow.
func (f *Follower) idle(ctx context.Context) {
	timer := time.NewTimer(f.cfg.Poll)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-f.wake:
	}
}

// backOff reports err and waits: longer each time, spread so that several
// followers do not return to a recovering server together, and never longer
// than BackoffMax.
func (f *Follower) backOff(ctx context.Context, err error) {
	failures := f.failed(err)
	_ = f.store(false) // tells the owner itself
	wait := f.pause(failures)
	var later *RetryAfter
	if errors.As(err, &later) {
		wait = max(wait, min(later.After, f.cfg.BackoffMax))
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	look := time.NewTicker(time.Second)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			return
		case <-look.C:
			f.measure(false) // so that Lag grows while the sink is down
		}
	}
}

// pause returns the wait after so many failures: between half and all of the
// doubled-up backoff.
func (f *Follower) pause(failures uint64) time.Duration {
	wait := f.cfg.BackoffMin
	for i := uint64(1); i < failures && wait < f.cfg.BackoffMax; i++ {
		wait *= 2
	}
	wait = min(wait, f.cfg.BackoffMax)
	return wait/2 + rand.N(wait/2+1) //nolint:gosec // spread is wanted, not secrecy
}
