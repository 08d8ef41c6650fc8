//go:build linux

package integration

import (
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// refusalStatuses are what a request that is not let through may be answered.
var refusalStatuses = []int{400, 401, 403, 404, 405, 414, 421, 431, 505}

// TestIntegrityOracleKnowsTheTricks keeps the oracle honest: it must call out
// every trick that a permissive gateway would forward.
func TestIntegrityOracleKnowsTheTricks(t *testing.T) {
	t.Parallel()
	for _, target := range []string{
		"/open/../private", "/open/%2e%2e/private", "/open/%252e%252e/x", "/open/..;/private", "/open/..%3bx/private", `/open\..\private`,
		"/open/%5c..%5c../x", "/open/private", "/open/private;x/y", "/open/%2570rivate/x", "/open/%u002e%u002e/x", "/open/%c0%ae%c0%ae/x",
		"/open/a%2f..%2f..%2fx", "/open/a%00", "/private/x", "//private", "/open/a%250d", "/open/%25%32%65./x", "", "open/a",
	} {
		if leaves(target) == "" {
			t.Errorf("%q is not found to leave /open", target)
		}
	}
	for target, want := range map[string]string{
		"/open/a": "/open/a", "/open/%61%7e": "/open/a~", "/open/%c3%a9?%7e%c3": "/open/%C3%A9?%7e%c3", "/open/100%25": "/open/100%25",
	} {
		if why := leaves(target); why != "" || canonicalForm(target) != want {
			t.Errorf("%q: %s, canonical form %q, want %q inside /open", target, why, canonicalForm(target), want)
		}
	}
}

// TestIntegrityNoSpellingLeavesTheOpenTree sends every trick over HTTP/1.1 and
// HTTP/2. What reaches the upstream is inside the open tree in every reading and
// spelled as the client did, but for the canonical rewriting.
func TestIntegrityNoSpellingLeavesTheOpenTree(t *testing.T) {
	t.Parallel()
	targets := trickTargets()
	t.Run("HTTP/1.1", func(t *testing.T) {
		t.Parallel()
		s := startSite(t, siteConfig{Rules: integrityRules}, nil)
		sendAll(targets, 16, func(i int, target string) {
			target = strings.ReplaceAll(target, "{host}", s.Addr)
			method := []string{"GET", "POST", "GET", "HEAD"}[i%4]
			conn, err := net.DialTimeout("tcp", s.Addr, 10*time.Second)
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = conn.Close() }()
			_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
			status := statusOf(conn, rawRequest(method, target, s.Addr, fmt.Sprintf("%s: 1-%d", caseHeader, i)))
			if status != 0 && status/100 != 2 && !slices.Contains(refusalStatuses, status) {
				t.Errorf("%s %q: status %d", method, target, status)
			}
		})
		judge(t, s.Spy, "1", targets, s.Addr)
	})
	t.Run("HTTP/2", func(t *testing.T) {
		t.Parallel()
		s := startSite(t, siteConfig{Rules: integrityRules, TLS: true}, nil)
		config, authority := clientTLS(t, s.gateway), fmt.Sprintf("localhost:%d", s.Config.Port)
		sendAll(targets, 4, func(i int, target string) {
			target = strings.ReplaceAll(target, "{host}", authority)
			fields := h2Fields("GET", target, authority, hpack.HeaderField{Name: strings.ToLower(caseHeader), Value: fmt.Sprintf("2-%d", i)})
			if status := rawH2Status(t, s.Addr, config, fields); status/100 == 5 && status != 505 {
				t.Errorf("%q: status %d", target, status)
			}
		})
		judge(t, s.Spy, "2", targets, authority)
	})
}

// sendAll hands each target to one of a few goroutines.
func sendAll(targets []string, workers int, send func(i int, target string)) {
	var wg sync.WaitGroup
	next := make(chan int)
	for range workers {
		wg.Go(func() {
			for i := range next {
				send(i, targets[i])
			}
		})
	}
	for i := range targets {
		next <- i
	}
	close(next)
	wg.Wait()
}

// rawH2Status is rawH2 for use outside the test's own goroutine; 0 is a reset.
func rawH2Status(t *testing.T, addr string, config *tls.Config, fields []hpack.HeaderField) (status int) {
	config = config.Clone()
	config.NextProtos = []string{"h2"}
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", addr, config)
	if err != nil {
		t.Error(err)
		return 0
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if err := sendH2(conn, framer, fields); err != nil {
		return 0
	}
	_, _ = fmt.Sscan(readH2(t, framer), &status)
	return status
}

// judge asks the oracle about everything that arrived.
func judge(t *testing.T, spy *spy, proto string, targets []string, host string) {
	t.Helper()
	arrived := map[string]bool{}
	for _, r := range spy.requests() {
		var i int
		mark := strings.Join(r.get(caseHeader), "")
		if _, err := fmt.Sscanf(mark, proto+"-%d", &i); err != nil {
			t.Errorf("a request without a mark arrived:\n%q", r.Head)
			continue
		}
		if arrived[mark] {
			t.Errorf("%q arrived twice", targets[i])
		}
		arrived[mark] = true
		sent := strings.ReplaceAll(targets[i], "{host}", host)
		if rest, ok := cutFold(sent, "http://"+host); ok {
			sent = rest
		}
		if why := leaves(r.Target); why != "" {
			t.Errorf("%q arrived as %q, which %s", targets[i], r.Target, why)
		}
		if want := canonicalForm(sent); r.Target != want {
			t.Errorf("%q arrived as %q, want %q", targets[i], r.Target, want)
		}
	}
	t.Logf("HTTP/%s: %d targets, %d reached the upstream", proto, len(targets), len(arrived))
	if len(arrived) < 100 || len(targets) < 150 {
		t.Error("the harmless ones did not arrive; the test proves nothing")
	}
}

func cutFold(s, prefix string) (string, bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return s, false
	}
	return s[len(prefix):], true
}

// statusOf sends bytes and returns the first status; 0 when there was none.
func statusOf(conn net.Conn, request string) (status int) {
	if _, err := conn.Write([]byte(request)); err != nil {
		return 0
	}
	head := make([]byte, 12)
	for n := 0; n < len(head); {
		m, err := conn.Read(head[n:])
		if n += m; err != nil && n < len(head) {
			return 0
		}
	}
	_, _ = fmt.Sscanf(string(head), "HTTP/1.1 %d", &status)
	return status
}
