package app

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/moat-gateway/moat/internal/rbac"
)

func provision(t *testing.T, a *App) error {
	t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	t.Cleanup(cancel)
	return a.Provision(ctx)
}

func keyFile(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func good(t *testing.T) *App {
	t.Helper()
	return &App{
		Redis: &Redis{URL: "redis://127.0.0.1:1/0"},
		Issuers: []*Issuer{{
			Name: "main", Iss: []string{"https://id.test"}, Audience: []string{"a"}, Key: []string{keyFile(t)},
		}},
		RoleConfigs: []rbac.RoleConfig{{Name: "admin", Permissions: []string{"*"}}},
		Audit:       &Audit{Journal: &Journal{Dir: filepath.Join(t.TempDir(), "journal")}, Sinks: []*Sink{{Type: "stdout"}}},
	}
}

// held is how many references the app's journal has in the pool.
func held(a *App) int {
	n, _ := trails.References("journal " + a.Audit.Journal.Dir)
	return n
}

func TestProvisionTakesAndCleanupGivesBack(t *testing.T) {
	a := good(t)
	if err := provision(t, a); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(a.Audit.Journal.Dir); err == nil {
		t.Error("provisioning created the journal's directory")
	}
	if held(a) != 1 {
		t.Errorf("%d references", held(a))
	}
	for range 2 {
		if err := a.Cleanup(); err != nil {
			t.Error(err)
		}
	}
	if held(a) != 0 {
		t.Errorf("%d references after Cleanup", held(a))
	}
}

func TestTheNextConfigurationTakesOverBeforeTheLastGivesBack(t *testing.T) {
	first := good(t)
	second := good(t)
	second.Redis, second.Audit = first.Redis, first.Audit
	if err := provision(t, first); err != nil {
		t.Fatal(err)
	}
	if err := provision(t, second); err != nil {
		t.Fatal(err)
	}
	if held(first) != 2 {
		t.Errorf("%d references, want 2", held(first))
	}
	if err := first.Cleanup(); err != nil {
		t.Error(err)
	}
	if held(first) != 1 || second.limiter.redis.breaker == nil {
		t.Errorf("%d references, want 1", held(first))
	}
	if err := second.Cleanup(); err != nil {
		t.Error(err)
	}
}

func TestHalfAProvisionLeavesNothingBehind(t *testing.T) {
	a := good(t)
	a.Issuers = append(a.Issuers, &Issuer{Name: "broken"})
	if err := provision(t, a); err == nil {
		t.Fatal("a broken issuer was accepted")
	}
	if err := a.Cleanup(); err != nil {
		t.Error(err)
	}
	if held(a) != 0 {
		t.Errorf("%d references after Cleanup", held(a))
	}
}

func TestAllThatIsWrongIsToldAtOnce(t *testing.T) {
	a := &App{
		Redis: &Redis{URL: "{env.MOAT_TEST_UNSET}"},
		Issuers: []*Issuer{
			{Name: "a", Key: []string{"/no/such/file.pem"}},
			{Name: "b", Iss: []string{"https://b.test"}, Audience: []string{"x"}},
			{Name: "c", Iss: []string{"https://c.test"}, Audience: []string{"x"}, Secret: []string{"too short"}},
			{Name: "d", Iss: []string{"https://d.test"}, Audience: []string{"x"}, JWKS: "http://d.test/keys"},
			{Name: "e", InsecureAnyIssuer: true, Audience: []string{"x"}, Discovery: true},
		},
		RoleConfigs: []rbac.RoleConfig{{Name: "admin"}, {Name: "x", Permissions: []string{"a..b"}}},
		Audit:       &Audit{Sinks: []*Sink{sinkOf("webhook", map[string]any{"url": "https://x.test"})}},
	}
	err := provision(t, a)
	defer func() { _ = a.Cleanup() }()
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		"redis: url: ", "{env.MOAT_TEST_UNSET}",
		`issuer "a": iss is missing`, "insecure_any_issuer", `issuer "a": audience is missing`, "/no/such/file.pem",
		`issuer "b": has 0 key sources`,
		`issuer "c": secret 1`,
		"https", `issuer "e"`,
		`admin`, `a..b`,
		"audit: sink webhook: needs a journal",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), "too short") && strings.Contains(err.Error(), `"too short"`) {
		t.Error("the error shows a secret")
	}
}

func TestASinkNeedsTheJournalExceptStdout(t *testing.T) {
	a := &App{Audit: &Audit{Sinks: []*Sink{{Type: "stdout"}}}}
	if err := provision(t, a); err != nil {
		t.Errorf("stdout alone: %v", err)
	}
	if err := a.Cleanup(); err != nil {
		t.Error(err)
	}
}
