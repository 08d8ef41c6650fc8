package lint

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/moat-gateway/moat/internal/canon"
	"github.com/moat-gateway/moat/internal/ratelimit"
)

// limit is one limit of a moat_limit.
type limit struct {
	Name       string            `json:"name"`
	Rate       string            `json:"rate"`
	Concurrent int64             `json:"concurrent"`
	By         []string          `json:"by"`
	On         []on              `json:"on"`
	Count      []int             `json:"count"`
	Cost       string            `json:"cost"`
	Tier       map[string]string `json:"tier"`
	Burst      int64             `json:"burst"`
	Except     []string          `json:"except"`
	Mode       string            `json:"mode"`
	OnError    string            `json:"on_error"`
	Instances  int               `json:"instances"`
	Place      string            `json:"place"`

	partial bool // not every request of the site comes to it
}

type on struct {
	Methods []string `json:"methods"`
	Pattern string   `json:"pattern"`
}

func (l *limit) name() string {
	keys := strings.Join(l.By, "-")
	if l.Concurrent > 0 {
		keys = "concurrent-" + keys
	}
	return cmp.Or(l.Name, keys)
}

// limits judges the limits of one handler and adds them to what requests have
// passed.
func (w *walker) limits(path string, h object, at position) position {
	list, err := decode[[]*limit](h["limits"])
	if err != nil {
		w.add(PolicyDoesNotLoad, High, path, "the limits of site %s cannot be read: %s", at.site.name, misfit(err))
		return at
	}
	at.limits = slices.Clone(at.limits)
	for i, l := range list {
		if l == nil {
			continue
		}
		l.Place, l.partial = cmp.Or(l.Place, join(path+"/limits", i)), at.partial
		at.site.limits = append(at.site.limits, l)
		w.limit(l, at)
	}
	// All limits of a handler are charged together, so each may be the one that
	// leaves another without work.
	for _, l := range list {
		if l != nil {
			w.dominated(l, append(slices.Clone(at.limits), list...))
		}
	}
	at.limits = append(at.limits, slices.DeleteFunc(slices.Clone(list), func(l *limit) bool { return l == nil })...)
	return at
}

// limit judges one limit for itself.
func (w *walker) limit(l *limit, at position) {
	if l.Mode == "shadow" {
		at.site.shadows = append(at.site.shadows, shadow{l.Place, "limit " + l.name() + ": mode shadow: it counts and refuses nothing"})
	}
	if l.OnError == "open" {
		w.add(OnErrorOpen, Medium, l.Place, "limit %s: on_error open: nothing is limited while the store is away", l.name())
	}
	if why := idle(l, at.guard); why != "" {
		w.add(LimitNeverBites, Medium, l.Place, "limit %s refuses nothing: %s", l.name(), why)
	}
	if severity, chosen := fromCaller(l); chosen {
		w.add(LimitKeyFromCaller, severity, l.Place,
			"limit %s is kept by %s only, which the caller chooses: another value is another bucket", l.name(), strings.Join(l.By, ", "))
	}
}

// idle says why a limit applies to no request or counts no answer, or "".
func idle(l *limit, guard object) string {
	switch {
	case excludesAll(l.Except):
		return "except leaves no address"
	case len(l.Count) > 0 && !slices.ContainsFunc(l.Count, func(status int) bool { return status >= 200 || status == 101 }):
		return "no answer ends with a status that it counts"
	case guard != nil && len(l.On) > 0 && !slices.ContainsFunc(l.On, func(o on) bool { return passes(guard, o.Methods) }):
		return "the guard refuses every method of its `on`"
	}
	return ""
}

// passes reports whether the guard lets one of the methods pass.
func passes(guard object, methods []string) bool {
	passing := canon.DefaultMethods()
	if listed := texts(guard["methods"]); len(listed) > 0 {
		passing = listed
	}
	return slices.ContainsFunc(methods, func(m string) bool {
		return m == "*" || slices.Contains(passing, m) || m == "GET" && slices.Contains(passing, "HEAD")
	})
}

// excludesAll reports whether prefixes leave no IPv4 and no IPv6 address.
func excludesAll(except []string) bool {
	var v4, v6 bool
	for _, text := range except {
		if prefix, err := netip.ParsePrefix(text); err == nil && prefix.Bits() == 0 {
			v4 = v4 || prefix.Addr().Is4()
			v6 = v6 || prefix.Addr().Is6()
		}
	}
	return v4 && v6
}

// fromCaller reports whether the caller chooses all of a limit's keys. A
// parameter or path names at least what is asked for, so that a limit by it
// protects that one thing.
func fromCaller(l *limit) (Severity, bool) {
	severity := Low
	for _, key := range l.By {
		kind, _, _ := strings.Cut(key, ":")
		switch kind {
		case "header", "cookie":
			severity = Medium
		case "param":
		case "path":
			if !slices.ContainsFunc(l.On, func(o on) bool { return strings.ContainsAny(o.Pattern, "{*") }) && len(l.On) > 0 {
				return "", false // Every path is spelled out.
			}
		default:
			return "", false
		}
	}
	return severity, len(l.By) > 0
}

// dominated reports a limit that another one always forestalls. Of two that are
// alike, the second is the idle one.
func (w *walker) dominated(l *limit, others []*limit) {
	behind := false
	for _, other := range others {
		if other == l {
			behind = true
			continue
		}
		if other != nil && forestalls(other, l) && !(behind && forestalls(l, other)) {
			w.add(LimitNeverBites, Medium, l.Place, "limit %s refuses nothing that limit %s at %s does not refuse first",
				l.name(), other.name(), other.Place)
			return
		}
	}
}

// forestalls reports whether b can refuse nothing that a lets pass: every charge
// of a bucket of b is also a charge of one bucket of a, which holds no more and
// fills no faster.
func forestalls(a, b *limit) bool {
	return a.Mode != "shadow" && len(a.Tier) == 0 && a.Cost == b.Cost && a.OnError == b.OnError && a.Instances == b.Instances &&
		coarser(a.By, b.By) && wider(a, b) && tighter(a, b)
}

// coarser reports whether requests in one bucket by the keys b are always in one
// bucket by the keys a.
func coarser(a, b []string) bool {
	return !slices.ContainsFunc(a, func(key string) bool {
		return key != "all" && (strings.HasPrefix(key, "param:") || !slices.Contains(b, key))
	})
}

// wider reports whether a is charged for everything that b is charged for.
func wider(a, b *limit) bool {
	everywhere := slices.ContainsFunc(a.On, func(o on) bool { return slices.Equal(o.Methods, []string{"*"}) && o.Pattern == "/**" })
	return (len(a.On) == 0 || everywhere || len(b.On) > 0 && subset(b.On, a.On, sameOn)) &&
		(len(a.Count) == 0 || len(b.Count) > 0 && subset(b.Count, a.Count, func(x, y int) bool { return x == y })) &&
		subset(a.Except, b.Except, func(x, y string) bool { return x == y })
}

func sameOn(x, y on) bool { return x.Pattern == y.Pattern && slices.Equal(x.Methods, y.Methods) }

func subset[T any](part, whole []T, same func(x, y T) bool) bool {
	return !slices.ContainsFunc(part, func(x T) bool {
		return !slices.ContainsFunc(whole, func(y T) bool { return same(x, y) })
	})
}

// tighter reports whether a bucket of a holds no more than any of b and fills
// no faster.
func tighter(a, b *limit) bool {
	mine, err := ratelimit.ParseRate(a.Rate)
	if err != nil {
		return false
	}
	mine.Burst = a.Burst
	base, err := ratelimit.ParseRate(b.Rate)
	if err != nil {
		return false
	}
	base.Burst = b.Burst
	rates := []ratelimit.Rate{base}
	for _, role := range slices.Sorted(maps.Keys(b.Tier)) {
		tier, err := ratelimit.ParseRate(b.Tier[role])
		if err != nil {
			return false
		}
		rates = append(rates, tier)
	}
	return !slices.ContainsFunc(rates, func(r ratelimit.Rate) bool {
		return r.Capacity() < mine.Capacity() || r.UnitMicros() > mine.UnitMicros()
	})
}

// sites judges what only all of a site shows.
func (l *linter) sites() {
	for _, s := range l.seen {
		if !s.shadowed {
			for _, found := range s.shadows {
				l.add(ShadowMode, Low, found.place, "%s", found.message)
			}
		}
		if s.gate != "" {
			l.anonymous(s)
		}
	}
}

// anonymous reports a site where nothing limits callers who are not known.
func (l *linter) anonymous(s *site) {
	some := false
	for _, lim := range s.limits {
		// How many requests run at one time says nothing of how many come.
		if lim.Mode == "shadow" && !s.shadowed || byIdentity(lim) || lim.Concurrent > 0 {
			continue
		}
		if _, chosen := fromCaller(lim); chosen {
			continue
		}
		if len(lim.On) == 0 && len(lim.Count) == 0 && !lim.partial {
			return
		}
		some = true
	}
	place, _, _ := strings.Cut(s.name, ", ")
	place = l.at(s.gate, place)
	if some {
		l.add(NoLimitForAnonymous, Low, place, "the limits for anonymous callers of site %s hold for some requests only", s.name)
		return
	}
	l.add(NoLimitForAnonymous, Medium, place, "no limit holds for anonymous callers of site %s", s.name)
}

func byIdentity(l *limit) bool {
	return slices.ContainsFunc(l.By, func(key string) bool { return key == "user" || key == "tenant" || key == "session" })
}
