// Package storetest is what every rate limit store has to keep to, as tests.
package storetest

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/ratelimit"
)

// Clock is a clock that moves when told.
type Clock struct {
	mu  sync.Mutex
	now time.Time
}

// NewClock returns a clock that stands somewhere in 2033, so that a store that
// mixes in the real time fails.
func NewClock() *Clock {
	return &Clock{now: time.Unix(2_000_000_000, 0)}
}

// Now is the time on the clock.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Advance moves the clock, backwards too.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// Factory returns a new, empty store that goes by the clock.
type Factory func(t *testing.T, clock *Clock) ratelimit.Store

// Run tests the stores newStore returns.
func Run(t *testing.T, newStore Factory) {
	for _, tt := range []struct {
		name string
		test func(h *harness)
	}{
		{"BurstIsGrantedAndNotOneMore", testBurst},
		{"UnitsComeBackAtTheRate", testRefill},
		{"WaitingRetryAfterIsEnoughAndNoLonger", testRetryAfter},
		{"BurstBoundsWhatAnIdleCallerSaves", testIdle},
		{"StrangersDoNotShareABucket", testSeparate},
		{"AllAreChargedOrNone", testAllOrNone},
		{"RefusalNamesOnlyTheBucketsThatRefused", testRefusalResults},
		{"LookingTakesNothingAndStopsNobody", testPeek},
		{"CostCountsInFull", testCost},
		{"CostAboveCapacityNeverFits", testCostAboveCapacity},
		{"GivenUnitCanBeTakenAgain", testGive},
		{"GivingNeverExceedsTheBurst", testGiveBeyondBurst},
		{"OldUnitIsNotGivenTwice", testGiveOld},
		{"GivingToStrangersDoesNothing", testGiveUnknown},
		{"ResetForgets", testReset},
		{"LoweredRateAppliesAtOnce", testLoweredRate},
		{"ChangedRateGivesNoFreshBurst", testChangedRate},
		{"RaisedRateRefillsAtOnce", testRaisedRateRefills},
		{"ClockSetBackLocksNobodyOutForLonger", testClockBack},
		{"InvalidRequestsAreRefused", testInvalid},
		{"ResultsReuseTheGivenSlice", testReuse},
		{"CanceledClientIsCountedAllTheSame", testCanceled},
		{"ParallelCallersGetTheBurstExactly", testParallel},
		{"ParallelAllOrNoneLosesNothing", testParallelAllOrNone},
		{"PlacesAreTakenAndGivenBack", testPlaces},
		{"LookingTakesNoPlace", testPlacesLook},
		{"ResetFreesPlaces", testPlacesReset},
		{"FewerPlacesApplyAtOnce", testPlacesLowered},
		{"PlacesAndRatesAreAllOrNone", testPlacesAndRates},
		{"ParallelHoldersNeverExceedThePlaces", testPlacesParallel},
		{"AShadowStopsNobody", testShadow},
		{"AShadowIsChargedOnlyWithTheOthers", testShadowBesideARefusal},
		{"AShadowOfAnotherSubjectToo", testShadowOfAnotherSubject},
		{"DebitTakesWhatIsThere", testDebit},
	} {
		t.Run(tt.name, func(t *testing.T) {
			clock := NewClock()
			tt.test(&harness{T: t, clock: clock, store: newStore(t, clock)})
		})
	}
}

type harness struct {
	*testing.T
	clock *Clock
	store ratelimit.Store
}

var perMinute = ratelimit.Rate{N: 6, Window: time.Minute} // a unit every ten seconds

func request(limit, subject string, rate ratelimit.Rate, cost int64) ratelimit.Request {
	return ratelimit.Request{Limit: limit, Subject: subject, Rate: rate, Cost: cost}
}

func (h *harness) take(reqs ...ratelimit.Request) []ratelimit.Result {
	h.Helper()
	results, err := h.store.Take(context.Background(), reqs, nil)
	if err != nil {
		h.Fatalf("Take: %v", err)
	}
	if len(results) != len(reqs) {
		h.Fatalf("Take: %d results for %d requests", len(results), len(reqs))
	}
	for i, r := range results {
		if r.Degraded {
			h.Fatalf("result %d is marked degraded by a plain store", i)
		}
		if r.Allowed && r.RetryAfter != 0 || !r.Allowed && r.RetryAfter <= 0 {
			h.Fatalf("result %d: allowed %t with a wait of %s", i, r.Allowed, r.RetryAfter)
		}
	}
	return results
}

func (h *harness) want(got, want ratelimit.Result) {
	h.Helper()
	if got != want {
		h.Fatalf("got  %+v\nwant %+v", got, want)
	}
}

// drain takes single units until one is refused and returns how many it got.
func (h *harness) drain(limit, subject string, rate ratelimit.Rate) int {
	h.Helper()
	for n := range 10_000 {
		if !h.take(request(limit, subject, rate, 1))[0].Allowed {
			return n
		}
	}
	h.Fatal("the limit never refuses")
	return 0
}

func (h *harness) wantUnits(limit, subject string, rate ratelimit.Rate, want int) {
	h.Helper()
	if got := h.drain(limit, subject, rate); got != want {
		h.Fatalf("%s granted %d units to %s at %s, want %d", limit, got, subject, rate, want)
	}
}

// allAllowed reports whether a call without looks and shadows was charged.
func allAllowed(results []ratelimit.Result) bool {
	return len(results) > 0 && !slices.ContainsFunc(results, func(r ratelimit.Result) bool { return !r.Allowed })
}
