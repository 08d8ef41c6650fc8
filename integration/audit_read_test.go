//go:build linux

package integration

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode"
)

// linesOf returns what --json must print of these events.
func linesOf(events []event) string {
	var b bytes.Buffer
	for _, e := range events {
		b.Write(e.Line)
		b.WriteByte('\n')
	}
	return b.String()
}

// wantHarmless fails when a terminal could do anything with a text but show it.
func wantHarmless(t *testing.T, text string) {
	t.Helper()
	if i := strings.IndexFunc(text, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }); i >= 0 {
		t.Errorf("the output holds %q", text[i:min(len(text), i+20)])
	}
}

func TestAuditReadSearch(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{}, nil)
	user, admin := bearer(s.Issuer.as(t, "u-1", "user")), bearer(s.Issuer.as(t, "a-1", "admin"))
	began := time.Now().UTC()
	public := s.get(t, "/open/a?x=1")
	refused := s.get(t, "/documents/7", user)
	allowed := s.get(t, "/documents/7", admin)
	s.get(t, "/nowhere", admin)
	s.get(t, "/me")
	awaitEvent(t, s.journal(), public.Header.Get("X-Request-Id"))
	awaitEvent(t, s.journal(), allowed.Header.Get("X-Request-Id"))
	s.Stop(t)
	events := readJournal(t, s.journal())
	for name, c := range map[string]struct {
		args []string
		keep func(event) bool
	}{
		"everything":     {nil, func(event) bool { return true }},
		"a user":         {[]string{"--user", "a-1"}, func(e event) bool { return e.UserID == "a-1" }},
		"two users":      {[]string{"--user", "a-1", "--user", "u-1"}, func(e event) bool { return e.UserID == "a-1" || e.UserID == "u-1" }},
		"an action":      {[]string{"--action", "gateway.start"}, func(e event) bool { return e.Action == "gateway.start" }},
		"actions":        {[]string{"--action", "GET /doc*"}, func(e event) bool { return strings.HasPrefix(e.Action, "GET /doc") }},
		"an outcome":     {[]string{"--outcome", "deny"}, func(e event) bool { return e.Outcome == "deny" }},
		"a severity":     {[]string{"--severity", "medium"}, func(e event) bool { return e.Severity == "medium" }},
		"least severity": {[]string{"--min-severity", "medium"}, func(e event) bool { return e.Severity != "low" }},
		"a class":        {[]string{"--class", "admin"}, func(e event) bool { return e.Class == "admin" }},
		"a reason":       {[]string{"--reason", "rbac.no-permission"}, func(e event) bool { return e.Reason == "rbac.no-permission" }},
		"reasons":        {[]string{"--reason", "rbac.no-*"}, func(e event) bool { return strings.HasPrefix(e.Reason, "rbac.no-") }},
		"a request": {[]string{"--request-id", refused.Header.Get("X-Request-Id")}, func(e event) bool {
			return e.RequestID == refused.Header.Get("X-Request-Id")
		}},
		"an address": {[]string{"--ip", "127.0.0.0/8"}, func(e event) bool { return e.IP != "" }},
		"a tenant":   {[]string{"--tenant", "t-1"}, func(e event) bool { return e.Tenant == "t-1" }},
		"paths":      {[]string{"--path", "/open/*"}, func(e event) bool { return strings.HasPrefix(e.Path, "/open/") }},
		"two kinds":  {[]string{"--path", "/documents/7", "--outcome", "allow"}, func(e event) bool { return e.Path == "/documents/7" && e.Outcome == "allow" }},
		"since":      {[]string{"--since", began.Format(time.RFC3339Nano)}, func(e event) bool { return e.Timestamp >= began.Format("2006-01-02T15:04:05.000000Z") }},
		"until":      {[]string{"--until", began.Format(time.RFC3339Nano)}, func(e event) bool { return e.Timestamp < began.Format("2006-01-02T15:04:05.000000Z") }},
		"an hour":    {[]string{"--since", "1h"}, func(event) bool { return true }},
	} {
		want := filterEvents(events, c.keep)
		if len(want) == 0 {
			t.Errorf("%s: the trail has no such event", name)
		}
		out, exit := s.moat(t, slices.Concat([]string{"audit", "search", s.journal(), "--json"}, c.args)...)
		if exit != 0 || out != linesOf(want) {
			t.Errorf("%s: exit %d, want %d lines as they are\n%s", name, exit, len(want), out)
		}
		slices.Reverse(want)
		if out, exit = s.moat(t, slices.Concat([]string{"audit", "search", s.journal(), "--json", "--reverse"}, c.args)...); exit != 0 || out != linesOf(want) {
			t.Errorf("%s, reverse: exit %d, want %d lines as they are\n%s", name, exit, len(want), out)
		}
	}
	if out, exit := s.moat(t, "audit", "search", s.journal(), "--user", "nobody"); exit != 1 || out != "" {
		t.Errorf("nothing found: exit %d\n%s", exit, out)
	}
	if out, exit := s.moat(t, "audit", "tail", s.journal(), "--json", "-n", "2"); exit != 0 || out != linesOf(events[len(events)-2:]) {
		t.Errorf("tail: exit %d\n%s", exit, out)
	}
	row := regexp.MustCompile(`(?m)^\S+Z +medium +deny +403 +GET /documents/7 +u-1 +127\.0\.0\.1 +rbac\.no-permission +` + refused.Header.Get("X-Request-Id") + "$")
	if out, exit := s.moat(t, "audit", "search", s.journal(), "--outcome", "deny"); exit != 0 || !row.MatchString(out) {
		t.Errorf("table: exit %d, no row %s\n%s", exit, row, out)
	}
}

func TestAuditReadErrors(t *testing.T) {
	t.Parallel()
	h := newHome(t, "", nil)
	for name, c := range map[string]struct {
		args []string
		want []string
	}{
		"no trail":     {[]string{h.Dir}, []string{"there is no trail in this directory"}},
		"no directory": {[]string{filepath.Join(h.Dir, "none")}, []string{"no such file or directory"}},
		"wrong flags":  {[]string{h.Dir, "--outcome", "no", "--ip", "x"}, []string{`--outcome "no": must be one of`, `--ip "x": must be`}},
		"empty flag":   {[]string{h.Dir, "--user", ""}, []string{"--user: is empty"}},
	} {
		for _, command := range []string{"search", "tail"} {
			out, exit := h.moat(t, append([]string{"audit", command}, c.args...)...)
			if exit != 2 || !strings.Contains(out, "moat audit "+command+": ") {
				t.Errorf("%s %s: exit %d\n%s", command, name, exit, out)
			}
			for _, want := range c.want {
				if !strings.Contains(out, want) {
					t.Errorf("%s %s: no %q in\n%s", command, name, want, out)
				}
			}
		}
	}
}

func TestAuditReadFollow(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{}, nil)
	before := s.get(t, "/open/before").Header.Get("X-Request-Id")
	awaitEvent(t, s.journal(), before)
	follow := startProcess(t, s.Env, moatBinary, "audit", "tail", s.journal(), "--follow", "-n", "1", "--path", "/open/*", "--json")
	shown := func(id string, budget time.Duration) {
		t.Helper()
		await(t, budget, "the event "+id, func() bool { return strings.Contains(follow.stdout.String(), id) })
	}
	shown(before, startBudget)
	shown(s.get(t, "/open/after").Header.Get("X-Request-Id"), 2*time.Second)
	s.get(t, "/me") // Is not meant.
	// A gateway that starts again begins another segment.
	s.Stop(t)
	again := startIn(t, s.home, []string{s.Addr}, "--config", s.File, "--adapter", "caddyfile")
	s.web.CloseIdleConnections()
	shown(s.get(t, "/open/again").Header.Get("X-Request-Id"), 2*time.Second)
	follow.signal(t, syscall.SIGINT)
	select {
	case <-follow.done:
	case <-time.After(5 * time.Second):
		t.Fatal("tail does not end")
	}
	again.Stop(t)
	want := filterEvents(readJournal(t, s.journal()), func(e event) bool { return strings.HasPrefix(e.Path, "/open/") })
	if out := follow.stdout.String(); out != linesOf(want) || follow.stderr.String() != "" {
		t.Errorf("%d lines wanted as they are, got\n%s%s", len(want), out, follow.stderr.String())
	}
	if code := follow.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit %d", code)
	}
	if files, _ := filepath.Glob(filepath.Join(s.journal(), "*.jsonl")); len(files) < 2 {
		t.Errorf("%d segments, want two at least", len(files))
	}
}

func TestAuditReadHostileValues(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{}, nil)
	const hostile = "u\x1b[2J\n\u202e\u0085x"
	s.get(t, "/me", bearer(s.Issuer.as(t, hostile, "admin")))
	for _, target := range []string{"/open/%1b%5b2J%0a%e2%80%ae", "/open/a\x1b[2J", "/open/\u202e", "/open/%5c%0d"} {
		s.raw(t, "GET "+target+" HTTP/1.1\r\nHost: "+s.Addr+"\r\nX-Request-Id: a\u202eb\r\nConnection: close\r\n\r\n")
	}
	s.Stop(t)
	out, exit := s.moat(t, "audit", "search", s.journal(), "--class", "security", "--class", "access")
	if exit != 0 || strings.Count(out, "\n") < 4 {
		t.Errorf("exit %d\n%s", exit, out)
	}
	wantHarmless(t, out)
	// Whatever a gateway lets into a trail, and whoever wrote it.
	dir := filepath.Join(s.Dir, "written")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	written := fmt.Sprintf(`{"timestamp":"2026-07-01T12:00:00.000000Z","userId":%[1]q,"ip":%[1]q,"action":"a","method":%[1]q,"path":%[1]q,"reason":%[1]q,`+
		`"severity":%[1]q,"outcome":%[1]q,"requestId":%[1]q,"seq":1}`, "MARK") + "\n\x1b[2Jnothing\n"
	written = strings.ReplaceAll(written, "MARK", `u\u001b[2J\n\u202e\u0085x`)
	if err := os.WriteFile(filepath.Join(dir, "000000000001.jsonl"), []byte(written), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"search", "tail"} {
		out, exit := s.moat(t, "audit", command, dir, "--user", hostile)
		if exit != 0 || strings.Count(out, "\n") != 3 || !strings.Contains(out, `u\u001b[2J\u000a\u202e\u0085x`) || !strings.Contains(out, "no events: 1") {
			t.Errorf("%s: exit %d\n%q", command, exit, out)
		}
		wantHarmless(t, out)
	}
}

// TestAuditReadLeavesTheTrailAlone compares the directory before and after.
func TestAuditReadLeavesTheTrailAlone(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{}, nil)
	s.get(t, "/open/a")
	s.Stop(t)
	names := func() (list []string) {
		entries, err := os.ReadDir(s.journal())
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			info, err := e.Info()
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, fmt.Sprint(e.Name(), info.Size(), info.ModTime()))
		}
		return list
	}
	before := names()
	for _, command := range []string{"search", "tail"} {
		if out, exit := s.moat(t, "audit", command, s.journal()); exit != 0 {
			t.Errorf("%s: exit %d\n%s", command, exit, out)
		}
	}
	if after := names(); !slices.Equal(before, after) {
		t.Errorf("the directory had\n%q\nand has\n%q", before, after)
	}
}
