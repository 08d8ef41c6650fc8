package redisstore

import (
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/ratelimit"
)

// The script and the gateway decide twice. Whichever of them is wrong, the
// answer must not be passed on.
func TestDisagreementIsAnError(t *testing.T) {
	rate := ratelimit.Rate{N: 1, Window: time.Minute}
	reqs := []ratelimit.Request{{Limit: "a", Subject: "x", Rate: rate, Cost: 1}}
	for _, tt := range []struct {
		ahead   time.Duration
		charged bool
		ok      bool
	}{
		{0, true, true},
		{time.Minute, false, true},
		{0, false, false},
		{time.Minute, true, false},
	} {
		results, err := settle(reqs, []int64{tt.ahead.Microseconds()}, tt.charged, nil)
		if (err == nil) != tt.ok || ratelimit.Charged(reqs, results) != (tt.ok && tt.charged) {
			t.Errorf("%s ahead, charged %t: results %v, error %v", tt.ahead, tt.charged, results, err)
		}
	}
}
