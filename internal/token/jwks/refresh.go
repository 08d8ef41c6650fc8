package jwks

import (
	"math/rand/v2"
	"time"
)

const (
	minRefresh  = 5 * time.Minute
	maxRefresh  = 24 * time.Hour
	firstRetry  = time.Second
	longestWait = 2 * time.Minute
)

// refresh fetches ahead of need, until Close.
func (s *Source) refresh() {
	retry := firstRetry
	for {
		s.mu.Lock()
		f := s.running
		if f == nil {
			f = s.begin()
		}
		s.mu.Unlock()
		select {
		case <-f.done:
		case <-s.done:
			return
		}
		wait := retry
		if f.err == nil {
			retry = firstRetry
			wait = min(max(s.set.Load().maxAge, minRefresh), maxRefresh)
		} else {
			retry = min(2*retry, longestWait)
		}
		timer := time.NewTimer(jitter(wait))
		select {
		case <-timer.C:
		case <-s.done:
			timer.Stop()
			return
		}
	}
}

// jitter spreads a wait by a tenth either way, so that many gateways do not ask
// in step.
func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.9 + 0.2*rand.Float64())) //nolint:gosec // No secret depends on it.
}
