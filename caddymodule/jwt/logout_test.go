package jwt

import (
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/moat-gateway/moat/caddymodule/internal/exchange"
	"github.com/moat-gateway/moat/internal/canon"
)

// asked is a request whose target is canonical.
func asked(host, path, cookies string) *http.Request {
	r := httptest.NewRequest("GET", path, nil)
	r.Header.Set("Cookie", cookies)
	ctx := context.WithValue(r.Context(), caddyhttp.VarsCtxKey, map[string]any{})
	r = r.WithContext(ctx)
	ex := exchange.Ensure(httptest.NewRecorder(), r)
	ex.Canonical, ex.Target = true, canon.Target{Method: "GET", Host: host, Path: path}
	return r
}

func TestACookieIsClearedWhereItWasSet(t *testing.T) {
	for name, row := range map[string]struct {
		source  Source
		host    string
		path    string
		cookies string
		twice   bool
		want    []string // name, domain and path
	}{
		"as by default": {Source{Name: "t"}, "app.example.com", "/a/b", "t=1", false, []string{"t  /"}},
		"where it says": {Source{Name: "t", Domain: "example.com", Path: "/app"}, "app.example.com", "/app/x", "t=1", false,
			[]string{"t  /app", "t example.com /app"}},
		"twice, everywhere": {Source{Name: "t"}, "app.example.com", "/a", "t=1; t=2", true, []string{
			"t  /", "t  /a", "t  /a/", "t app.example.com /", "t app.example.com /a", "t app.example.com /a/",
			"t example.com /", "t example.com /a", "t example.com /a/",
		}},
		"twice, in another spelling": {Source{Name: "t_x"}, "localhost", "/", "t_x=1; T-X=2; t_x=3; other=4", true, []string{"T-X  /", "t_x  /"}},
		"twice, an address":          {Source{Name: "t"}, "127.0.0.1", "/", "t=1; t=2", true, []string{"t  /"}},
	} {
		h := http.Header{"Set-Cookie": {"kept=1"}}
		row.source.clear(h, asked(row.host, row.path, row.cookies), row.twice)
		var got []string
		for _, line := range h["Set-Cookie"][1:] {
			c, err := http.ParseSetCookie(line)
			if err != nil || c.Value != "" || c.MaxAge != -1 || !c.Secure || !c.HttpOnly {
				t.Errorf("%s: %q: %v", name, line, err)
				continue
			}
			got = append(got, c.Name+" "+c.Domain+" "+c.Path)
		}
		slices.Sort(got)
		if !slices.Equal(got, row.want) || h["Set-Cookie"][0] != "kept=1" {
			t.Errorf("%s: %q, want %q", name, got, row.want)
		}
	}
}

func TestClearingIsBounded(t *testing.T) {
	h := http.Header{}
	long := "/" + strings.Repeat("a/", 500)
	Source{Name: "t"}.clear(h, asked(strings.Repeat("a.", 60)+"example.com", long, "t=1; t=2"), true)
	if n := len(strings.Join(h["Set-Cookie"], "")); n > maxClearBytes || n == 0 || !strings.HasPrefix(h["Set-Cookie"][0], "t=; Path=/; Max-Age=0") {
		t.Errorf("%d bytes, first %.60q", n, h["Set-Cookie"])
	}
	// Without a canonical target the host can say anything.
	r := httptest.NewRequest("GET", "/", nil)
	r.Host = "x.test;Path=/q"
	h = http.Header{}
	Source{Name: "t"}.clear(h, r, true)
	if strings.Contains(strings.Join(h["Set-Cookie"], ""), "x.test") {
		t.Errorf("%q", h)
	}
}

func TestCookieSettingsThatCannotBeAreRefused(t *testing.T) {
	for _, s := range []Source{
		{In: inHeader, Keep: true}, {In: inHeader, Domain: "a.test"}, {In: inCookie, Name: "t", Domain: "a b"},
		{In: inCookie, Name: "t", Domain: "a;b"}, {In: inCookie, Name: "t", Path: "x"}, {In: inCookie, Name: "t", Path: "/a;b"},
		{In: inCookie, Name: "t", Path: "/a\nb"}, {In: inCookie, Name: "__Host-t", Domain: "a.test"}, {In: inCookie, Name: "__host-t", Path: "/x"},
	} {
		if err := (&Handler{From: []Source{s}}).provisionSources(); err == nil {
			t.Errorf("%+v: accepted", s)
		}
	}
	good := []Source{{In: inCookie, Name: "__Host-t", Path: "/"}, {In: inCookie, Name: "t", Domain: ".a.test", Path: "/x", Keep: true}}
	if err := (&Handler{From: good}).provisionSources(); err != nil {
		t.Error(err)
	}
	twice := []Source{{In: inCookie, Name: "t"}, {In: inCookie, Name: "t", Keep: true}}
	if err := (&Handler{From: twice}).provisionSources(); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("%v", err)
	}
}

func TestTheLoginPageIsOnThisSite(t *testing.T) {
	for _, text := range []string{"/login", "/auth/login?from=gate", "/l%C3%B6gin", ""} {
		if err := checkLoginURL(text); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
	for _, text := range []string{
		"login", "//evil.test/login", "https://evil.test", "/a/../login", "/login#x", "/login\r\nX: y", "/%2e%2e/x", "/login? x", "\\login", "/\\evil.test",
	} {
		if err := checkLoginURL(text); err == nil {
			t.Errorf("%q: accepted", text)
		}
	}
}
