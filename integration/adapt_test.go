//go:build linux

package integration

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestAdaptGoldens holds what the Caddyfile means: each file under adapt/ is a
// Caddyfile, a line of ten dashes, and the JSON it becomes, or the text of the
// error. MOAT_GOLDEN=write writes them anew.
func TestAdaptGoldens(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join("adapt", "*.caddyfiletest"))
	if err != nil || len(files) < 8 {
		t.Fatalf("%d goldens, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".caddyfiletest"), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			source, want, _ := strings.Cut(string(text), "----------\n")
			got := adapt(t, source)
			if os.Getenv("MOAT_GOLDEN") == "write" {
				if err := os.WriteFile(file, []byte(strings.TrimRight(source, "\n")+"\n----------\n"+got), 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// adapt returns the indented JSON of a Caddyfile, or its errors.
func adapt(t *testing.T, source string) string {
	t.Helper()
	h := newHome(t, source+"\n", nil)
	out, exit := h.moat(t, "adapt", "--config", h.File, "--adapter", "caddyfile")
	if exit != 0 {
		var line struct{ Msg string }
		lines := strings.Split(strings.TrimSpace(out), "\n")
		if err := json.Unmarshal([]byte(lines[len(lines)-1]), &line); err != nil {
			t.Fatalf("no error line: %s", out)
		}
		return strings.ReplaceAll(line.Msg, h.Dir+"/", "") + "\n"
	}
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, `{"apps"`) || strings.HasPrefix(line, `{"admin"`) {
			var indented bytes.Buffer
			if err := json.Indent(&indented, []byte(strings.TrimSpace(line)), "", "\t"); err != nil {
				t.Fatal(err)
			}
			return strings.ReplaceAll(indented.String(), h.Dir+"/", "") + "\n"
		}
	}
	t.Fatalf("no JSON in %s", out)
	return ""
}
