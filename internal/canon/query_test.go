package canon_test

import (
	"net/url"
	"testing"

	"github.com/moat-gateway/moat/internal/canon"
)

func TestQueriesThatParsersReadDifferentlyAreRefused(t *testing.T) {
	for raw, want := range map[string]string{
		"":                        "",
		"a":                       "",
		"a=b&a=c":                 "",
		"a=%20b+c":                "",
		"a=caf%C3%A9":             "",
		"a=caf%c3%a9":             "",
		"a=%0A%3B%26":             "",
		"a[]=1&b={}|\\":           "",
		"a=%EF%BF%BD":             "",
		"a=1;b=2":                 "canon.query-semicolon",
		";":                       "canon.query-semicolon",
		"a=%":                     "canon.bad-escape",
		"a=%4":                    "canon.bad-escape",
		"a=%zz":                   "canon.bad-escape",
		"a=%4g":                   "canon.bad-escape",
		"a=%g4":                   "canon.bad-escape",
		"a=%u0041":                "canon.bad-escape",
		"a=100%&b=1":              "canon.bad-escape",
		"a=%00":                   "canon.control-byte",
		"a=\x00":                  "canon.control-byte",
		"a=\x7f":                  "canon.control-byte",
		"a b":                     "canon.control-byte",
		"a\tb":                    "canon.control-byte",
		"a#b":                     "canon.fragment",
		"a=\xc3\xa9":              "canon.non-ascii",
		"a=%ff":                   "canon.bad-utf8",
		"a=%C3":                   "canon.bad-utf8",
		"a=%C3%28":                "canon.bad-utf8",
		"a=%c0%af":                "canon.bad-utf8",
		"a=%E9t%E9":               "canon.bad-utf8",
		"a=%F4%90%80%80":          "canon.bad-utf8",
		"a=%ED%A0%80&b":           "canon.bad-utf8",
		"a=%C3%A9%C3":             "canon.bad-utf8",
		"a=%F0%9F%98%80%F0%9F%98": "canon.bad-utf8",
	} {
		err := canon.Query(raw)
		if class, reason := refusal(t, err); reason != want || class != canon.BadRequest {
			t.Errorf("Query(%q): class %d, reason %q, want %q", raw, class, reason, want)
		}
		if _, parse := url.ParseQuery(raw); err == nil && parse != nil {
			t.Errorf("Query(%q) accepts what net/url does not: %v", raw, parse)
		}
	}
}
