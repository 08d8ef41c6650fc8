//go:build linux

package integration

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// caseReport is what of the JSON report the tests look at.
type caseReport struct {
	Cases []struct {
		Name    string
		Passed  bool
		Verdict explainVerdict
	}
	Passed, Failed, Unknown, Rules int
	Uncovered                      []struct{ Rule, Place string }
}

func TestExplainCasesThatPass(t *testing.T) {
	t.Parallel()
	h, config := newHome(t, "", nil), explainFixture(t, "Caddyfile")
	got := explainIn(t, h, "", "--config", config, "--cases", explainFixture(t, "passing.yaml"))
	if got.exit != 0 || got.stderr != "" {
		t.Fatalf("exit %d\n%s%s", got.exit, got.stdout, got.stderr)
	}
	for _, want := range []string{"7 cases: 7 passed, 0 failed; 6 of 23 rules covered", "rules that no case covers:", "* /internal/** deny  (", "Caddyfile:"} {
		if !strings.Contains(got.stdout, want) {
			t.Errorf("no %q in\n%s", want, got.stdout)
		}
	}
	for _, not := range []string{"FAIL", "GET /healthz public"} {
		if strings.Contains(got.stdout, not) {
			t.Errorf("%q in\n%s", not, got.stdout)
		}
	}
}

func TestExplainCasesThatFail(t *testing.T) {
	t.Parallel()
	h, config := newHome(t, "", nil), explainFixture(t, "Caddyfile")
	got := explainIn(t, h, "", "--config", config, "--cases", explainFixture(t, "failing.yaml"))
	if got.exit != 1 {
		t.Fatalf("exit %d, want 1\n%s%s", got.exit, got.stdout, got.stderr)
	}
	for _, want := range []string{
		"FAIL ", "failing.yaml:1 too lax", "expected  allow", "got       403 forbidden, rbac.deny-rule", "* /internal/** deny  (",
		"failing.yaml:7 another reason", "expected  deny, rbac.deny-rule", "rbac.no-rule",
		"failing.yaml:14 another status", "got       401 token-missing", "4 cases: 1 passed, 3 failed",
	} {
		if !strings.Contains(got.stdout, want) {
			t.Errorf("no %q in\n%s", want, got.stdout)
		}
	}
	if strings.Contains(got.stdout, "FAIL right") {
		t.Errorf("a case that passes is printed as failed:\n%s", got.stdout)
	}
	asJSON := explainIn(t, h, "", "--config", config, "--cases", explainFixture(t, "failing.yaml"), "--json")
	var r caseReport
	if err := json.Unmarshal([]byte(asJSON.stdout), &r); err != nil || asJSON.exit != 1 {
		t.Fatalf("exit %d, %v\n%s%s", asJSON.exit, err, asJSON.stdout, asJSON.stderr)
	}
	if len(r.Cases) != 4 || r.Passed != 1 || r.Failed != 3 || r.Unknown != 0 || r.Cases[0].Verdict.Reason != "rbac.deny-rule" || !r.Cases[3].Passed {
		t.Errorf("report %+v", r)
	}
}

// TestExplainCasesThatNobodyCanTell must not look like a policy that fails.
func TestExplainCasesThatNobodyCanTell(t *testing.T) {
	t.Parallel()
	h, config := newHome(t, "", nil), explainFixture(t, "Caddyfile")
	one := `[{"method": "GET", "url": "http://unknown.test:8080/", "expect": "deny"}]`
	got := explainIn(t, h, one, "--config", config, "--cases", "-")
	if got.exit != 2 || !strings.Contains(got.stdout, "cannot tell: no site for unknown.test") {
		t.Errorf("exit %d, want 2\n%s%s", got.exit, got.stdout, got.stderr)
	}
	token := `[{"method": "GET", "url": "https://orders.test/me", "token": "a.b.c", "expect": "deny"}]`
	got = explainIn(t, h, token, "--config", config, "--cases", "-")
	if got.exit != 2 || !strings.Contains(got.stderr, "a token has to be judged") {
		t.Errorf("exit %d, want 2\n%s%s", got.exit, got.stdout, got.stderr)
	}
}

func TestExplainBadCases(t *testing.T) {
	t.Parallel()
	h, config := newHome(t, "", nil), explainFixture(t, "Caddyfile")
	got := explainIn(t, h, "", "--config", config, "--cases", explainFixture(t, "bad.yaml"))
	if got.exit != 2 || got.stdout != "" {
		t.Fatalf("exit %d, want 2\n%s%s", got.exit, got.stdout, got.stderr)
	}
	for _, want := range []string{
		`bad.yaml:2: case "misspelled": unknown word "methd"; known are: address, at, claims`,
		`bad.yaml:1: case "misspelled": method: is missing`,
		`bad.yaml:5: case "two callers": token says who the caller is`,
		`bad.yaml:5: case "two callers": expect "perhaps": must be allow, deny or the status of a refusal`,
		`bad.yaml:11: case: expect "200"`, `bad.yaml:11: case: URL "orders.test/me"`, `bad.yaml:11: case: at "noon"`,
		`bad.yaml:15: case: must have words`,
	} {
		if !strings.Contains(got.stderr, want) {
			t.Errorf("no %q in\n%s", want, got.stderr)
		}
	}
	for _, args := range [][]string{
		{"--cases", explainFixture(t, "missing.yaml")},
		{"--cases", explainFixture(t, "passing.yaml"), "GET", "https://orders.test/"},
		{"--cases", explainFixture(t, "passing.yaml"), "--user", "u-1"},
		{"--cases", explainFixture(t, "passing.yaml"), "--at", "2026-07-01T13:00:00Z"},
	} {
		if got := explainIn(t, h, "", append(args, "--config", config)...); got.exit != 2 || got.stderr == "" {
			t.Errorf("%q: exit %d, want 2\n%s%s", args, got.exit, got.stdout, got.stderr)
		}
	}
}

// TestExplainTouchesNothing has Redis, a key server, an upstream with health
// checks and sinks in the configuration, all at one place that counts.
func TestExplainTouchesNothing(t *testing.T) {
	t.Parallel()
	remote := startCounting(t)
	h := newHome(t, "", nil)
	config := `{
	moat {
		redis redis://ADDR/0
		issuer main {
			iss https://ADDR
			audience orders-api
			discovery
		}
		role user documents.read
		audit {
			journal {$MOAT_JOURNAL}
			sink postgres postgres://moat:moat@ADDR/audit
		}
	}
}
https://localhost {
	tls internal
	moat {
		limit 1/1h by ip
		jwt main
		rbac {
			GET /documents/{id} documents.read
		}
	}
	reverse_proxy ADDR {
		transport moat
		health_uri /healthz
		health_interval 10ms
	}
}`
	h.write(t, strings.ReplaceAll(config, "ADDR", remote.Addr))
	before := tree(t, h.Dir)
	for range 3 { // The limit grants one.
		got := explainIn(t, h, "", "-c", h.File, "GET", "https://localhost/documents/7", "--role", "user")
		if got.exit != 0 {
			t.Fatalf("exit %d\n%s%s", got.exit, got.stdout, got.stderr)
		}
	}
	if after := tree(t, h.Dir); !slices.Equal(before, after) {
		t.Errorf("files before %v\nafter %v", before, after)
	}
	if n := remote.accepted(); n != 0 {
		t.Errorf("%d connections were opened", n)
	}
	// Within one run no limit is charged either.
	one := `{"method": "GET", "url": "https://localhost/documents/7", "roles": ["user"], "expect": "allow"}`
	got := explainIn(t, h, "["+one+","+one+","+one+"]", "-c", h.File, "--cases", "-")
	if got.exit != 0 || !strings.Contains(got.stdout, "3 passed") {
		t.Errorf("exit %d\n%s%s", got.exit, got.stdout, got.stderr)
	}
}

// TestExplainFetchesKeys judges a token by the keys of a server, and cannot tell
// once it is away.
func TestExplainFetchesKeys(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	// Longer than a request would wait: who asks here has the time.
	url, stop := serveKeys(t, i, 2500*time.Millisecond)
	keys := "jwks " + url + "\n\t\t\ttimeout 10s\n\t\t\tinsecure_http_jwks"
	h := newHome(t, strings.Replace(explainTokens, "secret {env.EXPLAIN_SECRET}", keys, 1), nil)
	ask := func() explained {
		return explainIn(t, h, "", "-c", h.File, "GET", "http://orders.test/documents/7", "--token", i.as(t, "u-1", "user"))
	}
	if got := ask(); got.exit != 0 || !strings.Contains(got.stdout, "the caller is u-1 of issuer main") {
		t.Errorf("exit %d, want 0\n%s%s", got.exit, got.stdout, got.stderr)
	}
	stop()
	if got := ask(); got.exit != 2 || !strings.Contains(got.stderr, "the issuer's keys could not be had") {
		t.Errorf("exit %d, want 2\n%s%s", got.exit, got.stdout, got.stderr)
	}
	if got := explainIn(t, h, "", "-c", h.File, "GET", "http://orders.test/documents/7", "--role", "user"); got.exit != 0 {
		t.Errorf("without a token: exit %d, want 0\n%s%s", got.exit, got.stdout, got.stderr)
	}
}

// TestExplainTheExample asks about the example as it stands.
func TestExplainTheExample(t *testing.T) {
	t.Parallel()
	h := newHome(t, "", nil)
	example, err := filepath.Abs(filepath.Join("..", "Caddyfile.example"))
	if err != nil {
		t.Fatal(err)
	}
	got := explainIn(t, h, "", "GET", "https://orders.example.com/documents/7", "-c", example)
	if got.exit != 0 || !strings.Contains(got.stdout, "role guest grants documents.read") {
		t.Errorf("exit %d\n%s%s", got.exit, got.stdout, got.stderr)
	}
	// The file of this directory is the default, as for Caddy's own commands.
	text, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	h.write(t, string(text))
	if got := explainIn(t, h, "", "GET", "https://orders.example.com/internal/x", "--role", "superadmin"); got.exit != 1 {
		t.Errorf("exit %d, want 1\n%s%s", got.exit, got.stdout, got.stderr)
	}
}
