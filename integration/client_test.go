//go:build linux

package integration

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

// answer is what an ordinary client got.
type answer struct {
	Status int
	Proto  string
	Header http.Header
	Body   []byte
}

// client is an ordinary HTTP client that follows no redirect and decodes nothing.
type client struct {
	Base string
	*http.Client
}

func newClient(t testing.TB, base string) *client {
	t.Helper()
	return wrapTransport(t, base, &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true})
}

// newTLSClient trusts the gateway's own authority and nothing else, and verifies
// the certificate for the name localhost.
func newTLSClient(t testing.TB, g *gateway, addr string) *client {
	t.Helper()
	var dialer net.Dialer
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return wrapTransport(t, "https://localhost:"+port, &http.Transport{
		DisableCompression: true,
		ForceAttemptHTTP2:  true,
		TLSClientConfig:    clientTLS(t, g),
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, addr)
		},
	})
}

func wrapTransport(t testing.TB, base string, transport *http.Transport) *client {
	t.Cleanup(transport.CloseIdleConnections)
	return &client{Base: base, Client: &http.Client{
		Transport: transport,
		Timeout:   60 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
	}}
}

// clientTLS reads the root that the gateway made at its start.
func clientTLS(t testing.TB, g *gateway) *tls.Config {
	t.Helper()
	roots := x509.NewCertPool()
	await(t, startBudget, "the internal authority", func() bool {
		pem, err := os.ReadFile(g.rootCertificate())
		return err == nil && roots.AppendCertsFromPEM(pem)
	})
	return &tls.Config{RootCAs: roots, ServerName: "localhost", MinVersion: tls.VersionTLS12}
}

// awaitCertificate waits until the site's certificate is there: Caddy obtains it
// after it began to serve.
func awaitCertificate(t testing.TB, addr string, config *tls.Config) {
	t.Helper()
	await(t, startBudget, "the certificate of "+addr, func() bool {
		conn, err := tls.DialWithDialer(&net.Dialer{Timeout: time.Second}, "tcp", addr, config)
		if err != nil {
			return false
		}
		_ = conn.Close()
		return true
	})
}

// send fails the test when no answer comes.
func (c *client) send(t testing.TB, method, path, body string, header ...string) answer {
	t.Helper()
	a, err := c.try(method, path, body, header...)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

// try sends a request with header lines "Name: value".
func (c *client) try(method, path, body string, header ...string) (answer, error) {
	var payload io.Reader
	if body != "" {
		payload = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(context.Background(), method, c.Base+path, payload)
	if err != nil {
		return answer{}, err
	}
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		if name == "Host" {
			req.Host = value
		}
		req.Header.Add(name, value)
	}
	res, err := c.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = res.Body.Close() }()
	data, err := io.ReadAll(res.Body)
	return answer{Status: res.StatusCode, Proto: res.Proto, Header: res.Header, Body: data}, err
}

// exchange is a raw answer: its bytes and what they parse to.
type exchange struct {
	answer
	Bytes []byte // everything the server sent
	Err   error  // what went wrong after the request was sent
}

// lines returns the values of a header as they stood on the wire, in order.
func (e exchange) lines(name string) []string {
	head, _, _ := bytes.Cut(e.Bytes, []byte("\r\n\r\n"))
	var out []string
	for _, line := range strings.Split(string(head), "\r\n")[1:] {
		n, v, _ := strings.Cut(line, ":")
		if strings.EqualFold(n, name) {
			out = append(out, strings.TrimSpace(v))
		}
	}
	return out
}

// rawHTTP writes exact bytes and reads one answer. With a TLS configuration the
// connection is encrypted first. An Err is no failure of its own: closing the
// connection is a legal refusal of bytes that are no HTTP.
func rawHTTP(t testing.TB, addr string, request []byte, config *tls.Config) exchange {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if config != nil {
		config = config.Clone()
		config.NextProtos = []string{"http/1.1"}
		secure := tls.Client(conn, config)
		if err := secure.Handshake(); err != nil {
			return exchange{Err: err}
		}
		conn = secure
	}
	if _, err := conn.Write(request); err != nil {
		return exchange{Err: err}
	}
	var wire bytes.Buffer
	method, _, _ := strings.Cut(string(request), " ")
	res, err := http.ReadResponse(bufio.NewReader(io.TeeReader(conn, &wire)), &http.Request{Method: method})
	if err != nil {
		return exchange{Bytes: wire.Bytes(), Err: err}
	}
	body, err := io.ReadAll(res.Body)
	_ = res.Body.Close()
	return exchange{
		answer: answer{Status: res.StatusCode, Proto: res.Proto, Header: res.Header, Body: body},
		Bytes:  wire.Bytes(), Err: err,
	}
}

// rawRequest spells a request; header lines go out exactly as given.
func rawRequest(method, target, host string, header ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", method, target, host)
	for _, line := range header {
		b.WriteString(line + "\r\n")
	}
	b.WriteString("Connection: close\r\n\r\n")
	return b.String()
}

// problem is the body of a refusal (RFC 9457).
type problem struct {
	Type       string            `json:"type"`
	Title      string            `json:"title"`
	Status     int               `json:"status"`
	Code       string            `json:"code"`
	RequestID  string            `json:"requestId"`
	Violations []json.RawMessage `json:"violated-policies"`
}

var uuidV7 = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

// wantProblem checks that the answer is a refusal in the one vocabulary.
func wantProblem(t testing.TB, a answer, status int, code string) problem {
	t.Helper()
	if a.Status != status {
		t.Fatalf("status %d, want %d %s\n%s", a.Status, status, code, a.Body)
	}
	if got, _, _ := strings.Cut(a.Header.Get("Content-Type"), ";"); got != "application/problem+json" {
		t.Errorf("Content-Type %q, want application/problem+json", a.Header.Get("Content-Type"))
	}
	var p problem
	if err := json.Unmarshal(a.Body, &p); err != nil {
		t.Fatalf("problem body: %v\n%s", err, a.Body)
	}
	if p.Type != "urn:moat:problem:"+code || p.Code != code || p.Status != status || p.Title == "" {
		t.Errorf("problem %+v, want type urn:moat:problem:%s, that code, status %d and a title", p, code, status)
	}
	if !uuidV7.MatchString(p.RequestID) || p.RequestID != a.Header.Get("X-Request-Id") {
		t.Errorf("requestId %q, X-Request-Id %q: want the same UUIDv7", p.RequestID, a.Header.Get("X-Request-Id"))
	}
	return p
}
