package ratelimit_test

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/ratelimit"
)

const second = int64(1_000_000) // in microseconds

var perMinute = ratelimit.Rate{N: 6, Window: time.Minute}

func TestDecide(t *testing.T) {
	const now = 1000 * second
	for _, tt := range []struct {
		name    string
		tat     int64
		rate    ratelimit.Rate
		cost    int64
		wantTAT int64
		want    ratelimit.Result
	}{
		{"zero rate refuses", now, ratelimit.Rate{}, 1, now, ratelimit.Result{RetryAfter: time.Second}},
		{"zero rate refuses a look", now, ratelimit.Rate{}, 0, now, ratelimit.Result{RetryAfter: time.Second}},
		{"negative cost refuses", now, perMinute, -1, now, ratelimit.Result{RetryAfter: time.Second}},
		{"empty bucket refuses", now + 60*second, perMinute, 1, now + 60*second,
			ratelimit.Result{RetryAfter: 10 * time.Second, ResetAfter: time.Minute}},
		{"almost one unit refuses", now + 50*second + 1, perMinute, 1, now + 50*second + 1,
			ratelimit.Result{RetryAfter: time.Microsecond, ResetAfter: 50*time.Second + time.Microsecond}},
		{"cost that does not fit refuses", now + 20*second, perMinute, 5, now + 20*second,
			ratelimit.Result{Remaining: 4, RetryAfter: 10 * time.Second, ResetAfter: 20 * time.Second}},
		{"cost that never fits refuses", now, perMinute, 7, now,
			ratelimit.Result{Remaining: 6, RetryAfter: time.Minute}},
		{"absurd cost refuses", now, perMinute, 1<<63 - 1, now,
			ratelimit.Result{Remaining: 6, RetryAfter: time.Minute}},
		{"future is cut", now + 3600*second, perMinute, 1, now + 60*second,
			ratelimit.Result{RetryAfter: 10 * time.Second, ResetAfter: time.Minute}},
		{"look at an empty bucket", now + 60*second, perMinute, 0, now + 60*second,
			ratelimit.Result{RetryAfter: 10 * time.Second, ResetAfter: time.Minute}},
		{"look at a full bucket", 0, perMinute, 0, now,
			ratelimit.Result{Allowed: true, Remaining: 6}},
		{"exactly one unit", now + 50*second, perMinute, 1, now + 60*second,
			ratelimit.Result{Allowed: true, ResetAfter: time.Minute}},
		{"the past is a full bucket", 0, perMinute, 1, now + 10*second,
			ratelimit.Result{Allowed: true, Remaining: 5, ResetAfter: 10 * time.Second}},
		{"burst above the rate", now, ratelimit.Rate{N: 6, Window: time.Minute, Burst: 10}, 10, now + 100*second,
			ratelimit.Result{Allowed: true, ResetAfter: 100 * time.Second}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tat, got := ratelimit.Decide(now, tt.tat, tt.rate, tt.cost)
			if tat != tt.wantTAT || got != tt.want {
				t.Errorf("got  %d %+v\nwant %d %+v", tat, got, tt.wantTAT, tt.want)
			}
		})
	}
}

// FuzzDecide holds one bucket to the promise of the algorithm over a run of
// requests: never more than the burst and the rate grant, and whoever waits as
// told is let through.
func FuzzDecide(f *testing.F) {
	f.Add(int64(100), int64(60_000_000), int64(0), []byte{0, 1, 2, 255, 3})
	f.Add(int64(7), int64(1_000_000), int64(3), []byte("some steps of the clock"))
	f.Add(int64(1000), int64(1000), int64(1), []byte{0, 0, 0, 0, 1, 1})
	f.Add(int64(5), int64(900_000_000), int64(5), []byte{200, 200, 200, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, n, window, burst int64, steps []byte) {
		if window < 0 || window > ratelimit.MaxWindow.Microseconds() {
			return
		}
		rate := ratelimit.Rate{N: n, Window: time.Duration(window) * time.Microsecond, Burst: burst}
		if rate.Validate() != nil {
			return
		}
		const start = 1_700_000_000 * second
		now, tat, granted := start, int64(0), int64(0)
		for _, step := range steps {
			now += int64(step) * rate.UnitMicros() / 50
			cost := int64(step % 4)
			var r ratelimit.Result
			tat, r = ratelimit.Decide(now, tat, rate, cost)
			if r.Allowed {
				granted += cost
			}
			if most := rate.Capacity() + (now-start)/rate.UnitMicros(); granted > most {
				t.Fatalf("%s: %d units in %dµs, want at most %d", rate, granted, now-start, most)
			}
			if r.Remaining < 0 || r.Remaining > rate.Capacity() || r.ResetAfter < 0 ||
				r.ResetAfter.Microseconds() > rate.SpanMicros() || r.Allowed != (r.RetryAfter == 0) {
				t.Fatalf("%s: %+v", rate, r)
			}
			if r.Allowed || cost > rate.Capacity() {
				continue
			}
			later := now + r.RetryAfter.Microseconds()
			if _, r := ratelimit.Decide(later, tat, rate, cost); !r.Allowed {
				t.Fatalf("%s: refused after waiting: %+v", rate, r)
			}
			if _, r := ratelimit.Decide(later-1, tat, rate, cost); r.Allowed {
				t.Fatalf("%s: let through before the wait was over", rate)
			}
		}
	})
}

func FuzzRescale(f *testing.F) {
	f.Add(int64(60_000_000), int64(60_000_000), int64(100), int64(3_600_000_000))
	f.Add(int64(1), int64(3), int64(7), int64(1_000_000))
	f.Add(int64(-1), int64(0), int64(1), int64(1_000))
	f.Fuzz(func(t *testing.T, ahead, oldSpan, n, window int64) {
		const now = 1_700_000_000 * second
		if window < 0 || window > ratelimit.MaxWindow.Microseconds() || ahead < -now || ahead > now || oldSpan > now {
			return
		}
		rate := ratelimit.Rate{N: n, Window: time.Duration(window) * time.Microsecond}
		if rate.Validate() != nil {
			return
		}
		got := ratelimit.Rescale(now, now+ahead, oldSpan, rate) - now
		switch {
		case got < 0 || got > rate.SpanMicros():
			t.Fatalf("%d ahead of %d: outside the bucket", got, rate.SpanMicros())
		case ahead > 0 && oldSpan > 0 && ahead >= oldSpan && got != rate.SpanMicros():
			t.Fatalf("an empty bucket became %d of %d", got, rate.SpanMicros())
		case (ahead <= 0 || oldSpan <= 0) && got != 0:
			t.Fatalf("a full bucket became %d of %d", got, rate.SpanMicros())
		case ahead > 0 && oldSpan > 0 && got == 0:
			t.Fatal("a bucket in use became full")
		}
	})
}

func TestRefundStopsAtFull(t *testing.T) {
	const now = 1000 * second
	req := func(cost int64, age time.Duration) ratelimit.Request {
		return ratelimit.Request{Rate: perMinute, Cost: cost, Age: age}
	}
	for _, tt := range []struct {
		name string
		tat  int64
		req  ratelimit.Request
		want int64
	}{
		{"one unit", now + 30*second, req(1, 0), now + 20*second},
		{"more than was taken", now + 30*second, req(6, 0), now},
		{"absurdly much", now + 30*second, req(1<<40, 0), now},
		{"nothing", now + 30*second, req(0, 0), now + 30*second},
		{"full bucket", now - 1, req(1, 0), now},
		{"young unit", now + 30*second, req(1, time.Minute-1000), now + 20*second},
		{"old unit", now + 30*second, req(1, time.Minute), now + 30*second},
		{"future is cut first", now + 900*second, req(1, 0), now + 50*second},
		{"no rate", now + 30*second, ratelimit.Request{Cost: 1}, now + 30*second},
	} {
		if got := ratelimit.Refund(now, tt.tat, tt.req); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got-now, tt.want-now)
		}
	}
}

// The hash names buckets in stores that outlive a release.
func TestKeyHashIsStable(t *testing.T) {
	golden := [16]byte{0x11, 0x92, 0xcd, 0x23, 0x20, 0x9c, 0xb1, 0x37, 0x26, 0x49, 0xbf, 0xab, 0xcd, 0x06, 0x96, 0x44}
	if got := ratelimit.KeyHash("login", "192.0.2.1"); got != golden {
		t.Errorf("the hash changed: % x", got)
	}
	seen := map[[16]byte]string{}
	for _, pair := range [][2]string{{"a", "bc"}, {"ab", "c"}, {"", "abc"}, {"abc", ""}, {"a", "b"}} {
		hash := ratelimit.KeyHash(pair[0], pair[1])
		if other, dup := seen[hash]; dup {
			t.Errorf("%q and %q share a hash", pair, other)
		}
		seen[hash] = pair[0] + "|" + pair[1]
	}
}

// allAllowed reports whether a call without looks and shadows was charged.
func allAllowed(results []ratelimit.Result) bool {
	reqs := make([]ratelimit.Request, len(results))
	for i := range reqs {
		reqs[i].Cost = 1
	}
	return ratelimit.Charged(reqs, results)
}

func TestNoResultsAllowNothing(t *testing.T) {
	allowed, refused := ratelimit.Result{Allowed: true}, ratelimit.Result{}
	counts, looks, shadow := ratelimit.Request{Cost: 1}, ratelimit.Request{}, ratelimit.Request{Cost: 1, Shadow: true}
	for _, tt := range []struct {
		reqs    []ratelimit.Request
		results []ratelimit.Result
		want    bool
	}{
		{nil, nil, false},
		{[]ratelimit.Request{counts}, nil, false},
		{[]ratelimit.Request{counts}, []ratelimit.Result{}, false},
		{[]ratelimit.Request{counts, counts}, []ratelimit.Result{allowed}, false},
		{[]ratelimit.Request{counts}, []ratelimit.Result{refused}, false},
		{[]ratelimit.Request{counts, counts}, []ratelimit.Result{allowed, refused}, false},
		{[]ratelimit.Request{counts, counts}, []ratelimit.Result{refused, allowed}, false},
		{[]ratelimit.Request{counts, counts}, []ratelimit.Result{allowed, allowed}, true},
		{[]ratelimit.Request{counts, looks}, []ratelimit.Result{allowed, refused}, true},
		{[]ratelimit.Request{shadow, counts}, []ratelimit.Result{refused, allowed}, true},
		{[]ratelimit.Request{shadow, counts}, []ratelimit.Result{allowed, refused}, false},
	} {
		if got := ratelimit.Charged(tt.reqs, tt.results); got != tt.want {
			t.Errorf("%v, %v: %t", tt.reqs, tt.results, got)
		}
	}
}

func TestCheckReportsEveryMistakeAndNoSubject(t *testing.T) {
	err := ratelimit.Check([]ratelimit.Request{
		{Limit: "login", Subject: "planted-secret", Rate: perMinute, Cost: 1},
		{Limit: "login", Subject: "planted-secret", Rate: perMinute, Cost: -3, Age: -1},
		{Limit: "", Subject: ""},
	})
	if !errors.Is(err, ratelimit.ErrInvalid) {
		t.Fatalf("error %v", err)
	}
	for _, want := range []string{"cost -3", "age -1ns", "named twice", "name of 0 bytes", "subject empty", "units 0", "window 0s"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error does not name %q:\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), "planted-secret") {
		t.Errorf("error shows the subject: %v", err)
	}
}

func TestCheckDoesNotAllocate(t *testing.T) {
	reqs := []ratelimit.Request{
		{Limit: "a", Subject: "x", Rate: perMinute, Cost: 1},
		{Limit: "b", Subject: "x", Rate: perMinute, Cost: 1},
	}
	var err error
	if n := testing.AllocsPerRun(100, func() { err = ratelimit.Check(reqs) }); n != 0 || err != nil {
		t.Errorf("%v allocations, error %v", n, err)
	}
}

func TestSettleChargesAllOrNone(t *testing.T) {
	const now = 1000 * second
	reqs := []ratelimit.Request{
		{Limit: "a", Subject: "x", Rate: perMinute, Cost: 2},
		{Limit: "b", Subject: "x", Rate: perMinute, Cost: 1},
		{Limit: "c", Subject: "x", Rate: perMinute, Cost: 0},
	}
	for _, tt := range []struct {
		name    string
		ahead   [3]int64 // seconds
		charged bool
		want    [3]int64
	}{
		{"room in all", [3]int64{0, 0, 0}, true, [3]int64{20, 10, 0}},
		{"a look into an empty bucket stops nobody", [3]int64{0, 50, 60}, true, [3]int64{20, 60, 60}},
		{"first refuses", [3]int64{50, 0, 0}, false, [3]int64{50, 0, 0}},
		{"second refuses", [3]int64{0, 60, 0}, false, [3]int64{0, 60, 0}},
		{"both refuse", [3]int64{60, 60, 60}, false, [3]int64{60, 60, 60}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tats := make([]int64, 3)
			for i := range tats {
				tats[i] = now + tt.ahead[i]*second
			}
			results, charged := ratelimit.Settle(now, reqs, tats, nil)
			if charged != tt.charged || allAllowed(results[:2]) != tt.charged {
				t.Errorf("charged %t, results %+v", charged, results)
			}
			for i := range tats {
				if got := (tats[i] - now) / second; got != tt.want[i] {
					t.Errorf("bucket %d is %ds ahead, want %ds", i, got, tt.want[i])
				}
				if ahead := time.Duration(tt.want[i]) * time.Second; results[i].ResetAfter != ahead {
					t.Errorf("result %d: reset after %s, want %s", i, results[i].ResetAfter, ahead)
				}
			}
		})
	}
}

func TestTooManyRequestsAreInvalid(t *testing.T) {
	many := make([]ratelimit.Request, ratelimit.MaxRequests+1)
	if err := ratelimit.Check(many); !errors.Is(err, ratelimit.ErrInvalid) || !strings.Contains(err.Error(), "33 requests") {
		t.Errorf("error %v", err)
	}
	if err := ratelimit.Check(nil); err != nil {
		t.Errorf("none: %v", err)
	}
}

// settleRow is one call: who asks, what is taken already and what becomes of it.
type settleRow struct {
	name    string
	reqs    []ratelimit.Request
	taken   []int64 // seconds ahead, or places in use
	charged bool
	want    []int64
	allowed []bool
}

func TestSettleWithShadowsAndPlaces(t *testing.T) {
	counts := ratelimit.Request{Rate: perMinute, Cost: 2}
	shadow := ratelimit.Request{Rate: perMinute, Cost: 1, Shadow: true}
	place := ratelimit.Request{Slots: 3, Cost: 1, Holder: "h"}
	shadowPlace := ratelimit.Request{Slots: 3, Cost: 1, Holder: "h", Shadow: true}
	look := ratelimit.Request{Slots: 3}
	type rs = []ratelimit.Request
	for _, tt := range []settleRow{
		{"shadow that fits is charged", rs{counts, shadow}, []int64{0, 0}, true, []int64{20, 10}, []bool{true, true}},
		{"shadow that does not fit stops nobody", rs{counts, shadow}, []int64{0, 60}, true, []int64{20, 60}, []bool{true, false}},
		{"shadow first", rs{shadow, counts}, []int64{60, 0}, true, []int64{60, 20}, []bool{false, true}},
		{"shadow beside a refusal is not charged", rs{shadow, counts}, []int64{0, 50}, false, []int64{0, 50}, []bool{true, false}},
		{"nothing but a shadow", rs{shadow}, []int64{0}, true, []int64{10}, []bool{true}},
		{"nothing but a shadow without room", rs{shadow}, []int64{60}, true, []int64{60}, []bool{false}},
		{"free place", rs{place}, []int64{2}, true, []int64{3}, []bool{true}},
		{"no place", rs{place}, []int64{3}, false, []int64{3}, []bool{false}},
		{"fewer places than are taken", rs{place}, []int64{9}, false, []int64{9}, []bool{false}},
		{"no place stops a rate", rs{counts, place}, []int64{0, 3}, false, []int64{0, 3}, []bool{true, false}},
		{"no room leaves the place", rs{counts, place}, []int64{50, 0}, false, []int64{50, 0}, []bool{false, true}},
		{"shadow place that is free", rs{counts, shadowPlace}, []int64{0, 1}, true, []int64{20, 2}, []bool{true, true}},
		{"shadow place that is taken", rs{counts, shadowPlace}, []int64{0, 3}, true, []int64{20, 3}, []bool{true, false}},
		{"look at free places", rs{counts, look}, []int64{0, 2}, true, []int64{20, 2}, []bool{true, true}},
		{"look at taken places", rs{counts, look}, []int64{0, 3}, true, []int64{20, 3}, []bool{true, false}},
	} {
		t.Run(tt.name, tt.run)
	}
}

func (tt settleRow) run(t *testing.T) {
	const now = 1000 * second
	states := make([]int64, len(tt.reqs))
	for i := range states {
		states[i] = tt.taken[i]
		if tt.reqs[i].Slots == 0 {
			states[i] = now + tt.taken[i]*second
		}
	}
	results, charged := ratelimit.Settle(now, tt.reqs, states, nil)
	if charged != tt.charged || ratelimit.Charged(tt.reqs, results) != tt.charged {
		t.Errorf("charged %t, results %+v", charged, results)
	}
	for i, r := range tt.reqs {
		got, left := states[i], max(0, r.Slots-tt.want[i])
		if r.Slots == 0 {
			got = (states[i] - now) / second
			left = (60 - tt.want[i]) / 10
		}
		if got != tt.want[i] {
			t.Errorf("state %d is %d, want %d", i, got, tt.want[i])
		}
		if results[i].Allowed != tt.allowed[i] || results[i].Remaining != left ||
			results[i].Allowed != (results[i].RetryAfter == 0) {
			t.Errorf("result %d: %+v, want allowed %t and %d left", i, results[i], tt.allowed[i], left)
		}
	}
}

// A debit takes what there is: never less than it says while there is room, and
// never beyond an empty bucket.
func TestDebitEndsAtAnEmptyBucket(t *testing.T) {
	const now = 1_700_000_000 * second
	random := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		rate := ratelimit.Rate{N: 1 + random.Int64N(1000), Window: time.Duration(1+random.IntN(100_000)) * time.Millisecond, Burst: random.Int64N(50)}
		if rate.Validate() != nil {
			t.Fatal(rate)
		}
		span := rate.SpanMicros()
		ahead := random.Int64N(3*span+1) - span
		cost := random.Int64N(2*rate.Capacity() + 1)
		if random.IntN(10) == 0 {
			cost = 1 << 40
		}
		before := min(max(ahead, 0), span)
		got := ratelimit.Debited(now, now+ahead, rate, cost) - now
		if want := min(before+min(cost, rate.Capacity())*rate.UnitMicros(), span); got != want {
			t.Fatalf("%s, %d of %d used: %d after %d units, want %d", rate, before, span, got, cost, want)
		}
		// Where the units fit it is the same as taking them.
		if tat, r := ratelimit.Decide(now, now+ahead, rate, cost); r.Allowed && tat-now != got {
			t.Fatalf("%s: %d units debited leave %d, taken %d", rate, cost, got, tat-now)
		}
	}
	for _, tt := range []struct {
		name string
		rate ratelimit.Rate
		cost int64
	}{{"no rate", ratelimit.Rate{}, 1}, {"negative", perMinute, -1}} {
		if got := ratelimit.Debited(now, now+5, tt.rate, tt.cost); got != now+5 {
			t.Errorf("%s: %d", tt.name, got-now)
		}
	}
}
