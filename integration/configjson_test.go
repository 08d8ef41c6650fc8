//go:build linux

package integration

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// doubleGate adapts the home's Caddyfile and writes a JSON configuration beside
// it in which every chain that holds a guard stands twice.
func doubleGate(t testing.TB, h *home) (path string) {
	t.Helper()
	out, exit := h.moat(t, "adapt", "--config", h.File, "--adapter", "caddyfile")
	if exit != 0 {
		t.Fatalf("adapt: exit %d\n%s", exit, out)
	}
	var config map[string]any
	if err := json.Unmarshal(jsonLine(t, out), &config); err != nil {
		t.Fatalf("%v in\n%s", err, out)
	}
	if doubled := doubleHandlers(config); doubled == 0 {
		t.Fatalf("no route of the configuration holds a moat_guard:\n%s", out)
	}
	data, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(h.Dir, "doubled.json")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// jsonLine finds the configuration among the log lines of a command: it is the
// only line that is an object with apps.
func jsonLine(t testing.TB, out string) []byte {
	t.Helper()
	for start := range out {
		if out[start] != '{' || (start > 0 && out[start-1] != '\n') {
			continue
		}
		var probe map[string]json.RawMessage
		dec := json.NewDecoder(strings.NewReader(out[start:]))
		if dec.Decode(&probe) == nil && probe["apps"] != nil {
			return []byte(out[start : start+int(dec.InputOffset())])
		}
	}
	t.Fatalf("no configuration in\n%s", out)
	return nil
}

// doubleHandlers repeats the list of handlers of each route that guards, and
// returns how many there were.
func doubleHandlers(node any) int {
	n := 0
	switch v := node.(type) {
	case map[string]any:
		if chain, ok := v["handle"].([]any); ok && holdsGuard(chain) {
			v["handle"] = append(append([]any{}, withoutProxy(chain)...), chain...)
			return 1
		}
		for _, child := range v {
			n += doubleHandlers(child)
		}
	case []any:
		for _, child := range v {
			n += doubleHandlers(child)
		}
	}
	return n
}

func holdsGuard(chain []any) bool {
	for _, h := range chain {
		if m, ok := h.(map[string]any); ok && m["handler"] == "moat_guard" {
			return true
		}
	}
	return false
}

func withoutProxy(chain []any) []any {
	var out []any
	for _, h := range chain {
		if m, ok := h.(map[string]any); !ok || m["handler"] != "reverse_proxy" {
			out = append(out, h)
		}
	}
	return out
}
