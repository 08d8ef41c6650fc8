//go:build linux

package integration

import (
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// tree lists everything below dir.
func tree(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		out = append(out, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestValidateTouchesNothing(t *testing.T) {
	t.Parallel()
	remote, i, port := startCounting(t), newIssuer(t), freePort(t)
	config := siteConfig{
		Port: port, Upstream: remote.Addr, NoAudit: true,
		Global: fmt.Sprintf(`
		redis redis://%[1]s/0
		issuer remote {
			iss https://remote.test
			audience orders-api
			jwks https://%[1]s/keys
		}
		audit {
			journal {$MOAT_JOURNAL}
			sink redis_stream moat:audit
			sink webhook https://%[1]s/in {
				secret whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=
			}
			sink postgres postgres://moat:moat@%[1]s/audit
		}`, remote.Addr),
	}
	// Caddy makes its own authority for that option while it validates.
	text := strings.Replace(config.render(i), "skip_install_trust", "", 1)
	h := newHome(t, text, nil)
	before := tree(t, h.Dir)
	// The port is taken: whoever binds it fails.
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	if out, exit := h.validate(t); exit != 0 {
		t.Fatalf("validate: exit %d\n%s", exit, out)
	}
	if after := tree(t, h.Dir); !slices.Equal(before, after) {
		t.Errorf("files before %v\nafter %v", before, after)
	}
	if n := remote.accepted(); n != 0 {
		t.Errorf("%d connections were opened", n)
	}
}

func TestTheExampleIsValid(t *testing.T) {
	t.Parallel()
	h := newHome(t, "", map[string]string{
		"REDIS_USER": "moat", "REDIS_PASSWORD": "secret",
		"SIEM_SECRET": "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
		"AUDIT_DSN":   "postgres://moat:moat@127.0.0.1/audit",
	})
	example, err := filepath.Abs(filepath.Join("..", "Caddyfile.example"))
	if err != nil {
		t.Fatal(err)
	}
	if out, exit := h.moat(t, "validate", "--config", example, "--adapter", "caddyfile"); exit != 0 {
		t.Errorf("exit %d\n%s", exit, out)
	}
}

func TestTheBinaryHoldsEveryModule(t *testing.T) {
	t.Parallel()
	h := newHome(t, "", nil)
	out, exit := h.moat(t, "list-modules")
	if exit != 0 {
		t.Fatalf("exit %d\n%s", exit, out)
	}
	modules := strings.Fields(out)
	for _, id := range []string{
		"moat", "http.handlers.moat_guard", "http.handlers.moat_headers", "http.handlers.moat_limit",
		"http.handlers.moat_jwt", "http.handlers.moat_rbac", "http.handlers.moat_audit",
		"http.handlers.moat_health", "http.reverse_proxy.transport.moat",
	} {
		if !slices.Contains(modules, id) {
			t.Errorf("no module %s", id)
		}
	}
	if out, exit := h.moat(t, "version"); exit != 0 || !strings.Contains(out, "v2.11.9") {
		t.Errorf("version: exit %d, %q; want ours and Caddy's", exit, out)
	}
}
