//go:build linux

package integration

import (
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
)

// limit runs `moat limit` against the site's gateway.
func (s *site) limit(t testing.TB, args ...string) (output string, exit int) {
	t.Helper()
	return s.moat(t, append([]string{"limit"}, append(args, "--address", s.adminAddress)...)...)
}

// wantLimit runs `moat limit`, which must succeed and print all of this.
func (s *site) wantLimit(t testing.TB, args []string, want ...string) {
	t.Helper()
	out, exit := s.limit(t, args...)
	if exit != 0 {
		t.Fatalf("moat limit %q: exit %d\n%s", args, exit, out)
	}
	for _, text := range want {
		if !strings.Contains(out, text) {
			t.Errorf("moat limit %q: no %q in\n%s", args, text, out)
		}
	}
}

// wantNoLimit runs `moat limit`, which must fail and say all of this.
func (s *site) wantNoLimit(t testing.TB, args []string, want ...string) {
	t.Helper()
	out, exit := s.limit(t, args...)
	if exit != 2 {
		t.Errorf("moat limit %q: exit %d, want 2\n%s", args, exit, out)
	}
	for _, text := range want {
		if !strings.Contains(out, text) {
			t.Errorf("moat limit %q: no %q in\n%s", args, text, out)
		}
	}
	if strings.Contains(out, "panic") || strings.Contains(out, "Usage:") {
		t.Errorf("moat limit %q printed\n%s", args, out)
	}
}

func TestLimitCommandUnblocksOnEveryGateway(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	fleet := startFleet(t, 2, redis, siteConfig{Global: patientRedis, Gate: "limit api 5/24h by ip"})
	clients := clientsOf(fleet)
	wantPassed(t, "exhausting", flood(20, clients, "GET", "/open/a"), 20, 5)
	for _, s := range fleet { // Now each of them remembers the refusal.
		if n := s.passes(t, 3, "GET", "/open/a"); n != 0 {
			t.Fatalf("%d passed, want none", n)
		}
	}
	fleet[0].wantLimit(t, []string{"show", "api", "127.0.0.1"}, "SITE", "REMAINING", "api", "5/24h", "ip:127.0.0.1", " 0 ", "4h47m")
	out, exit := fleet[0].limit(t, "show", "api", "127.0.0.1", "--json")
	var states struct{ Limits []limitState }
	if err := json.Unmarshal([]byte(out), &states); err != nil || exit != 0 || len(states.Limits) != 1 {
		t.Fatalf("show --json: exit %d, %v\n%s", exit, err, out)
	}
	got := states.Limits[0]
	if got.Name != "api" || got.Site != "127.0.0.1" || fmt.Sprint(got.By) != "[ip]" || got.Limit != "5/24h" || got.Subject != "ip:127.0.0.1" ||
		got.Remaining != 0 || got.RetryAfterMS < 17_200_000 || got.RetryAfterMS > 17_280_000 || got.ResetAfterMS > 86_400_000 || got.Degraded {
		t.Errorf("show --json: %+v", got)
	}
	// Looking changes nothing, and somebody else is somebody else.
	if n := fleet[1].passes(t, 2, "GET", "/open/a"); n != 0 {
		t.Errorf("%d passed after a look, want none", n)
	}
	fleet[0].wantLimit(t, []string{"reset", "api", "192.0.2.7"}, "ip:192.0.2.7", " 5 ")
	if n := fleet[1].passes(t, 2, "GET", "/open/a"); n != 0 {
		t.Errorf("%d passed after the reset of somebody else, want none", n)
	}
	fleet[1].wantLimit(t, []string{"reset", "api", "127.0.0.1"}, "ip:127.0.0.1", " 5 ")
	for n, s := range fleet {
		await(t, time.Second, fmt.Sprintf("gateway %d to let the caller pass", n+1), func() bool { return s.get(t, "/open/a").Status == 200 })
	}
	wantPassed(t, "after the reset", flood(20, clients, "GET", "/open/a"), 20, 3)
}

// TestLimitCommandKnowsEveryKey unblocks callers of limits by each kind of key, and
// nobody else.
func TestLimitCommandKnowsEveryKey(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{Gate: "limit combo 2/24h by ip header:X-Key {\n on /open/combo\n}\nlimit keyed 2/24h by header:X-Key {\n on /open/keyed\n}\n" +
		"limit whole 2/24h by all {\n on /open/whole\n}\nlimit paths 2/24h by path {\n on /open/paths/**\n}\nlimit ids 2/24h by param:id {\n on /open/ids/{id}\n}\n" +
		"limit crumbs 2/24h by cookie:sid {\n on /open/crumbs\n}\nlimit windows 2/1h 3/24h by ip {\n on /open/windows\n}"}, nil)
	for _, c := range []struct {
		name   string
		keys   []string
		others []string // keys that are not the caller's
		path   string
		header []string
	}{
		{"combo", []string{"127.0.0.1", "k"}, []string{"127.0.0.1", "other"}, "/open/combo", []string{"X-Key: k"}},
		{"keyed", []string{"k"}, []string{"ip:127.0.0.1"}, "/open/keyed", []string{"X-Key: k"}},
		{"keyed", []string{"ip:127.0.0.1"}, []string{"127.0.0.1"}, "/open/keyed", nil},
		{"whole", nil, nil, "/open/whole", nil},
		{"whole", []string{"all"}, nil, "/open/whole", nil},
		{"paths", []string{"/open/paths/a"}, []string{"/open/paths/b"}, "/open/paths/a", nil},
		{"paths", []string{"/open/paths/a/"}, []string{"/open/paths"}, "/open/paths/a", nil},
		{"ids", []string{"7"}, []string{"8"}, "/open/ids/7", nil},
		{"crumbs", []string{"abc"}, []string{"abd"}, "/open/crumbs", []string{"Cookie: sid=abc"}},
		{"windows", []string{"127.0.0.1"}, []string{"127.0.0.2"}, "/open/windows", nil},
	} {
		s.passes(t, 3, "GET", c.path, c.header...)
		if n := s.passes(t, 2, "GET", c.path, c.header...); n != 0 {
			t.Fatalf("%s: %d passed, want none", c.name, n)
		}
		if c.others != nil {
			s.limits(t, "reset", c.name, c.others...)
			if n := s.passes(t, 1, "GET", c.path, c.header...); n != 0 {
				t.Errorf("%s: passed after the reset of %q", c.name, c.others)
			}
		}
		if state := s.limits(t, "show", c.name, c.keys...)[0]; state.Remaining != 0 {
			t.Errorf("%s %q: %d remain, want none", c.name, c.keys, state.Remaining)
		}
		s.wantLimit(t, append([]string{"reset", c.name}, c.keys...), c.name)
		if n := s.passes(t, 3, "GET", c.path, c.header...); n != 2 {
			t.Errorf("%s: %d passed after the reset of %q, want 2", c.name, n, c.keys)
		}
	}
	s.wantLimit(t, []string{"show", "windows", "127.0.0.1"}, "2/1h", "3/24h")
}

func TestLimitCommandTellsIssuersApart(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{Issuers: "main other", Gate: "limit person 3/24h by user\nlimit seat 9/24h by session",
		Global: "\n\t\tissuer other {\n\t\t\tiss https://other.test\n\t\t\taudience orders-api\n\t\t\tkey KEYFILE\n\t\t\tshares_ids\n\t\t}"}, nil)
	ours := bearer(s.Issuer.as(t, "u-1", "user"))
	theirs := bearer(s.Issuer.token(t, map[string]any{"iss": "https://other.test"}))
	passed := func(what string, token string, want int) {
		t.Helper()
		if n := s.passes(t, 5, "GET", "/me", token); n != want {
			t.Errorf("%s: %d passed, want %d", what, n, want)
		}
	}
	passed("main", ours, 3)
	passed("other", theirs, 3)
	out, exit := s.limit(t, "show", "person", "u-1")
	if exit != 0 || strings.Count(out, "\n") != 3 || !strings.Contains(out, "main u-1") || !strings.Contains(out, "other u-1") {
		t.Errorf("show person u-1: exit %d, want a line for each issuer\n%s", exit, out)
	}
	s.wantLimit(t, []string{"reset", "person", "main/u-1"}, "main u-1")
	passed("other after the reset of main", theirs, 0)
	passed("main after its reset", ours, 3)
	s.wantLimit(t, []string{"reset", "person", "other/u-1"}, "other u-1")
	passed("main after the reset of other", ours, 0)
	passed("other after its reset", theirs, 3)
	s.wantLimit(t, []string{"reset", "person", "u-1"}, "main u-1", "other u-1")
	passed("main after the reset of both", ours, 3)
	passed("other after the reset of both", theirs, 3)
	s.limits(t, "reset", "person", "u-2")
	passed("main after the reset of another", ours, 0)
}

func TestLimitCommandLeavesATrail(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{Gate: "limit api 5/24h by ip\nlimit keyed 5/24h by header:X-Key\nlimit seat 5/24h by session\nlimit crumbs 5/24h by ip cookie:sid"}, nil)
	s.wantLimit(t, []string{"show", "api", "192.0.2.7"}, "192.0.2.7")
	s.wantLimit(t, []string{"reset", "api", "192.0.2.8"}, "192.0.2.8")
	s.wantLimit(t, []string{"reset", "keyed", "planted-secret-1"})
	s.wantLimit(t, []string{"show", "seat", "planted-secret-2"})
	s.wantLimit(t, []string{"reset", "crumbs", "192.0.2.9", "planted-secret-3"})
	s.wantNoLimit(t, []string{"reset", "nobody", "192.0.2.9"})
	s.Stop(t)
	events := readJournal(t, s.journal())
	checkTrail(t, events)
	for _, c := range []struct{ action, limit, key string }{
		{"limit.show", "api", "192.0.2.7"}, {"limit.reset", "api", "192.0.2.8"}, {"limit.reset", "keyed", "(hidden)"},
		{"limit.show", "seat", "(hidden)"}, {"limit.reset", "crumbs", "(hidden)"},
	} {
		found := filterEvents(events, func(e event) bool {
			return e.Action == c.action && e.Class == "admin" && strings.Contains(e.Resource, c.limit) &&
				strings.Contains(fmt.Sprint(e.Details["key"]), c.key)
		})
		if len(found) != 1 || found[0].Outcome != "allow" || found[0].Details["site"] != "127.0.0.1" {
			t.Errorf("%s of %s with key %s: %d events, want one that allows and names the site", c.action, c.limit, c.key, len(found))
		}
	}
	all := filterEvents(events, func(e event) bool { return strings.HasPrefix(e.Action, "limit.") })
	if len(all) != 5 {
		t.Errorf("%d events of limits, want 5", len(all))
	}
	for _, e := range events {
		if strings.Contains(string(e.Line), "planted-secret") {
			t.Errorf("a value that is a credential is in the trail: %s", e.Line)
		}
	}
}

// TestLimitCommandKeepsCredentialsOutOfTheLog has values that the trail hides be
// nowhere else either.
func TestLimitCommandKeepsCredentialsOutOfTheLog(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{Gate: "limit keyed 5/24h by header:X-Key\nlimit seat 5/24h by session"}, nil)
	s.wantLimit(t, []string{"reset", "keyed", "planted-secret-1"}, "keyed")
	s.wantLimit(t, []string{"show", "seat", "planted-secret-2"}, "seat")
	s.Stop(t)
	for line := range strings.Lines(s.Log()) {
		if strings.Contains(line, "planted-secret") {
			t.Errorf("a value that is a credential is in the log: %s", line)
		}
	}
}

func TestLimitCommandSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{Gate: "limit api 5/24h by ip\nlimit combo 5/24h by ip header:X-Key\nlimit person 5/24h by user\nconcurrent 9 by ip"}, nil)
	for _, verb := range []string{"show", "reset"} {
		s.wantNoLimit(t, []string{verb, "ap", "127.0.0.1"}, `\"ap\"`, "api", "combo", "person", "concurrent-ip")
		s.wantNoLimit(t, []string{verb, "api"}, "api", "ip", "needs 1", "got 0")
		s.wantNoLimit(t, []string{verb, "api", "127.0.0.1", "127.0.0.2"}, "needs 1", "got 2")
		s.wantNoLimit(t, []string{verb, "combo", "127.0.0.1"}, "combo", "ip and header:X-Key", "needs 2", "got 1")
		s.wantNoLimit(t, []string{verb, "api", "127.0.0.300"}, "127.0.0.300", "address")
	}
	s.wantNoLimit(t, []string{"reset", "api", "u-1"}, "u-1", "address")
	s.wantNoLimit(t, []string{"reset", "person", ""}, "user", "value")
	s.wantNoLimit(t, []string{"reset", "api", "127.0.0.1", "--site", "other.test"}, "api", "no such limit")
	s.wantNoLimit(t, []string{"show"}, "name")
	s.wantNoLimit(t, []string{"show", "api", "127.0.0.1", "--frobnicate"}, "frobnicate")
	s.wantNoLimit(t, []string{"reset", "api", "127.0.0.1", "--site", ""}, "site")
	out, exit := s.moat(t, "limit", "frobnicate", "api")
	if exit != 2 || !strings.Contains(out, `"frobnicate": must be show or reset`) {
		t.Errorf("another verb: exit %d, want 2\n%s", exit, out)
	}
	out, exit = s.moat(t, "limit", "show", "api", "127.0.0.1", "--address", deadAddress(t))
	if exit != 2 || !strings.Contains(out, "refused") {
		t.Errorf("no gateway: exit %d, want 2\n%s", exit, out)
	}
	// --config finds the gateway by its configuration.
	out, exit = s.moat(t, "limit", "show", "api", "127.0.0.1", "--config", s.File, "--adapter", "caddyfile")
	if exit != 0 || !strings.Contains(out, "ip:127.0.0.1") {
		t.Errorf("with --config: exit %d\n%s", exit, out)
	}
}

// TestLimitCommandTellsSitesApart has two sites with limits of one name.
func TestLimitCommandTellsSitesApart(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	second := fmt.Sprintf("\nhttp://localhost:%d {\n\tbind 127.0.0.1\n\tmoat {\n\t\tlimit api 7/24h by ip\n\t\trbac {\n\t\t\t* /** public\n\t\t}\n\t}\n\trespond ok\n}\n", port)
	s := &site{Issuer: newIssuer(t), Spy: startSpy(t)}
	s.Config = siteConfig{Gate: "limit api 3/24h by ip", Upstream: s.Spy.Addr, Port: port}
	s.Addr = fmt.Sprintf("127.0.0.1:%d", port)
	s.gateway = startMoat(t, s.Config.render(s.Issuer)+second, options{Ready: []string{s.Addr}})
	s.web = newClient(t, "http://"+s.Addr)
	named := "Host: " + fmt.Sprintf("localhost:%d", port)
	exhaust := func() (first, second int) {
		return s.passes(t, 9, "GET", "/open/a"), s.passes(t, 9, "GET", "/open/a", named)
	}
	if a, b := exhaust(); a != 3 || b != 7 {
		t.Fatalf("%d and %d passed, want 3 and 7", a, b)
	}
	s.wantLimit(t, []string{"show", "api", "127.0.0.1"}, "3/24h", "7/24h", "localhost")
	out, exit := s.limit(t, "reset", "api", "127.0.0.1", "--site", "localhost")
	if exit != 0 || strings.Contains(out, "3/24h") || !strings.Contains(out, "7/24h") {
		t.Errorf("reset --site localhost: exit %d\n%s", exit, out)
	}
	if a, b := exhaust(); a != 0 || b != 7 {
		t.Errorf("%d and %d passed after the reset of one site, want 0 and 7", a, b)
	}
	s.wantLimit(t, []string{"reset", "api", "127.0.0.1"}, "3/24h", "7/24h")
	if a, b := exhaust(); a != 3 || b != 7 {
		t.Errorf("%d and %d passed after the reset of both sites, want 3 and 7", a, b)
	}
}

// TestLimitCommandWithoutRedis must not say that somebody is unblocked who is not.
func TestLimitCommandWithoutRedis(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	s := startFleet(t, 1, redis, siteConfig{Global: redisBlock + " {\n\t\t\ttimeout 500ms\n\t\t}",
		Gate: "limit api 5/24h by ip\nlimit strict 5/24h by path {\n on_error closed\n}"})[0]
	s.passes(t, 2, "GET", "/open/a")
	redis.signal(t, syscall.SIGKILL)
	<-redis.done
	for range 3 { // Also when the gateway has given up asking.
		s.wantNoLimit(t, []string{"reset", "api", "127.0.0.1"}, "api", "unavailable")
	}
	s.wantLimit(t, []string{"show", "api", "127.0.0.1"}, "5/24h", "the shared store is away")
	s.wantNoLimit(t, []string{"show", "strict", "/open/a"}, "strict", "unavailable")
	if out, exit := s.limit(t, "show", "api", "127.0.0.1", "--json"); exit != 0 || !strings.Contains(out, `"degraded":true`) {
		t.Errorf("show --json: exit %d, want it to say degraded\n%s", exit, out)
	}
	s.Stop(t)
	failed := filterEvents(readJournal(t, s.journal()), func(e event) bool { return e.Action == "limit.reset" && e.Outcome != "allow" })
	if len(failed) != 3 {
		t.Errorf("%d events of resets that failed, want 3", len(failed))
	}
}

func TestLimitMistakesAreLoadErrors(t *testing.T) {
	t.Parallel()
	gate := func(lines string) string {
		return "moat {\n\t\tjwt main\n\t\t" + lines + "\n\t\trbac {\n* /** authenticated\n}\n}"
	}
	block := func(line, words string) string { return gate(line + " { " + here + "\n" + words + "\n}") }
	word := func(line, words string) string { return gate(line + " {\n" + words + " " + here + "\n}") }
	runBadConfigs(t, map[string]badConfig{
		"lease above a tenth":     {Site: block("limit api 100/1m by ip", "lease 11"), Want: []string{`limit "api"`, "lease 11", "tenth", "100"}},
		"lease above a burst's":   {Site: block("limit api 100/1m by ip", "burst 50\nlease 6"), Want: []string{`limit "api"`, "lease 6", "tenth", "50"}},
		"lease of a second rate":  {Site: block("limit api 100/1m 20/1s by ip", "lease 3"), Want: []string{`limit "api"`, "lease 3", "tenth", "20/1s"}},
		"lease of one":            {Site: block("limit api 100/1m by ip", "lease 1"), Want: []string{`limit "api"`, "lease 1", "at least 2"}},
		"lease of none":           {Site: word("limit api 100/1m by ip", "lease 0"), Want: []string{"lease", `0`}},
		"lease beside count":      {Site: block("limit api 100/1m by ip", "lease 5\ncount 401"), Want: []string{`limit "api"`, "lease", "count"}},
		"lease beside cost":       {Site: block("limit api 100/1m by ip", "lease 5\ncost 2"), Want: []string{`limit "api"`, "lease", "cost"}},
		"burst beside two rates":  {Site: block("limit api 10/1s 100/1m by ip", "burst 20"), Want: []string{`limit "api"`, "burst", "a limit for each"}},
		"burst of none":           {Site: word("limit api 10/1s by ip", "burst 0"), Want: []string{"burst"}},
		"cost above the bucket":   {Site: block("limit api 4/1m by ip", "cost 5"), Want: []string{`limit "api"`, "cost 5", "bucket of 4"}},
		"cost above one bucket":   {Site: block("limit api 4/1s 50/1m by ip", "cost 5"), Want: []string{`limit "api"`, "cost 5", "bucket of 4"}},
		"cost above a tier":       {Site: block("limit api 9/1m by user", "cost 5\ntier admin 4/1m"), Want: []string{`limit "api"`, "tier admin", "cost 5", "bucket of 4"}},
		"cost of nothing":         {Site: block("limit api 4/1m by ip", "cost 0"), Want: []string{`limit "api"`, `cost "0"`, "at least 1"}},
		"cost of no header":       {Site: block("limit api 4/1m by ip", "cost header:"), Want: []string{`limit "api"`, `header:`}},
		"cost and count":          {Site: block("limit api 4/1m by ip", "cost header:X-Cost\ncount 401"), Want: []string{`limit "api"`, "cost", "count"}},
		"concurrent with count":   {Site: word("concurrent crowd 5 by ip", "count 401"), Want: []string{"crowd", `"count"`, "except"}},
		"concurrent with cost":    {Site: word("concurrent crowd 5 by ip", "cost 2"), Want: []string{"crowd", `"cost"`}},
		"concurrent with burst":   {Site: word("concurrent crowd 5 by ip", "burst 2"), Want: []string{"crowd", `"burst"`}},
		"concurrent with lease":   {Site: word("concurrent crowd 5 by ip", "lease 2"), Want: []string{"crowd", `"lease"`}},
		"concurrent none":         {Site: gate("concurrent 0 by ip " + here), Want: []string{"0 by ip", "concurrent"}},
		"concurrent with a rate":  {Site: gate("concurrent 5/1m by ip " + here), Want: []string{"5/1m", "concurrent"}},
		"concurrent too many":     {Site: gate("concurrent 1000001 by ip " + here), Want: []string{"1000001", "1000000"}},
		"two equal windows":       {Site: gate("limit api 10/60s 20/1m by ip " + here), Want: []string{`limit "api"`, "20/1m", "same window"}},
		"equal windows of a tier": {Site: block("limit api 10/1m by user", "tier admin 5/1m 6/60s"), Want: []string{`limit "api"`, "tier admin", "same window"}},
		"one of two rates":        {Site: gate("limit api 10/1m 0/1h by ip " + here), Want: []string{`limit "api"`, "0/1h"}},
		"ipv6_prefix 0":           {Site: word("limit api 10/1m by ip", "ipv6_prefix 0"), Want: []string{"ipv6_prefix", "0"}},
		"ipv6_prefix 129":         {Site: block("limit api 10/1m by ip", "ipv6_prefix 129"), Want: []string{`limit "api"`, "ipv6_prefix 129", "between 1 and 128"}},
		"capacity 0":              {Global: "limits {\ncapacity 0 " + here + "\n}", Want: []string{"limits", "capacity", "0"}},
		"capacity too large":      {Global: "limits {\ncapacity 100000001\n}", Want: []string{"limits", "capacity 100000001", "between 1 and 100000000"}},
		"unknown word of limits":  {Global: "limits {\nfrobnicate 3 " + here + "\n}", Want: []string{"limits", "frobnicate", "capacity"}},
		"a rate as tier":          {Site: block("concurrent crowd 5 by user", "tier admin 50/1m"), Want: []string{`limit "crowd"`, "tier admin", "50/1m", "between 1 and"}},
		"places as tier":          {Site: block("limit api 5/1m by user", "tier admin 50"), Want: []string{`limit "api"`, "tier admin", `"50"`, "units/duration"}},
		"tier by address":         {Site: block("concurrent crowd 5 by ip", "tier admin 50"), Want: []string{`limit "crowd"`, "tier", "authentication"}},
		"tier of nobody":          {Site: block("concurrent crowd 5 by user", "tier ghost 50"), Want: []string{`limit "crowd"`, "tier ghost", "no such role"}},
	})
	text := badConfig{Site: gate("concurrent 5 by user {\ntier admin 50\nipv6_prefix 48\n}\nlimit api 100/1m 1000/1h by ip {\nlease 10\nquiet\nipv6_prefix 128\n}\n" +
		"limit 5/1m by user {\ncost header:X-Cost\nburst 9\ntier admin 5/1s 90/1h\n}"), Global: "limits {\ncapacity 1000\n}"}.render(newIssuer(t))
	if out, exit := newHome(t, text, nil).validate(t); exit != 0 {
		t.Errorf("what is right is refused: exit %d\n%s", exit, lastLines(out, 4))
	}
}
