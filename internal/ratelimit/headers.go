package ratelimit

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// Reported is one limit as it is told to the client.
type Reported struct {
	// Name of the limit. Characters outside printable ASCII become "?".
	Name string
	// Rate of the limit; for a concurrency limit N places and no Window.
	Rate Rate
	// Result of the caller's request.
	Result Result
}

// PolicyHeader is the value of RateLimit-Policy
// (draft-ietf-httpapi-ratelimit-headers-11, section 3): each limit's quota in
// units and its window in seconds, rounded up, or its places as the quota unit
// "concurrent-requests". It is empty for no limits.
func PolicyHeader(limits []Reported) string {
	var b strings.Builder
	for i := range limits {
		if i > 0 {
			b.WriteString(", ")
		}
		writeString(&b, limits[i].Name)
		writeParameter(&b, "q", limits[i].Rate.N)
		if limits[i].Rate.Window == 0 {
			b.WriteString(`;qu="concurrent-requests"`)
			continue
		}
		writeParameter(&b, "w", max(1, seconds(limits[i].Rate.Window)))
	}
	return b.String()
}

// LimitHeader is the value of RateLimit (section 4 of the same draft) for the
// tightest limit only: the units that remain, and the seconds until the bucket
// is full again or, after a refusal, until the request would pass, because
// Retry-After must not point before it. It is empty for no limits.
func LimitHeader(limits []Reported) string {
	tightest, ok := Tightest(limits)
	if !ok {
		return ""
	}
	wait := seconds(tightest.Result.ResetAfter)
	if !tightest.Result.Allowed {
		wait = int64(RetryAfterSeconds(tightest.Result.RetryAfter))
	}
	var b strings.Builder
	writeString(&b, tightest.Name)
	writeParameter(&b, "r", max(0, tightest.Result.Remaining))
	if tightest.Rate.Window > 0 || !tightest.Result.Allowed {
		writeParameter(&b, "t", wait)
	}
	return b.String()
}

// Tightest is the limit a client has to mind: the refused one with the longest
// wait, else the one with the fewest units left, else the first. It is false
// for no limits.
func Tightest(limits []Reported) (Reported, bool) {
	if len(limits) == 0 {
		return Reported{}, false
	}
	best := &limits[0]
	for i := 1; i < len(limits); i++ {
		if tighter(&limits[i].Result, &best.Result) {
			best = &limits[i]
		}
	}
	return *best, true
}

func tighter(a, b *Result) bool {
	if a.Allowed != b.Allowed {
		return !a.Allowed
	}
	if !a.Allowed {
		return a.RetryAfter > b.RetryAfter
	}
	return a.Remaining < b.Remaining
}

// RetryAfterSeconds is the value of Retry-After (RFC 9110, section 10.2.3):
// whole seconds, rounded up and at least 1.
func RetryAfterSeconds(d time.Duration) int {
	return int(min(max(1, seconds(d)), math.MaxInt32))
}

// seconds rounds up. A negative duration is zero seconds.
func seconds(d time.Duration) int64 {
	s := int64(d / time.Second)
	if d%time.Second > 0 {
		s++
	}
	return max(0, s)
}

func writeParameter(b *strings.Builder, key string, value int64) {
	b.WriteByte(';')
	b.WriteString(key)
	b.WriteByte('=')
	b.WriteString(strconv.FormatInt(value, 10))
}

// writeString writes a String of RFC 9651, section 3.3.3.
func writeString(b *strings.Builder, s string) {
	b.WriteByte('"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteRune(c)
		case c < 0x20 || c > 0x7e:
			b.WriteByte('?')
		default:
			b.WriteRune(c)
		}
	}
	b.WriteByte('"')
}
