package inline_test

import (
	"strings"
	"testing"

	"github.com/moat-gateway/moat/internal/headers/inline"
)

func TestOnlyHTMLInASupersetOfASCIIIsFit(t *testing.T) {
	esc := "\x1b"
	for _, row := range []struct {
		contentType, first string
		want               string // empty: fit
	}{
		{"text/html", "", ""},
		{"Text/HTML; Charset=UTF-8", "<p>", ""},
		{`text/html; charset="utf-8"`, "\xef\xbb\xbf<p>", ""},
		{"text/html; charset=us-ascii", "", ""},
		{"text/html; charset=ISO-8859-15", "", ""},
		{"text/html; charset=iso-8859-8-i", "", ""},
		{"text/html; charset=windows-1252", "", ""},
		{"text/html; charset=koi8-r", "", ""},
		{"text/html; charset=gb18030", "", ""},
		{"text/html; charset=GBK", "", ""},
		{"text/html; charset=big5", "", ""},
		{"text/html; charset=Shift_JIS", "", ""},
		{"text/html; charset=euc-kr", "", ""},
		{"text/html; charset=utf-8", `<meta charset="iso-2022-jp">` + esc, ""}, // The header wins.
		{"text/html", `<meta charset=utf-8>`, ""},
		{"text/html", `<script>charset = "x" + charset</script>`, ""},
		{"text/html", strings.Repeat(" ", 1024) + `<meta charset=iso-2022-jp>`, ""},

		{"", "", "Content-Type is missing"},
		{"text/html; charset", "", "malformed"},
		{"text/html, text/plain", "", "malformed"},
		{"text/html; charset=utf-8; charset=utf-7", "", "malformed"},
		{"text/plain", "", "not text/html"},
		{"application/xhtml+xml", "", `"application/xhtml+xml", not text/html`},
		{"application/" + strings.Repeat("x", 100), "", "…"},
		{"text/html; charset=utf-16", "", "not a superset"},
		{"text/html; charset=UTF-16LE", "", "not a superset"},
		{"text/html; charset=utf-32", "", "not a superset"},
		{"text/html; charset=utf-7", "", "not a superset"},
		{"text/html; charset=unicode", "", "not a superset"},
		{"text/html; charset=ISO-2022-JP", "", "not a superset"},
		{"text/html; charset=iso-2022-kr", "", "not a superset"},
		{"text/html; charset=hz-gb-2312", "", "not a superset"},
		{"text/html; charset=", "", "malformed"},
		{"text/html; charset=nonsense", "", "not known"},
		{"text/html; charset=windows-1259", "", "not known"}, // Browsers ignore what the standard does not list.
		{"text/html; charset=iso-8859-99", "", "not known"},
		{"text/html; charset=koi8-x", "", "not known"},
		{"text/html; charset*=utf-8''utf-8", "", "read in another way"},
		{`text/html; charset="utf\-8"`, "", "read in another way"},
		{"text/html; charset=iso-8859-" + strings.Repeat("1", 99), "", "not known"},
		{"text/html; charset=utf-8", "\xff\xfe<\x00", "like UTF-16"},
		{"text/html; charset=utf-8", "\xfe\xff", "like UTF-16"},
		{"text/html", "<\x00h\x00", "like UTF-16"},
		{"text/html", "\x00<\x00h", "like UTF-16"},
		{"text/html", "a" + esc + "$B", "escape characters"},
		{"text/html", `<META CHARSET = "ISO-2022-JP">`, "not a superset"},
		{"text/html", `<meta charset=utf-8><meta content="text/html;charset=utf-16">`, "not a superset"},
		{"text/html", "charset charset=hz-gb-2312", "not a superset"},
	} {
		_, why := inline.Fit(row.contentType, []byte(row.first))
		if (why == "") != (row.want == "") || !strings.Contains(why, row.want) || len(why) > 120 {
			t.Errorf("%s, %.60q: %q", row.contentType, row.first, why)
		}
	}
}

func FuzzFit(f *testing.F) {
	f.Add("text/html; charset=utf-8", "<meta charset=utf-8>")
	f.Fuzz(func(t *testing.T, contentType, first string) {
		_, why := inline.Fit(contentType, []byte(first))
		if len(why) > 250 {
			t.Fatalf("%q", why)
		}
		if why == "" && !strings.Contains(strings.ToLower(contentType), "text/html") {
			t.Fatalf("%q is fit", contentType)
		}
	})
}
