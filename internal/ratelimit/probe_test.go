package ratelimit_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moat-gateway/moat/internal/ratelimit"
)

func TestAProbeInTheBackgroundEndsDegradedModeWithoutAnyTraffic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		remote, seen := &fakeStore{err: errDown}, &modes{}
		var probes, works atomic.Int64
		breaker := ratelimit.NewBreaker(ratelimit.BreakerConfig{OnChange: seen.change, Probe: func() error {
			probes.Add(1)
			if works.Load() == 0 {
				return errDown
			}
			return nil
		}})
		g := guard(t, ratelimit.GuardedConfig{Remote: remote, Local: &fakeStore{}, Breaker: breaker})
		for range 100 {
			_, _ = g.Take(context.Background(), oneRequest, nil)
		}
		seen.want(t, true)
		time.Sleep(10 * time.Second)
		if n := probes.Load(); n < 10 || n > 50 {
			t.Errorf("%d probes in ten seconds", n)
		}
		// No client waited for any of them.
		if n := remote.asked(); n != 5 {
			t.Errorf("the store was asked %d times, want the five that failed", n)
		}
		works.Store(1)
		time.Sleep(time.Second)
		synctest.Wait()
		seen.want(t, true, false)
		was := probes.Load()
		time.Sleep(time.Minute)
		if probes.Load() != was {
			t.Error("a store that works is probed")
		}
	})
}

func TestAClosedBreakerProbesNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var probes atomic.Int64
		breaker := ratelimit.NewBreaker(ratelimit.BreakerConfig{Probe: func() error { probes.Add(1); return errDown }})
		g := guard(t, ratelimit.GuardedConfig{Remote: &fakeStore{err: errDown}, Local: &fakeStore{}, Breaker: breaker})
		for range 5 {
			_, _ = g.Take(context.Background(), oneRequest, nil)
		}
		breaker.Close()
		breaker.Close()
		// The test ends only when the goroutine has.
		synctest.Wait()
		if n := probes.Load(); n != 0 {
			t.Errorf("%d probes", n)
		}
	})
}

// TestARefusalIsNoProofThatTheStoreWorks: a server that takes no writes refuses as
// before.
func TestARefusalIsNoProofThatTheStoreWorks(t *testing.T) {
	remote := &answer{result: ratelimit.Result{RetryAfter: time.Hour}}
	failing := &fakeStore{err: errDown}
	breaker := ratelimit.NewBreaker(ratelimit.BreakerConfig{})
	refuses := guard(t, ratelimit.GuardedConfig{Remote: remote, Local: &fakeStore{}, Breaker: breaker})
	fails := guard(t, ratelimit.GuardedConfig{Remote: failing, Local: &fakeStore{}, Breaker: breaker})
	for range 5 {
		_, _ = fails.Take(context.Background(), oneRequest, nil)
		_, _ = refuses.Take(context.Background(), oneRequest, nil)
	}
	if !breaker.Degraded() {
		t.Error("refusals between failures kept the breaker closed")
	}
}
