package follow

import "time"

// State returns what the follower knows about itself now.
func (f *Follower) State() State {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state
}

// end is the number of the journal's last line as it was at a moment.
type end struct {
	seq uint64
	at  time.Time
}

// maxEnds bounds how many are remembered.
const maxEnds = 256

// Lag returns how many lines of the journal the sink has not got yet, and for how
// long the oldest of them has been known to wait, to a second. Both are zero while
// the sink is level with the journal, and as long as Run has not started.
func (f *Follower) Lag() (events uint64, since time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.state.Lag == 0 || len(f.ends) == 0 {
		return f.state.Lag, 0
	}
	return f.state.Lag, max(0, f.cfg.Now().Sub(f.ends[0].at))
}

// saw remembers the journal's end, and forgets those that the place has reached. With
// too many of them it keeps every other one. It is called under the lock.
func (f *Follower) saw(newest uint64, now time.Time) {
	reached := 0
	for reached < len(f.ends) && f.ends[reached].seq <= f.position.Load() {
		reached++
	}
	f.ends = f.ends[reached:]
	if newest <= f.position.Load() {
		return
	}
	if last := len(f.ends) - 1; last >= 0 && f.ends[last].seq >= newest {
		return
	}
	if len(f.ends) >= maxEnds {
		kept := f.ends[:0]
		for i := 0; i < len(f.ends); i += 2 {
			kept = append(kept, f.ends[i])
		}
		f.ends = kept
	}
	f.ends = append(f.ends, end{newest, now})
}

// change applies edit to the state under its lock and returns the result.
func (f *Follower) change(edit func(*State)) State {
	f.mu.Lock()
	defer f.mu.Unlock()
	edit(&f.state)
	return f.state
}

// tell applies edit to the state and reports the result to the owner.
func (f *Follower) tell(edit func(*State)) {
	if s := f.change(edit); f.cfg.OnState != nil {
		f.cfg.OnState(s)
	}
}

// failed counts one failed attempt and returns how many there were in a row.
func (f *Follower) failed(err error) uint64 {
	var failures uint64
	f.measure(false)
	f.tell(func(s *State) {
		s.Failures++
		s.Failed++
		s.LastError = bounded(err)
		failures = s.Failures
	})
	return failures
}

// healthy ends a row of failures, if there was one, and reports whether it has told
// the owner.
func (f *Follower) healthy() bool {
	var before uint64
	f.change(func(s *State) {
		before, s.Failures = s.Failures, 0
		s.LastError = ""
	})
	if before > 0 {
		f.tell(func(*State) {})
	}
	return before > 0
}

// placed notes whether the cursor could be read or written, and tells the
// owner when that changes.
func (f *Follower) placed(err error) {
	text := ""
	if err != nil {
		text = bounded(err)
	}
	if f.State().CursorError != text {
		f.tell(func(s *State) { s.CursorError = text })
	}
}

// level notes that the sink has got everything the journal has.
func (f *Follower) level() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state.Lag, f.ends = 0, nil
}

// measure compares the journal's end with the follower's place. It reads a few
// pages of the last segment, so unless forced it does that once a second.
func (f *Follower) measure(force bool) {
	now := f.cfg.Now()
	if !force && now.Sub(f.looked).Abs() < time.Second {
		return
	}
	f.looked = now
	newest, err := f.trail.newest()
	if err != nil {
		return // the attempt to read on reports it
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state.Lag = newest - min(newest, f.position.Load())
	f.saw(newest, now)
}
