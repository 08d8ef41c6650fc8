//go:build linux

package integration

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// errorPages is the site's handle_errors that fetches its pages from an upstream.
func errorPages(pages *spy) string {
	return fmt.Sprintf("\thandle_errors {\n\t\treverse_proxy %s {\n\t\t\ttransport moat\n\t\t}\n\t}", pages.Addr)
}

// startWithPages starts a site whose errors are answered by an upstream of their
// own.
func startWithPages(t *testing.T, c siteConfig) (*site, *spy) {
	t.Helper()
	pages := startSpy(t)
	c.Site += "\n" + errorPages(pages)
	return startSite(t, c, nil), pages
}

// onlyPage returns the one request for the page of the marked request.
func onlyPage(t *testing.T, pages *spy, mark string, e exchange) recorded {
	t.Helper()
	got := pages.marked(mark)
	if len(got) != 1 {
		t.Fatalf("status %d (%v), %d requests for the page, want one", e.Status, e.Err, len(got))
	}
	return got[0]
}

// TestHardeningErrorPagesNeverBecomeTunnels refuses a request that asks for
// another protocol: the proxy of the error page must neither pass the wish on nor
// splice the connections when that upstream agrees to it. A tunnel would carry
// the caller's next bytes past the gate.
func TestHardeningErrorPagesNeverBecomeTunnels(t *testing.T) {
	t.Parallel()
	s, pages := startWithPages(t, siteConfig{})
	pages.respond(func(recorded) []byte {
		return []byte("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
	})
	const smuggled = "GET /internal/tunnelled HTTP/1.1\r\nHost: x\r\n\r\n"
	for name, c := range map[string]struct{ target, upgrade string }{
		"h2c, not canonical": {"/open//b", "h2c"},
		"h2c, no token":      {"/me", "h2c"},
		"websocket":          {"/me", "websocket"},
		"another word":       {"/me", "anything/1"},
	} {
		t.Run(name, func(t *testing.T) {
			mark := "tunnel " + name
			e := s.raw(t, "GET "+c.target+" HTTP/1.1\r\nHost: "+s.Addr+"\r\n"+caseHeader+": "+mark+
				"\r\nUpgrade: "+c.upgrade+"\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"+
				"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"+smuggled)
			if e.Status == 101 || e.Status < 400 {
				t.Errorf("status %d, want a refusal", e.Status)
			}
			for _, r := range pages.marked(mark) {
				if v := r.get("Upgrade"); len(v) != 0 {
					t.Errorf("the page's upstream got Upgrade %q", v)
				}
				for _, v := range r.get("Connection") {
					if !strings.EqualFold(v, "close") {
						t.Errorf("the page's upstream got Connection %q", v)
					}
				}
				if v := r.get("HTTP2-Settings"); len(v) != 0 {
					t.Errorf("the page's upstream got HTTP2-Settings %q", v)
				}
			}
		})
	}
	if len(pages.requests()) == 0 {
		t.Error("no page was fetched at all; the test proves nothing")
	}
	// A canonical target of the smuggled request may be answered as a request of
	// its own, after its own judgement, but never reach an upstream.
	for _, r := range append(pages.requests(), s.Spy.requests()...) {
		if r.Target == "/internal/tunnelled" && len(r.get("X-Request-Id")) == 0 {
			t.Errorf("bytes went through a tunnel:\n%s", r.Head)
		}
	}
}

// TestHardeningErrorPagesGetCanonicalTargetsOnly sends targets that some servers
// read another way. The error upstream must not be the way around the refusal.
func TestHardeningErrorPagesGetCanonicalTargetsOnly(t *testing.T) {
	t.Parallel()
	s, pages := startWithPages(t, siteConfig{})
	for i, target := range []string{
		"http:internal/secret", "x:%2Finternal%2Fsecret", "/open//internal/secret", "//internal/secret",
		"/open/../internal/secret", "/open/%2e%2e/internal/secret", "/open/..;/internal/secret",
		"/open%2Finternal/secret", "/open/%5Cinternal/secret", "/open/%252e%252e/internal/secret",
		"/open/%00/internal/secret",
	} {
		t.Run(target, func(t *testing.T) {
			mark := fmt.Sprintf("target-%d", i)
			e := s.raw(t, rawRequest("GET", target, s.Addr, caseHeader+": "+mark))
			if e.Err == nil && e.Status != 400 && e.Status != 403 {
				t.Errorf("status %d, want 400 or 403", e.Status)
			}
			for _, r := range append(pages.marked(mark), s.Spy.marked(mark)...) {
				t.Errorf("an upstream got %q", r.Target)
			}
		})
	}
	e := s.raw(t, rawRequest("GET", "/me", s.Addr, caseHeader+": canonical"))
	if r := onlyPage(t, pages, "canonical", e); r.Target != "/me" {
		t.Errorf("the page of a canonical target: %q", r.Target)
	}
}

// withCredentials are header lines that an error upstream must not see. Every
// value holds the word planted.
func withCredentials(mark string) []string {
	lines := []string{
		caseHeader + ": " + mark, "Cookie: session=planted; access_token=planted", "X-Access-Token: planted",
		"X_Access_Token: planted", "X-User-Id: planted", "X_User_Id: planted", "x.tenant.id: planted", "X-Roles: planted",
	}
	for _, name := range overrides {
		lines = append(lines, name+": planted")
	}
	return lines
}

// TestHardeningErrorPagesSeeNoCredentials has requests fail at every station. The
// error upstream may be the guarded application, so it must get nothing that it
// could take for a caller, a method, a target or an address, not even what was
// verified: an error page is nobody's request.
func TestHardeningErrorPagesSeeNoCredentials(t *testing.T) {
	t.Parallel()
	dead := deadAddress(t)
	s, pages := startWithPages(t, siteConfig{
		JWT:   "\t\t\tfrom header X-Access-Token",
		Rules: siteRules + "\n\t\t\tGET /dead/** authenticated",
		Site:  "\thandle /dead/* {\n\t\treverse_proxy " + dead + " {\n\t\t\ttransport moat\n\t\t}\n\t}",
	})
	good := s.Issuer.as(t, "u-1", "user")
	signature := good[strings.LastIndex(good, ".")+1:]
	for name, c := range map[string]struct {
		line   string // method and path
		header []string
	}{
		"no token at all":             {"GET /me", []string{caseHeader + ": no token at all", "X-User-Id: planted", "X_User_Id: planted"}},
		"a bad cookie":                {"GET /me", withCredentials("a bad cookie")},
		"a bad bearer":                {"GET /me", append(withCredentials("a bad bearer")[:1], bearer("planted"), "X-Rewrite-URL: planted")},
		"another scheme":              {"GET /me", []string{caseHeader + ": another scheme", "Authorization: Basic planted", "Forwarded: for=planted"}},
		"a verified bearer, no rule":  {"GET /nowhere", []string{caseHeader + ": a verified bearer, no rule", bearer(good), "X-Real-IP: planted"}},
		"a verified cookie, denied":   {"GET /internal/x", []string{caseHeader + ": a verified cookie, denied", "Cookie: access_token=" + good}},
		"a verified header, no rule":  {"GET /nowhere", []string{caseHeader + ": a verified header, no rule", "X-Access-Token: " + good}},
		"verified, dead upstream":     {"GET /dead/x", []string{caseHeader + ": verified, dead upstream", bearer(good), "X-User-Id: planted"}},
		"token header, dead upstream": {"GET /dead/x", []string{caseHeader + ": token header, dead upstream", "X-Access-Token: " + good}},
		"refused by the guard":        {"PROPFIND /open/a", append(withCredentials("refused by the guard"), "Authorization: Basic planted")},
		"token and all, no rule":      {"POST /nowhere", append(withCredentials("token and all, no rule"), bearer(good))},
	} {
		t.Run(name, func(t *testing.T) {
			method, path, _ := strings.Cut(c.line, " ")
			e := s.raw(t, rawRequest(method, path, s.Addr, c.header...))
			r := onlyPage(t, pages, name, e)
			head := string(r.Head)
			if strings.Contains(head, "planted") || strings.Contains(head, signature) {
				t.Errorf("the page's upstream got\n%s", head)
			}
			checkIdentity(t, r, nil)
			for _, name := range []string{"authorization", "cookie", "x-access-token"} {
				if v := r.values(func(n string) bool { return folded(n) == name }); len(v) != 0 {
					t.Errorf("%s = %q", name, v)
				}
			}
			if n := len(s.Spy.marked(name)); n != 0 {
				t.Errorf("%d requests reached the application", n)
			}
		})
	}
}

// TestHardeningErrorPagesAreFetchedWithoutBody refuses writes: the error upstream
// must not execute them.
func TestHardeningErrorPagesAreFetchedWithoutBody(t *testing.T) {
	t.Parallel()
	s, pages := startWithPages(t, siteConfig{})
	for name, c := range map[string]struct{ request, method string }{
		"POST with a length": {"POST /reports HTTP/1.1\r\nContent-Length: 7\r\nContent-Type: text/plain\r\n%s\r\nplanted", "GET"},
		"POST in chunks":     {"POST /reports HTTP/1.1\r\nTransfer-Encoding: chunked\r\n%s\r\n7\r\nplanted\r\n0\r\n\r\n", "GET"},
		"PUT":                {"PUT /nowhere HTTP/1.1\r\nContent-Length: 7\r\n%s\r\nplanted", "GET"},
		"DELETE":             {"DELETE /nowhere HTTP/1.1\r\n%s\r\n", "GET"},
		"outside the list":   {"PROPFIND /open/a HTTP/1.1\r\nContent-Length: 7\r\n%s\r\nplanted", "GET"},
		"HEAD":               {"HEAD /me HTTP/1.1\r\n%s\r\n", "HEAD"},
	} {
		t.Run(name, func(t *testing.T) {
			more := "Host: " + s.Addr + "\r\n" + caseHeader + ": " + name + "\r\nConnection: close\r\n"
			e := s.raw(t, fmt.Sprintf(c.request, more))
			r := onlyPage(t, pages, name, e)
			if r.Method != c.method || len(r.Body) != 0 || strings.Contains(string(r.Head), "planted") {
				t.Errorf("method %q, want %q; body %q, want none", r.Method, c.method, r.Body)
			}
			for _, name := range []string{"Content-Length", "Content-Type", "Transfer-Encoding", "Trailer", "Expect"} {
				if v := r.get(name); len(v) != 0 && v[0] != "0" {
					t.Errorf("%s = %q, want none", name, v)
				}
			}
		})
	}
}

// TestHardeningErrorPagesHaveEachSecurityHeaderOnce has the error upstream send
// weak copies of every security header. Its status is the answer's, as Caddy has
// it for a proxy; the event remains a refusal whatever the page says.
func TestHardeningErrorPagesHaveEachSecurityHeaderOnce(t *testing.T) {
	t.Parallel()
	s, pages := startWithPages(t, siteConfig{})
	for _, status := range []int{200, 401, 404, 503} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			pages.respond(func(recorded) []byte { return careless(status) })
			e := s.raw(t, rawRequest("GET", "/me", s.Addr))
			if e.Status != status || string(e.Body) != "hello" {
				t.Fatalf("status %d, body %q; want the page of the error upstream", e.Status, e.Body)
			}
			wantOneOfEach(t, e, htmlHeaders)
			if ids := e.lines("X-Request-Id"); len(ids) != 1 || !uuidV7.MatchString(ids[0]) {
				t.Errorf("X-Request-Id %q, want one", ids)
			}
			for _, name := range []string{"Server", "X-Powered-By", "Via", "Strict-Transport-Security"} {
				if v := e.lines(name); slices.ContainsFunc(v, func(v string) bool { return strings.Contains(v, "leaky") }) {
					t.Errorf("%s = %q", name, v)
				}
			}
			if ev := awaitEvent(t, s.journal(), e.Header.Get("X-Request-Id")); ev.Outcome != "deny" || ev.Class != "security" {
				t.Errorf("event %s, want a refusal", ev.Line)
			}
		})
	}
}
