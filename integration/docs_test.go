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
