package rbac

import (
	"fmt"
	"slices"
	"strings"
)

// maxConflicts bounds how many conflicts one error names.
const maxConflicts = 50

// search finds the pairs of patterns that match a common path while each is the
// more specific one at some position of it. Which rule should decide there is
// the operator's to say, not ours to guess.
type search struct {
	root *node
	of   *terminal
	errs []error
}

// conflicts returns an error for every pair of rules in conflict.
func conflicts(root *node, terminals []*terminal) []error {
	s := search{root: root}
	for _, t := range terminals {
		s.of = t
		s.walk(root, t.segments, false, false)
		if len(s.errs) >= maxConflicts {
			return append(s.errs, &RuleError{Reason: "more conflicts are not listed"})
		}
	}
	return s.errs
}

// walk visits the patterns below n that overlap with the rest of the pattern at
// hand. ahead and behind say that the pattern at hand was the more or the less
// specific one at some position before. Of each pair only one walk reports: the
// one whose pattern is ahead first.
func (s *search) walk(n *node, rest []segment, ahead, behind bool) {
	if n == nil || len(s.errs) >= maxConflicts {
		return
	}
	if len(rest) == 0 {
		s.visit(n.exact, ahead, behind)
		s.visit(n.tail, ahead, behind)
		return
	}
	switch rest[0].kind {
	case literal:
		s.walk(n.literals[rest[0].text], rest[1:], ahead, behind)
		s.walk(n.param, rest[1:], true, behind)
		s.visit(n.tail, true, behind)
	case parameter:
		s.walk(n.param, rest[1:], ahead, behind)
		s.visit(n.tail, true, behind)
		if ahead {
			for _, next := range n.children {
				s.walk(next, rest[1:], ahead, true)
			}
		}
	case tail:
		s.visit(n.exact, ahead, behind)
		s.visit(n.tail, ahead, behind)
		if ahead {
			s.walk(n.param, rest, ahead, true)
			for _, next := range n.children {
				s.walk(next, rest, ahead, true)
			}
		}
	}
}

// visit reports the rules of the pattern at hand and of other that are in
// conflict, unless a third pattern is exactly what both match.
func (s *search) visit(other *terminal, ahead, behind bool) {
	if other == nil || !ahead || !behind {
		return
	}
	overlap := meet(s.of.segments, other.segments)
	third := s.root.at(overlap, false)
	type pair struct{ a, b *Rule }
	var order []pair
	methods := map[pair][]string{}
	for _, m := range commonMethods(s.of, other) {
		p := pair{s.of.rule(m), other.rule(m)}
		if p.a == nil || p.b == nil || third.rule(m) != nil {
			continue
		}
		if methods[p] == nil {
			order = append(order, p)
		}
		methods[p] = append(methods[p], m)
	}
	for _, p := range order {
		s.errs = append(s.errs, &RuleError{
			Place: p.a.Place,
			Value: p.a.String(),
			Reason: fmt.Sprintf("conflicts with %q at %s: each is the more specific one somewhere; "+
				"add a rule for %s %s, which both match", p.b, p.b.Place, methodList(methods[p]), written(overlap)),
		})
	}
}

// commonMethods returns the methods for which two patterns may have different
// rules, and "" for all others. The HEAD that a GET covers needs no mention: what
// decides on GET at the overlap decides on HEAD, too.
func commonMethods(a, b *terminal) []string {
	methods := []string{""}
	for _, list := range [][]named{a.named, b.named} {
		for _, n := range list {
			methods = append(methods, n.method)
		}
	}
	slices.Sort(methods)
	return slices.Compact(methods)
}

// methodList writes methods as a rule's line would.
func methodList(methods []string) string {
	if slices.Contains(methods, "") {
		return anyMethod
	}
	return strings.Join(methods, ",")
}

// meet returns the pattern of the paths that two overlapping patterns both
// match: of each position the more specific side.
func meet(a, b []segment) []segment {
	var out []segment
	for i := 0; ; i++ {
		switch {
		case i >= len(a):
			// What b has left can only be a tail that matches nothing.
			return out
		case a[i].kind == tail:
			return append(out, b[min(i, len(b)):]...)
		case i < len(b) && b[i].kind == tail:
			return append(out, a[i:]...)
		case a[i].kind <= b[i].kind:
			out = append(out, a[i])
		default:
			out = append(out, b[i])
		}
	}
}
