//go:build linux

package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestTheReadmesCaddyfileIsValid keeps the first thing people copy working.
func TestTheReadmesCaddyfileIsValid(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join("..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "```caddyfile\n")
	source, _, found := strings.Cut(rest, "```")
	if !found || strings.Count(source, "\n") > 25 {
		t.Fatalf("the README's Caddyfile has %d lines", strings.Count(source, "\n"))
	}
	h := newHome(t, source, nil)
	if out, exit := h.validate(t); exit != 0 {
		t.Errorf("exit %d\n%s", exit, out)
	}
}
