package headers_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/internal/headers"
)

// hardened sends cookies through a policy.
func hardened(t *testing.T, c headers.Cookies, conn headers.Conn, lines ...string) []string {
	t.Helper()
	return answer(policy(t, headers.Config{Cookies: c}), 200, conn, func(h http.Header) {
		for _, line := range lines {
			h.Add("Set-Cookie", line)
		}
	})["Set-Cookie"]
}

func TestCookiesGetWhatTheyLackAndLoseNothing(t *testing.T) {
	all := headers.Cookies{Secure: true, HTTPOnly: true, SameSite: "lax", Except: []string{"csrf"}}
	strict := headers.Cookies{SameSite: "strict"}
	for name, row := range map[string]struct {
		cookies  headers.Cookies
		line     string
		want     string // "": as it was
		overHTTP bool
	}{
		"nothing there":             {cookies: all, line: "a=b", want: "a=b; SameSite=Lax; Secure; HttpOnly"},
		"attributes stay":           {cookies: all, line: "a=b; Path=/; Max-Age=3600", want: "a=b; Path=/; Max-Age=3600; SameSite=Lax; Secure; HttpOnly"},
		"all there":                 {cookies: all, line: "a=b; secure; HTTPONLY; samesite=lax"},
		"stricter stays":            {cookies: all, line: "a=b; Secure; HttpOnly; SameSite=Strict"},
		"none is raised":            {cookies: all, line: "a=b; SameSite=None; Secure; HttpOnly", want: "a=b; Secure; HttpOnly; SameSite=Lax"},
		"lax is raised":             {cookies: strict, line: "a=b; SameSite=Lax", want: "a=b; SameSite=Strict"},
		"an unknown one":            {cookies: all, line: "a=b; SameSite=later; Secure; HttpOnly", want: "a=b; Secure; HttpOnly; SameSite=Lax"},
		"one without a value":       {cookies: all, line: "a=b; SameSite; Secure; HttpOnly", want: "a=b; Secure; HttpOnly; SameSite=Lax"},
		"the last one counts":       {cookies: strict, line: "a=b; SameSite=Strict; SameSite=None", want: "a=b; SameSite=Strict"},
		"the last one counts, good": {cookies: strict, line: "a=b; SameSite=None; SameSite=Strict"},
		"an exception":              {cookies: all, line: "csrf=1; Path=/"},
		"an exception with spaces":  {cookies: all, line: " csrf =1"},
		"exceptions have a case":    {cookies: all, line: "CSRF=1", want: "CSRF=1; SameSite=Lax; Secure; HttpOnly"},
		"a value like an attribute": {cookies: all, line: "secure=httponly", want: "secure=httponly; SameSite=Lax; Secure; HttpOnly"},
		"a value with equals":       {cookies: all, line: "a=b=c; path=/x=y", want: "a=b=c; path=/x=y; SameSite=Lax; Secure; HttpOnly"},
		"no name":                   {cookies: all, line: "abc", want: "abc; SameSite=Lax; Secure; HttpOnly"},
		"empty attributes":          {cookies: all, line: "a=b;;  ; Secure ;", want: "a=b;;  ; Secure ;; SameSite=Lax; HttpOnly"},
		"over http":                 {cookies: all, line: "a=b", want: "a=b; SameSite=Lax; HttpOnly", overHTTP: true},
		"secure stays over http":    {cookies: all, line: "a=b; Secure", want: "a=b; Secure; SameSite=Lax; HttpOnly", overHTTP: true},
		"nothing is asked":          {line: "a=b"},
		"a deletion":                {cookies: all, line: "a=; Max-Age=0", want: "a=; Max-Age=0; SameSite=Lax; Secure; HttpOnly"},
		"partitioned":               {cookies: all, line: "a=b; Secure; Partitioned", want: "a=b; Secure; Partitioned; SameSite=Lax; HttpOnly"},
	} {
		t.Run(name, func(t *testing.T) {
			want := row.want
			if want == "" {
				want = row.line
			}
			conn := overTLS
			if row.overHTTP {
				conn = plain
			}
			if got := hardened(t, row.cookies, conn, "x=y; Secure; HttpOnly; SameSite=Strict", row.line); got[1] != want {
				t.Errorf("got %q, want %q", got[1], want)
			}
			if again := hardened(t, row.cookies, conn, want); again[0] != want {
				t.Errorf("a second time: %q", again[0])
			}
		})
	}
}

func TestTheUpstreamsCookiesAreNotWrittenInto(t *testing.T) {
	p := policy(t, headers.Config{Cookies: headers.Cookies{HTTPOnly: true}})
	theirs := []string{"a=b", "c=d; HttpOnly"}
	h := http.Header{"Set-Cookie": theirs}
	p.Settle(h, 200, overTLS)
	if theirs[0] != "a=b" || !slices.Equal(h["Set-Cookie"], []string{"a=b; HttpOnly", "c=d; HttpOnly"}) {
		t.Errorf("theirs %q, sent %q", theirs, h["Set-Cookie"])
	}
	if got := p.Changes(http.Header{"Set-Cookie": {"a=b"}}, 200, overTLS); !slices.Contains(got, "Set-Cookie") {
		t.Errorf("changes %q", got)
	}
}

// FuzzCookiesAreNeverWeakened reads cookies as net/http does, which follows the same
// section of the RFC.
func FuzzCookiesAreNeverWeakened(f *testing.F) {
	for _, line := range []string{
		"a=b", "a=b; SameSite=None; Secure", "a=\"b;c\"; HttpOnly", "a=b;samesite=STRICT;samesite=none", "; ; =", "\x00=\xff; Secure", "a=b; Expires=Wed, 21 Oct 2026 07:28:00 GMT; Path=/; Domain=x.test",
	} {
		f.Add(line, true)
	}
	p := policy(f, headers.Config{Cookies: headers.Cookies{Secure: true, HTTPOnly: true, SameSite: "lax"}})
	f.Fuzz(func(t *testing.T, line string, tls bool) {
		before, beforeErr := http.ParseSetCookie(line)
		h := http.Header{"Set-Cookie": {line}}
		p.Settle(h, 200, headers.Conn{TLS: tls})
		got := h["Set-Cookie"]
		if len(got) != 1 {
			t.Fatalf("%q became %q", line, got)
		}
		pair, _, _ := strings.Cut(line, ";")
		if after, _, _ := strings.Cut(got[0], ";"); after != pair {
			t.Errorf("the cookie %q became %q", pair, after)
		}
		after, err := http.ParseSetCookie(got[0])
		if beforeErr != nil || err != nil {
			if (beforeErr == nil) != (err == nil) {
				t.Errorf("%q: %v, then %q: %v", line, beforeErr, got[0], err)
			}
			return
		}
		if !after.HttpOnly || tls && !after.Secure || before.Secure && !after.Secure ||
			after.SameSite != http.SameSiteLaxMode && after.SameSite != http.SameSiteStrictMode ||
			before.SameSite == http.SameSiteStrictMode && after.SameSite != http.SameSiteStrictMode {
			t.Errorf("%q became %q", line, got[0])
		}
		if before.Value != after.Value || before.Path != after.Path || before.Domain != after.Domain || before.MaxAge != after.MaxAge || !before.Expires.Equal(after.Expires) || before.Partitioned != after.Partitioned {
			t.Errorf("%q became %q", line, got[0])
		}
	})
}
