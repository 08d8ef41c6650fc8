//go:build linux

package integration

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// shadowed are the reasons in an event that would have refused or changed.
func shadowed(e event) []string {
	list, _ := e.Details["shadow"].([]any)
	var out []string
	for _, item := range list {
		out = append(out, fmt.Sprint(item))
	}
	return out
}

// TestHardeningShadowHeadersChangeNothing tries the headers on an application
// that sends its own: nothing may change, and the trail tells what would.
func TestHardeningShadowHeadersChangeNothing(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{Headers: "headers html {\nmode shadow\n}"}, nil)
	s.Spy.respond(func(recorded) []byte { return careless(200) })
	e := s.raw(t, rawRequest("GET", "/open/a", s.Addr))
	if e.Status != 200 {
		t.Fatalf("status %d, want 200", e.Status)
	}
	ev := awaitEvent(t, s.journal(), e.Header.Get("X-Request-Id"))
	for _, name := range htmlHeaders {
		if v := e.lines(name); !slices.Equal(v, []string{"weak-one", "weak-two"}) {
			t.Errorf("%s = %q, want the application's", name, v)
		}
		if !slices.Contains(shadowed(ev), "headers."+name) {
			t.Errorf("headers.%s is not among %q", name, shadowed(ev))
		}
	}
	if !strings.Contains(string(e.Bytes), "X-Powered-By: leaky") {
		t.Error("X-Powered-By was removed")
	}
	if ev.Outcome != "allow" {
		t.Errorf("outcome %s, want allow", ev.Outcome)
	}
	refused := s.get(t, "/me")
	wantProblem(t, refused, 401, "token-missing")
	if v := refused.Header.Get("Content-Security-Policy"); v != "" {
		t.Errorf("a refusal has Content-Security-Policy %q", v)
	}
}

// TestHardeningShadowBlockRefusesNothing puts the whole block in front of an
// application that has callers of its own making: none may be turned away, none
// may be believed, and none may be logged out by a cleared cookie.
func TestHardeningShadowBlockRefusesNothing(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{Gate: "insecure_shadow\nlimit 1/24h by ip {\non GET /limited\n}"}, nil)
	now := time.Now()
	stale := s.Issuer.token(t, map[string]any{"iat": now.Add(-2 * time.Hour).Unix(), "exp": now.Add(-time.Hour).Unix()})
	foreign := newIssuer(t).as(t, "u-9", "admin")
	forged := []string{"X-User-Id: forged", "X_User_Id: forged", "x.roles: forged"}
	s.get(t, "/limited")
	for name, c := range map[string]struct {
		method, path string
		header       []string
		want         []string // prefixes of what the event lists
	}{
		"no token":         {"GET", "/me", nil, []string{"jwt.missing", "rbac."}},
		"a bad bearer":     {"GET", "/me", []string{bearer(foreign)}, []string{"jwt.", "rbac."}},
		"an expired one":   {"GET", "/me", []string{"Cookie: access_token=" + stale}, []string{"jwt.", "rbac."}},
		"a foreign cookie": {"GET", "/me", []string{"Cookie: access_token=" + foreign}, []string{"jwt.", "rbac."}},
		"cross origin":     {"POST", "/reports", []string{"Cookie: access_token=" + stale, "Origin: https://evil.test"}, []string{"jwt.cross-origin", "rbac."}},
		"deny":             {"GET", "/internal/x", nil, []string{"rbac."}},
		"no rule":          {"GET", "/nowhere", nil, []string{"rbac."}},
		"limited":          {"GET", "/limited", nil, []string{"limit.ip"}},
	} {
		t.Run(name, func(t *testing.T) {
			a := s.send(t, c.method, c.path, "", slices.Concat(c.header, forged, []string{caseHeader + ": " + name})...)
			got := s.Spy.marked(name)
			if a.Status != 200 || len(got) != 1 {
				t.Fatalf("status %d, %d requests upstream; want 200 and one\n%s", a.Status, len(got), a.Body)
			}
			checkIdentity(t, got[0], nil)
			if v := a.Header.Values("Set-Cookie"); len(v) != 0 {
				t.Errorf("Set-Cookie %q, want none", v)
			}
			e := awaitEvent(t, s.journal(), a.Header.Get("X-Request-Id"))
			if e.Outcome != "allow" || e.UserID != "anonymous" {
				t.Errorf("event %s; want allow, anonymous", e.Line)
			}
			for _, want := range c.want {
				if !slices.ContainsFunc(shadowed(e), func(r string) bool { return strings.HasPrefix(r, want) }) {
					t.Errorf("no %s among %q", want, shadowed(e))
				}
			}
		})
	}
	known := s.get(t, "/me", append(forged, bearer(s.Issuer.as(t, "u-1", "user")), caseHeader+": known")...)
	got := s.Spy.marked("known")
	if known.Status != 200 || len(got) != 1 {
		t.Fatalf("status %d, %d requests upstream; want 200 and one", known.Status, len(got))
	}
	checkIdentity(t, got[0], map[string]string{"x-user-id": "u-1", "x-tenant-id": "t-1", "x-roles": "user"})
	// The door has no shadow: what cannot be read in one way cannot be judged.
	wantProblem(t, s.raw(t, rawRequest("GET", "/open//a", s.Addr)).answer, 400, "bad-request")
}
