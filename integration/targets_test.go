//go:build linux

package integration

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http2/hpack"
)

// refusedTargets are request lines that no rule of the test site allows in the
// form an upstream might read them. A status of 0 leaves the answer open: those
// are refused or routed elsewhere before a gate sees them.
var refusedTargets = []struct {
	name, method, target string
	status               int
}{
	{"opaque", "GET", "http:private/x", 400},
	{"opaque, encoded", "GET", "x:%2Fprivate", 400},
	{"foreign absolute", "GET", "http://evil.test/open/a", 0},
	{"absolute with userinfo", "GET", "http://u:p@{addr}/open/a", 400},
	{"absolute without a path", "GET", "http://{addr}", 400},
	{"authority form", "GET", "{addr}", 400},
	{"no slash", "GET", "open/a", 400},
	{"dot segment", "GET", "/open/../private/x", 400},
	{"one dot", "GET", "/open/./a", 400},
	{"final dots", "GET", "/open/..", 400},
	{"encoded dots", "GET", "/open/%2e%2e/private", 400},
	{"half encoded dots", "GET", "/open/%2E./private", 400},
	{"other half", "GET", "/open/.%2e/private", 400},
	{"encoded single dot", "GET", "/open/%2e/a", 400},
	{"dots and encoded slash", "GET", "/open/..%2fprivate", 400},
	{"everything encoded", "GET", "/open/%2e%2e%2fprivate", 400},
	{"path parameter after dots", "GET", "/open/..;/private", 400},
	{"named parameter after dots", "GET", "/open/..;x=1/private", 400},
	{"encoded dots and parameter", "GET", "/open/%2e%2e;/private", 400},
	{"dots and encoded semicolon", "GET", "/open/..%3b/private", 400},
	{"single dot and parameter", "GET", "/open/.;/private", 400},
	{"leading double slash", "GET", "//open/a", 400},
	{"inner double slash", "GET", "/open//a", 400},
	{"final double slash", "GET", "/open/a//", 400},
	{"encoded slash", "GET", "/open/a%2fb", 400},
	{"encoded slash, upper", "GET", "/open/a%2Fb", 400},
	{"encoded slash for a rule", "GET", "/open%2fa", 400},
	{"backslash", "GET", `/open/..\private`, 400},
	{"encoded backslash", "GET", "/open/..%5cprivate", 400},
	{"encoded backslash, upper", "GET", "/open/a%5Cb", 400},
	{"double encoding", "GET", "/open/%252e%252e/private", 400},
	{"double encoded letter", "GET", "/open/%2561", 400},
	{"double encoded slash", "GET", "/open/a%252fb", 400},
	{"NUL", "GET", "/open/a%00", 400},
	{"encoded line end", "GET", "/open/a%0d%0aX-User-Id:%20root", 400},
	{"unit separator", "GET", "/open/a%1f", 400},
	{"DEL", "GET", "/open/a%7f", 400},
	{"raw control byte", "GET", "/open/a\x01", 400},
	{"raw DEL", "GET", "/open/a\x7f", 400},
	{"raw space", "GET", "/open/a b", 400},
	{"raw 8 bit", "GET", "/open/caf\xc3\xa9", 400},
	{"broken escape", "GET", "/open/%zz", 400},
	{"cut escape", "GET", "/open/%4", 400},
	{"bad UTF-8", "GET", "/open/%ff", 400},
	{"overlong dots", "GET", "/open/%c0%ae%c0%ae/private", 400},
	{"fragment", "GET", "/open/a#b", 400},
	{"asterisk", "GET", "*", 400},
	{"asterisk by OPTIONS", "OPTIONS", "*", 0},
	{"CONNECT", "CONNECT", "{addr}", 0},
	{"CONNECT with a path", "CONNECT", "/open/a", 405},
	{"no token in the method", "G(T", "/open/a", 400},
	{"path too long", "GET", "/open/" + strings.Repeat("a", 9000), 414},
	{"query too long", "GET", "/open/a?" + strings.Repeat("a", 9000), 414},
	{"other case", "GET", "/OPEN/a", 401},
	{"deny rule", "GET", "/internal/x", 401},
	{"no rule", "GET", "/private/x", 401},
	{"method without a rule", "DELETE", "/open/a", 401},
}

// allowedTargets pass, and the upstream gets them as written in want; an empty
// want is the target itself.
var allowedTargets = []struct{ name, target, want string }{
	{"plain", "/open/a", ""},
	{"the root of the pattern", "/open", ""},
	{"final slash", "/open/a/", ""},
	{"query", "/open/a?x=1&y=%2F..%2F&z", ""},
	{"dots in the query", "/open/a?file=../../private/x", ""},
	{"semicolon in the query", "/open/a?a=b;c", ""},
	{"path parameter", "/open/a;v=1", ""},
	{"encoded semicolon", "/open/a%3Bb", ""},
	{"encoded number sign", "/open/a%23b", ""},
	{"encoded question mark", "/open/a%3Fb", ""},
	{"encoded space", "/open/a%20b", ""},
	{"a per cent sign", "/open/100%25", ""},
	{"UTF-8", "/open/caf%C3%A9/%E6%97%A5%E6%9C%AC", ""},
	{"sub-delimiters", "/open/a+b@c:d,e=f!g$h&i'j(k)l*m", ""},
	{"dots inside", "/open/a.b..c", ""},
	{"leading dot", "/open/.well-known", ""},
	{"needless escape", "/open/%61%7E", "/open/a~"},
	{"lower-case hex", "/open/caf%c3%a9", "/open/caf%C3%A9"},
	{"absolute form", "http://{addr}/open/a?x=1", "/open/a?x=1"},
}

func TestTargetIsJudgedAsTheUpstreamReceivesIt(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{}, nil)
	t.Run("refused", func(t *testing.T) {
		for i, c := range refusedTargets {
			t.Run(c.name, func(t *testing.T) {
				mark := fmt.Sprintf("refused-%d", i)
				target := strings.ReplaceAll(c.target, "{addr}", s.Addr)
				e := s.raw(t, rawRequest(c.method, target, s.Addr, caseHeader+": "+mark))
				if got := s.Spy.marked(mark); len(got) != 0 {
					t.Fatalf("reached the upstream as\n%s", got[0].Head)
				}
				if c.status != 0 && e.Status != c.status {
					t.Errorf("status %d (%v), want %d\n%s", e.Status, e.Err, c.status, e.Body)
				}
			})
		}
	})
	t.Run("allowed", func(t *testing.T) {
		for i, c := range allowedTargets {
			t.Run(c.name, func(t *testing.T) {
				mark := fmt.Sprintf("allowed-%d", i)
				target := strings.ReplaceAll(c.target, "{addr}", s.Addr)
				e := s.raw(t, rawRequest("GET", target, s.Addr, caseHeader+": "+mark))
				if e.Status != 200 {
					t.Fatalf("status %d (%v), want 200\n%s", e.Status, e.Err, e.Body)
				}
				got := s.Spy.marked(mark)
				if want := fallback(c.want, target); len(got) != 1 || got[0].Target != want {
					t.Errorf("upstream got %+v, want target %s", got, want)
				}
			})
		}
	})
}

// TestTargetsOnlyHTTP2CanSpell sends what no HTTP/1 parser would produce.
func TestTargetsOnlyHTTP2CanSpell(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{TLS: true}, nil)
	config := clientTLS(t, s.gateway)
	for i, c := range []struct{ method, path, authority string }{
		{"GET", "http://evil.test/open/a", "localhost"},
		{"GET", "https://evil.test/open/a", "localhost"},
		{"GET", "x:%2Fprivate", "localhost"},
		{"GET", "http:open/a", "localhost"},
		{"GET", "*", "localhost"},
		{"GET", "", "localhost"},
		{"GET", "open/a", "localhost"},
		{"GET", "/open/../private", "localhost"},
		{"GET", "/open/..;/private", "localhost"},
		{"GET", "//open/a", "localhost"},
		{"GET", "/open/a%2fb", "localhost"},
		{"GET", "/open/a b", "localhost"},
		{"GET", "/open/a#b", "localhost"},
		{"GET", "/open/\xff", "localhost"},
		{"get", "/open/a", "localhost"},
		{"GET", "/open/a", "evil.test"},
		{"GET", "/open/a", "u:p@localhost"},
	} {
		t.Run(c.method+" "+c.path+" to "+c.authority, func(t *testing.T) {
			mark := fmt.Sprintf("h2-%d", i)
			status := rawH2(t, s.Addr, config, h2Fields(c.method, c.path,
				strings.Replace(c.authority, "localhost", fmt.Sprintf("localhost:%d", s.Config.Port), 1),
				hpack.HeaderField{Name: strings.ToLower(caseHeader), Value: mark}))
			if got := s.Spy.marked(mark); len(got) != 0 {
				t.Fatalf("answered %s and reached the upstream as\n%s", status, got[0].Head)
			}
			refused := []string{"400", "403", "404", "405", "421"}
			if !strings.HasPrefix(status, "reset") && !slices.Contains(refused, status) {
				t.Errorf("status %s, want one of %v or a reset", status, refused)
			}
		})
	}
	authority := fmt.Sprintf("localhost:%d", s.Config.Port)
	if status := rawH2(t, s.Addr, config, h2Fields("GET", "/open/a?x=%2F", authority)); status != "200" {
		t.Errorf("an ordinary request: status %s, want 200", status)
	}
}

// TestSecondGateIsAnError puts the whole chain of a gate twice into a route, as
// a hand-made JSON configuration could.
func TestSecondGateIsAnError(t *testing.T) {
	t.Parallel()
	spy, i, port := startSpy(t), newIssuer(t), freePort(t)
	h := newHome(t, siteConfig{Port: port, Upstream: spy.Addr}.render(i), nil)
	doubled := doubleGate(t, h)
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	startIn(t, h, []string{addr}, "--config", doubled)
	a := newClient(t, "http://"+addr).send(t, "GET", "/healthz", "")
	if a.Status != 500 {
		t.Errorf("status %d, want 500", a.Status)
	}
	if n := len(spy.requests()); n != 0 {
		t.Errorf("%d requests reached the upstream", n)
	}
}
