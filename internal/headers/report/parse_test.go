package report_test

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/internal/headers/report"
)

const (
	legacyType = "application/csp-report"
	queueType  = "application/reports+json"
	host       = "app.example.com"
	page       = "https://app.example.com/shop"
)

var site = report.Site{Host: host}

// one parses a body that holds one violation.
func one(t *testing.T, s report.Site, contentType, body string) report.Violation {
	t.Helper()
	b, err := s.Parse(contentType, []byte(body))
	if err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	if len(b.Violations) != 1 {
		t.Fatalf("%s: got %+v, want one violation", body, b)
	}
	return b.Violations[0]
}

// queue is a body of the Reporting API about the page.
func queue(directive, blocked string) string {
	return fmt.Sprintf(`[{"type":"csp-violation","age":1,"url":%q,"user_agent":"x","body":{"documentURL":%q,"blockedURL":%q,`+
		`"effectiveDirective":%q,"disposition":"report"}}]`, page, page, blocked, directive)
}

func TestBothFormatsSayTheSame(t *testing.T) {
	old := `{"csp-report":{"document-uri":"https://app.example.com/shop?token=s3cret#s3cret","referrer":"https://s3cret.example/",
		"violated-directive":"script-src-elem","effective-directive":"script-src-elem","original-policy":"default-src 'none'",
		"disposition":"report","blocked-uri":"https://cdn.example.net/lib.js?key=s3cret","line-number":7,"column-number":1,
		"source-file":"https://app.example.com/shop?token=s3cret","status-code":200,"script-sample":"s3cret"}}`
	queued := `[{"type":"csp-violation","age":10,"url":"https://app.example.com/shop?token=s3cret","user_agent":"s3cret","body":{
		"documentURL":"https://app.example.com/shop?token=s3cret","referrer":"https://s3cret.example/","blockedURL":
		"https://cdn.example.net/lib.js?key=s3cret","effectiveDirective":"script-src-elem","originalPolicy":"default-src 'none'",
		"sourceFile":"https://app.example.com/shop?s3cret","sample":"s3cret","disposition":"report","statusCode":200,
		"lineNumber":7,"columnNumber":1}}]`
	want := report.Violation{
		Directive: "script-src-elem", Blocked: "https://cdn.example.net", Kind: report.KindOrigin,
		Document: "/shop", Disposition: "report", Source: "/shop", Line: 7,
	}
	for contentType, body := range map[string]string{legacyType: old, queueType + "; charset=utf-8": queued} {
		got := one(t, site, contentType, body)
		if got != want {
			t.Errorf("%s: got %+v, want %+v", contentType, got, want)
		}
		if strings.Contains(fmt.Sprintf("%+v", got), "s3cret") {
			t.Errorf("%s: a secret was kept: %+v", contentType, got)
		}
	}
}

func TestWhatWasBlockedIsReducedToASource(t *testing.T) {
	long := strings.Repeat("a", 3000)
	rows := []struct {
		blocked, want string
		kind          report.Kind
	}{
		{"inline", "inline", report.KindInline},
		{"eval", "eval", report.KindEval},
		{"wasm-eval", "wasm-eval", report.KindEval},
		{"trusted-types-sink", "trusted-types-sink", report.KindUnknown},
		{"trusted-types-policy", "trusted-types-policy", report.KindUnknown},
		{"data", "data:", report.KindData},
		{"data:image/png;base64,s3cret" + long, "data:", report.KindData},
		{"blob", "blob:", report.KindBlob},
		{"blob:https://app.example.com/1", "blob:", report.KindBlob},
		{"https://app.example.com/x.js", "'self'", report.KindSelf},
		{"https://APP.example.com:443/x.js", "'self'", report.KindSelf},
		{"https://app.example.com:8443/x.js", "https://app.example.com:8443", report.KindOrigin},
		{"http://app.example.com/x.js", "http://app.example.com", report.KindOrigin},
		{"wss://app.example.com/live", "wss://app.example.com", report.KindOrigin},
		{"https://user:s3cret@cdn.example.net/x", "https://cdn.example.net", report.KindOrigin},
		{"https://CDN.example.net:443", "https://cdn.example.net", report.KindOrigin},
		{"http://cdn.example.net:80/", "http://cdn.example.net", report.KindOrigin},
		{"https://cdn.example.net?s3cret=" + long, "https://cdn.example.net", report.KindOrigin},
		{"https://10.0.0.1/", "https://10.0.0.1", report.KindOrigin},
		{"wss", "wss:", report.KindUnknown},
		{"https:", "https:", report.KindUnknown},
		{"chrome-extension", "chrome-extension:", report.KindExtension},
		{"moz-extension://0f0f/s3cret.js", "moz-extension:", report.KindExtension},
		{"safari-web-extension://x", "safari-web-extension:", report.KindExtension},
		{"about", "about:", report.KindExtension},
		{"about:blank", "about:", report.KindExtension},
		{"https://gc.kis.v2.scr.kaspersky-labs.com/x", "https://gc.kis.v2.scr.kaspersky-labs.com", report.KindExtension},
		{"", "", report.KindUnknown},
		{"self", "", report.KindUnknown},
		{"*", "", report.KindUnknown},
		{"'unsafe-inline'", "", report.KindUnknown},
		{"unheard-of:x", "", report.KindUnknown},
		{"https://[::1]/", "", report.KindUnknown},
		{"https://*.example.net/", "", report.KindUnknown},
		{"https://under_score.example.net/", "", report.KindUnknown},
		{"https://bücher.example/", "", report.KindUnknown},
		{"https://cdn.example.net:0/", "", report.KindUnknown},
		{"https://cdn.example.net:65536/", "", report.KindUnknown},
		{"https://cdn.example.net./", "", report.KindUnknown},
		{"https://a;script-src *", "", report.KindUnknown},
		{"https://" + long[:250] + ".nu/", "https://" + long[:250] + ".nu", report.KindOrigin},
		{"https://" + long[:251] + ".nu/", "", report.KindUnknown},
		{"https://" + long + ".example/", "", report.KindUnknown},
		{"https://cdn.example.net/" + long, "", report.KindUnknown},
	}
	for _, row := range rows {
		got := one(t, site, queueType, queue("img-src", row.blocked))
		if got.Blocked != row.want || got.Kind != row.kind {
			t.Errorf("%.60s: got %q, %s; want %q, %s", row.blocked, got.Blocked, got.Kind, row.want, row.kind)
		}
		if noisy := row.kind == report.KindExtension; got.Noise != noisy {
			t.Errorf("%.60s: noise is %t", row.blocked, got.Noise)
		}
	}
}

func TestPathsOfWhatWasBlockedAreKeptOnRequest(t *testing.T) {
	paths := report.Site{Host: host, Paths: true}
	for blocked, want := range map[string]string{
		"https://cdn.example.net/lib/a.js?s3cret":             "https://cdn.example.net/lib/a.js",
		"https://cdn.example.net":                             "https://cdn.example.net",
		"https://cdn.example.net/a;s3cret":                    "https://cdn.example.net",
		"https://cdn.example.net/a,b":                         "https://cdn.example.net",
		"https://cdn.example.net/../a":                        "https://cdn.example.net",
		"https://cdn.example.net/" + strings.Repeat("a", 300): "https://cdn.example.net",
	} {
		if got := one(t, paths, queueType, queue("img-src", blocked)).Blocked; got != want {
			t.Errorf("%.60s: got %q, want %q", blocked, got, want)
		}
	}
}

func TestADirectiveIsAKnownNameOrOther(t *testing.T) {
	for sent, want := range map[string]string{
		"script-src-elem": "script-src-elem", "IMG-SRC": "img-src", "frame-ancestors": "frame-ancestors",
		"trusted-types": "trusted-types", "navigate-to": "other", "x": "other", "script-src;": "other",
		strings.Repeat("a", 5000): "other", "script-src 'self' https://a.example": "script-src",
	} {
		body := fmt.Sprintf(`{"csp-report":{"document-uri":%q,"violated-directive":%q,"blocked-uri":"inline"}}`, page, sent)
		if got := one(t, site, legacyType, body).Directive; got != want {
			t.Errorf("%.40q: got %q, want %q", sent, got, want)
		}
	}
}

func TestOnlyPagesOfTheHostAreReported(t *testing.T) {
	for _, row := range []struct {
		host, document string
		ours           bool
	}{
		{host, page, true},
		{"APP.example.com", page, true},
		{"app.example.com:443", page, true},
		{host, "https://app.example.com:443/", true},
		{host, "http://app.example.com/", true},
		{"app.example.com:8443", "https://app.example.com:8443/", true},
		{"app.example.com:8443", page, false},
		{"app.example.com:80", page, false},
		{host, "https://app.example.com:8443/", false},
		{host, "https://evil.example/", false},
		{host, "https://app.example.com.evil.example/", false},
		{host, "https://app.example.com@evil.example/", false},
		{host, "wss://app.example.com/", false},
		{host, "about", false},
		{host, "", false},
		{"", page, false},
		{"", "https:///", false},
		{"my_app:8080", "http://my_app:8080/", true},
		{"[2001:db8::1]:8080", "http://[2001:db8::1]:8080/", true},
		{"[2001:db8::1]", "http://[2001:db8::1]/", true},
		{"[2001:db8::1]", "http://[2001:db8::2]/", false},
	} {
		body := fmt.Sprintf(`{"csp-report":{"document-uri":%q,"effective-directive":"img-src","blocked-uri":"data"}}`, row.document)
		b, err := report.Site{Host: row.host}.Parse(legacyType, []byte(body))
		if err != nil || (len(b.Violations) == 1) != row.ours || (b.Foreign == 1) == row.ours {
			t.Errorf("%s at %s: got %+v, %v", row.document, row.host, b, err)
		}
	}
}

// A policy cannot name such a host, but it can say 'self'.
func TestAPageOfAHostWithoutANameAllowsItself(t *testing.T) {
	for host, blocked := range map[string]string{
		"my_app": "'self'", "[2001:db8::1]:8080": "'self'",
	} {
		for address, want := range map[string]string{"http://" + host + "/a.js": blocked, "http://other_app/a.js": "", "http://[::1]/": ""} {
			body := fmt.Sprintf(`{"csp-report":{"document-uri":"http://%s/","effective-directive":"img-src","blocked-uri":%q}}`, host, address)
			if got := one(t, report.Site{Host: host}, legacyType, body).Blocked; got != want {
				t.Errorf("%s: got %q, want %q", address, got, want)
			}
		}
	}
}

func TestADocumentIsAPathInCanonicalForm(t *testing.T) {
	long := "/" + strings.Repeat("a", 200)
	for sent, want := range map[string]string{
		"": "/", "/": "/", "/a/b": "/a/b", "/a?token=1": "/a", "/a#token": "/a", "/a;jsessionid=1/b": "/a",
		"/a%3Bjsessionid=1/b": "/a", "/a%3bjsessionid=1": "/a", "/a%3Ftoken=1;x": "/a", "/a;x%3fy": "/a",
		"/%c3%bc": "/%C3%BC", "/a/../b": "", "/%2e%2e/b": "", "/a\u00fc": "/a%C3%BC", "/a b": "/a%20b",
		"/{$SECRET}": "/%7B$SECRET%7D", "/" + strings.Repeat("a", 300): "/", long + long: long + "/", long + "/b" + long: long + "/b/",
	} {
		body := fmt.Sprintf(`{"csp-report":{"document-uri":%q,"effective-directive":"img-src","blocked-uri":"data"}}`,
			"https://app.example.com"+sent)
		if got := one(t, site, legacyType, body).Document; got != want {
			t.Errorf("%q: got %q, want %q", sent, got, want)
		}
	}
}

func TestCodeOfAnExtensionIsNoise(t *testing.T) {
	for source, want := range map[string]struct {
		source string
		noise  bool
	}{
		"chrome-extension":                           {"chrome-extension:", true},
		"moz-extension://abc/content.js":             {"moz-extension:", true},
		"https://x.superfish.com/a.js":               {"https://x.superfish.com", true},
		"https://notsuperfish.com/a.js":              {"https://notsuperfish.com", false},
		"https://app.example.com/a.js?s3cret":        {"/a.js", false},
		"https://cdn.example.net/a.js?s3cret":        {"https://cdn.example.net", false},
		"ftp://cdn.example.net/a.js":                 {"", false},
		"sandbox eval code":                          {"", false},
		"https://" + strings.Repeat("a", 64<<10-900): {"", false},
	} {
		body := fmt.Sprintf(`{"csp-report":{"document-uri":%q,"effective-directive":"script-src","blocked-uri":"inline",`+
			`"source-file":%q,"line-number":99999999999}}`, page, source)
		got := one(t, site, legacyType, body)
		if got.Source != want.source || got.Noise != want.noise || got.Line > 1<<24 {
			t.Errorf("%.40q: got %+v", source, got)
		}
	}
}

func TestAWrongBodyIsRefusedWithoutRepeatingIt(t *testing.T) {
	for _, row := range []struct {
		contentType, body string
		want              error
	}{
		{"application/json", "{}", report.ErrMediaType},
		{"", "{}", report.ErrMediaType},
		{"application/csp-report; s3cret", "{}", report.ErrMediaType},
		{legacyType, strings.Repeat(" ", report.MaxBody+1), report.ErrTooLarge},
		{legacyType, "", report.ErrMalformed},
		{legacyType, "null", report.ErrMalformed},
		{legacyType, "[]", report.ErrMalformed},
		{legacyType, `{"s3cret":1}`, report.ErrMalformed},
		{legacyType, `{"csp-report":null}`, report.ErrMalformed},
		{legacyType, `{"csp-report":{"document-uri":["s3cret"]}}`, report.ErrMalformed},
		{legacyType, `{"csp-report":{"document-uri":"s3cret"}} {}`, report.ErrMalformed},
		{queueType, "", report.ErrMalformed},
		{queueType, "null", report.ErrMalformed},
		{queueType, `{"type":"csp-violation"}`, report.ErrMalformed},
		{queueType, "{}", report.ErrMalformed},
		{queueType, `[{}`, report.ErrMalformed},
		{queueType, `[] []`, report.ErrMalformed},
		{queueType, `[{} {}]`, report.ErrMalformed},
		{queueType, strings.Repeat("[", report.MaxBody), report.ErrMalformed},
	} {
		b, err := site.Parse(row.contentType, []byte(row.body))
		if !errors.Is(err, row.want) || strings.Contains(err.Error(), "s3cret") || len(b.Violations) > 0 {
			t.Errorf("%s %.60s: got %+v, %v; want %v", row.contentType, row.body, b, err, row.want)
		}
	}
}

func TestOneWrongReportDoesNotSpoilTheOthers(t *testing.T) {
	good := strings.Trim(queue("img-src", "data"), "[]")
	body := "[" + strings.Join([]string{
		good, "1", "null", `{"type":3}`, `{"type":"csp-violation"}`, `{"type":"csp-violation","body":[]}`, `{"type":"csp-violation","body":null}`,
		`{"type":"csp-violation","url":"` + page + `","body":{"blockedURL":"data"}}`,
		`{"type":"deprecation","body":{"documentURL":5}}`, `{"type":"csp-hash","body":null}`,
		`{"type":"csp-violation","url":"` + page + `","body":{"effectiveDirective":"img-src"}}`,
		`{"type":"csp-violation","url":"https://evil.example","body":{"effectiveDirective":"img-src"}}`, good,
	}, ",") + "]"
	b, err := site.Parse(queueType, []byte(body))
	if err != nil || len(b.Violations) != 3 || b.Malformed != 7 || b.OtherTypes != 2 || b.Foreign != 1 {
		t.Errorf("got %+v, %v", b, err)
	}
}

func TestALineThatIsNoNumberSpoilsNoReport(t *testing.T) {
	for sent, want := range map[string]int{
		"7": 7, "7.9": 7, `"7"`: 7, `"s3cret"`: 0, "-3": 0, `"NaN"`: 0, `"Inf"`: 1 << 24, "1e99": 1 << 24, "null": 0, "[1]": 0, "{}": 0,
	} {
		body := fmt.Sprintf(`{"csp-report":{"document-uri":%q,"effective-directive":"img-src","blocked-uri":"data","source-file":%[1]q,"line-number":%s}}`, page, sent)
		if got := one(t, site, legacyType, body).Line; got != want {
			t.Errorf("%s: got %d, want %d", sent, got, want)
		}
	}
}

func TestAtMostFiftyReportsOfABodyAreRead(t *testing.T) {
	good := strings.Trim(queue("img-src", "data"), "[]")
	body := "[" + strings.Repeat(good+",", 60) + good + "]"
	b, err := site.Parse(queueType, []byte(body))
	if err != nil || len(b.Violations) != report.MaxReports || b.Dropped != 11 {
		t.Errorf("got %d, %d dropped, %v", len(b.Violations), b.Dropped, err)
	}
}

// A part of a string holds on to the whole: 500 violations would keep 30 MB.
func TestAViolationKeepsNothingOfItsBodyInMemory(t *testing.T) {
	filler := strings.Repeat("x", 60<<10)
	body := []byte(fmt.Sprintf(`{"csp-report":{"document-uri":"%s?%s","effective-directive":"img-src",`+
		`"blocked-uri":"https://cdn.example.net/a"}}`, page, filler))
	kept := make([]report.Violation, 0, 500)
	before := heap()
	for range cap(kept) {
		kept = append(kept, one(t, site, legacyType, string(body)))
	}
	if grown := heap() - before; grown > 2<<20 {
		t.Errorf("%d violations hold %d KiB", len(kept), grown>>10)
	}
	runtime.KeepAlive(kept)
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
