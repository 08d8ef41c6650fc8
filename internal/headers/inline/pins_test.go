package inline_test

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/moat-gateway/moat/internal/headers/inline"
)

// pinned returns pins that hold what a page of the operator's has.
func pinned(t testing.TB, page string) *inline.Pins {
	t.Helper()
	pins := inline.NewPins(0)
	rewrite(t, strings.NewReader(page), inline.Config{Pins: pins, Learn: true, Charset: inline.UTF8})
	return pins
}

// theirs is the page whose scripts are pinned.
const theirs = `<script>good(1 < 2)</script><script>plain()</script><style>p{}</style><script src="/app.js"></script>` +
	`<script type=module>import "/m.js"</script><svg><script href=/svg.js></script><style>g{}</style></svg><script src=/other.js></script>` +
	`<script>a("&quot;")</script>`

func TestOnlyWhatIsPinnedGetsTheNonce(t *testing.T) {
	pins := pinned(t, theirs)
	for name, marked := range map[string]string{
		"itself": `<script§>good(1 < 2)</script><style§>p{}</style><script§ src="/app.js"></script>` +
			`<script§ type=module>import "/m.js"</script><svg><script§ href=/svg.js></script><style§>g{}</style></svg>`,
		"planted":                      `<script>evil()</script><script§>plain()</script><style>q{}</style>`,
		"planted source":               `<script src=//evil></script><script src></script>`,
		"nothing":                      `<script></script><style></style>`,
		"one byte more":                `<script>plain() </script><script§>plain()</script>`,
		"other quotes":                 `<script§ src='/app.js'></script><script§ src=/app.js></script>`,
		"attributes around":            `<script§ id=a SRC=/app.js defer></script>`,
		"source twice":                 `<script src=/app.js src=//evil></script><script src=//evil src=/app.js></script>`,
		"two pinned sources":           `<script§ src=/app.js src=/other.js></script>`,
		"content beside a source":      `<script§ src=/app.js>evil()</script>`,
		"style is no script":           `<script>p{}</script><style>plain()</style>`,
		"source is no script":          `<script>/app.js</script><script src="plain()"></script>`,
		"href is no source":            `<script href=/svg.js>evil()</script><script xlink:href=/svg.js>evil()</script>`,
		"href does not hide content":   `<script§ href=//evil>plain()</script>`,
		"src is no source in svg":      `<svg><script src=/app.js>evil()</script></svg>`,
		"href of svg":                  `<svg><script href=//evil>plain()</script><script xlink:href=//evil>plain()</script></svg>`,
		"href of svg with a source":    `<svg><script src=/app.js href=//evil></script></svg>`,
		"both references of svg":       `<svg><script href=/svg.js xlink:href=//evil></script><script§ href=/svg.js xlink:href=/svg.js></script></svg>`,
		"closed at once in svg":        `<svg><script/></svg><script§>plain()</script>`,
		"plain in svg":                 `<svg><script§>plain()</script></svg>`,
		"reference in svg":             `<svg><script>a("&quot;")</script></svg><script§>a("&quot;")</script>`,
		"markup in svg":                `<svg><script>good(1 < 2)</script></svg><script§>good(1 < 2)</script>`,
		"comment in svg":               `<svg><script>plain()<!-- --></script></svg><svg><style>g{}</></style><style>g{}</ x></style></svg>`,
		"section in svg":               `<svg><style><![CDATA[g{}]]></style></svg>`,
		"element in svg":               `<svg><style>g{}<s></style><style§>g{}</style><style>g{}<script></style></script></style></svg>`,
		"source in a style of svg":     `<svg><style>g{}<script href=/svg.js></script></style></svg>`,
		"other end in svg":             `<svg><style>g{}</script></style></svg>`,
		"question mark in svg":         `<svg><style>g{}<?></style></svg>`,
		"unsure, plain":                `<svg><p><script§>plain()</script>`,
		"unsure, not plain":            `<svg><p><script>good(1 < 2)</script><script>a("&quot;")</script>`,
		"unsure, source":               `<svg><p><script src=/app.js></script>`,
		"unsure, closed at once":       `<svg><p></svg><script/>plain()</script>`,
		"unsure, in svg":               `<svg><p><svg><script§>plain()</script><script src=/app.js></script><script/>plain()</script>`,
		"data":                         `<script type=application/json>{}</script><script type="text/x-template"><script></script>`,
		"data of a type that runs":     `<script type=" Text/JavaScript ">evil()</script><script type="">evil()</script><script§ type=>plain()</script>`,
		"type twice":                   `<script type=text/javascript type=text/plain>evil()</script><script§ type=text/javascript type=text/plain>plain()</script>`,
		"import map":                   `<script type=importmap>{}</script><script type=speculationrules>{}</script>`,
		"comment that hides an end":    `<script>plain()<!-- <script></script></script><script§>plain()</script>`,
		"end tag with attributes":      `<script§>plain()</script a="<script>"><script§>plain()</script/>`,
		"no end":                       `<script>plain()`,
		"no end of the end":            `<style>p{}</style`,
		"upstream's nonce":             `<script nonce=x>evil()</script>`,
		"in a template":                `<template><script§>plain()</script></template>`,
		"in raw text":                  `<textarea><script>plain()</script></textarea><!-- <script>plain()</script> -->`,
		"too many attributes to know":  `<script` + strings.Repeat(" a", 64) + ` src=//evil>plain()</script>`,
		"tag name that begins the end": `<script>plain()</scripty></script>`,
		"case of the end":              `<script§>plain()</SCRIPT><SCRIPT§>plain()</sCript >`,
	} {
		page, want := split(marked)
		for at := range len(page) + 1 {
			if got := rewrite(t, halves(page, at), inline.Config{Pins: pins}); got != want {
				t.Errorf("%s cut at %d:\n got %s\nwant %s", name, at, got, want)
				break
			}
		}
	}
}

func TestLineBreaksAndNULCountAsBrowsersReadThem(t *testing.T) {
	pins := pinned(t, "<script>a\nb\nc\ufffd</script>")
	page, want := split("<script§>a\r\nb\rc\x00</script><script>a\n\nb\nc\x00</script>")
	for at := range len(page) + 1 {
		if got := rewrite(t, halves(page, at), inline.Config{Pins: pins}); got != want {
			t.Fatalf("cut at %d: got %q", at, got)
		}
	}
}

func TestAScriptIsHeldBackUpToTheBoundOnly(t *testing.T) {
	const bound = 1000
	fits := "<script§>" + strings.Repeat("x", bound) + "</script>"
	long := "<script>" + strings.Repeat("x", bound+1) + "</script>"
	page, want := split(fits + long + fits)
	pins := pinned(t, page)
	for _, at := range []int{0, 500, 1000, 1007, 1008, 1009, 1016, 1017, 1018, 1025, 2000, 2031, 2032, 2033, 2040} {
		var found []inline.Kind
		got := rewrite(t, halves(page, at), inline.Config{Pins: pins, MaxContent: bound, OnFinding: func(f inline.Finding) {
			found = append(found, f.Kind)
			if f.Offset != 1017 || f.Element != "script" {
				t.Errorf("finding %+v", f)
			}
		}})
		if got != want || len(found) != 1 || found[0] != inline.ContentTooLong {
			t.Errorf("cut at %d: %v", at, found)
		}
	}
}

func TestWhatIsTooLongFlowsOnBeforeItsEnd(t *testing.T) {
	src, send := io.Pipe()
	r := reader(t, src, inline.Config{Pins: inline.NewPins(0), MaxContent: 100})
	part := "<script>" + strings.Repeat("x", 200)
	go func() { _, _ = io.WriteString(send, part) }()
	got := make([]byte, len(part))
	if _, err := io.ReadFull(r, got); err != nil || string(got) != part {
		t.Fatalf("%v: %q", err, got)
	}
	_ = r.Close()
}

func TestLearningKeepsThePageWorking(t *testing.T) {
	page := `<script>1</script><svg><style>a&lt;</style></svg><script>` + strings.Repeat("x", 200) + `</script><script>2`
	pins := inline.NewPins(0)
	got := rewrite(t, strings.NewReader(page), inline.Config{Pins: pins, Learn: true, MaxContent: 100})
	if strings.Count(got, nonce) != 4 {
		t.Errorf("got %s", got)
	}
	if pins.Len() != 1 || !pins.Has(inline.HashScript([]byte("1"))) {
		t.Errorf("learned %s", pins.Snapshot())
	}
}

func TestWhatBrowsersMayReadInAnotherWayIsNamed(t *testing.T) {
	for page, want := range map[string]bool{
		"<svg><style>a<!-- --></style></svg>":       true,
		"<svg><style>a<b></style></svg>":            true,
		"<svg><style>a< </style></svg>":             true,
		"<svg><style>a&lt;</style></svg>":           true,
		"<svg><style>a</script></style></svg>":      true,
		"<svg><style>a<script></script></style>":    true,
		"<svg><p><script src=x></script>":           true,
		"<svg><script/><style/></svg>":              false,
		"<svg><style>a</style></svg>":               false,
		"<script type=text/plain>a&lt;b</script>":   false,
		"<script>a&lt;b</script><style>a<b</style>": false,
	} {
		for _, learn := range []bool{true, false} {
			named := false
			got := rewrite(t, strings.NewReader(page), inline.Config{Pins: inline.NewPins(0), Learn: learn, OnFinding: func(f inline.Finding) {
				named = named || f.Kind == inline.Ambiguous
			}})
			if named != want || strings.Contains(got, nonce) != learn {
				t.Errorf("%s: named is %v: %s", page, named, got)
			}
		}
	}
}

func TestFullPinsTakeNothingNew(t *testing.T) {
	pins := inline.NewPins(1)
	var found []inline.Finding
	rewrite(t, strings.NewReader("<script>1</script><script>2</script><script>1</script>"), inline.Config{
		Pins: pins, Learn: true, OnFinding: func(f inline.Finding) { found = append(found, f) },
	})
	second := inline.HashScript([]byte("2"))
	if pins.Len() != 1 || pins.Has(second) || len(found) != 1 || found[0].Kind != inline.PinsFull || found[0].Hash != second {
		t.Errorf("%s, found %+v", pins.Snapshot(), found)
	}
	if pins.Learn(inline.Hash{}) || inline.NewPins(5).Learn(inline.Hash{}) {
		t.Error("no hash was learned")
	}
}

func TestPinsComeBackFromTheirText(t *testing.T) {
	pins := pinned(t, theirs)
	text := pins.Snapshot()
	again := inline.NewPins(0)
	if err := again.Load(text); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(again.Snapshot(), text) || again.Len() != pins.Len() || pins.Len() != 9 {
		t.Errorf("%s became %s", text, again.Snapshot())
	}
	if !strings.HasPrefix(string(text), "moat-pins 1\nscript sha256-") || !strings.Contains(string(text), "\nsrc sha256-") {
		t.Errorf("%s", text)
	}
	if err := again.Load(inline.NewPins(0).Snapshot()); err != nil || again.Len() != 0 {
		t.Errorf("%v, %d left", err, again.Len())
	}
}

func TestPinsAreReadStrictly(t *testing.T) {
	good := inline.HashScript(nil).String()
	head := "moat-pins 1\n"
	for text, want := range map[string]string{
		"":                               "line 1: must be",
		"moat-pins 2\n":                  "line 1: must be",
		"moat-pins 1":                    "no line break",
		head + good:                      "no line break",
		head + "\n":                      "line 2: must begin",
		head + good + "\n\n":             "line 3: must begin",
		head + good + "\n" + good + "\n": "line 3: the hash stands twice",
		head + "# x\n":                   "line 2: must begin",
		head + good + "\r\n":             "line 2: the hash must be 32 bytes",
		head + " " + good + "\n":         "line 2: must begin",
		head + good + " \n":              "line 2: the hash must be 32 bytes",
		head + "none sha256-\n":          "line 2: must begin",
		head + "script md5-x\n":          "line 2: the hash must begin with sha256-",
		head + "script sha256-YQ==\n":    "line 2: the hash must be 32 bytes",
		head + strings.ReplaceAll(good, "script", "Script") + "\n": "line 2: must begin",
		head + strings.Replace(good, "U=", "V=", 1) + "\n":         "line 2: the hash must be 32 bytes",
		head + strings.Repeat("x", 200) + "\n":                     "line 2: 200 bytes",
		head + "a\nb\n":                                            "line 3: must begin",
		head + strings.Repeat("x\n", 9):                            "9 hashes: at most 8",
	} {
		pins := inline.NewPins(8)
		pins.Learn(inline.HashStyle(nil))
		err := pins.Load([]byte(text))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "pins: ") {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
		if pins.Len() != 1 {
			t.Errorf("%q: an error changed the pins", text)
		}
	}
}

func TestPinsMayBeUsedAtOnce(t *testing.T) {
	pins := inline.NewPins(50)
	var wait sync.WaitGroup
	for n := range 8 {
		wait.Go(func() {
			for i := range 100 {
				h := inline.HashScript([]byte{byte(n), byte(i)})
				if pins.Learn(h) != pins.Has(h) {
					t.Error("learned and not there")
				}
				if i%25 == 0 {
					_ = inline.NewPins(0).Load(pins.Snapshot())
				}
			}
		})
	}
	wait.Wait()
	if pins.Len() != 50 {
		t.Errorf("%d pins", pins.Len())
	}
}

func FuzzPinsAreReadStrictly(f *testing.F) {
	f.Add(string(pinned(f, theirs).Snapshot()))
	f.Add("moat-pins 1\nscript sha256-\n")
	f.Fuzz(func(t *testing.T, text string) {
		pins := inline.NewPins(0)
		if pins.Load([]byte(text)) != nil {
			return
		}
		lines := strings.Count(text, "\n")
		if got := string(pins.Snapshot()); len(got) != len(text) || pins.Len() != lines-1 {
			t.Fatalf("%q became %q", text, got)
		}
	})
}

// The hashes are those of the example in CSP Level 3 section 8.3 and of
// openssl dgst -sha256 -binary | base64.
func TestHashesAreThoseThatBrowsersCompute(t *testing.T) {
	if got := inline.HashScript([]byte("alert('Hello, world.');")).Source(); got != "'sha256-qznLcsROx4GACP2dm0UCKCzCG+HiZ1guq6ZZDob/Tng='" {
		t.Errorf("got %s", got)
	}
	if got := inline.HashStyle(nil).Source(); got != "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='" {
		t.Errorf("got %s", got)
	}
	if got := (inline.Hash{}).String(); got != "none" {
		t.Errorf("got %s", got)
	}
}

func TestHashesOfAPage(t *testing.T) {
	page := "<script>a\r\nb</script><style>x</style><script src=x></script><script>a\nb</script>" +
		"<script type=application/json>{}</script><svg><style>x</style><script>&amp;</script></svg><p onclick=x><script></script>"
	hashes, findings, err := inline.Hashes(strings.NewReader(page), inline.UTF8)
	want := []inline.Hash{inline.HashScript([]byte("a\nb")), inline.HashStyle([]byte("x")), inline.HashScript(nil)}
	if err != nil || fmt.Sprint(hashes) != fmt.Sprint(want) {
		t.Errorf("%v: got %v", err, hashes)
	}
	if len(findings) != 2 || findings[0].Kind != inline.Ambiguous || findings[1].Kind != inline.EventHandler {
		t.Errorf("found %+v", findings)
	}
}

// numbered is a page with that many styles, each another one.
func numbered(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "<style>%d</style><style>0</style>", i)
	}
	return b.String()
}

func TestAPageWithMoreHashesThanAHeaderHoldsHasNoneAndIsNotReadOn(t *testing.T) {
	hashes, findings, err := inline.Hashes(strings.NewReader(numbered(100)), inline.UTF8)
	if err != nil || len(hashes) != 100 || len(findings) != 0 {
		t.Fatalf("100 styles: %d hashes, %v, %v", len(hashes), findings, err)
	}
	page := strings.NewReader(numbered(60_000))
	hashes, findings, err = inline.Hashes(page, inline.UTF8)
	if err != nil || len(hashes) != 0 || len(findings) != 1 || findings[0].Kind != inline.TooManyHashes {
		t.Errorf("60,000 styles: %d hashes, %v, %v", len(hashes), findings, err)
	}
	if read := page.Size() - int64(page.Len()); read > 64<<10 {
		t.Errorf("%d of %d bytes were read", read, page.Size())
	}
}

func TestAnEditOfTheTextCountsAndWhatWasLearnedSinceStays(t *testing.T) {
	one, two, three, four := inline.HashScript([]byte("1")), inline.HashScript([]byte("2")), inline.HashStyle([]byte("3")), inline.HashSource([]byte("4"))
	text := func(hashes ...inline.Hash) []byte {
		p := inline.NewPins(0)
		for _, h := range hashes {
			p.Learn(h)
		}
		return p.Snapshot()
	}
	pins := inline.NewPins(3)
	for _, h := range []inline.Hash{one, two, three} {
		pins.Learn(h)
	}
	if err := pins.Update(text(one, two), text(two, four)); err != nil {
		t.Fatal(err)
	}
	if want := text(two, three, four); !bytes.Equal(pins.Snapshot(), want) {
		t.Errorf("got %s, want %s", pins.Snapshot(), want)
	}
	if err := pins.Update(text(two, four), []byte("x")); err == nil || pins.Len() != 3 {
		t.Errorf("a broken text: %v, %d pins", err, pins.Len())
	}
	if err := pins.Update(text(), text(one, two, three)); err != nil || pins.Has(four) || pins.Len() != 3 {
		t.Errorf("over the bound: %v, %s", err, pins.Snapshot())
	}
}
