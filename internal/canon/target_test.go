package canon_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/internal/canon"
)

func TestTargetIsCanonicalOrRefused(t *testing.T) {
	p := policy(t, canon.Config{})
	if len(rows) < 120 {
		t.Errorf("only %d rows", len(rows))
	}
	for _, via := range transports {
		for _, row := range rows {
			r, err := via.read("GET", row.sent, host)
			if err != nil || row.reason == unparsed {
				if err == nil || row.reason != unparsed {
					t.Errorf("%s %q: parsing gave %v, want reason %q", via.name, row.sent, err, row.reason)
				}
				continue
			}
			target, err := p.Target(r)
			if _, reason := refusal(t, err); reason != row.reason {
				t.Errorf("%s %q: reason %q, want %q", via.name, row.sent, reason, row.reason)
				continue
			}
			if err != nil {
				if target != (canon.Target{}) {
					t.Errorf("%s %q: refused, yet a target: %+v", via.name, row.sent, target)
				}
				continue
			}
			if target.URI() != row.want || target.Match != target.Path || target.Host != host {
				t.Errorf("%s %q: target %+v, want %q", via.name, row.sent, target, row.want)
			}
			checkForwarded(t, p, r, target)
		}
	}
}

func TestTargetChangesNothing(t *testing.T) {
	for _, sent := range []string{"/%61?x", "http://app.example/a", "/a/../b", "/a%2fb?"} {
		r, err := overHTTP1("GET", sent, host)
		if err != nil {
			t.Fatal(err)
		}
		before, uri := *r.URL, r.RequestURI
		_ = second(policy(t, canon.Config{}).Target(r)) // the answer does not matter here
		if *r.URL != before || r.RequestURI != uri || r.Method != "GET" || r.Host != host {
			t.Errorf("%q: request changed to %+v, %q", sent, *r.URL, r.RequestURI)
		}
	}
}

// Only HTTP/2 and 3 have these: what HTTP/1 has no way to write, or reads as the
// end of the target.
func TestTargetsThatOnlyHTTP2CanCarry(t *testing.T) {
	p := policy(t, canon.Config{})
	for _, c := range []struct{ sent, authority, want, reason string }{
		{"/a b", host, "", "canon.control-byte"},
		{" /a", host, "", unparsed},
		{"/a ", host, "", "canon.control-byte"},
		{"/a?b c", host, "", "canon.control-byte"},
		{"/a HTTP/1.1", host, "", "canon.control-byte"},
		{"http://evil.example/a", host, "", "canon.foreign-host"},
		{"https://app.example:8443/a", host, "", "canon.foreign-host"},
		{"http://app.example:443/a", host, "", "canon.foreign-host"},
		{"https://app.example/a", host + ":8443", "", "canon.foreign-host"},
		{"https://app.example/a", host + ":80", "", "canon.foreign-host"},
		{"https://app.example.evil.example/a", host, "", "canon.foreign-host"},
		{"https://[::1]/a", host, "", "canon.foreign-host"},
		{"https://app%C3%A9.example/a", host, "", "canon.bad-host"},
		{"https://app.example/a", "", "", "canon.bad-host"},
		{"https://App.Example/a", host, "/a", ""},
		{"https://app.example/a", host + ":443", "/a", ""},
		{"https://app.example:443/a", host, "/a", ""},
		{"https://app.example/a", host + ":", "/a", ""},
		{"https://app.example:/a", host + ":443", "/a", ""},
		{"https://app.example:8443/a", host + ":8443", "/a", ""},
		{"https://[2001:db8:0::1]/a", "[2001:DB8::1]:443", "/a", ""},
	} {
		r, err := overHTTP2("GET", c.sent, c.authority)
		if err != nil || c.reason == unparsed {
			if err == nil || c.reason != unparsed {
				t.Errorf("%q: parsing gave %v", c.sent, err)
			}
			continue
		}
		target, err := p.Target(r)
		if _, reason := refusal(t, err); reason != c.reason || target.URI() != c.want {
			t.Errorf("%q at %q: %q, reason %q, want %q, %q", c.sent, c.authority, target.URI(), reason, c.want, c.reason)
		}
		if err == nil {
			checkForwarded(t, p, r, target)
		}
	}
}

// URLs that no parser makes, but a handler that ran before may.
func TestURLsMadeByHand(t *testing.T) {
	p := policy(t, canon.Config{})
	for name, c := range map[string]struct {
		url    *url.URL
		uri    string
		want   string
		reason string
	}{
		"no URL":                        {nil, "/a", "", "canon.no-target"},
		"empty URL":                     {&url.URL{}, "/a", "", "canon.no-target"},
		"opaque beside a path":          {&url.URL{Path: "/a", Opaque: "/admin"}, "", "", "canon.opaque-target"},
		"fragment":                      {&url.URL{Path: "/a", Fragment: "b"}, "", "", "canon.fragment"},
		"raw fragment":                  {&url.URL{Path: "/a", RawFragment: "b"}, "", "", "canon.fragment"},
		"empty user":                    {&url.URL{Path: "/a", User: new(url.Userinfo)}, "", "", "canon.userinfo"},
		"no leading slash":              {&url.URL{Path: "a/b"}, "", "", "canon.relative-path"},
		"host without a scheme":         {&url.URL{Host: "evil.example", Path: "/a"}, "", "", "canon.foreign-host"},
		"own host without a scheme":     {&url.URL{Host: host, Path: "/a"}, "", "/a", ""},
		"raw bytes in the path only":    {&url.URL{Path: "/é"}, "", "/%C3%A9", ""},
		"bytes that are no UTF-8":       {&url.URL{Path: "/\xff"}, "", "", "canon.bad-utf8"},
		"backslash in the path only":    {&url.URL{Path: `/a\b`}, "", "", "canon.backslash"},
		"escape in the decoded path":    {&url.URL{Path: "/%2e%2e/a"}, "", "", "canon.double-encoding"},
		"raw path of another path":      {&url.URL{Path: "/a/../b", RawPath: "/a"}, "/a", "", "canon.dot-segment"},
		"raw path as long":              {&url.URL{Path: "/a!", RawPath: "/b!"}, "", "/a%21", ""},
		"request URI as long":           {&url.URL{Path: "/a"}, "/b", "/a", ""},
		"raw path shorter":              {&url.URL{Path: "/ab", RawPath: "/a"}, "", "/ab", ""},
		"raw path longer":               {&url.URL{Path: "/a", RawPath: "/ab"}, "", "/a", ""},
		"broken raw path":               {&url.URL{Path: "/a", RawPath: "/%6"}, "", "/a", ""},
		"question mark in the raw path": {&url.URL{Path: "/a?b", RawPath: "/a?b"}, "", "", "canon.forbidden-byte"},
		"question mark in the path":     {&url.URL{Path: "/a?b"}, "", "/a%3Fb", ""},
		"request URI of another path":   {&url.URL{Path: "/b!"}, "/a", "/b%21", ""},
		"request URI spelled otherwise": {&url.URL{Path: "/b@"}, "/b%40", "/b@", ""},
		"request URI in lower-case hex": {&url.URL{Path: "/é"}, "/%c3%a9", "/%C3%A9", ""},
		"query wins over a forced one":  {&url.URL{Path: "/a", RawQuery: "b", ForceQuery: true}, "", "/a?b", ""},
		"a leftover omitted host":       {&url.URL{Path: "/a", OmitHost: true}, "", "/a", ""},
	} {
		r := &http.Request{Method: "GET", URL: c.url, RequestURI: c.uri, Host: host, Header: http.Header{}}
		target, err := p.Target(r)
		if _, reason := refusal(t, err); reason != c.reason || target.URI() != c.want {
			t.Errorf("%s: %q, reason %q, want %q, %q", name, target.URI(), reason, c.want, c.reason)
		}
		if err == nil {
			checkForwarded(t, p, r, target)
		}
	}
}

func TestWeakeningOptionsAllowOneThingEach(t *testing.T) {
	slash := canon.Config{AllowEncodedSlash: true}
	empty := canon.Config{AllowEmptySegments: true}
	both := canon.Config{AllowEncodedSlash: true, AllowEmptySegments: true}
	for _, c := range []struct {
		config       canon.Config
		sent, reason string
	}{
		{slash, "/a%2Fb", ""},
		{slash, "/a%2Fb%2Fc/d", ""},
		{slash, "/a%2F", ""},
		{slash, "/..%2Fadmin", "canon.dot-segment"},
		{slash, "/a%2F..%2Fadmin", "canon.dot-segment"},
		{slash, "/a%2F%2e%2e", "canon.dot-segment"},
		{slash, "/a%2F.", "canon.dot-segment"},
		{slash, "/a%2F..;x%2Fadmin", "canon.dot-segment"},
		{slash, "/%2Fadmin", "canon.empty-segment"},
		{slash, "/a%2F%2Fb", "canon.empty-segment"},
		{slash, "/a%2F/b", "canon.empty-segment"},
		{slash, "/a%252Fb", "canon.double-encoding"},
		{slash, "/a%5Cb", "canon.backslash"},
		{slash, "//a", "canon.empty-segment"},
		{slash, "/a%00%2F", "canon.control-byte"},
		{empty, "//a", ""},
		{empty, "/a//b///", ""},
		{empty, "/;x/a", ""},
		{empty, "//../a", "canon.dot-segment"},
		{empty, "/a/..;//b", "canon.dot-segment"},
		{empty, "/a%2F%2Fb", "canon.encoded-slash"},
		{both, "/a%2F%2Fb", ""},
		{both, "/%2Fa", ""},
		{both, "/%2F..", "canon.dot-segment"},
	} {
		p := policy(t, c.config)
		for _, via := range transports {
			r, err := via.read("GET", c.sent, host)
			if err != nil {
				t.Fatal(err)
			}
			target, err := p.Target(r)
			if _, reason := refusal(t, err); reason != c.reason {
				t.Errorf("%s %q: reason %q, want %q", via.name, c.sent, reason, c.reason)
			}
			if err != nil {
				continue
			}
			if target.Path != c.sent || target.HasEncodedSlash() != strings.Contains(c.sent, "%2F") {
				t.Errorf("%s %q: path %q, encoded slash %t", via.name, c.sent, target.Path, target.HasEncodedSlash())
			}
			checkForwarded(t, p, r, target)
		}
	}
}

func TestEncodedSlashIsKeptInUpperCase(t *testing.T) {
	r, err := overHTTP1("GET", "/a%2fb", host)
	if err != nil {
		t.Fatal(err)
	}
	target, err := policy(t, canon.Config{AllowEncodedSlash: true}).Target(r)
	if err != nil || target.Path != "/a%2Fb" || !target.HasEncodedSlash() {
		t.Errorf("%+v, %v", target, err)
	}
}

func TestParametersAreRefusedWhereTheUpstreamCutsThem(t *testing.T) {
	p := policy(t, canon.Config{RefuseParameters: true})
	for sent, want := range map[string]string{
		"/admin;x":           "canon.path-parameter",
		"/admin;x/users":     "canon.path-parameter",
		"/a;":                "canon.path-parameter",
		"/a/;jsessionid=1/b": "canon.path-parameter",
		"/a/..;/b":           "canon.path-parameter",
		"/a%3Bx":             "",
		"/a?b;c":             "",
	} {
		r, err := overHTTP1("GET", sent, host)
		if err != nil {
			t.Fatal(err)
		}
		if _, reason := refusal(t, second(p.Target(r))); reason != want {
			t.Errorf("%q: reason %q, want %q", sent, reason, want)
		}
	}
}

func TestSpellingsThatDifferInCaseMatchAlike(t *testing.T) {
	p := policy(t, canon.Config{CaseInsensitive: true})
	for _, c := range []struct{ sent, path, match, reason string }{
		{"/Admin", "/Admin", "/admin", ""},
		{"/ADMIN/X", "/ADMIN/X", "/admin/x", ""},
		{"/%41dmin", "/Admin", "/admin", ""},
		{"/a%3bB", "/a%3BB", "/a%3bb", ""},
		{"/caf%C3%A9", "/caf%C3%A9", "/caf%c3%a9", ""},
		{"/%CF%83", "/%CF%83", "/%cf%83", ""},
		{"/%E6%97%A5", "/%E6%97%A5", "/%e6%97%a5", ""},
		{"/stra%C3%9Fe", "/stra%C3%9Fe", "/stra%c3%9fe", ""},
		{"/a.b/c", "/a.b/c", "/a.b/c", ""},
		{"/CAF%C3%89", "", "", "canon.letter-case"},
		{"/%E2%84%AAey", "", "", "canon.letter-case"},
		{"/u%C5%BFers", "", "", "canon.letter-case"},
		{"/adm%C4%B0n", "", "", "canon.letter-case"},
		{"/adm%C4%B1n", "", "", "canon.letter-case"},
		{"/%CF%82", "", "", "canon.letter-case"},
		{"/%C2%B5", "", "", "canon.letter-case"},
		{"/admin.", "", "", "canon.trailing-dot"},
		{"/admin%20", "", "", "canon.trailing-dot"},
		{"/admin./x", "", "", "canon.trailing-dot"},
		{"/admin.;x/y", "", "", "canon.trailing-dot"},
		{"/admin%2E", "", "", "canon.trailing-dot"},
		{"/%20/x", "", "", "canon.trailing-dot"},
	} {
		r, err := overHTTP1("GET", c.sent, host)
		if err != nil {
			t.Fatal(err)
		}
		target, err := p.Target(r)
		if _, reason := refusal(t, err); reason != c.reason || target.Path != c.path || target.Match != c.match {
			t.Errorf("%q: path %q, match %q, reason %q; want %q, %q, %q",
				c.sent, target.Path, target.Match, reason, c.path, c.match, c.reason)
		}
		if len(target.Path) != len(target.Match) {
			t.Errorf("%q: %q and %q differ in length", c.sent, target.Path, target.Match)
		}
		if err == nil {
			checkForwarded(t, p, r, target)
		}
	}
}

// The promise behind URL.RawPath, byte by byte: whatever net/url escapes by
// itself, what was judged is what is sent.
func TestEveryByteIsForwardedAsJudged(t *testing.T) {
	p := policy(t, canon.Config{AllowEncodedSlash: true})
	for c := range 256 {
		for _, sent := range []string{"/x" + string([]byte{byte(c)}) + "y", "/x%" + hex(c) + "y"} {
			r, err := overHTTP2("GET", sent, host)
			if err != nil {
				continue
			}
			target, err := p.Target(r)
			if err == nil {
				checkForwarded(t, p, r, target)
			}
		}
	}
}

func hex(c int) string {
	const digits = "0123456789abcdef"
	return string([]byte{digits[c>>4], digits[c&15]})
}

func TestApplyReplacesAWholeURL(t *testing.T) {
	target := canon.Target{Method: "GET", Path: "/a%40b", Query: "c"}
	for name, u := range map[string]*url.URL{
		"none": nil,
		"all fields": {
			Scheme: "http", Opaque: "o", User: url.User("u"), Host: "h", Path: "/p", RawPath: "/p",
			OmitHost: true, ForceQuery: true, RawQuery: "q", Fragment: "f", RawFragment: "f",
		},
	} {
		r := &http.Request{Method: "PUT", URL: u, RequestURI: "http://h/p?q", Host: host}
		target.Apply(r)
		want := url.URL{Path: "/a@b", RawPath: "/a%40b", RawQuery: "c"}
		if *r.URL != want || r.Method != "GET" || r.RequestURI != "/a%40b?c" || r.Host != host {
			t.Errorf("%s: %+v, %s %q", name, *r.URL, r.Method, r.RequestURI)
		}
	}
}

func TestApplyRepairsTheRequestURI(t *testing.T) {
	for _, c := range []struct {
		target canon.Target
		uri    string
	}{
		{canon.Target{Path: "/a"}, "/a?"},
		{canon.Target{Path: "/a"}, "/ab"},
		{canon.Target{Path: "/a"}, "/"},
		{canon.Target{Path: "/a", EmptyQuery: true}, "/a"},
		{canon.Target{Path: "/a", EmptyQuery: true}, "/a?b"},
		{canon.Target{Path: "/a", Query: "b"}, "/a?c"},
		{canon.Target{Path: "/a", Query: "b"}, "/ab"},
		{canon.Target{Path: "/a", Query: "b"}, "/axb"},
		{canon.Target{Path: "/a", Query: "b"}, "?b"},
	} {
		r := &http.Request{URL: &url.URL{}, RequestURI: c.uri}
		c.target.Apply(r)
		if r.RequestURI != c.target.URI() || r.URL.RequestURI() != c.target.URI() {
			t.Errorf("%q: request URI %q, URL %q, want %q", c.uri, r.RequestURI, r.URL.RequestURI(), c.target.URI())
		}
	}
}

func TestATargetMadeByHandIsNotReadAsEscapes(t *testing.T) {
	r := &http.Request{URL: &url.URL{Path: "/a"}}
	canon.Target{Path: "/%zz"}.Apply(r)
	if r.URL.Path != "/%zz" || r.URL.EscapedPath() != "/%25zz" {
		t.Errorf("URL is %#v", *r.URL)
	}
}

func TestPathIsTheFormRequestsHave(t *testing.T) {
	for _, row := range rows {
		if !strings.HasPrefix(row.sent, "/") || strings.ContainsAny(row.sent, "?") {
			continue
		}
		got, err := canon.Path(row.sent)
		_, reason := refusal(t, err)
		if row.reason == unparsed {
			if reason != "canon.bad-escape" && reason != "canon.control-byte" {
				t.Errorf("Path(%q): %q, reason %q", row.sent, got, reason)
			}
			continue
		}
		if got != row.want || reason != row.reason {
			t.Errorf("Path(%q) = %q, reason %q, want %q, %q", row.sent, got, reason, row.want, row.reason)
		}
	}
	for raw, want := range map[string]string{
		"":                              "canon.no-target",
		"a":                             "canon.relative-path",
		"*":                             "canon.relative-path",
		"/a?b":                          "canon.forbidden-byte",
		"/" + strings.Repeat("a", 8192): "canon.path-too-long",
	} {
		if got, err := canon.Path(raw); got != "" || err == nil {
			t.Errorf("Path(%.9q) = %q, %v", raw, got, err)
		} else if _, reason := refusal(t, err); reason != want {
			t.Errorf("Path(%.9q): reason %q, want %q", raw, reason, want)
		}
	}
}
