package memory_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moat-gateway/moat/internal/ratelimit"
	"github.com/moat-gateway/moat/internal/ratelimit/memory"
	"github.com/moat-gateway/moat/internal/ratelimit/storetest"
)

var perMinute = ratelimit.Rate{N: 6, Window: time.Minute}

func newStore(tb testing.TB, cfg memory.Config) *memory.Store {
	tb.Helper()
	s, err := memory.New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func one(limit, subject string, rate ratelimit.Rate, cost int64) []ratelimit.Request {
	return []ratelimit.Request{{Limit: limit, Subject: subject, Rate: rate, Cost: cost}}
}

func take(tb testing.TB, s ratelimit.Store, reqs []ratelimit.Request) []ratelimit.Result {
	tb.Helper()
	results, err := s.Take(context.Background(), reqs, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return results
}

func drain(tb testing.TB, s ratelimit.Store, limit, subject string, rate ratelimit.Rate) int {
	tb.Helper()
	for n := range 1_000_000 {
		if !take(tb, s, one(limit, subject, rate, 1))[0].Allowed {
			return n
		}
	}
	tb.Fatal("the limit never refuses")
	return 0
}

func TestStoreKeepsTheContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T, clock *storetest.Clock) ratelimit.Store {
		// The suite sets the clock back, which must not reach before the start.
		clock.Advance(-time.Hour)
		defer clock.Advance(time.Hour)
		return newStore(t, memory.Config{Now: clock.Now})
	})
}

func TestStoreKeepsTheContractInOneShard(t *testing.T) {
	storetest.Run(t, func(t *testing.T, clock *storetest.Clock) ratelimit.Store {
		clock.Advance(-time.Hour)
		defer clock.Advance(time.Hour)
		return newStore(t, memory.Config{Now: clock.Now, Capacity: 32})
	})
}

func TestCapacityOutOfBoundsIsAnError(t *testing.T) {
	for _, capacity := range []int{-1, memory.MaxCapacity + 1} {
		if s, err := memory.New(memory.Config{Capacity: capacity}); err == nil || s != nil {
			t.Errorf("capacity %d: store %v, error %v", capacity, s, err)
		}
	}
}

func TestRealClockRefills(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t, memory.Config{})
		if n := drain(t, s, "a", "x", perMinute); n != 6 {
			t.Fatalf("granted %d, want 6", n)
		}
		time.Sleep(20 * time.Second)
		if n := drain(t, s, "a", "x", perMinute); n != 2 {
			t.Fatalf("granted %d after 20s, want 2", n)
		}
	})
}

func TestFloodOfStrangersResetsNobody(t *testing.T) {
	clock := storetest.NewClock()
	s := newStore(t, memory.Config{Capacity: 1000, Now: clock.Now})
	victims := 20
	for i := range victims {
		drain(t, s, "login", "victim"+strconv.Itoa(i), perMinute)
	}
	for i := range 50_000 {
		take(t, s, one("login", "flood"+strconv.Itoa(i), perMinute, 1))
	}
	if got := s.Stats(); got.Buckets > 1000 || got.Overflowed == 0 {
		t.Fatalf("after a flood: %+v, want at most 1000 buckets and an overflow", got)
	}
	for i := range victims {
		if take(t, s, one("login", "victim"+strconv.Itoa(i), perMinute, 1))[0].Allowed {
			t.Fatalf("victim %d was forgotten", i)
		}
	}
}

func TestFloodGrowsNoMemory(t *testing.T) {
	s := newStore(t, memory.Config{Capacity: 2000})
	flood := func(from int) {
		for i := range 20_000 {
			take(t, s, one("a", "flood"+strconv.Itoa(from+i), perMinute, 1))
		}
	}
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	flood(0)
	before := heap()
	flood(1_000_000)
	if grown := heap() - before; grown > 256<<10 {
		t.Fatalf("a second flood kept %d more bytes", grown)
	}
	runtime.KeepAlive(s)
}

func TestUnknownCallersShareOneBucketWhenFull(t *testing.T) {
	clock := storetest.NewClock()
	s := newStore(t, memory.Config{Capacity: 2, Now: clock.Now})
	drain(t, s, "a", "x", perMinute)
	drain(t, s, "a", "y", perMinute)
	granted := 0
	for i := range 100 {
		if take(t, s, one("a", "stranger"+strconv.Itoa(i), perMinute, 1))[0].Allowed {
			granted++
		}
	}
	if granted != 6 {
		t.Fatalf("100 strangers got %d units together, want one burst of 6", granted)
	}
	// Another limit's strangers are not the worse for it.
	if n := drain(t, s, "b", "stranger", perMinute); n != 6 {
		t.Fatalf("the other limit granted %d, want 6", n)
	}
	// Units of a shared bucket are not given to whoever asks.
	if err := s.Give(context.Background(), one("a", "stranger1", perMinute, 6)); err != nil {
		t.Fatal(err)
	}
	if take(t, s, one("a", "stranger2", perMinute, 1))[0].Allowed {
		t.Fatal("a stranger gave units back to a bucket that is shared")
	}
	if got := s.Stats(); got.Buckets != 2 || got.Overflowed != 12 {
		t.Fatalf("stats %+v, want 2 buckets and 12 charges overflowed", got)
	}
}

func TestOneCallOverflowingTwiceIsChargedTwice(t *testing.T) {
	clock := storetest.NewClock()
	s := newStore(t, memory.Config{Capacity: 1, Now: clock.Now})
	drain(t, s, "a", "x", perMinute)
	both := append(one("a", "s1", perMinute, 2), one("a", "s2", perMinute, 2)...)
	if !ratelimit.Charged(both, take(t, s, both)) {
		t.Fatal("refused")
	}
	if n := drain(t, s, "a", "s3", perMinute); n != 2 {
		t.Fatalf("after two charges of 2 the shared bucket of 6 granted %d, want 2", n)
	}
}

func TestManyLimitsOverflowIntoOneBucketInTheEnd(t *testing.T) {
	clock := storetest.NewClock()
	s := newStore(t, memory.Config{Capacity: 1, Now: clock.Now})
	drain(t, s, "a", "x", perMinute)
	granted := 0
	for i := range 200 {
		granted += drain(t, s, fmt.Sprintf("limit%d", i), "stranger", perMinute)
	}
	if want := 65 * 6; granted != want {
		t.Fatalf("200 limits overflowing granted %d, want %d", granted, want)
	}
}

func TestFullBucketsMakeRoom(t *testing.T) {
	clock := storetest.NewClock()
	s := newStore(t, memory.Config{Capacity: 50, Now: clock.Now})
	for round := range 20 {
		for i := range 50 {
			subject := fmt.Sprintf("%d-%d", round, i)
			if n := drain(t, s, "a", subject, perMinute); n != 6 {
				t.Fatalf("round %d: %d units for %s, want 6", round, n, subject)
			}
		}
		clock.Advance(time.Minute)
	}
	if got := s.Stats(); got.Buckets > 50 || got.Overflowed != 0 {
		t.Fatalf("stats %+v, want no overflow", got)
	}
}

// A call that needs two buckets must not take the room of the one for the other.
func TestCallDoesNotEvictItsOwnBuckets(t *testing.T) {
	clock := storetest.NewClock()
	s := newStore(t, memory.Config{Capacity: 1, Now: clock.Now})
	both := append(one("a", "x", perMinute, 1), one("b", "y", perMinute, 1)...)
	granted := 0
	for range 20 {
		if ratelimit.Charged(both, take(t, s, both)) {
			granted++
		}
	}
	if granted != 6 {
		t.Fatalf("granted %d, want 6", granted)
	}
	for _, r := range take(t, s, append(one("a", "x", perMinute, 0), one("b", "z", perMinute, 1)...)) {
		if r.Allowed {
			t.Fatalf("%+v: a bucket was lost", r)
		}
	}
}

func TestLearnRaisesAndNeverLowers(t *testing.T) {
	clock := storetest.NewClock()
	s := newStore(t, memory.Config{Capacity: 2, Now: clock.Now})
	remaining := func(subject string) int64 {
		return take(t, s, one("a", subject, perMinute, 0))[0].Remaining
	}
	told := func(subject string, ahead time.Duration) {
		s.Learn(one("a", subject, perMinute, 1), []ratelimit.Result{{ResetAfter: ahead}})
	}
	told("x", 40*time.Second)
	if got := remaining("x"); got != 2 {
		t.Fatalf("learned of 40s ahead: %d left, want 2", got)
	}
	told("x", 10*time.Second)
	told("x", 0)
	told("x", -time.Hour)
	if got := remaining("x"); got != 2 {
		t.Fatalf("learned of less: %d left, want 2", got)
	}
	told("x", 1000*time.Hour)
	if r := take(t, s, one("a", "x", perMinute, 1))[0]; r.Allowed || r.RetryAfter != 10*time.Second {
		t.Fatalf("learned of too much: %+v", r)
	}
	told("y", time.Minute)
	told("z", time.Minute) // no room: x and y are being counted
	s.Learn(one("a", "x", perMinute, 1), nil)
	s.Learn(one("a", "", perMinute, 1), make([]ratelimit.Result, 1))
	if got := s.Stats(); got.Buckets != 2 || got.Overflowed != 0 {
		t.Fatalf("stats %+v", got)
	}
}

// Calls that name the same buckets in different orders must not wait for each
// other for ever.
func TestOppositeOrdersDoNotDeadlock(t *testing.T) {
	s := newStore(t, memory.Config{})
	rate := ratelimit.Rate{N: 10_000, Window: 366 * 24 * time.Hour} // nothing comes back meanwhile
	var reqs []ratelimit.Request
	for i := range ratelimit.MaxRequests {
		reqs = append(reqs, one("limit"+strconv.Itoa(i), "x", rate, 1)...)
	}
	reversed := slices.Clone(reqs)
	slices.Reverse(reversed)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			own := reqs
			if i%2 == 1 {
				own = reversed
			}
			for range 500 {
				take(t, s, own)
			}
		})
	}
	wg.Wait()
	for _, r := range take(t, s, reqs) {
		if spent := 10_000 - r.Remaining; spent != 4001 {
			t.Fatalf("4001 units taken, %d spent", spent)
		}
	}
}

func TestDecisionDoesNotAllocate(t *testing.T) {
	s := newStore(t, memory.Config{})
	reqs := append(one("ip", "192.0.2.1", perMinute, 1), one("user", "someone@example.com", perMinute, 1)...)
	four := append(slices.Clone(reqs), one("all", "all", perMinute, 1)...)
	four = append(four, ratelimit.Request{Limit: "trial", Subject: "192.0.2.1", Rate: perMinute, Cost: 1, Shadow: true})
	dst := make([]ratelimit.Result, 0, len(four))
	hashes := [][16]byte{ratelimit.KeyHash("ip", "192.0.2.1")}
	for _, tt := range []struct {
		name string
		call func() error
	}{
		{"take", func() error { _, err := s.Take(context.Background(), reqs, dst); return err }},
		{"give", func() error { return s.Give(context.Background(), reqs) }},
		{"debit", func() error { return s.Debit(context.Background(), reqs) }},
		{"reset", func() error { return s.Reset(context.Background(), reqs) }},
		{"forget", func() error { s.Forget(hashes); return nil }},
		{"four limits", func() error { _, err := s.Take(context.Background(), four, dst); return err }},
		{"four limits given", func() error { return s.Give(context.Background(), four) }},
		{"learn", func() error { s.Learn(reqs, []ratelimit.Result{{ResetAfter: time.Second}, {}}); return nil }},
	} {
		var err error
		if got := testing.AllocsPerRun(1000, func() { err = tt.call() }); got != 0 || err != nil {
			t.Errorf("%s: %v allocations, error %v, want none", tt.name, got, err)
		}
	}
}

func TestParallelDecisionsDoNotAllocate(t *testing.T) {
	result := testing.Benchmark(func(b *testing.B) { benchmarkParallel(b, 64, false) })
	if got := result.AllocsPerOp(); got != 0 {
		t.Errorf("%d allocations a decision at 64 goroutines, want none", got)
	}
}

func TestCapacityCanBeChangedAndResetsNobody(t *testing.T) {
	clock := storetest.NewClock()
	s := newStore(t, memory.Config{Capacity: 1000, Now: clock.Now})
	names := func(prefix string, n int) []string {
		all := make([]string, n)
		for i := range all {
			all[i] = prefix + strconv.Itoa(i)
		}
		return all
	}
	exhausted := func(subjects []string) {
		t.Helper()
		for _, subject := range subjects {
			if take(t, s, one("a", subject, perMinute, 0))[0].Allowed {
				t.Fatalf("%s was reset", subject)
			}
		}
	}
	first := names("first", 500)
	for _, subject := range first {
		drain(t, s, "a", subject, perMinute)
	}
	held := s.Stats().Buckets
	if held < 450 {
		t.Fatalf("%d buckets are held for 500 callers", held)
	}
	first = slices.DeleteFunc(first, func(subject string) bool { // Few shards are full already.
		return take(t, s, one("a", subject, perMinute, 0))[0].Allowed
	})
	// Down: nobody is reset, and no buckets are made.
	if err := s.SetCapacity(100); err != nil {
		t.Fatal(err)
	}
	for _, subject := range names("late", 2000) {
		take(t, s, one("a", subject, perMinute, 1))
	}
	exhausted(first)
	if got := s.Stats(); got.Buckets != held || got.Overflowed == 0 {
		t.Fatalf("%+v, want the %d buckets from before", got, held)
	}
	// Up: there is room, and no more than that.
	if err := s.SetCapacity(2000); err != nil {
		t.Fatal(err)
	}
	for _, subject := range names("more", 10_000) {
		take(t, s, one("a", subject, perMinute, 1))
	}
	exhausted(first)
	if got := s.Stats().Buckets; got != 2000 {
		t.Fatalf("%d buckets, want 2000", got)
	}
	// Buckets that are full again are reused whatever the capacity.
	clock.Advance(time.Minute)
	if err := s.SetCapacity(1); err != nil {
		t.Fatal(err)
	}
	overflowed := s.Stats().Overflowed
	for _, subject := range names("again", 1000) {
		drain(t, s, "a", subject, perMinute)
	}
	if got := s.Stats(); got.Buckets != 2000 || got.Overflowed != overflowed {
		t.Fatalf("%+v, want 2000 buckets and %d overflowed", got, overflowed)
	}
	for _, capacity := range []int{-1, 0, memory.MaxCapacity + 1} {
		if err := s.SetCapacity(capacity); err == nil {
			t.Errorf("capacity %d: no error", capacity)
		}
	}
}

func TestForgetIsAResetByHash(t *testing.T) {
	clock := storetest.NewClock()
	s := newStore(t, memory.Config{Now: clock.Now})
	drain(t, s, "a", "x", perMinute)
	drain(t, s, "a", "y", perMinute)
	place := []ratelimit.Request{{Limit: "c", Subject: "x", Slots: 1, Cost: 1, Holder: "h"}}
	take(t, s, place)
	s.Forget(nil)
	if take(t, s, one("a", "x", perMinute, 0))[0].Allowed {
		t.Error("forgotten without being named")
	}
	s.Forget([][16]byte{ratelimit.KeyHash("a", "x"), ratelimit.KeyHash("b", "nobody"), ratelimit.KeyHash("c", "x")})
	if n := drain(t, s, "a", "x", perMinute); n != 6 {
		t.Errorf("granted %d, want 6", n)
	}
	if n := drain(t, s, "a", "y", perMinute); n != 0 {
		t.Errorf("granted %d to somebody else, want none", n)
	}
	if !take(t, s, place)[0].Allowed {
		t.Error("the place was not freed")
	}
	if got := s.Stats().Buckets; got != 2 {
		t.Errorf("%d buckets, want 2", got)
	}
}

// Slots change hands all the time and every bucket is found by its own key.
func TestBucketsAreFoundWhileSlotsAreReused(t *testing.T) {
	clock := storetest.NewClock()
	s := newStore(t, memory.Config{Capacity: 300, Now: clock.Now})
	tats := make(map[int]int64)
	start := clock.Now()
	for n := range 30_000 {
		i := (n * n) % 997
		clock.Advance(300 * time.Millisecond)
		now := clock.Now().Sub(start).Microseconds()
		tat, want := ratelimit.Decide(now, tats[i], perMinute, 3)
		tats[i] = tat
		if got := take(t, s, one("a", strconv.Itoa(i), perMinute, 3))[0]; got != want {
			t.Fatalf("call %d: got %+v, want %+v", n, got, want)
		}
	}
	if got := s.Stats(); got.Overflowed != 0 {
		t.Fatalf("%+v: the test is about reuse", got)
	}
}
