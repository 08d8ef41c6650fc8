package inline_test

import (
	"io"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"

	"golang.org/x/net/html"

	"github.com/moat-gateway/moat/internal/headers/inline"
)

// seeds are the pages of the tables that are short enough to be mutated.
func seeds(f *testing.F) {
	f.Helper()
	for _, table := range []map[string]string{nasty, malformed} {
		for _, marked := range table {
			if page, _ := split(marked); len(page) < 1000 {
				f.Add(page, 3)
			}
		}
	}
	f.Add(`<body onload=x()><a href=" java	script:x"><iframe srcdoc="<script>"></iframe><p style=a:b>`, 5)
}

// Without a nonce of the upstream's own, what the rewriter adds is all that it
// does, wherever the page is cut and whatever is pinned.
func FuzzTheRestOfThePageStays(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, page string, at int) {
		whole := rewrite(t, strings.NewReader(page), inline.Config{})
		if !own.MatchString(page) && strings.ReplaceAll(whole, added, "") != page {
			t.Fatalf("%q became %q", page, whole)
		}
		if again := rewrite(t, strings.NewReader(whole), inline.Config{}); again != whole {
			t.Fatalf("%q became %q, then %q", page, whole, again)
		}
		cut := min(max(at, 0), len(page))
		none, every := inline.NewPins(0), inline.NewPins(0)
		learned := rewrite(t, strings.NewReader(page), inline.Config{Pins: every, Learn: true, MaxContent: 300})
		for _, cfg := range []inline.Config{{}, {Pins: none}, {Pins: every, MaxContent: 300}, {Pins: every, Learn: true, MaxContent: 300}} {
			want := rewrite(t, strings.NewReader(page), cfg)
			for _, src := range []io.Reader{halves(page, cut), iotest.OneByteReader(strings.NewReader(page))} {
				if got := rewrite(t, src, cfg); got != want {
					t.Fatalf("%q cut at %d: %q, whole: %q", page, cut, got, want)
				}
			}
			if !own.MatchString(page) && strings.ReplaceAll(want, added, "") != page {
				t.Fatalf("%q became %q", page, want)
			}
			if cfg.Pins == none && strings.Count(want, nonce) != strings.Count(page, nonce) {
				t.Fatalf("%q got a nonce without a pin: %q", page, want)
			}
			if !svg.MatchString(page) && strings.Count(want, nonce) > strings.Count(learned, nonce) {
				t.Fatalf("%q: more pinned than learned: %q", page, want)
			}
		}
	})
}

var own = regexp.MustCompile("(?i)nonce")

// svg is where a script tag may stand within a script that is held back; it
// gets no nonce then.
var svg = regexp.MustCompile("(?i)<(svg|math)")

// The nonce is on exactly the script and style elements that a parser of the
// whole standard sees, as long as the rewriter says that it is sure.
func FuzzAParserSeesTheNonceWhereItBelongs(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, page string, _ int) {
		if own.MatchString(page) || unlike.MatchString(page) || strings.Contains(page, nonce) {
			return // A page with the value of the nonce would be counted wrongly.
		}
		long := false
		r := reader(t, strings.NewReader(page), inline.Config{OnFinding: func(found inline.Finding) {
			long = long || found.Kind == inline.TagTooLong
		}})
		got, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if r.Sure() && !long {
			compare(t, page, string(got))
		}
	})
}

// unlike is where golang.org/x/net/html v0.60 differs from the standard: behind
// a '<' within an escaped script that begins no tag, it goes back to a script
// that is not escaped (the standard, section 13.2.5.23: "Reconsume in the
// script data escaped state").
var unlike = regexp.MustCompile(`(?is)<script.*<!--.*<[^a-z/]`)

func compare(t *testing.T, page, got string) {
	t.Helper()
	root, err := html.Parse(strings.NewReader(got))
	if err != nil {
		return // Nested too deeply for this parser.
	}
	with := 0
	for node := range root.Descendants() {
		if node.Type != html.ElementNode {
			continue
		}
		wanted := node.Data == "script" || node.Data == "style"
		for _, a := range node.Attr {
			if a.Key == "nonce" && a.Val == nonce {
				with++
				if !wanted {
					t.Fatalf("%q: a nonce on %s: %q", page, node.Data, got)
				}
				wanted = false
			}
		}
		if wanted {
			t.Fatalf("%q: no nonce on a %s: %q", page, node.Data, got)
		}
	}
	if n := strings.Count(got, nonce); n != with {
		t.Fatalf("%q: %d nonces, of which the parser sees %d: %q", page, n, with, got)
	}
}

func TestAParserSeesTheNonceWhereItBelongs(t *testing.T) {
	for name, marked := range nasty {
		page, want := split(marked)
		if unlike.MatchString(page) || strings.Contains(name, "too ") {
			continue
		}
		t.Run(name, func(t *testing.T) { compare(t, page, want) })
	}
}

// pieces are what random pages are made of.
var pieces = strings.Split("<svg>|</svg>|<math>|</math>|<svg/>|<script>|</script>|<script/>|<style>|</style>|<title>|</title>|"+
	"<select>|</select>|<option>|<template>|</template>|<col>|<colgroup>|<table>|</table>|<tr>|<td>|<frameset>|<p>|</p>|"+
	"<foreignObject>|</foreignObject>|<mi>|</mi>|<desc>|</desc>|<g>|</g>|<font>|<font size=1>|<br>|</br>|<textarea>|</textarea>|"+
	"<xmp>|</xmp>|<noscript>|</noscript>|<iframe>|</iframe>|<!--|-->|--!>|<!-->|<![CDATA[|]]>|<!x>|<?x>|<a b=\"|\">|<a b='|'>|"+
	"<|>|/|!|-|=|\"|'| |a|&lt;|\x00|\r|<script |<style/|</|<body>|</body>|<html>|</html>|<head>|</head>|<div>|</div>|"+
	"<annotation-xml>|</annotation-xml>|<plaintext>|<input>|<button>|<a>|</a>|<b>|</b>|<caption>|<image>|<hr>|<noframes>|</noframes>|"+
	"<mglyph>|<option/>|</option>|<optgroup>|<nobr>|<form>|<li>|<script src=x>|<tbody>|<th>|</td>|</tr>|<object>|<marquee>|<keygen>", "|")

// Pages that are nested at random are compared as well: here almost every page
// has something that decides how a later tag is read.
func FuzzAParserSeesTheNonceInRandomNesting(f *testing.F) {
	f.Add([]byte{0, 5, 6, 1})
	f.Fuzz(func(t *testing.T, choice []byte) {
		var page strings.Builder
		for _, c := range choice {
			page.WriteString(pieces[int(c)%len(pieces)])
		}
		if unlike.MatchString(page.String()) {
			return
		}
		r := reader(t, strings.NewReader(page.String()), inline.Config{})
		got, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if r.Sure() {
			compare(t, page.String(), string(got))
		}
	})
}

func TestAParserSeesTheNonceInRandomNesting(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	sure, total := 0, 40_000
	for range total {
		var page strings.Builder
		for range 1 + random.IntN(12) {
			page.WriteString(pieces[random.IntN(len(pieces))])
		}
		if unlike.MatchString(page.String()) {
			continue
		}
		r := reader(t, strings.NewReader(page.String()), inline.Config{})
		got, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if r.Sure() {
			sure++
			compare(t, page.String(), string(got))
		}
	}
	if sure < total/3 {
		t.Errorf("only %d of %d pages were compared", sure, total)
	}
}
