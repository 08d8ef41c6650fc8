//go:build linux

package integration

import (
	"fmt"
	"strings"
	"testing"
)

const sealRules = "\n* /open/** public\n* /me/** authenticated"

var sealedIdentity = map[string]string{"x-user-id": "u-1", "x-tenant-id": "t-1", "x-roles": "user"}

// handled is a handle block with one sealed proxy.
func handled(pattern, upstreams string, lines ...string) string {
	return fmt.Sprintf("\thandle %s {\n\t\treverse_proxy %s {\n\t\t\ttransport moat\n\t\t\t%s\n\t\t}\n\t}\n",
		pattern, upstreams, strings.Join(lines, "\n\t\t\t"))
}

// TestIntegrityRetriesArriveOnceAndSealed has a proxy try a second upstream after
// the first could not be reached, or hung up.
func TestIntegrityRetriesArriveOnceAndSealed(t *testing.T) {
	t.Parallel()
	hangsUp, alive := startSpy(t), startSpy(t)
	hangsUp.respond(func(recorded) []byte { return nil })
	retry := []string{"lb_policy first", "lb_try_duration 5s", "lb_try_interval 20ms", "fail_duration 10s"}
	s := startSite(t, siteConfig{
		Rules: sealRules, Upstream: alive.Addr,
		Site: handled("/me/dead*", deadAddress(t)+" "+alive.Addr, retry...) + handled("/me/hung*", hangsUp.Addr+" "+alive.Addr, retry...),
	}, nil)
	token := bearer(s.Issuer.as(t, "u-1", "user"))
	for i, c := range []struct {
		method, path, body string
		status, arrive     int
	}{
		{"GET", "/me/dead/a?x=1", "", 200, 1},
		{"POST", "/me/dead/b", "the body", 200, 1},
		{"GET", "/me/hung/a?x=1", "", 200, 1},
		{"POST", "/me/hung/b", "the body", 0, -1}, // The first may have acted on it.
	} {
		t.Run(c.method+" "+c.path, func(t *testing.T) {
			mark := fmt.Sprintf("retry-%d", i)
			a := s.send(t, c.method, c.path, c.body, token, "X-User-Id: forged", caseHeader+": "+mark)
			got := alive.marked(mark)
			if c.arrive < 0 {
				if n := len(got) + len(hangsUp.marked(mark)); n > 1 {
					t.Errorf("status %d; sent %d times", a.Status, n)
				}
				return
			}
			if a.Status != c.status || len(got) != c.arrive {
				t.Fatalf("status %d, %d requests at the second; want %d and %d", a.Status, len(got), c.status, c.arrive)
			}
			if got[0].Method != c.method || got[0].Target != c.path || string(got[0].Body) != c.body {
				t.Errorf("arrived as %s %s %q", got[0].Method, got[0].Target, got[0].Body)
			}
			checkIdentity(t, got[0], sealedIdentity)
		})
	}
	if len(hangsUp.requests()) == 0 {
		t.Error("the first upstream was never tried; the test proves nothing")
	}
	for _, r := range hangsUp.requests() {
		checkIdentity(t, r, sealedIdentity)
	}
}

// TestIntegrityARefusalDoesNotMarkTheUpstreamDown lets callers run into the seal:
// that must not take the upstream from everybody else.
func TestIntegrityARefusalDoesNotMarkTheUpstreamDown(t *testing.T) {
	t.Parallel()
	spy := startSpy(t)
	passive := []string{"fail_duration 60s", "max_fails 1", "unhealthy_status 5xx", "lb_try_duration 1s"}
	s := startSite(t, siteConfig{
		Rules: sealRules, Upstream: spy.Addr,
		Site: handled("/open/moved*", spy.Addr, append(passive, "rewrite /me/x")...) + handled("/open/*", spy.Addr, passive...),
	}, nil)
	for range 5 {
		wantProblem(t, s.get(t, "/open/moved", caseHeader+": moved"), 403, "forbidden")
	}
	if got := spy.marked("moved"); len(got) != 0 {
		t.Errorf("sent anyway:\n%s", got[0].Head)
	}
	if a := s.get(t, "/open/a"); a.Status != 200 {
		t.Errorf("after the refusals: status %d, want 200", a.Status)
	}
	// A failure of the upstream itself does count, so the setting is at work.
	spy.respond(func(recorded) []byte { return rawAnswer(500, "") })
	s.get(t, "/open/a")
	spy.respond(nil)
	if a := s.get(t, "/open/a"); a.Status != 503 {
		t.Errorf("after a failure: status %d, want 503 (the setting is not at work)", a.Status)
	}
}

// TestIntegrityActiveHealthChecksPassTheSeal has the proxy ask the upstream for
// its health, in requests that no caller made and no gate decided on.
func TestIntegrityActiveHealthChecksPassTheSeal(t *testing.T) {
	t.Parallel()
	healthy, sick := startSpy(t), startSpy(t)
	sick.respond(func(recorded) []byte { return rawAnswer(503, "") })
	active := []string{"health_uri /health?deep=1", "health_interval 50ms", "health_timeout 2s", "health_status 200"}
	s := startSite(t, siteConfig{
		Rules: sealRules, Upstream: healthy.Addr,
		Site: handled("/open/well*", healthy.Addr, active...) + handled("/open/sick*", sick.Addr, active...),
	}, nil)
	asked := func(spy *spy) func() bool {
		return func() bool {
			n := 0
			for _, r := range spy.requests() {
				if r.Target == "/health?deep=1" {
					n++
				}
			}
			return n > 3
		}
	}
	await(t, startBudget, "health checks of the healthy", asked(healthy))
	await(t, startBudget, "health checks of the sick", asked(sick))
	if a := s.get(t, "/open/well"); a.Status != 200 {
		t.Errorf("healthy upstream: status %d, want 200", a.Status)
	}
	if a := s.get(t, "/open/sick"); a.Status != 503 {
		t.Errorf("sick upstream: status %d, want 503", a.Status)
	}
}

// TestIntegrityForwardAuthBesideTheGate has an authorization server of the site's
// own asked as well. It sees no identity that a caller made up, and neither it nor
// the caller can put one into the application's request.
func TestIntegrityForwardAuthBesideTheGate(t *testing.T) {
	t.Parallel()
	auth := startSpy(t)
	auth.respond(func(r recorded) []byte {
		if strings.Contains(strings.Join(r.get("X-Forwarded-Uri"), ""), "/stop") {
			return rawAnswer(403, "no")
		}
		return rawAnswer(200, "", "X-Extra: granted", "X-User-Id: evil", "X_Roles: evil")
	})
	s := startSite(t, siteConfig{
		Rules: sealRules,
		Site:  "\tforward_auth " + auth.Addr + " {\n\t\turi /auth\n\t\tcopy_headers X-Extra X-User-Id X_Roles\n\t}\n",
	}, nil)
	token := bearer(s.Issuer.as(t, "u-1", "user"))
	forged := []string{
		"X-User-Id: forged", "x_user_id: forged", "X-Roles: forged", "X.Roles: forged", "X-Tenant-Id: forged", "X-Extra: made-up",
		"X-Forwarded-Uri: /forged", "X-Forwarded-Method: FORGED-forged", "X-Original-URL: /forged",
	}
	for name, c := range map[string]struct {
		path, token string
		status      int
		identity    map[string]string
	}{
		"nobody on an open path":    {"/open/a?x=1", "", 200, nil},
		"caller on an open path":    {"/open/b", token, 200, sealedIdentity},
		"caller":                    {"/me/a", token, 200, sealedIdentity},
		"refused by the other":      {"/open/stop", "", 403, nil},
		"nobody on a guarded path":  {"/me/b", "", 401, nil},
		"bad token, guarded path":   {"/me/c", "Authorization: Bearer forged", 401, nil},
		"traversal, open path name": {"/open/%2e%2e/me/d", "", 400, nil},
	} {
		t.Run(name, func(t *testing.T) {
			mark := "forward " + name
			lines := append([]string{caseHeader + ": " + mark}, forged...)
			if c.token != "" {
				lines = append(lines, c.token)
			}
			e := s.raw(t, rawRequest("GET", c.path, s.Addr, lines...))
			asked, got := auth.marked(mark), s.Spy.marked(mark)
			if want := c.status == 200; e.Status != c.status || (len(got) == 1) != want {
				t.Fatalf("status %d, %d requests upstream; want %d", e.Status, len(got), c.status)
			}
			if refusedByGate := c.status == 400 || c.status == 401; (len(asked) == 1) == refusedByGate {
				t.Errorf("the other server was asked %d times", len(asked))
			}
			for _, r := range asked {
				checkIdentity(t, r, c.identity)
				if uri := r.get("X-Forwarded-Uri"); !strings.HasPrefix(r.Target, "/auth") || len(uri) != 1 || uri[0] != c.path {
					t.Errorf("the other server was asked for %s about %q", r.Target, uri)
				}
			}
			for _, r := range got {
				checkIdentity(t, r, c.identity)
				if v := r.get("X-Extra"); len(v) != 1 || v[0] != "granted" {
					t.Errorf("X-Extra = %q, want what the other server granted", v)
				}
			}
		})
	}
}
