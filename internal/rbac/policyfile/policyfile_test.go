package policyfile_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/internal/rbac"
	"github.com/moat-gateway/moat/internal/rbac/policyfile"
)

var roles = []rbac.RoleConfig{
	{Name: "superadmin", Scope: "global", Permissions: []string{"*"}},
	{Name: "Organization Admin", Permissions: []string{"settings.*", "users.*"}, Inherit: []string{"Agent"}},
	{Name: "Agent", Permissions: []string{"messages:read"}},
}

func TestRolesReadTheSameInEveryForm(t *testing.T) {
	for name, text := range map[string]string{
		"yaml by name": "roles:\n  superadmin: {scope: global, permissions: '*'}\n  Organization Admin:\n" +
			"    permissions: [settings.*, users.*]\n    inherit: Agent\n  Agent: [messages:read]\n",
		"yaml list": "- name: superadmin\n  scope: global\n  permissions: ['*']\n- name: Organization Admin\n" +
			"  permissions:\n    - settings.*\n    - users.*\n  inherit: [Agent]\n- name: Agent\n  permissions: messages:read\n",
		"json by name": `{"superadmin": {"scope": "global", "permissions": "*"},
			"Organization Admin": {"permissions": ["settings.*", "users.*"], "inherit": ["Agent"]},
			"Agent": "messages:read"}`,
		"json list": `{"roles": [{"name": "superadmin", "scope": "global", "permissions": ["*"]},
		    {"name": "Organization Admin", "permissions": ["settings.*", "users.*"], "inherit": "Agent"},
		    {"name": "Agent", "permissions": ["messages:read"]}]}`,
	} {
		got, err := policyfile.Roles("roles.yaml", []byte(text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for i := range got {
			if !strings.HasPrefix(got[i].Place, "roles.yaml:") {
				t.Errorf("%s: role %q is at %q", name, got[i].Name, got[i].Place)
			}
			got[i].Place = ""
		}
		if !reflect.DeepEqual(got, roles) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestPlacesAreLines(t *testing.T) {
	for name, text := range map[string]string{
		"yaml": "rules:\n  # first\n  - GET /a public\n\n  - methods: GET\n    pattern: /b\n    require: deny\n",
		"json": "{\"rules\": [\n\n\"GET /a public\",\n\n{\"methods\": [\"GET\"], \"pattern\": \"/b\", \"require\": [\"deny\"]}]}",
	} {
		got, err := policyfile.Rules("p", []byte(text))
		if err != nil || len(got) != 2 || got[0].Place != "p:3" || got[1].Place != "p:5" {
			t.Errorf("%s: %+v %v", name, got, err)
		}
	}
}

func TestRulesReadTheSameInEveryForm(t *testing.T) {
	want := []rbac.RuleConfig{
		{Methods: []string{"GET", "PUT"}, Pattern: "/users/{uid}/files/**", Require: []string{"files.read|files.write", "x"}, Owner: "uid"},
		{
			Methods: []string{"*"}, Pattern: "/o/{org}", Require: []string{"authenticated"}, Tenant: "org", When: `method == "GET"`,
			Shadow: true, RewriteOK: true, Trailers: true, EncodedSlash: true, StripPrefix: "/o", Action: "orgs.use",
		},
	}
	for name, text := range map[string]string{
		"lines": "- GET,PUT /users/{uid}/files/** files.read|files.write x owner={uid}\n" +
			"- rule: '* /o/{org} authenticated tenant={org}'\n  when: method == \"GET\"\n  shadow: true\n  rewrite_ok: true\n" +
			"  trailers: true\n  encoded_slash: true\n  strip_prefix: /o\n  action: orgs.use\n",
		"words": `[{"methods": "GET,PUT", "pattern": "/users/{uid}/files/**", "require": ["files.read|files.write", "x"], "owner": "uid"},
			{"methods": ["*"], "pattern": "/o/{org}", "require": "authenticated", "tenant": "{org}", "when": "method == \"GET\"",
			"shadow": true, "rewrite_ok": true, "trailers": true, "encoded_slash": true, "strip_prefix": "/o", "action": "orgs.use"}]`,
	} {
		got, err := policyfile.Rules("rules", []byte(text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for i := range got {
			got[i].Place = ""
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n%+v", name, got)
		}
	}
}

func TestABadFileNamesEveryFaultAndItsLine(t *testing.T) {
	for text, wants := range map[string][]string{
		"":                      {"f: is empty"},
		" \n\t":                 {"f: is empty"},
		"[]":                    {"f:1: has no rules"},
		"{}":                    {"f:1: has no rules"},
		"rules: []":             {"f:1: has no rules"},
		"rules:":                {"rules are a list"},
		"GET /a public":         {"the file is a list or an object"},
		"a: b: c":               {"neither JSON nor YAML"},
		"{\"rules\": [\"GET /a": {"neither JSON nor YAML"},
		"- GET /a public\n---\n- GET /b public\n":               {"more than one document"},
		"- &x GET /a public\n- *x\n":                            {"anchors and aliases"},
		"- rule: GET /a public\n  rule: GET /b public\n":        {"stands twice"},
		`[{"methods":"GET","methods":"PUT"}]`:                   {`f: line 1: "methods" stands twice`},
		"- GET /a\n- 7\n- [x]\n- rule: GET /b public\n  wen: x": {"f:1: rule", "f:2: rule", "f:3: a rule is an object here", `f:5: a rule has no word "wen" here`},
		"- shadow: true\n":                                      {"f:1: a rule needs its line as rule, or methods"},
		"- rule: GET /a public\n  methods: PUT\n":               {`no word "methods" here`},
		"- rule: GET /a public\n  shadow: yes\n":                {"f:2: shadow is true or false"},
		"- rule: GET /a public\n  shadow: [true]\n":             {"shadow is true or false"},
		"- rule: GET /a public\n  when:\n":                      {"f:2: when is one text, and not empty"},
		`[{"rule":"GET /a public","when":null}]`:                {"when is one text, and not empty"},
		"- rule: GET /a public\n  action: {a: b}\n":             {"action is one text"},
		"- methods: {a: b}\n  pattern: /a\n  require: public":   {"methods is a text or a list"},
		"- {? [a] : b}": {"a name is text"},
		strings.Repeat("[", 20) + strings.Repeat("]", 20): {"nested too deep"},
		"- " + strings.Repeat("- ", 20) + "x":             {"nested too deep"},
		"rules:\n  a: GET /a public\n":                    {"rules are a list"},
	} {
		got, err := policyfile.Rules("f", []byte(text))
		for _, want := range wants {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%q: error %v lacks %q (%v)", text, err, want, got)
			}
		}
	}
	if _, err := policyfile.Rules("f", make([]byte, policyfile.MaxSize+1)); err == nil || !strings.Contains(err.Error(), "larger than 16 MiB") {
		t.Errorf("%v", err)
	}
	_, err := policyfile.Rules("f", []byte(strings.Repeat("- \n", 1000)))
	if err == nil || !strings.Contains(err.Error(), "faults more") || strings.Count(err.Error(), "\n") > 60 {
		t.Errorf("a file of nothing but faults: %.300v", err)
	}
	if _, err := policyfile.Rules("f", []byte(strings.Repeat("- x\n", 100_001))); err == nil || !strings.Contains(err.Error(), "at most 100000") {
		t.Errorf("too many rules: %.300v", err)
	}
	for text, want := range map[string]string{
		"roles:\n  admin:\n    name: boss\n    permissions: x\n": `no word "name" here`,
		"- admin\n":        "a role is an object here",
		"admin: {a: b}\n":  `no word "a" here`,
		"- permission: x":  `known are: inherit, name, permissions, scope`,
		"- name: [a, b]\n": "name is one text",
	} {
		if got, err := policyfile.Roles("f", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v lacks %q (%v)", text, err, want, got)
		}
	}
}

// FuzzRules holds that rules which make a policy are accepted, and mean the same,
// when they are written as JSON, and that reading never fails otherwise than by an error.
func FuzzRules(f *testing.F) {
	f.Add([]byte("- GET /a public\n"))
	f.Add([]byte("rules:\n  - rule: GET /a x|y z owner={a}\n    when: a == b\n    shadow: true\n"))
	f.Add([]byte(`{"rules": [{"methods": "GET", "pattern": "/a", "require": ["x"]}]}`))
	f.Add([]byte("- {methods: [GET, PUT], pattern: /a, require: x, tenant: '{t}'}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		rules, err := policyfile.Rules("f", data)
		if err != nil {
			return
		}
		for i := range rules {
			rules[i].Place = ""
		}
		never := func(string, []string) (rbac.Condition, error) { return nil, nil }
		if _, err := rbac.NewPolicy(rbac.PolicyConfig{Rules: rules, Conditions: never}, nil); err != nil {
			return // What the line reader lets through, the policy refuses.
		}
		text, err := json.Marshal(rules)
		if err != nil {
			t.Fatal(err)
		}
		again, err := policyfile.Rules("f", text)
		if err != nil {
			t.Fatalf("%q was accepted, but not as %s: %v", data, text, err)
		}
		for i := range again {
			again[i].Place = ""
		}
		other, err := json.Marshal(again)
		if err != nil || string(other) != string(text) {
			t.Fatalf("%s became %s", text, other)
		}
	})
}
