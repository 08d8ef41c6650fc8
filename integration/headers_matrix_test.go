//go:build linux

package integration

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// header is one header of the html preset on a plain connection.
type header struct {
	ours string // the right value
	// other and another are different values that browsers would obey.
	other, another string
}

var matrixHeaders = map[string]header{
	"Content-Security-Policy": {
		"default-src 'self'; base-uri 'self'; object-src 'none'; frame-ancestors 'self'; form-action 'self'; img-src 'self' data:",
		"default-src 'none'", "script-src 'none'",
	},
	"X-Content-Type-Options": {"nosniff", "nosniff, nosniff", "nosniff "},
	"X-Frame-Options":        {"SAMEORIGIN", "DENY", "deny"},
	"Referrer-Policy":        {"strict-origin-when-cross-origin", "no-referrer", "origin"},
	"Permissions-Policy": {
		"accelerometer=(), bluetooth=(), browsing-topics=(), camera=(), display-capture=(), geolocation=(), gyroscope=(), hid=(), " +
			"idle-detection=(), local-fonts=(), magnetometer=(), microphone=(), midi=(), payment=(), serial=(), usb=(), window-management=(), xr-spatial-tracking=()",
		"camera=()", "usb=()",
	},
	"Cross-Origin-Opener-Policy":        {"same-origin", "unsafe-none", "same-origin-allow-popups"},
	"Cross-Origin-Resource-Policy":      {"same-origin", "cross-origin", "same-site"},
	"Origin-Agent-Cluster":              {"?1", "?0", "?0"},
	"X-Permitted-Cross-Domain-Policies": {"none", "all", "master-only"},
}

// said is what an upstream says of a header, by how it treats all of them.
var said = map[string]func(h header) []string{
	"silent":    func(header) []string { return nil },
	"same":      func(h header) []string { return []string{h.ours} },
	"different": func(h header) []string { return []string{h.other} },
	"twice":     func(h header) []string { return []string{h.other, h.another} },
	"malformed": func(header) []string { return []string{"=;, \"<junk>"} },
	"blank":     func(header) []string { return []string{""} },
}

// answered is one way in which an answer comes about.
type answered struct {
	name, method, path string
	status             int
	// body is what the upstream answers behind its header, with how its end is told.
	body string
	// ours: the answer is not the upstream's.
	ours bool
	// header of the request.
	header []string
}

var matrixAnswers = []answered{
	{name: "200", path: "/open/200", status: 200, body: "Content-Length: 2\r\n\r\nok"},
	{name: "204", path: "/open/204", status: 204, body: "\r\n"},
	{name: "301", path: "/open/301", status: 301, body: "Location: /open/x\r\nContent-Length: 0\r\n\r\n"},
	{name: "304", path: "/open/304", status: 304, body: "ETag: \"x\"\r\n\r\n"},
	{name: "401", path: "/open/401", status: 401, body: "Content-Length: 2\r\n\r\nno"},
	{name: "403", path: "/open/403", status: 403, body: "Content-Length: 2\r\n\r\nno"},
	{name: "404", path: "/open/404", status: 404, body: "Content-Length: 2\r\n\r\nno"},
	{name: "413", path: "/open/413", status: 413, body: "Content-Length: 2\r\n\r\nno"},
	{name: "429", path: "/open/429", status: 429, body: "Content-Length: 2\r\n\r\nno"},
	{name: "500", path: "/open/500", status: 500, body: "Content-Length: 2\r\n\r\nno"},
	{name: "HEAD", method: "HEAD", path: "/open/200", status: 200, body: "Content-Length: 200\r\n\r\n"},
	{name: "chunked with a trailer", path: "/open/200", status: 200, body: "Trailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n", header: []string{"TE: trailers"}},
	{name: "events", path: "/open/200", status: 200, body: "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\nb\r\ndata: one\n\n\r\n0\r\n\r\n"},
	{name: "101", path: "/open/101", status: 101, body: "Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n", header: []string{"Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: MTIzNDU2Nzg5MDEyMzQ1Ng=="}},
	{name: "behind 103", path: "/open/103", status: 200, body: "Content-Length: 2\r\n\r\nok"},
	{name: "a page of handle_errors", path: "/open/page", status: 418, ours: true},
	{name: "a page of handle_errors from the upstream", path: "/open/styled", status: 410, body: "Content-Length: 2\r\n\r\nok"},
	{name: "refused 400", path: "/open//a", status: 400, ours: true},
	{name: "refused 401", path: "/me", status: 401, ours: true},
	{name: "refused 405", method: "TRACE", path: "/open/a", status: 405, ours: true},
	{name: "refused 413", method: "POST", path: "/open/a", status: 413, ours: true, header: []string{"Content-Length: 999999999"}},
	{name: "redirected by the site", path: "/open/moved", status: 302, ours: true},
	{name: "no upstream", path: "/open/dead", status: 502, ours: true},
}

const matrixSite = `
	redir /open/moved /open/x 302
	handle /open/page {
		error 418
	}
	handle /open/styled {
		error 410
	}
	handle /open/dead {
		reverse_proxy 127.0.0.1:1 {
			transport moat
		}
	}
	handle_errors 418 {
		respond "a page" 418
	}
	handle_errors 410 {
		rewrite * /open/410
		reverse_proxy UPSTREAM {
			transport moat
		}
	}`

// matrix is a site in front of an upstream that answers and treats headers as it is
// told, one request at a time.
type matrix struct {
	*site

	mu     sync.Mutex
	answer answered
	treat  string
}

func (m *matrix) told() (answered, string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.answer, m.treat
}

func (m *matrix) tell(a answered, treat string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.answer, m.treat = a, treat
}

func startMatrix(t *testing.T, headers string) *matrix {
	t.Helper()
	m, spy := new(matrix), startSpy(t)
	spy.respond(func(recorded) []byte {
		a, treat := m.told()
		var head strings.Builder
		if a.name == "behind 103" {
			head.WriteString("HTTP/1.1 103 Early\r\nLink: </a.css>; rel=preload\r\n\r\n")
		}
		fmt.Fprintf(&head, "HTTP/1.1 %d Status\r\nServer: leaky\r\n", a.status)
		for name, h := range matrixHeaders {
			for n, value := range said[treat](h) {
				if n%2 == 1 {
					name = strings.ToLower(name)
				}
				head.WriteString(name + ": " + value + "\r\n")
			}
		}
		return []byte(head.String() + a.body)
	})
	m.site = startSite(t, siteConfig{
		Headers: headers, Upstream: spy.Addr, Gate: "max_body 1MiB\n",
		Site: strings.ReplaceAll(matrixSite, "UPSTREAM", spy.Addr),
	}, nil)
	return m
}

// fetch asks for one answer and returns its final header as it stood on the wire.
func (m *matrix) fetch(t *testing.T, a answered, treat string) http.Header {
	t.Helper()
	m.tell(a, treat)
	conn, err := net.DialTimeout("tcp", m.Addr, startBudget)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(startBudget)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte(rawRequest(fallback(a.method, "GET"), a.path, m.Addr, a.header...))); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(conn)
	for {
		status, header := readHead(t, in)
		if status >= 100 && status < 200 && status != 101 {
			continue
		}
		if status != a.status {
			t.Fatalf("status %d, want %d", status, a.status)
		}
		if a.name == "chunked with a trailer" {
			rest := make([]byte, 0, 64)
			for !strings.HasSuffix(string(rest), "\r\n\r\n") {
				b, err := in.ReadByte()
				if err != nil {
					t.Fatalf("body %q: %v", rest, err)
				}
				rest = append(rest, b)
			}
			if !strings.HasSuffix(string(rest), "0\r\nX-Sum: 7\r\n\r\n") {
				t.Errorf("body and trailer %q", rest)
			}
		}
		return header
	}
}

// readHead reads one header, keeping lines of one name apart.
func readHead(t *testing.T, in *bufio.Reader) (int, http.Header) {
	t.Helper()
	line, err := in.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	status, err := strconv.Atoi(strings.Fields(line)[1])
	if err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	header := make(http.Header)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		line = strings.TrimRight(line, "\r\n")
		if line == "" {
			return status, header
		}
		name, value, _ := strings.Cut(line, ":")
		header.Add(name, strings.TrimSpace(value))
	}
}

// TestEveryHeaderHasItsOneRightValueOnEveryAnswer is the matrix of headers, answers
// and what the upstream says.
func TestEveryHeaderHasItsOneRightValueOnEveryAnswer(t *testing.T) {
	t.Parallel()
	m := startMatrix(t, "headers html")
	cells := 0
	for _, a := range matrixAnswers {
		for treat := range said {
			if a.ours && treat != "silent" {
				continue
			}
			t.Run(a.name+"/"+treat, func(t *testing.T) {
				got := m.fetch(t, a, treat)
				for name, h := range matrixHeaders {
					if cells++; !slices.Equal(got[name], []string{h.ours}) {
						t.Errorf("%s = %q, want %q once", name, got[name], h.ours)
					}
				}
				for _, leak := range []string{"Server", "Via", "Strict-Transport-Security"} {
					if got[leak] != nil {
						t.Errorf("%s = %q", leak, got[leak])
					}
				}
			})
		}
	}
	t.Logf("%d cells", cells)
}

// TestKeptAndMergedHeadersOnEveryAnswer is the matrix for the two other rules: the
// upstream's one valid value wins, and both policies apply.
func TestKeptAndMergedHeadersOnEveryAnswer(t *testing.T) {
	t.Parallel()
	m := startMatrix(t, "headers html {\n keep X-Frame-Options Referrer-Policy\n merge Content-Security-Policy\n}")
	const policy = "Content-Security-Policy"
	for _, a := range matrixAnswers {
		for treat, says := range said {
			if a.ours && treat != "silent" {
				continue
			}
			t.Run(a.name+"/"+treat, func(t *testing.T) {
				got := m.fetch(t, a, treat)
				for name, h := range matrixHeaders {
					want := []string{h.ours}
					switch {
					case name == policy:
						for _, v := range says(h) {
							if v = strings.TrimSpace(v); v != "" && !slices.Contains(want, v) {
								want = append(want, v)
							}
						}
					case (name == "X-Frame-Options" || name == "Referrer-Policy") && treat == "different":
						want = []string{h.other}
					}
					if !slices.Equal(got[name], want) {
						t.Errorf("%s = %q, want %q", name, got[name], want)
					}
				}
			})
		}
	}
}

// TestTheHeadersOverHTTP2 repeats the matrix where the protocol's own library writes
// the header.
func TestTheHeadersOverHTTP2(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{TLS: true}, nil)
	s.Spy.respond(func(r recorded) []byte {
		status, _ := strconv.Atoi(r.Target[strings.LastIndex(r.Target, "/")+1:])
		return careless(status)
	})
	for path, status := range map[string]int{"/open/200": 200, "/open/404": 404, "/open/500": 500, "/me": 401, "/nowhere": 401} {
		a := s.get(t, path)
		if a.Status != status || a.Proto != "HTTP/2.0" {
			t.Fatalf("%s: status %d over %s", path, a.Status, a.Proto)
		}
		for name, h := range matrixHeaders {
			want := h.ours
			if name == "Content-Security-Policy" {
				want += "; upgrade-insecure-requests"
			}
			if got := a.Header[name]; !slices.Equal(got, []string{want}) {
				t.Errorf("%s: %s = %q, want %q once", path, name, got, want)
			}
		}
		if got := a.Header["Strict-Transport-Security"]; !slices.Equal(got, []string{"max-age=63072000"}) {
			t.Errorf("%s: Strict-Transport-Security = %q", path, got)
		}
	}
}

func TestPathsHaveHeadersOfTheirOwn(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{
		Headers: `headers html {
			set X-Site base
		}
		headers /open/api/** api
		headers /open/admin/** {
			set X-Frame-Options DENY
			set X-Part admin
			cookies httponly samesite=lax
		}
		headers /open/admin/embed {
			csp {
				frame-ancestors https://partner.example
			}
		}`,
	}, nil)
	s.Spy.respond(func(recorded) []byte {
		return rawAnswer(200, "ok", "Set-Cookie: a=b", "Permissions-Policy: usb=()")
	})
	for path, want := range map[string]map[string]string{
		"/open/x":             {"X-Frame-Options": "SAMEORIGIN", "X-Site": "base", "X-Part": "", "Set-Cookie": "a=b"},
		"/open/api/x":         {"X-Frame-Options": "DENY", "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'", "X-Site": "", "Permissions-Policy": "usb=()", "Cross-Origin-Opener-Policy": ""},
		"/open/admin/x":       {"X-Frame-Options": "DENY", "X-Site": "base", "X-Part": "admin", "Set-Cookie": "a=b; SameSite=Lax; HttpOnly"},
		"/open/adm%69n/x":     {"X-Frame-Options": "DENY", "X-Part": "admin"},
		"/open/admin/embed":   {"X-Frame-Options": "DENY", "X-Site": "base", "X-Part": "", "Set-Cookie": "a=b"},
		"/open/admin/embed/x": {"X-Part": "admin"},
		"/open/admin//x":      {"X-Frame-Options": "SAMEORIGIN", "X-Site": "base", "X-Part": ""},
		"/open/ADMIN/x":       {"X-Part": ""},
	} {
		e := s.raw(t, rawRequest("GET", path, s.Addr))
		for name, value := range want {
			var values []string
			if value != "" {
				values = []string{value}
			}
			if got := e.lines(name); !slices.Equal(got, values) {
				t.Errorf("%s: %s = %q, want %q", path, name, got, values)
			}
		}
	}
}

func TestAnswersToKnownCallersAreNotStored(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{}, nil)
	user := bearer(s.Issuer.as(t, "u-1", "user"))
	s.Spy.respond(func(r recorded) []byte {
		if strings.HasSuffix(r.Target, "cached") {
			return rawAnswer(200, "ok", "Cache-Control: public, max-age=60")
		}
		return rawAnswer(200, "ok")
	})
	for _, row := range []struct {
		path   string
		header []string
		want   string
	}{
		{"/open/a", nil, ""}, {"/me", []string{user}, "no-store"}, {"/open/cached", []string{user}, "public, max-age=60"}, {"/internal/x", []string{user}, "no-store"},
	} {
		if got := s.get(t, row.path, row.header...).Header.Get("Cache-Control"); got != row.want {
			t.Errorf("%s: Cache-Control %q, want %q", row.path, got, row.want)
		}
	}
}

// TestARequestForAnotherSiteThanTheConnections is refused by Caddy before any gate.
func TestARequestForAnotherSiteThanTheConnections(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{TLS: true}, nil)
	s.write(t, strings.Replace(s.Config.render(s.Issuer), fmt.Sprintf("https://localhost:%d {", s.Config.Port),
		fmt.Sprintf("https://localhost:%[1]d, https://other.localhost:%[1]d {", s.Config.Port), 1))
	if out, exit := s.moat(t, "reload", "--config", s.File, "--adapter", "caddyfile", "--address", s.adminAddress); exit != 0 {
		t.Fatal(out)
	}
	config := clientTLS(t, s.gateway)
	config.ServerName = "localhost"
	e := rawHTTP(t, s.Addr, []byte(rawRequest("GET", "/open/a", fmt.Sprintf("other.localhost:%d", s.Config.Port))), config)
	if e.Status != 421 {
		t.Fatalf("status %d, %v", e.Status, e.Err)
	}
	for _, name := range []string{"X-Content-Type-Options", "X-Frame-Options", "Content-Security-Policy", "Strict-Transport-Security"} {
		if len(e.lines(name)) != 1 {
			t.Errorf("%s = %q", name, e.lines(name))
		}
	}
	if v := e.lines("Server"); len(v) != 0 {
		t.Errorf("Server = %q", v)
	}
}

func TestAPathWithParametersHasTheHeadersOfWhatIsServed(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{Headers: "headers html\n headers /open/admin/** {\n set X-Part admin\n }", Gate: "insecure_allow_encoded_slash\n"}, nil)
	for path, want := range map[string]int{"/open/admin/x": 1, "/open/admin;v=1/x": 1, "/open/admin%2Fx": 1, "/open/other;/admin/x": 0} {
		if e := s.raw(t, rawRequest("GET", path, s.Addr)); len(e.lines("X-Part")) != want {
			t.Errorf("%s: status %d, X-Part %q", path, e.Status, e.lines("X-Part"))
		}
	}
}
