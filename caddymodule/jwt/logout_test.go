package jwt

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

func TestACookieIsClearedWhereItWasSet(t *testing.T) {
	for name, row := range map[string]struct {
		source Source
		host   string
		path   string
		twice  bool
		want   []string // domain and path
	}{
		"as by default":      {Source{Name: "t"}, "app.example.com", "/a/b", false, []string{" /"}},
		"where it says":      {Source{Name: "t", Domain: "example.com", Path: "/app"}, "app.example.com", "/app/x", false, []string{" /app", "example.com /app"}},
		"twice, everywhere":  {Source{Name: "t"}, "App.Example.com:8443", "/a/b", true, []string{" /", " /a", " /a/b", "app.example.com /", "app.example.com /a", "app.example.com /a/b", "example.com /", "example.com /a", "example.com /a/b"}},
		"twice, at the root": {Source{Name: "t"}, "localhost", "/", true, []string{" /"}},
		"twice, an address":  {Source{Name: "t"}, "127.0.0.1:80", "/", true, []string{" /"}},
		"twice, IPv6":        {Source{Name: "t"}, "[::1]:80", "/", true, []string{" /"}},
	} {
		h := http.Header{"Set-Cookie": {"kept=1"}}
		r := httptest.NewRequest("GET", row.path, nil)
		r.Host = row.host
		row.source.clear(h, r, row.twice)
		var got []string
		for _, line := range h["Set-Cookie"][1:] {
			c, err := http.ParseSetCookie(line)
			if err != nil || c.Name != "t" || c.Value != "" || c.MaxAge != -1 || !c.Secure || !c.HttpOnly {
				t.Errorf("%s: %q: %v", name, line, err)
				continue
			}
			got = append(got, c.Domain+" "+c.Path)
		}
		slices.Sort(got)
		if !slices.Equal(got, row.want) || h["Set-Cookie"][0] != "kept=1" {
			t.Errorf("%s: %q, want %q", name, got, row.want)
		}
	}
	h := http.Header{}
	r := httptest.NewRequest("GET", "/"+strings.Repeat("a/", 500), nil)
	r.Host = strings.Repeat("a.", 60) + "example.com"
	Source{Name: "t"}.clear(h, r, true)
	if n := len(h["Set-Cookie"]); n > (maxClears+1)*(maxClears+1) {
		t.Errorf("%d cookies", n)
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
