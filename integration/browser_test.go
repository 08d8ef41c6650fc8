//go:build linux

package integration

import (
	"strings"
	"testing"
)

func TestPreflightIsRefusedUnlessAllowed(t *testing.T) {
	t.Parallel()
	preflight := []string{"Origin: https://app.test", "Access-Control-Request-Method: GET"}
	s := startSite(t, siteConfig{}, nil)
	if a := s.send(t, "OPTIONS", "/me", "", preflight...); a.Status != 401 && a.Status != 403 {
		t.Errorf("status %d, want a refusal", a.Status)
	}
	if n := len(s.Spy.requests()); n != 0 {
		t.Errorf("%d requests reached the upstream", n)
	}
	s.reload(t, func(c *siteConfig) { c.Rules = siteRules + "\npreflight upstream" })
	for path, want := range map[string]bool{"/me": true, "/internal/x": false, "/nowhere": false} {
		a := s.send(t, "OPTIONS", path, "", append(preflight, caseHeader+": "+path)...)
		if passed := len(s.Spy.marked(path)) == 1; passed != want {
			t.Errorf("%s: status %d, passed %v, want %v", path, a.Status, passed, want)
		}
	}
	if a := s.send(t, "OPTIONS", "/me", "", "Origin: https://app.test"); a.Status == 200 {
		t.Error("an OPTIONS that is no preflight passed without identity")
	}
}

func TestAnonymousRole(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{JWT: "anonymous guest"}, nil)
	for path, status := range map[string]int{"/documents/7": 200, "/me": 401, "/users/u-1/files/a": 401} {
		if a := s.get(t, path, caseHeader+": "+path); a.Status != status {
			t.Errorf("%s: status %d, want %d\n%s", path, a.Status, status, a.Body)
		}
	}
	wantProblem(t, s.get(t, "/documents/7", "Authorization: Bearer nonsense"), 401, "token-invalid")
	for _, r := range s.Spy.requests() {
		checkIdentity(t, r, nil)
	}
}

func TestShadowRefusesNothingAndStripsIdentity(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]siteConfig{
		"the whole block": {Gate: "insecure_shadow"},
		"a rule":          {Rules: "\nGET /me settings.read {\n shadow\n}"},
		"a limit":         {Gate: "limit 1/24h by ip {\n mode shadow\n}", Rules: publicRules},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startSite(t, c, nil)
			token := bearer(s.Issuer.as(t, "u-1", "user"))
			for range 3 {
				if a := s.get(t, "/me", token, "X-User-Id: forged"); a.Status != 200 {
					t.Fatalf("status %d, want 200\n%s", a.Status, a.Body)
				}
			}
			for _, r := range s.Spy.requests() {
				if strings.Contains(string(r.Head), "forged") {
					t.Errorf("a forged identity passed:\n%s", r.Head)
				}
			}
		})
	}
}
