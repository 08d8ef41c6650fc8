package ratelimit_test

import (
	"context"
	"math/rand/v2"
	"runtime"
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
		// Not fewer either, lest what came back elsewhere be noticed late.
		if n := next.reset(); n > row.want || n < row.want-1 {
			t.Errorf("%s: 4800 refusals in a minute cost %d calls, want %d", name, n, row.want)
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
	if counted, held := ratelimit.Kept(d); held > ratelimit.MostKept || counted != held {
		t.Errorf("%d are kept, %d at most; %d are counted", held, ratelimit.MostKept, counted)
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

// hooked is a store whose Take runs something before it answers.
type hooked struct {
	ratelimit.Store
	before func()
}

func (h *hooked) Take(ctx context.Context, reqs []ratelimit.Request, dst []ratelimit.Result) ([]ratelimit.Result, error) {
	results, err := h.Store.Take(ctx, reqs, dst)
	if h.before != nil {
		h.before()
	}
	return results, err
}

func TestOneOfManyAsksAgain(t *testing.T) {
	clock := storetest.NewClock()
	next := &asked{Store: newMemory(t, clock)}
	slow := &hooked{Store: next}
	d := ratelimit.NewDenials(slow, clock.Now)
	exhaust(t, d, login)
	next.reset()
	clock.Advance(5 * time.Second)
	answered, release := make(chan bool, 64), make(chan struct{})
	slow.before = func() { <-release }
	for range 64 {
		go func() {
			results, err := d.Take(context.Background(), []ratelimit.Request{login}, nil)
			answered <- err == nil && !results[0].Allowed
		}()
	}
	// The one that asks gets its answer only after all the others got theirs.
	for i := range 64 {
		if i == 63 {
			close(release)
		}
		select {
		case ok := <-answered:
			if !ok {
				t.Error("not refused")
			}
		case <-time.After(10 * time.Second):
			close(release)
			t.Fatalf("%d of 64 are answered while one asks, want 63", i)
		}
	}
	if n := next.reset(); n != 1 {
		t.Errorf("%d calls at the moment of asking again, want 1", n)
	}
}

// The answer is on its way for two of the four seconds.
func TestARefusalThatTookLongIsNotKeptForLonger(t *testing.T) {
	clock := storetest.NewClock()
	slow := &hooked{Store: newMemory(t, clock)}
	d := ratelimit.NewDenials(slow, clock.Now)
	r := login
	r.Rate = ratelimit.Rate{N: 1, Window: 4 * time.Second}
	takeOne(t, d, r)
	slow.before = func() { clock.Advance(2 * time.Second) }
	if got := takeOne(t, d, r); got.Allowed || got.RetryAfter != 4*time.Second {
		t.Fatalf("%+v", got)
	}
	clock.Advance(2 * time.Second)
	if !takeOne(t, d, r).Allowed {
		t.Error("refused although the unit is back")
	}
}

func TestARefusalFromBeforeAResetIsNotKept(t *testing.T) {
	for name, end := range map[string]func(*ratelimit.Denials){
		"here":      func(d *ratelimit.Denials) { _ = d.Reset(context.Background(), []ratelimit.Request{login}) },
		"by others": func(d *ratelimit.Denials) { d.Forget([][16]byte{ratelimit.KeyHash(login.Limit, login.Subject)}) },
		"of all":    func(d *ratelimit.Denials) { d.Forget(nil) },
	} {
		next := &asked{Store: newMemory(t, storetest.NewClock())}
		slow := &hooked{Store: next}
		d := ratelimit.NewDenials(slow, nil)
		exhaust(t, next, login)
		slow.before = func() { end(d) }
		takeOne(t, d, login)
		slow.before = nil
		next.reset()
		takeOne(t, d, login)
		if next.reset() != 1 {
			t.Errorf("%s: what the store said before is repeated", name)
		}
	}
}

// Two refusals of one call that are due at different moments must not put each
// other off for ever.
func TestRefusalsBesideEachOtherAreAskedForAgain(t *testing.T) {
	d, next, clock := newDenials(t)
	a, b := login, login
	b.Limit = "other"
	exhaust(t, d, a)
	clock.Advance(2500 * time.Millisecond)
	exhaust(t, d, b)
	next.reset()
	for range 600 { // a minute
		clock.Advance(100 * time.Millisecond)
		if _, err := d.Take(context.Background(), []ratelimit.Request{a, b}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if n := next.reset(); n < 11 || n > 12 {
		t.Errorf("asked %d times in a minute, want once in five seconds", n)
	}
}

// TestWhatIsKeptIsCounted mixes everything from several sides; with the race
// detector it also looks at the locks.
func TestWhatIsKeptIsCounted(t *testing.T) {
	d, _, clock := newDenials(t)
	var wg sync.WaitGroup
	for seed := range uint64(8) {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, 5)) //nolint:gosec // A repeatable schedule.
			for range 2000 {
				r := ratelimit.Request{Limit: "l", Subject: strconv.Itoa(rng.IntN(20)), Rate: perMinute, Cost: 1 + rng.Int64N(3)}
				reqs := []ratelimit.Request{r}
				switch rng.IntN(12) {
				case 0:
					_ = d.Give(context.Background(), reqs)
				case 1:
					_ = d.Reset(context.Background(), reqs)
				case 2:
					d.Forget([][16]byte{ratelimit.KeyHash(r.Limit, r.Subject)})
				case 3:
					_ = d.Debit(context.Background(), reqs)
				case 4:
					clock.Advance(time.Second)
				case 5:
					if rng.IntN(20) == 0 {
						d.Forget(nil)
					}
				default:
					_, _ = d.Take(context.Background(), reqs, nil)
				}
			}
		})
	}
	wg.Wait()
	if counted, held := ratelimit.Kept(d); counted != held {
		t.Errorf("%d are counted, %d are kept", counted, held)
	}
	d.Forget(nil)
	if counted, held := ratelimit.Kept(d); counted != 0 || held != 0 {
		t.Errorf("after all were forgotten %d are counted, %d are kept", counted, held)
	}
}

func BenchmarkDenialsRefusal(b *testing.B) {
	benchmarkTake(b, func() (ratelimit.Store, []ratelimit.Request) {
		d := ratelimit.NewDenials(&answer{result: ratelimit.Result{RetryAfter: 24 * time.Hour}}, storetest.NewClock().Now)
		takeOne(b, d, login)
		return d, []ratelimit.Request{login}
	})
}

// benchmarkTake asks one store from one and from 64 goroutines.
func benchmarkTake(b *testing.B, prepare func() (ratelimit.Store, []ratelimit.Request)) {
	b.Run("goroutines=1", func(b *testing.B) {
		s, reqs := prepare()
		dst := make([]ratelimit.Result, 0, 1)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := s.Take(context.Background(), reqs, dst); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("goroutines=64", func(b *testing.B) {
		s, reqs := prepare()
		b.SetParallelism(max(1, 64/runtime.GOMAXPROCS(0)))
		b.ReportAllocs()
		b.ResetTimer()
		b.RunParallel(func(pb *testing.PB) {
			dst := make([]ratelimit.Result, 0, 1)
			for pb.Next() {
				if _, err := s.Take(context.Background(), reqs, dst); err != nil {
					b.Error(err)
					return
				}
			}
		})
	})
}
