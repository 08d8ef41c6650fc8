//go:build linux

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestTheRoleTablesOfTheDocsDecideAsTheySay runs each worked example of
// docs/rbac.md: a configuration, and behind it the cases that it must decide.
func TestTheRoleTablesOfTheDocsDecideAsTheySay(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join("..", "docs", "rbac.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, tables, found := strings.Cut(string(text), "## Three role tables")
	parts := strings.Split(tables, "```")
	if !found || len(parts) != 13 {
		t.Fatalf("%d parts between fences; want three configurations and their cases", len(parts))
	}
	for n := 0; n < 3; n++ {
		config, isConfig := strings.CutPrefix(parts[4*n+1], "caddyfile\n")
		cases, isCases := strings.CutPrefix(parts[4*n+3], "yaml\n")
		if !isConfig || !isCases {
			t.Fatalf("table %d: not a Caddyfile and cases", n+1)
		}
		h := newHome(t, config, nil)
		file := filepath.Join(h.Dir, "cases.yaml")
		put(t, file, cases)
		out, exit := h.moat(t, "explain", "--config", h.File, "--adapter", "caddyfile", "--cases", file)
		want := fmt.Sprintf("%d", strings.Count(cases, "\n"))
		if exit != 0 || !strings.Contains(out, want) || strings.Contains(out, "covered by no case") {
			t.Errorf("table %d: exit %d\n%s", n+1, exit, out)
		}
	}
}

// TestTheIssuersOfTheDocsLoad validates each recipe of docs/jwt.md.
func TestTheIssuersOfTheDocsLoad(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join("..", "docs", "jwt.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, recipes, _ := strings.Cut(string(text), "## Recipes")
	fences := strings.Split(recipes, "```caddyfile\n")[1:]
	if len(fences) != 6 {
		t.Fatalf("%d recipes", len(fences))
	}
	for _, fence := range fences {
		issuer, _, closed := strings.Cut(fence, "```")
		name := strings.Fields(issuer)[1]
		h := newHome(t, caddyfile(issuer+"\nrole admin *", fmt.Sprintf(
			"http://:%d {\nmoat {\njwt %s\nrbac {\n* /** authenticated\n}\n}\n}", freePort(t), name)),
			map[string]string{"APP_JWT_SECRET": "0123456789abcdef0123456789abcdef"})
		if out, exit := h.validate(t); exit != 0 || !closed {
			t.Errorf("%s: exit %d\n%s", name, exit, lastLines(out, 2))
		}
	}
}
