//go:build linux

package integration

import (
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// challenge parses a WWW-Authenticate value of the Bearer scheme.
func challenge(t testing.TB, a answer) map[string]string {
	t.Helper()
	values := a.Header.Values("WWW-Authenticate")
	if len(values) != 1 || !strings.HasPrefix(values[0], "Bearer ") {
		t.Fatalf("WWW-Authenticate %q, want one Bearer challenge", values)
	}
	params := map[string]string{}
	for part := range strings.SplitSeq(strings.TrimPrefix(values[0], "Bearer "), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		unquoted, err := strconv.Unquote(value)
		if err != nil {
			t.Fatalf("WWW-Authenticate %q: parameter %q is not quoted", values[0], part)
		}
		params[name] = unquoted
	}
	return params
}

// wantChallenge allows exactly a realm and, when given, an error.
func wantChallenge(t testing.TB, a answer, kind string) {
	t.Helper()
	params := challenge(t, a)
	if params["realm"] == "" || params["error"] != kind {
		t.Errorf("WWW-Authenticate %q, want a realm and error %q", a.Header.Get("WWW-Authenticate"), kind)
	}
	for name := range params {
		if name != "realm" && name != "error" {
			t.Errorf("WWW-Authenticate tells %q, want no more than realm and error", name)
		}
	}
}

func TestStatuses(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{
		Gate:    "limit burst 3/1h by ip {\n on GET /open/limited\n}",
		Metrics: freePort(t),
	}, nil)
	t.Run("allowed", func(t *testing.T) { statusesAllowed(t, s) })
	t.Run("without a token", func(t *testing.T) { statusesWithoutToken(t, s) })
	t.Run("with a bad token", func(t *testing.T) { statusesBadToken(t, s) })
	t.Run("forbidden", func(t *testing.T) { statusesForbidden(t, s) })
	t.Run("cookie", func(t *testing.T) { statusesCookie(t, s) })
	t.Run("two tokens in one source", func(t *testing.T) { statusesTwoTokens(t, s) })
	t.Run("navigation", func(t *testing.T) { statusesNavigation(t, s) })
	t.Run("request id", func(t *testing.T) { statusesRequestID(t, s) })
	t.Run("limited", func(t *testing.T) { statusesLimited(t, s) })
	t.Run("method", func(t *testing.T) { statusesMethod(t, s) })
	t.Run("health", func(t *testing.T) { statusesHealth(t, s) })
}

func statusesAllowed(t *testing.T, s *site) {
	user := s.Issuer.as(t, "u-1", "user")
	for name, c := range map[string]struct{ method, path, token string }{
		"public, nobody":                        {"GET", "/healthz", ""},
		"public, a bad token":                   {"GET", "/healthz", "nonsense"},
		"HEAD as GET":                           {"HEAD", "/healthz", ""},
		"somebody":                              {"GET", "/me", user},
		"permission below a wildcard":           {"GET", "/documents/7", s.Issuer.as(t, "a-1", "admin")},
		"one of two permissions":                {"POST", "/reports", s.Issuer.as(t, "a-1", "admin")},
		"own file":                              {"PUT", "/users/u-1/files/a/b", user},
		"own tenant":                            {"POST", "/orgs/t-1/x", s.Issuer.as(t, "a-1", "admin")},
		"foreign tenant by a role with a scope": {"POST", "/orgs/t-2/x", s.Issuer.as(t, "root", "superadmin")},
	} {
		t.Run(name, func(t *testing.T) {
			var header []string
			if c.token != "" {
				header = []string{bearer(c.token)}
			}
			if a := s.send(t, c.method, c.path, "", header...); a.Status != http.StatusOK {
				t.Errorf("status %d, want 200\n%s", a.Status, a.Body)
			}
		})
	}
}

func statusesWithoutToken(t *testing.T, s *site) {
	for _, path := range []string{"/me", "/documents/7", "/internal/x", "/nowhere"} {
		a := s.get(t, path)
		wantProblem(t, a, http.StatusUnauthorized, "token-missing")
		wantChallenge(t, a, "")
	}
}

func statusesBadToken(t *testing.T, s *site) {
	good := s.Issuer.as(t, "u-1", "user")
	stranger := newIssuer(t)
	now := time.Now()
	hs := sign(t, jwt.SigningMethodHS256, []byte(strings.Repeat("s", 32)), claims(nil))
	none := sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, claims(nil))
	for name, c := range map[string]struct{ token, code string }{
		"not a token":        {"nonsense", "token-invalid"},
		"wrong key":          {stranger.as(t, "u-1", "admin"), "token-invalid"},
		"symmetric":          {hs, "token-invalid"},
		"alg none":           {none, "token-invalid"},
		"cut signature":      {good[:len(good)-4], "token-invalid"},
		"other issuer":       {s.Issuer.token(t, map[string]any{"iss": "https://other.test"}), "token-invalid"},
		"no issuer":          {s.Issuer.token(t, map[string]any{"iss": nil}), "token-invalid"},
		"other audience":     {s.Issuer.token(t, map[string]any{"aud": "billing"}), "token-invalid"},
		"no expiry":          {s.Issuer.token(t, map[string]any{"exp": nil}), "token-invalid"},
		"empty id":           {s.Issuer.token(t, map[string]any{"sub": ""}), "token-invalid"},
		"id of a wrong type": {s.Issuer.token(t, map[string]any{"sub": []string{"u-1"}}), "token-invalid"},
		"not yet valid":      {s.Issuer.token(t, map[string]any{"nbf": now.Add(10 * time.Minute).Unix()}), "token-invalid"},
		"lives too long":     {s.Issuer.token(t, map[string]any{"exp": now.Add(72 * time.Hour).Unix()}), "token-invalid"},
		"expired": {s.Issuer.token(t, map[string]any{
			"iat": now.Add(-2 * time.Hour).Unix(), "exp": now.Add(-time.Hour).Unix()}), "token-expired"},
		"expired, wrong key": {stranger.token(t, map[string]any{
			"iat": now.Add(-2 * time.Hour).Unix(), "exp": now.Add(-time.Hour).Unix()}), "token-invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			a := s.get(t, "/me", bearer(c.token), caseHeader+": "+name)
			wantProblem(t, a, http.StatusUnauthorized, c.code)
			wantChallenge(t, a, "invalid_token")
			if len(s.Spy.marked(name)) != 0 {
				t.Error("the request reached the upstream")
			}
		})
	}
}

func statusesForbidden(t *testing.T, s *site) {
	user, admin := s.Issuer.as(t, "u-1", "user"), s.Issuer.as(t, "a-1", "admin")
	for name, c := range map[string]struct{ method, path, token string }{
		"role without the permission": {"POST", "/reports", s.Issuer.as(t, "g-1", "guest")},
		"unknown role":                {"GET", "/documents/7", s.Issuer.as(t, "u-1", "root")},
		"role in another case":        {"GET", "/documents/7", s.Issuer.as(t, "u-1", "Admin")},
		"no role":                     {"GET", "/documents/7", s.Issuer.as(t, "u-1")},
		"own permission, no owner":    {"GET", "/documents/7", user},
		"somebody else's file":        {"PUT", "/users/u-2/files/a", user},
		"foreign tenant":              {"POST", "/orgs/t-2/x", admin},
		"deny rule":                   {"GET", "/internal/x", s.Issuer.as(t, "root", "superadmin")},
		"no rule":                     {"GET", "/nowhere", s.Issuer.as(t, "root", "superadmin")},
		"method without a rule":       {"DELETE", "/documents/7", admin},
	} {
		t.Run(name, func(t *testing.T) {
			a := s.send(t, c.method, c.path, "", bearer(c.token), caseHeader+": forbidden "+name)
			wantProblem(t, a, http.StatusForbidden, "forbidden")
			wantChallenge(t, a, "insufficient_scope")
			if len(s.Spy.marked("forbidden "+name)) != 0 {
				t.Error("the request reached the upstream")
			}
		})
	}
}

func statusesCookie(t *testing.T, s *site) {
	token := s.Issuer.as(t, "a-1", "admin")
	cookie := "Cookie: access_token=" + token
	if a := s.get(t, "/me", cookie); a.Status != http.StatusOK {
		t.Errorf("GET with a cookie: status %d, want 200\n%s", a.Status, a.Body)
	}
	if a := s.send(t, "POST", "/reports", "", cookie, "Sec-Fetch-Site: same-origin"); a.Status != http.StatusOK {
		t.Errorf("same-origin POST: status %d, want 200\n%s", a.Status, a.Body)
	}
	if a := s.send(t, "POST", "/reports", "", cookie, "Origin: http://"+s.Addr); a.Status != http.StatusOK {
		t.Errorf("POST with our own Origin: status %d, want 200\n%s", a.Status, a.Body)
	}
	for name, header := range map[string][]string{
		"cross-site":           {"Sec-Fetch-Site: cross-site"},
		"same-site":            {"Sec-Fetch-Site: same-site", "Origin: http://" + s.Addr},
		"foreign origin":       {"Origin: https://evil.test"},
		"opaque origin":        {"Origin: null"},
		"no sign of an origin": nil,
	} {
		t.Run(name, func(t *testing.T) {
			a := s.send(t, "POST", "/reports", "", append(header, cookie)...)
			wantProblem(t, a, http.StatusForbidden, "cross-origin")
			if a.Header.Get("WWW-Authenticate") != "" {
				t.Error("a cookie was answered with a Bearer challenge")
			}
		})
	}
	now := time.Now()
	stale := s.Issuer.token(t, map[string]any{"iat": now.Add(-2 * time.Hour).Unix(), "exp": now.Add(-time.Hour).Unix()})
	a := s.get(t, "/me", "Cookie: access_token="+stale)
	wantProblem(t, a, http.StatusUnauthorized, "token-expired")
	cleared := slices.ContainsFunc(a.Header.Values("Set-Cookie"), func(v string) bool {
		return strings.HasPrefix(v, "access_token=;") && strings.Contains(v, "Max-Age=0")
	})
	if !cleared {
		t.Errorf("Set-Cookie %q, want the expired cookie cleared", a.Header.Values("Set-Cookie"))
	}
}

func statusesTwoTokens(t *testing.T, s *site) {
	token := s.Issuer.as(t, "u-1", "user")
	for name, header := range map[string][]string{
		"two Authorization headers": {bearer(token), bearer(token)},
		"two cookies of one name":   {"Cookie: access_token=" + token + "; access_token=" + token},
	} {
		t.Run(name, func(t *testing.T) {
			e := s.raw(t, rawRequest("GET", "/me", s.Addr, header...))
			wantProblem(t, e.answer, http.StatusBadRequest, "bad-request")
		})
	}
}

func statusesNavigation(t *testing.T, s *site) {
	a := s.get(t, "/me", "Accept: text/html,application/xhtml+xml,*/*;q=0.8", "Sec-Fetch-Mode: navigate")
	if a.Status != http.StatusUnauthorized || !strings.HasPrefix(a.Header.Get("Content-Type"), "text/html") {
		t.Errorf("status %d, Content-Type %q: want 401 and text/html", a.Status, a.Header.Get("Content-Type"))
	}
	if !strings.Contains(string(a.Body), a.Header.Get("X-Request-Id")) {
		t.Errorf("the page does not name the request id:\n%s", a.Body)
	}
	wantProblem(t, s.get(t, "/me", "Accept: application/json"), http.StatusUnauthorized, "token-missing")
}

func statusesRequestID(t *testing.T, s *site) {
	const forged = "01900000-0000-7000-8000-000000000000"
	a := s.get(t, "/open/id", caseHeader+": request-id", "X-Request-Id: "+forged)
	id := a.Header.Get("X-Request-Id")
	if !uuidV7.MatchString(id) || id == forged {
		t.Errorf("X-Request-Id %q, want a UUIDv7 of the gateway's own", id)
	}
	got := s.Spy.marked("request-id")
	if len(got) != 1 || !slices.Equal(got[0].get("X-Request-Id"), []string{id}) {
		t.Errorf("upstream got %v, want X-Request-Id %s once", got, id)
	}
	if e := awaitEvent(t, s.journal(), id); e.Status != http.StatusOK || e.Path != "/open/id" {
		t.Errorf("event has status %d and path %q", e.Status, e.Path)
	}
	refused := s.get(t, "/me")
	if e := awaitEvent(t, s.journal(), refused.Header.Get("X-Request-Id")); e.Status != http.StatusUnauthorized {
		t.Errorf("event has status %d, want 401", e.Status)
	}
}

var rateLimitPolicy = regexp.MustCompile(`(^|, ?)"burst";q=3;w=3600\b`)

func statusesLimited(t *testing.T, s *site) {
	for n := range 3 {
		if a := s.get(t, "/open/limited"); a.Status != http.StatusOK {
			t.Fatalf("request %d: status %d, want 200", n+1, a.Status)
		}
	}
	a := s.get(t, "/open/limited", caseHeader+": limited")
	p := wantProblem(t, a, http.StatusTooManyRequests, "rate-limited")
	if len(p.Violations) == 0 {
		t.Error("no violated-policies")
	}
	if n, err := strconv.Atoi(a.Header.Get("Retry-After")); err != nil || n < 1 || n > 1200 {
		t.Errorf("Retry-After %q, want 1 to 1200 seconds", a.Header.Get("Retry-After"))
	}
	if v := a.Header.Get("RateLimit-Policy"); !rateLimitPolicy.MatchString(v) {
		t.Errorf("RateLimit-Policy %q, want %s", v, rateLimitPolicy)
	}
	if v := a.Header.Get("RateLimit"); !strings.HasPrefix(v, `"burst";r=0;t=`) {
		t.Errorf(`RateLimit %q, want "burst";r=0;t=…`, v)
	}
	if len(s.Spy.marked("limited")) != 0 {
		t.Error("the request reached the upstream")
	}
	if a := s.get(t, "/open/other"); a.Status != http.StatusOK {
		t.Errorf("a path outside of the limit: status %d, want 200", a.Status)
	}
}

func statusesMethod(t *testing.T, s *site) {
	for _, method := range []string{"TRACE", "PROPFIND", "get", "Get"} {
		e := s.raw(t, rawRequest(method, "/open/a", s.Addr, caseHeader+": method "+method))
		wantProblem(t, e.answer, http.StatusMethodNotAllowed, "method-not-allowed")
		if !strings.Contains(e.Header.Get("Allow"), "GET") {
			t.Errorf("%s: Allow %q", method, e.Header.Get("Allow"))
		}
		if len(s.Spy.marked("method "+method)) != 0 {
			t.Errorf("%s reached the upstream", method)
		}
	}
}

func statusesHealth(t *testing.T, s *site) {
	c := newClient(t, "http://127.0.0.1:"+strconv.Itoa(s.Config.Metrics))
	for _, path := range []string{"/health/live", "/health/ready"} {
		if a := c.send(t, "GET", path, ""); a.Status != http.StatusOK {
			t.Errorf("%s: status %d, want 200\n%s", path, a.Status, a.Body)
		}
	}
	a := c.send(t, "GET", "/metrics", "")
	for _, name := range []string{"moat_requests_total", "moat_jwt_total", "moat_rbac_total", "moat_ratelimit_total", "moat_audit_events_total"} {
		if !strings.Contains(string(a.Body), "\n"+name+"{") {
			t.Errorf("metrics have no %s", name)
		}
	}
}

func TestDyingUpstreamIsNotARefusal(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{Upstream: deadAddress(t)}, nil)
	a := s.get(t, "/healthz")
	if a.Status != http.StatusBadGateway {
		t.Fatalf("status %d, want 502\n%s", a.Status, a.Body)
	}
	if id := a.Header.Get("X-Request-Id"); !uuidV7.MatchString(id) {
		t.Errorf("X-Request-Id %q", id)
	}
}
