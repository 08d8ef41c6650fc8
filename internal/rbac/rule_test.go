package rbac_test

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/internal/rbac"
)

// rule reads a rule's line; a line without a place stands at "test:N".
func rule(t testing.TB, line string) rbac.RuleConfig {
	t.Helper()
	r, err := rbac.ParseRule(strings.Fields(line))
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	return r
}

func ruleConfigs(t testing.TB, lines ...string) []rbac.RuleConfig {
	t.Helper()
	var configs []rbac.RuleConfig
	for i, line := range lines {
		r := rule(t, line)
		r.Place = fmt.Sprintf("test:%d", i+1)
		configs = append(configs, r)
	}
	return configs
}

func policy(t testing.TB, roles *rbac.Roles, lines ...string) *rbac.Policy {
	t.Helper()
	p, err := rbac.NewPolicy(rbac.PolicyConfig{Rules: ruleConfigs(t, lines...)}, roles)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestALineIsReadAsItIsWritten(t *testing.T) {
	for line, want := range map[string]rbac.RuleConfig{
		"GET /healthz public": {Methods: []string{"GET"}, Pattern: "/healthz", Require: []string{"public"}},
		"GET,PUT /users/{uid}/files/** files.write owner={uid}": {
			Methods: []string{"GET", "PUT"}, Pattern: "/users/{uid}/files/**", Require: []string{"files.write"}, Owner: "uid",
		},
		"* /orgs/{org}/** tenant={org} organization.manage": {
			Methods: []string{"*"}, Pattern: "/orgs/{org}/**", Require: []string{"organization.manage"}, Tenant: "org",
		},
		"POST /reports reports.create|documents.write audit:read": {
			Methods: []string{"POST"}, Pattern: "/reports", Require: []string{"reports.create|documents.write", "audit:read"},
		},
		"* /{o}/{t} authenticated owner={o} tenant={t}": {
			Methods: []string{"*"}, Pattern: "/{o}/{t}", Require: []string{"authenticated"}, Owner: "o", Tenant: "t",
		},
	} {
		if got := rule(t, line); !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n got %+v\nwant %+v", line, got, want)
		}
	}
}

func TestALineThatIsNotARuleIsRefused(t *testing.T) {
	for line, want := range map[string]string{
		"":                                 "METHODS PATTERN REQUIREMENT",
		"GET":                              "METHODS PATTERN REQUIREMENT",
		"GET /a":                           "METHODS PATTERN REQUIREMENT",
		"GET /{a} owner={a}":               "METHODS PATTERN REQUIREMENT",
		"GET /a documents.read when":       `"when": a condition stands in the rule's block`,
		"GET /a when documents.read":       `"when": a condition stands in the rule's block`,
		"GET /{a} x owner=a":               `"owner=a": name a parameter of the pattern, in braces`,
		"GET /{a} x owner={a":              "in braces",
		"GET /{a} x owner=a}":              "in braces",
		"GET /{a} x owner={}":              "in braces",
		"GET /{a} x owner=":                "in braces",
		"GET /{a} x owner={A}":             "in braces",
		"GET /{a} x owner={a...}":          "in braces",
		"GET /{a} x tenant={{a}}":          "in braces",
		"GET /{a} x owner={a} owner={a}":   "stands twice",
		"GET /{a} x tenant={a} tenant={a}": "stands twice",
		"GET /a x shadow=true":             "the options of a line are",
		"GET /a x Owner={a}":               "the options of a line are",
		"GET /a =":                         "the options of a line are",
		strings.Repeat("a ", 65):           "at most 64",
	} {
		_, err := rbac.ParseRule(strings.Fields(line))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v lacks %q", line, err, want)
		}
		var typed *rbac.RuleError
		if !errors.As(err, &typed) {
			t.Errorf("%s: %T is no *RuleError", line, err)
		}
	}
}

func TestARefusedLineNamesAllFaultsAndKeepsTheRest(t *testing.T) {
	got, err := rbac.ParseRule([]string{"GET", "/{a}", "x", "when", "owner=a", "tenant={a}"})
	if err == nil || !strings.Contains(err.Error(), "when") || !strings.Contains(err.Error(), "owner=a") {
		t.Errorf("error %v", err)
	}
	if got.Pattern != "/{a}" || got.Tenant != "a" || got.Owner != "" {
		t.Errorf("rule %+v", got)
	}
}

func TestFaultsInRulesAreAllNamedWithTheirPlace(t *testing.T) {
	many := make([]string, 65)
	for i := range many {
		many[i] = fmt.Sprintf("p%d", i)
	}
	base := func(change func(*rbac.RuleConfig)) []rbac.RuleConfig {
		r := rbac.RuleConfig{Methods: []string{"GET"}, Pattern: "/a/{x}/{rest...}", Require: []string{"a.b"}, Place: "Caddyfile:7"}
		change(&r)
		return []rbac.RuleConfig{r}
	}
	for name, c := range map[string]struct {
		rules []rbac.RuleConfig
		want  []string
	}{
		"no methods":        {base(func(r *rbac.RuleConfig) { r.Methods = nil }), []string{"Caddyfile:7: rule: ", "name a method"}},
		"empty method":      {base(func(r *rbac.RuleConfig) { r.Methods = []string{"GET", ""} }), []string{`method ""`}},
		"lower case":        {base(func(r *rbac.RuleConfig) { r.Methods = []string{"get"} }), []string{`method "get"`}},
		"not a method":      {base(func(r *rbac.RuleConfig) { r.Methods = []string{"GET /a", "-X", strings.Repeat("A", 33)} }), []string{`"GET /a"`, `"-X"`, "AAA"}},
		"method twice":      {base(func(r *rbac.RuleConfig) { r.Methods = []string{"GET", "GET"} }), []string{"GET stands twice"}},
		"any and another":   {base(func(r *rbac.RuleConfig) { r.Methods = []string{"*", "GET"} }), []string{"* stands alone"}},
		"many methods":      {base(func(r *rbac.RuleConfig) { r.Methods = many }), []string{"65 methods: at most 32"}},
		"pattern":           {base(func(r *rbac.RuleConfig) { r.Pattern = "/a//b" }), []string{`"/a//b": a pattern has no empty segments`}},
		"no requirement":    {base(func(r *rbac.RuleConfig) { r.Require = nil }), []string{"names no requirement"}},
		"many words":        {base(func(r *rbac.RuleConfig) { r.Require = many }), []string{"65 requirements"}},
		"many alternatives": {base(func(r *rbac.RuleConfig) { r.Require = []string{strings.Join(many, "|")} }), []string{"65 alternatives"}},
		"permission":        {base(func(r *rbac.RuleConfig) { r.Require = []string{"a|", "|", "b c", "a||b"} }), []string{`"a|"`, `"|"`, `"b c"`, `"a||b"`}},
		"empty word":        {base(func(r *rbac.RuleConfig) { r.Require = []string{""} }), []string{"must not be empty"}},
		"public and more":   {base(func(r *rbac.RuleConfig) { r.Require = []string{"public", "a"} }), []string{`"public": stands alone`}},
		"more and deny":     {base(func(r *rbac.RuleConfig) { r.Require = []string{"a", "deny"} }), []string{`"deny": stands alone`}},
		"authenticated|x":   {base(func(r *rbac.RuleConfig) { r.Require = []string{"authenticated|x"} }), []string{"authenticated is a requirement"}},
		"public twice":      {base(func(r *rbac.RuleConfig) { r.Require = []string{"public", "public"} }), []string{"stands alone"}},
		"unknown owner":     {base(func(r *rbac.RuleConfig) { r.Owner = "y" }), []string{`"owner={y}": the pattern /a/{x}/{rest...} has no such parameter`}},
		"unknown tenant":    {base(func(r *rbac.RuleConfig) { r.Tenant = "a" }), []string{`"tenant={a}": the pattern`}},
		"owner in braces":   {base(func(r *rbac.RuleConfig) { r.Owner = "{x}" }), []string{"without its braces"}},
		"owner in a tail":   {base(func(r *rbac.RuleConfig) { r.Owner = "rest" }), []string{`"owner={rest}": must be a parameter of one segment`}},
		"tenant in a tail":  {base(func(r *rbac.RuleConfig) { r.Tenant = "rest" }), []string{"one segment"}},
		"owner of public": {base(func(r *rbac.RuleConfig) { r.Owner, r.Require = "x", []string{"public"} }),
			[]string{"no effect on public and deny"}},
		"tenant of deny": {base(func(r *rbac.RuleConfig) { r.Tenant, r.Require = "x", []string{"deny"} }),
			[]string{"no effect on public and deny"}},
		"relative prefix":    {base(func(r *rbac.RuleConfig) { r.StripPrefix = "a" }), []string{"strip_prefix: a pattern begins with /"}},
		"prefix of nothing":  {base(func(r *rbac.RuleConfig) { r.StripPrefix = "/" }), []string{"takes nothing off"}},
		"prefix not literal": {base(func(r *rbac.RuleConfig) { r.StripPrefix = "/a/{x}" }), []string{"strip_prefix is literal"}},
		"prefix with a tail": {base(func(r *rbac.RuleConfig) { r.StripPrefix = "/a/**" }), []string{"strip_prefix is literal"}},
		"foreign prefix":     {base(func(r *rbac.RuleConfig) { r.StripPrefix = "/b" }), []string{"no path of /a/{x}/{rest...} begins with it"}},
		"prefix too long": {base(func(r *rbac.RuleConfig) { r.Pattern, r.StripPrefix = "/a", "/a/b" }),
			[]string{"no path of /a begins with it"}},
		"long action":     {base(func(r *rbac.RuleConfig) { r.Action = strings.Repeat("a", 129) }), []string{"an action is at most 128 bytes"}},
		"action and line": {base(func(r *rbac.RuleConfig) { r.Action = "a\nb" }), []string{"printable"}},
		"several at once": {append(base(func(r *rbac.RuleConfig) { r.Methods, r.Require = nil, nil }),
			rbac.RuleConfig{Methods: []string{"GET"}, Pattern: "x", Require: []string{"a b"}}),
			[]string{"name a method", "names no requirement", `rules[1]: rule: "x"`, `"a b"`}},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := rbac.NewPolicy(rbac.PolicyConfig{Rules: c.rules}, nil)
			if err == nil || p != nil {
				t.Fatalf("NewPolicy = %v, %v", p, err)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q lacks %q", err, want)
				}
			}
			var typed *rbac.RuleError
			if !errors.As(err, &typed) || typed.Place == "" || typed.Reason == "" {
				t.Errorf("%#v is no whole *RuleError", typed)
			}
		})
	}
}

func TestNoRulesIsAnErrorThatOffersTwo(t *testing.T) {
	for _, rules := range [][]rbac.RuleConfig{nil, {}} {
		_, err := rbac.NewPolicy(rbac.PolicyConfig{Rules: rules}, nil)
		if err == nil || !strings.Contains(err.Error(), "`* /** authenticated`") || !strings.Contains(err.Error(), "`* /** public`") {
			t.Errorf("error %v", err)
		}
	}
}

func TestRulesAreBounded(t *testing.T) {
	_, err := rbac.NewPolicy(rbac.PolicyConfig{Rules: make([]rbac.RuleConfig, 100_001)}, nil)
	if err == nil || strings.Count(err.Error(), "\n") > 0 {
		t.Error("more than 100000 rules are looked at")
	}
}

func TestARuleKeepsItsSettings(t *testing.T) {
	c := rbac.RuleConfig{
		Methods: []string{"GET", "POST"}, Pattern: "/api/%40x/{u}/{t}", Require: []string{"a.b"}, Owner: "u", Tenant: "t",
		Shadow: true, RewriteOK: true, Trailers: true, EncodedSlash: true,
		StripPrefix: "/%61pi/@x/", Action: "user read", Place: "Caddyfile:3",
	}
	p, err := rbac.NewPolicy(rbac.PolicyConfig{Rules: []rbac.RuleConfig{c}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	c.Methods[0], c.Require[0] = "PUT", "changed"
	r := p.Lookup("GET", "/api/@x/1/2").Rule()
	if r == nil {
		t.Fatal("no rule")
	}
	if !reflect.DeepEqual(r.Methods, []string{"GET", "POST"}) || !reflect.DeepEqual(r.Require, []string{"a.b"}) ||
		r.Pattern != c.Pattern || r.Owner != "u" || r.Tenant != "t" || r.Place != "Caddyfile:3" || r.Action != "user read" {
		t.Errorf("%+v", r)
	}
	if !r.Shadow || !r.RewriteOK || !r.Trailers || !r.EncodedSlash {
		t.Errorf("a flag is lost: %+v", r)
	}
	if r.StripPrefix != "/api/@x" {
		t.Errorf("StripPrefix = %q", r.StripPrefix)
	}
	if got := r.String(); got != "GET,POST /api/%40x/{u}/{t}" {
		t.Errorf("String() = %q", got)
	}
}

func TestAPrefixMayEndInTheTail(t *testing.T) {
	r := rule(t, "* /** public")
	r.StripPrefix = "/api/v1"
	if _, err := rbac.NewPolicy(rbac.PolicyConfig{Rules: []rbac.RuleConfig{r}}, nil); err != nil {
		t.Error(err)
	}
}
