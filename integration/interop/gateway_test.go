//go:build interop && linux

package interop

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// caller is the identity that the upstream saw.
type caller struct {
	ID, Tenant, Roles, Issuer string
	Token                     string // the Authorization header's
}

// gateway is a moat process before an upstream that tells who asked.
type gateway struct {
	*process
	web      *http.Client
	mu       sync.Mutex
	upstream map[string]caller // by request ID
}

// guarded is a site of a gateway, named after the issuers it trusts.
type guarded struct {
	*gateway
	base string
}

// startGateway starts a gateway with the issuers, given as lines of the global
// block, and one site for each list of their names.
func startGateway(t testing.TB, issuers string, sites ...string) []guarded {
	t.Helper()
	g := &gateway{upstream: map[string]caller{}, web: &http.Client{Timeout: 20 * time.Second}}
	t.Cleanup(g.web.CloseIdleConnections)
	upstream := httptest.NewServer(http.HandlerFunc(g.serve))
	t.Cleanup(upstream.Close)
	address := strings.TrimPrefix(upstream.URL, "http://")

	dir, err := os.MkdirTemp("/tmp", "moat")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	text := fmt.Sprintf(`{
	admin unix/%s/admin.sock|0600
	persist_config off
	auto_https off
	grace_period 5s
	moat {
		%s
		role admin *
		role user documents.read
		audit {
			journal %s/journal
			sink stdout
		}
	}
}
`, dir, issuers, dir)
	var all []guarded
	var ports []int
	for _, names := range sites {
		port := freePort(t)
		ports = append(ports, port)
		all = append(all, guarded{g, fmt.Sprintf("http://127.0.0.1:%d", port)})
		text += fmt.Sprintf(`http://127.0.0.1:%d {
	bind 127.0.0.1
	moat {
		headers api
		jwt %s {
			forward X-User-Id id
			forward X-Tenant-Id tenant
			forward X-Roles roles
			forward X-Issuer issuer
		}
		rbac {
			GET /documents/{id} documents.read
			GET /me authenticated
		}
	}
	reverse_proxy %s {
		transport moat
	}
}
`, port, names, address)
	}
	file := filepath.Join(dir, "Caddyfile")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	env := []string{
		"PATH=/usr/bin:/bin", "HOME=" + dir, "XDG_DATA_HOME=" + dir, "XDG_CONFIG_HOME=" + dir,
		"INTEROP_SECRET=" + sharedSecret,
	}
	g.process = startProcess(t, env, moatBinary, "run", "--config", file, "--adapter", "caddyfile")
	t.Cleanup(func() {
		if t.Failed() {
			lines := strings.Split(strings.TrimSpace(g.stderr.String()), "\n")
			t.Logf("the gateway printed:\n%s", strings.Join(lines[max(0, len(lines)-8):], "\n"))
		}
	})
	await(t, startBudget, "the gateway", func() bool {
		if g.exited() {
			t.Fatalf("the gateway ended:\n%s", g.stderr.String())
		}
		for _, port := range ports {
			if !canDial(port) {
				return false
			}
		}
		return true
	})
	return all
}

// serve is the upstream.
func (g *gateway) serve(_ http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.upstream[r.Header.Get("X-Request-Id")] = caller{
		ID: r.Header.Get("X-User-Id"), Tenant: r.Header.Get("X-Tenant-Id"),
		Roles: r.Header.Get("X-Roles"), Issuer: r.Header.Get("X-Issuer"),
		Token: strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "),
	}
}

// verdict is what became of a request with a token.
type verdict struct {
	Status int
	Code   string // of the problem body
	Reason string // of the audit event, for a refusal
	Caller *caller
	Took   time.Duration
}

// show sends a request with the token.
func (s guarded) show(t testing.TB, token string) verdict {
	t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, s.base+"/me", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	began := time.Now()
	res, err := s.web.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	v := verdict{Status: res.StatusCode, Took: time.Since(began)}
	id := res.Header.Get("X-Request-Id")
	s.mu.Lock()
	if who, ok := s.upstream[id]; ok {
		v.Caller = &who
	}
	s.mu.Unlock()
	if res.StatusCode == http.StatusOK {
		return v
	}
	var problem struct{ Code string }
	if err := json.Unmarshal(body, &problem); err != nil {
		t.Fatalf("status %d with no problem body: %s", res.StatusCode, body)
	}
	v.Code = problem.Code
	v.Reason = s.reason(t, id)
	return v
}

// reason waits for the audit event of a request and returns its reason.
func (g *gateway) reason(t testing.TB, requestID string) string {
	t.Helper()
	var event struct{ RequestID, Reason string }
	await(t, 10*time.Second, "the event of request "+requestID, func() bool {
		for _, line := range g.lines() {
			if strings.Contains(line, requestID) && json.Unmarshal([]byte(line), &event) == nil && event.RequestID == requestID {
				return true
			}
		}
		return false
	})
	return event.Reason
}

// accepts checks that the token is good and returns who the upstream saw.
func (s guarded) accepts(t testing.TB, maker, token string) caller {
	t.Helper()
	v := s.show(t, token)
	if v.Status != http.StatusOK || v.Caller == nil {
		t.Fatalf("a token of %s was refused: status %d %s %s, reached the upstream: %t",
			maker, v.Status, v.Code, v.Reason, v.Caller != nil)
	}
	if v.Caller.Token != token {
		t.Errorf("the verified token did not go on unchanged")
	}
	figures.accept(maker)
	figures.time("requests with an accepted token", v.Took)
	return *v.Caller
}

// refuses checks that the token is refused for that reason, and that the upstream
// did not hear of it.
func (s guarded) refuses(t testing.TB, maker, token string, status int, code, reason string) {
	t.Helper()
	v := s.show(t, token)
	if v.Status != status || v.Code != code || v.Caller != nil {
		t.Fatalf("status %d %s %s, reached the upstream: %t; want %d %s %s",
			v.Status, v.Code, v.Reason, v.Caller != nil, status, code, reason)
	}
	figures.refuse(maker, v.Reason)
	if v.Reason != reason {
		t.Errorf("reason %s, want %s", v.Reason, reason)
	}
}
