//go:build linux

package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// sfMember is a String with parameters (RFC 9651).
type sfMember struct {
	Name    string
	Numbers map[string]int64
	Strings map[string]string
}

// parseList reads a List of Strings whose parameters are Integers or Strings. It
// is as strict as the RFC has a parser be.
func parseList(s string) ([]sfMember, error) {
	var list []sfMember
	for {
		name, rest, err := parseString(s)
		if err != nil {
			return nil, err
		}
		m := sfMember{Name: name, Numbers: map[string]int64{}, Strings: map[string]string{}}
		if s, err = m.parameters(rest); err != nil {
			return nil, err
		}
		list = append(list, m)
		if s = strings.TrimLeft(s, " \t"); s == "" {
			return list, nil
		}
		if s[0] != ',' {
			return nil, fmt.Errorf("%q where a comma belongs", s)
		}
		s = strings.TrimLeft(s[1:], " \t")
	}
}

func parseString(s string) (value, rest string, err error) {
	if s == "" || s[0] != '"' {
		return "", "", fmt.Errorf("%q where a string belongs", s)
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return b.String(), s[i+1:], nil
		case c < 0x20 || c > 0x7e:
			return "", "", fmt.Errorf("byte %#x in a string", c)
		case c == '\\':
			if i++; i == len(s) || s[i] != '"' && s[i] != '\\' {
				return "", "", errors.New("escape of no form")
			}
			b.WriteByte(s[i])
		default:
			b.WriteByte(c)
		}
	}
	return "", "", errors.New("string without an end")
}

func (m *sfMember) parameters(s string) (rest string, err error) {
	for strings.HasPrefix(s, ";") {
		key, value, found := strings.Cut(strings.TrimLeft(s[1:], " "), "=")
		if !found || key == "" || strings.Trim(key, "abcdefghijklmnopqrstuvwxyz0123456789_-.*") != "" || m.has(key) {
			return "", fmt.Errorf("parameter %q", s)
		}
		if strings.HasPrefix(value, `"`) {
			if m.Strings[key], s, err = parseString(value); err != nil {
				return "", err
			}
			continue
		}
		digits := strings.TrimPrefix(value, "-")
		end := len(value) - len(strings.TrimLeft(digits, "0123456789"))
		if m.Numbers[key], err = strconv.ParseInt(value[:end], 10, 64); err != nil || end > 15 {
			return "", fmt.Errorf("integer %q", value)
		}
		s = value[end:]
	}
	return s, nil
}

func (m *sfMember) has(key string) bool {
	_, number := m.Numbers[key]
	_, text := m.Strings[key]
	return number || text
}

// told is what an answer says of limits.
type told struct {
	Policies []string // names, in order
	Limit    sfMember // of RateLimit
	Has      bool
}

// rateLimits reads both headers, which are there together or not at all.
func rateLimits(t testing.TB, a answer) told {
	t.Helper()
	policy, limit := a.Header.Values("RateLimit-Policy"), a.Header.Values("RateLimit")
	if len(policy) == 0 && len(limit) == 0 {
		return told{}
	}
	if len(policy) != 1 || len(limit) != 1 {
		t.Fatalf("RateLimit-Policy %q, RateLimit %q: want one of each", policy, limit)
	}
	policies, errPolicy := parseList(policy[0])
	limits, errLimit := parseList(limit[0])
	if err := errors.Join(errPolicy, errLimit); err != nil || len(limits) != 1 {
		t.Fatalf("RateLimit-Policy %q, RateLimit %q: %v", policy, limit, err)
	}
	out := told{Limit: limits[0], Has: true}
	for _, p := range policies {
		if p.Numbers["q"] < 1 || p.Numbers["w"] < 1 && p.Strings["qu"] != "concurrent-requests" {
			t.Errorf("policy %+v: want a quota, and a window or the unit", p)
		}
		out.Policies = append(out.Policies, p.Name)
	}
	if !slices.Contains(out.Policies, out.Limit.Name) {
		t.Errorf("RateLimit is of %q, which is none of the policies %q", out.Limit.Name, out.Policies)
	}
	return out
}

// wantHeaders checks both headers to the letter.
func wantHeaders(t testing.TB, a answer, policy, limit string) {
	t.Helper()
	if got := a.Header.Get("RateLimit-Policy"); got != policy {
		t.Errorf("RateLimit-Policy %q, want %q", got, policy)
	}
	if got := a.Header.Get("RateLimit"); got != limit {
		t.Errorf("RateLimit %q, want %q", got, limit)
	}
	rateLimits(t, a)
}

// wantViolated checks that the answer is a refusal by exactly these limits, that it
// names them everywhere, and that Retry-After does not point before RateLimit.
func wantViolated(t testing.TB, a answer, names ...string) told {
	t.Helper()
	p := wantProblem(t, a, 429, "rate-limited")
	var violated []string
	for _, raw := range p.Violations {
		var name string
		if err := json.Unmarshal(raw, &name); err != nil {
			t.Fatal(err)
		}
		violated = append(violated, name)
	}
	if !slices.Equal(violated, names) {
		t.Errorf("violated-policies %q, want %q", violated, names)
	}
	says := rateLimits(t, a)
	after, err := strconv.ParseInt(a.Header.Get("Retry-After"), 10, 64)
	if err != nil || after < 1 || after < says.Limit.Numbers["t"] {
		t.Errorf("Retry-After %q beside RateLimit %q", a.Header.Get("Retry-After"), a.Header.Get("RateLimit"))
	}
	if !slices.Contains(names, says.Limit.Name) {
		t.Errorf("RateLimit is of %q, want one that refused", says.Limit.Name)
	}
	for _, name := range names {
		if !slices.Contains(says.Policies, name) {
			t.Errorf("RateLimit-Policy names %q, want %q among them", says.Policies, name)
		}
	}
	return says
}

// passes sends n requests one after the other and returns how many passed; the
// others must have been refused for the limit.
func (s *site) passes(t testing.TB, n int, method, path string, header ...string) int {
	t.Helper()
	passed := 0
	for range n {
		switch a := s.send(t, method, path, "", header...); a.Status {
		case 200:
			passed++
		case 429:
			wantProblem(t, a, 429, "rate-limited")
		default:
			t.Fatalf("%s %s: status %d\n%s", method, path, a.Status, a.Body)
		}
	}
	return passed
}

func TestLimitsAreToldInHeaders(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{Gate: "limit addr 10/24h by ip {\n on /open/told\n on /me\n}\nlimit person 4/24h by user\n" +
		"limit hush 3/24h by ip {\n quiet\n on /open/quiet\n}\nlimit login 3/24h by ip {\n on POST /open/login\n count 401\n}\n" +
		"limit \"sh\\\"y\" 9/1500ms by ip {\n on /open/name\n}"}, nil)
	wantHeaders(t, s.get(t, "/open/told"), `"addr";q=10;w=86400`, `"addr";r=9;t=8640`)
	token := bearer(s.Issuer.as(t, "u-1", "user"))
	wantHeaders(t, s.get(t, "/me", token), `"addr";q=10;w=86400, "person";q=4;w=86400`, `"person";r=3;t=21600`)
	for range 3 {
		s.get(t, "/me", token)
	}
	refused := s.get(t, "/me", token)
	says := wantViolated(t, refused, "person")
	if got := refused.Header.Get("RateLimit-Policy"); !slices.Equal(says.Policies, []string{"addr", "person"}) || says.Limit.Numbers["r"] != 0 {
		t.Errorf("RateLimit-Policy %q, RateLimit %q", got, refused.Header.Get("RateLimit"))
	}
	if wait := says.Limit.Numbers["t"]; wait < 21500 || wait > 21600 {
		t.Errorf("t=%d, want the quarter of a day that one unit takes", wait)
	}
	// Nine of ten are used up: now the address is the tighter one for somebody else.
	for range 3 {
		s.get(t, "/open/told")
	}
	other := rateLimits(t, s.get(t, "/me", bearer(s.Issuer.as(t, "u-2", "user"))))
	if other.Limit.Name != "addr" || other.Limit.Numbers["r"] != 0 {
		t.Errorf("RateLimit is %+v, want addr with nothing left", other.Limit)
	}
	wantViolated(t, s.get(t, "/me", token), "addr")
	// A window is told in whole seconds, and a name is a string.
	odd := rateLimits(t, s.get(t, "/open/name"))
	if odd.Limit.Name != `sh"y` || odd.Limit.Numbers["r"] != 8 {
		t.Errorf("RateLimit is %+v", odd.Limit)
	}
	s.tellNothing(t)
}

// tellNothing looks at limits that stay out of the headers of what they allow, and
// stand in them when they refuse.
func (s *site) tellNothing(t *testing.T) {
	for what, c := range map[string]struct{ method, path, name string }{
		"quiet": {"GET", "/open/quiet", "hush"}, "a login limit": {"POST", "/open/login", "login"},
	} {
		s.Spy.respond(func(recorded) []byte { return rawAnswer(401, "no") })
		for range 3 {
			a := s.send(t, c.method, c.path, "")
			if says := rateLimits(t, a); says.Has || a.Status != 401 {
				t.Errorf("%s: status %d, headers %+v; want the upstream's answer and no headers", what, a.Status, says)
			}
		}
		if says := wantViolated(t, s.send(t, c.method, c.path, ""), c.name); !says.Has || len(says.Policies) != 1 {
			t.Errorf("%s: a refusal tells %+v", what, says)
		}
	}
}

// TestLimitsOfAnUpstreamAreNotMixedUp has the application tell limits of its own.
func TestLimitsOfAnUpstreamAreNotMixedUp(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{Gate: "limit 10/24h by ip"}, nil)
	s.Spy.respond(func(recorded) []byte {
		return rawAnswer(200, "ok", `RateLimit: "app";r=1;t=2`, `RateLimit-Policy: "app";q=3;w=4`)
	})
	a := s.get(t, "/open/a")
	for _, name := range []string{"RateLimit", "RateLimit-Policy"} {
		var all []sfMember
		for _, value := range a.Header.Values(name) {
			list, err := parseList(value)
			if err != nil {
				t.Errorf("%s %q: %v", name, value, err)
			}
			all = append(all, list...)
		}
		if !slices.ContainsFunc(all, func(m sfMember) bool { return m.Name == "ip" }) {
			t.Errorf("%s %q: the gateway's limit is not in it", name, a.Header.Values(name))
		}
	}
}

// TestLimitsWithSeveralWindows takes from both windows or from none: what the short
// one refuses leaves the long one as it is.
func TestLimitsWithSeveralWindows(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{Gate: "limit api 20/1s 50/24h by ip"}, nil)
	clients, start := []*client{s.web}, time.Now()
	first := s.get(t, "/open/a")
	if got, want := first.Header.Get("RateLimit-Policy"), `"api-1s";q=20;w=1, "api-24h";q=50;w=86400`; got != want {
		t.Errorf("RateLimit-Policy %q, want %q", got, want)
	}
	if says := rateLimits(t, first); says.Limit.Name != "api-1s" || says.Limit.Numbers["r"] != 19 {
		t.Errorf("RateLimit is %+v, want api-1s with 19", says.Limit)
	}
	got := flood(100, clients, "GET", "/open/a")
	passed, most := 1+got.counts[200], min(50, 20+int(20*time.Since(start).Seconds()))
	if passed < 20 || passed > most || len(got.errs) != 0 {
		t.Errorf("%d passed in %s, want 20 to %d", passed, time.Since(start), most)
	}
	short := 0
	deadline := time.Now().Add(15 * time.Second)
	for time.Now().Before(deadline) {
		a := s.get(t, "/open/a")
		if a.Status == 200 {
			passed++
			continue
		}
		if strings.Contains(string(a.Body), `"api-24h"`) {
			break
		}
		wantViolated(t, a, "api-1s")
		short++
		time.Sleep(20 * time.Millisecond)
	}
	if passed != 50 || short == 0 {
		t.Errorf("%d passed until api-24h refused, want exactly 50; api-1s refused %d times since, want some", passed, short)
	}
	await(t, 5*time.Second, "the short window to be full", func() bool { return s.limits(t, "show", "api", "127.0.0.1")[0].Remaining == 20 })
	says := wantViolated(t, s.get(t, "/open/a"), "api-24h")
	if !slices.Equal(says.Policies, []string{"api-24h", "api-1s"}) && !slices.Equal(says.Policies, []string{"api-1s", "api-24h"}) {
		t.Errorf("a refusal names %q, want both windows", says.Policies)
	}
}

func TestLimitsWithACost(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{Gate: "limit five 12/24h by header:X-Key {\n cost 5\n on /open/five\n}\n" +
		"limit paid 20/24h by header:X-Key {\n cost header:x-cost\n on /open/paid\n}"}, nil)
	if n := s.passes(t, 4, "GET", "/open/five", "X-Key: k"); n != 2 {
		t.Errorf("%d requests of cost 5 passed a bucket of 12, want 2", n)
	}
	says := wantViolated(t, s.get(t, "/open/five", "X-Key: k"), "five")
	if says.Limit.Numbers["r"] != 2 || says.Limit.Numbers["t"] < 21500 || says.Limit.Numbers["t"] > 21600 {
		t.Errorf("RateLimit is %+v, want the 2 that are left and the time until 3 more are there", says.Limit)
	}
	for name, c := range map[string]struct {
		lines []string
		left  int64
	}{
		"seven": {[]string{"X-Cost: 7"}, 13}, "none": {nil, 19}, "zero": {[]string{"X-Cost: 0"}, 20}, "one": {[]string{"x-cost: 1"}, 19},
		"words": {[]string{"X-Cost: lots"}, 19}, "two": {[]string{"X-Cost: 3", "X-Cost: 4"}, 19}, "negative": {[]string{"X-Cost: -5"}, 19},
		"fraction": {[]string{"X-Cost: 2.5"}, 19}, "all": {[]string{"X-Cost: 20"}, 0}, "more": {[]string{"X-Cost: 1000"}, 0},
		"too much": {[]string{"X-Cost: 99999999999999999999999"}, 0},
	} {
		s.Spy.respond(func(recorded) []byte { return rawAnswer(200, "ok", c.lines...) })
		if a := s.get(t, "/open/paid", "X-Key: "+name); a.Status != 200 || rateLimits(t, a).Limit.Numbers["r"] != 19 {
			t.Errorf("%s: status %d, %q", name, a.Status, a.Header.Get("RateLimit"))
		}
		s.awaitRemaining(t, c.left, "paid", name)
		state := s.limits(t, "show", "paid", name)[0]
		if state.ResetAfterMS > 24*3600*1000 {
			t.Errorf("%s: the bucket is full in %d ms, want a day at most: it was drawn below empty", name, state.ResetAfterMS)
		}
		passed := s.get(t, "/open/paid", "X-Key: "+name).Status == 200
		if passed != (c.left > 0) {
			t.Errorf("%s: the next request passed: %v, with %d left", name, passed, c.left)
		}
	}
}

// trusting makes the gateway believe the test about addresses.
func trusting(t *testing.T, c siteConfig) *site {
	t.Helper()
	s := &site{Issuer: newIssuer(t), Spy: startSpy(t)}
	c.Upstream, c.Port = s.Spy.Addr, freePort(t)
	s.Config, s.Addr = c, fmt.Sprintf("127.0.0.1:%d", c.Port)
	text := strings.Replace(c.render(s.Issuer), "strict_sni_host on", "strict_sni_host on\n\t\ttrusted_proxies static 127.0.0.1", 1)
	s.gateway = startMoat(t, text, options{Ready: []string{s.Addr}})
	s.web = newClient(t, "http://"+s.Addr)
	return s
}

func TestLimitsByAddress(t *testing.T) {
	t.Parallel()
	s := trusting(t, siteConfig{Gate: "limit net 3/24h by ip {\n on /open/net\n}\n" +
		"limit wide 3/24h by ip {\n ipv6_prefix 48\n on /open/wide\n}\nlimit one 3/24h by ip {\n ipv6_prefix 128\n on /open/one\n}\n" +
		"limit free 1/24h by ip {\n except 198.51.100.0/24 203.0.113.9\n except 2001:db8:f::/48 2001:db8:e::1\n on /open/free\n}"})
	from := func(address string) string { return "X-Forwarded-For: " + address }
	// Each row is one bucket of three; the last addresses have buckets of their own.
	for _, c := range []struct {
		path   string
		shared []string
		apart  []string
	}{
		{"/open/net", []string{"192.0.2.1", "::ffff:192.0.2.1", "::ffff:c000:201"}, []string{"192.0.2.2", "::ffff:192.0.2.3"}},
		{"/open/net", []string{"2001:db8:0:1::1", "2001:db8:0:1::2", "2001:db8:0:1:ffff::"}, []string{"2001:db8:0:2::1"}},
		{"/open/wide", []string{"2001:db8:1:1::1", "2001:db8:1:2::1", "2001:db8:1:ffff::1"}, []string{"2001:db8:2:1::1"}},
		{"/open/wide", []string{"192.0.2.1", "::ffff:192.0.2.1", "192.0.2.1"}, []string{"192.0.2.2"}},
		{"/open/one", []string{"2001:db8:3::1", "2001:DB8:3:0::1", "2001:db8:3:0:0:0:0:1"}, []string{"2001:db8:3::2"}},
	} {
		for _, address := range c.shared {
			if a := s.get(t, c.path, from(address)); a.Status != 200 {
				t.Errorf("%s %s: status %d, want 200", c.path, address, a.Status)
			}
		}
		for _, address := range c.shared {
			if a := s.get(t, c.path, from(address)); a.Status != 429 {
				t.Errorf("%s %s: status %d, want 429: it shares a bucket", c.path, address, a.Status)
			}
		}
		for _, address := range c.apart {
			if n := s.passes(t, 5, "GET", c.path, from(address)); n != 3 {
				t.Errorf("%s %s: %d passed, want 3 of its own", c.path, address, n)
			}
		}
	}
	for address, want := range map[string]int{
		"198.51.100.0": 4, "198.51.100.255": 4, "198.51.101.0": 1, "203.0.113.9": 4, "203.0.113.8": 1, "::ffff:203.0.113.9": 4,
		"::ffff:198.51.100.7": 4, "2001:db8:f:9::1": 4, "2001:db8:e::1": 4, "2001:db8:e::2": 1, "2001:db8:10::1": 1,
	} {
		if n := s.passes(t, 4, "GET", "/open/free", from(address)); n != want {
			t.Errorf("except, %s: %d of 4 passed, want %d", address, n, want)
		}
	}
}

func TestLimitsWithBurstMethodsAndMessage(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{Gate: "limit burst 2/24h by header:X-Key {\n burst 6\n on /open/burst\n}\n" +
		"limit methods 2/24h by ip {\n on GET,HEAD /open/methods/{x}\n on POST /open/posted\n}\n" +
		"limit said 1/24h by ip {\n message \"Slow down, please\"\n on /open/said\n}"}, nil)
	first := s.get(t, "/open/burst", "X-Key: k")
	wantHeaders(t, first, `"burst";q=2;w=86400`, `"burst";r=5;t=43200`)
	if n := s.passes(t, 9, "GET", "/open/burst", "X-Key: k"); n != 5 {
		t.Errorf("%d more passed, want the 5 that were left of the burst", n)
	}
	for n := range 6 {
		if a := s.send(t, "POST", "/open/methods/a", ""); a.Status != 200 || a.Header.Get("RateLimit") != "" {
			t.Errorf("POST %d: status %d, %q; the limit is on other methods", n, a.Status, a.Header.Get("RateLimit"))
		}
		if a := s.get(t, "/open/methods/a/b"); a.Status != 200 {
			t.Errorf("GET %d of a deeper path: status %d", n, a.Status)
		}
	}
	if a := s.get(t, "/open/methods/a"); a.Status != 200 {
		t.Errorf("GET: status %d", a.Status)
	}
	if a := s.send(t, "POST", "/open/posted", ""); a.Status != 200 {
		t.Errorf("POST: status %d", a.Status)
	}
	// Both patterns are one limit, and so is a final slash.
	for _, target := range []string{"/open/methods/b", "/open/methods/b/"} {
		wantViolated(t, s.get(t, target), "methods")
	}
	wantViolated(t, s.send(t, "POST", "/open/posted", ""), "methods")
	s.get(t, "/open/said")
	if p := wantProblem(t, s.get(t, "/open/said"), 429, "rate-limited"); p.Title != "Slow down, please" {
		t.Errorf("title %q, want the limit's message", p.Title)
	}
}

// TestLimitsWithTiers has the highest of several count, and a tier below the limit
// itself.
func TestLimitsWithTiers(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{Gate: "limit 3/24h by user {\n tier user 5/24h\n tier admin 9/24h\n tier guest 1/24h\n}"}, nil)
	for id, c := range map[string]struct {
		roles []string
		want  int
	}{
		"none": {nil, 3}, "user": {[]string{"user"}, 5}, "both": {[]string{"user", "admin"}, 9}, "other": {[]string{"admin", "user"}, 9},
		"low": {[]string{"guest"}, 1}, "mixed": {[]string{"guest", "user"}, 5},
	} {
		token := bearer(s.Issuer.as(t, id, c.roles...))
		if n := s.passes(t, 11, "GET", "/me", token); n != c.want {
			t.Errorf("%s with roles %q: %d passed, want %d", id, c.roles, n, c.want)
		}
	}
}

// TestLimitsInShadowBesideEnforcedOnes has a limit that is tried out refuse nothing
// and change nothing about the one beside it.
func TestLimitsInShadowBesideEnforcedOnes(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{Metrics: freePort(t), Gate: "limit tried 2/24h by header:X-Key {\n mode shadow\n}\n" +
		"limit hard 6/24h by header:X-Key\nconcurrent crowd 1 by header:X-Key {\n mode shadow\n}"}, nil)
	for n := range 6 {
		a := s.get(t, "/open/a", "X-Key: k")
		if a.Status != 200 {
			t.Fatalf("request %d: status %d, want 200", n+1, a.Status)
		}
		if says := rateLimits(t, a); !slices.Equal(says.Policies, []string{"hard"}) || says.Limit.Numbers["r"] != int64(5-n) {
			t.Errorf("request %d: %+v, want hard with %d and nothing of the shadow", n+1, says, 5-n)
		}
	}
	shadowed := s.counter(t, "moat_ratelimit_total", `limit="tried"`, `decision="shadow_blocked"`)
	allowed := s.counter(t, "moat_ratelimit_total", `limit="tried"`, `decision="allowed"`)
	if shadowed != 4 || allowed != 2 {
		t.Errorf("shadow_blocked %v, allowed %v; want 4 and 2", shadowed, allowed)
	}
	for range 4 {
		wantViolated(t, s.get(t, "/open/a", "X-Key: k"), "hard")
	}
	blocked := s.counter(t, "moat_ratelimit_total", `limit="hard"`, `decision="blocked"`)
	if passed := s.counter(t, "moat_ratelimit_total", `limit="hard"`, `decision="allowed"`); blocked != 4 || passed != 6 {
		t.Errorf("hard: blocked %v, allowed %v; want 4 and 6", blocked, passed)
	}
	if n := s.counter(t, "moat_ratelimit_total", `limit="tried"`, `decision="blocked"`); n != 0 {
		t.Errorf("tried: blocked %v, want none", n)
	}
}

// holding is an upstream that answers below /open/hold when it is told to.
type holding struct {
	*spy
	arrived chan string
	release chan struct{}
}

func hold(t *testing.T, s *spy) *holding {
	h := &holding{spy: s, arrived: make(chan string, 100), release: make(chan struct{})}
	s.respond(func(r recorded) []byte {
		if strings.HasPrefix(r.Target, "/open/hold") || r.Target == "/me" {
			h.arrived <- r.Target
			<-h.release
		}
		return []byte(plainOK)
	})
	t.Cleanup(func() { close(h.release) })
	return h
}

// begin sends a request that is held and waits until the upstream has it.
func (h *holding) begin(t *testing.T, s *site, path string, header ...string) chan answer {
	t.Helper()
	done := make(chan answer, 1)
	go func() {
		a, err := s.web.try("GET", path, "", header...)
		if err != nil {
			a.Body = []byte(err.Error())
		}
		done <- a
	}()
	select {
	case <-h.arrived:
	case a := <-done:
		t.Fatalf("%s: status %d, want it held by the upstream\n%s", path, a.Status, a.Body)
	case <-time.After(10 * time.Second):
		t.Fatalf("%s did not reach the upstream", path)
	}
	return done
}

// end lets one request go on and waits for its answer.
func (h *holding) end(t *testing.T, done ...chan answer) {
	t.Helper()
	for range done {
		h.release <- struct{}{}
	}
	for _, one := range done {
		select {
		case a := <-one:
			if a.Status != 200 {
				t.Errorf("a held request ended with %d, want 200\n%s", a.Status, a.Body)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("a held request did not end")
		}
	}
}

// endOne lets one of two requests go on and returns the other: which of them the
// upstream lets go first is its own affair.
func (h *holding) endOne(t *testing.T, first, second chan answer) chan answer {
	t.Helper()
	h.release <- struct{}{}
	other := second
	var a answer
	select {
	case a = <-first:
	case a = <-second:
		other = first
	case <-time.After(10 * time.Second):
		t.Fatal("no held request ended")
	}
	if a.Status != 200 {
		t.Errorf("a held request ended with %d, want 200\n%s", a.Status, a.Body)
	}
	return other
}

func TestLimitsOfRequestsAtOneTime(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	for name, global := range map[string]string{"memory": "", "Redis": patientRedis} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startFleet(t, 1, redis, siteConfig{Global: global, Gate: "concurrent 2 by ip {\n on /open/hold\n on /open/b\n}"})[0]
			h := hold(t, s.Spy)
			first, second := h.begin(t, s, "/open/hold"), h.begin(t, s, "/open/hold")
			for range 5 {
				start := time.Now()
				a := s.get(t, "/open/b")
				if says := wantViolated(t, a, "concurrent-ip"); says.Limit.Numbers["r"] != 0 {
					t.Errorf("RateLimit is %+v, want nothing left", says.Limit)
				}
				if a.Header.Get("RateLimit-Policy") != `"concurrent-ip";q=2;qu="concurrent-requests"` {
					t.Errorf("RateLimit-Policy %q", a.Header.Get("RateLimit-Policy"))
				}
				if took := time.Since(start); took > 3*time.Second {
					t.Errorf("the refusal took %s, want it at once", took)
				}
			}
			other := h.endOne(t, first, second)
			s.awaitRemaining(t, 1, "concurrent-ip", "127.0.0.1")
			a := s.get(t, "/open/b")
			if a.Status != 200 {
				t.Fatalf("status %d, want 200: a place is free", a.Status)
			}
			wantHeaders(t, a, `"concurrent-ip";q=2;qu="concurrent-requests"`, `"concurrent-ip";r=0`)
			s.awaitRemaining(t, 1, "concurrent-ip", "127.0.0.1")
			third := h.begin(t, s, "/open/hold")
			wantViolated(t, s.get(t, "/open/b"), "concurrent-ip")
			h.end(t, other, third)
			s.awaitRemaining(t, 2, "concurrent-ip", "127.0.0.1")
		})
	}
}

// TestLimitsForgetWhoHangsUp has clients go away while their requests are held, and
// upstreams that end badly.
func TestLimitsForgetWhoHangsUp(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{Gate: "concurrent 2 by ip {\n on /open/hold\n on /open/b\n}"}, nil)
	h := hold(t, s.Spy)
	impatient := newClient(t, "http://"+s.Addr)
	impatient.Timeout = 300 * time.Millisecond
	gone := make(chan error, 2)
	for range 2 {
		go func() {
			_, err := impatient.try("GET", "/open/hold", "")
			gone <- err
		}()
		<-h.arrived
	}
	for range 2 {
		if err := <-gone; err == nil {
			t.Fatal("a held request was answered")
		}
	}
	s.awaitRemaining(t, 2, "concurrent-ip", "127.0.0.1")
	s.Spy.respond(func(recorded) []byte { return nil })
	for n := range 5 {
		if a := s.get(t, "/open/b"); a.Status != 502 {
			t.Errorf("request %d to a broken upstream: status %d, want 502", n+1, a.Status)
		}
		s.awaitRemaining(t, 2, "concurrent-ip", "127.0.0.1")
	}
}

// TestLimitsOfRequestsAtOneTimeOverTwoGateways has the places be common, and those
// of a gateway that was killed come back by themselves.
func TestLimitsOfRequestsAtOneTimeOverTwoGateways(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	fleet := startFleet(t, 2, redis, siteConfig{Global: patientRedis, Gate: "concurrent 2 by ip"})
	h := hold(t, fleet[0].Spy)
	first, second := h.begin(t, fleet[0], "/open/hold"), h.begin(t, fleet[1], "/open/hold")
	for _, s := range fleet {
		wantViolated(t, s.get(t, "/open/b"), "concurrent-ip")
	}
	keys := redis.reply(t, "KEYS", "moat:rl:*")
	if len(keys) != 1 {
		t.Fatalf("keys %q, want the one of the limit", keys)
	}
	fleet[0].kill()
	<-first
	clock := redis.reply(t, "TIME")
	now, err := strconv.ParseInt(clock[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	places := redis.reply(t, "ZRANGE", keys[0], "0", "-1", "WITHSCORES")
	if len(places) != 4 {
		t.Fatalf("places %q, want two and when they expire", places)
	}
	for n := 1; n < len(places); n += 2 {
		until, err := strconv.ParseFloat(places[n], 64)
		if err != nil {
			t.Fatal(err)
		}
		if left := until/1e6 - float64(now); left <= 0 || left > 31 {
			t.Errorf("the place of %s expires in %.0f s, want 30 at most", places[n-1], left)
		}
	}
	if ttl := redis.reply(t, "PTTL", keys[0]); ttl[0] == "-1" {
		t.Error("the key of the places never expires")
	}
	// The dead one's still counts.
	wantViolated(t, fleet[1].get(t, "/open/b"), "concurrent-ip")
	h.release <- struct{}{} // Whichever of the two the upstream holds goes on.
	h.release <- struct{}{}
	if a := <-second; a.Status != 200 {
		t.Errorf("status %d, want 200: the other gateway died, not this one", a.Status)
	}
	fleet[1].awaitRemaining(t, 1, "concurrent-ip", "127.0.0.1")
	if a := fleet[1].get(t, "/open/b"); a.Status != 200 {
		t.Errorf("status %d, want 200: one place is free", a.Status)
	}
}

// TestLimitsOfBothKindsChargeNothingOfEachOther has somebody refused for want of a
// place, who must not pay for it, and tiers of places.
func TestLimitsOfBothKindsChargeNothingOfEachOther(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{Gate: "limit rate 4/24h by ip {\n on /open/**\n}\nconcurrent crowd 1 by ip {\n on /open/**\n}\n" +
		"concurrent people 1 by user {\n tier admin 3\n}"}, nil)
	h := hold(t, s.Spy)
	held := h.begin(t, s, "/open/hold")
	for range 8 {
		wantViolated(t, s.get(t, "/open/b"), "crowd")
	}
	if n := s.remaining(t, "rate", "127.0.0.1"); n != 3 {
		t.Errorf("%d units of the rate remain, want 3: refusals for want of a place took some", n)
	}
	h.end(t, held)
	s.awaitRemaining(t, 1, "crowd", "127.0.0.1")
	for n := range 3 {
		if a := s.get(t, "/open/b"); a.Status != 200 {
			t.Errorf("request %d: status %d, want 200", n+1, a.Status)
		}
		s.awaitRemaining(t, 1, "crowd", "127.0.0.1")
	}
	// And who is refused by the rate holds no place.
	for range 3 {
		wantViolated(t, s.get(t, "/open/b"), "rate")
	}
	if n := s.remaining(t, "crowd", "127.0.0.1"); n != 1 {
		t.Errorf("%d places are free, want 1", n)
	}
	for id, c := range map[string]struct {
		role   string
		places int
	}{"u-1": {"user", 1}, "a-1": {"admin", 3}} {
		token := bearer(s.Issuer.as(t, id, c.role))
		var all []chan answer
		for range c.places {
			all = append(all, h.begin(t, s, "/me", token))
		}
		wantViolated(t, s.get(t, "/me", token), "people")
		h.end(t, all...)
	}
}

// TestLimitsWithALease has a busy caller cost far fewer calls than requests, and
// never get more than a lease for each instance beyond the rate.
func TestLimitsWithALease(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	fleet := startFleet(t, 2, redis, siteConfig{Global: patientRedis, Gate: "limit 1000/24h by ip {\n lease 10\n}"})
	before := redis.calls(t, "evalsha")
	if n := fleet[0].passes(t, 300, "GET", "/open/a"); n != 300 {
		t.Errorf("%d of 300 passed, want all", n)
	}
	calls := redis.calls(t, "evalsha") - before
	t.Logf("%d calls for 300 requests with lease 10", calls)
	if calls > 100 {
		t.Errorf("%d calls for 300 requests with lease 10, want far fewer", calls)
	}
	total := tally{counts: map[int]int{}}
	for range 8 {
		got := flood(150, clientsOf(fleet), "GET", "/open/a")
		for status, n := range maps.All(got.counts) {
			total.counts[status] += n
		}
		total.errs = append(total.errs, got.errs...)
	}
	passed := 300 + total.counts[200]
	t.Logf("%d of 1000 units were spent", passed)
	// What is not spent in a second is lost: a lease an instance now and then.
	if passed > 1000+20 || passed < 900 || total.counts[200]+total.counts[429] != 1200 {
		t.Errorf("%d passed, answers %v, errors %v; want about 1000 and 1020 at most", passed, total.counts, total.errs)
	}
	for _, s := range fleet {
		if a := s.get(t, "/open/a"); a.Status != 429 {
			t.Errorf("status %d, want 429: everything is spent", a.Status)
		}
	}
}
