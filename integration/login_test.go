//go:build linux

package integration

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

const navigation = "Accept: text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"

func TestPeopleAreSentToLogInAndScriptsAreTold(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{
		JWT:   "login_url /auth/login\nanonymous guest",
		Rules: siteRules + "\nGET /auth/login public",
	}, nil)
	expired := s.Issuer.token(t, map[string]any{"iat": time.Now().Add(-2 * time.Hour).Unix(), "exp": time.Now().Add(-time.Hour).Unix()})
	for _, row := range []struct {
		method, path string
		headers      []string
		status       int
		next         string
	}{
		{"GET", "/me", []string{navigation}, 303, "/me"},
		{"GET", "/me?a=1&b=%2F%2Fevil.test#x", []string{navigation, "Sec-Fetch-Mode: navigate"}, 303, "/me?a=1&b=%2F%2Fevil.test"},
		{"GET", "/me", []string{navigation, "Cookie: access_token=" + expired}, 303, "/me"},
		{"GET", "/me", []string{navigation, "Cookie: access_token=nonsense"}, 303, "/me"},
		{"GET", "/me?" + strings.Repeat("x", 3000), []string{navigation}, 303, ""},
		{"GET", "/me", nil, 401, ""},
		{"GET", "/me", []string{"Accept: application/json, text/html;q=0.5"}, 401, ""},
		{"GET", "/me", []string{navigation, "Sec-Fetch-Mode: cors"}, 401, ""},
		{"POST", "/reports", []string{navigation}, 401, ""},
		{"HEAD", "/me", []string{navigation}, 401, ""},
		{"GET", "/nowhere", []string{navigation}, 403, ""},
		{"GET", "/internal/x", []string{navigation, bearer(s.Issuer.as(t, "u", "user"))}, 403, ""},
		{"GET", "/me/../x", []string{navigation}, 400, ""},
		{"GET", "/auth/login", []string{navigation, "Cookie: access_token=" + expired}, 200, ""},
	} {
		path, _, _ := strings.Cut(row.path, "#")
		e := s.raw(t, rawRequest(row.method, path, s.Addr, row.headers...))
		if e.Status != row.status {
			t.Errorf("%s %.40s %q: status %d, want %d", row.method, row.path, row.headers, e.Status, row.status)
			continue
		}
		location := e.Header.Get("Location")
		want := ""
		if row.status == 303 {
			want = "/auth/login"
			if row.next != "" {
				want += "?next=" + url.QueryEscape(row.next)
			}
			if e.Header.Get("Cache-Control") != "no-store" || e.Header.Get("WWW-Authenticate") != "" || e.Header.Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("headers %v", e.Header)
			}
			ev := awaitEvent(t, s.journal(), e.Header.Get("X-Request-Id"))
			if ev.Outcome != "deny" || ev.Class != "security" || ev.Status != 303 || !strings.HasPrefix(fmt.Sprint(ev.Details["code"]), "token-") {
				t.Errorf("event %s", ev.Line)
			}
		}
		if location != want {
			t.Errorf("%s %.40s: Location %q, want %q", row.method, row.path, location, want)
		}
		if strings.Contains(fmt.Sprint(row.headers), expired) && row.status == 200 {
			// The application's own answer may be cached: it must log nobody out.
			if v := e.Header.Values("Set-Cookie"); len(v) != 0 {
				t.Errorf("%s: Set-Cookie %q", row.path, v)
			}
		} else if strings.Contains(fmt.Sprint(row.headers), expired) {
			if v := e.Header.Values("Set-Cookie"); len(v) != 1 || !strings.HasPrefix(v[0], "access_token=; Path=/;") {
				t.Errorf("%s %q: Set-Cookie %q", row.path, row.headers, v)
			}
		}
	}
}

func TestTheLoginPageMustBePublic(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	for name, row := range map[string]struct {
		jwt, rules, want string
	}{
		"needs somebody": {"login_url /login", siteRules + "\nGET /login authenticated", "must be public"},
		"no rule":        {"login_url /login", siteRules, "must be public"},
		"by a variable":  {"login_url {env.MOAT_LOGIN}", siteRules, "must be public"},
		"on a condition": {"login_url /login", siteRules + "\nGET /login public {\nwhen identity.known\n}", "without a condition"},
		"for POST only":  {"login_url /login", siteRules + "\nPOST /login public", "must be public"},
		"another site":   {"login_url https://id.test/login", siteRules, "on this site"},
		"good":           {"login_url /login?x=1", siteRules + "\n* /login public", ""},
	} {
		c := siteConfig{Port: 1, Upstream: "127.0.0.1:1", JWT: row.jwt, Rules: row.rules}
		h := newHome(t, c.render(i), map[string]string{"MOAT_JOURNAL": t.TempDir() + "/j", "MOAT_LOGIN": "/login"})
		out, exit := h.validate(t)
		if (exit == 0) != (row.want == "") || !strings.Contains(out, row.want) {
			t.Errorf("%s: exit %d\n%s", name, exit, lastLines(out, 3))
		}
	}
}

func TestTwoCookiesOfTheNameAreRefusedAndCleared(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{}, nil)
	good := s.Issuer.as(t, "u-1", "user")
	e := s.raw(t, rawRequest("GET", "/me", s.Addr, "Cookie: access_token="+good+"; access_token="+good))
	wantProblem(t, e.answer, 400, "bad-request")
	cleared := e.lines("Set-Cookie")
	for _, path := range []string{"/", "/me"} {
		if !slices.ContainsFunc(cleared, func(c string) bool { return strings.HasPrefix(c, "access_token=; Path="+path+"; Max-Age=0") }) {
			t.Errorf("not cleared at %s: %q", path, cleared)
		}
	}
	// A good one, or one that may be somebody else's, stays.
	foreign := newIssuer(t) // Another key and another iss.
	for name, cookie := range map[string]string{
		"of a foreign application": foreign.token(t, map[string]any{"iss": "https://other.test"}),
		"good":                     good, "of another issuer": s.Issuer.token(t, map[string]any{"iss": "https://other.test"}), "not a token": "abc",
	} {
		if v := s.get(t, "/me", "Cookie: access_token="+cookie).Header.Values("Set-Cookie"); len(v) != 0 {
			t.Errorf("%s: cleared: %q", name, v)
		}
	}
}

// TestTheNextPageIsOnThisSite lets empty segments pass, so that a path can look
// like another host to a browser.
func TestTheNextPageIsOnThisSite(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{
		Gate: "insecure_allow_empty_segments", JWT: "login_url /auth/login",
		Rules: "\n* /** authenticated\nGET /auth/login public",
	}, nil)
	for target, want := range map[string]string{"//evil.test/x": "/auth/login", "///evil.test": "/auth/login", "/a//b": "/auth/login?next=%2Fa%2F%2Fb"} {
		e := s.raw(t, rawRequest("GET", target, s.Addr, navigation))
		if got := e.Header.Get("Location"); e.Status != 303 || got != want {
			t.Errorf("%s: status %d, Location %q, want %q", target, e.Status, got, want)
		}
	}
}

func TestAKeptCookieIsNotCleared(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{JWT: "from cookie kept {\nkeep\n}\nfrom cookie scoped {\ndomain example.test\npath /me\n}"}, nil)
	expired := s.Issuer.token(t, map[string]any{"iat": time.Now().Add(-2 * time.Hour).Unix(), "exp": time.Now().Add(-time.Hour).Unix()})
	if v := s.get(t, "/me", "Cookie: kept="+expired).Header.Values("Set-Cookie"); len(v) != 0 {
		t.Errorf("%q", v)
	}
	v := s.get(t, "/me", "Cookie: scoped="+expired).Header.Values("Set-Cookie")
	if len(v) != 2 || !strings.Contains(v[0], "Path=/me; Max-Age=0") || !strings.Contains(v[1], "Path=/me; Domain=example.test; Max-Age=0") {
		t.Errorf("%q", v)
	}
}

// TestIssuerBounds drives the words of an issuer that bound what a token may be.
func TestIssuerBounds(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{Issuers: "main strict", Global: `
		issuer strict {
			iss https://strict.test
			audience ` + audience + `
			key KEYFILE
			azp web app
			max_token 900
			max_header 100
			ignore_headers x5t
		}`}, nil)
	base := map[string]any{"iss": "https://strict.test", "azp": "web"}
	with := func(change map[string]any) map[string]any {
		out := map[string]any{}
		for k, v := range base {
			out[k] = v
		}
		for k, v := range change {
			out[k] = v
		}
		return out
	}
	for name, row := range map[string]struct {
		claims map[string]any
		status int
		reason string
	}{
		"good":         {with(nil), 200, ""},
		"another azp":  {with(map[string]any{"azp": "other"}), 401, "jwt.azp-mismatch"},
		"a long token": {with(map[string]any{"note": strings.Repeat("x", 800)}), 401, "jwt.too-large"},
	} {
		a := s.get(t, "/me", bearer(s.Issuer.token(t, row.claims)))
		ev := awaitEvent(t, s.journal(), a.Header.Get("X-Request-Id"))
		if a.Status != row.status || row.reason != "" && ev.Reason != row.reason {
			t.Errorf("%s: status %d, reason %s", name, a.Status, ev.Reason)
		}
	}
}
