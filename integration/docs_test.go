//go:build linux

package integration

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
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

// TestTheSinksOfTheDocsLoad validates each configuration of docs/sinks.md.
func TestTheSinksOfTheDocsLoad(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join("..", "docs", "sinks.md"))
	if err != nil {
		t.Fatal(err)
	}
	fences := strings.Split(string(text), "```caddyfile\n")[1:]
	if len(fences) != 7 {
		t.Fatalf("%d configurations", len(fences))
	}
	secrets := map[string]string{"AUDIT_DSN": "postgres://moat@db.example.com/audit?sslmode=verify-full", "KAFKA_PASSWORD": "planted"}
	for _, name := range []string{"SIEM_SECRET", "SIEM_SECRET_NEXT", "LAKE_SECRET"} {
		secrets[name] = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	}
	for _, fence := range fences {
		block, _, closed := strings.Cut(fence, "```")
		h := newHome(t, "", secrets)
		if strings.HasPrefix(block, "sink mine") {
			block = strings.Replace(block, "mine somewhere", "stdout", 1) // nobody's module
		}
		block = strings.Replace(block, "/var/log", h.Dir, 1)
		if strings.HasPrefix(block, "sink ") {
			block = "audit {\njournal {$MOAT_JOURNAL}\n" + block + "}"
		}
		h.write(t, caddyfile(block))
		if out, exit := h.validate(t); exit != 0 || !closed {
			t.Errorf("%s\nexit %d\n%s", block, exit, lastLines(out, 2))
		}
	}
}

// TestTheReceiverOfTheDocsVerifiesOurSignature runs the Python of docs/sinks.md on a
// delivery, and on changed ones.
func TestTheReceiverOfTheDocsVerifiesOurSignature(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join("..", "docs", "sinks.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, fence, _ := strings.Cut(string(text), "```python\n")
	function, _, closed := strings.Cut(fence, "```")
	if !closed {
		t.Fatal("no Python in docs/sinks.md")
	}
	const secret, next = "a secret of at least 24 bytes", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	got := make(chan string, 1)
	hook := serveMoody(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		headers := make(map[string]string)
		for name := range r.Header {
			headers[strings.ToLower(name)] = r.Header.Get(name)
		}
		raw, err := json.Marshal(map[string]any{"headers": headers, "body": string(body)})
		if err != nil {
			t.Error(err)
		}
		select {
		case got <- string(raw):
		default:
		}
		w.WriteHeader(http.StatusNoContent)
	})
	startSite(t, siteConfig{NoAudit: true, Global: fmt.Sprintf(
		"audit {\njournal {$MOAT_JOURNAL}\nsink webhook http://127.0.0.1:%s/in {\nsecret %q\nsecret %s\n}\n}", port(hook), secret, next)}, nil)
	script := function + `
import json, sys
d = json.loads(sys.argv[1])
h, b = d["headers"], d["body"].encode()
print(verified(h, b, sys.argv[2]), verified(h, b, sys.argv[3]), verified(h, b + b" ", sys.argv[2]),
      verified(h, b, "another secret of 24 bytes!"), verified({**h, "webhook-timestamp": "1"}, b, sys.argv[2]))
`
	select {
	case delivery := <-got:
		out, err := exec.Command("python3", "-c", script, delivery, secret, next).CombinedOutput()
		if err != nil || strings.TrimSpace(string(out)) != "True True False False False" {
			t.Errorf("%v\n%s", err, out)
		}
	case <-time.After(startBudget):
		t.Fatal("no delivery came")
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
