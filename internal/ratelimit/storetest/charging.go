package storetest

import (
	"context"
	"strings"
	"time"

	"github.com/moat-gateway/moat/internal/ratelimit"
)

func testBurst(h *harness) {
	for left := int64(5); left >= 0; left-- {
		h.want(h.take(request("a", "x", perMinute, 1))[0], ratelimit.Result{
			Allowed: true, Remaining: left, ResetAfter: time.Duration(6-left) * 10 * time.Second,
		})
	}
	refused := ratelimit.Result{RetryAfter: 10 * time.Second, ResetAfter: time.Minute}
	h.want(h.take(request("a", "x", perMinute, 1))[0], refused)
	// Being refused costs nothing.
	h.want(h.take(request("a", "x", perMinute, 1))[0], refused)
}

func testRefill(h *harness) {
	h.wantUnits("a", "x", perMinute, 6)
	h.clock.Advance(10 * time.Second)
	h.wantUnits("a", "x", perMinute, 1)
	h.clock.Advance(35 * time.Second)
	h.wantUnits("a", "x", perMinute, 3)
	// The five seconds left over were not lost.
	h.clock.Advance(5 * time.Second)
	h.wantUnits("a", "x", perMinute, 1)
}

func testRetryAfter(h *harness) {
	// 7 units a minute do not divide evenly.
	rate := ratelimit.Rate{N: 7, Window: time.Minute, Burst: 3}
	h.drain("a", "x", rate)
	h.clock.Advance(1234567 * time.Microsecond)
	wait := h.take(request("a", "x", rate, 2))[0].RetryAfter
	h.clock.Advance(wait - time.Microsecond)
	if r := h.take(request("a", "x", rate, 2))[0]; r.Allowed || r.RetryAfter != time.Microsecond {
		h.Fatalf("one microsecond early: %+v", r)
	}
	h.clock.Advance(time.Microsecond)
	if r := h.take(request("a", "x", rate, 2))[0]; !r.Allowed {
		h.Fatalf("after the wait: %+v", r)
	}
}

func testIdle(h *harness) {
	rate := ratelimit.Rate{N: 100, Window: time.Minute, Burst: 4}
	h.wantUnits("a", "x", rate, 4)
	h.clock.Advance(24 * time.Hour)
	h.wantUnits("a", "x", rate, 4)
	h.clock.Advance(600 * time.Millisecond)
	h.wantUnits("a", "x", rate, 1)
}

func testSeparate(h *harness) {
	h.drain("a", "x", perMinute)
	h.wantUnits("a", "y", perMinute, 6)
	h.wantUnits("b", "x", perMinute, 6)
	// Where the name ends and the subject begins must not be up to the caller.
	h.drain("ab", "c", perMinute)
	h.wantUnits("a", "bc", perMinute, 6)
	h.drain("l", "}{x", perMinute)
	h.wantUnits("l", "x", perMinute, 6)
	long := strings.Repeat("s", 10_000)
	h.drain("l", long+"1", perMinute)
	h.wantUnits("l", long+"2", perMinute, 6)
}

func testAllOrNone(h *harness) {
	five := ratelimit.Rate{N: 5, Window: time.Minute}
	eight := ratelimit.Rate{N: 8, Window: time.Minute}
	both := func() bool {
		return allAllowed(h.take(request("ip", "1.2.3.4", five, 1), request("all", "all", eight, 1)))
	}
	reversed := func() bool {
		return allAllowed(h.take(request("all", "all", eight, 1), request("ip", "1.2.3.4", five, 1)))
	}
	granted := 0
	for i := range 40 {
		if i%2 == 0 && both() || i%2 == 1 && reversed() {
			granted++
		}
	}
	if granted != 5 {
		h.Fatalf("granted %d, want 5", granted)
	}
	// 35 refusals of one limit took nothing from the other.
	h.wantUnits("all", "all", eight, 3)
}

func testRefusalResults(h *harness) {
	one := ratelimit.Rate{N: 1, Window: time.Minute}
	h.drain("b", "x", one)
	got := h.take(
		request("a", "x", perMinute, 2),
		request("b", "x", one, 1),
		request("c", "y", perMinute, 1),
	)
	h.want(got[0], ratelimit.Result{Allowed: true, Remaining: 6})
	h.want(got[1], ratelimit.Result{RetryAfter: time.Minute, ResetAfter: time.Minute})
	h.want(got[2], ratelimit.Result{Allowed: true, Remaining: 6})
	if allAllowed(got) {
		h.Fatal("a refusal among the results must refuse the call")
	}
	h.wantUnits("a", "x", perMinute, 6)
	h.wantUnits("c", "y", perMinute, 6)
}

func testPeek(h *harness) {
	for range 10 {
		h.want(h.take(request("a", "x", perMinute, 0))[0], ratelimit.Result{Allowed: true, Remaining: 6})
	}
	h.wantUnits("a", "x", perMinute, 6)
	got := h.take(request("a", "x", perMinute, 0), request("b", "x", perMinute, 1))
	h.want(got[0], ratelimit.Result{RetryAfter: 10 * time.Second, ResetAfter: time.Minute})
	h.want(got[1], ratelimit.Result{Allowed: true, Remaining: 5, ResetAfter: 10 * time.Second})
	h.wantUnits("b", "x", perMinute, 5)
}

func testCost(h *harness) {
	h.want(h.take(request("a", "x", perMinute, 4))[0],
		ratelimit.Result{Allowed: true, Remaining: 2, ResetAfter: 40 * time.Second})
	h.want(h.take(request("a", "x", perMinute, 3))[0],
		ratelimit.Result{Remaining: 2, RetryAfter: 10 * time.Second, ResetAfter: 40 * time.Second})
	h.want(h.take(request("a", "x", perMinute, 2))[0],
		ratelimit.Result{Allowed: true, ResetAfter: time.Minute})
}

func testCostAboveCapacity(h *harness) {
	for _, cost := range []int64{7, 1 << 20, 1 << 40} {
		h.want(h.take(request("a", "x", perMinute, cost))[0],
			ratelimit.Result{Remaining: 6, RetryAfter: time.Minute})
	}
	h.wantUnits("a", "x", perMinute, 6)
}

func (h *harness) give(reqs ...ratelimit.Request) {
	h.Helper()
	if err := h.store.Give(context.Background(), reqs); err != nil {
		h.Fatalf("Give: %v", err)
	}
}

func testGive(h *harness) {
	h.drain("a", "x", perMinute)
	h.give(request("a", "x", perMinute, 1))
	h.wantUnits("a", "x", perMinute, 1)
	h.drain("b", "y", perMinute)
	h.give(request("a", "x", perMinute, 2), request("b", "y", perMinute, 3))
	h.wantUnits("a", "x", perMinute, 2)
	h.wantUnits("b", "y", perMinute, 3)
}

func testGiveBeyondBurst(h *harness) {
	h.take(request("a", "x", perMinute, 1))
	h.give(request("a", "x", perMinute, 5))
	h.give(request("a", "x", perMinute, 1<<40))
	h.wantUnits("a", "x", perMinute, 6)
	h.give(request("a", "x", perMinute, 0))
	h.wantUnits("a", "x", perMinute, 0)
	h.give(request("a", "x", perMinute, 1<<40))
	h.wantUnits("a", "x", perMinute, 6)
}

func testGiveOld(h *harness) {
	h.take(request("a", "x", perMinute, 6))
	h.clock.Advance(time.Minute)
	h.drain("a", "x", perMinute)
	old := request("a", "x", perMinute, 6)
	old.Age = time.Minute
	h.give(old)
	h.wantUnits("a", "x", perMinute, 0)
	old.Age = time.Minute - time.Microsecond
	h.give(old)
	h.wantUnits("a", "x", perMinute, 6)
}

func testGiveUnknown(h *harness) {
	h.give(request("a", "nobody", perMinute, 3))
	h.wantUnits("a", "nobody", perMinute, 6)
	h.give()
}
