package redisstore_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/ratelimit"
	"github.com/moat-gateway/moat/internal/ratelimit/memory"
	"github.com/moat-gateway/moat/internal/ratelimit/redisstore"
	"github.com/moat-gateway/moat/internal/redisconn/redistest"
)

// budget is what a call of 50 milliseconds may take on a very busy machine.
// Without the settings under test it takes five seconds.
const budget = 2 * time.Second

func TestStoppedServerCostsNoMoreThanTheTimeout(t *testing.T) {
	for _, tt := range []struct {
		name  string
		start func(testing.TB) (*redistest.Server, string)
		warm  bool
	}{
		{"warm", startSingle, true},
		{"cold", startSingle, false},
		{"cluster warm", startClustered, true},
		{"cluster cold", startClustered, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server, url := tt.start(t)
			if !tt.warm {
				server.Pause()
			}
			s := newStore(t, newClient(t, url, 0), redisstore.Config{Timeout: 50 * time.Millisecond})
			reqs := append(one("a", "x", perMinute, 1), one("b", "y", perMinute, 1)...)
			if tt.warm {
				warmUp(t, s, reqs)
				server.Pause()
			}
			// More callers than the pool has connections, and several rounds.
			var slowest atomic.Int64
			for range 3 {
				var wg sync.WaitGroup
				for range 100 {
					wg.Go(func() {
						start := time.Now()
						results, err := s.Take(context.Background(), reqs, nil)
						took := time.Since(start)
						if err == nil || took > budget {
							t.Errorf("results %v, error %v after %s", results, err, took)
						}
						slowest.Store(max(slowest.Load(), int64(took)))
					})
				}
				wg.Wait()
			}
			t.Logf("slowest of 300 calls: about %s", time.Duration(slowest.Load()))
			start := time.Now()
			if err := s.Give(context.Background(), reqs); err == nil {
				t.Error("give: no error")
			}
			if err := s.Reset(context.Background(), reqs); err == nil {
				t.Error("reset: no error")
			}
			if took := time.Since(start); took > 2*budget {
				t.Errorf("give and reset took %s", took)
			}
		})
	}
}

func startSingle(tb testing.TB) (*redistest.Server, string) {
	s := redistest.Start(tb)
	return s, s.URL()
}

func startClustered(tb testing.TB) (*redistest.Server, string) {
	s := startCluster(tb)
	return s, clusterURL(s)
}

// warmUp waits out the first connections, which may be slower than the timeout.
func warmUp(t *testing.T, s ratelimit.Store, reqs []ratelimit.Request) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		if _, err = s.Take(context.Background(), reqs, nil); err == nil {
			return
		}
	}
	t.Fatal(err)
}

func TestStoreRecoversFromARestart(t *testing.T) {
	server := redistest.Start(t)
	s := newStore(t, newClient(t, server.URL(), 0), redisstore.Config{Timeout: 50 * time.Millisecond})
	reqs := one("a", "x", perMinute, 1)
	warmUp(t, s, reqs)
	server.Kill()
	if _, err := s.Take(context.Background(), reqs, nil); err == nil {
		t.Fatal("no error from a server that is gone")
	}
	server.Restart()
	warmUp(t, s, reqs)
}

// The whole chain: a server that is away degrades the limit, does not lift it,
// does not stall requests, and is taken back within two seconds of its return.
func TestOutageDegradesAndEnds(t *testing.T) {
	for _, tt := range []struct {
		name       string
		start      func(testing.TB) (*redistest.Server, string)
		away, back func(*redistest.Server)
	}{
		{"stopped", startSingle, (*redistest.Server).Pause, (*redistest.Server).Resume},
		{"killed", startSingle, (*redistest.Server).Kill, (*redistest.Server).Restart},
		{"cluster stopped", startClustered, (*redistest.Server).Pause, (*redistest.Server).Resume},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server, url := tt.start(t)
			changes := make(chan bool, 100)
			g := newGuarded(t, url, func(degraded bool) { changes <- degraded })
			rate := ratelimit.Rate{N: 5, Window: time.Hour}
			warmUp(t, g, one("login", "x", rate, 0))
			for range 3 {
				take(t, g, one("login", "x", rate, 1))
			}
			tt.away(server)
			degrade(t, g, one("login", "x", rate, 1))
			if !<-changes {
				t.Error("the first change must be to degraded mode")
			}
			// Long enough for the client to give up on the address altogether.
			for start := time.Now(); time.Since(start) < 300*time.Millisecond; time.Sleep(5 * time.Millisecond) {
				take(t, g, one("other", "y", rate, 0))
			}
			tt.back(server)
			recovers(t, g)
			if <-changes {
				t.Error("the second change must be out of degraded mode")
			}
			if len(changes) != 0 {
				t.Error("more than two changes reported")
			}
		})
	}
}

func newGuarded(t *testing.T, url string, onChange func(bool)) *ratelimit.Guarded {
	t.Helper()
	local, err := memory.New(memory.Config{})
	if err != nil {
		t.Fatal(err)
	}
	remote := newStore(t, newClient(t, url, 0), redisstore.Config{Timeout: 50 * time.Millisecond})
	breaker := ratelimit.NewBreaker(ratelimit.BreakerConfig{OnChange: onChange, Probe: remote.Probe})
	t.Cleanup(breaker.Close)
	g, err := ratelimit.NewGuarded(ratelimit.GuardedConfig{Remote: remote, Local: local, Breaker: breaker})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// degrade sends requests while the server is away. Two units are left.
func degrade(t *testing.T, g *ratelimit.Guarded, reqs []ratelimit.Request) {
	t.Helper()
	start, granted := time.Now(), 0
	for range 50 {
		r := take(t, g, reqs)[0]
		if !r.Degraded {
			t.Fatal("answered without the server and not marked degraded")
		}
		if r.Allowed {
			granted++
		}
	}
	if !g.Degraded() {
		t.Error("the breaker did not open")
	}
	t.Logf("50 requests took %s", time.Since(start))
	if granted != 2 {
		t.Errorf("3 of 5 units were used and %d granted locally, want 2", granted)
	}
}

func recovers(t *testing.T, g *ratelimit.Guarded) {
	t.Helper()
	start := time.Now()
	for g.Degraded() {
		take(t, g, one("other", "y", perMinute, 0))
		if time.Since(start) > 10*time.Second {
			t.Fatal("still degraded")
		}
		time.Sleep(time.Millisecond)
	}
	took := time.Since(start)
	t.Logf("recovered in %s", took)
	if took > 3*time.Second {
		t.Errorf("recovery took %s, want 2s at most, and one more for a busy machine", took)
	}
}
