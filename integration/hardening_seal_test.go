//go:build linux

package integration

import (
	"fmt"
	"testing"
)

// sealedSite changes requests after the decision in every way that a Caddyfile
// offers; below /loose the rule allows it.
func sealedSite(upstream string) siteConfig {
	handle := func(directive, path, line string) string {
		return fmt.Sprintf("\t%s %s {\n\t\treverse_proxy %s {\n\t\t\ttransport moat\n\t\t\t%s\n\t\t}\n\t}\n", directive, path, upstream, line)
	}
	site := ""
	for _, below := range []string{"/open", "/loose"} {
		site += fmt.Sprintf("\turi %[1]s/query query +a b\n\turi %[1]s/noquery query -x\n\turi %[1]s/replace replace replace internal\n"+
			"\trewrite %[1]s/rewrite /internal/x\n\tmethod %[1]s/method DELETE\n", below)
		site += handle("handle", below+"/host", "header_up Host other.test")
		site += handle("handle_path", below+"/strip/*", "")
		site += handle("handle", below+"/rewritten", "rewrite /internal/y")
		site += handle("handle", below+"/verb", "method PUT")
	}
	site += handle("handle", "/open/dialed", "header_up Host {upstream_hostport}")
	site += handle("handle_path", "/app/*", "") + handle("handle_path", "/app2/v1/*", "")
	site += handle("handle", "/mine/evil", "header_up X-User-Id evil") + handle("handle", "/mine/none", "header_up -X-User-Id")
	site += handle("handle", "/mine/odd", "header_up X_User_Id evil") + handle("handle", "/open/evil", "header_up X-User-Id evil")
	site += "\trequest_header /mine/early X-User-Id evil\n\trequest_header /mine/gone -X-User-Id\n"
	return siteConfig{
		Upstream: upstream, Site: site,
		Rules: "\n* /open/** public\n* /loose/** public {\nrewrite_ok\n}\nGET /mine/** authenticated\n" +
			"GET /app/** public {\nstrip_prefix /app\n}\nGET /app2/** public {\nstrip_prefix /app2\n}\n* /internal/** deny",
	}
}

// TestHardeningNothingLeavesOtherThanDecided has the site change a request after
// it was decided on. What was judged is what the upstream receives, or nothing.
func TestHardeningNothingLeavesOtherThanDecided(t *testing.T) {
	t.Parallel()
	spy := startSpy(t)
	s := startSite(t, sealedSite(spy.Addr), nil)
	for name, c := range map[string]struct{ path, reason, method, target string }{
		"query added":     {"query", "seal.query-changed", "GET", "?a=b"},
		"query removed":   {"noquery?x=1", "seal.query-changed", "GET", ""},
		"path replaced":   {"replace", "seal.path-changed", "GET", ""},
		"path rewritten":  {"rewrite", "seal.path-changed", "GET", ""},
		"method":          {"method", "seal.method-changed", "DELETE", ""},
		"host":            {"host", "seal.host-changed", "GET", ""},
		"prefix stripped": {"strip/x", "seal.path-changed", "GET", ""},
		"proxy's rewrite": {"rewritten", "seal.path-changed", "GET", ""},
		"proxy's method":  {"verb", "seal.method-changed", "PUT", ""},
	} {
		t.Run(name, func(t *testing.T) {
			a := s.get(t, "/open/"+c.path, caseHeader+": sealed "+name)
			wantProblem(t, a, 403, "forbidden")
			if got := spy.marked("sealed " + name); len(got) != 0 {
				t.Errorf("sent anyway:\n%s", got[0].Head)
			}
			if e := awaitEvent(t, s.journal(), a.Header.Get("X-Request-Id")); e.Outcome != "deny" || e.Reason != c.reason {
				t.Errorf("event %s; want deny, %s", e.Line, c.reason)
			}
			// The same change under a rule that allows it shows that it happens.
			a = s.get(t, "/loose/"+c.path, caseHeader+": loose "+name)
			got := spy.marked("loose " + name)
			if a.Status != 200 || len(got) != 1 || got[0].Method != c.method {
				t.Fatalf("with rewrite_ok: status %d, %d requests upstream; want 200 and one %s", a.Status, len(got), c.method)
			}
			if got[0].Target == "/loose/"+c.path && got[0].Method == "GET" && got[0].get("Host")[0] == s.Addr {
				t.Errorf("nothing was changed; the case proves nothing:\n%s", got[0].Head)
			}
		})
	}
	if a := s.get(t, "/open/untouched?a=b"); a.Status != 200 {
		t.Errorf("an untouched request: status %d, want 200", a.Status)
	}
	if a := s.get(t, "/open/dialed"); a.Status != 200 {
		t.Errorf("the dialed address as host: status %d, want 200", a.Status)
	}
}

// TestHardeningOnlyThePrefixOfTheRuleIsStripped has a rule that allows one prefix
// to go and a site that takes more off.
func TestHardeningOnlyThePrefixOfTheRuleIsStripped(t *testing.T) {
	t.Parallel()
	spy := startSpy(t)
	s := startSite(t, sealedSite(spy.Addr), nil)
	a := s.get(t, "/app/x/y", caseHeader+": prefix")
	if got := spy.marked("prefix"); a.Status != 200 || len(got) != 1 || got[0].Target != "/x/y" {
		t.Errorf("status %d, upstream got %v; want /x/y once", a.Status, got)
	}
	wantProblem(t, s.get(t, "/app2/v1/internal/x", caseHeader+": more"), 403, "forbidden")
	if got := spy.marked("more"); len(got) != 0 {
		t.Errorf("sent anyway:\n%s", got[0].Head)
	}
}

// TestHardeningIdentityIsWrittenLast has the site's own header operations touch
// what the upstream takes for the caller.
func TestHardeningIdentityIsWrittenLast(t *testing.T) {
	t.Parallel()
	spy := startSpy(t)
	s := startSite(t, sealedSite(spy.Addr), nil)
	token := bearer(s.Issuer.as(t, "u-1", "user"))
	known := map[string]string{"x-user-id": "u-1", "x-tenant-id": "t-1", "x-roles": "user"}
	for path, want := range map[string]map[string]string{
		"/mine/evil": known, "/mine/none": known, "/mine/odd": known, "/mine/early": known, "/mine/gone": known, "/open/evil": nil,
	} {
		t.Run(path, func(t *testing.T) {
			header := []string{caseHeader + ": last " + path}
			if want != nil {
				header = append(header, token)
			}
			a := s.get(t, path, header...)
			got := spy.marked("last " + path)
			if a.Status != 200 || len(got) != 1 {
				t.Fatalf("status %d, %d requests upstream; want 200 and one\n%s", a.Status, len(got), a.Body)
			}
			checkIdentity(t, got[0], want)
		})
	}
}

// TestHardeningPathParametersDoNotChangeTheRule asks for a denied path in the
// spelling of servlet containers, which cut `;x` off before they look. Where both
// readings fall under one rule the bytes go on as they are.
func TestHardeningPathParametersDoNotChangeTheRule(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{Rules: "\n* /** authenticated\n* /internal/** deny\nGET /internal/health public"}, nil)
	token := bearer(s.Issuer.as(t, "root", "superadmin"))
	for i, target := range []string{
		"/internal;x/y", "/internal;/y", "/internal%3Bx/y", "/internal%3bx/y", "/internal;", "/internal;a=1;b=2/y/z", "/internal/health;x",
	} {
		t.Run(target, func(t *testing.T) {
			mark := fmt.Sprintf("parameter-%d", i)
			e := s.raw(t, rawRequest("GET", target, s.Addr, token, caseHeader+": "+mark))
			wantProblem(t, e.answer, 400, "bad-request")
			if ev := awaitEvent(t, s.journal(), e.Header.Get("X-Request-Id")); ev.Reason != "rbac.path-parameter" {
				t.Errorf("event %s; want rbac.path-parameter", ev.Line)
			}
			if got := s.Spy.marked(mark); len(got) != 0 {
				t.Errorf("sent anyway: %s", got[0].Target)
			}
		})
	}
	for i, target := range []string{"/open;v=1/a", "/open/a;jsessionid=1", "/open%3Bv=1/a", "/open;v=1/a?q=;x"} {
		t.Run(target, func(t *testing.T) {
			mark := fmt.Sprintf("harmless-%d", i)
			e := s.raw(t, rawRequest("GET", target, s.Addr, token, caseHeader+": "+mark))
			if got := s.Spy.marked(mark); e.Status != 200 || len(got) != 1 || got[0].Target != target {
				t.Errorf("status %d, upstream got %v; want the same bytes once\n%s", e.Status, got, e.Body)
			}
		})
	}
}
