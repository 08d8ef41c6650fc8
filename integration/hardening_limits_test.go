//go:build linux

package integration

import (
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
)

// counter returns the value of a metric line that holds all the given labels; a
// line that is not there counts as 0.
func (s *site) counter(t *testing.T, name string, labels ...string) float64 {
	t.Helper()
	c := newClient(t, "http://127.0.0.1:"+portOf(s.Config.Metrics))
	for line := range strings.Lines(string(c.send(t, "GET", "/metrics", "").Body)) {
		if !strings.HasPrefix(line, name+"{") || !containsAll(line, labels) {
			continue
		}
		value, err := strconv.ParseFloat(strings.TrimSpace(line[strings.LastIndex(line, " "):]), 64)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		return value
	}
	return 0
}

func containsAll(s string, parts []string) bool {
	for _, part := range parts {
		if !strings.Contains(s, part) {
			return false
		}
	}
	return true
}

// TestHardeningPathParametersDoNotEscapeALimit guesses passwords at spellings of
// the login that a servlet container takes for the login.
func TestHardeningPathParametersDoNotEscapeALimit(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{
		Gate:  "limit login 2/24h by header:X-Client {\n on POST /auth/login\n}",
		Rules: "\n* /** public",
	}, nil)
	for i, target := range []string{
		"/auth/login;x", "/auth/login%3Bx", "/auth/login;", "/auth/login%3B", "/auth/login%3bx", "/auth;v=1/login", "/auth;a/login;b=c;d",
	} {
		t.Run(target, func(t *testing.T) {
			post := func(client, target string) exchange {
				t.Helper()
				return s.raw(t, rawRequest("POST", target, s.Addr, fmt.Sprintf("X-Client: %s-%d", client, i), "Content-Length: 0"))
			}
			for range 2 {
				if e := post("spelled", target); e.Status != 200 {
					t.Fatalf("status %d, want 200\n%s", e.Status, e.Body)
				}
			}
			wantProblem(t, post("spelled", "/auth/login").answer, 429, "rate-limited")
			for range 2 {
				if e := post("plain", "/auth/login"); e.Status != 200 {
					t.Fatalf("status %d, want 200\n%s", e.Status, e.Body)
				}
			}
			wantProblem(t, post("plain", target).answer, 429, "rate-limited")
			for range 3 {
				if e := post("other", "/auth/loginx;x"); e.Status != 200 {
					t.Errorf("another path: status %d, want 200", e.Status)
				}
			}
		})
	}
}

// TestHardeningShadowLimitsNeverRefuse has a store that is away and a policy that
// says closed: for the limit that enforces it, and for nothing else.
func TestHardeningShadowLimitsNeverRefuse(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{
		Global: "\n\t\tredis redis://" + deadAddress(t) + "/0 {\n\t\t\ton_error closed\n\t\t}",
		Gate: "limit tried 1/24h by ip {\n mode shadow\n}\n" +
			"limit named 1/24h by user {\n mode shadow\n on_error closed\n}\n" +
			"limit hard 100/24h by ip {\n on GET /open/hard\n}",
	}, nil)
	token := bearer(s.Issuer.as(t, "u-1", "user"))
	for range 4 {
		a := s.get(t, "/open/a")
		if a.Status != 200 {
			t.Fatalf("status %d, want 200: a limit in shadow refused\n%s", a.Status, a.Body)
		}
		if a := s.get(t, "/me", token); a.Status != 200 {
			t.Fatalf("somebody: status %d, want 200: a limit in shadow refused\n%s", a.Status, a.Body)
		}
	}
	a := s.get(t, "/open/a")
	e := awaitEvent(t, s.journal(), a.Header.Get("X-Request-Id"))
	if e.Outcome != "allow" || !strings.Contains(fmt.Sprint(e.Details["shadow"]), "limit.unavailable") {
		t.Errorf("event %s; want allow and limit.unavailable among details.shadow", e.Line)
	}
	hard := s.get(t, "/open/hard")
	wantProblem(t, hard, 503, "unavailable")
	if hard.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
}

// TestHardeningShadowLimitsCountAsTheyWould has a limit that counts failed logins
// only, in shadow. What it says it would refuse is what an operator decides by:
// successful logins must not use it up.
func TestHardeningShadowLimitsCountAsTheyWould(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{
		Gate:    "limit login 3/24h by ip {\n on POST /auth/login\n count 401\n mode shadow\n}",
		Rules:   publicRules,
		Metrics: freePort(t),
	}, nil)
	var failing atomic.Bool
	s.Spy.respond(func(recorded) []byte {
		if failing.Load() {
			return rawAnswer(401, "no")
		}
		return []byte(plainOK)
	})
	shadowed := func() float64 {
		return s.counter(t, "moat_ratelimit_total", `limit="login"`, `decision="shadow_blocked"`)
	}
	for n := range 9 {
		if a := s.send(t, "POST", "/auth/login", ""); a.Status != 200 {
			t.Fatalf("login %d: status %d, want 200", n+1, a.Status)
		}
	}
	if n := shadowed(); n != 0 {
		t.Errorf("shadow_blocked is %v after answers that do not count", n)
	}
	failing.Store(true)
	for n := range 7 {
		if a := s.send(t, "POST", "/auth/login", ""); a.Status != 401 {
			t.Fatalf("failed login %d: status %d, want the application's 401", n+1, a.Status)
		}
	}
	if n := shadowed(); n != 4 {
		t.Errorf("shadow_blocked is %v after 7 answers that count against a limit of 3, want 4", n)
	}
}
