package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/moat-gateway/moat/internal/ratelimit"
	"github.com/moat-gateway/moat/internal/ratelimit/redisstore"
	"github.com/moat-gateway/moat/internal/redisconn/redistest"
)

// FuzzScriptDecidesAsDecide plants a bucket, charges it through Redis and
// compares result and stored bucket with the functions of package ratelimit.
func FuzzScriptDecidesAsDecide(f *testing.F) {
	server := redistest.Start(f)
	client := newClient(f, server.URL(), patient)
	var now time.Time
	s := newStore(f, client, redisstore.Config{Now: func() time.Time { return now }})
	ctx := context.Background()
	// now, ahead, old span, units, window, burst, cost
	const minute = int64(60_000_000)
	f.Add(int64(1_700_000_000_000_000), int64(0), minute, int64(100), minute, int64(0), int64(1))
	f.Add(int64(1_700_000_000_000_000), minute, minute, int64(100), minute, int64(0), int64(1))
	f.Add(int64(1_700_000_000_000_000), minute-600_000, minute, int64(100), minute, int64(0), int64(1))
	f.Add(int64(1_700_000_000_000_000), minute-599_999, minute, int64(100), minute, int64(0), int64(1))
	f.Add(int64(1_700_000_000_000_000), int64(-5), minute, int64(7), minute, int64(3), int64(2))
	f.Add(int64(1_700_000_000_000_000), 9*minute, minute, int64(7), minute, int64(3), int64(2))
	f.Add(int64(1_700_000_000_000_001), minute/3, minute, int64(7), 1440*minute, int64(50), int64(1))
	f.Add(int64(1<<51), int64(31_622_400_000_000), int64(31_622_400_000_000), int64(3), int64(31_622_400_000_000), int64(30), int64(1))
	f.Add(int64(1), int64(1), int64(1), int64(1000), int64(1000), int64(0), int64(1000))
	f.Add(int64(0), int64(999), int64(1000), int64(1000), int64(1000), int64(0), int64(1))
	f.Add(int64(1_700_000_000_000_000), int64(5), int64(0), int64(1), minute, int64(0), int64(1)<<40)
	f.Fuzz(func(t *testing.T, at, ahead, oldSpan, n, window, burst, cost int64) {
		reqs := one("a", "x", ratelimit.Rate{N: n, Window: time.Duration(window) * time.Microsecond, Burst: burst}, cost)
		const lua = int64(1) << 52
		if window > lua || at < 0 || at > lua/2 || ahead < -at || ahead > lua/2 || oldSpan < 0 || oldSpan > lua ||
			ratelimit.Check(reqs) != nil {
			return // Out of the domain.
		}
		now = time.UnixMicro(at)
		if err := s.Reset(ctx, reqs); err != nil {
			t.Fatal(err)
		}
		key := plantedKey(t, client, s)
		plant(t, client, key, at+ahead, oldSpan)

		before := ratelimit.Rescale(at, at+ahead, oldSpan, reqs[0].Rate)
		tats := []int64{before}
		want, charged := ratelimit.Settle(at, reqs, tats, nil)
		got := take(t, s, reqs)
		if got[0] != want[0] {
			t.Fatalf("take: redis %+v, decide %+v", got[0], want[0])
		}
		if charged && cost > 0 {
			wantStored(t, client, key, at, tats[0], reqs[0].Rate.SpanMicros())
		} else {
			wantStored(t, client, key, at, at+ahead, oldSpan)
		}

		plant(t, client, key, at+ahead, oldSpan)
		if err := s.Give(ctx, reqs); err != nil {
			t.Fatal(err)
		}
		if cost > 0 && before > at {
			wantStored(t, client, key, at, ratelimit.Refund(at, before, reqs[0]), reqs[0].Rate.SpanMicros())
		}
	})
}

// plantedKey learns the name of the bucket the fuzz target uses.
func plantedKey(t *testing.T, client redis.UniversalClient, s *redisstore.Store) string {
	t.Helper()
	take(t, s, one("a", "x", ratelimit.Rate{N: 1, Window: time.Hour}, 1))
	return onlyKey(t, client)
}

func plant(t *testing.T, client redis.UniversalClient, key string, tat, span int64) {
	t.Helper()
	if err := client.Set(context.Background(), key, fmt.Sprintf("%d:%d", tat, span), 0).Err(); err != nil {
		t.Fatal(err)
	}
}

// wantStored accepts no key for a bucket that is full.
func wantStored(t *testing.T, client redis.UniversalClient, key string, now, tat, span int64) {
	t.Helper()
	got, err := client.Get(context.Background(), key).Result()
	if errors.Is(err, redis.Nil) && tat <= now {
		return
	}
	if want := fmt.Sprintf("%d:%d", tat, span); err != nil || got != want {
		t.Fatalf("stored %q, error %v, want %q", got, err, want)
	}
}
