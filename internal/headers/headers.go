// Package headers knows which security headers an answer carries and makes
// sure that it carries exactly one value of each. It works on http.Header
// values only: it knows no response writer, no server and no request, and it
// never writes a log.
package headers

import (
	"net/http"
	"slices"
	"strings"
)

// Conn is what a policy asks about the connection and the caller of an answer.
// The zero value is a plain-text connection of nobody.
type Conn struct {
	// TLS says that the answer leaves over TLS. Strict-Transport-Security is
	// sent only then (RFC 6797 section 7.2).
	TLS bool
	// Authenticated says that the answer was made for a known caller. Answers
	// for a known caller that name no cache rule are not stored, so that no
	// cache hands one caller's page to another.
	Authenticated bool
	// Code allows the answer's own inline code; nil: none of it. It counts with a
	// policy for inline code only.
	Code *Code
}

// Policy is a compiled header policy. It is immutable and may be used by many
// goroutines at once. The zero Policy sets nothing; only New makes a useful
// one.
type Policy struct {
	rules   []rule
	cookies Cookies
	inline  bool
	removed []string        // canonical names
	owned   map[string]bool // every name of rules and removed
	csp     string
}

// Apply sets the policy's headers at once and is called before anything else
// writes into h. It is what errors and refusals carry when their answer never
// reaches Settle; the values are therefore final ones.
//
// A header that is only filled in where the upstream sets none (Cache-Control)
// is left to Settle: a value that stands there early would be joined by the
// upstream's own, and handlers on the way that look for one would find ours.
//
// Apply makes one allocation: the values are copied for each answer, because
// handlers may change a header's value in place and would otherwise change it
// for every later answer.
func (p *Policy) Apply(h http.Header, c Conn) {
	p.strip(h)
	block := make([]string, len(p.rules))
	for i := range p.rules {
		r := &p.rules[i]
		v := r.want(c)
		if v == "" || r.mode == fill {
			continue
		}
		block[i] = v
		// The capacity ends here, so that an Add moves the slice away
		// instead of writing into the next header's value.
		end := i + 1
		if end < len(p.rules) && p.rules[end].mode == fill {
			// No header has this value yet; reveal finds it here.
			block[end] = p.rules[end].value
			end++
		}
		h[r.name] = block[i : i+1 : end]
	}
}

// Inline reports whether the policy is one for inline code, which Conn.Code allows.
func (p *Policy) Inline() bool { return p.inline }

// Settle makes h final and is called when the status is known, just before the
// header is written. Afterwards every header of the policy has exactly one
// value: the policy's, or the upstream's where the policy keeps it. Only a header
// that is merged has the policy's value first and the upstream's behind it. Calling
// it again changes nothing.
//
// An informational status (1xx) is not final and changes nothing, except 101,
// after which no other follows.
//
// Keys of http.TrailerPrefix are not touched. A name that is announced in Trailer is
// removed like others: a proxy adds the trailer's value after the body.
//
// Not Modified (304) updates what a browser has stored: a policy for inline code is
// left out there, for it would not fit the stored page.
//
// Over a plain connection the policy has no Strict-Transport-Security of its
// own. One well-formed value of the upstream stays, for TLS may end in front
// of the gateway; anything else of that name goes.
func (p *Policy) Settle(h http.Header, status int, c Conn) {
	if status >= 100 && status < 200 && status != http.StatusSwitchingProtocols {
		return
	}
	p.fold(h)
	p.strip(h)
	var block []string
	for i := range p.rules {
		r := &p.rules[i]
		want := r.want(c)
		if want == "" && r.mode == fill {
			continue
		}
		if r.code != nil && status == http.StatusNotModified {
			delete(h, r.name)
			continue
		}
		values, present := h[r.name]
		chosen := r.choose(values, want)
		switch {
		case chosen != nil && len(values) == len(chosen): // it stands there already
		case chosen != nil:
			h[r.name] = chosen
		case r.mode == fill && p.reveal(h, i, want): // Apply had it ready
		case want != "":
			if block == nil {
				block = make([]string, len(p.rules)-i)
			}
			block[0] = want
			h[r.name] = block[:1:1]
			block = block[1:]
		case present:
			delete(h, r.name)
		}
	}
	if p.cookies.active() {
		if lines := h[nameCookie]; len(lines) > 0 {
			h[nameCookie] = p.cookies.harden(lines, c.TLS)
		}
	}
}

// Retract takes back what Apply has set in h, so that another policy can settle it:
// the upstream's values stay.
func (p *Policy) Retract(h http.Header, c Conn) {
	for i := range p.rules {
		r := &p.rules[i]
		want, values := r.want(c), h[r.name]
		switch {
		case want == "" || r.mode == fill || len(values) == 0 || values[0] != want:
		case len(values) == 1:
			delete(h, r.name)
		default:
			h[r.name] = values[1:len(values):len(values)]
		}
	}
}

// reveal sets header i to the value that Apply has put behind the value of the
// header before it, so that filling in costs no second allocation, and reports
// whether it was there. It only reads what is behind: a slice that is not
// Apply's has something else there, or nothing.
func (p *Policy) reveal(h http.Header, i int, want string) bool {
	before := p.rules[i-1].name
	values := h[before] // settled already, so it is one value or absent
	if cap(values) < 2 || values[:2][1] != want {
		return false
	}
	h[before] = values[:1:1]
	h[p.rules[i].name] = values[1:2:2]
	return true
}

// Changes names the headers that Settle would change in h, sorted, and leaves
// h as it is. It is what a policy in shadow mode counts.
func (p *Policy) Changes(h http.Header, status int, c Conn) []string {
	settled := h.Clone()
	if settled == nil {
		settled = make(http.Header)
	}
	p.Settle(settled, status, c)
	var names []string
	for name := range p.owned {
		if !slices.Equal(h[name], settled[name]) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Names returns the canonical names of the headers that have exactly one value
// on every final answer over TLS, in the order of the preset, then of Set.
func (p *Policy) Names() []string {
	names := make([]string, 0, len(p.rules))
	for i := range p.rules {
		if !p.rules[i].callers {
			names = append(names, p.rules[i].name)
		}
	}
	return names
}

// CSP returns the content security policy as it is sent over TLS. Over a plain
// connection the html preset leaves out upgrade-insecure-requests, and report-to is
// missing where there is a Report.
func (p *Policy) CSP() string { return p.csp }

// fold moves values of the policy's headers from keys in another spelling to
// the canonical key. Handlers may write into the map directly, and two
// spellings would leave as two headers.
func (p *Policy) fold(h http.Header) {
	for key, values := range h {
		name := http.CanonicalHeaderKey(key)
		if name == key || !p.owned[name] {
			continue
		}
		delete(h, key)
		h[name] = append(slices.Clip(h[name]), values...)
	}
}

// strip deletes the headers that say what the answer was made with.
func (p *Policy) strip(h http.Header) {
	for _, name := range p.removed {
		delete(h, name)
	}
}

// mode says whose value wins.
type mode int

const (
	// replace: the policy's value, whatever the upstream says.
	replace mode = iota
	// keep: the upstream's value when there is one that browsers would obey.
	keep
	// fill: the upstream's value whenever there is one at all.
	fill
	// merge: the policy's value, and behind it all of the upstream's.
	merge
)

// rule is one header of a policy.
type rule struct {
	name    string // canonical
	value   string // sent over TLS
	plain   string // sent over a plain connection; empty: not sent there
	mode    mode
	callers bool // sent to known callers only
	// code and plainCode are the values with places for an answer's own sources.
	code, plainCode *pointed
}

// want returns the policy's own value for the connection; empty means that it
// has none.
func (r *rule) want(c Conn) string {
	switch {
	case r.callers && !c.Authenticated:
		return ""
	case r.code != nil && c.Code != nil && c.TLS:
		return r.code.with(*c.Code)
	case r.code != nil && c.Code != nil:
		return r.plainCode.with(*c.Code)
	case c.TLS:
		return r.value
	default:
		return r.plain
	}
}

// choose picks from the values that stand in the header now, or returns nil
// when none of them may stay. What it returns has one element and shares the
// memory of values where it can: values may belong to somebody else, so they
// are cut to size but never written to.
func (r *rule) choose(values []string, want string) []string {
	if len(values) == 0 {
		return nil
	}
	switch r.mode {
	case fill:
		return joined(values)
	case merge:
		return r.merged(values, want)
	case replace, keep:
	}
	if r.mode == keep || want == "" {
		theirs := values
		// A proxy adds to the value that Apply has set, so the first is ours.
		if len(values) > 1 && values[0] == want {
			theirs = values[1:]
		}
		if len(theirs) == 1 && problem(r.name, theirs[0]) == "" {
			return slices.Clip(theirs)
		}
	}
	if want == "" {
		return nil
	}
	if i := slices.Index(values, want); i >= 0 {
		return values[i : i+1 : i+1]
	}
	return nil
}

// merged puts the policy's value before those of the upstream. Blank ones and
// repetitions say nothing.
func (r *rule) merged(values []string, want string) []string {
	if len(values) == 1 && values[0] == want {
		return values
	}
	all := make([]string, 1, len(values)+1)
	all[0] = want
	for _, v := range values {
		if strings.TrimSpace(v) != "" && !slices.Contains(all, v) {
			all = append(all, v)
		}
	}
	return all
}

// joined makes one value of a list header's lines, which means the same (RFC
// 9110 section 5.3). Blank lines do not count as a value.
func joined(values []string) []string {
	if len(values) == 1 && strings.TrimSpace(values[0]) != "" {
		return values
	}
	var said []string
	for _, v := range values {
		if v = strings.TrimSpace(v); v != "" {
			said = append(said, v)
		}
	}
	if len(said) == 0 {
		return nil
	}
	return []string{strings.Join(said, ", ")}
}
