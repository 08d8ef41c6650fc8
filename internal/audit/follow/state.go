package follow

import "time"

// State returns what the follower knows about itself now.
func (f *Follower) State() State {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state
}

// Lag returns how many lines of the journal the sink has not got yet, and for
// how long it has not been level with the journal. Both are zero while it is,
// and as long as Run has not started.
func (f *Follower) Lag() (events uint64, since time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.state.Lag == 0 || f.behind.IsZero() {
		return f.state.Lag, 0
	}
	return f.state.Lag, max(0, f.cfg.Now().Sub(f.behind))
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

// healthy ends a row of failures, if there was one, and tells the owner.
func (f *Follower) healthy() {
	var before uint64
	f.change(func(s *State) {
		before, s.Failures = s.Failures, 0
		s.LastError = ""
	})
	if before > 0 {
		f.tell(func(*State) {})
	}
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
	f.state.Lag, f.behind = 0, time.Time{}
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
	f.state.Lag = newest - min(newest, f.done.Seq)
	switch {
	case f.state.Lag == 0:
		f.behind = time.Time{}
	case f.behind.IsZero():
		f.behind = now
	}
}
