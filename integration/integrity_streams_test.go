//go:build linux

package integration

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/net/http2/hpack"
)

// serveHere runs a handler in the test's own process, over HTTP/1.1 or h2c.
func serveHere(t *testing.T, h2c bool, handler http.HandlerFunc) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, Protocols: new(http.Protocols)}
	server.Protocols.SetHTTP1(!h2c)
	server.Protocols.SetUnencryptedHTTP2(h2c)
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	return l.Addr().String()
}

// TestIntegrityWebSocketCarriesTheSealedIdentity opens a tunnel through the seal
// and asks the application who it thinks is there.
func TestIntegrityWebSocketCarriesTheSealedIdentity(t *testing.T) {
	t.Parallel()
	addr := serveHere(t, false, func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		_ = conn.Write(r.Context(), websocket.MessageText, fmt.Append(nil, r.Header["X-User-Id"], r.Header["X-Tenant-Id"], r.URL))
		_, _, _ = conn.Read(r.Context())
		_ = conn.CloseNow()
	})
	s := startSite(t, siteConfig{Rules: sealRules, Upstream: addr}, nil)
	ctx, cancel := context.WithTimeout(t.Context(), startBudget)
	defer cancel()
	header := http.Header{"Authorization": {"Bearer " + s.Issuer.as(t, "u-1", "user")}, "X-User-Id": {"forged"}, "X_tenant_id": {"forged"}}
	conn, _, err := websocket.Dial(ctx, "ws://"+s.Addr+"/me/ws?room=1", &websocket.DialOptions{HTTPHeader: header})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.CloseNow() }()
	if _, got, err := conn.Read(ctx); err != nil || string(got) != "[u-1] [t-1] /me/ws?room=1" {
		t.Errorf("the application saw %q (%v)", got, err)
	}
	if _, res, err := websocket.Dial(ctx, "ws://"+s.Addr+"/me/ws", nil); err == nil || res.StatusCode != 401 {
		t.Errorf("a stranger's tunnel: %v", err)
	}
}

// TestIntegrityASlowUploadArrivesAsItIsSent holds back the second half of a body
// until the application has the first, in both protocols towards it.
func TestIntegrityASlowUploadArrivesAsItIsSent(t *testing.T) {
	t.Parallel()
	for name, h2c := range map[string]bool{"HTTP/1.1": false, "h2c": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first := make(chan string, 1)
			addr := serveHere(t, h2c, func(w http.ResponseWriter, r *http.Request) {
				half := make([]byte, 5)
				_, _ = io.ReadFull(r.Body, half)
				first <- string(half)
				rest, err := io.ReadAll(r.Body)
				_, _ = fmt.Fprintf(w, "%s %s %v %v", r.Proto, string(half)+string(rest), err, r.Header["X-User-Id"])
			})
			s := startSite(t, siteConfig{Rules: sealRules, Upstream: deadAddress(t), Site: versioned("/me/*", addr, h2c)}, nil)
			body, write := io.Pipe()
			go func() {
				_, _ = io.WriteString(write, "hello")
				select {
				case <-first:
					_, _ = io.WriteString(write, " and goodbye")
					_ = write.Close()
				case <-time.After(startBudget):
					_ = write.CloseWithError(context.DeadlineExceeded)
				}
			}()
			req, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+s.Addr+"/me/slow", body)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer "+s.Issuer.as(t, "u-1", "user"))
			res, err := s.web.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = res.Body.Close() }()
			proto := map[bool]string{false: "HTTP/1.1", true: "HTTP/2.0"}[h2c]
			if got, err := io.ReadAll(res.Body); err != nil || string(got) != proto+" hello and goodbye <nil> [u-1]" {
				t.Errorf("status %d, %q, %v", res.StatusCode, got, err)
			}
		})
	}
}

// versioned is a handle block whose sealed proxy speaks HTTP/1.1 or h2c.
func versioned(pattern, addr string, h2c bool) string {
	if !h2c {
		return handled(pattern, addr)
	}
	return fmt.Sprintf("\thandle %s {\n\t\treverse_proxy %s {\n\t\t\ttransport moat {\n\t\t\t\tversions h2c\n\t\t\t}\n\t\t}\n\t}\n", pattern, addr)
}

// TestIntegrityTrailersComeBackFromH2C stands for gRPC: HTTP/2 on both sides, a
// status in the trailers, also without a body and when the client sends none.
func TestIntegrityTrailersComeBackFromH2C(t *testing.T) {
	t.Parallel()
	addr := serveHere(t, true, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		if !strings.HasSuffix(r.URL.Path, "/empty") {
			_, _ = fmt.Fprintf(w, "%s %s %s %s", r.Proto, r.Header.Get("TE"), r.Header.Get("X-User-Id"), body)
		}
		w.Header().Set("Grpc-Status", "0")
		w.Header().Set(http.TrailerPrefix+"Grpc-Message", "late")
	})
	s := startSite(t, siteConfig{Rules: sealRules, TLS: true, Upstream: deadAddress(t), Site: versioned("/me/*", addr, true)}, nil)
	for path, want := range map[string]string{"/me/Service/Call": "HTTP/2.0 trailers u-1 message", "/me/Service/empty": ""} {
		t.Run(path, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), "POST", s.web.Base+path, strings.NewReader("message"))
			if err != nil {
				t.Fatal(err)
			}
			req.Header = http.Header{
				"Te": {"trailers"}, "Content-Type": {"application/grpc"}, "X-User-Id": {"forged"},
				"Authorization": {"Bearer " + s.Issuer.as(t, "u-1", "user")},
			}
			res, err := s.web.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = res.Body.Close() }()
			body, err := io.ReadAll(res.Body)
			if err != nil || res.StatusCode != 200 || res.ProtoMajor != 2 || string(body) != want {
				t.Errorf("status %d over %s, %q, %v; want %q", res.StatusCode, res.Proto, body, err, want)
			}
			if res.Trailer.Get("Grpc-Status") != "0" || res.Trailer.Get("Grpc-Message") != "late" {
				t.Errorf("trailers %v", res.Trailer)
			}
		})
	}
}

// TestIntegrityOneHostAndBoundedHeadersOverTLS covers what only a multiplexed or
// encrypted connection can get wrong.
func TestIntegrityOneHostAndBoundedHeadersOverTLS(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{Rules: integrityRules, TLS: true}, nil)
	config, authority := clientTLS(t, s.gateway), fmt.Sprintf("localhost:%d", s.Config.Port)
	var many []hpack.HeaderField
	var lines []string
	for i := range 200 {
		many = append(many, hpack.HeaderField{Name: fmt.Sprintf("x-many-%d", i), Value: "v"})
		lines = append(lines, fmt.Sprintf("X-Many-%d: v", i))
	}
	host := func(values ...string) (out []hpack.HeaderField) {
		for _, v := range values {
			out = append(out, hpack.HeaderField{Name: "host", Value: v})
		}
		return out
	}
	for i, c := range []struct {
		name, authority, status string
		more                    []hpack.HeaderField
	}{
		{"another host", authority, "400", host("evil.test")},
		{"the host without its port", authority, "400", host("localhost")},
		{"another port", authority, "400", host("localhost:1")},
		{"two hosts, the second another", authority, "400", host(authority, "evil.test")},
		{"an empty host", authority, "400", host("")},
		{"the same host", authority, "200", host(authority)},
		{"a host instead of the authority", "", "200", host(authority)},
		{"two hosts instead of the authority", "", "400", host(authority, "evil.test")},
		{"no host at all", "", "421", nil},
		{"another name than the connection's", "evil.test", "421", nil},
		{"an address instead of the name", s.Addr, "421", nil},
		{"200 headers", authority, "431", many},
		{"100 headers", authority, "200", many[:100]},
		{"the same header 200 times", authority, "431", repeat(hpack.HeaderField{Name: "x-same", Value: "v"}, 200)},
		{"100 crumbs of a cookie", authority, "200", repeat(hpack.HeaderField{Name: "cookie", Value: "a=b"}, 100)},
	} {
		t.Run(c.name, func(t *testing.T) {
			mark := hpack.HeaderField{Name: strings.ToLower(caseHeader), Value: fmt.Sprintf("host-%d", i)}
			status := rawH2(t, s.Addr, config, h2Fields("GET", "/open/a", c.authority, append([]hpack.HeaderField{mark}, c.more...)...))
			got := s.Spy.marked(mark.Value)
			// A stack may end the stream before a gate can answer.
			if c.status == "400" && strings.HasPrefix(status, "reset") {
				status = "400"
			}
			if status != c.status || (len(got) == 1) != (c.status == "200") {
				t.Fatalf("status %s, %d requests upstream; want %s", status, len(got), c.status)
			}
			for _, r := range got {
				if v := r.get("Host"); len(v) != 1 || !strings.EqualFold(v[0], authority) {
					t.Errorf("upstream got Host %q", v)
				}
			}
		})
	}
	e := rawHTTP(t, s.Addr, []byte(rawRequest("GET", "/open/a", "evil.test", caseHeader+": sni")), config)
	if e.Status != 421 || len(s.Spy.marked("sni")) != 0 {
		t.Errorf("HTTP/1.1, another name: status %d (%v), want 421 and nothing sent", e.Status, e.Err)
	}
	e = rawHTTP(t, s.Addr, []byte(rawRequest("GET", "/open/a", authority, append(lines, caseHeader+": many")...)), config)
	if e.Status != 431 || len(s.Spy.marked("many")) != 0 {
		t.Errorf("HTTP/1.1, 200 headers: status %d (%v), want 431 and nothing sent", e.Status, e.Err)
	}
}

func repeat(f hpack.HeaderField, n int) []hpack.HeaderField {
	out := make([]hpack.HeaderField, n)
	for i := range out {
		out[i] = f
	}
	return out
}
