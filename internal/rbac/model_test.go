package rbac_test

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/internal/identity"
	"github.com/moat-gateway/moat/internal/rbac"
)

// The model says the same as the package in other words: patterns are regular
// expressions, the most specific rule is searched for among all, what two
// patterns have in common is the set of paths that both match, and permissions
// are compared as text. It is slow and has no shortcuts.

// modelPaths is the universe of paths: the letter c is in no pattern, so that it
// stands for every segment that no rule names.
var modelPaths = func() []string {
	paths := []string{"/"}
	level := []string{""}
	for range 4 {
		var next []string
		for _, p := range level {
			for _, s := range []string{"a", "b", "c"} {
				next = append(next, p+"/"+s)
			}
		}
		paths, level = append(paths, next...), next
	}
	return paths
}()

var modelMethods = []string{"GET", "HEAD", "POST", "BREW"}

type modelRule struct {
	rbac.RuleConfig
	re    *regexp.Regexp
	paths map[string]bool
}

var (
	modelTail  = regexp.MustCompile(`/\*\*`)
	modelParam = regexp.MustCompile(`\{\w+\}`)
)

func newModelRule(c rbac.RuleConfig) *modelRule {
	expr := modelParam.ReplaceAllString(modelTail.ReplaceAllString(strings.TrimSuffix(c.Pattern, "/"), `(/[^/]+)*`), `[^/]+`)
	r := &modelRule{RuleConfig: c, re: regexp.MustCompile("^" + expr + "/?$"), paths: map[string]bool{}}
	for _, p := range modelPaths {
		if r.re.MatchString(p) {
			r.paths[p] = true
		}
	}
	return r
}

// lists returns how well the rule is for a method: 3 by name, 2 because GET
// covers HEAD, 1 for any, 0 not.
func (r *modelRule) lists(method string) int {
	switch {
	case slices.Contains(r.Methods, method):
		return 3
	case method == "HEAD" && slices.Contains(r.Methods, "GET"):
		return 2
	case r.Methods[0] == "*":
		return 1
	}
	return 0
}

// kinds returns for each position of a path what the pattern has there.
func (r *modelRule) kinds(path string) (kinds []int, tail bool) {
	segments := strings.FieldsFunc(r.Pattern, func(c rune) bool { return c == '/' })
	tail = strings.HasSuffix(r.Pattern, "**")
	for i := range strings.FieldsFunc(path, func(c rune) bool { return c == '/' }) {
		switch {
		case i >= len(segments) || segments[i] == "**":
			kinds = append(kinds, 2)
		case segments[i][0] == '{':
			kinds = append(kinds, 1)
		default:
			kinds = append(kinds, 0)
		}
	}
	return kinds, tail
}

// compare reports whether a is nowhere less specific than b at a path, and
// whether b is nowhere less specific than a.
func compare(a, b *modelRule, path string) (first, second bool) {
	ka, ta := a.kinds(path)
	kb, tb := b.kinds(path)
	first, second = true, true
	for i := range ka {
		first = first && ka[i] <= kb[i]
		second = second && kb[i] <= ka[i]
	}
	if first && second && ta != tb {
		return !ta, !tb
	}
	return first, second
}

// lookup returns the one rule that is nowhere less specific than any other.
func lookup(rules []*modelRule, method, path string) *modelRule {
	var candidates []*modelRule
	for _, r := range rules {
		if r.lists(method) > 0 && r.re.MatchString(path) {
			candidates = append(candidates, r)
		}
	}
	for _, r := range candidates {
		if !slices.ContainsFunc(candidates, func(o *modelRule) bool {
			best, other := compare(r, o, path)
			return !best || other && o.lists(method) > r.lists(method)
		}) {
			return r
		}
	}
	return nil
}

func samePaths(a, b map[string]bool) bool {
	for p := range a {
		if !b[p] {
			return false
		}
	}
	return len(a) == len(b)
}

// contradicts reports whether two rules may not stand beside each other.
func contradicts(rules []*modelRule, a, b *modelRule) bool {
	common := map[string]bool{}
	for p := range a.paths {
		if b.paths[p] {
			common[p] = true
		}
	}
	for _, m := range modelMethods {
		if a.lists(m) == 0 || b.lists(m) == 0 {
			continue
		}
		if samePaths(a.paths, b.paths) {
			if a.lists(m) == b.lists(m) && a.lists(m) != 2 {
				return true
			}
			continue
		}
		for p := range common {
			first, second := compare(a, b, p)
			if !first && !second && !slices.ContainsFunc(rules, func(r *modelRule) bool {
				return r.lists(m) > 0 && samePaths(r.paths, common)
			}) {
				return true
			}
		}
	}
	return false
}

func wellFormed(rules []*modelRule) bool {
	for i, a := range rules {
		for _, b := range rules[:i] {
			if contradicts(rules, a, b) {
				return false
			}
		}
	}
	return true
}

// passes is the decision in a few lines.
func passes(r *modelRule, path string, who *identity.Principal, configs []rbac.RoleConfig) bool {
	if r == nil || r.Require[0] == "deny" {
		return false
	}
	if r.Require[0] == "public" {
		return true
	}
	param := func(name string) string {
		at := slices.Index(strings.Split(r.Pattern, "/"), "{"+name+"}")
		return strings.Split(path, "/")[at]
	}
	local := who.Known() && who.SharesIDs
	owner := r.Owner != "" && local && param(r.Owner) == who.ID
	tenant := r.Tenant == "" || local && who.Tenant != "" && param(r.Tenant) == who.Tenant
	inScope := func(c rbac.RoleConfig) bool {
		return slices.Contains(who.Roles, c.Name) && (tenant || c.Scope == "global")
	}
	if r.Require[0] == "authenticated" {
		return who.Known() && (r.Owner == "" || owner) && (tenant || slices.ContainsFunc(configs, inScope))
	}
	for _, word := range r.Require {
		met := false
		for _, c := range configs {
			for held, wanted := range pairs(c.Permissions, strings.Split(word, "|")) {
				kind, own := strings.CutSuffix(held, ".own")
				all, wild := strings.CutSuffix(held, "*")
				below := wild && (strings.HasPrefix(wanted, all))
				met = met || inScope(c) && (below || own && owner && strings.HasPrefix(wanted, kind+".") ||
					held == wanted && (!own || r.Owner == ""))
			}
		}
		if !met {
			return false
		}
	}
	return true
}

func pairs(a, b []string) func(func(string, string) bool) {
	return func(yield func(string, string) bool) {
		for _, x := range a {
			for _, y := range b {
				if !yield(x, y) {
					return
				}
			}
		}
	}
}

func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }

func randomRule(r *rand.Rand) rbac.RuleConfig {
	c := rbac.RuleConfig{
		Methods: pick(r, []string{"*"}, []string{"GET"}, []string{"POST"}, []string{"HEAD"}, []string{"GET", "POST"}, []string{"POST", "HEAD"}),
	}
	var params []string
	for i := range r.IntN(4) {
		s := pick(r, "a", "b", fmt.Sprintf("{p%d}", i))
		if s[0] == '{' {
			params = append(params, strings.Trim(s, "{}"))
		}
		c.Pattern += "/" + s
	}
	c.Pattern += pick(r, "", "", "/**", "/")
	if c.Pattern == "" {
		c.Pattern = "/"
	}
	c.Require = pick(r, []string{"public"}, []string{"deny"}, []string{"authenticated"}, []string{"x.r"}, []string{"x.r", "y.r"},
		[]string{"x.w|y.w"}, []string{"x.own"}, []string{"x.y.z"}, []string{"x.r", "x.w|y.own"}, []string{"x.*"})
	if len(params) > 0 && c.Require[0] != "public" && c.Require[0] != "deny" {
		if r.IntN(2) == 0 {
			c.Owner = pick(r, params...)
		}
		if r.IntN(2) == 0 {
			c.Tenant = pick(r, params...)
		}
	}
	return c
}

func randomRoles(r *rand.Rand) []rbac.RoleConfig {
	var configs []rbac.RoleConfig
	for _, name := range []string{"r1", "r2", "r3"} {
		c := rbac.RoleConfig{Name: name, Scope: pick(r, "", "", "global")}
		for range 1 + r.IntN(3) {
			c.Permissions = append(c.Permissions, pick(r, "*", "x.*", "y.*", "x.r", "x.w", "y.r", "x.own", "y.own", "x.y.*", "x.y.own", "z"))
		}
		configs = append(configs, c)
	}
	return configs
}

func randomCaller(r *rand.Rand) *identity.Principal {
	p := identity.Principal{ID: pick(r, "a", "b", "c"), Tenant: pick(r, "", "a", "b"), SharesIDs: r.IntN(4) > 0}
	for _, name := range []string{"r1", "r2", "r3", "unknown"} {
		if r.IntN(2) == 0 {
			p.Roles = append(p.Roles, name)
		}
	}
	if r.IntN(4) == 0 {
		return &p
	}
	return identity.Authenticated(p)
}

func TestPolicyAgreesWithTheModel(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	taken, refused, allowed := 0, 0, 0
	for range 1000 {
		var configs []rbac.RuleConfig
		var model []*modelRule
		for range 1 + r.IntN(7) {
			c := randomRule(r)
			configs = append(configs, c)
			model = append(model, newModelRule(c))
		}
		roleConfigs := randomRoles(r)
		p, err := rbac.NewPolicy(rbac.PolicyConfig{Rules: configs}, roles(t, roleConfigs...))
		if want := wellFormed(model); (err == nil) != want {
			t.Fatalf("well-formed: %v, error: %v\n%v", want, err, describe(configs))
		}
		if err != nil {
			refused++
			continue
		}
		taken++
		for _, path := range modelPaths {
			method := pick(r, modelMethods...)
			m, want := p.Lookup(method, path), lookup(model, method, path)
			if got := place0(m); want == nil && got != -1 || want != nil && (got == -1 || model[got] != want) {
				t.Fatalf("%s %s: rule %d, want %+v\n%v", method, path, got, want, describe(configs))
			}
			who := randomCaller(r)
			d := p.Decide(m, who, nil)
			if d.Allowed() != passes(want, path, who, roleConfigs) {
				t.Fatalf("%s %s by %+v: %+v\n%+v\n%+v", method, path, who, d, want, roleConfigs)
			}
			if d.Allowed() {
				allowed++
			}
		}
	}
	if taken < 200 || refused < 200 || allowed < 5000 {
		t.Errorf("%d policies taken, %d refused, %d requests allowed: the test tests little", taken, refused, allowed)
	}
}

func place0(m rbac.Match) int {
	n := -1
	if m.Found() {
		if _, err := fmt.Sscanf(m.Rule().Place, "rules[%d]", &n); err != nil {
			return -2
		}
	}
	return n
}

func describe(configs []rbac.RuleConfig) string {
	var b strings.Builder
	for _, c := range configs {
		fmt.Fprintf(&b, "%s %s %s\n", strings.Join(c.Methods, ","), c.Pattern, strings.Join(c.Require, " "))
	}
	return b.String()
}
