package app

import (
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/moat-gateway/moat/internal/audit"
	"github.com/moat-gateway/moat/internal/audit/follow"
)

const (
	// failingAfter is how many failures in a row make a sink failing.
	failingAfter = 3
	// tellEvery is the least time between two events of one action about one sink:
	// these events go to the sink as well, and must not feed themselves.
	tellEvery = time.Minute
)

// teller makes what happens to a sink known: in the log at once, and in the trail
// as events of their own, few and with sums.
type teller struct {
	identified
	event func(action string, outcome audit.Outcome, set func(*audit.Details))
	now   func() time.Time

	mu      sync.Mutex
	state   follow.State
	failing bool      // an event says so
	failed  time.Time // when the last such event was written
	told    follow.State
	summed  time.Time // when losses were last told
	flush   *time.Timer
	stopped bool
}

// failingSinks are the ids of sinks of which an event says that they fail, while no
// teller does: a reload has ended the one, and the next has not begun.
var failingSinks sync.Map

func newTeller(who identified) *teller {
	t := &teller{identified: who, now: time.Now}
	t.event = func(action string, outcome audit.Outcome, set func(*audit.Details)) {
		if a := live.Load(); a != nil {
			a.trail.event(audit.Admin, action, "sink "+who.title(), outcome, set)
		}
	}
	return t
}

// hear takes a state of the follower. It is its OnState.
func (t *teller) hear(s follow.State) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, failing := failingSinks.LoadAndDelete(t.id); failing {
		t.failing = true
	}
	t.log(t.state, s)
	t.state = s
	t.health()
	t.losses()
}

// health writes that the sink fails, or no longer does.
func (t *teller) health() {
	switch {
	case t.failing && t.state.Failures == 0:
		t.failing = false
		t.write("sink.recovered", audit.Allow, nil)
	case !t.failing && t.state.Failures >= failingAfter && t.due(t.failed):
		t.failing, t.failed = true, t.now()
		t.write("sink.failing", audit.Failure, func(d *audit.Details) { d.Set("error", t.state.LastError) })
	}
}

// losses writes how many events the sink did not get since that was last written,
// now or when it may again.
func (t *teller) losses() {
	lost, aside := t.state.Lost-t.told.Lost, t.state.SetAside-t.told.SetAside
	if lost+aside == 0 || t.stopped {
		return
	}
	if !t.due(t.summed) {
		if t.flush == nil {
			t.flush = time.AfterFunc(t.summed.Add(tellEvery).Sub(t.now()), t.later)
		}
		return
	}
	t.told, t.summed = t.state, t.now()
	if lost > 0 {
		t.write("sink.lost", audit.Failure, func(d *audit.Details) { d.Set("events", int64(lost)) }) //nolint:gosec // far below 2^63
	}
	if aside > 0 {
		t.write("sink.set-aside", audit.Failure, func(d *audit.Details) { d.Set("events", int64(aside)) }) //nolint:gosec // far below 2^63
	}
}

func (t *teller) later() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.flush = nil
	t.losses()
}

// due reports whether an event may follow one of that time.
func (t *teller) due(last time.Time) bool { return last.IsZero() || t.now().Sub(last) >= tellEvery }

func (t *teller) write(action string, outcome audit.Outcome, set func(*audit.Details)) {
	t.event(action, outcome, func(d *audit.Details) {
		d.Set("sink", t.title())
		d.Set("target", t.id[:6])
		d.Set("lag", int64(t.state.Lag))           //nolint:gosec // far below 2^63
		d.Set("position", int64(t.state.Position)) //nolint:gosec // far below 2^63
		if set != nil {
			set(d)
		}
	})
}

// log says what changed about the sink.
func (t *teller) log(before, s follow.State) {
	fields := []zap.Field{
		zap.String("sink", t.title()), zap.String("id", t.id[:6]), zap.Uint64("lag", s.Lag),
		zap.Uint64("failures", s.Failures), zap.Uint64("lost", s.Lost), zap.Uint64("set_aside", s.SetAside),
	}
	if s.Lost > before.Lost || s.SetAside > before.SetAside {
		logger().Warn("audit sink does not get all events; those set aside are in its rejected file", fields...)
	}
	switch {
	case s.Failures == 0 && before.Failures == 0 && s.CursorError == before.CursorError:
	case s.Failures == 0 && s.CursorError == "":
		logger().Info("audit sink delivers", fields...)
	case s.Failures <= 1 || s.CursorError != "":
		logger().Warn("audit sink fails; the journal keeps the events",
			append(fields, zap.String("error", s.LastError), zap.String("cursor_error", s.CursorError))...)
	}
}

// stop ends what was to be told later.
func (t *teller) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.flush != nil {
		t.flush.Stop()
	}
	t.summed = time.Time{} // what is left to tell is told now
	t.losses()
	t.stopped = true
	if t.failing {
		failingSinks.Store(t.id, true)
	}
}
