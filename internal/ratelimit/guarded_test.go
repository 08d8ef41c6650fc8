package ratelimit_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/ratelimit"
)

var errDown = errors.New("connection refused")

// fakeStore answers as told and remembers what it was asked.
type fakeStore struct {
	mu    sync.Mutex
	err   error
	short bool
	calls []string
	last  []ratelimit.Request
}

func (f *fakeStore) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func (f *fakeStore) record(call string, reqs []ratelimit.Request) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, call)
	f.last = slices.Clone(reqs)
	return f.err
}

func (f *fakeStore) Take(_ context.Context, reqs []ratelimit.Request, dst []ratelimit.Result) ([]ratelimit.Result, error) {
	if err := f.record("take", reqs); err != nil {
		return nil, err
	}
	if f.short {
		return dst[:0], nil
	}
	dst = dst[:0]
	for range reqs {
		dst = append(dst, ratelimit.Result{Allowed: true, Remaining: 42, ResetAfter: time.Second})
	}
	return dst, nil
}

func (f *fakeStore) Give(_ context.Context, reqs []ratelimit.Request) error {
	return f.record("give", reqs)
}

func (f *fakeStore) Debit(_ context.Context, reqs []ratelimit.Request) error {
	return f.record("debit", reqs)
}

func (f *fakeStore) Reset(_ context.Context, reqs []ratelimit.Request) error {
	return f.record("reset", reqs)
}

func (f *fakeStore) asked() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.calls)
}

// learningStore is a local store that learns.
type learningStore struct {
	fakeStore
	learned []ratelimit.Result
}

func (l *learningStore) Learn(_ []ratelimit.Request, results []ratelimit.Result) {
	l.learned = append(l.learned, results...)
}

var oneRequest = []ratelimit.Request{{Limit: "login", Subject: "x", Rate: perMinute, Cost: 1}}

// withFallback is oneRequest with a policy.
func withFallback(policy ratelimit.OnError, instances int) []ratelimit.Request {
	r := oneRequest[0]
	r.Fallback = ratelimit.Fallback{OnError: policy, Instances: instances}
	return []ratelimit.Request{r}
}

func guard(t *testing.T, cfg ratelimit.GuardedConfig) *ratelimit.Guarded {
	t.Helper()
	g, err := ratelimit.NewGuarded(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// modes records degraded mode as it is reported.
type modes struct {
	mu   sync.Mutex
	seen []bool
}

func (m *modes) change(degraded bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.seen = append(m.seen, degraded)
}

func (m *modes) want(t *testing.T, want ...bool) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	if !slices.Equal(m.seen, want) {
		t.Fatalf("reported modes %v, want %v", m.seen, want)
	}
}

func TestPolicyDecidesWhileTheStoreIsAway(t *testing.T) {
	for _, tt := range []struct {
		name   string
		policy ratelimit.OnError
		want   ratelimit.Result
		err    error
		local  int
	}{
		{"closed refuses", ratelimit.Closed, ratelimit.Result{}, ratelimit.ErrUnavailable, 0},
		{"local counts here", ratelimit.Local, ratelimit.Result{Allowed: true, Remaining: 42, ResetAfter: time.Second, Degraded: true}, nil, 1},
		{"open lets pass", ratelimit.Open, ratelimit.Result{Allowed: true, Remaining: 5, Degraded: true}, nil, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			remote, local := &fakeStore{err: errDown}, &fakeStore{}
			g := guard(t, ratelimit.GuardedConfig{Remote: remote, Local: local})
			for i := range 10 { // across the opening of the breaker
				results, err := g.Take(context.Background(), withFallback(tt.policy, 0), nil)
				if !errors.Is(err, tt.err) {
					t.Fatalf("call %d: error %v, want %v", i, err, tt.err)
				}
				if tt.err != nil {
					if allAllowed(results) {
						t.Fatal("allowed beside an error")
					}
					if i == 0 && !errors.Is(err, errDown) {
						t.Fatalf("error %v hides its cause", err)
					}
					continue
				}
				if len(results) != 1 || results[0] != tt.want {
					t.Fatalf("call %d: %+v, want %+v", i, results, tt.want)
				}
			}
			if got := local.asked(); got != 10*tt.local {
				t.Errorf("local store asked %d times", got)
			}
			if remote.asked() != 5 || !g.Degraded() {
				t.Errorf("remote store asked %d times, want 5; degraded %t", remote.asked(), g.Degraded())
			}
		})
	}
}

func TestZeroPolicyIsLocal(t *testing.T) {
	if p := (ratelimit.Request{}).Fallback.OnError; p != ratelimit.Local || p.String() != "local" {
		t.Fatalf("zero policy is %s", p)
	}
}

func TestHealthyStoreIsAnsweredFor(t *testing.T) {
	remote, local := &fakeStore{}, &learningStore{}
	g := guard(t, ratelimit.GuardedConfig{Remote: remote, Local: local})
	results, err := g.Take(context.Background(), withFallback(ratelimit.Local, 4), nil)
	if err != nil || len(results) != 1 || results[0].Degraded || results[0].Remaining != 42 {
		t.Fatalf("%+v, %v", results, err)
	}
	if local.asked() != 0 {
		t.Error("local store asked beside a healthy remote one")
	}
	if !slices.Equal(local.learned, results) {
		t.Errorf("local store learned %v, want %v", local.learned, results)
	}
	if remote.last[0].Rate != perMinute {
		t.Errorf("the shared store was asked at %s", remote.last[0].Rate)
	}
}

func TestLocalShareIsDividedByInstances(t *testing.T) {
	remote, local := &fakeStore{err: errDown}, &learningStore{}
	g := guard(t, ratelimit.GuardedConfig{Remote: remote, Local: local})
	rate := ratelimit.Rate{N: 100, Window: time.Minute, Burst: 8}
	reqs := []ratelimit.Request{{Limit: "a", Subject: "x", Rate: rate, Cost: 1, Fallback: ratelimit.Fallback{Instances: 4}}}
	if _, err := g.Take(context.Background(), reqs, nil); err != nil {
		t.Fatal(err)
	}
	want := ratelimit.Rate{N: 25, Window: time.Minute, Burst: 2}
	if got := local.last[0].Rate; got != want {
		t.Errorf("local rate %s, want %s", got, want)
	}
	if reqs[0].Rate != rate {
		t.Error("the caller's requests were changed")
	}
	if len(local.learned) != 0 {
		t.Error("learned from a store that did not answer")
	}
	reqs[0].Degraded = true // as the Take's result says
	if err := g.Give(context.Background(), reqs); err != nil {
		t.Fatal(err)
	}
	if got := local.last[0].Rate; got != want {
		t.Errorf("given at %s, want %s", got, want)
	}
}

func TestFailingLocalStoreIsUnavailable(t *testing.T) {
	g := guard(t, ratelimit.GuardedConfig{Remote: &fakeStore{err: errDown}, Local: &fakeStore{err: errDown}})
	if _, err := g.Take(context.Background(), oneRequest, nil); !errors.Is(err, ratelimit.ErrUnavailable) {
		t.Errorf("take: %v", err)
	}
	degraded := withFallback(ratelimit.Local, 0)
	degraded[0].Degraded = true
	if err := g.Give(context.Background(), degraded); !errors.Is(err, ratelimit.ErrUnavailable) {
		t.Errorf("give: %v", err)
	}
}

func TestMissingResultsAreAFailure(t *testing.T) {
	g := guard(t, ratelimit.GuardedConfig{Remote: &fakeStore{short: true}, Local: &fakeStore{}})
	if _, err := g.Take(context.Background(), withFallback(ratelimit.Closed, 0), nil); !errors.Is(err, ratelimit.ErrUnavailable) {
		t.Errorf("error %v", err)
	}
}

func TestInvalidRequestsMeetNoPolicy(t *testing.T) {
	remote := &fakeStore{err: errDown}
	g := guard(t, ratelimit.GuardedConfig{Remote: remote, Local: &fakeStore{}})
	invalid := []ratelimit.Request{{Limit: "a", Rate: perMinute, Cost: 1, Fallback: ratelimit.Fallback{OnError: ratelimit.Open}}}
	results, err := g.Take(context.Background(), invalid, nil)
	if !errors.Is(err, ratelimit.ErrInvalid) || allAllowed(results) {
		t.Errorf("take: %v, %v", results, err)
	}
	if err := g.Give(context.Background(), invalid); !errors.Is(err, ratelimit.ErrInvalid) {
		t.Errorf("give: %v", err)
	}
	if err := g.Debit(context.Background(), invalid); !errors.Is(err, ratelimit.ErrInvalid) {
		t.Errorf("debit: %v", err)
	}
	if err := g.Reset(context.Background(), invalid); !errors.Is(err, ratelimit.ErrInvalid) {
		t.Errorf("reset: %v", err)
	}
	if remote.asked() != 0 {
		t.Error("the store was asked")
	}
}

func TestGiveReachesTheStoresThatCount(t *testing.T) {
	testReaches(t, (*ratelimit.Guarded).Give)
}

func TestDebitReachesTheStoresThatCount(t *testing.T) {
	testReaches(t, (*ratelimit.Guarded).Debit)
}

func testReaches(t *testing.T, change func(*ratelimit.Guarded, context.Context, []ratelimit.Request) error) {
	t.Helper()
	for _, tt := range []struct {
		name          string
		policy        ratelimit.OnError
		remoteErr     error
		local         interface{ asked() int }
		wantLocal     int
		wantLocalRate int64
	}{
		{"healthy, local learns", ratelimit.Local, nil, &learningStore{}, 1, 6},
		{"healthy, local does not learn", ratelimit.Local, nil, &fakeStore{}, 0, 0},
		{"away", ratelimit.Local, errDown, &learningStore{}, 1, 6},
		{"away and open", ratelimit.Open, errDown, &learningStore{}, 0, 0},
		{"away and closed", ratelimit.Closed, errDown, &learningStore{}, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			remote := &fakeStore{err: tt.remoteErr}
			local := tt.local.(ratelimit.Store)
			g := guard(t, ratelimit.GuardedConfig{Remote: remote, Local: local})
			if err := change(g, context.Background(), withFallback(tt.policy, 2)); err != nil {
				t.Fatal(err)
			}
			if remote.asked() != 1 || tt.local.asked() != tt.wantLocal {
				t.Fatalf("remote %d, local %d calls", remote.asked(), tt.local.asked())
			}
			if l, ok := local.(*learningStore); ok && tt.wantLocal > 0 && l.last[0].Rate.N != tt.wantLocalRate {
				t.Errorf("given at %s", l.last[0].Rate)
			}
		})
	}
}

func TestResetTellsWhenTheSharedStoreKeepsItsCount(t *testing.T) {
	remote, local := &fakeStore{}, &fakeStore{}
	g := guard(t, ratelimit.GuardedConfig{Remote: remote, Local: local})
	if err := g.Reset(context.Background(), oneRequest); err != nil || remote.asked() != 1 || local.asked() != 1 {
		t.Fatalf("error %v, remote %d, local %d", err, remote.asked(), local.asked())
	}
	remote.fail(errDown)
	for i := range 10 {
		if err := g.Reset(context.Background(), oneRequest); !errors.Is(err, ratelimit.ErrUnavailable) {
			t.Fatalf("call %d: error %v", i, err)
		}
	}
	if local.asked() != 11 {
		t.Errorf("local store asked %d times, want 11", local.asked())
	}
}

func TestGuardedConfigReportsEveryMistake(t *testing.T) {
	store := &fakeStore{}
	for _, tt := range []struct {
		name string
		cfg  ratelimit.GuardedConfig
		want []string
	}{
		{"zero", ratelimit.GuardedConfig{}, []string{"remote store", "local store"}},
		{"local without a store", ratelimit.GuardedConfig{Remote: store}, []string{"local store"}},
		{
			"clock beside a breaker",
			ratelimit.GuardedConfig{Remote: store, Local: store, Now: time.Now, Breaker: ratelimit.NewBreaker(ratelimit.BreakerConfig{})},
			[]string{"shared breaker"},
		},
		{
			"all",
			ratelimit.GuardedConfig{OnChange: func(bool) {}, Breaker: ratelimit.NewBreaker(ratelimit.BreakerConfig{})},
			[]string{"remote store", "local store", "shared breaker"},
		},
	} {
		g, err := ratelimit.NewGuarded(tt.cfg)
		if err == nil || g != nil {
			t.Errorf("%s: accepted", tt.name)
			continue
		}
		for _, want := range tt.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: error %q does not name %q", tt.name, err, want)
			}
		}
	}
}

// These are mistakes of each request, not of the store.
func TestCheckReportsWhatNoStoreCanFollow(t *testing.T) {
	for _, tt := range []struct {
		name string
		req  ratelimit.Request
		want string // empty: valid
	}{
		{"unknown policy", ratelimit.Request{Fallback: ratelimit.Fallback{OnError: 3}}, "policy 3"},
		{"last policy", ratelimit.Request{Fallback: ratelimit.Fallback{OnError: ratelimit.Closed}}, ""},
		{"negative instances", ratelimit.Request{Fallback: ratelimit.Fallback{Instances: -1}}, "instances -1"},
		{"too many instances", ratelimit.Request{Fallback: ratelimit.Fallback{Instances: 100_001}}, "instances 100001"},
		{"as many instances as there may be", ratelimit.Request{Fallback: ratelimit.Fallback{Instances: 100_000}}, ""},
		{"negative lease", ratelimit.Request{Lease: -1}, "lease -1"},
		{"negative places", ratelimit.Request{Slots: -1, Holder: "h"}, "-1 places"},
		{"too many places", ratelimit.Request{Slots: 1_000_001, Holder: "h"}, "1000001 places"},
		{"two places at once", ratelimit.Request{Slots: 5, Cost: 2, Holder: "h"}, "5 places"},
		{"place of nobody", ratelimit.Request{Slots: 5, Cost: 1}, "5 places"},
		{"look at places", ratelimit.Request{Slots: 5}, ""},
		{"place", ratelimit.Request{Slots: 1_000_000, Cost: 1, Holder: "h"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.req.Limit, tt.req.Subject = "a", "x"
			if tt.req.Slots == 0 {
				tt.req.Rate = perMinute
			}
			err := ratelimit.Check([]ratelimit.Request{tt.req})
			if tt.want == "" && err != nil {
				t.Fatal(err)
			}
			if tt.want != "" && (!errors.Is(err, ratelimit.ErrInvalid) || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("error %v does not name %q", err, tt.want)
			}
		})
	}
}

func TestTheShareOfPlacesIsAtLeastOne(t *testing.T) {
	for _, tt := range []struct {
		instances   int
		slots, want int64
	}{{0, 10, 10}, {1, 10, 10}, {4, 10, 2}, {4, 3, 1}} {
		local := &learningStore{}
		g := guard(t, ratelimit.GuardedConfig{Remote: &fakeStore{err: errDown}, Local: local})
		reqs := []ratelimit.Request{{Limit: "a", Subject: "x", Slots: tt.slots, Holder: "h", Cost: 1, Degraded: true, Fallback: ratelimit.Fallback{Instances: tt.instances}}}
		for name, do := range map[string]func() error{
			"take":  func() error { _, err := g.Take(context.Background(), reqs, nil); return err },
			"give":  func() error { return g.Give(context.Background(), reqs) },
			"debit": func() error { return g.Debit(context.Background(), reqs) },
		} {
			if err := do(); err != nil || local.calls[len(local.calls)-1] != name || local.last[0].Slots != tt.want {
				t.Errorf("%s of %d places on %d instances: %s %+v, error %v", name, tt.slots, tt.instances, local.calls, local.last, err)
			}
		}
		if reqs[0].Slots != tt.slots {
			t.Error("the caller's requests were changed")
		}
	}
}

func TestParseOnError(t *testing.T) {
	for _, p := range []ratelimit.OnError{ratelimit.Local, ratelimit.Open, ratelimit.Closed} {
		if got, err := ratelimit.ParseOnError(p.String()); err != nil || got != p {
			t.Errorf("%s: %s, %v", p, got, err)
		}
	}
	for _, s := range []string{"", "Local", "allow", "deny", "open "} {
		if got, err := ratelimit.ParseOnError(s); err == nil || got != ratelimit.Closed {
			t.Errorf("%q: %s, %v, want closed and an error", s, got, err)
		}
	}
	if got := ratelimit.OnError(9).String(); got != "OnError("+strconv.Itoa(9)+")" {
		t.Error(got)
	}
}

func TestHealthyGuardDoesNotAllocate(t *testing.T) {
	g := guard(t, ratelimit.GuardedConfig{Remote: quietStore{}, Local: &fakeStore{}})
	dst := make([]ratelimit.Result, 0, 1)
	var err error
	if n := testing.AllocsPerRun(100, func() { _, err = g.Take(context.Background(), oneRequest, dst) }); n > 0 || err != nil {
		t.Errorf("%v allocations, error %v", n, err)
	}
}

type quietStore struct{}

func (quietStore) Take(_ context.Context, _ []ratelimit.Request, dst []ratelimit.Result) ([]ratelimit.Result, error) {
	return append(dst[:0], ratelimit.Result{Allowed: true}), nil
}
func (quietStore) Give(context.Context, []ratelimit.Request) error  { return nil }
func (quietStore) Debit(context.Context, []ratelimit.Request) error { return nil }
func (quietStore) Reset(context.Context, []ratelimit.Request) error { return nil }

func TestEachRequestHasItsOwnPolicyWhileTheStoreIsAway(t *testing.T) {
	request := func(limit string, f ratelimit.Fallback, shadow bool) ratelimit.Request {
		return ratelimit.Request{Limit: limit, Subject: "x", Rate: perMinute, Cost: 1, Shadow: shadow, Fallback: f}
	}
	local := request("local", ratelimit.Fallback{Instances: 2}, false)
	open := request("open", ratelimit.Fallback{OnError: ratelimit.Open}, false)
	closed := request("closed", ratelimit.Fallback{OnError: ratelimit.Closed}, false)
	shadow := request("shadow", ratelimit.Fallback{OnError: ratelimit.Closed}, true)
	places := ratelimit.Request{
		Limit: "places", Subject: "x", Slots: 10, Cost: 1, Holder: "h", Fallback: ratelimit.Fallback{Instances: 4},
	}
	counts := &fakeStore{}
	g := guard(t, ratelimit.GuardedConfig{Remote: &fakeStore{err: errDown}, Local: counts})
	results, err := g.Take(context.Background(), []ratelimit.Request{open, local, shadow, places}, nil)
	if err != nil {
		t.Fatal(err)
	}
	counted := ratelimit.Result{Allowed: true, Remaining: 42, ResetAfter: time.Second, Degraded: true}
	want := []ratelimit.Result{{Allowed: true, Remaining: 5, Degraded: true}, counted, {Unavailable: true, Degraded: true}, counted}
	if !slices.Equal(results, want) {
		t.Errorf("got  %+v\nwant %+v", results, want)
	}
	if len(counts.last) != 2 || counts.last[0].Rate.N != 3 || counts.last[1].Slots != 2 {
		t.Errorf("the local store was asked for %+v", counts.last)
	}
	if _, err := g.Take(context.Background(), []ratelimit.Request{open, local, closed}, nil); !errors.Is(err, ratelimit.ErrUnavailable) {
		t.Errorf("beside a closed one: error %v", err)
	}
	if counts.asked() != 1 {
		t.Error("the local store was charged for a call that is refused")
	}
}

func TestALocalStoreThatLosesResultsIsUnavailable(t *testing.T) {
	g := guard(t, ratelimit.GuardedConfig{Remote: &fakeStore{err: errDown}, Local: &fakeStore{short: true}})
	if _, err := g.Take(context.Background(), oneRequest, nil); !errors.Is(err, ratelimit.ErrUnavailable) {
		t.Errorf("error %v", err)
	}
}

// TestUnitsGoBackWhereTheyWereTaken: a unit that this instance counted alone was
// never taken from the shared store.
func TestUnitsGoBackWhereTheyWereTaken(t *testing.T) {
	remote, local := &fakeStore{}, &learningStore{}
	g := guard(t, ratelimit.GuardedConfig{Remote: remote, Local: local})
	reqs := withFallback(ratelimit.Local, 2)
	reqs[0].Degraded = true
	if err := g.Give(context.Background(), reqs); err != nil || remote.asked() != 0 || local.asked() != 1 || local.last[0].Rate.N != 3 {
		t.Errorf("error %v, remote asked %d times, local %d times for %+v", err, remote.asked(), local.asked(), local.last)
	}
}

// releasing is a remote store that renews places.
type releasing struct {
	fakeStore
	released int
}

func (r *releasing) Release(reqs []ratelimit.Request) { r.released += len(reqs) }

func TestPlacesAreNoLongerHeldAlsoWhileTheStoreIsAway(t *testing.T) {
	remote := &releasing{fakeStore: fakeStore{err: errDown}}
	breaker := ratelimit.NewBreaker(ratelimit.BreakerConfig{Probe: func() error { return errDown }})
	defer breaker.Close()
	g := guard(t, ratelimit.GuardedConfig{Remote: remote, Local: &fakeStore{}, Breaker: breaker})
	for range 5 {
		_, _ = g.Take(context.Background(), oneRequest, nil)
	}
	asked := remote.asked()
	if err := g.Give(context.Background(), oneRequest); err != nil || remote.released != 1 || remote.asked() != asked {
		t.Errorf("error %v, %d released, asked %d times more", err, remote.released, remote.asked()-asked)
	}
}

// TestWhatCameBackByItselfIsNotGivenTwice takes units, lets the bucket fill, empties
// it and then gives the first ones back.
func TestWhatCameBackByItselfIsNotGivenTwice(t *testing.T) {
	rate := ratelimit.Rate{N: 5, Window: 15 * time.Minute}
	r := ratelimit.Request{Limit: "a", Subject: "x", Rate: rate, Cost: 1, Level: 3 * time.Minute}
	for age, want := range map[time.Duration]time.Duration{
		time.Second: 3*time.Minute - time.Second, 3 * time.Minute: 0, 14 * time.Minute: 0,
	} {
		r.Age = age
		now := (20 * time.Minute).Microseconds()
		empty := now + rate.SpanMicros()
		if back := time.Duration(empty-ratelimit.Refund(now, empty, r)) * time.Microsecond; back != want {
			t.Errorf("after %s: %s given back, want %s", age, back, want)
		}
	}
}
