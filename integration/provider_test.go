//go:build linux

package integration

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestCaddysOwnAuthenticationCanAskTheVerifier composes a site from Caddy's own
// handlers, without a gate.
func TestCaddysOwnAuthenticationCanAskTheVerifier(t *testing.T) {
	t.Parallel()
	i, port := newIssuer(t), freePort(t)
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	h := newHome(t, "", nil)
	config := fmt.Sprintf(`{
	"admin": {"disabled": true},
	"apps": {
		"moat": {
			"issuer": [{"name": "main", "iss": [%q], "audience": [%q], "key": [%q]}],
			"role": [{"name": "user", "permissions": ["x"]}]
		},
		"http": {"servers": {"s": {"listen": [%q], "routes": [{"handle": [
			{"handler": "authentication", "providers": {"moat_jwt": {"issuers": ["main"], "from": [{"in": "header"}, {"in": "cookie", "name": "t"}]}}},
			{"handler": "static_response", "body": "{http.auth.user.id}|{http.auth.user.tenant}|{http.auth.user.roles}|{http.request.cookie.other}"}
		]}]}}}
	}
}`, issuerURL, audience, i.KeyFile, addr)
	if err := os.WriteFile(h.File+".json", []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	startIn(t, h, []string{addr}, "--config", h.File+".json")
	c := newClient(t, "http://"+addr)
	good := i.as(t, "u-1", "user")
	forged := newIssuer(t).as(t, "u-1", "user")
	for name, row := range map[string]struct {
		method  string
		headers []string
		status  int
		body    string
	}{
		"good":               {"GET", []string{bearer(good)}, 200, "u-1|t-1|user|"},
		"good, in a cookie":  {"GET", []string{"Cookie: t=" + good + "; other=1"}, 200, "u-1|t-1|user|1"},
		"none":               {"GET", nil, 401, ""},
		"forged":             {"GET", []string{bearer(forged)}, 401, ""},
		"forged beside good": {"GET", []string{bearer(forged), "Cookie: t=" + good}, 401, ""},
		"two":                {"GET", []string{"Cookie: t=" + good + "; t=" + good}, 401, ""},
		"of another site":    {"POST", []string{"Cookie: t=" + good, "Origin: https://evil.test"}, 401, ""},
	} {
		a := c.send(t, row.method, "/", "", row.headers...)
		if a.Status != row.status || row.status == 200 && string(a.Body) != row.body {
			t.Errorf("%s: status %d, %s", name, a.Status, a.Body)
		}
		if row.status == 401 && !strings.HasPrefix(a.Header.Get("WWW-Authenticate"), `Bearer realm="moat"`) {
			t.Errorf("%s: WWW-Authenticate %q", name, a.Header.Get("WWW-Authenticate"))
		}
	}
}

// TestBehindAGateTheProviderChangesNothing has the gate judge a Bearer and the
// provider a cookie of somebody else: the event and the identity headers are
// those of the caller that the gate let in.
func TestBehindAGateTheProviderChangesNothing(t *testing.T) {
	t.Parallel()
	i, port, spy := newIssuer(t), freePort(t), startSpy(t)
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	h := newHome(t, "", nil)
	config := fmt.Sprintf(`{
	"admin": {"disabled": true},
	"apps": {
		"moat": {
			"issuer": [{"name": "main", "iss": [%q], "audience": [%q], "key": [%q]}],
			"audit": {"journal": {"dir": %q, "fsync": "10ms"}}
		},
		"http": {"servers": {"s": {"listen": [%q], "routes": [{"handle": [
			{"handler": "moat_audit"}, {"handler": "moat_guard", "identity": ["X-User-Id"]},
			{"handler": "moat_rbac", "stage": "match", "rules": [{"methods": ["*"], "pattern": "/**", "require": ["authenticated"]}]},
			{"handler": "moat_jwt", "issuers": ["main"], "forward": [{"header": "X-User-Id", "value": "id"}]},
			{"handler": "moat_rbac", "stage": "decide"},
			{"handler": "authentication", "providers": {"moat_jwt": {"issuers": ["main"], "from": [{"in": "cookie", "name": "t"}]}}},
			{"handler": "reverse_proxy", "upstreams": [{"dial": %q}], "transport": {"protocol": "moat"}}
		]}]}}}
	}
}`, issuerURL, audience, i.KeyFile, h.journal(), addr, spy.Addr)
	put(t, h.File+".json", config)
	startIn(t, h, []string{addr}, "--config", h.File+".json")
	a := newClient(t, "http://"+addr).send(t, "GET", "/x", "", bearer(i.as(t, "gate")), "Cookie: t="+i.as(t, "provider"))
	if a.Status != 200 {
		t.Fatalf("status %d: %s", a.Status, a.Body)
	}
	if e := awaitEvent(t, h.journal(), a.Header.Get("X-Request-Id")); e.UserID != "gate" || e.Details["auth"] != "bearer" {
		t.Errorf("event %s", e.Line)
	}
	got := spy.requests()
	if len(got) != 1 || len(got[0].get("X-User-Id")) != 1 || got[0].get("X-User-Id")[0] != "gate" {
		t.Errorf("upstream got %q", got)
	}
}
