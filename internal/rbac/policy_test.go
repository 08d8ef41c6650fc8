package rbac_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/internal/rbac"
)

func TestTheMoreSpecificRuleDecides(t *testing.T) {
	for _, row := range []struct {
		name         string
		rules        []string
		method, path string
		want         string // place of the rule, "" for none
	}{
		{"literal before parameter", []string{"* /{x} public", "* /a public"}, "GET", "/a", "test:2"},
		{"parameter for the rest", []string{"* /{x} public", "* /a public"}, "GET", "/b", "test:1"},
		{"parameter before tail", []string{"* /a/** public", "* /a/{x} public"}, "GET", "/a/b", "test:2"},
		{"tail for the rest", []string{"* /a/** public", "* /a/{x} public"}, "GET", "/a/b/c", "test:1"},
		{"longer tail", []string{"* /** public", "* /internal/** deny"}, "GET", "/internal/x", "test:2"},
		{"longer tail at its root", []string{"* /** public", "* /internal/** deny"}, "GET", "/internal", "test:2"},
		{"longer tail at its root with a slash", []string{"* /** public", "* /internal/** deny"}, "GET", "/internal/", "test:2"},
		{"not a prefix of a segment", []string{"* /** public", "* /internal/** deny"}, "GET", "/internals", "test:1"},
		{"an empty tail is no loss", []string{"* /{page} public", "* /admin/** deny"}, "GET", "/admin", "test:2"},
		{"the end before an empty tail", []string{"* /a/** deny", "* /a public"}, "GET", "/a", "test:2"},
		{"the end before an empty tail, with a slash", []string{"* /a/** deny", "* /a public"}, "GET", "/a/", "test:2"},
		{"the end before an empty tail at the root", []string{"* /** deny", "* / public"}, "GET", "/", "test:2"},
		{"the end before an empty tail whatever the methods", []string{"GET /a/** deny", "* /a public"}, "GET", "/a", "test:2"},
		{"back from a literal that leads nowhere", []string{"* /a/b public", "* /{x}/c public"}, "GET", "/a/c", "test:2"},
		{"back to a tail", []string{"* /a/b/c public", "* /** public"}, "GET", "/a/b/d", "test:2"},
		{"back from a parameter", []string{"* /{x}/b/c public", "* /** public"}, "GET", "/a/b/d", "test:2"},
		{"third rule at the overlap", []string{"* /a/{x}/c public", "* /a/b/{y} public", "* /a/b/c deny"}, "GET", "/a/b/c", "test:3"},
		{"one side beside the overlap", []string{"* /a/{x}/c public", "* /a/b/{y} public", "* /a/b/c deny"}, "GET", "/a/b/d", "test:2"},
		{"other side beside the overlap", []string{"* /a/{x}/c public", "* /a/b/{y} public", "* /a/b/c deny"}, "GET", "/a/d/c", "test:1"},

		{"named method before any", []string{"* /a deny", "GET /a public"}, "GET", "/a", "test:2"},
		{"any for the other methods", []string{"* /a deny", "GET /a public"}, "POST", "/a", "test:1"},
		{"any for unheard methods", []string{"* /a deny", "GET /a public"}, "BREW", "/a", "test:1"},
		{"pattern before method", []string{"GET /** deny", "* /a public"}, "GET", "/a", "test:2"},
		{"only listed methods compete", []string{"POST /a deny", "* /** public"}, "GET", "/a", "test:2"},
		{"only listed methods compete, deeper", []string{"POST /a/b deny", "GET /{x}/b public"}, "GET", "/a/b", "test:2"},
		{"same pattern, disjoint methods", []string{"GET /u/{a} public", "POST /u/{b} deny"}, "POST", "/u/1", "test:2"},

		{"GET covers HEAD", []string{"GET /a public"}, "HEAD", "/a", "test:1"},
		{"HEAD is more than the HEAD of GET", []string{"GET /a public", "HEAD /a deny"}, "HEAD", "/a", "test:2"},
		{"HEAD of GET before any", []string{"* /a deny", "GET /a public"}, "HEAD", "/a", "test:2"},
		{"HEAD of GET on the better pattern", []string{"HEAD /** deny", "GET /a public"}, "HEAD", "/a", "test:2"},
		{"HEAD does not cover GET", []string{"HEAD /a public"}, "GET", "/a", ""},
		{"POST does not cover HEAD", []string{"POST /a public"}, "HEAD", "/a", ""},

		{"no rule for the method", []string{"GET /a public"}, "POST", "/a", ""},
		{"no rule for the path", []string{"GET /a public"}, "GET", "/b", ""},
		{"nothing above a rule", []string{"GET /a/b public"}, "GET", "/a", ""},
		{"nothing below a rule", []string{"GET /a public"}, "GET", "/a/b", ""},
		{"methods have a case", []string{"GET /a public"}, "get", "/a", ""},
		{"paths have a case", []string{"GET /a public"}, "GET", "/A", ""},
		{"no method", []string{"* /a public"}, "", "/a", ""},
		{"no path", []string{"* /** public"}, "GET", "", ""},
		{"asterisk form", []string{"* /** public"}, "OPTIONS", "*", ""},
		{"absolute form", []string{"* /** public"}, "GET", "http://x/a", ""},
		{"an empty segment is no parameter", []string{"* /{x}/b public"}, "GET", "//b", ""},
		{"escaped spelling of a literal", []string{"* /u/{id} public", "* /u/@me deny"}, "GET", "/u/%40me", "test:2"},
	} {
		t.Run(row.name, func(t *testing.T) {
			for range 2 {
				m := policy(t, nil, row.rules...).Lookup(row.method, row.path)
				got := ""
				if m.Found() {
					line := strings.Fields(row.rules[place(t, m.Rule())-1])
					got = m.Rule().Place
					if m.Route() != line[1] || m.Public() != (line[2] == "public") || m.Deny() != (line[2] == "deny") {
						t.Errorf("%+v is not %q", m.Rule(), line)
					}
				}
				if got != row.want {
					t.Errorf("%s %s is decided by %q, want %q", row.method, row.path, got, row.want)
				}
				if row.want == "" && (m.Public() || m.Deny() || m.Route() != "" || m.Rule() != nil) {
					t.Error("no match is something")
				}
				// The order of rules must not matter: turn it round.
				slices.Reverse(row.rules)
				if n := 0; row.want != "" {
					if _, err := fmt.Sscanf(row.want, "test:%d", &n); err != nil {
						t.Fatal(err)
					}
					row.want = fmt.Sprintf("test:%d", len(row.rules)+1-n)
				}
			}
		})
	}
}

func place(t *testing.T, r *rbac.Rule) (n int) {
	t.Helper()
	if _, err := fmt.Sscanf(r.Place, "test:%d", &n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestAmbiguousRulesAreRefusedNamingBothLines(t *testing.T) {
	for _, row := range []struct {
		name  string
		rules []string
		want  []string
	}{
		{"crosswise", []string{"GET /a/{x}/c public", "GET /a/b/{y} public"},
			[]string{"test:2", `"GET /a/b/{y}": conflicts with "GET /a/{x}/c" at test:1`, "add a rule for GET /a/b/c"}},
		{"parameter and tail", []string{"* /a/** public", "* /{x}/b public"}, []string{"test:1", "at test:2", "add a rule for * /a/b"}},
		{"tails", []string{"* /a/** public", "* /{x}/b/** public"}, []string{"add a rule for * /a/b/**"}},
		{"tail and later literal", []string{"* /a/** public", "* /{x}/{y}/c public"}, []string{"add a rule for * /a/{y}/c"}},
		{"tail and later parameter", []string{"* /a/** public", "* /{x}/{y} public"}, []string{"add a rule for * /a/{y}"}},
		{"named tail", []string{"* /a/{r...} public", "* /{x}/b/{s...} public"}, []string{"add a rule for * /a/b/{s...}"}},
		{"any and named", []string{"* /a/{x} public", "GET /{y}/b public"}, []string{"add a rule for GET /a/b"}},
		{"HEAD of GET", []string{"GET /a/{x} public", "HEAD /{y}/b public"}, []string{"add a rule for HEAD /a/b"}},
		{"third rule for another method", []string{"GET /a/{x} public", "GET /{y}/b public", "POST /a/b public"},
			[]string{"add a rule for GET /a/b"}},
		{"third rule for one method of two", []string{"GET,POST /a/{x} public", "GET,POST /{y}/b public", "GET /a/b public"},
			[]string{"add a rule for POST /a/b"}},
		{"third rule for GET where any compete", []string{"* /a/{x} public", "* /{y}/b public", "GET /a/b public"},
			[]string{"add a rule for * /a/b"}},
		{"third rule covers more", []string{"* /a/{x} public", "* /{y}/b public", "* /a/b/** public"},
			[]string{"add a rule for * /a/b"}},
		{"third rule covers less", []string{"* /a/** public", "* /{y}/b/** public", "* /a/b public"},
			[]string{"add a rule for * /a/b/**"}},
		{"an asterisk is suggested as it must be written", []string{"* /a%2Ab/{x} public", "* /{y}/b public"},
			[]string{"add a rule for * /a%2Ab/b"}},
		{"the same twice", []string{"GET /a public", "GET /a deny"},
			[]string{`test:2: rule: "GET /a": is the same rule as "GET /a" at test:1`}},
		{"the same but for a name", []string{"GET /u/{a} public", "GET /u/{b} public"}, []string{"is the same rule as"}},
		{"the same but for a tail's name", []string{"GET /u/** public", "GET /u/{b...} public"}, []string{"is the same rule as"}},
		{"the same but for a slash", []string{"GET /u public", "GET /u/ public"}, []string{"is the same rule as"}},
		{"the same but for spelling", []string{"GET /@u public", "GET /%40u public"}, []string{"is the same rule as"}},
		{"one method in common", []string{"GET,POST /a public", "POST,PUT /a public"}, []string{"is the same rule as"}},
		{"any twice", []string{"* /a public", "* /a public"}, []string{"is the same rule as"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			p, err := rbac.NewPolicy(rbac.PolicyConfig{Rules: ruleConfigs(t, row.rules...)}, nil)
			if err == nil || p != nil {
				t.Fatalf("NewPolicy = %v, %v", p, err)
			}
			for _, want := range row.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q lacks %q", err, want)
				}
			}
			if n := strings.Count(err.Error(), "\n"); n > 0 {
				t.Errorf("one fault is reported %d times: %v", n+1, err)
			}
		})
	}
}

func TestRulesThatOnlySeemAmbiguousAreTaken(t *testing.T) {
	for name, rules := range map[string][]string{
		"a third rule":                     {"GET /a/{x}/c public", "GET /a/b/{y} public", "GET /a/b/c public"},
		"a third rule for any method":      {"GET /a/{x}/c public", "GET /a/b/{y} public", "* /a/b/c public"},
		"GET of the third rule for HEAD":   {"HEAD /a/{x} public", "HEAD /{y}/b public", "GET /a/b public"},
		"third rules, method by method":    {"GET,PUT /a/{x} public", "GET,PUT /{y}/b public", "GET /a/b public", "PUT /a/b deny"},
		"no method in common":              {"GET /a/{x}/c public", "POST /a/b/{y} public"},
		"no path in common":                {"GET /a/{x}/c public", "GET /a/b/{y}/d public"},
		"no path in common by a literal":   {"GET /a/{x}/c public", "GET /{y}/b/d public"},
		"a parameter does not match empty": {"GET /a/** public", "GET /{x} public"},
		"nested tails":                     {"* /** public", "* /a/** public", "* /a/b/** deny", "* /{x} public"},
		"GET and HEAD beside each other":   {"GET /a public", "HEAD /a deny", "* /a deny"},
	} {
		if _, err := rbac.NewPolicy(rbac.PolicyConfig{Rules: ruleConfigs(t, rules...)}, nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestConflictsAreNotListedWithoutEnd(t *testing.T) {
	var lines []string
	for i := range 60 {
		lines = append(lines, fmt.Sprintf("* /a%d/{x} public", i), fmt.Sprintf("* /{x}/b%d public", i))
	}
	_, err := rbac.NewPolicy(rbac.PolicyConfig{Rules: ruleConfigs(t, lines...)}, nil)
	if n := strings.Count(err.Error(), "\n") + 1; n > 60 || !strings.Contains(err.Error(), "more conflicts are not listed") {
		t.Errorf("%d errors", n)
	}
}

func TestNoPolicyAllowsNothing(t *testing.T) {
	var none *rbac.Policy
	for name, p := range map[string]*rbac.Policy{"nil": none, "zero": new(rbac.Policy)} {
		m := p.Lookup("GET", "/")
		if m.Found() || p.Decide(m, user("u", "t", "admin"), nil).Allowed() || p.NeedsIdentity() || p.Preflight("/", "GET") || len(p.Rules()) != 0 {
			t.Errorf("the %s policy allows something", name)
		}
	}
}

func TestNoPolicyDecidesNothingOnAnothersMatch(t *testing.T) {
	var none *rbac.Policy
	m := policy(t, nil, "* /** public").Lookup("GET", "/")
	if d := none.Decide(m, nil, nil); d.Allowed() || d.Reason != rbac.ReasonNoRule {
		t.Errorf("%+v", d)
	}
}

func TestPolicyKnowsWhetherItNeedsIdentity(t *testing.T) {
	for _, row := range []struct {
		rules []string
		want  bool
	}{
		{[]string{"* /** public"}, false},
		{[]string{"* /** deny", "GET /a public"}, false},
		{[]string{"* /** public", "GET /a authenticated"}, true},
		{[]string{"* /** public", "GET /a a.b"}, true},
	} {
		if got := policy(t, nil, row.rules...).NeedsIdentity(); got != row.want {
			t.Errorf("%q: %v", row.rules, got)
		}
	}
}

func TestRulesAreListedInTheirOrder(t *testing.T) {
	p := policy(t, nil, "GET /b public", "GET /a public")
	rules := p.Rules()
	if len(rules) != 2 || rules[0].Pattern != "/b" || rules[1].Pattern != "/a" {
		t.Errorf("%v", rules)
	}
	rules[0] = nil
	if p.Rules()[0] == nil {
		t.Error("the list is the policy's own")
	}
}

func TestPreflightPassesOnlyWhereARuleIsForTheMethod(t *testing.T) {
	lines := []string{
		"GET,POST /api/{x} a.b", "PUT /api/{x} deny", "* /any/** authenticated",
		"* /internal/** deny", "* /shadow deny",
	}
	configs := ruleConfigs(t, lines...)
	configs[4].Shadow = true
	p, err := rbac.NewPolicy(rbac.PolicyConfig{Rules: configs, PreflightUpstream: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	refusing, err := rbac.NewPolicy(rbac.PolicyConfig{Rules: configs}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		path, method string
		want         bool
	}{
		{"/api/1", "GET", true},
		{"/api/1", "HEAD", true},
		{"/api/1", "POST", true},
		{"/any/x", "PATCH", true},
		{"/api/1", "PUT", false},
		{"/api/1", "DELETE", false},
		{"/api/1", "get", false},
		{"/api/1", "", false},
		{"/api/1", "*", false},
		{"/any/x", "*", false},
		{"/any/x", "patch", false},
		{"/any/x", "X Y", false},
		{"/any/x", strings.Repeat("A", 33), false},
		{"/internal/x", "GET", false},
		{"/shadow", "GET", false},
		{"/nowhere", "GET", false},
		{"", "GET", false},
	} {
		if got := p.Preflight(row.path, row.method); got != row.want {
			t.Errorf("%s %q: %v", row.path, row.method, got)
		}
		if refusing.Preflight(row.path, row.method) {
			t.Errorf("%s %q passes without the setting", row.path, row.method)
		}
	}
}

func TestCaseIsIgnoredOnlyInLiteralsAndOnlyInASCII(t *testing.T) {
	configs := ruleConfigs(t, "GET /Users/{id}/@Me public", "GET /X%3AY/{id} public", "* /** deny")
	p, err := rbac.NewPolicy(rbac.PolicyConfig{Rules: configs, CaseInsensitive: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/Users/AbC/@Me": "AbC", "/users/AbC/@me": "AbC", "/USERS/AbC/%40ME": "AbC",
		"/X:Y/Z": "Z", "/x%3Ay/Z": "Z", "/x%3ay/Z": "Z",
		"/uſers/AbC/@me": "", "/users/AbC/me": "",
	} {
		m := p.Lookup("GET", path)
		if id, _ := m.Param("id"); id != want || m.Public() != (want != "") {
			t.Errorf("%s: %q by %s", path, id, m.Route())
		}
	}
	if m := p.Lookup("get", "/users/1/@me"); m.Public() {
		t.Error("methods lost their case")
	}
	_, err = rbac.NewPolicy(rbac.PolicyConfig{Rules: ruleConfigs(t, "* /A public", "* /a deny"), CaseInsensitive: true}, nil)
	if err == nil {
		t.Error("rules that differ in case alone are taken")
	}
	if _, err = rbac.NewPolicy(rbac.PolicyConfig{Rules: ruleConfigs(t, "* /A public", "* /a deny")}, nil); err != nil {
		t.Error(err)
	}
}

// A caller must not become the owner of what only differs in case from its own.
func TestIgnoringCaseDoesNotWidenOwnership(t *testing.T) {
	p, err := rbac.NewPolicy(rbac.PolicyConfig{
		Rules: ruleConfigs(t, "* /users/{id} authenticated owner={id}"), CaseInsensitive: true,
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{"/users/abc": true, "/Users/abc": true, "/users/Abc": false, "/users/ABC": false} {
		if d := p.Decide(p.Lookup("GET", path), user("abc", ""), nil); d.Allowed() != want {
			t.Errorf("%s: %+v", path, d)
		}
	}
}
