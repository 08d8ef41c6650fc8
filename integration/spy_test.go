//go:build linux

package integration

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http/httputil"
	"net/textproto"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// caseHeader marks a request, so that parallel cases find their own record. It is
// one that also the pages of error routes are fetched with.
const caseHeader = "User-Agent"

// plainOK is what a spy answers unless told otherwise.
const plainOK = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"

// recorded is one request exactly as it arrived at the upstream.
type recorded struct {
	Head   []byte // request line and header lines with the empty line
	Body   []byte // decoded
	Tail   []byte // trailer lines of a chunked body
	Method string
	Target string
	Header [][2]string // in order, names as sent
}

// values returns every value of the headers for which match holds.
func (r recorded) values(match func(name string) bool) []string {
	var out []string
	for _, h := range r.Header {
		if match(h[0]) {
			out = append(out, h[1])
		}
	}
	return out
}

// get returns the values of one header, compared without case.
func (r recorded) get(name string) []string {
	return r.values(func(n string) bool { return strings.EqualFold(n, name) })
}

// spy is an upstream that keeps the bytes of each request. It is written on a
// plain socket, because an HTTP server would normalise what the tests look for.
type spy struct {
	Addr string

	mu     sync.Mutex
	seen   []recorded
	answer func(recorded) []byte
	conns  map[net.Conn]bool
}

// startSpy serves until the end of the test.
func startSpy(t testing.TB) *spy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &spy{Addr: l.Addr().String(), conns: map[net.Conn]bool{}}
	t.Cleanup(func() { s.close(l) })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.track(conn, true)
			go s.serve(conn)
		}
	}()
	return s
}

// respond sets what the spy answers. The function gets the request and returns
// the raw answer; a nil answer closes the connection.
func (s *spy) respond(answer func(recorded) []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

// requests returns what arrived so far.
func (s *spy) requests() []recorded {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]recorded(nil), s.seen...)
}

// marked returns what arrived with the given case header.
func (s *spy) marked(mark string) []recorded {
	var out []recorded
	for _, r := range s.requests() {
		if v := r.get(caseHeader); len(v) > 0 && v[0] == mark {
			out = append(out, r)
		}
	}
	return out
}

func (s *spy) track(conn net.Conn, open bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if open {
		s.conns[conn] = true
	} else {
		delete(s.conns, conn)
	}
}

func (s *spy) close(l net.Listener) {
	_ = l.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn := range s.conns {
		_ = conn.Close()
	}
}

func (s *spy) serve(conn net.Conn) {
	defer func() { _ = conn.Close(); s.track(conn, false) }()
	br := bufio.NewReader(conn)
	for {
		rec, err := readRequest(br)
		if err != nil {
			return
		}
		s.mu.Lock()
		s.seen = append(s.seen, rec)
		answer := s.answer
		s.mu.Unlock()
		raw := []byte(plainOK)
		if answer != nil {
			raw = answer(rec)
		}
		if raw == nil {
			return
		}
		if rec.Method == "HEAD" {
			raw = headOnly(raw)
		}
		if _, err := conn.Write(raw); err != nil {
			return
		}
		if bytes.Contains(raw, []byte("\r\nConnection: close\r\n")) {
			return
		}
	}
}

// headOnly cuts the body off an answer.
func headOnly(raw []byte) []byte {
	if end := bytes.Index(raw, []byte("\r\n\r\n")); end >= 0 {
		return raw[:end+4]
	}
	return raw
}

// readRequest reads one request without judging it.
func readRequest(br *bufio.Reader) (recorded, error) {
	var rec recorded
	for {
		line, err := br.ReadBytes('\n')
		if err != nil {
			return rec, err
		}
		rec.Head = append(rec.Head, line...)
		if len(bytes.TrimRight(line, "\r\n")) == 0 {
			break
		}
	}
	lines := strings.Split(strings.TrimRight(string(rec.Head), "\r\n"), "\r\n")
	words := strings.SplitN(lines[0], " ", 2)
	rec.Method = words[0]
	if len(words) == 2 {
		rec.Target = strings.TrimSuffix(words[1], " HTTP/1.1")
	}
	for _, line := range lines[1:] {
		name, value, _ := strings.Cut(line, ":")
		rec.Header = append(rec.Header, [2]string{name, strings.TrimSpace(value)})
	}
	return rec, rec.readBody(br)
}

func (r *recorded) readBody(br *bufio.Reader) error {
	if te := r.get("Transfer-Encoding"); len(te) > 0 {
		body, err := io.ReadAll(httputil.NewChunkedReader(br))
		r.Body = body
		if err != nil {
			return err
		}
		// The chunked reader stops before the trailer section.
		trailer, err := textproto.NewReader(br).ReadMIMEHeader()
		for name, values := range trailer {
			r.Tail = fmt.Appendf(r.Tail, "%s: %s\r\n", name, strings.Join(values, ", "))
		}
		return err
	}
	length := r.get("Content-Length")
	if len(length) == 0 {
		return nil
	}
	n, err := strconv.Atoi(length[0])
	if err != nil || n < 0 || n > 1<<20 {
		return fmt.Errorf("content length %q", length[0])
	}
	r.Body = make([]byte, n)
	_, err = io.ReadFull(br, r.Body)
	return err
}

// rawAnswer builds an answer with a body and exact header lines.
func rawAnswer(status int, body string, header ...string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "HTTP/1.1 %d Status\r\n", status)
	for _, line := range header {
		b.WriteString(line + "\r\n")
	}
	fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n%s", len(body), body)
	return b.Bytes()
}

// deadAddress returns an address where nothing listens.
func deadAddress(t testing.TB) string {
	return "127.0.0.1:" + strconv.Itoa(freePort(t))
}

// countingListener accepts and drops connections, and counts them: it stands for
// a remote party that must not be called.
type countingListener struct {
	Addr  string
	mu    sync.Mutex
	count int
}

func startCounting(t testing.TB) *countingListener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	c := &countingListener{Addr: l.Addr().String()}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			c.mu.Lock()
			c.count++
			c.mu.Unlock()
			_ = conn.SetDeadline(time.Now())
			_ = conn.Close()
		}
	}()
	return c
}

func (c *countingListener) accepted() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.count
}
