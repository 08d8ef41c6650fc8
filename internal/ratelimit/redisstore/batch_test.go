package redisstore_test

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/moat-gateway/moat/internal/ratelimit"
	"github.com/moat-gateway/moat/internal/ratelimit/redisstore"
	"github.com/moat-gateway/moat/internal/redisconn/redistest"
)

// batchCounter is a client hook that counts pipelines.
type batchCounter struct{ pipelines atomic.Int64 }

func (*batchCounter) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (*batchCounter) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (c *batchCounter) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		c.pipelines.Add(1)
		return next(ctx, cmds)
	}
}

func TestManyCallsAtOnceAreFewRoundTripsAndEachIsAnsweredForItself(t *testing.T) {
	server := redistest.Start(t)
	client := newClient(t, server.URL(), patient)
	s := newStore(t, client, redisstore.Config{Timeout: patient})
	warmUp(t, s, one("a", "warm", perMinute, 0))
	var trips batchCounter
	client.AddHook(&trips)
	// While the server stands still all calls come together.
	server.Pause()
	var wg sync.WaitGroup
	var granted [8]atomic.Int64
	for i := range 400 {
		wg.Go(func() {
			subject := i % len(granted)
			// Each subject has another limit, so that an answer to somebody else shows.
			rate := ratelimit.Rate{N: int64(subject + 1), Window: time.Hour}
			if take(t, s, one("a", strconv.Itoa(subject), rate, 1))[0].Allowed {
				granted[subject].Add(1)
			}
		})
	}
	time.Sleep(200 * time.Millisecond) // For the callers to queue; fewer make the test weaker, not red.
	server.Resume()
	wg.Wait()
	for subject := range granted {
		if got := granted[subject].Load(); got != int64(subject+1) {
			t.Errorf("subject %d was granted %d, want %d", subject, got, subject+1)
		}
	}
	if n := trips.pipelines.Load(); n == 0 || n > 60 {
		t.Errorf("400 calls made %d batches", n)
	}
}

func TestACallerOnItsOwnIsNotBatched(t *testing.T) {
	server := redistest.Start(t)
	client := newClient(t, server.URL(), patient)
	s := newStore(t, client, redisstore.Config{})
	var trips batchCounter
	client.AddHook(&trips)
	for range 20 {
		take(t, s, one("a", "x", perMinute, 1))
	}
	if n := trips.pipelines.Load(); n != 0 {
		t.Errorf("%d batches", n)
	}
}

// TestWhoGaveUpWaitingIsNotCharged has more callers than go out at once in front of
// a server that stands still for longer than their time.
func TestWhoGaveUpWaitingIsNotCharged(t *testing.T) {
	server := redistest.Start(t)
	s := newStore(t, newClient(t, server.URL(), patient), redisstore.Config{Timeout: 500 * time.Millisecond})
	rate := ratelimit.Rate{N: 1000, Window: time.Hour}
	warmUp(t, s, one("a", "x", rate, 0))
	server.Pause()
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if _, err := s.Take(context.Background(), one("a", "x", rate, 1), nil); err == nil {
				t.Error("no error")
			}
		})
	}
	wg.Wait()
	server.Resume()
	warmUp(t, s, one("a", "x", rate, 0))
	// Those that were on their way already may have been charged, and no others.
	if left := take(t, s, one("a", "x", rate, 0))[0].Remaining; left < 1000-8 {
		t.Errorf("%d units were charged for 50 calls that failed", 1000-left)
	}
}

func TestBatchesSurviveAForgottenScript(t *testing.T) {
	server := redistest.Start(t)
	client := newClient(t, server.URL(), patient)
	s := newStore(t, client, redisstore.Config{Timeout: patient})
	rate := ratelimit.Rate{N: 10_000, Window: 366 * 24 * time.Hour}
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for n := range 50 {
				if n%10 == 0 {
					if err := client.ScriptFlush(context.Background()).Err(); err != nil {
						t.Error(err)
					}
				}
				take(t, s, one("a", "x", rate, 1))
			}
		})
	}
	wg.Wait()
	if left := take(t, s, one("a", "x", rate, 0))[0].Remaining; left != 10_000-16*50 {
		t.Errorf("%d units are left, want %d", left, 10_000-16*50)
	}
}
