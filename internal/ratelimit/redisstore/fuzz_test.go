package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/moat-gateway/moat/internal/ratelimit"
	"github.com/moat-gateway/moat/internal/ratelimit/redisstore"
	"github.com/moat-gateway/moat/internal/redisconn/redistest"
)

// What is special about the requests of a fuzzed call, in bits.
const (
	bucketIsShadow = 1 << iota
	placeIsShadow
	placeIsLook
	placeIsFirst
)

// FuzzScriptDecidesAsDecide plants a bucket and places in use, charges both through
// Redis in one call and compares results and what is stored with the functions of
// package ratelimit.
func FuzzScriptDecidesAsDecide(f *testing.F) {
	server := redistest.Start(f)
	client := newClient(f, server.URL(), patient)
	var now time.Time
	s := newStore(f, client, redisstore.Config{Now: func() time.Time { return now }})
	ctx := context.Background()
	// now, ahead, old span, units, window, burst, cost; flags, places, places in use
	const minute, when = int64(60_000_000), int64(1_700_000_000_000_000)
	bucket := func(at, ahead, oldSpan, n, window, burst, cost int64) {
		f.Add(at, ahead, oldSpan, n, window, burst, cost, uint8(0), uint8(0), uint8(0))
	}
	bucket(when, 0, minute, 100, minute, 0, 1)
	bucket(when, minute, minute, 100, minute, 0, 1)
	bucket(when, minute-600_000, minute, 100, minute, 0, 1)
	bucket(when, minute-599_999, minute, 100, minute, 0, 1)
	bucket(when, -5, minute, 7, minute, 3, 2)
	bucket(when, 9*minute, minute, 7, minute, 3, 2)
	bucket(when+1, minute/3, minute, 7, 1440*minute, 50, 1)
	bucket(1<<51, 31_622_400_000_000, 31_622_400_000_000, 3, 31_622_400_000_000, 30, 1)
	bucket(1, 1, 1, 1000, 1000, 0, 1000)
	bucket(0, 999, 1000, 1000, 1000, 0, 1)
	bucket(when, 5, 0, 1, minute, 0, 1<<40)
	// More than fits: refused, and debited down to empty.
	bucket(when, minute/2, minute, 100, minute, 0, 51)
	bucket(when, 1, minute, 7, minute, 3, 1<<40)
	for flags := range uint8(2 * placeIsFirst) {
		f.Add(when, int64(0), minute, int64(100), minute, int64(0), int64(1), flags, uint8(3), uint8(2)) // both fit
		f.Add(when, int64(0), minute, int64(100), minute, int64(0), int64(1), flags, uint8(3), uint8(3)) // no place
		f.Add(when, minute, minute, int64(100), minute, int64(0), int64(1), flags, uint8(3), uint8(2))   // no unit
		f.Add(when, minute, minute, int64(100), minute, int64(0), int64(1), flags, uint8(1), uint8(5))   // neither
	}
	f.Fuzz(func(t *testing.T, at, ahead, oldSpan, n, window, burst, cost int64, flags, slots, used uint8) {
		rate := ratelimit.Rate{N: n, Window: time.Duration(window) * time.Microsecond, Burst: burst}
		reqs := []ratelimit.Request{{Limit: "a", Subject: "x", Rate: rate, Cost: cost, Shadow: flags&bucketIsShadow != 0}}
		const lua = int64(1) << 52
		if window > lua || at < 0 || at > lua/2 || ahead < -at || ahead > lua/2 || oldSpan < 0 || oldSpan > lua ||
			ratelimit.Check(reqs) != nil {
			return // Out of the domain.
		}
		now = time.UnixMicro(at)
		before := ratelimit.Rescale(at, at+ahead, oldSpan, rate)
		states := []int64{before}
		if slots > 0 {
			place := ratelimit.Request{
				Limit: "c", Subject: "x", Slots: int64(slots), Cost: 1, Holder: "h", Shadow: flags&placeIsShadow != 0,
			}
			if flags&placeIsLook != 0 {
				place.Cost = 0
			}
			reqs, states = append(reqs, place), append(states, int64(used))
			if flags&placeIsFirst != 0 {
				slices.Reverse(reqs)
				slices.Reverse(states)
			}
		}
		if err := client.FlushDB(ctx).Err(); err != nil {
			t.Fatal(err)
		}
		key, places := s.Key("a", "x"), s.Key("c", "x")
		plant(t, client, key, at+ahead, oldSpan)
		if slots > 0 {
			plantPlaces(t, client, places, at, int(used))
		}

		want, charged := ratelimit.Settle(at, reqs, states, nil)
		got := take(t, s, reqs)
		for i, r := range reqs {
			if got[i] != want[i] {
				t.Fatalf("take %+v: redis %+v, decide %+v", r, got[i], want[i])
			}
			switch {
			case r.Slots > 0:
				wantPlaces(t, client, places, at, states[i])
			case charged && want[i].Allowed && cost > 0:
				wantStored(t, client, key, at, states[i], rate.SpanMicros())
			case cost > 0 && oldSpan != rate.SpanMicros() && before > at:
				wantStored(t, client, key, at, before, rate.SpanMicros()) // It goes on at the new rate.
			default:
				wantStored(t, client, key, at, at+ahead, oldSpan)
			}
		}

		plant(t, client, key, at+ahead, oldSpan)
		if err := s.Give(ctx, reqs); err != nil {
			t.Fatal(err)
		}
		bucket := reqs[slices.IndexFunc(reqs, func(r ratelimit.Request) bool { return r.Slots == 0 })]
		if cost > 0 && before > at {
			wantStored(t, client, key, at, ratelimit.Refund(at, before, bucket), rate.SpanMicros())
		}
		if slots > 0 {
			wantPlaces(t, client, places, at, int64(used)) // as before the call, whether it took one or not
		}

		plant(t, client, key, at+ahead, oldSpan)
		if err := s.Debit(ctx, reqs); err != nil {
			t.Fatal(err)
		}
		if cost > 0 {
			wantStored(t, client, key, at, ratelimit.Debited(at, before, rate, cost), rate.SpanMicros())
		} else {
			wantStored(t, client, key, at, at+ahead, oldSpan)
		}
		if slots > 0 {
			wantPlaces(t, client, places, at, int64(used))
		}
	})
}

func plant(t *testing.T, client redis.UniversalClient, key string, tat, span int64) {
	t.Helper()
	if err := client.Set(context.Background(), key, fmt.Sprintf("%d:%d", tat, span), 0).Err(); err != nil {
		t.Fatal(err)
	}
}

// plantPlaces plants places in use, and one that has just expired.
func plantPlaces(t *testing.T, client redis.UniversalClient, key string, now int64, used int) {
	t.Helper()
	members := []redis.Z{{Score: float64(now), Member: "expired"}}
	for i := range used {
		members = append(members, redis.Z{Score: float64(now + 1), Member: strconv.Itoa(i)})
	}
	if err := client.ZAdd(context.Background(), key, members...).Err(); err != nil {
		t.Fatal(err)
	}
}

func wantPlaces(t *testing.T, client redis.UniversalClient, key string, now, want int64) {
	t.Helper()
	got, err := client.ZCount(context.Background(), key, fmt.Sprintf("(%d", now), "+inf").Result()
	if err != nil || got != want {
		t.Fatalf("%d places in use, error %v, want %d", got, err, want)
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
