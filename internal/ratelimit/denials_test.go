package ratelimit_test

import (
	"context"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/ratelimit"
	"github.com/moat-gateway/moat/internal/ratelimit/memory"
	"github.com/moat-gateway/moat/internal/ratelimit/storetest"
)

// asked counts the calls that a store gets.
type asked struct {
	ratelimit.Store
	mu    sync.Mutex
	calls int
	units int64
}

func (a *asked) Take(ctx context.Context, reqs []ratelimit.Request, dst []ratelimit.Result) ([]ratelimit.Result, error) {
	a.mu.Lock()
	a.calls++
	for _, r := range reqs {
		a.units += r.Cost
	}
	a.mu.Unlock()
	return a.Store.Take(ctx, reqs, dst)
}

// reset returns the calls since the last time.
func (a *asked) reset() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := a.calls
	a.calls, a.units = 0, 0
	return n
}

func newMemory(tb testing.TB, clock *storetest.Clock) *memory.Store {
	tb.Helper()
	s, err := memory.New(memory.Config{Now: clock.Now})
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func newDenials(tb testing.TB) (*ratelimit.Denials, *asked, *storetest.Clock) {
	tb.Helper()
	clock := storetest.NewClock()
	next := &asked{Store: newMemory(tb, clock)}
	return ratelimit.NewDenials(next, clock.Now), next, clock
}

func takeOne(tb testing.TB, s ratelimit.Store, r ratelimit.Request) ratelimit.Result {
	tb.Helper()
	results, err := s.Take(context.Background(), []ratelimit.Request{r}, nil)
	if err != nil || len(results) != 1 {
		tb.Fatalf("results %v, error %v", results, err)
	}
	return results[0]
}

func exhaust(tb testing.TB, s ratelimit.Store, r ratelimit.Request) {
	tb.Helper()
	for range 10_000 {
		if !takeOne(tb, s, r).Allowed {
			return
		}
	}
	tb.Fatal("the limit never refuses")
}

var login = ratelimit.Request{Limit: "login", Subject: "x", Rate: ratelimit.Rate{N: 5, Window: time.Hour}, Cost: 1}

func TestAFloodCostsOneCallInFiveSeconds(t *testing.T) {
	for name, row := range map[string]struct {
		tentative bool
		want      int
	}{
		"units that never come back": {false, 12},
		"units that may":             {true, 60},
	} {
		d, next, clock := newDenials(t)
		r := login
		r.Tentative = row.tentative
		exhaust(t, d, r)
		next.reset()
		for range 600 { // a minute
			clock.Advance(100 * time.Millisecond)
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					got := takeOne(t, d, r)
					if got.Allowed || got.RetryAfter <= 0 || got.RetryAfter > 12*time.Minute {
						t.Errorf("%s: %+v", name, got)
					}
				})
			}
			wg.Wait()
		}
		if n := next.reset(); n > row.want {
			t.Errorf("%s: 4800 refusals in a minute cost %d calls, want at most %d", name, n, row.want)
		}
	}
}

// TestARefusalIsTheOneTheStoreWouldGive runs the same random requests against a
// store with and without memory of refusals.
func TestARefusalIsTheOneTheStoreWouldGive(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // A repeatable schedule.
	for range 200 {
		clock := storetest.NewClock()
		plain := newMemory(t, clock)
		d := ratelimit.NewDenials(newMemory(t, clock), clock.Now)
		rate := ratelimit.Rate{N: 1 + rng.Int64N(5), Window: time.Duration(1+rng.Int64N(20)) * time.Second}
		for step := range 200 {
			clock.Advance(time.Duration(rng.Int64N(int64(2 * time.Second))))
			r := ratelimit.Request{
				Limit: "l", Subject: strconv.Itoa(int(rng.Int64N(2))), Rate: rate, Cost: rng.Int64N(min(3, rate.N+1)),
			}
			want, got := takeOne(t, plain, r), takeOne(t, d, r)
			wait := got.RetryAfter - want.RetryAfter
			if got.Allowed != want.Allowed || wait < -time.Millisecond || wait > time.Millisecond {
				t.Fatalf("step %d, %s, cost %d: %+v, want %+v", step, rate, r.Cost, got, want)
			}
		}
	}
}

func TestWhatEndsARefusal(t *testing.T) {
	ctx := context.Background()
	reqs := []ratelimit.Request{login}
	key := [][16]byte{ratelimit.KeyHash(login.Limit, login.Subject)}
	other := [][16]byte{ratelimit.KeyHash(login.Limit, "somebody else")}
	for name, row := range map[string]struct {
		end  func(*ratelimit.Denials)
		r    func(*ratelimit.Request)
		asks bool
	}{
		"nothing":                 {func(*ratelimit.Denials) {}, nil, false},
		"another's reset":         {func(d *ratelimit.Denials) { d.Forget(other) }, nil, false},
		"a unit that comes back":  {func(d *ratelimit.Denials) { _ = d.Give(ctx, reqs) }, nil, true},
		"a reset":                 {func(d *ratelimit.Denials) { _ = d.Reset(ctx, reqs) }, nil, true},
		"a reset told by others":  {func(d *ratelimit.Denials) { d.Forget(key) }, nil, true},
		"that all are told":       {func(d *ratelimit.Denials) { d.Forget(nil) }, nil, true},
		"another rate":            {func(*ratelimit.Denials) {}, func(r *ratelimit.Request) { r.Rate.N = 50 }, true},
		"a look":                  {func(*ratelimit.Denials) {}, func(r *ratelimit.Request) { r.Cost = 0 }, true},
		"somebody else":           {func(*ratelimit.Denials) {}, func(r *ratelimit.Request) { r.Subject = "y" }, true},
		"another limit":           {func(*ratelimit.Denials) {}, func(r *ratelimit.Request) { r.Limit = "other" }, true},
		"a shadow, which refuses": {func(*ratelimit.Denials) {}, func(r *ratelimit.Request) { r.Shadow = true }, true},
		"another cost":            {func(*ratelimit.Denials) {}, func(r *ratelimit.Request) { r.Cost = 2 }, true},
	} {
		d, next, _ := newDenials(t)
		exhaust(t, d, login)
		row.end(d)
		next.reset()
		r := login
		if row.r != nil {
			row.r(&r)
		}
		takeOne(t, d, r)
		if asks := next.reset() == 1; asks != row.asks {
			t.Errorf("%s: the store was asked: %t, want %t", name, asks, row.asks)
		}
	}
}

func TestASmallerCostThanTheRefusedOneIsAskedFor(t *testing.T) {
	d, _, _ := newDenials(t)
	large := login
	large.Cost = 4
	takeOne(t, d, login)
	takeOne(t, d, login)
	if takeOne(t, d, large).Allowed {
		t.Fatal("4 of the 3 units left were granted")
	}
	if !takeOne(t, d, login).Allowed {
		t.Error("one of 3 units left was refused")
	}
}

func TestWhatIsNoRefusalOfTheStoreIsNotKept(t *testing.T) {
	degraded := &answer{result: ratelimit.Result{RetryAfter: time.Hour, Degraded: true}}
	shadow, places := login, ratelimit.Request{Limit: "p", Subject: "x", Slots: 1, Cost: 1, Holder: "h"}
	shadow.Shadow = true
	refused := &answer{result: ratelimit.Result{RetryAfter: time.Hour}}
	for name, row := range map[string]struct {
		next *answer
		r    ratelimit.Request
	}{
		"counted here alone": {degraded, login}, "a shadow": {refused, shadow}, "places": {refused, places},
	} {
		row.next.calls = 0
		d := ratelimit.NewDenials(row.next, nil)
		for range 3 {
			takeOne(t, d, row.r)
		}
		if row.next.calls != 3 {
			t.Errorf("%s: asked %d times, want 3", name, row.next.calls)
		}
	}
}

// answer is a store that always says the same.
type answer struct {
	ratelimit.Store
	result ratelimit.Result
	calls  int
}

func (a *answer) Take(_ context.Context, reqs []ratelimit.Request, dst []ratelimit.Result) ([]ratelimit.Result, error) {
	a.calls++
	dst = dst[:0]
	for range reqs {
		dst = append(dst, a.result)
	}
	return dst, nil
}

func TestBesideAKnownRefusalNothingIsCharged(t *testing.T) {
	d, next, clock := newDenials(t)
	exhaust(t, d, login)
	next.reset()
	beside := ratelimit.Request{Limit: "beside", Subject: "x", Rate: perMinute, Cost: 1}
	for range 20 {
		results, err := d.Take(context.Background(), []ratelimit.Request{beside, login}, nil)
		if err != nil || len(results) != 2 || !results[0].Allowed || results[1].Allowed {
			t.Fatalf("results %v, error %v", results, err)
		}
	}
	if n := next.reset(); n != 0 {
		t.Errorf("%d calls", n)
	}
	clock.Advance(6 * time.Second)
	if got := takeOne(t, d, beside); got.Remaining != 5 {
		t.Errorf("%d units are left beside the refusals, want 5", got.Remaining)
	}
}

func TestRefusalsOfManyTakeBoundedMemory(t *testing.T) {
	next := &answer{result: ratelimit.Result{RetryAfter: time.Hour}}
	d := ratelimit.NewDenials(next, nil)
	const callers = 100_000
	for i := range callers {
		takeOne(t, d, ratelimit.Request{Limit: "l", Subject: strconv.Itoa(i), Rate: perMinute, Cost: 1})
	}
	next.calls = 0
	for i := range callers {
		takeOne(t, d, ratelimit.Request{Limit: "l", Subject: strconv.Itoa(i), Rate: perMinute, Cost: 1})
	}
	if kept := callers - next.calls; kept > 64*1024 {
		t.Errorf("%d refusals are remembered", kept)
	}
}

func TestNoRefusalsCostNothing(t *testing.T) {
	d := ratelimit.NewDenials(quietStore{}, nil)
	dst := make([]ratelimit.Result, 0, 1)
	reqs := []ratelimit.Request{login}
	var err error
	if n := testing.AllocsPerRun(100, func() { _, err = d.Take(context.Background(), reqs, dst) }); n > 0 || err != nil {
		t.Errorf("%v allocations, error %v", n, err)
	}
}

func BenchmarkKnownRefusal(b *testing.B) {
	d := ratelimit.NewDenials(&answer{result: ratelimit.Result{RetryAfter: time.Hour}}, nil)
	reqs := []ratelimit.Request{login}
	takeOne(b, d, login)
	b.ReportAllocs()
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		dst := make([]ratelimit.Result, 0, 1)
		for pb.Next() {
			if _, err := d.Take(context.Background(), reqs, dst); err != nil {
				b.Error(err)
			}
		}
	})
}
