package explanation_test

import (
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/caddymodule/internal/explanation"
	"github.com/moat-gateway/moat/internal/rbac"
	"github.com/moat-gateway/moat/internal/token"
)

// reasons returns the values of all constants of a package that are called
// Reason….
func reasons(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", "..", "..", "internal", dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, name := range files {
		file, err := parser.ParseFile(gotoken.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || len(spec.Values) != 1 || !strings.HasPrefix(spec.Names[0].Name, "Reason") {
				return true
			}
			if literal, ok := spec.Values[0].(*ast.BasicLit); ok {
				value, err := strconv.Unquote(literal.Value)
				if err != nil {
					t.Fatal(err)
				}
				out = append(out, value)
			}
			return true
		})
	}
	if len(out) < 10 {
		t.Fatalf("found only %d reasons in %s", len(out), dir)
	}
	return out
}

// TestEveryReasonHasItsSentence keeps the table complete when a reason is added.
func TestEveryReasonHasItsSentence(t *testing.T) {
	all := slices.Concat(reasons(t, "rbac"), reasons(t, "canon"), reasons(t, "token"), token.Reasons())
	general := map[string]bool{}
	for _, family := range []string{"rbac", "jwt", "canon", "x"} {
		general[explanation.Sentence(family+".never-heard-of")] = true
	}
	seen := map[string]string{}
	for _, reason := range all {
		sentence := explanation.Sentence(reason)
		if general[sentence] || sentence == "" {
			t.Errorf("%s has no sentence of its own", reason)
		}
		if other := seen[sentence]; other != "" && other != reason {
			t.Errorf("%s and %s are both %q", reason, other, sentence)
		}
		seen[sentence] = reason
	}
}

func TestReasonsWithoutASentenceSayTheirKind(t *testing.T) {
	for reason, want := range map[string]string{
		"limit.login": "limit", "headers.Content-Security-Policy": "header", "guard.new": "guard", "unheard": "no more",
	} {
		if got := explanation.Sentence(reason); !strings.Contains(got, want) {
			t.Errorf("%s: %q, want something with %q", reason, got, want)
		}
	}
}

func TestRulesAreWrittenAsTheyStand(t *testing.T) {
	roles, err := rbac.NewRoles(nil)
	if err != nil {
		t.Fatal(err)
	}
	policy, err := rbac.NewPolicy(rbac.PolicyConfig{Rules: []rbac.RuleConfig{
		{
			Methods: []string{"GET", "PUT"}, Pattern: "/api/{org}/{id}/**", Require: []string{"a.b|c.d", "e.f"},
			Owner: "id", Tenant: "org", Shadow: true, RewriteOK: true, StripPrefix: "/api", Action: "edit",
			Trailers: true, EncodedSlash: true,
		},
		{Methods: []string{"*"}, Pattern: "/x", Require: []string{"public"}},
	}}, roles)
	if err != nil {
		t.Fatal(err)
	}
	rule := policy.Rules()[0]
	if got, want := explanation.RuleText(rule), "GET,PUT /api/{org}/{id}/** a.b|c.d e.f owner={id} tenant={org}"; got != want {
		t.Errorf("rule %q, want %q", got, want)
	}
	want := []string{"shadow", "rewrite_ok", "trailers", "encoded_slash", "strip_prefix /api", "action edit"}
	if got := explanation.RuleSettings(rule); !slices.Equal(got, want) {
		t.Errorf("settings %q, want %q", got, want)
	}
	if got := explanation.RuleSettings(policy.Rules()[1]); len(got) != 0 {
		t.Errorf("settings %q, want none", got)
	}
}
