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
		wait := jitter(retry)
		if f.err == nil {
			retry = firstRetry
			wait = jitter(s.freshness())
		} else {
			retry = min(2*retry, longestWait)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-s.done:
			timer.Stop()
			return
		}
	}
}

// freshness is how long the set is taken for the issuer's present one: what the
// key server says, within bounds, and half of MaxStale at most. The other half
// is what is left to ride out a key server that is away.
func (s *Source) freshness() time.Duration {
	d := min(max(s.set.Load().maxAge, minRefresh), maxRefresh)
	return max(min(d, s.cfg.MaxStale/2), firstRetry)
}

// jitter spreads a wait over its last tenth, so that many gateways do not ask in
// step and none asks late.
func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.9 + 0.1*rand.Float64())) //nolint:gosec // No secret depends on it.
}
