//go:build linux

package integration

import (
	"crypto/tls"
	"fmt"
	"strconv"
	"strings"
	"testing"
)

// htmlHeaders are those of the html preset on a plain connection.
var htmlHeaders = []string{
	"Content-Security-Policy", "X-Content-Type-Options", "X-Frame-Options", "Referrer-Policy",
	"Permissions-Policy", "Cross-Origin-Opener-Policy", "Cross-Origin-Resource-Policy",
	"Origin-Agent-Cluster", "X-Permitted-Cross-Domain-Policies",
}

// careless is an upstream answer with two weak values of each header.
func careless(status int) []byte {
	var lines []string
	for _, name := range append([]string{"Strict-Transport-Security"}, htmlHeaders...) {
		lines = append(lines, name+": weak-one", strings.ToLower(name)+": weak-two")
	}
	return rawAnswer(status, "hello", append(lines, "Server: leaky/1.0", "X-Powered-By: leaky")...)
}

// wantOneOfEach checks the answer as it stood on the wire.
func wantOneOfEach(t *testing.T, e exchange, names []string) {
	t.Helper()
	for _, name := range names {
		values := e.lines(name)
		if len(values) != 1 || values[0] == "" || strings.Contains(values[0], "weak") {
			t.Errorf("%s = %q, want one value, the gateway's", name, values)
		}
	}
}

func TestEveryAnswerHasEachSecurityHeaderOnce(t *testing.T) {
	t.Parallel()
	const page = "\thandle_errors 404 {\n\t\trespond \"my own page\" 404\n\t}"
	s := startSite(t, siteConfig{
		Gate: "limit one 1/1h by ip {\n on GET /open/limited\n}",
		Site: "\thandle /open/missing {\n\t\terror 404\n\t}\n" + page,
	}, nil)
	s.Spy.respond(func(r recorded) []byte {
		status, err := strconv.Atoi(r.Target[strings.LastIndex(r.Target, "/")+1:])
		if err != nil {
			status = 200
		}
		return careless(status)
	})
	for name, c := range map[string]struct {
		method, path string
		status       int
	}{
		"upstream 200":         {"GET", "/open/200", 200},
		"upstream 404":         {"GET", "/open/404", 404},
		"upstream 500":         {"GET", "/open/500", 500},
		"upstream 503":         {"GET", "/open/503", 503},
		"HEAD":                 {"HEAD", "/open/200", 200},
		"refused 400":          {"GET", "/open//a", 400},
		"refused 401":          {"GET", "/me", 401},
		"refused 403":          {"GET", "/nowhere", 403},
		"refused 405":          {"TRACE", "/open/a", 405},
		"the site's own error": {"GET", "/open/missing", 404},
	} {
		t.Run(name, func(t *testing.T) {
			var header []string
			if c.status == 403 {
				header = []string{bearer(s.Issuer.as(t, "u-1", "user"))}
			}
			e := s.raw(t, rawRequest(c.method, c.path, s.Addr, header...))
			if e.Status != c.status {
				t.Fatalf("status %d, want %d\n%s", e.Status, c.status, e.Bytes)
			}
			wantOneOfEach(t, e, htmlHeaders)
			// Over a plain connection there is none of ours, and of an upstream none with two.
			if v := e.lines("Strict-Transport-Security"); len(v) != 0 {
				t.Errorf("Strict-Transport-Security = %q", v)
			}
			for _, leak := range []string{"Server", "X-Powered-By", "Via"} {
				if v := e.lines(leak); len(v) != 0 {
					t.Errorf("%s = %q, want none", leak, v)
				}
			}
			if name == "the site's own error" && string(e.Body) != "my own page" {
				t.Errorf("body %q, want the page of handle_errors", e.Body)
			}
		})
	}
	t.Run("refused 429", func(t *testing.T) {
		s.raw(t, rawRequest("GET", "/open/limited", s.Addr))
		e := s.raw(t, rawRequest("GET", "/open/limited", s.Addr))
		wantProblem(t, e.answer, 429, "rate-limited")
		wantOneOfEach(t, e, htmlHeaders)
	})
}

func TestHandleErrorsMayRestyleARefusal(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{
		Site: "\thandle_errors 403 {\n\t\trespond \"not for you\" 403\n\t}",
	}, nil)
	e := s.raw(t, rawRequest("GET", "/nowhere", s.Addr, bearer(s.Issuer.as(t, "u-1", "user"))))
	if e.Status != 403 || string(e.Body) != "not for you" {
		t.Errorf("status %d, body %q; want the user's page", e.Status, e.Body)
	}
	wantOneOfEach(t, e, htmlHeaders)
	e = s.raw(t, rawRequest("GET", "/me", s.Addr))
	wantProblem(t, e.answer, 401, "token-missing")
	wantOneOfEach(t, e, htmlHeaders)
}

func TestUnreachableUpstreamHasSecurityHeaders(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{Upstream: deadAddress(t)}, nil)
	e := s.raw(t, rawRequest("GET", "/open/a", s.Addr))
	if e.Status != 502 {
		t.Fatalf("status %d, want 502", e.Status)
	}
	wantOneOfEach(t, e, htmlHeaders)
}

func TestTransportSecurityOnEncryptedAnswersOnly(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{TLS: true, Headers: "headers api"}, nil)
	s.Spy.respond(func(recorded) []byte { return careless(200) })
	config := clientTLS(t, s.gateway)
	host := fmt.Sprintf("localhost:%d", s.Config.Port)
	api := []string{
		"Strict-Transport-Security", "Content-Security-Policy", "X-Content-Type-Options", "X-Frame-Options",
		"Referrer-Policy", "Cross-Origin-Resource-Policy", "Cache-Control",
	}
	for path, status := range map[string]int{"/open/a": 200, "/me": 401, "/open//a": 400} {
		e := rawHTTP(t, s.Addr, []byte(rawRequest("GET", path, host)), config)
		if e.Status != status {
			t.Fatalf("%s: status %d (%v), want %d", path, e.Status, e.Err, status)
		}
		wantOneOfEach(t, e, api)
		if v := e.lines("Content-Security-Policy"); len(v) == 1 && v[0] != "default-src 'none'; frame-ancestors 'none'" {
			t.Errorf("Content-Security-Policy = %q", v[0])
		}
	}
	old := config.Clone()
	old.MaxVersion = tls.VersionTLS12
	if e := rawHTTP(t, s.Addr, []byte(rawRequest("GET", "/open/a", host)), old); e.Err == nil {
		t.Errorf("a TLS 1.2 client got status %d", e.Status)
	}
	if e := rawHTTP(t, s.Addr, []byte(rawRequest("GET", "/open/a", "other.test")), config); e.Status != 421 {
		t.Errorf("another host on this connection: status %d, want 421", e.Status)
	}
}
