//go:build linux

package integration

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// eventFields are on every event.
var eventFields = []string{
	"timestamp", "userId", "action", "resource", "details", "ip", "id", "seq", "instance", "class", "outcome",
	"reason", "severity", "requestId", "tenant", "roles", "method", "host", "path", "route", "status",
	"durationMs", "bytesIn", "bytesOut", "prev",
}

var eventTime = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$`)

// checkTrail checks what holds for every line and for the chain.
func checkTrail(t *testing.T, events []event) {
	t.Helper()
	oneOf := func(e event, field, value string, allowed ...string) {
		if !slices.Contains(allowed, value) {
			t.Errorf("%s %q, want one of %q\n%s", field, value, allowed, e.Line)
		}
	}
	for n, e := range events {
		for _, field := range eventFields {
			if _, ok := e.Fields[field]; !ok {
				t.Errorf("no %s in\n%s", field, e.Line)
			}
		}
		if _, ok := e.Fields["details"].(map[string]any); !ok {
			t.Errorf("details is no object in\n%s", e.Line)
		}
		if _, ok := e.Fields["roles"].([]any); !ok {
			t.Errorf("roles is no array in\n%s", e.Line)
		}
		if !eventTime.MatchString(e.Timestamp) || !uuidV7.MatchString(e.ID) || e.UserID == "" || e.Action == "" {
			t.Errorf("timestamp, id, userId or action of\n%s", e.Line)
		}
		oneOf(e, "class", e.Class, "access", "security", "admin")
		oneOf(e, "outcome", e.Outcome, "allow", "deny", "error", "aborted")
		oneOf(e, "severity", e.Severity, "low", "medium", "high")
		if n == 0 {
			continue
		}
		if e.Seq != events[n-1].Seq+1 {
			t.Errorf("seq %d after %d", e.Seq, events[n-1].Seq)
		}
		if sum := sha256.Sum256(events[n-1].Line); e.Prev != hex.EncodeToString(sum[:]) {
			t.Errorf("prev of seq %d is not the hash of the line before", e.Seq)
		}
	}
}

func TestOneRequestOneEvent(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{Gate: "limit once 1/24h by ip {\n on GET /open/limited\n}"}, nil)
	user, admin := bearer(s.Issuer.as(t, "u-1", "user")), bearer(s.Issuer.as(t, "a-1", "admin"))
	s.get(t, "/open/limited")
	type want struct {
		class, outcome, user, route, code string
		status                            int
	}
	cases := map[string]struct {
		method, path, body string
		header             []string
		want               want
	}{
		"public":         {"GET", "/open/a?x=1", "", nil, want{"access", "allow", "anonymous", "/open/**", "", 200}},
		"somebody":       {"GET", "/documents/7", "", []string{admin}, want{"access", "allow", "a-1", "/documents/{id}", "", 200}},
		"with a body":    {"POST", "/open/b", "hello", nil, want{"access", "allow", "anonymous", "/open/**", "", 200}},
		"no token":       {"GET", "/me", "", nil, want{"security", "deny", "anonymous", "/me", "token-missing", 401}},
		"bad token":      {"GET", "/me", "", []string{"Authorization: Bearer x"}, want{"security", "deny", "anonymous", "/me", "token-invalid", 401}},
		"forbidden":      {"GET", "/documents/7", "", []string{user}, want{"security", "deny", "u-1", "/documents/{id}", "forbidden", 403}},
		"no rule":        {"GET", "/nowhere", "", []string{admin}, want{"security", "deny", "a-1", "", "forbidden", 403}},
		"limited":        {"GET", "/open/limited", "", nil, want{"security", "deny", "anonymous", "/open/**", "rate-limited", 429}},
		"not canonical":  {"GET", "/open//a", "", nil, want{"security", "deny", "anonymous", "", "bad-request", 400}},
		"bad method":     {"TRACE", "/open/a", "", nil, want{"security", "deny", "anonymous", "", "method-not-allowed", 405}},
		"upstream's 404": {"GET", "/open/404", "", nil, want{"access", "allow", "anonymous", "/open/**", "", 404}},
	}
	s.Spy.respond(func(r recorded) []byte {
		if strings.HasSuffix(r.Target, "404") {
			return rawAnswer(404, "nothing here")
		}
		return []byte(plainOK)
	})
	ids := map[string]string{}
	for name, c := range cases {
		a := s.send(t, c.method, c.path, c.body, c.header...)
		if a.Status != c.want.status {
			t.Fatalf("%s: status %d, want %d\n%s", name, a.Status, c.want.status, a.Body)
		}
		ids[name] = a.Header.Get("X-Request-Id")
	}
	s.Stop(t)
	events := readJournal(t, s.journal())
	checkTrail(t, events)
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			found := ofRequest(events, ids[name])
			if len(found) != 1 {
				t.Fatalf("%d events for request %s, want one", len(found), ids[name])
			}
			e, path := found[0], strings.Split(c.path, "?")[0]
			got := want{e.Class, e.Outcome, e.UserID, e.Route, c.want.code, e.Status}
			if got != c.want {
				t.Errorf("got %+v, want %+v\n%s", got, c.want, e.Line)
			}
			if e.Method != c.method || e.IP != "127.0.0.1" || e.Resource == "" || e.DurationMs <= 0 {
				t.Errorf("method, ip, resource or durationMs of\n%s", e.Line)
			}
			if name != "not canonical" && e.Path != path {
				t.Errorf("path %q, want %q", e.Path, path)
			}
			if e.Reason == "" && c.want.outcome != "allow" {
				t.Errorf("no reason on outcome %s", e.Outcome)
			}
			if e.BytesIn != int64(len(c.body)) || e.Outcome == "allow" && e.BytesOut == 0 {
				t.Errorf("bytesIn %d, bytesOut %d\n%s", e.BytesIn, e.BytesOut, e.Line)
			}
		})
	}
}

func TestStateChangesAreEvents(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{}, nil)
	changes := func() int {
		return len(filterEvents(readJournal(t, s.journal()), func(e event) bool {
			return e.Class != "access" && e.Method == "" && e.Action != "audit.segment"
		}))
	}
	await(t, 5*time.Second, "an event of the start", func() bool { return changes() > 0 })
	started := changes()
	s.reload(t, func(c *siteConfig) { c.Headers = "headers api" })
	await(t, 5*time.Second, "an event of the new configuration", func() bool { return changes() > started })
	loaded := changes()
	s.Stop(t)
	if changes() <= loaded {
		t.Error("no event of the stop")
	}
	checkTrail(t, readJournal(t, s.journal()))
}

func TestTroubledRequestsLeaveOneEvent(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{}, nil)
	over := make(chan struct{})
	defer close(over)
	s.Spy.respond(func(r recorded) []byte {
		switch {
		case strings.HasSuffix(r.Target, "/dies"):
			return []byte("HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\nonly this")
		case strings.HasSuffix(r.Target, "/nothing"):
			return nil
		case strings.HasSuffix(r.Target, "/slow"):
			<-over
		}
		return []byte(plainOK)
	})
	s.raw(t, rawRequest("GET", "/open/dies", s.Addr))
	s.raw(t, rawRequest("GET", "/open/nothing", s.Addr))
	leave(t, s, "/open/slow")
	s.Stop(t)
	events := readJournal(t, s.journal())
	checkTrail(t, events)
	for path, outcomes := range map[string][]string{
		"/open/dies":    {"aborted", "error"},
		"/open/nothing": {"error"},
		"/open/slow":    {"aborted"},
	} {
		found := filterEvents(events, func(e event) bool { return e.Path == path })
		if len(found) != 1 || !slices.Contains(outcomes, found[0].Outcome) {
			var lines []string
			for _, e := range found {
				lines = append(lines, string(e.Line))
			}
			t.Errorf("%s: want one event with outcome %v, got %d\n%s", path, outcomes, len(found), strings.Join(lines, "\n"))
		}
	}
}

// leave sends a request and goes away when it is upstream, before the answer.
func leave(t *testing.T, s *site, path string) {
	t.Helper()
	conn, err := net.Dial("tcp", s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, s.Addr); err != nil {
		t.Fatal(err)
	}
	await(t, 5*time.Second, "the request upstream", func() bool {
		seen := s.Spy.requests()
		return len(seen) > 0 && seen[len(seen)-1].Target == path
	})
	_ = conn.Close()
}

func TestFloodOfRefusalsIsSummarised(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{}, nil)
	const sent = 400
	if got := flood(sent, []*client{s.web}, "GET", "/me"); got.counts[401] != sent {
		t.Fatalf("answers %v, errors %v", got.counts, got.errs)
	}
	s.Stop(t)
	events := readJournal(t, s.journal())
	checkTrail(t, events)
	single := len(filterEvents(events, func(e event) bool { return e.Method == "GET" && e.Path == "/me" && e.Details["count"] == nil }))
	summarised := 0
	for _, e := range events {
		if n, ok := e.Details["count"].(float64); ok {
			summarised += int(n)
		}
	}
	// A flood that crosses the end of a window of ten seconds may have two hundreds.
	if single < 100 || single > 200 || single+summarised != sent {
		t.Errorf("%d events and a summary of %d, want 100 and the rest of %d", single, summarised, sent)
	}
}

func TestKilledGatewayLosesNoWrittenEvent(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{}, nil)
	var ids []string
	for range 20 {
		ids = append(ids, s.get(t, "/me").Header.Get("X-Request-Id"))
	}
	s.kill()
	before := readJournal(t, s.journal())
	for _, id := range ids {
		if len(ofRequest(before, id)) != 1 {
			t.Errorf("refusal %s is not in the journal after a kill", id)
		}
	}
	// A torn line is what a crash in the middle of a write leaves behind.
	files, err := filepath.Glob(filepath.Join(s.journal(), "*.jsonl"))
	if err != nil || len(files) == 0 {
		t.Fatalf("journal files %v, %v", files, err)
	}
	last, err := os.OpenFile(slices.Max(files), os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := last.WriteString(`{"torn":`); err != nil {
		t.Fatal(err)
	}
	if err := last.Close(); err != nil {
		t.Fatal(err)
	}
	again := startIn(t, s.home, []string{s.Addr}, "--config", s.File, "--adapter", "caddyfile")
	again.Stop(t)
	after := readJournal(t, s.journal())
	checkTrail(t, after)
	if len(after) <= len(before) || !bytes.Equal(after[len(before)-1].Line, before[len(before)-1].Line) {
		t.Errorf("%d events before the kill, %d after the next start", len(before), len(after))
	}
}
