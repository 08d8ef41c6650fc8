//go:build linux

package integration

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2/hpack"
)

// TestIntegrityUnusualButLegitimateTargetsPass sends what real clients send. Each
// arrives with the bytes it was sent with, over either protocol.
func TestIntegrityUnusualButLegitimateTargetsPass(t *testing.T) {
	t.Parallel()
	plain := startSite(t, siteConfig{Rules: integrityRules}, nil)
	secure := startSite(t, siteConfig{Rules: integrityRules, TLS: true}, nil)
	config, authority := clientTLS(t, secure.gateway), fmt.Sprintf("localhost:%d", secure.Config.Port)
	for i, target := range []string{
		"/open", "/open/", "/open/a/", "/open/caf%C3%A9", "/open/%E6%97%A5%E6%9C%AC/%F0%9F%A6%8A", "/open/~user/a_b-c.d", "/open/a%20b",
		"/open/a+b", "/open/a%2Bb", "/open/100%25", "/open/50%25/off", "/open/a:b@c", "/open/(x)!*'", "/open/[1]", "/open/%5B1%5D", "/open/a,b;c=d",
		"/open/?", "/open/a?", "/open/a??x=?", "/open/a?x=1&x=2&&y", "/open/a?q=caf%c3%a9", "/open/a?q=%zz&r=%", "/open/a?next=/a/../b",
		"/open/a?next=http%3a%2f%2fx%2f", "/open/a?a=b;c=d", "/open/a?%41=%7e", "/open/a?q=" + strings.Repeat("x", 8000),
		"/open/" + strings.Repeat("d/", 500) + "end", "/open/" + strings.Repeat("%C3%A9", 400), "/open/.well-known/x", "/open/a.b...c",
		"/open/%F0%9F%91%A8%E2%80%8D%F0%9F%91%A9", "/open/a?x={y}|z^`\"<>\\", "/open/a?/../..", "/open/$metadata", "/open/a=b&c",
	} {
		t.Run(fmt.Sprintf("%.60s", target), func(t *testing.T) {
			mark := fmt.Sprintf("pass-%d", i)
			for _, method := range []string{"GET", "HEAD", "OPTIONS"} {
				e := plain.raw(t, rawRequest(method, target, plain.Addr, caseHeader+": "+mark+method))
				if got := plain.Spy.marked(mark + method); e.Status != 200 || len(got) != 1 || got[0].Target != target || got[0].Method != method {
					t.Errorf("%s: status %d (%v), upstream got %+v", method, e.Status, e.Err, got)
				}
			}
			status := rawH2(t, secure.Addr, config, h2Fields("GET", target, authority, hpack.HeaderField{Name: strings.ToLower(caseHeader), Value: mark}))
			if got := secure.Spy.marked(mark); status != "200" || len(got) != 1 || got[0].Target != target {
				t.Errorf("HTTP/2: status %s, upstream got %+v", status, got)
			}
		})
	}
}

// TestIntegrityUploadsPass covers the ways in which a body may come.
func TestIntegrityUploadsPass(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{Rules: integrityRules}, nil)
	for name, c := range map[string]struct{ header, wire, body string }{
		"length":              {"Content-Length: 5", "hello", "hello"},
		"empty":               {"Content-Length: 0", "", ""},
		"chunked":             {"Transfer-Encoding: chunked", "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", "hello"},
		"chunked, extensions": {"Transfer-Encoding: chunked", "2;a=b\r\nhe\r\n3;\"q\"\r\nllo\r\n0;z\r\n\r\n", "hello"},
		"chunked, trailer":    {"Transfer-Encoding: chunked\r\nTrailer: X-Sum", "5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n", "hello"},
		"chunked, empty":      {"Transfer-Encoding: chunked", "0\r\n\r\n", ""},
		"continue":            {"Expect: 100-continue\r\nContent-Length: 5", "hello", "hello"},
		"continue, chunked":   {"Expect: 100-continue\r\nTransfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n", "hello"},
		"binary":              {"Content-Length: 8", "\x00\xff\r\n\r\n\x01G", "\x00\xff\r\n\r\n\x01G"},
	} {
		t.Run(name, func(t *testing.T) {
			mark := "upload " + name
			answer := untilClosed(t, s.Addr, "POST /open/up?x HTTP/1.1\r\nHost: "+s.Addr+"\r\n"+caseHeader+": "+mark+"\r\nConnection: close\r\n"+c.header+"\r\n\r\n"+c.wire)
			ok := strings.Contains(answer, "HTTP/1.1 200 ")
			if got := s.Spy.marked(mark); !ok || len(got) != 1 || string(got[0].Body) != c.body || got[0].Target != "/open/up?x" {
				t.Errorf("answer %q, upstream got %+v", answer, got)
			}
		})
	}
}

// untilClosed sends bytes and reads until the server closes, past interim
// answers.
func untilClosed(t *testing.T, addr, request string) string {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte(request)); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Fatalf("%v after %q", err, answer)
	}
	return string(answer)
}

// TestIntegrityHeadersCannotMoveARequest crosses the headers by which a client
// could change method, path, host or address with their spellings and values.
func TestIntegrityHeadersCannotMoveARequest(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{Rules: integrityRules, TLS: true}, nil)
	config, authority := clientTLS(t, s.gateway), fmt.Sprintf("localhost:%d", s.Config.Port)
	sent := 0
	for _, name := range overrides {
		for _, sep := range []string{"-", "_", "."} {
			for k, value := range []string{"/open/private/forged", "forged.test", "DELETE-forged"} {
				spelled := strings.NewReplacer("-", sep, "_", sep, ".", sep).Replace(name)
				mark := fmt.Sprintf("move-%d", sent)
				sent++
				line := spelled + ": " + value
				if k == 1 {
					line += "\r\nConnection: " + spelled
				}
				e := rawHTTP(t, s.Addr, []byte(rawRequest("GET", "/open/a", authority, line, caseHeader+": "+mark)), config)
				status := rawH2(t, s.Addr, config, h2Fields("GET", "/open/a", authority,
					hpack.HeaderField{Name: strings.ToLower(spelled), Value: value}, hpack.HeaderField{Name: strings.ToLower(caseHeader), Value: mark}))
				got := s.Spy.marked(mark)
				if e.Status/100 == 5 || strings.HasPrefix(status, "5") || len(got) == 0 {
					t.Errorf("%s: HTTP/1.1 %d (%v), HTTP/2 %s, %d upstream", line, e.Status, e.Err, status, len(got))
				}
				for _, r := range got {
					if strings.Contains(string(r.Head), "forged") || r.Method != "GET" || r.Target != "/open/a" {
						t.Errorf("%s arrived:\n%s", line, r.Head)
					}
				}
			}
		}
	}
	t.Logf("%d header tricks, each over HTTP/1.1 and HTTP/2", sent)
}
