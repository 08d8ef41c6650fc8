package storetest

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/moat-gateway/moat/internal/ratelimit"
)

// place asks for one of n places.
func place(limit, subject string, n int64, holder string) ratelimit.Request {
	return ratelimit.Request{Limit: limit, Subject: subject, Slots: n, Cost: 1, Holder: holder}
}

func testPlaces(h *harness) {
	for n := range 3 {
		h.want(h.take(place("c", "x", 3, strconv.Itoa(n)))[0], ratelimit.Result{Allowed: true, Remaining: int64(2 - n)})
	}
	h.want(h.take(place("c", "x", 3, "late"))[0], ratelimit.Result{RetryAfter: time.Second})
	h.want(h.take(place("c", "y", 3, "other"))[0], ratelimit.Result{Allowed: true, Remaining: 2})
	h.give(place("c", "x", 3, "1"))
	h.give(place("c", "x", 3, "1")) // frees nobody else's
	h.want(h.take(place("c", "x", 3, "again"))[0], ratelimit.Result{Allowed: true})
	h.want(h.take(place("c", "x", 3, "late"))[0], ratelimit.Result{RetryAfter: time.Second})
}

func testPlacesLook(h *harness) {
	look := ratelimit.Request{Limit: "c", Subject: "x", Slots: 1}
	h.want(h.take(look)[0], ratelimit.Result{Allowed: true, Remaining: 1})
	h.take(place("c", "x", 1, "a"))
	h.want(h.take(look)[0], ratelimit.Result{RetryAfter: time.Second})
	// Nor does it give one back.
	look.Holder = "a"
	h.give(look)
	h.want(h.take(look)[0], ratelimit.Result{RetryAfter: time.Second})
	// A look stops nobody.
	h.want(h.take(look, request("r", "x", perMinute, 1))[1], ratelimit.Result{Allowed: true, Remaining: 5, ResetAfter: 10 * time.Second})
}

func testPlacesReset(h *harness) {
	h.take(place("c", "x", 1, "a"))
	if err := h.store.Reset(context.Background(), []ratelimit.Request{{Limit: "c", Subject: "x", Slots: 1}}); err != nil {
		h.Fatal(err)
	}
	h.want(h.take(place("c", "x", 1, "b"))[0], ratelimit.Result{Allowed: true})
}

func testPlacesLowered(h *harness) {
	h.take(place("c", "x", 3, "a"))
	h.take(place("c", "x", 3, "b"))
	h.want(h.take(place("c", "x", 1, "d"))[0], ratelimit.Result{RetryAfter: time.Second})
	h.give(place("c", "x", 1, "a"))
	h.want(h.take(place("c", "x", 1, "d"))[0], ratelimit.Result{RetryAfter: time.Second})
	h.give(place("c", "x", 1, "b"))
	h.want(h.take(place("c", "x", 1, "d"))[0], ratelimit.Result{Allowed: true})
}

func testPlacesAndRates(h *harness) {
	one := ratelimit.Rate{N: 1, Window: time.Minute}
	h.take(place("c", "x", 1, "a"))
	got := h.take(request("r", "x", one, 1), place("c", "x", 1, "b"))
	h.want(got[0], ratelimit.Result{Allowed: true, Remaining: 1})
	h.want(got[1], ratelimit.Result{RetryAfter: time.Second})
	h.give(place("c", "x", 1, "a"))
	h.take(request("r", "x", one, 1))
	got = h.take(place("c", "x", 1, "b"), request("r", "x", one, 1))
	h.want(got[0], ratelimit.Result{Allowed: true, Remaining: 1})
	h.want(h.take(place("c", "x", 1, "d"))[0], ratelimit.Result{Allowed: true}) // The refused call took no place.
}

// testPlacesParallel has more callers than places, each of whom leaves again.
func testPlacesParallel(h *harness) {
	var inside, most, entered atomic.Int64
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			for n := range 5 {
				req := []ratelimit.Request{place("c", "x", 4, strconv.Itoa(i)+"-"+strconv.Itoa(n))}
				got, err := h.store.Take(context.Background(), req, nil)
				if err != nil {
					h.Error(err)
					return
				}
				if !got[0].Allowed {
					continue
				}
				entered.Add(1)
				now := inside.Add(1)
				for seen := most.Load(); now > seen && !most.CompareAndSwap(seen, now); seen = most.Load() {
				}
				inside.Add(-1)
				if err := h.store.Give(context.Background(), req); err != nil {
					h.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if entered.Load() < 4 || most.Load() > 4 {
		h.Errorf("%d entered, up to %d at one time; want 4 at most", entered.Load(), most.Load())
	}
	h.want(h.take(ratelimit.Request{Limit: "c", Subject: "x", Slots: 4})[0], ratelimit.Result{Allowed: true, Remaining: 4})
}

// shadowed is a request that stops nobody.
func shadowed(r ratelimit.Request) ratelimit.Request {
	r.Shadow = true
	return r
}

func testShadow(h *harness) {
	one := ratelimit.Rate{N: 1, Window: time.Minute}
	for n := range 3 {
		got := h.take(shadowed(request("s", "x", one, 1)), request("r", "x", perMinute, 1))
		if got[0].Allowed != (n == 0) || !got[1].Allowed {
			h.Fatalf("call %d: %+v", n, got)
		}
	}
	h.wantUnits("r", "x", perMinute, 3)
	h.wantUnits("s", "x", one, 0)
}

func testShadowBesideARefusal(h *harness) {
	one := ratelimit.Rate{N: 1, Window: time.Minute}
	h.drain("r", "x", one)
	got := h.take(shadowed(request("s", "x", perMinute, 1)), request("r", "x", one, 1), shadowed(place("c", "x", 1, "a")))
	h.want(got[0], ratelimit.Result{Allowed: true, Remaining: 6})
	h.want(got[2], ratelimit.Result{Allowed: true, Remaining: 1})
	h.wantUnits("s", "x", perMinute, 6)
	h.want(h.take(place("c", "x", 1, "b"))[0], ratelimit.Result{Allowed: true})
}

// testShadowOfAnotherSubject is the same where the two may lie apart.
func testShadowOfAnotherSubject(h *harness) {
	one := ratelimit.Rate{N: 1, Window: time.Minute}
	h.drain("r", "y", one)
	h.drain("t", "z", one)
	h.take(shadowed(request("s", "x", perMinute, 1)), shadowed(request("t", "z", one, 1)), request("r", "y", one, 1))
	h.wantUnits("s", "x", perMinute, 6)
	h.clock.Advance(time.Minute)
	h.wantUnits("t", "z", one, 1)
}

func (h *harness) debit(reqs ...ratelimit.Request) {
	h.Helper()
	if err := h.store.Debit(context.Background(), reqs); err != nil {
		h.Fatal(err)
	}
}

func testDebit(h *harness) {
	h.debit(request("a", "x", perMinute, 4))
	h.want(h.take(request("a", "x", perMinute, 1))[0], ratelimit.Result{Allowed: true, Remaining: 1, ResetAfter: 50 * time.Second})
	// More than is left empties the bucket and no more.
	h.debit(request("a", "x", perMinute, 100), request("b", "y", perMinute, 1<<40))
	for _, limit := range [][2]string{{"a", "x"}, {"b", "y"}} {
		h.want(h.take(request(limit[0], limit[1], perMinute, 1))[0], ratelimit.Result{RetryAfter: 10 * time.Second, ResetAfter: time.Minute})
	}
	h.clock.Advance(20 * time.Second)
	h.wantUnits("a", "x", perMinute, 2)
	h.debit(request("a", "x", perMinute, 0))
	h.wantUnits("a", "x", perMinute, 0)
}
