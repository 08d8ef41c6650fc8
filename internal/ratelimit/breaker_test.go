package ratelimit_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moat-gateway/moat/internal/ratelimit"
)

func TestGoodAnswerStartsTheCountOver(t *testing.T) {
	remote := &fakeStore{}
	g := guard(t, ratelimit.GuardedConfig{Remote: remote, Local: &fakeStore{}})
	for range 5 {
		remote.fail(errDown)
		for range 4 {
			_, _ = g.Take(context.Background(), oneRequest, nil)
		}
		remote.fail(nil)
		_, _ = g.Take(context.Background(), oneRequest, nil)
	}
	if g.Degraded() {
		t.Fatal("degraded by failures that were not in a row")
	}
}

func TestBreakerOpensAfterASecondOfFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		remote, seen := &fakeStore{err: errDown}, &modes{}
		g := guard(t, ratelimit.GuardedConfig{Remote: remote, Local: &fakeStore{}, OnChange: seen.change})
		_, _ = g.Take(context.Background(), oneRequest, nil)
		time.Sleep(999 * time.Millisecond)
		_, _ = g.Take(context.Background(), oneRequest, nil)
		seen.want(t)
		time.Sleep(time.Millisecond)
		_, _ = g.Take(context.Background(), oneRequest, nil)
		seen.want(t, true)
	})
}

func TestOpenBreakerProbesAndRecoversWithinTwoSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		remote, seen := &fakeStore{err: errDown}, &modes{}
		g := guard(t, ratelimit.GuardedConfig{Remote: remote, Local: &fakeStore{}, OnChange: seen.change})
		for range 5 {
			_, _ = g.Take(context.Background(), oneRequest, nil)
		}
		// Ten seconds of a thousand requests a second must not all wait for a dead store.
		for range 10_000 {
			_, _ = g.Take(context.Background(), oneRequest, nil)
			time.Sleep(time.Millisecond)
		}
		if probes := remote.asked() - 5; probes < 10 || probes > 50 {
			t.Errorf("%d probes in ten seconds", probes)
		}
		seen.want(t, true)
		remote.fail(nil)
		start := time.Now()
		for g.Degraded() {
			time.Sleep(time.Millisecond)
			_, _ = g.Take(context.Background(), oneRequest, nil)
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("recovery took %s", took)
		}
		seen.want(t, true, false)
		results, err := g.Take(context.Background(), oneRequest, nil)
		if err != nil || results[0].Degraded {
			t.Errorf("after recovery: %+v, %v", results, err)
		}
	})
}

func TestOnlyOneProbeAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		remote := &fakeStore{err: errDown}
		g := guard(t, ratelimit.GuardedConfig{Remote: remote, Local: &fakeStore{}})
		for range 5 {
			_, _ = g.Take(context.Background(), oneRequest, nil)
		}
		time.Sleep(time.Minute)
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() { _, _ = g.Take(context.Background(), oneRequest, nil) })
		}
		wg.Wait()
		if probes := remote.asked() - 5; probes != 1 {
			t.Errorf("%d calls reached the store at once, want one probe", probes)
		}
	})
}

func TestSharedBreakerReportsOnce(t *testing.T) {
	seen, remote := &modes{}, &fakeStore{err: errDown}
	breaker := ratelimit.NewBreaker(ratelimit.BreakerConfig{OnChange: seen.change})
	var guards []*ratelimit.Guarded
	for range 3 {
		guards = append(guards, guard(t, ratelimit.GuardedConfig{Remote: remote, Local: &fakeStore{}, Breaker: breaker}))
	}
	for i := range 30 {
		_, _ = guards[i%3].Take(context.Background(), withFallback(ratelimit.OnError(i%3), 0), nil) //nolint:gosec // Below three.
	}
	seen.want(t, true)
	if !breaker.Degraded() || remote.asked() != 5 {
		t.Errorf("degraded %t after %d calls, want after 5", breaker.Degraded(), remote.asked())
	}
}

// A late answer from before the breaker opened says nothing about the store now.
func TestLateAnswerDoesNotCloseTheBreaker(t *testing.T) {
	remote, release := &slowStore{enter: make(chan struct{})}, make(chan struct{})
	remote.release = release
	breaker := ratelimit.NewBreaker(ratelimit.BreakerConfig{})
	slow := guard(t, ratelimit.GuardedConfig{Remote: remote, Local: &fakeStore{}, Breaker: breaker})
	down := guard(t, ratelimit.GuardedConfig{Remote: &fakeStore{err: errDown}, Local: &fakeStore{}, Breaker: breaker})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = slow.Take(context.Background(), oneRequest, nil)
	}()
	<-remote.enter
	for range 5 {
		_, _ = down.Take(context.Background(), oneRequest, nil)
	}
	close(release)
	<-done
	if !breaker.Degraded() {
		t.Fatal("closed by an answer that was asked for before it opened")
	}
}

type slowStore struct {
	fakeStore
	enter, release chan struct{}
}

func (s *slowStore) Take(ctx context.Context, reqs []ratelimit.Request, dst []ratelimit.Result) ([]ratelimit.Result, error) {
	close(s.enter)
	<-s.release
	return s.fakeStore.Take(ctx, reqs, dst)
}

func TestClientsCannotOpenTheBreaker(t *testing.T) {
	seen, remote := &modes{}, &fakeStore{}
	g := guard(t, ratelimit.GuardedConfig{Remote: remote, Local: &fakeStore{}, OnChange: seen.change})
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	remote.fail(context.Canceled)
	for range 20 {
		_, _ = g.Take(gone, oneRequest, nil)
	}
	remote.fail(ratelimit.ErrInvalid)
	for range 20 {
		_, _ = g.Take(context.Background(), oneRequest, nil)
	}
	seen.want(t)
	// The store's own idea of a cancellation is a failure.
	remote.fail(context.Canceled)
	for range 5 {
		_, _ = g.Take(context.Background(), oneRequest, nil)
	}
	seen.want(t, true)
}
