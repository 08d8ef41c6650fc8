package canon_test

import (
	"net/http"
	"net/url"
	"path"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/moat-gateway/moat/internal/canon"
)

// FuzzTarget sends target as a request line, as an HTTP/2 path and as the two
// paths of a URL made by hand. For each that passes: what is judged is what goes
// upstream, it is a fixed point, and no second reading of it finds another path.
func FuzzTarget(f *testing.F) {
	for i, row := range rows {
		f.Add(row.sent, host, byte(i))
	}
	f.Add("https://[::1]:443/a", "[::1]", byte(0))
	f.Add("/a//b%2F", host, byte(3))
	f.Add("/CAF%C3%A9", host, byte(8))
	f.Fuzz(func(t *testing.T, target, host string, options byte) {
		c := canon.Config{
			AllowEncodedSlash:  options&1 != 0,
			AllowEmptySegments: options&2 != 0,
			RefuseParameters:   options&4 != 0,
			CaseInsensitive:    options&8 != 0,
		}
		for _, via := range transports {
			if r, err := via.read("GET", target, host); err == nil {
				judge(t, c, r)
			}
		}
		raw, query, _ := strings.Cut(target, "?")
		judge(t, c, &http.Request{
			Method: "GET", Host: host, RequestURI: target, Header: http.Header{},
			URL: &url.URL{Path: raw, RawPath: host, RawQuery: query},
		})
	})
}

func judge(t *testing.T, c canon.Config, r *http.Request) {
	t.Helper()
	p := policy(t, c)
	decoded, escaped := r.URL.Path, r.URL.EscapedPath()
	target, err := p.Target(r)
	if err != nil {
		if class, reason := refusal(t, err); !strings.HasPrefix(reason, "canon.") || strings.Contains(err.Error(), "%") {
			t.Errorf("class %d, reason %q, %v", class, reason, err)
		}
		return
	}
	again, err := url.PathUnescape(target.Path)
	if err != nil || again != decoded || !utf8.ValidString(again) {
		t.Errorf("%q decodes to %q, %v; the request's path was %q", target.Path, again, err, decoded)
	}
	if len(target.Path) > len(escaped) {
		t.Errorf("%q grew to %q", escaped, target.Path)
	}
	checkSecondReading(t, c, decoded)
	checkMatch(t, c, target)
	if strict, err := policy(t, canon.Config{}).Target(r); err == nil && strict.Path != target.Path {
		t.Errorf("strict %q, with %+v %q", strict.Path, c, target.Path)
	}
	checkForwarded(t, p, r, target)
	reread, err := overHTTP1(r.Method, target.URI(), r.Host)
	if err != nil {
		t.Fatalf("what goes upstream does not parse: %v", err)
	}
	if second, err := p.Target(reread); err != nil || second != target {
		t.Errorf("an equal gateway behind this one reads %+v, %v, not %+v", second, err, target)
	}
}

// checkSecondReading holds against a decoded path what applications do to one.
func checkSecondReading(t *testing.T, c canon.Config, decoded string) {
	t.Helper()
	if twice, err := url.PathUnescape(decoded); err == nil && twice != decoded {
		t.Errorf("%q decodes once more, to %q", decoded, twice)
	}
	clean := path.Clean(decoded)
	if strings.HasSuffix(decoded, "/") && clean != "/" {
		clean += "/"
	}
	if !c.AllowEmptySegments && clean != decoded {
		t.Errorf("%q cleans to %q", decoded, clean)
	}
	for name := range strings.SplitSeq(decoded, "/") {
		name, _, parameters := strings.Cut(name, ";")
		if name == "." || name == ".." || name == "" && parameters && !c.AllowEmptySegments {
			t.Errorf("%q has the segment %q once parameters are cut", decoded, name)
		}
	}
	if strings.ContainsAny(decoded, "\\\x00\r\n\x7f") {
		t.Errorf("%q has a byte that ends or splits names", decoded)
	}
}

func checkMatch(t *testing.T, c canon.Config, target canon.Target) {
	t.Helper()
	want := target.Path
	if c.CaseInsensitive {
		want = strings.ToLower(want)
		upper, _ := url.PathUnescape(target.Path)
		lower, _ := url.PathUnescape(want)
		// Twice, because one folding is not enough for every letter.
		folded := func(s string) string { return strings.ToLower(strings.ToUpper(s)) }
		if a, b := folded(upper), folded(lower); !strings.EqualFold(upper, lower) || a != b {
			t.Errorf("match %q is another resource than %q", want, target.Path)
		}
	}
	if target.Match != want {
		t.Errorf("match %q, want %q", target.Match, want)
	}
}

// FuzzQuery: a query that passes is one that net/url reads to the last byte, and
// that a target may carry.
func FuzzQuery(f *testing.F) {
	for _, seed := range []string{"", "a=b&c", "a;b", "a=%", "a=%00", "a=%C3%A9", "a=%ff", "a b", "a#b", "é"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		if canon.Query(raw) != nil {
			return
		}
		values, err := url.ParseQuery(raw)
		if err != nil {
			t.Fatalf("%q does not parse: %v", raw, err)
		}
		for name, all := range values {
			for _, s := range append(all, name) {
				if !utf8.ValidString(s) || strings.Contains(s, "\x00") {
					t.Errorf("%q has the value %q", raw, s)
				}
			}
		}
		r := &http.Request{Method: "GET", URL: &url.URL{Path: "/", RawQuery: raw}, Host: host}
		if target, err := policy(t, canon.Config{MaxQuery: 1 << 20}).Target(r); len(raw) <= 1<<20 && (err != nil || target.Query != raw) {
			t.Errorf("%q passes as a query, but not in a target: %q, %v", raw, target.Query, err)
		}
	})
}

// FuzzFoldHeader: folding is a fixed point of the same length without upper case,
// "_" and ".", and a set knows a name exactly when it knows its folded form.
func FuzzFoldHeader(f *testing.F) {
	for _, seed := range []string{"", "X-User-Id", "x_user_id", "X.User.Id", "x-user", "X-Forwarded-For", "x_forwarded.", "é"} {
		f.Add(seed)
	}
	set := canon.NewHeaderSet("X-User-Id", "x-forwarded-*")
	f.Fuzz(func(t *testing.T, name string) {
		folded := canon.FoldHeader(name)
		if canon.FoldHeader(folded) != folded || len(folded) != len(name) || strings.ContainsAny(folded, "_.ABCDEFGHIJKLMNOPQRSTUVWXYZ") {
			t.Errorf("FoldHeader(%q) = %q", name, folded)
		}
		want := folded == "x-user-id" || strings.HasPrefix(folded, "x-forwarded-")
		if set.Has(name) != want || set.Has(folded) != want {
			t.Errorf("Has(%q) = %t, Has(%q) = %t, want %t", name, set.Has(name), folded, set.Has(folded), want)
		}
		own := canon.NewHeaderSet(folded)
		h := http.Header{name: {"1"}, "Other": {"2"}}
		if got := own.StripFrom(h); name != "" && name != "Other" && !strings.HasSuffix(name, "*") && (got < 1 || h[name] != nil) {
			t.Errorf("%q is left by a set of %q", name, folded)
		}
	})
}
