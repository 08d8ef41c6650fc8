package ratelimit_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/ratelimit"
	"github.com/moat-gateway/moat/internal/ratelimit/memory"
	"github.com/moat-gateway/moat/internal/ratelimit/storetest"
)

const leased = 10

// hot is a request of a limit whose units may be taken in advance.
func hot(rate ratelimit.Rate) ratelimit.Request {
	return ratelimit.Request{Limit: "hot", Subject: "x", Rate: rate, Cost: 1, Lease: leased}
}

// fleet is instances with leases in front of one store.
func fleet(tb testing.TB, n int) ([]*ratelimit.Leases, *asked, *storetest.Clock) {
	tb.Helper()
	clock := storetest.NewClock()
	next := &asked{Store: newMemory(tb, clock)}
	var all []*ratelimit.Leases
	for range n {
		all = append(all, ratelimit.NewLeases(next, clock.Now))
	}
	return all, next, clock
}

func TestABusySubjectCostsACallALease(t *testing.T) {
	all, next, _ := fleet(t, 1)
	r := hot(ratelimit.Rate{N: 100_000, Window: time.Hour})
	for range 1000 {
		if !takeOne(t, all[0], r).Allowed {
			t.Fatal("refused")
		}
	}
	// The first ten are asked for one by one, and then each for ten.
	if n := next.reset(); n > leased+100 {
		t.Errorf("1000 requests cost %d calls, want %d at most", n, leased+100)
	}
}

func TestASubjectThatIsNotBusyIsCountedExactly(t *testing.T) {
	all, next, clock := fleet(t, 1)
	r := hot(ratelimit.Rate{N: 100_000, Window: time.Hour})
	for range 500 {
		clock.Advance(150 * time.Millisecond) // six a second, fewer than a lease
		takeOne(t, all[0], r)
	}
	if next.calls != 500 || next.units != 500 {
		t.Errorf("500 requests took %d units in %d calls", next.units, next.calls)
	}
}

// TestLeasesGrantNoMoreThanTheyPromise sends random loads through three instances
// and looks at every interval between two grants.
func TestLeasesGrantNoMoreThanTheyPromise(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4)) //nolint:gosec // A repeatable schedule.
	rate := ratelimit.Rate{N: 100, Window: 10 * time.Second}
	over := false
	for range 30 {
		all, _, clock := fleet(t, 3)
		var grants []time.Time
		for range 2000 {
			if rng.IntN(4) == 0 {
				clock.Advance(time.Duration(rng.Int64N(int64(400 * time.Millisecond))))
			}
			if takeOne(t, all[rng.IntN(3)], hot(rate)).Allowed {
				grants = append(grants, clock.Now())
			}
		}
		for from := range grants {
			for to := from + 1; to < len(grants); to++ {
				granted := float64(to - from + 1)
				exact := 100 + grants[to].Sub(grants[from]).Seconds()*10
				over = over || granted > exact+1
				if granted > exact+3*leased {
					t.Fatalf("%v granted in %s, want %v at most", granted, grants[to].Sub(grants[from]), exact+3*leased)
				}
			}
		}
		// Over the whole time nothing was granted that was not taken before.
		total := clock.Now().Sub(storetest.NewClock().Now()).Seconds()*10 + 100
		if float64(len(grants)) > total {
			t.Fatalf("%d granted in all, want %v at most", len(grants), total)
		}
	}
	if over {
		t.Log("some interval saw more than burst + rate × interval")
	}
}

// TestLeasesCanGrantMoreThanTheRate shows the price, in the worst case: every
// instance holds a lease from before the interval begins.
func TestLeasesCanGrantMoreThanTheRate(t *testing.T) {
	all, next, clock := fleet(t, 3)
	// A hundred a second: what was leased at the end of one second is back in the
	// bucket within the next.
	rate := ratelimit.Rate{N: 100, Window: time.Second}
	r := hot(rate)
	for _, l := range all {
		for range leased + 1 { // the last one leases
			takeOne(t, l, r)
		}
	}
	clock.Advance(900 * time.Millisecond)
	granted := 0
	for range 500 {
		for _, l := range all {
			if takeOne(t, l, r).Allowed {
				granted++
			}
		}
	}
	if most := 100 + 3*leased; granted <= 100 || granted > most {
		t.Errorf("%d granted at one moment, want more than the burst of 100 and at most %d", granted, most)
	}
	t.Logf("%d granted at one moment; burst 100, 3 instances with leases of %d", granted, leased)
	clock.Advance(time.Hour)
	next.reset()
	if n := drainAll(t, all[0], r); n != 100 {
		t.Errorf("after an hour %d granted, want the burst of 100", n)
	}
}

// drainAll takes until refused.
func drainAll(tb testing.TB, s ratelimit.Store, r ratelimit.Request) int {
	tb.Helper()
	for n := range 10_000 {
		if !takeOne(tb, s, r).Allowed {
			return n
		}
	}
	tb.Fatal("the limit never refuses")
	return 0
}

func TestTheLastUnitsAreGrantedOneByOne(t *testing.T) {
	all, _, _ := fleet(t, 2)
	r := hot(ratelimit.Rate{N: 103, Window: 24 * time.Hour})
	if n := drainAll(t, all[0], r); n != 103 {
		t.Errorf("%d granted by one instance, want 103", n)
	}
}

func TestWhatIsLeftOfALeaseIsDropped(t *testing.T) {
	all, next, clock := fleet(t, 1)
	r := hot(ratelimit.Rate{N: 1000, Window: 24 * time.Hour})
	for range leased + 1 {
		takeOne(t, all[0], r)
	}
	if next.units != 2*leased {
		t.Fatalf("%d units taken, want ten one by one and ten at once", next.units)
	}
	clock.Advance(ratelimit.LeaseTime)
	next.reset()
	takeOne(t, all[0], r)
	if next.calls != 1 {
		t.Error("a lease was spent after its time")
	}
}

func TestARefusalByAnotherLimitCostsNothingOfTheLease(t *testing.T) {
	all, _, _ := fleet(t, 1)
	r := hot(ratelimit.Rate{N: 200, Window: 24 * time.Hour})
	for range leased + 1 {
		takeOne(t, all[0], r)
	}
	one := ratelimit.Request{Limit: "other", Subject: "x", Rate: ratelimit.Rate{N: 1, Window: 24 * time.Hour}, Cost: 1}
	both := []ratelimit.Request{r, one}
	granted := leased + 1
	for range 50 {
		results, err := all[0].Take(context.Background(), both, nil)
		if err != nil {
			t.Fatal(err)
		}
		if ratelimit.Charged(both, results) {
			granted++
		}
	}
	if granted += drainAll(t, all[0], r); granted != 200 {
		t.Errorf("%d granted in all, want 200: refusals by another limit took units", granted)
	}
}

func TestAnotherRateEndsALease(t *testing.T) {
	all, next, _ := fleet(t, 1)
	for range leased + 1 {
		takeOne(t, all[0], hot(ratelimit.Rate{N: 1000, Window: time.Hour}))
	}
	next.reset()
	takeOne(t, all[0], hot(ratelimit.Rate{N: 500, Window: time.Hour}))
	if next.calls != 1 {
		t.Error("units of another rate were spent")
	}
}

func TestAResetEndsALease(t *testing.T) {
	for name, end := range map[string]func(*ratelimit.Leases){
		"here":      func(l *ratelimit.Leases) { _ = l.Reset(context.Background(), []ratelimit.Request{hot(perMinute)}) },
		"by others": func(l *ratelimit.Leases) { l.Forget([][16]byte{ratelimit.KeyHash("hot", "x")}) },
		"of all":    func(l *ratelimit.Leases) { l.Forget(nil) },
	} {
		all, next, _ := fleet(t, 1)
		r := hot(ratelimit.Rate{N: 1000, Window: time.Hour})
		for range leased + 1 {
			takeOne(t, all[0], r)
		}
		end(all[0])
		next.reset()
		takeOne(t, all[0], r)
		if next.calls != 1 {
			t.Errorf("%s: the lease was spent on", name)
		}
	}
}

// TestParallelCallersHoldOneLease has them race for the next one.
func TestParallelCallersHoldOneLease(t *testing.T) {
	store, err := memory.New(memory.Config{})
	if err != nil {
		t.Fatal(err)
	}
	l := ratelimit.NewLeases(store, nil)
	r := hot(ratelimit.Rate{N: 5000, Window: 24 * time.Hour})
	var granted atomic.Int64
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 1000 {
				if takeOne(t, l, r).Allowed {
					granted.Add(1)
				}
				left, _ := store.Take(context.Background(), []ratelimit.Request{{Limit: "hot", Subject: "x", Rate: r.Rate}}, nil)
				// What was taken and not granted is held, or on its way to 16 callers.
				if held := 5000 - left[0].Remaining - granted.Load(); held > leased+16 {
					t.Errorf("%d units are held", held)
				}
			}
		})
	}
	wg.Wait()
	if n := granted.Load(); n > 5000 || n < 5000-leased {
		t.Errorf("%d granted, want 5000, or up to a lease less", n)
	}
}

// TestABusySubjectStaysBusy spans many LeaseTimes: a subject does not have to
// show in each of them anew that it is busy.
func TestABusySubjectStaysBusy(t *testing.T) {
	all, next, clock := fleet(t, 1)
	r := hot(ratelimit.Rate{N: 1000, Window: time.Second})
	for range 10_000 { // a hundred a second
		clock.Advance(10 * time.Millisecond)
		if !takeOne(t, all[0], r).Allowed {
			t.Fatal("refused")
		}
	}
	if n := next.reset(); n > 10_000/leased+2*leased {
		t.Errorf("10000 requests cost %d calls, want about %d", n, 10_000/leased)
	}
	clock.Advance(2 * ratelimit.LeaseTime)
	takeOne(t, all[0], r)
	if next.units != 1 {
		t.Errorf("%d units taken for a subject that was away", next.units)
	}
}

// TestALeasedLimitIsFloodedAtNoHigherPrice: an attempt at a lease, refused, and
// the request itself must not push each other out of the memory of refusals.
func TestALeasedLimitIsFloodedAtNoHigherPrice(t *testing.T) {
	clock := storetest.NewClock()
	next := &asked{Store: newMemory(t, clock)}
	l := ratelimit.NewLeases(ratelimit.NewDenials(next, clock.Now), clock.Now)
	r := hot(ratelimit.Rate{N: 100, Window: 24 * time.Hour})
	drainAll(t, l, r)
	next.reset()
	for range 6000 { // a minute
		clock.Advance(10 * time.Millisecond)
		takeOne(t, l, r)
	}
	if n := next.reset(); n > 13 {
		t.Errorf("6000 refusals in a minute cost %d calls, want one in five seconds", n)
	}
}

func TestNearTheLimitARequestCostsACall(t *testing.T) {
	all, next, clock := fleet(t, 1)
	r := hot(ratelimit.Rate{N: 100, Window: time.Second})
	drainAll(t, all[0], r)
	next.reset()
	for range 1000 {
		clock.Advance(10 * time.Millisecond) // one unit
		if !takeOne(t, all[0], r).Allowed {
			t.Fatal("the unit that came back is refused")
		}
	}
	if n := next.reset(); n > 1000+1000/leased {
		t.Errorf("1000 requests near the limit cost %d calls", n)
	}
}

// TestOverALongTimeTheRateIsGranted keeps three instances under full load.
func TestOverALongTimeTheRateIsGranted(t *testing.T) {
	all, _, clock := fleet(t, 3)
	r := hot(ratelimit.Rate{N: 200, Window: time.Second, Burst: 100})
	granted := 0
	for step := range 60_000 { // a minute
		clock.Advance(time.Millisecond)
		if takeOne(t, all[step%3], r).Allowed {
			granted++
		}
	}
	// Twelve thousand, and the burst that was there at the beginning.
	if most := 60*200 + 100; granted > most || granted < most-3*leased {
		t.Errorf("%d granted in a minute, want %d or up to three leases less", granted, most)
	}
}

// TestMixedCostsHoldOneLease: what is too little for a large request must not be
// spent beside the lease that this one brings.
func TestMixedCostsHoldOneLease(t *testing.T) {
	clock := storetest.NewClock()
	next := &asked{Store: newMemory(t, clock)}
	slow := &hooked{Store: next}
	l := ratelimit.NewLeases(slow, clock.Now)
	one := hot(ratelimit.Rate{N: 1000, Window: 24 * time.Hour})
	large := one
	large.Cost = 5
	for range leased + 1 { // leaves nine units
		takeOne(t, l, one)
	}
	takeOne(t, l, large) // leaves four
	next.reset()
	calls := 0
	slow.before = func() {
		if calls++; calls == 1 {
			for range 4 {
				takeOne(t, l, one)
			}
		}
	}
	takeOne(t, l, large)
	if next.units != leased+4 {
		t.Errorf("%d units taken for five and four requests of one, want a lease and four", next.units)
	}
}

func TestALeaseOnItsWayDuringAResetIsDropped(t *testing.T) {
	clock := storetest.NewClock()
	next := &asked{Store: newMemory(t, clock)}
	slow := &hooked{Store: next}
	l := ratelimit.NewLeases(slow, clock.Now)
	r := hot(ratelimit.Rate{N: 1000, Window: 24 * time.Hour})
	for range leased {
		takeOne(t, l, r)
	}
	calls := 0
	slow.before = func() {
		if calls++; calls == 1 {
			_ = l.Reset(context.Background(), []ratelimit.Request{r})
			takeOne(t, l, r) // makes a new entry
		}
	}
	takeOne(t, l, r)
	next.reset()
	takeOne(t, l, r)
	if next.calls != 1 {
		t.Error("units from before the reset are spent")
	}
}

func TestARefusedLeaseCallTellsWhatIsLeft(t *testing.T) {
	all, _, _ := fleet(t, 1)
	r := hot(ratelimit.Rate{N: 200, Window: 24 * time.Hour})
	one := ratelimit.Request{Limit: "other", Subject: "x", Rate: ratelimit.Rate{N: 1, Window: 24 * time.Hour}, Cost: 1}
	takeOne(t, all[0], one)
	for range leased {
		takeOne(t, all[0], r)
	}
	for call := range 3 {
		results, err := all[0].Take(context.Background(), []ratelimit.Request{r, one}, nil)
		if err != nil || !results[0].Allowed || results[0].Remaining != 190 || results[1].Allowed {
			t.Errorf("call %d: %+v, error %v, want 190 left", call, results, err)
		}
	}
}

// While the shared store is away the units come from this instance's share, and
// must not be lost to it.
func TestALeaseOfTheLocalShareIsSpent(t *testing.T) {
	clock := storetest.NewClock()
	local := &asked{Store: newMemory(t, clock)}
	g := guard(t, ratelimit.GuardedConfig{Remote: &fakeStore{err: errDown}, Local: local})
	l := ratelimit.NewLeases(g, clock.Now)
	r := hot(ratelimit.Rate{N: 400, Window: 24 * time.Hour})
	r.Fallback.Instances = 2
	granted := 0
	for range 500 {
		got := takeOne(t, l, r)
		if !got.Degraded {
			t.Fatalf("%+v, want degraded", got)
		}
		if got.Allowed {
			granted++
		}
	}
	if granted != 200 {
		t.Errorf("%d granted from a share of 200", granted)
	}
}

func TestSomeRequestsAreNeverLeased(t *testing.T) {
	for name, change := range map[string]func(*ratelimit.Request){
		"tentative":           func(r *ratelimit.Request) { r.Tentative = true },
		"shadow":              func(r *ratelimit.Request) { r.Shadow = true },
		"lease of one":        func(r *ratelimit.Request) { r.Lease = 1 },
		"cost of a lease":     func(r *ratelimit.Request) { r.Cost = leased },
		"larger than a burst": func(r *ratelimit.Request) { r.Rate.Burst = leased - 1 },
		"look":                func(r *ratelimit.Request) { r.Cost = 0 },
		"place":               func(r *ratelimit.Request) { r.Slots, r.Holder = 100, "h" },
	} {
		all, next, clock := fleet(t, 1)
		r := hot(ratelimit.Rate{N: 10_000, Window: time.Second})
		change(&r)
		for range 5 * leased {
			clock.Advance(time.Millisecond) // ten units
			takeOne(t, all[0], r)
		}
		if next.calls != 5*leased || next.units != 5*leased*r.Cost {
			t.Errorf("%s: %d units in %d calls", name, next.units, next.calls)
		}
	}
}

func BenchmarkLeasesSpend(b *testing.B) {
	benchmarkTake(b, func() (ratelimit.Store, []ratelimit.Request) {
		// Never in want of units: the clock stands, and the bucket is large. One call
		// in ten thousand is for the next lease.
		clock := storetest.NewClock()
		r := hot(ratelimit.Rate{N: 1_000_000, Window: time.Second, Burst: 1 << 38})
		r.Lease = 10_000
		l := ratelimit.NewLeases(newMemory(b, clock), clock.Now)
		for range r.Lease + 1 {
			takeOne(b, l, r)
		}
		return l, []ratelimit.Request{r}
	})
}
