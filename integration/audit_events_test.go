//go:build linux

package integration

import (
	"bufio"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// outcome is what an event says about how a request ended.
type outcome struct {
	class, outcome, severity, reason, stream string
	status                                   int
}

func outcomeOf(e event) outcome {
	stream, _ := e.Details["stream"].(string)
	return outcome{e.Class, e.Outcome, e.Severity, e.Reason, stream, e.Status}
}

// TestEveryRequestHasOneOutcome ends requests in every way there is and looks for
// exactly one event of each, two for streams.
func TestEveryRequestHasOneOutcome(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{Rules: `
			GET,HEAD,POST /open/** public
			GET /me authenticated
			GET /limited public`, Gate: "limit once 1/24h by ip {\n on GET /limited\n}",
		Site: "\thandle_errors 401 {\n\t\trespond \"a page\" 401\n\t}",
	}, nil)
	over := make(chan struct{})
	defer close(over)
	s.Spy.respond(func(r recorded) []byte {
		switch path, _, _ := strings.Cut(r.Target, "?"); path {
		case "/open/dies":
			return []byte("HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\nonly this")
		case "/open/dies-chunked":
			return []byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n9\r\nonly this")
		case "/open/closes":
			return nil
		case "/open/gone":
			<-over
		case "/open/hints":
			return []byte("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </b>\r\n\r\n" + plainOK)
		case "/open/head":
			return []byte("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n")
		case "/open/teapot":
			return rawAnswer(418, "no coffee")
		case "/open/broken":
			return rawAnswer(500, "broken")
		}
		return []byte(plainOK)
	})
	for _, request := range []string{
		rawRequest("GET", "/open/dies", s.Addr), rawRequest("GET", "/open/dies-chunked", s.Addr),
		rawRequest("GET", "/open/closes", s.Addr),
		rawRequest("HEAD", "/open/head", s.Addr), rawRequest("GET", "/open/teapot", s.Addr), rawRequest("GET", "/open/broken", s.Addr),
		rawRequest("GET", "/me", s.Addr), rawRequest("GET", "/me/x/../y", s.Addr), rawRequest("TRACE", "/open/trace", s.Addr),
		rawRequest("GET", "/nowhere", s.Addr),
		rawRequest("GET", "/open/headers", s.Addr, slices.Repeat([]string{"A: b"}, 200)...),
		rawRequest("GET", "/limited", s.Addr), rawRequest("GET", "/limited", s.Addr),
	} {
		s.raw(t, request)
	}
	// Not by a raw connection, which ends with the first answer that comes.
	if a := s.get(t, "/open/hints"); a.Status != 200 {
		t.Errorf("/open/hints: status %d", a.Status)
	}
	leave(t, s, "/open/gone")
	s.Stop(t)
	events := readJournal(t, s.journal())
	checkTrail(t, events)
	allowed := func(status int) outcome { return outcome{"access", "allow", "low", "rbac.public", "", status} }
	want := map[string][]outcome{
		"/open/dies":         {{"access", "aborted", "low", "upstream.aborted", "", 200}},
		"/open/dies-chunked": {{"access", "aborted", "low", "upstream.aborted", "", 200}},
		"/open/closes":       {{"access", "error", "medium", "upstream.failed", "", 502}},
		"/open/gone":         {{"access", "aborted", "low", "client.gone", "", 499}},
		"/open/hints":        {allowed(200)},
		"/open/head":         {allowed(200)},
		"/open/teapot":       {allowed(418)},
		"/open/broken":       {allowed(500)},
		"/me":                {{"security", "deny", "low", "jwt.missing", "", 401}},
		"/me/x/../y":         {{"security", "deny", "medium", "canon.dot-segment", "", 400}},
		"/open/trace":        {{"security", "deny", "low", "canon.method", "", 405}},
		"/nowhere":           {{"security", "deny", "low", "jwt.missing", "", 401}},
		"/open/headers":      {{"security", "deny", "low", "guard.too-many-headers", "", 431}},
		"/limited":           {allowed(200), {"security", "deny", "low", "limit.once", "", 429}},
	}
	for path, outcomes := range want {
		wantOutcomes(t, events, path, outcomes)
	}
}

func wantOutcomes(t *testing.T, events []event, path string, want []outcome) {
	t.Helper()
	found := filterEvents(events, func(e event) bool { return e.Path == path })
	var got []outcome
	for _, e := range found {
		got = append(got, outcomeOf(e))
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %+v, want %+v", path, got, want)
		for _, e := range found {
			t.Logf("%s", e.Line)
		}
	}
}

// TestStreamsHaveAnOpenAndACloseEvent also has a stream that its client leaves.
func TestStreamsHaveAnOpenAndACloseEvent(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{Upstream: startUpstream(t, streamUpstream).Addr, Rules: "\nGET /ws authenticated\nGET /events public"}, nil)
	echo(t, s, http.Header{"Authorization": {"Bearer " + s.Issuer.as(t, "u-1", "user")}})
	await(t, 5*time.Second, "the end of the tunnel", func() bool {
		return len(filterEvents(readJournal(t, s.journal()), func(e event) bool { return e.Path == "/ws" })) == 2
	})
	if _, _, err := websocket.Dial(t.Context(), "ws://"+s.Addr+"/ws", nil); err == nil {
		t.Error("nobody got a tunnel")
	}
	res, err := s.web.Get("http://" + s.Addr + "/events")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(res.Body).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	await(t, 5*time.Second, "the open event while the stream runs", func() bool {
		return len(filterEvents(readJournal(t, s.journal()), func(e event) bool { return e.Path == "/events" })) == 1
	})
	_ = res.Body.Close() // The client leaves.
	await(t, 5*time.Second, "the close event", func() bool {
		return len(filterEvents(readJournal(t, s.journal()), func(e event) bool { return e.Path == "/events" })) == 2
	})
	s.Stop(t)
	events := readJournal(t, s.journal())
	checkTrail(t, events)
	wantOutcomes(t, events, "/ws", []outcome{
		{"access", "allow", "low", "rbac.authenticated", "open", 101},
		{"access", "allow", "low", "rbac.authenticated", "close", 101},
		{"security", "deny", "low", "jwt.missing", "", 401},
	})
	wantOutcomes(t, events, "/events", []outcome{
		{"access", "allow", "low", "rbac.public", "open", 200},
		{"access", "aborted", "low", "client.gone", "close", 200},
	})
}

func TestActionsAreNamedByRules(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{Rules: `
			GET /documents/{id} public {
				action documents.read
			}
			POST /documents/{id} public`}, nil)
	s.get(t, "/documents/1")
	s.send(t, "POST", "/documents/2", "")
	s.send(t, "DELETE", "/documents/3", "")
	s.Stop(t)
	for _, c := range []struct{ path, action string }{
		{"/documents/1", "documents.read"}, {"/documents/2", "POST /documents/{id}"}, {"/documents/3", "DELETE"},
	} {
		found := filterEvents(readJournal(t, s.journal()), func(e event) bool { return e.Resource == c.path })
		if len(found) != 1 || found[0].Action != c.action {
			t.Errorf("%s: %d events, want one of the action %q\n%+v", c.path, len(found), c.action, found)
		}
	}
}

// TestConfigurationsAreInTheTrail reloads, fails to, and only looks.
func TestConfigurationsAreInTheTrail(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{}, nil)
	good := s.Config
	named := func(action string) []event {
		return filterEvents(readJournal(t, s.journal()), func(e event) bool { return e.Action == action })
	}
	await(t, 5*time.Second, "config.loaded", func() bool { return len(named("config.loaded")) == 1 })
	// Lines that move change nothing that counts.
	s.reload(t, func(c *siteConfig) { c.Global = "\n\n"; c.Headers = "headers api" })
	await(t, 5*time.Second, "config.loaded", func() bool { return len(named("config.loaded")) == 2 })
	broken := s.Config
	broken.Site = "\tbind 203.0.113.1"
	if _, exit := s.Reload(t, broken.render(s.Issuer)); exit == 0 {
		t.Fatal("the broken configuration was accepted")
	}
	await(t, 5*time.Second, "config.rejected", func() bool { return len(named("config.rejected")) == 1 })
	before := len(readJournal(t, s.journal()))
	if out, exit := s.validate(t); exit != 0 && !strings.Contains(out, "203.0.113.1") {
		t.Fatalf("validate: %s", out)
	}
	if after := len(filterEvents(readJournal(t, s.journal())[before:], func(e event) bool { return strings.HasPrefix(e.Action, "config.") })); after != 0 {
		t.Errorf("validate left %d events", after)
	}
	s.reload(t, func(c *siteConfig) {
		*c = good
		c.Global = "role extra x.y"
		c.Gate = "limit 5/1h by ip"
		c.Rules = siteRules + "\nGET /new public"
	})
	await(t, 5*time.Second, "config.loaded", func() bool { return len(named("config.loaded")) == 3 })
	s.Stop(t)
	loaded := named("config.loaded")
	hash := regexp.MustCompile(`^[0-9a-f]{64}$`)
	for n, want := range [][]string{
		nil,
		{"site " + s.label() + " headers"},
		{"role extra", "site " + s.label() + " headers", "site " + s.label() + " limit", "site " + s.label() + " rbac"},
	} {
		e := loaded[n]
		var changed []string
		list, told := e.Details["changed"].([]any)
		for _, name := range list {
			changed = append(changed, name.(string))
		}
		sum, _ := e.Details["sha256"].(string)
		if !slices.Equal(changed, want) || told != (n > 0) || !hash.MatchString(sum) || e.Class != "admin" || e.Outcome != "allow" {
			t.Errorf("load %d: changed %q, want %q\n%s", n, changed, want, e.Line)
		}
		if n > 0 && sum == loaded[n-1].Details["sha256"] {
			t.Errorf("load %d: another configuration has the same hash", n)
		}
	}
	if e := named("config.rejected")[0]; e.Class != "admin" || e.Outcome != "error" || e.Severity != "medium" {
		t.Errorf("%s", e.Line)
	}
	for _, action := range []string{"gateway.start", "gateway.stop"} {
		if found := named(action); len(found) != 1 || found[0].Class != "admin" || found[0].UserID != "moat" {
			t.Errorf("%d events %s, want one of class admin by moat", len(found), action)
		}
	}
	checkTrail(t, readJournal(t, s.journal()))
}

// label is what the site calls itself.
func (s *site) label() string { return "http://" + s.Addr }

func TestPseudonymsAreInTheTrailAndNoNames(t *testing.T) {
	t.Parallel()
	secret := filepath.Join(privateDir(t), "pseudonyms.key")
	s := startSite(t, siteConfig{
		NoAudit: true, Gate: "limit api 900/1h by ip\nlimit mine 500/1h by user",
		Global: "audit {\njournal {$MOAT_JOURNAL} {\nfsync 10ms\n}\nsink stdout\npseudonymize " + secret + " ip user\n}",
	}, nil)
	if info, err := os.Stat(secret); err != nil || info.Mode() != 0o600 {
		t.Fatalf("key file: %v, %v", info, err)
	}
	token := bearer(s.Issuer.as(t, "planted-user", "user"))
	first, second := s.get(t, "/me", token), s.get(t, "/documents/7", token)
	flood(130, []*client{s.web}, "GET", "/me")
	s.wantLimit(t, []string{"reset", "api", "127.0.0.1"})
	s.wantLimit(t, []string{"show", "mine", "planted-user"})
	s.Stop(t)
	events := readJournal(t, s.journal())
	checkTrail(t, events)
	pseudonym := regexp.MustCompile(`^p:[0-9a-f]{32}$`)
	one, two := ofRequest(events, first.Header.Get("X-Request-Id")), ofRequest(events, second.Header.Get("X-Request-Id"))
	if len(one) != 1 || len(two) != 1 || one[0].UserID != two[0].UserID || one[0].IP != two[0].IP ||
		!pseudonym.MatchString(one[0].UserID) || !pseudonym.MatchString(one[0].IP) {
		t.Fatalf("the caller's events do not belong together:\n%+v\n%+v", one, two)
	}
	for action, key := range map[string]string{"limit.reset": "ip:" + one[0].IP, "limit.show": "user:main " + one[0].UserID} {
		found := filterEvents(events, func(e event) bool { return e.Action == action })
		if len(found) != 1 || found[0].Details["key"] != key || found[0].UserID != "moat" {
			t.Errorf("%s: want the key %s\n%+v", action, key, found)
		}
	}
	if n := len(filterEvents(events, func(e event) bool { return e.Action == "audit.summary" && e.IP == one[0].IP })); n == 0 {
		t.Error("no summary of the flood")
	}
	if n := len(filterEvents(events, func(e event) bool { return e.UserID == "anonymous" && e.Path == "/me" })); n == 0 {
		t.Error("anonymous has a pseudonym")
	}
	for _, e := range events {
		text := strings.ReplaceAll(strings.ReplaceAll(string(e.Line), s.Addr, ""), `"host":"127.0.0.1"`, "")
		text = strings.ReplaceAll(text, `"site":"127.0.0.1"`, "")
		if strings.Contains(text, "127.0.0.1") || strings.Contains(text, "planted-user") {
			t.Errorf("a name is in\n%s", e.Line)
		}
	}
}

func TestValidateCreatesNoKey(t *testing.T) {
	t.Parallel()
	dir := privateDir(t)
	h := newHome(t, caddyfile("audit {\njournal {$MOAT_JOURNAL} {\nkey "+dir+"/sign\n}\npseudonymize "+dir+"/names ip\n}"), nil)
	if out, exit := h.validate(t); exit != 0 {
		t.Fatal(out)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 0 {
		t.Errorf("files %v, %v", files, err)
	}
	if _, err := os.Stat(h.journal()); err == nil {
		t.Error("the journal was created")
	}
	for _, c := range []struct{ words, want string }{
		{"pseudonymize {$MOAT_JOURNAL}/names ip", "must not lie in the directory of the journal"},
		{"record_headers X-Forwarded-For\npseudonymize " + dir + "/names ip", "carries an address"},
		{"record_headers \"a b\"", "must be the name of a header"},
	} {
		h.write(t, caddyfile("audit {\njournal {$MOAT_JOURNAL}\n"+c.words+"\n}"))
		if out, exit := h.validate(t); exit == 0 || !strings.Contains(out, c.want) {
			t.Errorf("%s: exit %d, no %q in\n%s", c.words, exit, c.want, lastLines(out, 2))
		}
	}
}
