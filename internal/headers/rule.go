package headers

import (
	"slices"
	"strings"
)

// mode says whose value wins.
type mode int

const (
	// replace: the policy's value, whatever the upstream says.
	replace mode = iota
	// keep: the upstream's value when there is one that browsers would obey.
	keep
	// fill: the upstream's value whenever there is one at all.
	fill
)

// rule is one header of a policy.
type rule struct {
	name    string // canonical
	value   string // sent over TLS
	plain   string // sent over a plain connection; empty: not sent there
	mode    mode
	callers bool // sent to known callers only
}

// want returns the policy's own value for the connection; empty means that it
// has none.
func (r *rule) want(c Conn) string {
	switch {
	case r.callers && !c.Authenticated:
		return ""
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
	if r.mode == fill {
		return joined(values)
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
