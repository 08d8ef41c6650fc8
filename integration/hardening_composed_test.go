//go:build linux

package integration

import (
	"fmt"
	"strings"
	"testing"
)

// composedRules is the rbac part of a composed route.
const composedRules = "moat_rbac {\nGET,POST /open/** public\nGET /me authenticated\nGET /documents/{id} documents.read\n}"

// composedJWT is the jwt part of a composed route.
const composedJWT = "moat_jwt main {\nfrom header\nforward X-User-Id id\nforward X-Roles roles\nanonymous guest\n}"

// startComposed starts a site that is put together from single directives, in a
// route of its own and without error routes.
func startComposed(t *testing.T, lines ...string) *site {
	t.Helper()
	s := &site{Issuer: newIssuer(t), Spy: startSpy(t)}
	s.Config.Port = freePort(t)
	s.Addr = "127.0.0.1:" + portOf(s.Config.Port)
	global := fmt.Sprintf("\t\tissuer main {\n\t\t\tiss %s\n\t\t\taudience %s\n\t\t\tkey %s\n\t\t}%s", issuerURL, audience, s.Issuer.KeyFile, siteRoles)
	text := caddyfile(global, fmt.Sprintf("http://%s {\n\tbind 127.0.0.1\n\troute {\n%s\nreverse_proxy %s {\n\t\t\ttransport moat\n\t\t}\n\t}\n}",
		s.Addr, strings.ReplaceAll(strings.Join(lines, "\n"), "{spy}", s.Spy.Addr), s.Spy.Addr))
	s.gateway = startMoat(t, text, options{Ready: []string{s.Addr}})
	s.web = newClient(t, "http://"+s.Addr)
	return s
}

// TestHardeningComposedLimitByUserNeedsTheUser writes a limit by user in front of
// what finds out who the user is. It would apply to nobody, silently.
func TestHardeningComposedLimitByUserNeedsTheUser(t *testing.T) {
	t.Parallel()
	for _, by := range []string{"user", "tenant", "session"} {
		t.Run(by, func(t *testing.T) {
			s := startComposed(t, "moat_guard", "moat_limit 1/1h by "+by, composedJWT, composedRules)
			for _, header := range [][]string{nil, {bearer(s.Issuer.as(t, "u-1", "user"))}} {
				wantProblem(t, s.get(t, "/open/a", header...), 500, "internal")
			}
			if n := len(s.Spy.requests()); n != 0 {
				t.Errorf("%d requests reached the upstream", n)
			}
		})
	}
	t.Run("behind it", func(t *testing.T) {
		s := startComposed(t, "moat_guard", composedJWT, "moat_limit 1/1h by user", composedRules)
		one, two := bearer(s.Issuer.as(t, "u-1", "user")), bearer(s.Issuer.as(t, "u-2", "user"))
		for name, header := range map[string]string{"one": one, "two": two} {
			if a := s.get(t, "/me", header); a.Status != 200 {
				t.Errorf("user %s: status %d, want 200\n%s", name, a.Status, a.Body)
			}
			a := s.get(t, "/me", header)
			wantProblem(t, a, 429, "rate-limited")
			if a.Header.Get("Retry-After") == "" {
				t.Error("no Retry-After")
			}
		}
		for range 3 {
			if a := s.get(t, "/open/a"); a.Status != 200 {
				t.Errorf("nobody: status %d, want 200", a.Status)
			}
		}
	})
}

// TestHardeningComposedLimitsDoNotShareABucket has directives that stand for
// themselves: counted together, one would use up what the other allows, and a
// stranger's flood of one path would lock another.
func TestHardeningComposedLimitsDoNotShareABucket(t *testing.T) {
	t.Parallel()
	s := startComposed(t, "moat_guard",
		"moat_limit 2/24h by ip {\non GET /open/a\n}", "moat_limit 2/24h by ip {\non GET /open/b\n}",
		"moat_limit 2/24h by ip {\non GET /open/a\ncount 404\n}", composedJWT, composedRules)
	for _, path := range []string{"/open/a", "/open/b"} {
		for n := range 2 {
			if a := s.get(t, path); a.Status != 200 {
				t.Errorf("%s, request %d: status %d, want 200\n%s", path, n+1, a.Status, a.Body)
			}
		}
		wantProblem(t, s.get(t, path), 429, "rate-limited")
	}
}

// TestHardeningComposedRefusalsHaveTheirBody has no error routes: Caddy alone
// would answer each refusal with a status and nothing else.
func TestHardeningComposedRefusalsHaveTheirBody(t *testing.T) {
	t.Parallel()
	s := startComposed(t, "moat_guard {\nmax_body 100\n}", "moat_limit 1/24h by ip {\non GET /open/limited\n}",
		"moat_jwt main {\nfrom cookie access_token\nfrom header\n}", composedRules)
	token := s.Issuer.as(t, "u-1", "user")
	s.get(t, "/open/limited", bearer(token))
	for name, c := range map[string]struct {
		method, path, body string
		header             []string
		status             int
		code               string
	}{
		"guard":            {"GET", "/open//a", "", nil, 400, "bad-request"},
		"guard, method":    {"PROPFIND", "/open/a", "", nil, 405, "method-not-allowed"},
		"guard, body":      {"POST", "/open/a", strings.Repeat("a", 101), []string{"Content-Length: 101"}, 413, "content-too-large"},
		"limit":            {"GET", "/open/limited", "", nil, 429, "rate-limited"},
		"jwt, none":        {"GET", "/me", "", nil, 401, "token-missing"},
		"jwt, bad":         {"GET", "/me", "", []string{bearer("nonsense")}, 401, "token-invalid"},
		"rbac, permission": {"GET", "/documents/7", "", []string{bearer(token)}, 403, "forbidden"},
		"rbac, no rule":    {"GET", "/nowhere", "", []string{bearer(token)}, 403, "forbidden"},
	} {
		t.Run(name, func(t *testing.T) {
			e := s.raw(t, rawRequest(c.method, c.path, s.Addr, append(c.header, caseHeader+": refused")...)+c.body)
			wantProblem(t, e.answer, c.status, c.code)
		})
	}
	s.Stop(t) // Waits for whatever still runs behind an answer.
	for _, r := range s.Spy.marked("refused") {
		t.Errorf("a refused request reached the upstream:\n%s", r.Head)
	}
}

// TestHardeningComposedTokenRefusalEndsTheRequest has moat_jwt write the refusal
// itself, because there are no error routes. An answer is not enough: the request
// must not go on behind it and be executed while its sender reads a 401.
func TestHardeningComposedTokenRefusalEndsTheRequest(t *testing.T) {
	t.Parallel()
	for name, lines := range map[string][]string{
		"before rules": {"moat_guard", "moat_jwt main {\nfrom cookie access_token\nfrom header\n}", composedRules},
		"alone":        {"moat_jwt main {\nfrom cookie access_token\nfrom header\n}", "reverse_proxy /open/* {spy}"},
	} {
		t.Run(name, func(t *testing.T) {
			s := startComposed(t, lines...)
			token := s.Issuer.as(t, "u-1", "user")
			for what, c := range map[string]struct {
				method string
				header []string
				status int
				code   string
			}{
				"none":         {"POST", nil, 401, "token-missing"},
				"bad":          {"POST", []string{bearer("nonsense")}, 401, "token-invalid"},
				"two":          {"GET", []string{bearer(token), bearer(token)}, 400, "bad-request"},
				"cross origin": {"POST", []string{"Cookie: access_token=" + token, "Origin: https://evil.test"}, 403, "cross-origin"},
			} {
				header := append(c.header, caseHeader+": refused", "Content-Length: 0")
				e := s.raw(t, rawRequest(c.method, "/open/"+what[:3], s.Addr, header...))
				wantProblem(t, e.answer, c.status, c.code)
			}
			if e := s.raw(t, rawRequest("GET", "/open/a", s.Addr, bearer(token), caseHeader+": passes")); e.Status != 200 {
				t.Errorf("a good token: status %d, want 200", e.Status)
			}
			s.Stop(t) // Waits for whatever still runs behind an answer.
			for _, r := range s.Spy.marked("refused") {
				t.Errorf("a refused request reached the upstream: %s %s", r.Method, r.Target)
			}
			if len(s.Spy.marked("passes")) != 1 {
				t.Error("the control did not reach the upstream")
			}
		})
	}
}

// TestHardeningComposedStripsIdentity pretends to be somebody on a route that is
// open to everybody, behind a proxy with the seal and behind one without.
func TestHardeningComposedStripsIdentity(t *testing.T) {
	t.Parallel()
	s := startComposed(t, "moat_guard", composedJWT, composedRules, "reverse_proxy /open/bare {spy}")
	for i, name := range append(spellings("X", "User", "Id"), spellings("X", "Roles")...) {
		t.Run(name, func(t *testing.T) {
			open, bare, mine := fmt.Sprintf("open-%d", i), fmt.Sprintf("bare-%d", i), fmt.Sprintf("mine-%d", i)
			s.raw(t, rawRequest("GET", "/open/bare", s.Addr, caseHeader+": "+bare, name+": forged", "Connection: "+name))
			s.raw(t, rawRequest("GET", "/open/a", s.Addr, caseHeader+": "+open, name+": forged", "Connection: "+name))
			s.raw(t, rawRequest("GET", "/me", s.Addr, caseHeader+": "+mine, name+": forged", bearer(s.Issuer.as(t, "u-1", "user"))))
			for mark, want := range map[string]map[string]string{open: nil, bare: nil, mine: {"x-user-id": "u-1", "x-roles": "user"}} {
				got := s.Spy.marked(mark)
				if len(got) != 1 {
					t.Fatalf("%s: %d requests upstream, want one", mark, len(got))
				}
				checkIdentity(t, got[0], want)
			}
		})
	}
}
