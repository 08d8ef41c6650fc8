//go:build soak

package memory_test

import (
	"context"
	"runtime"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/ratelimit"
	"github.com/moat-gateway/moat/internal/ratelimit/memory"
	"github.com/moat-gateway/moat/internal/ratelimit/storetest"
)

const (
	soakKeys    = 10_000_000
	soakVictims = 100
	// soakGrowth is what the heap may gain after the first million keys. The last
	// shards to become full are behind by less than that.
	soakGrowth = 0.05
)

// TestSoakTenMillionKeys floods a store of the default capacity with ten million
// strangers. Each limit has one caller who is exhausted before the flood begins and
// tries again all the time: the flood must not get him a unit that the time passed
// does not.
func TestSoakTenMillionKeys(t *testing.T) {
	for _, tt := range []struct {
		name string
		rate ratelimit.Rate
		step time.Duration // of the clock, with each key
		full bool          // whether the strangers' buckets stay in use
	}{
		// A stranger's bucket is full again 200,000 keys later, long before its slot
		// is needed.
		{"BucketsThatRefillMakeRoom", perMinute, 50 * time.Microsecond, false},
		// In the ten seconds of this flood no unit comes back.
		{"BucketsInUseAreKept", ratelimit.Rate{N: 6, Window: time.Hour}, time.Microsecond, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := soakHeap()
			f := newFlood(t, tt.rate, tt.step)
			heaps, start := make(map[int]int64), time.Now()
			for _, upTo := range []int{1_000_000, 2_000_000, 5_000_000, soakKeys} {
				f.run(t, upTo)
				heaps[upTo] = soakHeap() - before
				t.Logf("%8d keys: heap %.1f MiB, %+v", upTo, float64(heaps[upTo])/(1<<20), f.store.Stats())
			}
			took, stats := time.Since(start), f.store.Stats()
			t.Logf("%.1f bytes a key; %.0f decisions a second; %d strangers refused",
				float64(heaps[soakKeys])/float64(stats.Buckets), float64(f.calls)/took.Seconds(), f.refused)
			if grown := float64(heaps[soakKeys])/float64(heaps[1_000_000]) - 1; grown > soakGrowth {
				t.Errorf("the heap grew by %.1f %% after the first million keys", 100*grown)
			}
			if stats.Buckets > memory.DefaultCapacity {
				t.Errorf("%d buckets are held, want at most %d", stats.Buckets, memory.DefaultCapacity)
			}
			if full := stats.Overflowed > 0; full != tt.full {
				t.Errorf("%d charges overflowed", stats.Overflowed)
			}
			if !tt.full && f.refused > 0 {
				t.Errorf("%d strangers were refused while there was room", f.refused)
			}
			runtime.KeepAlive(f)
		})
	}
}

// soakHeap is what is alive.
func soakHeap() int64 {
	runtime.GC()
	runtime.GC() // What the first one left to be swept.
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// flood is strangers in front of a store, and the victims among them.
type flood struct {
	store   *memory.Store
	rate    ratelimit.Rate
	step    time.Duration
	start   time.Time
	passed  atomic.Int64 // on the clock, since the start
	limits  []string
	tats    []int64 // the victims' buckets as package ratelimit has them
	reqs    []ratelimit.Request
	dst     []ratelimit.Result
	keys    int
	calls   int
	refused int
}

func newFlood(t *testing.T, rate ratelimit.Rate, step time.Duration) *flood {
	t.Helper()
	f := &flood{rate: rate, step: step, start: storetest.NewClock().Now(), tats: make([]int64, soakVictims)}
	f.store = newStore(t, memory.Config{Now: func() time.Time { return f.start.Add(time.Duration(f.passed.Load())) }})
	f.reqs, f.dst = one("", "", rate, 1), make([]ratelimit.Result, 0, 1)
	for i := range soakVictims {
		f.limits = append(f.limits, "limit"+strconv.Itoa(i))
	}
	for range rate.Capacity() + 1 {
		f.victims(t)
	}
	if slices.Max(f.tats) != slices.Min(f.tats) || f.tats[0] != rate.SpanMicros() {
		t.Fatalf("the victims are not exhausted: %v", f.tats)
	}
	return f
}

func (f *flood) take(t *testing.T, limit, subject string) ratelimit.Result {
	f.reqs[0].Limit, f.reqs[0].Subject = limit, subject
	got, err := f.store.Take(context.Background(), f.reqs, f.dst)
	if err != nil {
		t.Fatal(err)
	}
	f.calls++
	return got[0]
}

// victims lets each victim try once. He must get what his bucket alone allows.
func (f *flood) victims(t *testing.T) {
	t.Helper()
	now := time.Duration(f.passed.Load()).Microseconds()
	for i, limit := range f.limits {
		var want ratelimit.Result
		f.tats[i], want = ratelimit.Decide(now, f.tats[i], f.rate, 1)
		if got := f.take(t, limit, "victim"); got != want {
			t.Fatalf("victim of %s after %d keys: got  %+v\nwant %+v", limit, f.keys, got, want)
		}
	}
}

// run goes on until so many strangers have come.
func (f *flood) run(t *testing.T, upTo int) {
	t.Helper()
	for ; f.keys < upTo; f.keys++ {
		if f.keys%50_000 == 0 {
			f.victims(t)
		}
		f.passed.Add(int64(f.step))
		if !f.take(t, f.limits[f.keys%soakVictims], strconv.Itoa(f.keys)).Allowed {
			f.refused++
		}
	}
	f.victims(t)
}
