package limit

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/internal/ratelimit"
)

func TestWhatALimitCannotGrantIsAnError(t *testing.T) {
	for want, l := range map[string]*Limit{
		"lease 100: must be at most a tenth": {Rate: "10000/1m", By: []string{"user"}, Lease: 100, Tier: map[string]string{"guest": "100/1m"}},
		`by "header:host"`:                   {Rate: "1/1m", By: []string{"header:host"}},
		"cost 20: never fits":                {Rate: "10/1m", By: []string{"ip"}, Cost: "20"},
	} {
		if err := l.compile(false, ratelimit.Fallback{}); err == nil || !strings.Contains(err.Error(), strings.Split(want, ":")[0]) {
			t.Errorf("%s: error %v", want, err)
		}
	}
}

func TestAMappedPrefixIsTheIPv4One(t *testing.T) {
	l := &Limit{Rate: "1/1m", By: []string{"ip"}, Except: []string{"::ffff:10.0.0.0/104"}}
	if err := l.compile(false, ratelimit.Fallback{}); err != nil || l.except[0] != netip.MustParsePrefix("10.0.0.0/8") {
		t.Errorf("%v, error %v", l.except, err)
	}
}

// TestTiersHaveBucketsOfTheirOwn: in one that several people share, or one with
// several roles, each request would go on at another pace.
func TestTiersHaveBucketsOfTheirOwn(t *testing.T) {
	l := &Limit{Rate: "100/24h", By: []string{"tenant"}, Tier: map[string]string{"admin": "1000/1m", "batch": "10/1m"}}
	if err := l.compile(false, ratelimit.Fallback{}); err != nil {
		t.Fatal(err)
	}
	l.identify("b", map[string]int{})
	if n := len(l.grantsByBucket()); n != 3 {
		t.Errorf("%d buckets, want 3: %v", n, l.grantsByBucket())
	}
}
