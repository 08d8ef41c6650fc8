//go:build linux

package integration

import (
	"testing"
	"time"
)

// TestHardeningEmptyCookieIsNoToken logs out the way many applications do, by an
// empty cookie. It must not decide over the Bearer beside it, and the cookie's
// same-origin check must not fall on a request that no cookie authenticates.
func TestHardeningEmptyCookieIsNoToken(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{}, nil)
	user, admin := s.Issuer.as(t, "u-1", "user"), s.Issuer.as(t, "a-1", "admin")
	for name, cookie := range map[string]string{
		"empty": "Cookie: access_token=", "empty among others": "Cookie: a=1; access_token=; b=2", "without a sign": "Cookie: access_token",
	} {
		t.Run(name, func(t *testing.T) {
			a := s.get(t, "/me", cookie, bearer(user), caseHeader+": "+name)
			got := s.Spy.marked(name)
			if a.Status != 200 || len(got) != 1 {
				t.Fatalf("status %d, %d requests upstream; want 200 and one\n%s", a.Status, len(got), a.Body)
			}
			checkIdentity(t, got[0], map[string]string{"x-user-id": "u-1", "x-tenant-id": "t-1", "x-roles": "user"})
			if a := s.send(t, "POST", "/reports", "", cookie, bearer(admin), "Origin: https://other.test"); a.Status != 200 {
				t.Errorf("POST by a Bearer: status %d, want 200\n%s", a.Status, a.Body)
			}
			alone := s.get(t, "/me", cookie)
			wantProblem(t, alone, 401, "token-missing")
			wantChallenge(t, alone, "")
			wantProblem(t, s.get(t, "/me", cookie, bearer("nonsense")), 401, "token-invalid")
		})
	}
	t.Run("an empty one beside a full one", func(t *testing.T) {
		e := s.raw(t, rawRequest("GET", "/me", s.Addr, "Cookie: access_token=; access_token="+user))
		wantProblem(t, e.answer, 400, "bad-request")
	})
}

// TestHardeningEmptyCookieLeavesAGuest has a site where a caller without a token
// has a role; an empty cookie is no bad token there.
func TestHardeningEmptyCookieLeavesAGuest(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{JWT: "\t\t\tanonymous guest"}, nil)
	a := s.get(t, "/documents/7", "Cookie: access_token=", caseHeader+": guest")
	got := s.Spy.marked("guest")
	if a.Status != 200 || len(got) != 1 {
		t.Fatalf("status %d, %d requests upstream; want 200 and one\n%s", a.Status, len(got), a.Body)
	}
	checkIdentity(t, got[0], nil)
	if e := awaitEvent(t, s.journal(), a.Header.Get("X-Request-Id")); e.UserID != "anonymous" || e.Details["auth"] != "none" {
		t.Errorf("event %s; want an anonymous caller", e.Line)
	}
	wantProblem(t, s.get(t, "/me", "Cookie: access_token="), 401, "token-missing")
	now := time.Now()
	stale := s.Issuer.token(t, map[string]any{"iat": now.Add(-2 * time.Hour).Unix(), "exp": now.Add(-time.Hour).Unix()})
	wantProblem(t, s.get(t, "/documents/7", "Cookie: access_token="+stale), 401, "token-expired")
	wantProblem(t, s.get(t, "/documents/7", "Cookie: access_token=nonsense"), 401, "token-invalid")
}
