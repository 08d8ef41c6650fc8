//go:build linux

package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// lintFixtures are the configurations under lint/: CODE.bad… has a finding with
// that code, CODE.good… has none at all. The extension tells a Caddyfile from
// JSON.
func lintFixtures(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("lint", "*test"))
	if err != nil || len(files) < 40 {
		t.Fatalf("%d fixtures, %v", len(files), err)
	}
	return files
}

// TestLintGoldens holds what is found in each fixture: a configuration, a line
// of ten dashes, what is printed, and the exit code. MOAT_GOLDEN=write writes
// them anew.
func TestLintGoldens(t *testing.T) {
	t.Parallel()
	for _, file := range lintFixtures(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			source, want, _ := strings.Cut(string(data), "----------\n")
			got := lintOutput(t, file, source)
			if os.Getenv("MOAT_GOLDEN") == "write" {
				if err := os.WriteFile(file, []byte(source+"----------\n"+got), 0o600); err != nil {
					t.Fatal(err)
				}
				want = got
			}
			if got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			code, kind, _ := strings.Cut(filepath.Base(file), ".")
			switch {
			case strings.HasPrefix(kind, "bad") && !strings.Contains(got, ": "+code+"\n"):
				t.Errorf("no finding %s in\n%s", code, got)
			case strings.HasPrefix(kind, "good") && got != "no findings\nexit 0\n":
				t.Errorf("findings in a good configuration:\n%s", got)
			}
		})
	}
}

// lintOutput lints a fixture in a home of its own, beside the policy files that
// it may name.
func lintOutput(t *testing.T, file, source string) string {
	t.Helper()
	h := newHome(t, source, nil)
	policies, err := filepath.Glob(filepath.Join("lint", "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, policy := range policies {
		data, err := os.ReadFile(policy)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(h.Dir, filepath.Base(policy)), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	name := "Caddyfile"
	if strings.HasSuffix(file, ".jsontest") {
		name = "moat.json"
		if err := os.Rename(h.File, filepath.Join(h.Dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	out, exit := h.moat(t, "lint", "--config", name)
	return withoutLog(out) + fmt.Sprintf("exit %d\n", exit)
}

// withoutLog drops the lines of the log, which goes to standard error.
func withoutLog(out string) string {
	return strings.Join(slices.DeleteFunc(strings.SplitAfter(out, "\n"), func(line string) bool {
		return strings.HasPrefix(line, `{"level"`)
	}), "")
}

func TestEveryCodeHasFixtures(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join("..", "docs", "lint.md"))
	if err != nil {
		t.Fatal(err)
	}
	names := strings.Join(lintFixtures(t), "\n")
	sections := regexp.MustCompile("(?m)^## `([a-z0-9-]+)`").FindAllStringSubmatch(string(page), -1)
	if len(sections) < 20 {
		t.Fatalf("%d sections", len(sections))
	}
	for _, section := range sections {
		for _, kind := range []string{"bad", "good"} {
			if !strings.Contains(names, "/"+section[1]+"."+kind) {
				t.Errorf("no %s fixture for %s", kind, section[1])
			}
		}
	}
}

func TestTheExampleHasNoFinding(t *testing.T) {
	t.Parallel()
	h := newHome(t, "", nil)
	example, err := filepath.Abs(filepath.Join("..", "Caddyfile.example"))
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{example}, {"--config", example, "--adapter", "caddyfile"}} {
		if out, exit := h.moat(t, append([]string{"lint"}, args...)...); exit != 0 || withoutLog(out) != "no findings\n" {
			t.Errorf("%v: exit %d\n%s", args, exit, out)
		}
	}
}

func TestLintSpeaksJSON(t *testing.T) {
	t.Parallel()
	h := newHome(t, "http://:8080 {\n\treverse_proxy 127.0.0.1:3000\n}\n", nil)
	out, exit := h.moat(t, "lint", "--json", "Caddyfile")
	var report struct {
		Findings []struct{ Code, Severity, Place, Message, Hint string }
		Summary  map[string]int
	}
	if err := json.Unmarshal([]byte(withoutLog(out)), &report); err != nil || exit != 1 {
		t.Fatalf("exit %d, %v in\n%s", exit, err, out)
	}
	first := report.Findings[0]
	if first.Code != "responder-without-gate" || first.Severity != "high" || first.Place != "Caddyfile:2" ||
		!strings.Contains(first.Message, "127.0.0.1:3000") || first.Hint == "" {
		t.Errorf("first finding %+v", first)
	}
	if s := report.Summary; s["high"] != 1 || s["medium"] != 1 || s["low"] != 1 || len(report.Findings) != 3 {
		t.Errorf("summary %v of %d findings", s, len(report.Findings))
	}
}

func TestWhatCannotBeReadIsNotLinted(t *testing.T) {
	t.Parallel()
	h := newHome(t, "http://:8080 {\n\tfrobnicate\n}\n", nil)
	for name, text := range map[string]string{"list.json": "[]", "broken.json": "{"} {
		if err := os.WriteFile(filepath.Join(h.Dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, args := range map[string][]string{
		"unknown directive":  {"Caddyfile"},
		"no such file":       {"missing"},
		"no such adapter":    {"--config", "Caddyfile", "--adapter", "nginx"},
		"not an object":      {"list.json"},
		"not JSON":           {"broken.json"},
		"two files":          {"list.json", "broken.json"},
		"two kinds of files": {"--config", "list.json", "broken.json"},
	} {
		if out, exit := h.moat(t, append([]string{"lint"}, args...)...); exit != 2 || strings.Contains(out, "no findings") {
			t.Errorf("%s: exit %d\n%s", name, exit, out)
		}
	}
}
