package headers_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/internal/headers"
)

const (
	digest256 = "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
	digest384 = "'sha384-OLBgp1GsljhM2TJ+sbHjaiH9txEUvgdDTAzHv2P24donTt6/529l+9Ua0vFImLlb'"
)

// wrong are policies that browsers would read otherwise than they look.
var wrong = map[string]string{
	"":                                     "is empty",
	" ; ;":                                 "is empty",
	"script-srv 'self'":                    "did you mean script-src?",
	"scriptsrc 'self'":                     "did you mean script-src?",
	"style 'self'":                         "unknown directive",
	strings.Repeat("s", 65) + " 'self'":    "unknown directive",
	"plugin-types application/pdf":         "unknown directive",
	"script-src: 'self'":                   `"script-src:": unknown directive; did you mean script-src?`,
	"\x00 'self'":                          "unknown directive",
	"script-src self":                      "write 'self'",
	"script-src Unsafe-Inline":             "write 'Unsafe-Inline'",
	"default-src none":                     "write 'none'",
	"script-src nonce-abc":                 "single quotes",
	"script-src sha256-abc":                "single quotes",
	"script-src 'slef'":                    "did you mean 'self'?",
	"script-src 'self":                     "closing quote",
	"script-src '":                         "closing quote",
	"script-src 'nonce-'":                  "base64",
	"script-src 'nonce-a!c'":               "base64",
	"script-src 'sha256-a!'":               "base64",
	"script-src 'sha256-YWJj'":             "sha256 has 32",
	"script-src 'sha1-YWJj'":               "no keyword, nonce or hash",
	"script-src":                           "needs a value",
	"script-src 'self' 'self'":             "stands twice",
	"script-src 'self' 'SELF'":             "stands twice",
	"img-src A.example a.EXAMPLE":          "stands twice",
	"script-src 'none' 'self'":             "'none' stands alone",
	"script-src 'self'; script-src a.com":  "the directive stands twice",
	"script-src 'self', img-src a.com":     `contains ','`,
	"script-src a.com,b.com":               `contains ','`,
	"img-src caf\u00e9.example":            "printable ASCII",
	"img-src a\x01b":                       "printable ASCII",
	"img-src " + strings.Repeat("a", 1025): "at most 1024",
	"img-src http:/a":                      "port",
	"img-src 1http://a":                    "is no scheme",
	"img-src ://a":                         "is no scheme",
	"img-src https://":                     "is no source",
	"img-src a..example":                   "is no source",
	"img-src a*.example":                   "is no source",
	"img-src *.*.example":                  "is no source",
	"img-src a_b.example":                  "is no source",
	"img-src a.example.":                   "is no source",
	"img-src /path":                        "is no source",
	"img-src a.example:0":                  "port",
	"img-src a.example:65536":              "port",
	"img-src a.example:http":               "port",
	"img-src [::1]:443":                    "IPv6",
	"img-src a.example/x?y":                "path",
	"img-src a.example/x#y":                "path",
	"img-src a.example/<x>":                "path",
	"frame-ancestors 'unsafe-inline'":      "only 'self' and 'none'",
	"frame-ancestors " + digest256:         "only 'self' and 'none'",
	"frame-ancestors self":                 "write 'self'",
	"sandbox allow-script":                 "did you mean allow-scripts?",
	"upgrade-insecure-requests 1":          "takes no value",
	"block-all-mixed-content 'self'":       "takes no value",
	"require-trusted-types-for script":     "none of the words",
	"require-trusted-types-for":            "needs a value",
	"trusted-types 'nothing'":              "none of the words",
	"trusted-types a!":                     "no policy name",
	"webrtc 'maybe'":                       "none of the words",
	"webrtc 'allow' 'block'":               "at most 1",
	"report-to a b":                        "at most 1",
	"report-to https://a.example":          "Reporting-Endpoints",
	"report-uri":                           "needs a value",
	"img-src " + strings.Repeat("a ", 300): "at most 256",
	strings.Repeat("x", 8193):              "at most 8192",
	strings.Repeat("a;", 65):               "at most 64",
}

// right are policies and their normal form.
var right = map[string]string{
	"default-src 'self'":                                                         "",
	"Default-Src 'SELF' HTTPS://CDN.Example:443/Path":                            "default-src 'self' https://cdn.example:443/Path",
	" script-src\t" + digest256 + " " + digest384 + ";":                          "script-src " + digest256 + " " + digest384,
	"script-src 'SHA256-47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU'":            "script-src 'sha256-47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU'",
	"script-src 'nonce-YWJj' 'strict-dynamic' 'report-sample'":                   "",
	"script-src sha256-lib.example nonce.example":                                "",
	"img-src * data: blob: *.a.example *:8443 http://*":                          "",
	"img-src localhost:3000 a.example:* a.example/%2c/":                          "",
	"connect-src wss://a.example ws:":                                            "",
	"frame-ancestors 'none'":                                                     "",
	"sandbox":                                                                    "",
	"sandbox Allow-Forms allow-scripts":                                          "sandbox allow-forms allow-scripts",
	"upgrade-insecure-requests":                                                  "",
	"require-trusted-types-for 'script'; trusted-types a#b * 'allow-duplicates'": "",
	"webrtc 'block'; report-to main; report-uri /-/csp?a=b":                      "",
}

func TestPoliciesThatBrowsersWouldMisreadAreRefused(t *testing.T) {
	for text, want := range wrong {
		c, err := headers.ParseCSP(text)
		if err == nil || c != nil {
			t.Errorf("%.60q: accepted as %q", text, c)
			continue
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: error %q does not say %q", text, err, want)
		}
	}
}

func TestPoliciesAreSentInNormalForm(t *testing.T) {
	for text, want := range right {
		if want == "" {
			want = text
		}
		c, err := headers.ParseCSP(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if c.String() != want {
			t.Errorf("%q became %q, want %q", text, c, want)
		}
	}
}

func TestALinesSourcesAreWordsOfTheirOwn(t *testing.T) {
	for _, source := range []string{"", " ", "/a /b", "/a;script-src", "/a,b", "/a\n", "/a\x7f", "'self' 'unsafe-inline'"} {
		for _, name := range []string{"img-src", "report-uri"} {
			_, err := headers.New(headers.Config{CSP: []headers.Directive{{Name: name, Sources: []string{source}}}})
			if err == nil {
				t.Errorf("%s: source %q was accepted", name, source)
			}
		}
	}
	_, err := headers.New(headers.Config{CSP: []headers.Directive{{Name: "upgrade-insecure-requests", Sources: []string{"a;b"}}}})
	if err == nil {
		t.Error("a value that begins a directive was accepted")
	}
}

func TestTooManySourcesAreNotReadOneByOne(t *testing.T) {
	_, err := headers.ParseCSP("img-src" + strings.Repeat(" a", 300))
	if err == nil || strings.Contains(err.Error(), "twice") {
		t.Errorf("got %v", err)
	}
}

func TestAPolicyTooLongForAHeaderIsRefused(t *testing.T) {
	var lines []headers.Directive
	for _, name := range []string{"img-src", "font-src", "media-src"} {
		var sources []string
		for i := range 200 {
			sources = append(sources, fmt.Sprintf("https://a%d.example", i))
		}
		lines = append(lines, headers.Directive{Name: name, Sources: sources})
	}
	if _, err := headers.New(headers.Config{CSP: lines}); err == nil || !strings.Contains(err.Error(), "at most 8192") {
		t.Errorf("got %v", err)
	}
}

func TestSourcesThatUndoThePolicyNeedTheInsecureWord(t *testing.T) {
	rows := map[string][]string{
		"default-src":     {"*", "http:", "https:", "data:", "blob:", "'unsafe-inline'", "'unsafe-eval'"},
		"script-src":      {"'unsafe-inline'", "'UNSAFE-INLINE'", "'unsafe-eval'", "'unsafe-hashes'", "*", "*:443", "*:*", "*/a.js", "https://*", "HTTPS://*:443", "http:", "https:", "data:", "DATA:", "blob:", "filesystem:", "http://a.example", "'nonce-YWJj'"},
		"script-src-elem": {"*", "'unsafe-inline'", "'nonce-YWJj'"},
		"script-src-attr": {"'unsafe-inline'", "'unsafe-hashes'"},
		"object-src":      {"*", "data:"},
		"style-src":       {"'nonce-YWJj'"},
		"frame-ancestors": {"*", "https:", "http://*"},
		"base-uri":        {"*", "https:", "data:"},
	}
	for name, sources := range rows {
		for _, source := range sources {
			lines := []headers.Directive{{Name: name, Sources: []string{source}}}
			_, err := headers.New(headers.Config{CSP: lines})
			if err == nil || !strings.Contains(err.Error(), "insecure_unsafe_csp") {
				t.Errorf("%s %s: got %v", name, source, err)
			}
			if _, err = headers.New(headers.Config{CSP: lines, InsecureCSP: true}); err != nil {
				t.Errorf("%s %s with the word: %v", name, source, err)
			}
		}
	}
	harmless := []string{"script-src https://cdn.example", "script-src *.cdn.example", "script-src " + digest256,
		"script-src 'wasm-unsafe-eval'", "img-src *", "img-src data:", "worker-src blob:", "style-src 'unsafe-inline'",
		"connect-src wss:", "frame-ancestors https://a.example", "base-uri 'none'", "form-action *"}
	for _, line := range harmless {
		if _, err := headers.New(headers.Config{CSP: csp(line)}); err != nil {
			t.Errorf("%s: %v", line, err)
		}
	}
}
