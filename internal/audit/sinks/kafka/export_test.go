package kafka

import "time"

// SetClock replaces the clock by which a client is idle.
func (s *Sink) SetClock(now func() time.Time) { s.now = now }
