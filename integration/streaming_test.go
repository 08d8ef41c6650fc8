//go:build linux

package integration

import (
	"bufio"
	"context"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

const publicRules = "\n* /** public"

func portOf(port int) string { return strconv.Itoa(port) }

func TestWebSocketPasses(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{
		Upstream: startUpstream(t, streamUpstream).Addr,
		Rules:    "\nGET /ws authenticated",
	}, nil)
	token := s.Issuer.as(t, "u-1", "user")
	for name, header := range map[string]http.Header{
		"bearer": {"Authorization": {"Bearer " + token}},
		"cookie, same origin": {
			"Cookie": {"access_token=" + token}, "Origin": {"http://" + s.Addr}},
	} {
		t.Run(name, func(t *testing.T) { echo(t, s, header) })
	}
	for name, c := range map[string]struct {
		header http.Header
		status int
	}{
		"nobody": {http.Header{}, 401},
		"cookie, cross origin": {http.Header{
			"Cookie": {"access_token=" + token}, "Origin": {"https://evil.test"}}, 403},
	} {
		t.Run(name, func(t *testing.T) {
			_, res, err := websocket.Dial(t.Context(), "ws://"+s.Addr+"/ws", &websocket.DialOptions{HTTPHeader: c.header})
			if err == nil || res == nil || res.StatusCode != c.status {
				t.Errorf("answer %v, error %v; want %d", res, err, c.status)
			}
		})
	}
	s.Stop(t)
	events := filterEvents(readJournal(t, s.journal()), func(e event) bool { return e.Outcome == "allow" && e.Path == "/ws" })
	if len(events) != 4 {
		t.Errorf("%d events for two streams, want an open and a close each", len(events))
	}
}

func echo(t *testing.T, s *site, header http.Header) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, "ws://"+s.Addr+"/ws", &websocket.DialOptions{HTTPHeader: header})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.CloseNow() }()
	for n := range 20 {
		sent := fmt.Sprintf("message %d", n)
		if err := conn.Write(ctx, websocket.MessageText, []byte(sent)); err != nil {
			t.Fatal(err)
		}
		if _, got, err := conn.Read(ctx); err != nil || string(got) != sent {
			t.Fatalf("echo %q, %v; want %q", got, err, sent)
		}
	}
	if err := conn.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Errorf("close: %v", err)
	}
}

func TestServerSentEventsArriveOneByOne(t *testing.T) {
	t.Parallel()
	up := startUpstream(t, streamUpstream)
	s := startSite(t, siteConfig{Upstream: up.Addr, Rules: publicRules}, nil)
	beside := newClient(t, "http://"+up.Addr)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", "http://"+s.Addr+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := s.web.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	lines := bufio.NewReader(res.Body)
	for n := 1; n <= 3; n++ {
		want := fmt.Sprintf("data: %d\n", n)
		line, err := lines.ReadString('\n')
		if err != nil || line != want {
			t.Fatalf("event %d: %q, %v", n, line, err)
		}
		if _, err := lines.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		beside.send(t, "POST", "/release", "")
	}
	if rest, err := io.ReadAll(lines); err != nil || len(rest) != 0 {
		t.Errorf("after the last event: %q, %v", rest, err)
	}
}

const (
	largeMiB = 100
	flatKiB  = 48 << 10 // by how much the gateway may grow for a hundred MiB
)

// zeros is a body of n MiB that nobody holds in memory.
func zeros(mib int64) io.Reader { return io.LimitReader(zeroReader{}, mib<<20) }

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func TestLargeBodiesStayOutOfMemory(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{Upstream: startUpstream(t, streamUpstream).Addr, Rules: publicRules}, nil)
	if a := s.get(t, "/down/1"); a.Status != 200 || len(a.Body) != 1<<20 {
		t.Fatalf("status %d, %d bytes", a.Status, len(a.Body))
	}
	before := s.statusKiB(t, "VmRSS")
	t.Run("download", func(t *testing.T) {
		res, err := s.web.Get("http://" + s.Addr + "/down/" + strconv.Itoa(largeMiB))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = res.Body.Close() }()
		if n, err := io.Copy(io.Discard, res.Body); err != nil || n != largeMiB<<20 {
			t.Errorf("%d bytes, %v", n, err)
		}
	})
	t.Run("upload", func(t *testing.T) {
		sum := crc32.NewIEEE()
		if _, err := io.Copy(sum, zeros(largeMiB)); err != nil {
			t.Fatal(err)
		}
		res, err := s.web.Post("http://"+s.Addr+"/up", "application/octet-stream", zeros(largeMiB))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = res.Body.Close() }()
		got, err := io.ReadAll(res.Body)
		if want := fmt.Sprintf("%d %08x", largeMiB<<20, sum.Sum32()); err != nil || string(got) != want {
			t.Errorf("upstream counted %q, %v; want %q", got, err, want)
		}
	})
	if grown := s.statusKiB(t, "VmHWM") - before; grown > flatKiB {
		t.Errorf("the gateway grew by %d KiB, want at most %d", grown, flatKiB)
	}
}

func TestEveryProtocolIsGuarded(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{
		TLS: true, Upstream: startUpstream(t, streamUpstream).Addr, Rules: "\nGET /proto authenticated"}, nil)
	token := bearer(s.Issuer.as(t, "u-1", "user"))
	for proto, c := range map[string]*client{
		"HTTP/2.0": s.web,
		"HTTP/3.0": newH3Client(t, s.gateway, s.Addr),
	} {
		t.Run(proto, func(t *testing.T) {
			a := c.send(t, "GET", "/proto", "", token)
			if a.Status != 200 || a.Proto != proto || !strings.HasSuffix(string(a.Body), " /proto") {
				t.Errorf("status %d over %s, want 200 over %s\n%s", a.Status, a.Proto, proto, a.Body)
			}
			wantProblem(t, c.send(t, "GET", "/proto", ""), 401, "token-missing")
			wantProblem(t, c.send(t, "GET", "/other", "", token), 403, "forbidden")
		})
	}
}

// TestAnApplicationBehindTheGatewayIsUnchanged compares answers of a foreign
// application with and without the gateway in front.
func TestAnApplicationBehindTheGatewayIsUnchanged(t *testing.T) {
	t.Parallel()
	up := startUpstream(t, httpbinUpstream)
	s := startSite(t, siteConfig{Upstream: up.Addr, Rules: publicRules}, nil)
	direct := newClient(t, "http://"+up.Addr)
	for _, c := range []struct{ method, path, body string }{
		{"GET", "/status/204", ""}, {"GET", "/status/418", ""}, {"GET", "/bytes/4096?seed=7", ""},
		{"GET", "/html", ""}, {"GET", "/range/64", ""}, {"GET", "/deny", ""},
		{"GET", "/redirect-to?url=/get", ""}, {"GET", "/encoding/utf8", ""}, {"GET", "/base64/aGVsbG8=", ""},
		{"POST", "/status/201", "x=1"}, {"PUT", "/status/200", "body"}, {"DELETE", "/status/200", ""},
		{"GET", "/drip?numbytes=5&duration=0.2", ""}, {"HEAD", "/get", ""},
	} {
		t.Run(c.method+" "+c.path, func(t *testing.T) {
			want, got := direct.send(t, c.method, c.path, c.body), s.send(t, c.method, c.path, c.body)
			if got.Status != want.Status || c.path != "/gzip" && string(got.Body) != string(want.Body) {
				t.Errorf("status %d and %d bytes, want %d and %d", got.Status, len(got.Body), want.Status, len(want.Body))
			}
			for _, name := range []string{"Content-Type", "Content-Encoding", "ETag", "Location", "Accept-Ranges"} {
				if got.Header.Get(name) != want.Header.Get(name) {
					t.Errorf("%s %q, want %q", name, got.Header.Get(name), want.Header.Get(name))
				}
			}
		})
	}
}
