//go:build linux

package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// settle is how long a changed policy file may take until it counts: two looks,
// and slow cores.
const settle = 20 * time.Second

func TestConditionsOfRules(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{Rules: `
		GET /mine/{org} authenticated {
			when identity.tenant == params.org
		}
		GET /quoted authenticated {
			when identity.id == "u-1" && "user" in identity.roles
		}
		GET /ticks public {
			when ` + "`method == \"GET\" && query.a == [\"1\"]`" + `
		}
		GET /file/{file} public {
			when params.file.endsWith(".txt") && cidr("127.0.0.0/8").containsIP(address)
		}
		GET /claim authenticated {
			when identity.claims.level > 3
		}
		GET /tried authenticated {
			when identity.id == "nobody"
			shadow
		}`}, nil)
	token := bearer(s.Issuer.token(t, map[string]any{"sub": "u-1", "tenant_id": "acme", "roles": []string{"user"}, "level": 7}))
	bare := bearer(s.Issuer.as(t, "u-2", "user"))
	for _, row := range []struct {
		path, token string
		status      int
		reason      string
	}{
		{"/mine/acme", token, 200, "rbac.authenticated"},
		{"/mine/other", token, 403, "rbac.condition"},
		{"/mine/acme", bare, 403, "rbac.condition"},
		{"/mine/", token, 403, "rbac.no-rule"},
		{"/quoted", token, 200, "rbac.authenticated"},
		{"/quoted", bare, 403, "rbac.condition"},
		{"/ticks?a=1", "", 200, "rbac.public"},
		{"/ticks?a=1&a=2", "", 401, "rbac.condition"},
		{"/ticks?a=2", token, 403, "rbac.condition"},
		{"/ticks", "", 401, "rbac.condition-error"},
		{"/ticks?a=1;b=2", "", 401, "rbac.condition-error"},
		{"/file/x.txt", "", 200, "rbac.public"},
		{"/file/x.exe", "", 401, "rbac.condition"},
		{"/file/x.exe;.txt", "", 400, "rbac.path-parameter"},
		{"/file/x.exe%3B.txt", "", 400, "rbac.path-parameter"},
		{"/claim", token, 200, "rbac.authenticated"},
		{"/claim", bare, 403, "rbac.condition-error"},
		{"/tried", bare, 200, "rbac.condition"},
	} {
		var headers []string
		if row.token != "" {
			headers = append(headers, row.token)
		}
		e := s.raw(t, rawRequest("GET", row.path, s.Addr, headers...))
		if e.Status != row.status {
			t.Errorf("%s: status %d, want %d", row.path, e.Status, row.status)
		}
		ev := awaitEvent(t, s.journal(), e.Header.Get("X-Request-Id"))
		if ev.Reason != row.reason {
			t.Errorf("%s: reason %s, want %s", row.path, ev.Reason, row.reason)
		}
		if strings.Contains(string(e.Body), "condition") {
			t.Errorf("%s tells the client why: %s", row.path, e.Body)
		}
		if row.path == "/tried" && !slices.Equal(shadowed(ev), []string{"rbac.condition"}) {
			t.Errorf("shadow %q", shadowed(ev))
		}
	}
}

func TestWhatEventsSayOfAnAllowedRequest(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{}, nil)
	a := s.get(t, "/documents/7", bearer(s.Issuer.as(t, "u-1", "user", "admin")))
	ev := awaitEvent(t, s.journal(), a.Header.Get("X-Request-Id"))
	if a.Status != 200 || ev.Details["role"] != "admin" || ev.Details["permission"] != "documents.read" {
		t.Errorf("status %d, details %v", a.Status, ev.Details)
	}
}

// policySite is a site whose roles and rules stand in files.
func policySite(t *testing.T) (s *site, roles, rules string) {
	t.Helper()
	dir := privateDir(t)
	roles, rules = filepath.Join(dir, "roles.yaml"), filepath.Join(dir, "rules.json")
	put(t, roles, "roles:\n  reader: [documents.read]\n")
	put(t, rules, `{"rules": ["GET /documents/{id} documents.read", {"rule": "GET /late public", "when": "now.getFullYear() > 2000"}]}`)
	s = startSite(t, siteConfig{
		Global:  "\n\t\troles_file " + roles,
		Rules:   "\n\t\trules_file " + rules + "\n\t\tGET /healthz public",
		Metrics: freePort(t),
	}, nil)
	return s, roles, rules
}

// put replaces a file at once, as a careful writer does.
func put(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// policyEvents waits for n events about a policy file.
func policyEvents(t *testing.T, s *site, n int) []event {
	t.Helper()
	var got []event
	await(t, settle, fmt.Sprintf("%d events about policy files", n), func() bool {
		got = filterEvents(readJournal(t, s.journal()), func(e event) bool { return strings.HasPrefix(e.Action, "policy.") })
		return len(got) >= n
	})
	return got
}

func TestPolicyFilesAreWatched(t *testing.T) {
	t.Parallel()
	s, roles, rules := policySite(t)
	reader := bearer(s.Issuer.as(t, "u-1", "reader"))
	status := func(path string) int { return s.get(t, path, reader).Status }
	if status("/documents/7") != 200 || status("/late") != 200 || status("/new") != 403 {
		t.Fatal("the files were not read at load")
	}
	// A new rules file.
	put(t, rules, `["GET /documents/{id} documents.read", "GET /new authenticated"]`)
	await(t, settle, "the new rule", func() bool { return status("/new") == 200 })
	if status("/late") != 403 {
		t.Error("the removed rule still holds")
	}
	got := policyEvents(t, s, 1)[0]
	if got.Action != "policy.loaded" || got.Class != "admin" || got.Resource != rules ||
		fmt.Sprint(got.Details["added"], got.Details["removed"]) != "[GET /new] [GET /late]" || len(fmt.Sprint(got.Details["sha256"])) != 64 {
		t.Errorf("event %+v", got)
	}
	// A bad one: the old stays, with an event.
	put(t, rules, `["GET /documents/{id}/x public", "GET /documents/7/{x} public"]`)
	got = policyEvents(t, s, 2)[1]
	if got.Action != "policy.rejected" || got.Outcome != "error" || !strings.Contains(fmt.Sprint(got.Details["error"]), rules+":1") {
		t.Errorf("event %+v", got)
	}
	if status("/new") != 200 {
		t.Error("a bad file took the good rules away")
	}
	// New roles: what they grant counts at once.
	put(t, roles, "roles:\n  reader: [documents.write]\n  editor: [documents.*]\n")
	await(t, settle, "the new roles", func() bool { return status("/documents/7") == 403 })
	got = policyEvents(t, s, 3)[2]
	if got.Resource != roles || fmt.Sprint(got.Details["added"], got.Details["changed"]) != "[editor] [reader]" {
		t.Errorf("event %+v", got)
	}
	if s.get(t, "/documents/7", bearer(s.Issuer.as(t, "u-1", "editor"))).Status != 200 {
		t.Error("a new role grants nothing")
	}
	// A broken file makes a reload fail, also of an unchanged Caddyfile.
	put(t, rules, `["GET /a"]`)
	if out, exit := s.Reload(t, s.Config.render(s.Issuer)); exit == 0 || !strings.Contains(out, rules+":1") {
		t.Errorf("a reload with a broken file: exit %d\n%s", exit, lastLines(out, 3))
	}
	// The state survives a reload, which reads the files again.
	put(t, rules, `["GET /documents/{id} documents.read", "GET /again public"]`)
	s.reload(t, func(c *siteConfig) { c.Headers = "headers api" })
	if status("/again") != 200 {
		t.Error("a reload does not read the file")
	}
	checkTrail(t, readJournal(t, s.journal()))
}

func TestWhatAPolicyFileWeakensIsWarnedAbout(t *testing.T) {
	t.Parallel()
	s, _, rules := policySite(t)
	put(t, rules, `[{"rule": "GET /tried authenticated", "shadow": true}]`)
	await(t, settle, "the new rule", func() bool { return s.get(t, "/tried", bearer(s.Issuer.as(t, "u-1", "user"))).Status == 200 })
	await(t, settle, "the warning", func() bool { return strings.Contains(s.Log(), "GET /tried") && strings.Contains(s.Log(), "in shadow") })
	// No content of a file ends the gateway.
	put(t, rules, `[{"rule": "GET /digits/{d} public", "when": "params.d.matches(\"^[0-9]{4}$\")"}]`)
	await(t, settle, "the pattern", func() bool { return s.get(t, "/digits/2026").Status == 200 })
	if s.get(t, "/digits/26").Status == 200 {
		t.Error("the pattern matches two digits")
	}
}

func TestRolesThatASiteNeedsCannotBeTakenAway(t *testing.T) {
	t.Parallel()
	dir := privateDir(t)
	roles := filepath.Join(dir, "roles.json")
	put(t, roles, `{"visitor": "documents.read", "gold": ["documents.read"]}`)
	s := startSite(t, siteConfig{
		Global: "\n\t\troles_file " + roles,
		JWT:    "anonymous visitor",
		Gate:   "limit 5/1m by user {\n tier gold 100/1m\n}",
	}, nil)
	if s.get(t, "/documents/7").Status != 200 {
		t.Fatal("the role of the file does not count")
	}
	put(t, roles, `{"gold": ["documents.read"]}`)
	got := policyEvents(t, s, 1)[0]
	if got.Action != "policy.rejected" || !strings.Contains(fmt.Sprint(got.Details["error"]), "visitor") {
		t.Errorf("event %+v", got)
	}
	put(t, roles, `{"visitor": "documents.read"}`)
	got = policyEvents(t, s, 2)[1]
	if got.Action != "policy.rejected" || !strings.Contains(fmt.Sprint(got.Details["error"]), "gold") {
		t.Errorf("event %+v", got)
	}
	if s.get(t, "/documents/7").Status != 200 {
		t.Error("the role was taken away all the same")
	}
}

func TestABadPolicyFileIsALoadError(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	dir := privateDir(t)
	bad := filepath.Join(dir, "bad.yaml")
	put(t, bad, "- GET /a\n- GET /b publik\n- wen: x\n")
	for name, row := range map[string]struct {
		change func(*siteConfig)
		wants  []string
	}{
		"rules":         {func(c *siteConfig) { c.Rules = "\nrules_file " + bad }, []string{bad + ":1", bad + ":3", "known are"}},
		"roles":         {func(c *siteConfig) { c.Global = "\nroles_file " + bad }, []string{bad + ":1", bad + ":3"}},
		"missing rules": {func(c *siteConfig) { c.Rules = "\nrules_file /nowhere/rules" }, []string{"rules_file", "/nowhere/rules"}},
		"missing roles": {func(c *siteConfig) { c.Global = "\nroles_file {env.MOAT_UNSET}" }, []string{"roles_file", "{env.MOAT_UNSET}"}},
		"twice":         {func(c *siteConfig) { c.Rules = "\nrules_file a\nrules_file b" }, []string{"rules_file", "twice"}},
		"reveal_to":     {func(c *siteConfig) { c.Rules = "\nreveal_to a..b\nGET /x public" }, []string{"reveal_to", "a..b"}},
		"condition":     {func(c *siteConfig) { c.Rules = "\nGET /x public {\nwhen identity.name == \"x\"\n}" }, []string{"Caddyfile:", "column 1", "undeclared"}},
		"on the line":   {func(c *siteConfig) { c.Rules = "\nGET /x public when identity.known" }, []string{"when", "block"}},
		"inner quotes":  {func(c *siteConfig) { c.Rules = "\nGET /x public {\nwhen host == \"a\\\"b\" && true\n}" }, []string{"when", "backticks"}},
		"no condition":  {func(c *siteConfig) { c.Rules = "\nGET /x public {\nwhen\n}" }, []string{"when", "needs a condition"}},
	} {
		c := siteConfig{Port: 1, Upstream: "127.0.0.1:1"}
		row.change(&c)
		h := newHome(t, c.render(i), map[string]string{"MOAT_JOURNAL": filepath.Join(dir, "j")})
		out, exit := h.validate(t)
		for _, want := range row.wants {
			if exit == 0 || !strings.Contains(out, want) {
				t.Errorf("%s: exit %d, lacks %q:\n%s", name, exit, want, lastLines(out, 3))
			}
		}
	}
}

func TestOnlyWhoMayKnowLearnsWhy(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{
		Global: "\n\t\trole support debug.decisions",
		Rules:  siteRules + "\nreveal_to debug.decisions",
	}, nil)
	plain := s.get(t, "/internal/x", bearer(s.Issuer.as(t, "u-1", "user")))
	if plain.Header.Get("Moat-Decision") != "" || strings.Contains(string(plain.Body), "deny-rule") || strings.Contains(string(plain.Body), "requires") {
		t.Errorf("everybody learns why: %v %s", plain.Header, plain.Body)
	}
	if v := s.get(t, "/open/a").Header.Get("Moat-Decision"); v != "" {
		t.Errorf("an anonymous caller gets %q", v)
	}
	support := bearer(s.Issuer.as(t, "u-2", "user", "support"))
	for path, want := range map[string]string{
		"/internal/x":  `decision=deny, reason="rbac.deny-rule", rule="* /internal/**", place="`,
		"/documents/7": `decision=deny, reason="rbac.no-permission", rule="GET /documents/{id}", place="`,
		"/open/a":      `decision=allow, reason="rbac.public", rule="GET,POST /open/**", place="`,
		"/nowhere":     `decision=deny, reason="rbac.no-rule"`,
	} {
		if v := s.get(t, path, support).Header.Values("Moat-Decision"); len(v) != 1 || !strings.HasPrefix(v[0], want) {
			t.Errorf("%s: %q, want %q", path, v, want)
		}
	}
}

func TestNobodyElseSetsOrKeepsTheDecisionHeader(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{
		Global: "\n\t\trole support debug.decisions",
		Rules:  siteRules + "\nreveal_to debug.decisions",
	}, nil)
	s.Spy.respond(func(recorded) []byte {
		return rawAnswer(200, "ok", "Moat-Decision: forged", "Cache-Control: public, max-age=60")
	})
	a := s.get(t, "/open/a", bearer(s.Issuer.as(t, "u-1", "user")), "Moat-Decision: from-the-caller")
	if v := a.Header.Values("Moat-Decision"); a.Status != 200 || len(v) != 0 || a.Header.Get("Cache-Control") != "public, max-age=60" {
		t.Errorf("status %d, Moat-Decision %q, %v", a.Status, v, a.Header)
	}
	for _, r := range s.Spy.requests() {
		if len(r.get("Moat-Decision")) != 0 {
			t.Error("the caller's header went upstream")
		}
	}
	a = s.get(t, "/open/a", bearer(s.Issuer.as(t, "u-2", "support")))
	if v := a.Header.Values("Moat-Decision"); len(v) != 1 || !strings.HasPrefix(v[0], "decision=allow") || a.Header.Get("Cache-Control") != "private, no-store" {
		t.Errorf("Moat-Decision %q, Cache-Control %q", v, a.Header.Values("Cache-Control"))
	}
}

func TestReasonsAreRevealedOnlyOnRequest(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{Rules: siteRules + "\ninsecure_reveal_reasons"}, nil)
	var problem struct {
		Reason   string
		Requires []string
	}
	a := s.get(t, "/documents/7", bearer(s.Issuer.as(t, "u-1", "user")))
	if err := json.Unmarshal(a.Body, &problem); err != nil || problem.Reason != "rbac.no-permission" || !slices.Equal(problem.Requires, []string{"documents.read"}) {
		t.Errorf("%s %v", a.Body, err)
	}
	if v := a.Header.Get("WWW-Authenticate"); !strings.Contains(v, `error="insufficient_scope"`) {
		t.Errorf("WWW-Authenticate %q", v)
	}
	if !strings.Contains(s.Log(), "insecure_reveal_reasons") {
		t.Error("no warning")
	}
}

func TestRulesInAFileNeedAJWTLineToo(t *testing.T) {
	t.Parallel()
	dir := privateDir(t)
	rules := filepath.Join(dir, "rules.yaml")
	put(t, rules, "- GET /a public\n- GET /b authenticated\n")
	h := newHome(t, caddyfile("", fmt.Sprintf("http://:%d {\nmoat {\nrbac {\nrules_file %s\n}\n}\n}", freePort(t), rules)), nil)
	if out, exit := h.validate(t); exit == 0 || !strings.Contains(out, "GET /b") || !strings.Contains(out, rules+":2") || !strings.Contains(out, "jwt") {
		t.Errorf("exit %d\n%s", exit, lastLines(out, 3))
	}
	put(t, rules, "- GET /a public\n")
	if out, exit := h.validate(t); exit != 0 {
		t.Errorf("exit %d\n%s", exit, lastLines(out, 3))
	}
}
