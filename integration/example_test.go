//go:build linux

package integration

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// startProvider is an OpenID provider over TLS that publishes the issuer's key.
// It returns its URL and the file with the certificate to trust.
func startProvider(t *testing.T, i *issuer) (address, roots string) {
	t.Helper()
	point, err := i.key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	enc := base64.RawURLEncoding.EncodeToString
	srv := httptest.NewUnstartedServer(nil)
	srv.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Path == "/keys" {
			_, _ = fmt.Fprintf(w, `{"keys":[{"kty":"EC","crv":"P-256","kid":"k1","x":%q,"y":%q}]}`, enc(point[1:33]), enc(point[33:]))
			return
		}
		_, _ = fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q}`, srv.URL, srv.URL+"/keys")
	})
	srv.StartTLS()
	t.Cleanup(srv.Close)
	roots = filepath.Join(privateDir(t), "roots.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	if err := os.WriteFile(roots, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return srv.URL, roots
}

// startExample boots Caddyfile.example with addresses of this test and nothing
// else changed. The webhook and the database do not exist: a trail whose sinks
// are away must not slow or fail a request.
func startExample(t *testing.T) *site {
	t.Helper()
	i, spy, redis := newIssuer(t), startSpy(t), startRedis(t)
	provider, roots := startProvider(t, i)
	port, monitor, dead := freePort(t), freePort(t), freePort(t)
	text, err := os.ReadFile(filepath.Join("..", "Caddyfile.example"))
	if err != nil {
		t.Fatal(err)
	}
	changed := string(text)
	for _, change := range [][2]string{
		{"unix//run/moat/admin.sock|0600", "{$MOAT_ADMIN}"},
		{"persist_config off", "persist_config off\n\tskip_install_trust\n\tauto_https disable_redirects"},
		{"redis://127.0.0.1:6379/0", redis.URL},
		{"username {env.REDIS_USER}", ""},
		{"password {env.REDIS_PASSWORD}", ""},
		{"https://id.example.com", provider},
		{"/var/log/moat", "{$MOAT_JOURNAL}"},
		{"https://siem.example.com/in", fmt.Sprintf("https://127.0.0.1:%d/in", dead)},
		{"orders.example.com {\n\ttls {", fmt.Sprintf("https://localhost:%d {\n\tbind 127.0.0.1\n\ttls internal {", port)},
		{"https:// {\n\ttls {", fmt.Sprintf("https://:%d {\n\tbind 127.0.0.1\n\ttls internal {", port)},
		{"127.0.0.1:3000", spy.Addr},
		{":9180", ":" + strconv.Itoa(monitor)},
	} {
		if strings.Count(changed, change[0]) != 1 {
			t.Fatalf("%q stands %d times in the example", change[0], strings.Count(changed, change[0]))
		}
		changed = strings.Replace(changed, change[0], change[1], 1)
	}
	s := &site{Issuer: i, Spy: spy, Addr: "127.0.0.1:" + strconv.Itoa(port), Config: siteConfig{Metrics: monitor}}
	s.gateway = startMoat(t, changed, options{Ready: []string{s.Addr}, Env: map[string]string{
		"SIEM_SECRET":   "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
		"AUDIT_DSN":     fmt.Sprintf("postgres://moat:moat@127.0.0.1:%d/audit", dead),
		"SSL_CERT_FILE": roots,
	}})
	awaitCertificate(t, s.Addr, clientTLS(t, s.gateway))
	s.web = newTLSClient(t, s.gateway, s.Addr)
	s.provider = provider
	return s
}

func (s *site) visitor(t *testing.T, change map[string]any) string {
	t.Helper()
	all := map[string]any{"iss": s.provider}
	for name, value := range change {
		all[name] = value
	}
	return bearer(s.Issuer.token(t, all))
}

func TestTheExampleHoldsWhatItSays(t *testing.T) {
	t.Parallel()
	s := startExample(t)
	user := s.visitor(t, nil)
	admin := s.visitor(t, map[string]any{"sub": "u-2", "roles": []string{"9f1c2d3e-group-id"}})
	boss := s.visitor(t, map[string]any{"sub": "u-3", "roles": []string{"superadmin"}})
	expired := s.visitor(t, map[string]any{"iat": 1000, "exp": 2000})
	stranger := bearer(newIssuer(t).token(t, map[string]any{"iss": s.provider}))
	for _, row := range []struct {
		name, method, path, token string
		want                      int
	}{
		{"open to all", "GET", "/healthz", "", 200},
		{"open to a bad token too", "GET", "/healthz", stranger, 200},
		{"the guest reads a document", "GET", "/documents/7", "", 200},
		{"the guest creates no report", "POST", "/reports", "", 401},
		{"the group is an admin", "GET", "/documents/7", admin, 200},
		{"a user's own files", "PUT", "/users/u-1/files/a", user, 200},
		{"another user's files", "PUT", "/users/u-2/files/a", user, 403},
		{"no organization for a user", "GET", "/orgs/t-1/x", user, 403},
		{"every organization for global scope", "GET", "/orgs/t-9/x", boss, 200},
		{"internal is closed, even so", "GET", "/internal/x", boss, 403},
		{"internal is closed to nobody", "GET", "/internal/x", "", 401},
		{"no rule", "GET", "/nothing", boss, 403},
		{"a method without a rule", "DELETE", "/documents/7", boss, 403},
		{"an expired token", "GET", "/documents/7", expired, 401},
		{"a stranger's token", "GET", "/documents/7", stranger, 401},
	} {
		t.Run(row.name, func(t *testing.T) {
			var header []string
			if row.token != "" {
				header = append(header, row.token)
			}
			before := len(s.Spy.requests())
			a := s.send(t, row.method, row.path, "", header...)
			if a.Status != row.want {
				t.Errorf("status %d, want %d: %s", a.Status, row.want, a.Body)
			}
			if sent := len(s.Spy.requests()) - before; (sent == 1) != (row.want == 200) {
				t.Errorf("%d requests reached the upstream", sent)
			}
			if n := len(a.Header.Values("Content-Security-Policy")); n != 1 {
				t.Errorf("%d policies", n)
			}
		})
	}
	s.attackExample(t, boss)
}

// attackExample tries the ways around.
func (s *site) attackExample(t *testing.T, boss string) {
	t.Helper()
	config := clientTLS(t, s.gateway)
	for _, target := range []string{
		"/documents/../internal/x", "/documents/%2e%2e/internal/x", "/documents/..;/internal/x", "//internal/x",
		"/documents/7%2f..%2finternal", "/%2569nternal/x", "/documents\\..\\internal", "http:internal/x",
		"http://evil.test/internal/x", "/documents/%00", "/documents/7\x01",
	} {
		before := len(s.Spy.requests())
		e := rawHTTP(t, s.Addr, []byte(rawRequest("GET", target, "localhost", boss)), config)
		if e.Status == 200 || len(s.Spy.requests()) != before {
			t.Errorf("%q: status %d, %d requests reached the upstream", target, e.Status, len(s.Spy.requests())-before)
		}
	}
	old := config.Clone()
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	for _, name := range []string{"localhost", "other.test", ""} {
		c := old.Clone()
		c.ServerName, c.InsecureSkipVerify = name, true
		if conn, err := tls.Dial("tcp", s.Addr, c); err == nil {
			_ = conn.Close()
			t.Errorf("TLS 1.2 was accepted for %q", name)
		}
	}
	for path, want := range map[string]string{"/health/live": `"ok"`, "/health/ready": `"ok"`, "/metrics": "moat_requests_total"} {
		a := newClient(t, "http://127.0.0.1:"+strconv.Itoa(s.Config.Metrics)).send(t, "GET", path, "")
		if a.Status != 200 || !strings.Contains(string(a.Body), want) {
			t.Errorf("%s: status %d, %s", path, a.Status, a.Body)
		}
	}
	if s.gateway.Stop(t); !strings.Contains(s.stdout.String(), `"reason":"rbac.deny-rule"`) {
		t.Error("the sink stdout shows no refusal")
	}
}

func TestTheExampleLimitsLogins(t *testing.T) {
	t.Parallel()
	s := startExample(t)
	s.Spy.respond(func(recorded) []byte { return []byte("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n") })
	limited := 0
	for range 8 {
		if a := s.send(t, "POST", "/auth/login", ""); a.Status == 429 {
			limited++
		}
	}
	if reached := len(s.Spy.requests()); reached != 5 || limited != 3 {
		t.Errorf("%d wrong logins reached the application, %d were limited; want 5 and 3", reached, limited)
	}
}
