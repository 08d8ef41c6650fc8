package lint

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/internal/rbac"
)

// The model knows the rules of specificity by their words in the manual, and
// finds out which rules decide by asking for every path.

var (
	modelWords   = []string{"a", "b", "zz"} // no pattern spells zz
	modelMethods = []string{"GET", "HEAD", "POST", "DELETE"}
)

// modelPaths are all paths of up to n segments.
func modelPaths(n int) [][]string {
	all := [][]string{{}}
	for last := all; n > 0; n-- {
		var longer [][]string
		for _, path := range last {
			for _, word := range modelWords {
				longer = append(longer, append(slices.Clone(path), word))
			}
		}
		all, last = append(all, longer...), longer
	}
	return all
}

// modelKind is how specific a pattern is at a segment of a path: a literal, a
// parameter, the tail, or the end.
func modelKind(pattern []string, i int) int {
	switch {
	case i < len(pattern) && strings.HasPrefix(pattern[i], "{") && !isTail(pattern[i]):
		return 1
	case i < len(pattern) && !isTail(pattern[i]):
		return 0
	default:
		return 2
	}
}

func modelMatch(pattern, path []string) bool {
	for i, part := range pattern {
		if isTail(part) {
			return true
		}
		if i >= len(path) || modelKind(pattern, i) == 0 && part != path[i] {
			return false
		}
	}
	return len(pattern) == len(path)
}

// modelBefore reports whether pattern p decides before q on a path that both
// match: it is nowhere less specific, and somewhere more, or it ends where q
// has a tail that matches nothing.
func modelBefore(p, q, path []string) bool {
	more := false
	for i := range path {
		switch kp, kq := modelKind(p, i), modelKind(q, i); {
		case kp > kq:
			return false
		case kp < kq:
			more = true
		}
	}
	return more || len(p) == len(path) && !endsInTail(p) && endsInTail(q)
}

func endsInTail(p []string) bool { return len(p) > 0 && isTail(p[len(p)-1]) }

// modelRank is how exactly a rule is meant for a method: 0 is by name, -1 not
// at all.
func modelRank(rule *rbac.RuleConfig, method string) int {
	switch {
	case slices.Contains(rule.Methods, method):
		return 0
	case method == "HEAD" && slices.Contains(rule.Methods, "GET"):
		return 1
	case slices.Contains(rule.Methods, "*"):
		return 2
	}
	return -1
}

// modelDecider is the rule that no other decides before.
func modelDecider(rules []rbac.RuleConfig, path []string, method string) int {
	best := -1
	for i := range rules {
		p := segments(rules[i].Pattern)
		if modelRank(&rules[i], method) < 0 || !modelMatch(p, path) {
			continue
		}
		if best < 0 {
			best = i
			continue
		}
		q := segments(rules[best].Pattern)
		same := !modelBefore(p, q, path) && !modelBefore(q, p, path)
		if modelBefore(p, q, path) || same && modelRank(&rules[i], method) < modelRank(&rules[best], method) {
			best = i
		}
	}
	return best
}

func modelUnreachable(rules []rbac.RuleConfig) []string {
	reached := make([]bool, len(rules))
	for _, path := range modelPaths(5) {
		for _, method := range modelMethods {
			if i := modelDecider(rules, path, method); i >= 0 {
				reached[i] = true
			}
		}
	}
	var places []string
	for i := range rules {
		if !reached[i] {
			places = append(places, rules[i].Place)
		}
	}
	return places
}

func modelRules(random *rand.Rand) []rbac.RuleConfig {
	methods := [][]string{{"*"}, {"GET"}, {"POST"}, {"GET", "POST"}, {"HEAD"}, {"GET", "HEAD", "POST", "DELETE"}}
	var rules []rbac.RuleConfig
	for i := range 2 + random.IntN(6) {
		pattern := ""
		for range random.IntN(3) {
			pattern += "/" + []string{"a", "b", "{x%d}", "{x%d}"}[random.IntN(4)]
			pattern = strings.ReplaceAll(pattern, "%d", fmt.Sprint(len(pattern)))
		}
		if random.IntN(2) == 0 || pattern == "" {
			pattern += "/**"
		}
		rules = append(rules, rbac.RuleConfig{
			Methods: methods[random.IntN(len(methods))], Pattern: pattern, Require: []string{"public"}, Place: fmt.Sprintf("r%d", i),
		})
	}
	return rules
}

// lintRules returns the places of one code for one gate with these rules.
func lintRules(t *testing.T, code Code, guard object, rules []rbac.RuleConfig) []string {
	t.Helper()
	guard["handler"] = "moat_guard"
	config, err := json.Marshal(object{"apps": object{"http": object{"servers": object{"s": object{"routes": []any{
		object{"handle": []any{guard, object{"handler": "moat_rbac", "rules": rules}}},
	}}}}}})
	if err != nil {
		t.Fatal(err)
	}
	report, err := Run(config, Options{})
	if err != nil {
		t.Fatal(err)
	}
	var places []string
	for _, f := range report.Findings {
		if f.Code == code {
			places = append(places, f.Place)
		}
	}
	return places
}

func TestARuleIsUnreachableExactlyWhenItDecidesOnNoRequest(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	judged, shadowed := 0, 0
	for range 3000 {
		rules := modelRules(random)
		if _, err := rbac.NewPolicy(rbac.PolicyConfig{Rules: rules}, nil); err != nil {
			continue
		}
		judged++
		want := modelUnreachable(rules)
		shadowed += len(want)
		got := lintRules(t, UnreachableRule, object{"methods": modelMethods}, rules)
		if !slices.Equal(got, want) {
			t.Fatalf("unreachable are %v, want %v of %+v", got, want, rules)
		}
	}
	if judged < 500 || shadowed < 50 {
		t.Fatalf("%d policies with %d unreachable rules: the model is asked too little", judged, shadowed)
	}
}

func TestReachKnowsTheGuardAndTheSpelling(t *testing.T) {
	rule := func(place, methods, pattern string) rbac.RuleConfig {
		return rbac.RuleConfig{
			Methods: strings.Split(methods, ","), Pattern: pattern, Require: []string{"authenticated"}, Place: place,
		}
	}
	all := strings.Join([]string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}, ",")
	covered := []rbac.RuleConfig{rule("deny", "*", "/a/**"), rule("one", "*", "/a"), rule("more", "*", "/a/{x}/**")}
	conditional := slices.Clone(covered)
	conditional[1].When = "anything"
	for name, row := range map[string]struct {
		guard object
		rules []rbac.RuleConfig
		want  []string
	}{
		"covered":                          {object{}, covered, []string{"deny"}},
		"covered by a condition":           {object{}, conditional, []string{"deny"}},
		"empty segments pass":              {object{"insecure_allow_empty_segments": true}, covered, nil},
		"all methods of the guard":         {object{}, []rbac.RuleConfig{rule("any", "*", "/a"), rule("named", all, "/a")}, []string{"any"}},
		"the guard knows one more":         {object{"methods": []string{"GET", "PROPFIND"}}, []rbac.RuleConfig{rule("any", "*", "/a"), rule("named", all, "/a")}, nil},
		"a method that the guard refuses":  {object{}, []rbac.RuleConfig{rule("trace", "TRACE", "/a")}, []string{"trace"}},
		"HEAD goes on for GET":             {object{"methods": []string{"HEAD"}}, []rbac.RuleConfig{rule("get", "GET", "/a")}, nil},
		"letters that are no ASCII":        {object{}, []rbac.RuleConfig{rule("any", "*", "/caf\u00e9/**"), rule("one", "*", "/caf%C3%A9"), rule("more", "*", "/caf\u00e9/{x}/**")}, []string{"any"}},
		"a literal that looks like ours":   {object{}, []rbac.RuleConfig{rule("any", "*", "/**"), rule("one", "*", "/"), rule("more", "*", "/unspelled/**")}, nil},
		"the root":                         {object{}, []rbac.RuleConfig{rule("any", "*", "/**"), rule("one", "*", "/"), rule("more", "*", "/{x}/**")}, []string{"any"}},
		"longer than every pattern spells": {object{}, []rbac.RuleConfig{rule("any", "*", "/**"), rule("0", "*", "/"), rule("1", "*", "/{x}"), rule("2", "*", "/{x}/{y}")}, nil},
	} {
		if got := lintRules(t, UnreachableRule, row.guard, row.rules); !slices.Equal(got, row.want) {
			t.Errorf("%s: %v, want %v", name, got, row.want)
		}
	}
}
