package ratelimit

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

const (
	// MinWindow is the shortest window of a Rate.
	MinWindow = time.Millisecond
	// MaxWindow is the longest window of a Rate: a leap year.
	MaxWindow = 366 * day

	day = 24 * time.Hour
	// maxSpan bounds the time a bucket takes to fill, in microseconds. Together
	// with the wall clock it stays far below 2^53, the integers Lua can hold.
	maxSpan = int64(10 * MaxWindow / time.Microsecond)
)

// Rate is how much a limit grants. The zero Rate is invalid and grants nothing.
//
// The time one unit takes to come back is Window / N, rounded up to a whole
// microsecond: never more than the rate is granted. The difference is below
// one percent up to 10,000 units a second.
type Rate struct {
	// Units granted per Window. At least 1 and at most one per microsecond.
	N int64
	// Time in which N units come back. Between 1ms and 366 days, in whole
	// microseconds.
	Window time.Duration
	// Units that may be taken at once. Default (0): N. A bucket must fill
	// within ten times 366 days.
	Burst int64
}

// ParseRate reads a rate such as "100/1m", "5/15m", "50/24h" or "1000/30d":
// units, a slash, and a duration in the units d, h, m, s, ms and us.
func ParseRate(s string) (Rate, error) {
	count, window, found := strings.Cut(s, "/")
	if !found {
		return Rate{}, fmt.Errorf("rate %.64q: must be units/duration, such as 100/1m", s)
	}
	n, errN := parseCount(count)
	w, errW := parseWindow(window)
	if err := errors.Join(errN, errW); err != nil {
		return Rate{}, fmt.Errorf("rate %.64q: %w", s, err)
	}
	rate := Rate{N: n, Window: w}
	if err := rate.Validate(); err != nil {
		return Rate{}, err
	}
	return rate, nil
}

func parseCount(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || !digits(s) {
		return 0, fmt.Errorf("units %.32q: must be a whole number", s)
	}
	return n, nil
}

// parseWindow is time.ParseDuration with days in front and without a sign.
func parseWindow(s string) (time.Duration, error) {
	bad := fmt.Errorf("window %.32q: must be a duration such as 30s, 15m, 24h or 7d", s)
	if s == "" || s[0] == '-' || s[0] == '+' {
		return 0, bad
	}
	var days time.Duration
	if before, after, found := strings.Cut(s, "d"); found {
		n, err := strconv.ParseInt(before, 10, 64)
		if err != nil || !digits(before) {
			return 0, bad
		}
		// Past the limit by one day is as wrong as past it by more, and cannot overflow.
		days = time.Duration(min(n, int64(MaxWindow/day)+1)) * day
		if after == "" {
			return days, nil
		}
		s = after
	}
	if s[0] == '-' || s[0] == '+' {
		return 0, bad
	}
	w, err := time.ParseDuration(s)
	if err != nil {
		return 0, bad
	}
	return days + min(w, MaxWindow+day), nil
}

func digits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// String is the form ParseRate reads, followed by the burst where one is set.
func (r Rate) String() string {
	s := strconv.FormatInt(r.N, 10) + "/" + formatWindow(r.Window)
	if r.Burst != 0 {
		s += " burst " + strconv.FormatInt(r.Burst, 10)
	}
	return s
}

func formatWindow(w time.Duration) string {
	if w > day && w%day == 0 {
		return strconv.FormatInt(int64(w/day), 10) + "d"
	}
	s := w.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

// Validate reports everything that is wrong with the rate.
func (r Rate) Validate() error {
	if r.valid() {
		return nil
	}
	var errs []error
	place := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("rate %s: "+format, append([]any{r}, args...)...))
	}
	if r.N < 1 {
		place("units %d: must be at least 1", r.N)
	}
	switch {
	case r.Window < MinWindow || r.Window > MaxWindow:
		place("window %s: must be between %s and %s", r.Window, MinWindow, formatWindow(MaxWindow))
	case r.Window%time.Microsecond != 0:
		place("window %s: must be whole microseconds", r.Window)
	case r.N > r.Window.Microseconds():
		place("units %d: must not exceed one per microsecond", r.N)
	case r.N >= 1 && r.Burst > maxSpan/r.UnitMicros():
		place("burst %d: must fill within %s", r.Burst, formatWindow(10*MaxWindow))
	}
	if r.Burst < 0 {
		place("burst %d: must not be negative", r.Burst)
	}
	return errors.Join(errs...)
}

// valid is Validate without words, for the path of every request.
func (r Rate) valid() bool {
	return r.N >= 1 && r.Window >= MinWindow && r.Window <= MaxWindow &&
		r.Window%time.Microsecond == 0 && r.N <= r.Window.Microseconds() &&
		r.Burst >= 0 && r.Burst <= maxSpan/r.UnitMicros()
}

// Capacity is the number of units a full bucket holds.
func (r Rate) Capacity() int64 {
	if r.Burst == 0 {
		return r.N
	}
	return r.Burst
}

// UnitMicros is the time one unit takes to come back, in microseconds. It is
// zero for a rate without units.
func (r Rate) UnitMicros() int64 {
	if r.N < 1 {
		return 0
	}
	w := r.Window.Microseconds()
	unit := w / r.N
	if w%r.N != 0 {
		unit++
	}
	return unit
}

// SpanMicros is the time an empty bucket takes to fill, in microseconds.
func (r Rate) SpanMicros() int64 { return r.Capacity() * r.UnitMicros() }

// Share is the part of the rate one of several instances may grant alone: the
// n-th part of units and burst, but at least one unit. The zero and one
// instance leave the rate as it is.
func (r Rate) Share(instances int) Rate {
	if instances <= 1 {
		return r
	}
	n := int64(instances)
	if r.Burst != 0 {
		r.Burst = max(1, r.Burst/n)
	}
	r.N = max(1, r.N/n)
	return r
}
