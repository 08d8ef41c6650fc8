package inline_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"golang.org/x/net/html"
	"golang.org/x/net/html/charset"

	"github.com/moat-gateway/moat/internal/headers/inline"
)

// Every label is one of the Encoding standard, and none of a charset in which a
// byte below 0x80 may be half of a character.
func TestEveryKnownLabelIsOneThatBrowsersKnow(t *testing.T) {
	for label := range inline.Supersets() {
		enc, name := charset.Lookup(label)
		if enc == nil || name == "utf-8" || name == "replacement" || name == "iso-2022-jp" || strings.HasPrefix(name, "utf-16") {
			t.Errorf("%s is %q", label, name)
		}
		if c, why := inline.Fit("text/html; charset=\""+strings.ToUpper(label)+"\"", nil); c != inline.Named || why != "" {
			t.Errorf("%s: %d, %s", label, c, why)
		}
	}
	if n := len(inline.Supersets()); n != 204 {
		t.Errorf("%d labels", n)
	}
}

func TestTheCharsetIsCertainOnlyWhereBrowsersCannotBeToldAnother(t *testing.T) {
	const mark = "\xef\xbb\xbf"
	for _, row := range []struct {
		contentType, first string
		want               inline.Charset
	}{
		{"text/html; charset=utf-8", "", inline.UTF8},
		{"text/html; charset=UTF8", "", inline.UTF8},
		{"text/html", mark, inline.UTF8},
		{"text/html; charset=iso-8859-1", mark, inline.UTF8},
		{"text/html; charset=iso-8859-1", `<meta charset="utf-8">`, inline.Named},
		{"text/html; charset=gbk", "", inline.Named},
		{"text/html", "", inline.Guessed},
		{"text/html", " " + mark, inline.Guessed},
		{"text/html", "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"UTF-8\" />", inline.UTF8},
		{"text/html", "<meta charset=utf-8>", inline.UTF8},
		{"text/html", `<META CHARSET=utf-8>`, inline.UTF8},
		{"text/html", `<meta charſet=utf-8>`, inline.Guessed},
		{"text/html", `<meta charset=utf-8/>`, inline.Guessed},
		{"text/html", `<meta charset="latin1"><meta charset="utf-8">`, inline.Guessed},
		{"text/html", `<title><meta charset="utf-8">`, inline.Guessed},
		{"text/html", `<!-- <meta charset="utf-8">`, inline.Guessed},
		{"text/html", `<html lang="x><head><meta charset="utf-8">`, inline.Guessed},
		{"text/html", `<html lang=x'><head><meta charset=utf-8>`, inline.Guessed},
		{"text/html", strings.Repeat(" ", 1010) + `<meta charset=utf-8>`, inline.Guessed},
	} {
		if c, why := inline.Fit(row.contentType, []byte(row.first)); c != row.want || why != "" {
			t.Errorf("%s, %.60q: %d, %s", row.contentType, row.first, c, why)
		}
	}
}

// An injected script whose source is pinned as the bytes have it, and another
// one as ISO-2022-JP has it.
const disguised = "<script x=\"\x1b$B\"src=\"/app.js\"yy='\x1b(B\"src=data:,document.title=`PWNED` '></script>"

func TestNothingGetsTheNonceBehindAnEscapeOfAGuessedCharset(t *testing.T) {
	const esc = "\x1b"
	pins := pinned(t, theirs+"<script>"+esc+"$B</script><style>"+esc+"</style><script src=/"+esc+"></script>")
	for name, marked := range map[string]string{
		"disguised":            "<script§ src=/app.js></script>" + disguised,
		"behind":               "<script§>plain()</script>" + esc + "<script>plain()</script><script src=/app.js></script><style>p{}</style>",
		"in a tag":             "<script x=" + esc + ">plain()</script><script>plain()</script>",
		"in the source":        "<script src=/" + esc + "></script>",
		"in a script":          "<script>" + esc + "$B</script><script>plain()</script>",
		"in a style":           "<style>" + esc + "</style>",
		"in a comment":         "<!-- " + esc + " --><script>plain()</script>",
		"right behind the end": "<script§>plain()</script" + ">" + esc,
		"in the end tag":       "<script§>plain()</script " + esc + "><script>plain()</script>",
		"in svg":               "<svg><style§>g{}</style>" + esc + "<style>g{}</style></svg>",
		"at the beginning":     esc + "<script>plain()</script>",
	} {
		page, want := split(marked)
		for at := range len(page) + 1 {
			ambiguous := false
			got := rewrite(t, halves(page, at), inline.Config{Pins: pins, OnFinding: func(f inline.Finding) {
				ambiguous = ambiguous || f.Kind == inline.Ambiguous
			}})
			if got != want || ambiguous != (name != "right behind the end") {
				t.Errorf("%s cut at %d: named is %v\n got %q\nwant %q", name, at, ambiguous, got, want)
				break
			}
		}
		for _, c := range []inline.Charset{inline.Named, inline.UTF8} {
			got := rewrite(t, strings.NewReader(page), inline.Config{Pins: pins, Charset: c})
			if scripts := strings.Count(page, "<script") + strings.Count(page, "<style"); name != "in a tag" && strings.Count(got, nonce) != scripts {
				t.Errorf("%s in charset %d: %q", name, c, got)
			}
		}
	}
}

func TestWhatIsNotASCIIIsPinnedInUTF8Only(t *testing.T) {
	page := "<script>a('é')</script><script src=/é.js></script><style>é</style><script>a('\xe9')</script>"
	for c, want := range map[inline.Charset]int{inline.UTF8: 4, inline.Named: 0, inline.Guessed: 0} {
		ambiguous := 0
		got := rewrite(t, strings.NewReader(page), inline.Config{Pins: pinned(t, page), Charset: c, OnFinding: func(f inline.Finding) {
			if f.Kind == inline.Ambiguous {
				ambiguous++
			}
		}})
		if n := strings.Count(got, nonce); n != want || (ambiguous == 1) != (want == 0) {
			t.Errorf("charset %d: %d nonces, %d findings", c, n, ambiguous)
		}
	}
	around := "<script title=é>a()</script><script src=/a.js title=é></script>é"
	if got := rewrite(t, strings.NewReader(around), inline.Config{Pins: pinned(t, around), Charset: inline.Named}); strings.Count(got, nonce) != 2 {
		t.Errorf("beside what is pinned: %s", got)
	}
}

func TestAHashIsOfTheTextThatBrowsersRead(t *testing.T) {
	for _, row := range []struct {
		script  string
		charset inline.Charset
		want    bool
	}{
		{"a('é')", inline.UTF8, true},
		{"a('é')", inline.Guessed, true},
		{"a('é')", inline.Named, false},
		{"a('\xe9')", inline.UTF8, false},
		{"a('\xe9')", inline.Guessed, false},
		{"a('e')", inline.Named, true},
	} {
		hashes, findings, err := inline.Hashes(strings.NewReader("<script>"+row.script+"</script>"), row.charset)
		named := len(findings) == 1 && findings[0].Kind == inline.Ambiguous
		if err != nil || (len(hashes) == 1) != row.want || named == row.want {
			t.Errorf("%q in charset %d: %v, %v, %v", row.script, row.charset, hashes, findings, err)
		}
	}
}

// bits are what pages are made of that mean something else in another charset.
var bits = strings.Split("<script>good()</script>|<script src=/app.js></script>|<script>|</script>|<script |src=/app.js|src=//evil|>|<|/|=|\"|'| |"+
	"x=\"|'>|\">|\x1b$B|\x1b(B|\x1b(J|\x1b(I|\x1b$@|\x1b|\x81|\x83|\x8f|\x8e|\xa1|\xe0|\xfe|\x80|\xff|\x0e|\x0f|~{|~}|~|\\|0|5|a|[|]|`|-|<!--|-->|<![CDATA[|]]>|"+
	"<svg>|</svg>|<style>|</style>|<textarea>|</textarea>|<title>|</title>|<p |good()|evil()|<b a=|<a b='", "|")

// Whatever charset a browser guesses, what has the nonce is what was pinned.
func TestNoGuessOfACharsetGivesTheNonceToWhatIsNotPinned(t *testing.T) {
	pins := pinned(t, "<script>good()</script><script src=/app.js></script>")
	random := rand.New(rand.NewPCG(3, 4))
	with := 0
	for range 20_000 {
		var page strings.Builder
		for range 1 + random.IntN(14) {
			page.WriteString(bits[random.IntN(len(bits))])
		}
		got := rewrite(t, strings.NewReader(page.String()), inline.Config{Pins: pins})
		if !strings.Contains(got, nonce) {
			continue
		}
		with++
		for _, label := range []string{"utf-8", "windows-1252", "iso-2022-jp", "shift_jis", "gbk", "gb18030", "big5", "euc-kr", "euc-jp"} {
			enc, _ := charset.Lookup(label)
			text, err := enc.NewDecoder().String(got)
			if err != nil {
				t.Fatal(err)
			}
			if why := stranger(text); why != "" {
				t.Fatalf("%q as %s: %s", got, label, why)
			}
		}
	}
	if with < 1000 {
		t.Errorf("only %d pages had a nonce", with)
	}
}

// stranger returns a script that has the nonce and is not pinned.
func stranger(text string) string {
	root, err := html.Parse(strings.NewReader(text))
	if err != nil {
		return ""
	}
	for node := range root.Descendants() {
		source, noncy := "", false
		for _, a := range node.Attr {
			noncy = noncy || a.Key == "nonce" && a.Val == nonce
			if a.Key == "src" {
				source = a.Val
			}
		}
		content := ""
		if node.FirstChild != nil {
			content = node.FirstChild.Data
		}
		if noncy && source != "/app.js" && (source != "" || content != "good()") {
			return fmt.Sprintf("%s src=%q %q", node.Data, source, content)
		}
	}
	return ""
}
