//go:build linux

package integration

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// folded is how a careless upstream may read a header name (CGI and WSGI turn
// both - and _ into _).
func folded(name string) string {
	return strings.ToLower(strings.NewReplacer("_", "-", ".", "-").Replace(name))
}

func spellings(words ...string) []string {
	var out []string
	for _, sep := range []string{"-", "_", "."} {
		name := strings.Join(words, sep)
		out = append(out, name, strings.ToLower(name), strings.ToUpper(name))
	}
	return append(out, words[0]+"-"+strings.Join(words[1:], "_"), words[0]+"_"+strings.Join(words[1:], "-"))
}

func TestIdentityHeadersComeFromTheGatewayOnly(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{}, nil)
	token := s.Issuer.as(t, "u-1", "user")
	wanted := map[string]string{"x-user-id": "u-1", "x-tenant-id": "t-1", "x-roles": "user"}
	var names []string
	names = append(names, spellings("X", "User", "Id")...)
	names = append(names, spellings("X", "Tenant", "Id")...)
	names = append(names, spellings("X", "Roles")...)
	for i, name := range names {
		for _, named := range []bool{false, true} {
			header := []string{name + ": forged"}
			if named {
				header = append(header, "Connection: "+name)
			}
			t.Run(fmt.Sprintf("%s named by Connection %v", name, named), func(t *testing.T) {
				mark := fmt.Sprintf("spoof-%d-%v", i, named)
				public := append(slices.Clone(header), caseHeader+": "+mark+"-public")
				s.raw(t, rawRequest("GET", "/open/a", s.Addr, public...))
				for _, r := range s.Spy.marked(mark + "-public") {
					checkIdentity(t, r, nil)
				}
				private := append(slices.Clone(header), caseHeader+": "+mark, bearer(token))
				e := s.raw(t, rawRequest("GET", "/me", s.Addr, private...))
				got := s.Spy.marked(mark)
				if len(got) != 1 {
					t.Fatalf("status %d, %d requests upstream; want one", e.Status, len(got))
				}
				checkIdentity(t, got[0], wanted)
			})
		}
	}
}

// checkIdentity wants each identity header once with its value, or not at all.
func checkIdentity(t *testing.T, r recorded, want map[string]string) {
	t.Helper()
	for _, name := range []string{"x-user-id", "x-tenant-id", "x-roles"} {
		values := r.values(func(n string) bool { return folded(n) == name })
		switch value, ok := want[name]; {
		case ok && !slices.Equal(values, []string{value}):
			t.Errorf("%s = %q, want %q once\n%s", name, values, value, r.Head)
		case !ok && len(values) != 0:
			t.Errorf("%s = %q, want none\n%s", name, values, r.Head)
		}
	}
	if strings.Contains(string(r.Head)+string(r.Tail), "forged") {
		t.Errorf("a forged value arrived:\n%s%s", r.Head, r.Tail)
	}
}

func TestIdentityIsNotTakenFromTrailers(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{}, nil)
	e := s.raw(t, "POST /open/a HTTP/1.1\r\nHost: "+s.Addr+"\r\n"+caseHeader+": trailer\r\n"+
		"Transfer-Encoding: chunked\r\nTrailer: X-User-Id, X-Original-Url\r\n\r\n"+
		"3\r\nabc\r\n0\r\nX-User-Id: forged\r\nX-Original-URL: /forged\r\n\r\n")
	got := s.Spy.marked("trailer")
	if len(got) != 1 || string(got[0].Body) != "abc" {
		t.Fatalf("status %d, upstream got %v; want the body once", e.Status, got)
	}
	checkIdentity(t, got[0], nil)
}

// overrides are headers by which frameworks let a client change method, target or
// address after the fact.
var overrides = []string{
	"X-Original-URL", "X-Original-URI", "X-Rewrite-URL", "X-HTTP-Method", "X-HTTP-Method-Override",
	"X-Method-Override", "X-Forwarded-Uri", "X-Forwarded-Prefix", "X-Forwarded-Path", "X-Forwarded-Port",
	"X-Forwarded-Server", "X-Forwarded-Scheme", "Forwarded", "X-Real-IP", "True-Client-IP", "X-Client-IP",
	"CF-Connecting-IP", "X-Forwarded-Anything", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto",
	"X_Original_URL", "x.rewrite.url", "X_HTTP_METHOD_OVERRIDE", "X_Forwarded_For", "x-forwarded.prefix", "X_Real_IP",
}

func TestOverrideHeadersDoNotPass(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{}, nil)
	for i, name := range overrides {
		t.Run(name, func(t *testing.T) {
			mark := fmt.Sprintf("override-%d", i)
			e := s.raw(t, rawRequest("GET", "/open/a", s.Addr, caseHeader+": "+mark, name+": forged"))
			got := s.Spy.marked(mark)
			if len(got) != 1 {
				t.Fatalf("status %d, %d requests upstream; want one", e.Status, len(got))
			}
			if strings.Contains(string(got[0].Head), "forged") {
				t.Errorf("the upstream got\n%s", got[0].Head)
			}
		})
	}
}

func TestUnverifiedTokensNeverReachTheUpstream(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{}, nil)
	good, bad := s.Issuer.as(t, "u-1", "user"), newIssuer(t).as(t, "root", "superadmin")
	for name, c := range map[string]struct {
		path          string
		header        []string
		authorization []string // wanted upstream
		cookie        string   // wanted upstream
	}{
		"verified bearer goes on":         {"/me", []string{bearer(good)}, []string{"Bearer " + good}, ""},
		"verified cookie goes on":         {"/me", []string{"Cookie: a=1; access_token=" + good}, nil, "a=1; access_token=" + good},
		"bad bearer on a public route":    {"/open/a", []string{bearer(bad)}, nil, ""},
		"bad cookie on a public route":    {"/open/a", []string{"Cookie: a=1; access_token=" + bad + "; b=2"}, nil, "a=1; b=2"},
		"bearer beside a deciding cookie": {"/me", []string{"Cookie: access_token=" + good, bearer(bad)}, nil, "access_token=" + good},
		"basic is not ours":               {"/open/a", []string{"Authorization: Basic dTpw"}, []string{"Basic dTpw"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			a := s.get(t, c.path, append(c.header, caseHeader+": "+name)...)
			got := s.Spy.marked(name)
			if len(got) != 1 {
				t.Fatalf("status %d, %d requests upstream; want one\n%s", a.Status, len(got), a.Body)
			}
			if v := got[0].get("Authorization"); !slices.Equal(v, c.authorization) {
				t.Errorf("Authorization %q, want %q", v, c.authorization)
			}
			if v := strings.Join(got[0].get("Cookie"), "; "); v != c.cookie {
				t.Errorf("Cookie %q, want %q", v, c.cookie)
			}
		})
	}
}

// TestRewriteAfterTheDecisionIsSealed has a site that sends a permitted request
// somewhere else.
func TestRewriteAfterTheDecisionIsSealed(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{Site: "\trewrite /open/moved /internal/x"}, nil)
	a := s.get(t, "/open/moved")
	wantProblem(t, a, 403, "forbidden")
	if n := len(s.Spy.requests()); n != 0 {
		t.Errorf("%d requests reached the upstream", n)
	}
	if a := s.get(t, "/open/a"); a.Status != 200 {
		t.Errorf("an untouched request: status %d, want 200", a.Status)
	}
}

// TestProxyWithoutADecisionIsSealed reaches the sealed proxy on a site without a
// gate.
func TestProxyWithoutADecisionIsSealed(t *testing.T) {
	t.Parallel()
	spy, port := startSpy(t), freePort(t)
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	startMoat(t, caddyfile("\t\trole user documents.own", fmt.Sprintf(
		"http://%s {\n\tbind 127.0.0.1\n\treverse_proxy %s {\n\t\ttransport moat\n\t}\n}", addr, spy.Addr)),
		options{Ready: []string{addr}})
	if a := newClient(t, "http://"+addr).send(t, "GET", "/open/a", ""); a.Status != 403 {
		t.Errorf("status %d, want 403", a.Status)
	}
	if n := len(spy.requests()); n != 0 {
		t.Errorf("%d requests reached the upstream", n)
	}
}
