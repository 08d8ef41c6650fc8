package ratelimit_test

import (
	"math"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/ratelimit"
)

func TestHeaders(t *testing.T) {
	hundred := ratelimit.Rate{N: 100, Window: time.Minute}
	daily := ratelimit.Rate{N: 1000, Window: day, Burst: 50}
	odd := ratelimit.Rate{N: 5, Window: 1500 * time.Millisecond}
	for _, tt := range []struct {
		name          string
		limits        []ratelimit.Reported
		policy, limit string
	}{
		{"none", nil, "", ""},
		{
			"one",
			[]ratelimit.Reported{{"default", hundred, ratelimit.Result{Allowed: true, Remaining: 50, ResetAfter: 30 * time.Second}}},
			`"default";q=100;w=60`, `"default";r=50;t=30`,
		},
		{
			"fewest left",
			[]ratelimit.Reported{
				{"ip", hundred, ratelimit.Result{Allowed: true, Remaining: 50, ResetAfter: 30 * time.Second}},
				{"user", daily, ratelimit.Result{Allowed: true, Remaining: 3, ResetAfter: time.Hour + 1}},
			},
			`"ip";q=100;w=60, "user";q=1000;w=86400`, `"user";r=3;t=3601`,
		},
		{
			"refused before fewest left",
			[]ratelimit.Reported{
				{"a", hundred, ratelimit.Result{Allowed: true, Remaining: 0, ResetAfter: time.Minute}},
				{"b", daily, ratelimit.Result{Remaining: 2, RetryAfter: 1100 * time.Millisecond, ResetAfter: time.Hour}},
			},
			`"a";q=100;w=60, "b";q=1000;w=86400`, `"b";r=2;t=2`,
		},
		{
			"longest wait of two refusals",
			[]ratelimit.Reported{
				{"a", hundred, ratelimit.Result{RetryAfter: time.Second, ResetAfter: time.Minute}},
				{"b", daily, ratelimit.Result{RetryAfter: time.Minute, ResetAfter: time.Hour}},
				{"c", odd, ratelimit.Result{RetryAfter: time.Millisecond, ResetAfter: time.Second}},
			},
			`"a";q=100;w=60, "b";q=1000;w=86400, "c";q=5;w=2`, `"b";r=0;t=60`,
		},
		{
			"name that needs care",
			[]ratelimit.Reported{{"a\"b\\c\r\nX: yé", hundred, ratelimit.Result{Allowed: true, Remaining: -1, ResetAfter: -1}}},
			`"a\"b\\c??X: y?";q=100;w=60`, `"a\"b\\c??X: y?";r=0;t=0`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := ratelimit.PolicyHeader(tt.limits); got != tt.policy {
				t.Errorf("RateLimit-Policy\ngot  %s\nwant %s", got, tt.policy)
			}
			if got := ratelimit.LimitHeader(tt.limits); got != tt.limit {
				t.Errorf("RateLimit\ngot  %s\nwant %s", got, tt.limit)
			}
		})
	}
}

func TestRetryAfterIsNeverTooEarly(t *testing.T) {
	for in, want := range map[time.Duration]int{
		-time.Hour:                        1,
		0:                                 1,
		1:                                 1,
		time.Second:                       1,
		time.Second + 1:                   2,
		1999 * time.Millisecond:           2,
		time.Minute:                       60,
		math.MaxInt64:                     math.MaxInt32,
		366*day + 500*time.Millisecond:    366*86400 + 1,
		15*time.Minute - time.Microsecond: 900,
	} {
		if got := ratelimit.RetryAfterSeconds(in); got != want {
			t.Errorf("%s: %d, want %d", in, got, want)
		}
	}
}

// Retry-After and the t of the same answer must not contradict each other.
func TestLimitHeaderAgreesWithRetryAfter(t *testing.T) {
	refused := ratelimit.Reported{
		Name: "a", Rate: perMinute,
		Result: ratelimit.Result{RetryAfter: 9*time.Second + 1, ResetAfter: time.Minute},
	}
	tightest, ok := ratelimit.Tightest([]ratelimit.Reported{refused})
	if !ok || ratelimit.RetryAfterSeconds(tightest.Result.RetryAfter) != 10 {
		t.Fatalf("tightest %+v", tightest)
	}
	if got := ratelimit.LimitHeader([]ratelimit.Reported{refused}); got != `"a";r=0;t=10` {
		t.Fatal(got)
	}
}
