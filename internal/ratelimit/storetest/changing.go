package storetest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/moat-gateway/moat/internal/ratelimit"
)

func testReset(h *harness) {
	h.drain("a", "x", perMinute)
	h.drain("b", "x", perMinute)
	h.drain("b", "y", perMinute)
	if err := h.store.Reset(context.Background(), []ratelimit.Request{
		request("a", "x", perMinute, 0), request("b", "y", perMinute, 0), request("c", "new", perMinute, 0),
	}); err != nil {
		h.Fatalf("Reset: %v", err)
	}
	h.wantUnits("a", "x", perMinute, 6)
	h.wantUnits("b", "x", perMinute, 0)
	h.wantUnits("b", "y", perMinute, 6)
}

func testLoweredRate(h *harness) {
	h.take(request("a", "x", perMinute, 3))
	two := ratelimit.Rate{N: 2, Window: time.Minute}
	h.wantUnits("a", "x", two, 1)
	h.clock.Advance(30 * time.Second)
	h.wantUnits("a", "x", two, 1)
}

func testChangedRate(h *harness) {
	h.drain("a", "x", perMinute)
	for _, rate := range []ratelimit.Rate{
		{N: 100, Window: time.Hour},
		{N: 1, Window: time.Minute},
		{N: 10_000, Window: time.Second},
		{N: 7, Window: 24 * time.Hour, Burst: 50},
		{N: 3, Window: 366 * 24 * time.Hour},
		{N: 5, Window: time.Millisecond},
		perMinute,
	} {
		if r := h.take(request("a", "x", rate, 1))[0]; r.Allowed {
			h.Fatalf("exhausted at 6/1m, granted at %s: %+v", rate, r)
		}
	}
	// The new rate's pace applies from now on.
	fast := ratelimit.Rate{N: 600, Window: time.Minute}
	h.clock.Advance(100 * time.Millisecond)
	if r := h.take(request("b", "x", fast, 600), request("a", "x", fast, 0))[1]; r.Remaining != 1 {
		h.Fatalf("100ms at 600/1m: %+v, want one unit", r)
	}
}

func testRaisedRateRefills(h *harness) {
	slow, fast := ratelimit.Rate{N: 10, Window: 24 * time.Hour}, ratelimit.Rate{N: 10, Window: 10 * time.Second}
	h.drain("a", "x", slow)
	// Refusals at the new rate do not keep the bucket at the old pace.
	for range 3 {
		if h.take(request("a", "x", fast, 1))[0].Allowed {
			h.Fatal("a fresh burst")
		}
	}
	h.clock.Advance(3 * time.Second)
	h.wantUnits("a", "x", fast, 3)
	// The same in a call that another limit refuses, and the other way round.
	h.drain("b", "x", perMinute)
	h.take(request("a", "x", slow, 1), request("b", "x", perMinute, 1))
	h.clock.Advance(time.Second)
	h.wantUnits("a", "x", slow, 0)
}

func testClockBack(h *harness) {
	h.clock.Advance(time.Hour)
	h.drain("a", "x", perMinute)
	h.clock.Advance(-30 * time.Minute)
	if r := h.take(request("a", "x", perMinute, 1))[0]; r.Allowed || r.RetryAfter > 10*time.Second {
		h.Fatalf("after the clock was set back: %+v, want a wait of 10s at most", r)
	}
	h.clock.Advance(10 * time.Second)
	if r := h.take(request("a", "x", perMinute, 0))[0]; r.ResetAfter > time.Minute {
		h.Fatalf("after the clock was set back: %+v, want a reset within 1m", r)
	}
}

func testInvalid(h *harness) {
	many := make([]ratelimit.Request, ratelimit.MaxRequests+1)
	for i := range many {
		many[i] = request("l"+string(rune('A'+i)), "x", perMinute, 1)
	}
	young := request("a", "x", perMinute, 1)
	young.Age = -1
	for name, reqs := range map[string][]ratelimit.Request{
		"zero request":      {{}},
		"no limit":          {request("", "x", perMinute, 1)},
		"long limit":        {request(strings.Repeat("l", ratelimit.MaxName+1), "x", perMinute, 1)},
		"no subject":        {request("a", "", perMinute, 1)},
		"no rate":           {request("a", "x", ratelimit.Rate{}, 1)},
		"negative cost":     {request("a", "x", perMinute, -1)},
		"huge cost":         {request("a", "x", perMinute, 1<<40+1)},
		"negative age":      {young},
		"named twice":       {request("a", "x", perMinute, 1), request("a", "x", perMinute, 1)},
		"too many":          many,
		"place for nobody":  {{Limit: "a", Subject: "x", Slots: 1, Cost: 1}},
		"two places":        {{Limit: "a", Subject: "x", Slots: 3, Cost: 2, Holder: "h"}},
		"too many places":   {place("a", "x", ratelimit.MaxSlots+1, "h")},
		"fewer than none":   {place("a", "x", -1, "h")},
		"unknown policy":    {{Limit: "a", Subject: "x", Rate: perMinute, Cost: 1, Fallback: ratelimit.Fallback{OnError: 3}}},
		"too many of us":    {{Limit: "a", Subject: "x", Rate: perMinute, Cost: 1, Fallback: ratelimit.Fallback{Instances: ratelimit.MaxInstances + 1}}},
		"fewer than one us": {{Limit: "a", Subject: "x", Rate: perMinute, Cost: 1, Fallback: ratelimit.Fallback{Instances: -1}}},
		"negative lease":    {{Limit: "a", Subject: "x", Rate: perMinute, Cost: 1, Lease: -1}},
		"second invalid":    {request("a", "x", perMinute, 1), request("b", "", perMinute, 1)},
	} {
		results, errTake := h.store.Take(context.Background(), reqs, nil)
		errGive := h.store.Give(context.Background(), reqs)
		errDebit := h.store.Debit(context.Background(), reqs)
		errReset := h.store.Reset(context.Background(), reqs)
		for _, err := range []error{errTake, errGive, errDebit, errReset} {
			if !errors.Is(err, ratelimit.ErrInvalid) {
				h.Errorf("%s: error %v, want ErrInvalid", name, err)
			}
		}
		if allAllowed(results) {
			h.Errorf("%s: allowed", name)
		}
	}
	h.wantUnits("a", "x", perMinute, 6)
	h.wantUnits(strings.Repeat("l", ratelimit.MaxName), "x", perMinute, 6)
}

func testReuse(h *harness) {
	dst := []ratelimit.Result{{Allowed: true, Remaining: 99}, {Degraded: true}, {}, {}}
	reqs := []ratelimit.Request{request("a", "x", perMinute, 6), request("b", "x", perMinute, 1)}
	got, err := h.store.Take(context.Background(), reqs, dst)
	if err != nil || len(got) != 2 || &got[0] != &dst[0] {
		h.Fatalf("results %v, error %v: want the two in the slice given", got, err)
	}
	got, err = h.store.Take(context.Background(), reqs[:1], got)
	if err != nil || len(got) != 1 || got[0].Allowed {
		h.Fatalf("second call: results %v, error %v: want one refusal", got, err)
	}
	if got, err = h.store.Take(context.Background(), nil, nil); err != nil || allAllowed(got) {
		h.Fatalf("no requests: results %v, error %v: must not allow", got, err)
	}
}

func testCanceled(h *harness) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	reqs := []ratelimit.Request{request("a", "x", perMinute, 1)}
	for range 6 {
		if got, err := h.store.Take(ctx, reqs, nil); err != nil || !allAllowed(got) {
			h.Fatalf("results %v, error %v", got, err)
		}
	}
	h.wantUnits("a", "x", perMinute, 0)
	if err := h.store.Give(ctx, reqs); err != nil {
		h.Fatal(err)
	}
	h.wantUnits("a", "x", perMinute, 1)
}

// parallel runs n callers at once and counts those that were let through.
func (h *harness) parallel(n int, reqs func(i int) []ratelimit.Request) int {
	var granted atomic.Int64
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			results, err := h.store.Take(context.Background(), reqs(i), nil)
			if err != nil {
				h.Errorf("Take: %v", err)
			}
			if allAllowed(results) {
				granted.Add(1)
			}
		})
	}
	wg.Wait()
	return int(granted.Load())
}

func testParallel(h *harness) {
	rate := ratelimit.Rate{N: 50, Window: 24 * time.Hour}
	got := h.parallel(200, func(int) []ratelimit.Request {
		return []ratelimit.Request{request("a", "x", rate, 1)}
	})
	if got != 50 {
		h.Fatalf("%d of 200 parallel callers passed a limit of 50", got)
	}
}

func testParallelAllOrNone(h *harness) {
	rate := ratelimit.Rate{N: 20, Window: 24 * time.Hour}
	wide := ratelimit.Rate{N: 1000, Window: 24 * time.Hour}
	got := h.parallel(100, func(i int) []ratelimit.Request {
		reqs := []ratelimit.Request{
			request("a", "x", rate, 1),
			request("b", "y", wide, 1),
			request("c", "z", wide, 1),
		}
		if i%2 == 1 {
			slices.Reverse(reqs)
		}
		return reqs
	})
	if got != 20 {
		h.Fatalf("%d of 100 parallel callers passed a limit of 20", got)
	}
	for _, r := range h.take(request("b", "y", wide, 0), request("c", "z", wide, 0)) {
		if r.Remaining != 980 {
			h.Fatalf("after 20 of 1000 units: %+v", r)
		}
	}
}
