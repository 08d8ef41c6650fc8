package reader

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/moat-gateway/moat/internal/audit"
)

// Severities are the words for how grave an event is, from the least.
var Severities = []string{string(audit.Low), string(audit.Medium), string(audit.High)}

// Filter says which events are meant. An event must fit each field that is not
// empty; it fits a list when it fits one of its values.
type Filter struct {
	Users, RequestIDs, Tenants    []string
	Outcomes, Severities, Classes []string
	// Actions, Reasons and Paths may end in "*", which stands for any rest.
	Actions, Reasons, Paths []string
	// Addresses and Pseudonyms are one list: a trail has either in the place of
	// the address.
	Addresses  []netip.Prefix
	Pseudonyms []string
	// MinSeverity is the least grave of Severities that is meant.
	MinSeverity string
	// Since is the first moment that is meant, Until the first that no longer is.
	Since, Until time.Time
}

// Match reports whether e is meant.
func (f *Filter) Match(e *Event) bool {
	return f.matchTime(e.Time) &&
		isOne(f.Outcomes, e.Outcome) && isOne(f.Severities, e.Severity) && isOne(f.Classes, e.Class) &&
		f.matchLeast(e.Severity) &&
		isOne(f.Users, e.User) && isOne(f.RequestIDs, e.RequestID) && isOne(f.Tenants, e.Tenant) &&
		fitsOne(f.Actions, e.Action) && fitsOne(f.Reasons, e.Reason) && fitsOne(f.Paths, e.Path) &&
		f.matchIP(e.IP)
}

func (f *Filter) matchTime(t time.Time) bool {
	return (f.Since.IsZero() || !t.Before(f.Since)) && (f.Until.IsZero() || t.Before(f.Until))
}

func (f *Filter) matchLeast(severity string) bool {
	return f.MinSeverity == "" || slices.Index(Severities, severity) >= slices.Index(Severities, f.MinSeverity)
}

func (f *Filter) matchIP(text string) bool {
	if len(f.Addresses) == 0 && len(f.Pseudonyms) == 0 || slices.Contains(f.Pseudonyms, text) {
		return true
	}
	if len(f.Addresses) == 0 {
		return false
	}
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return false
	}
	addr = addr.Unmap().WithZone("") // A prefix contains no address with a zone.
	return slices.ContainsFunc(f.Addresses, func(p netip.Prefix) bool { return p.Contains(addr) })
}

func isOne(list []string, value string) bool { return len(list) == 0 || slices.Contains(list, value) }

func fitsOne(patterns []string, value string) bool {
	return len(patterns) == 0 || slices.ContainsFunc(patterns, func(pattern string) bool {
		if start, open := strings.CutSuffix(pattern, "*"); open {
			return strings.HasPrefix(value, start)
		}
		return value == pattern
	})
}

// The times of lines and files are those of one clock, but not in strict order.
const (
	// clockSlack is how far that clock may have been set back.
	clockSlack = time.Minute
	// queueSlack is how long an event may have waited to be written, as events do
	// while a disk is full.
	queueSlack = time.Hour
)

// beforeAll reports whether all that was written before a moment is too old.
func (f *Filter) beforeAll(written time.Time) bool {
	return !f.Since.IsZero() && written.Before(f.Since.Add(-clockSlack))
}

// afterAll reports whether all that was written after a moment is too new.
func (f *Filter) afterAll(written time.Time) bool {
	return !f.Until.IsZero() && written.After(f.Until.Add(queueSlack))
}
