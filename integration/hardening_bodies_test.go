//go:build linux

package integration

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// chunked spells a request whose body comes in one chunk, with a trailer section
// as given.
func chunked(target, host, mark, body, trailer string, header ...string) string {
	lines := append([]string{"Host: " + host, caseHeader + ": " + mark, "Transfer-Encoding: chunked", "Connection: close"}, header...)
	return fmt.Sprintf("POST %s HTTP/1.1\r\n%s\r\n\r\n%x\r\n%s\r\n0\r\n%s\r\n",
		target, strings.Join(lines, "\r\n"), len(body), body, trailer)
}

// TestHardeningTrailersCannotPretend lets trailers through where a rule asks for
// them. Some servers merge trailers into headers, so a name that no caller may
// send must not come back by that way, declared or not, in any spelling.
func TestHardeningTrailersCannotPretend(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{Rules: "\nPOST /open/with public {\ntrailers\n}\nPOST /open/without public"}, nil)
	for name, c := range map[string]struct{ target, declared, trailer, want string }{
		"harmless":                 {"/open/with", "X-Checksum", "X-Checksum: c1\r\n", "X-Checksum: c1\r\n"},
		"identity, declared":       {"/open/with", "X-Checksum, X-User-Id", "X-Checksum: c1\r\nX-User-Id: forged\r\n", "X-Checksum: c1\r\n"},
		"override, declared":       {"/open/with", "X-Checksum, X-User-Id, X-Rewrite-Url", "X-Checksum: c1\r\nX-Rewrite-Url: forged\r\n", "X-Checksum: c1\r\n"},
		"identity, not declared":   {"/open/with", "X-Checksum", "X_User_Id: forged\r\nX-Checksum: c1\r\n", "X-Checksum: c1\r\n"},
		"underscores, declared":    {"/open/with", "X-Checksum, X_User_Id", "X_User_Id: forged\r\nX-Checksum: c1\r\n", "X-Checksum: c1\r\n"},
		"harmless, not declared":   {"/open/with", "X-Checksum", "X-Other: forged\r\nX-Checksum: c1\r\n", "X-Checksum: c1\r\n"},
		"address, declared":        {"/open/with", "X-Checksum, X-Forwarded-For, Forwarded", "X-Forwarded-For: forged\r\nForwarded: forged\r\nX-Checksum: c1\r\n", "X-Checksum: c1\r\n"},
		"a rule without the word":  {"/open/without", "X-Checksum", "X-Checksum: forged\r\n", ""},
		"nothing declared":         {"/open/with", "", "X-User-Id: forged\r\nX-Rewrite-Url: forged\r\n", ""},
		"only names nobody may":    {"/open/with", "X-User-Id, X-Roles", "X-User-Id: forged\r\nX-Roles: forged\r\n", ""},
		"no rule's word, override": {"/open/without", "X-Http-Method-Override", "X-Http-Method-Override: forged\r\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var header []string
			if c.declared != "" {
				header = append(header, "Trailer: "+c.declared)
			}
			e := s.raw(t, chunked(c.target, s.Addr, "trailer "+name, "abc", c.trailer, header...))
			got := s.Spy.marked("trailer " + name)
			if len(got) != 1 || string(got[0].Body) != "abc" {
				t.Fatalf("status %d (%v), upstream got %v; want the body once", e.Status, e.Err, got)
			}
			if string(got[0].Tail) != c.want {
				t.Errorf("trailers %q, want %q", got[0].Tail, c.want)
			}
			checkIdentity(t, got[0], nil)
			for _, v := range got[0].get("Trailer") {
				if !strings.EqualFold(v, "X-Checksum") {
					t.Errorf("Trailer: %q announces what does not come", v)
				}
			}
		})
	}
}

// TestHardeningBodyOverItsCapIsARefusal sends bodies whose length nobody told
// before. Refused half-way, they must be a 413 with its event, not the 502 of a
// proxy that could not read on, and the application must never see a whole
// request.
func TestHardeningBodyOverItsCapIsARefusal(t *testing.T) {
	t.Parallel()
	plain := startSite(t, siteConfig{Gate: "max_body 1KB"}, nil)
	secure := startSite(t, siteConfig{Gate: "max_body 1KB", TLS: true}, nil)
	big, fits := strings.Repeat("a", 5000), strings.Repeat("b", 1000)
	t.Run("HTTP/1.1 chunked", func(t *testing.T) {
		e := plain.raw(t, chunked("/open/a", plain.Addr, "over", big, ""))
		wantTooLarge(t, plain, e.answer, "over")
		e = plain.raw(t, chunked("/open/a", plain.Addr, "fits", fits, ""))
		wantWhole(t, plain, e.answer, "fits", fits)
	})
	t.Run("HTTP/2 without a length", func(t *testing.T) {
		a := sendUnmeasured(t, secure, "/open/a", big, "over")
		if a.Proto != "HTTP/2.0" {
			t.Fatalf("protocol %s", a.Proto)
		}
		wantTooLarge(t, secure, a, "over")
		wantWhole(t, secure, sendUnmeasured(t, secure, "/open/a", fits, "fits"), "fits", fits)
	})
}

// sendUnmeasured posts a body without telling its length.
func sendUnmeasured(t *testing.T, s *site, path, body, mark string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "POST", s.web.Base+path, io.MultiReader(strings.NewReader(body)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set(caseHeader, mark)
	res, err := s.web.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{Status: res.StatusCode, Proto: res.Proto, Header: res.Header, Body: data}
}

func wantTooLarge(t *testing.T, s *site, a answer, mark string) {
	t.Helper()
	wantProblem(t, a, 413, "content-too-large")
	if n := len(s.Spy.marked(mark)); n != 0 {
		t.Errorf("the upstream got %d whole requests", n)
	}
	e := awaitEvent(t, s.journal(), a.Header.Get("X-Request-Id"))
	if e.Outcome != "deny" || e.Reason != "guard.body-too-large" || e.Status != 413 || e.Class != "security" {
		t.Errorf("event %s; want deny, guard.body-too-large, 413", e.Line)
	}
}

func wantWhole(t *testing.T, s *site, a answer, mark, body string) {
	t.Helper()
	got := s.Spy.marked(mark)
	if a.Status != 200 || len(got) != 1 || string(got[0].Body) != body {
		t.Errorf("a body of exactly the cap: status %d, %d requests upstream; want 200 and one\n%s", a.Status, len(got), a.Body)
	}
}

// TestHardeningDeclaredLengthOverTheCapOpensNothing tells its length: not even a
// connection to the application may be opened for it.
func TestHardeningDeclaredLengthOverTheCapOpensNothing(t *testing.T) {
	t.Parallel()
	remote := startCounting(t)
	s := startSite(t, siteConfig{Gate: "max_body 1KB", Upstream: remote.Addr}, nil)
	a := s.send(t, "POST", "/open/a", strings.Repeat("a", 1001))
	wantProblem(t, a, 413, "content-too-large")
	if e := awaitEvent(t, s.journal(), a.Header.Get("X-Request-Id")); e.Outcome != "deny" || e.Reason != "guard.body-too-large" {
		t.Errorf("event %s; want deny, guard.body-too-large", e.Line)
	}
	if n := remote.accepted(); n != 0 {
		t.Errorf("%d connections to the upstream", n)
	}
	if a := s.send(t, "POST", "/open/a", "small"); a.Status != 502 || remote.accepted() == 0 {
		t.Errorf("status %d, %d connections: the control did not reach the upstream", a.Status, remote.accepted())
	}
}

// TestHardeningCutAnswerStaysCut has the application die in the middle of its
// answer. A problem document there would be taken for part of the content, and a
// clean end for all of it.
func TestHardeningCutAnswerStaysCut(t *testing.T) {
	t.Parallel()
	s, pages := startWithPages(t, siteConfig{})
	const part = "the first part of the answer"
	s.Spy.respond(func(r recorded) []byte {
		switch r.Target {
		case "/open/length":
			return []byte("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 9000\r\n\r\n" + part)
		case "/open/chunked":
			return fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", len(part), part)
		default:
			return []byte(plainOK)
		}
	})
	for _, path := range []string{"/open/length", "/open/chunked"} {
		t.Run(path, func(t *testing.T) {
			e := s.raw(t, rawRequest("GET", path, s.Addr))
			if e.Status != 200 || e.Err == nil {
				t.Fatalf("status %d, error %v; want 200 and a cut answer\n%s", e.Status, e.Err, e.Bytes)
			}
			for _, foreign := range []string{"urn:moat", "about:blank", "problem+json", "requestId", "<!doctype"} {
				if bytes.Contains(e.Bytes, []byte(foreign)) {
					t.Errorf("%q stands in the answer\n%s", foreign, e.Bytes)
				}
			}
			if !strings.HasPrefix(part, string(e.Body)) {
				t.Errorf("body %q, want a prefix of what the application sent", e.Body)
			}
			ev := awaitEvent(t, s.journal(), e.Header.Get("X-Request-Id"))
			if ev.Outcome != "aborted" {
				t.Errorf("event %s, want outcome aborted", ev.Line)
			}
		})
	}
	if n := len(pages.requests()); n != 0 {
		t.Errorf("%d error pages were fetched for answers that had begun", n)
	}
}
