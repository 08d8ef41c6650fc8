//go:build linux

package integration

import (
	"fmt"
	"strings"
	"testing"
)

// TestWithFsyncAlwaysTheEventIsThereWhenTheAnswerIs reads the journal as soon as
// an answer is complete: whoever saw the answer must find its event.
func TestWithFsyncAlwaysTheEventIsThereWhenTheAnswerIs(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{NoAudit: true, Global: `
		audit {
			journal {$MOAT_JOURNAL} {
				fsync always
			}
		}`}, nil)
	chunked := "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
	for n := range 24 {
		body := strings.Repeat("x", 1+n*977)
		s.Spy.respond(func(r recorded) []byte {
			if strings.HasSuffix(r.Target, "chunked") {
				return []byte(chunked)
			}
			return fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		})
		for _, path := range []string{"/open/length", "/open/chunked", "/nothing"} {
			a := s.get(t, path)
			if path == "/open/length" && string(a.Body) != body {
				t.Fatalf("%d bytes of %d arrived", len(a.Body), len(body))
			}
			if found := ofRequest(readJournal(t, s.journal()), a.Header.Get("X-Request-Id")); len(found) != 1 {
				t.Errorf("%s: %d events when the answer was complete", path, len(found))
			}
		}
	}
}
