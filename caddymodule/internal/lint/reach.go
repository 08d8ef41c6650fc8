package lint

import (
	"fmt"
	"slices"
	"strings"

	"github.com/moat-gateway/moat/internal/canon"
	"github.com/moat-gateway/moat/internal/rbac"
)

// otherMethod stands for every method that no rule names.
const otherMethod = "MOAT-OTHER"

// reach reports rules that can never decide.
//
// A rule that decides on some path also decides on the path of the same length
// that has, in place of each parameter and each segment of the tail, a segment
// that no rule spells: on that one no more patterns match than on the other,
// and all of them match the other. So it is enough to ask, for every length up
// to one more than the longest pattern has, which rule decides there. Longer
// paths are matched by the same tails. Conditions do not matter: where one does
// not hold the request is refused and no other rule is asked.
func (l *linter) reach(p *policy, rules []rbac.RuleConfig) {
	if len(rules) == 0 {
		return
	}
	bare := slices.Clone(rules)
	for i := range bare {
		bare[i].When = ""
	}
	table, err := rbac.NewPolicy(rbac.PolicyConfig{Rules: bare, CaseInsensitive: set(p.handler["case_insensitive"])}, nil)
	if err != nil {
		l.add(PolicyDoesNotLoad, High, p.path, "the rules of site %s do not load: %s", p.site.name, firstLine(err))
		return
	}
	r, compiled := newReach(table, p.guard, rules), table.Rules()
	for i := range rules {
		rule := &rules[i]
		methods := r.methodsOf(rule)
		if len(methods) == 0 {
			l.add(UnreachableRule, Medium, rule.Place, "the rule %s never decides: the guard refuses its methods", line(rule))
			continue
		}
		if before, never := r.covered(compiled[i], methods); never {
			l.add(UnreachableRule, Medium, rule.Place, "the rule %s never decides: %s before it", line(rule), decides(before))
		}
	}
}

func firstLine(err error) string {
	first, _, _ := strings.Cut(err.Error(), "\n")
	return first
}

func decides(rules []*rbac.Rule) string {
	names := make([]string, len(rules))
	for i, rule := range rules {
		names[i] = fmt.Sprintf("`%s` (%s)", rule, rule.Place)
	}
	if len(names) == 1 {
		return names[0] + " decides"
	}
	return strings.Join(names, " and ") + " decide"
}

// reach asks a compiled policy which rule decides.
type reach struct {
	table    *rbac.Policy
	methods  []string // worth asking for
	longest  int      // segments of the longest pattern
	fresh    string   // a segment that no rule spells
	slippery bool     // empty segments pass the guard
}

func newReach(table *rbac.Policy, guard object, rules []rbac.RuleConfig) *reach {
	r := &reach{table: table, fresh: "unspelled", slippery: set(guard["insecure_allow_empty_segments"])}
	named := []string{"HEAD", otherMethod}
	for i := range rules {
		named = append(named, rules[i].Methods...)
		r.longest = max(r.longest, len(segments(rules[i].Pattern)))
		for strings.Contains(strings.ToLower(rules[i].Pattern), r.fresh) {
			r.fresh += "x"
		}
	}
	if guard != nil {
		passing := canon.DefaultMethods()
		if listed := texts(guard["methods"]); len(listed) > 0 {
			passing = listed
		}
		named = passing
	}
	slices.Sort(named)
	r.methods = slices.DeleteFunc(slices.Compact(named), func(m string) bool { return m == "*" })
	return r
}

// methodsOf returns the methods that a rule competes for and a request can
// have.
func (r *reach) methodsOf(rule *rbac.RuleConfig) []string {
	return slices.DeleteFunc(slices.Clone(r.methods), func(m string) bool {
		return !slices.Contains(rule.Methods, "*") && !slices.Contains(rule.Methods, m) &&
			(m != "HEAD" || !slices.Contains(rule.Methods, "GET"))
	})
}

// covered reports whether a rule never decides, and at most three of the rules
// that do. What cannot be found out counts as reachable.
func (r *reach) covered(rule *rbac.Rule, methods []string) (before []*rbac.Rule, never bool) {
	parts := segments(rule.Pattern)
	tail := len(parts) > 0 && isTail(parts[len(parts)-1])
	if tail && r.slippery {
		// A tail takes empty segments, which no parameter does.
		return nil, false
	}
	lengths := []int{len(parts)}
	if tail {
		lengths = nil
		for n := len(parts) - 1; n <= r.longest+1; n++ {
			lengths = append(lengths, n)
		}
	}
	for _, n := range lengths {
		path, ok := r.path(rule, parts, n)
		if !ok {
			return nil, false
		}
		for _, method := range methods {
			winner := r.table.Lookup(method, path).Rule()
			if winner == nil || winner == rule {
				return nil, false
			}
			if len(before) < 3 && !slices.Contains(before, winner) {
				before = append(before, winner)
			}
		}
	}
	return before, true
}

// path is the path of n segments that a pattern shares with as few others as
// possible.
func (r *reach) path(rule *rbac.Rule, parts []string, n int) (string, bool) {
	var b strings.Builder
	for i := range n {
		part := r.fresh
		if i < len(parts) && !strings.HasPrefix(parts[i], "{") && !isTail(parts[i]) {
			part = escapeUTF8(parts[i])
		}
		b.WriteString("/" + part)
	}
	if n == 0 {
		return "/", true
	}
	path, err := canon.Path(b.String())
	if err != nil {
		return "", false
	}
	pattern, err := rbac.ParsePattern(rule.Pattern)
	return path, err == nil && pattern.Match(path)
}

// segments parts a pattern; a final slash is as none.
func segments(pattern string) []string {
	inner := strings.TrimSuffix(strings.TrimPrefix(pattern, "/"), "/")
	if inner == "" {
		return nil
	}
	return strings.Split(inner, "/")
}

func isTail(part string) bool {
	return part == "**" || strings.HasPrefix(part, "{") && strings.HasSuffix(part, "...}")
}

// escapeUTF8 percent-encodes what is not ASCII, as a rule's pattern may hold.
func escapeUTF8(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if s[i] < 0x80 {
			b.WriteByte(s[i])
			continue
		}
		fmt.Fprintf(&b, "%%%02X", s[i])
	}
	return b.String()
}
