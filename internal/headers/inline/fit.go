package inline

import (
	"bytes"
	"mime"
	"regexp"
	"strconv"
	"strings"
)

// prescan is how far browsers look for a charset in a page.
const prescan = 1024

// Fit says whether a body may be rewritten, and if not, why; where it may, it
// says what is certain about its charset. first is how the body begins, at best
// its first 1024 bytes, but at least three; a Content-Encoding must be undone
// before.
//
// Only text/html is fit. XHTML is XML: its scripts are markup, and an attribute
// that stands twice makes browsers show an error instead of the page. The
// charset must be one in which every byte below 0x80 that HTML is made of is
// that character and nothing else. Where the header names none, what is seen of
// another one is refused here; what is not is the rewriter's to look out for.
func Fit(contentType string, first []byte) (c Charset, why string) {
	kind, params, err := mime.ParseMediaType(contentType)
	switch {
	case err != nil:
		return Guessed, "the Content-Type is missing or malformed"
	case strings.ContainsAny(contentType, `*\`):
		// Parameters in the form of RFC 2231 and escapes are nothing to browsers.
		return Guessed, "the Content-Type has parameters that browsers read in another way"
	case kind != "text/html":
		return Guessed, "the body is " + strconv.Quote(clip(kind)) + ", not text/html"
	}
	if why := unfitBeginning(first); why != "" {
		return Guessed, why
	}
	label, named := params["charset"]
	label = strings.ToLower(strings.TrimSpace(label))
	if named {
		why = unfitCharset(label)
	} else {
		why = unfitGuess(first[:min(len(first), prescan)])
	}
	return certain(label, first), why
}

// declared is the beginning that most pages have. Browsers find its meta tag
// first, and the first that names a charset wins. Anything else between is not
// followed: the tag could stand in an attribute then. The long s is no s.
var declared = regexp.MustCompile(`(?i)^\s*(?:<!doctype html>\s*)?(?:<html(?:\s+[a-z-]+="[\w-]*")*\s*>\s*)?` +
	`(?:<head>\s*)?<meta\s+char(?-i:[sS])et=(?:"utf-8"\s*/?|utf-8)\s*>`)

// certain knows the byte order mark of UTF-8, which wins over every header.
func certain(label string, first []byte) Charset {
	switch {
	case utf8Labels[label], bytes.HasPrefix(first, []byte("\xef\xbb\xbf")):
		return UTF8
	case supersets[label]:
		return Named
	case label == "" && declared.Match(first[:min(len(first), prescan)]):
		return UTF8
	}
	return Guessed
}

// unfitBeginning knows the byte order marks, which win over every header, and
// what a page in UTF-16 begins with otherwise.
func unfitBeginning(first []byte) string {
	for _, mark := range []string{"\xfe\xff", "\xff\xfe", "\x00", "<\x00"} {
		if bytes.HasPrefix(first, []byte(mark)) {
			return "the body begins like UTF-16 or UTF-32"
		}
	}
	return ""
}

// unfitGuess knows where a browser that guesses may find a charset of the wrong
// kind.
func unfitGuess(first []byte) string {
	if bytes.IndexByte(first, 0x1b) >= 0 {
		return "no charset is named and the body has escape characters"
	}
	text := strings.ToLower(string(first))
	for {
		_, rest, found := strings.Cut(text, "charset")
		if !found {
			return ""
		}
		text = rest
		value, assigned := strings.CutPrefix(strings.TrimLeft(rest, " \t\r\n\f"), "=")
		if !assigned {
			continue
		}
		value = strings.TrimLeft(value, " \t\r\n\f\"'")
		label := value[:len(value)-len(strings.TrimLeft(value, labelBytes))]
		if switching(label) {
			return "charset " + strconv.Quote(clip(label)) + " is not a superset of ASCII"
		}
	}
}

const labelBytes = "abcdefghijklmnopqrstuvwxyz0123456789-_:."

// unfitCharset says why a charset of the header is not fit.
func unfitCharset(label string) string {
	switch {
	case switching(label):
		return "charset " + strconv.Quote(clip(label)) + " is not a superset of ASCII"
	case !utf8Labels[label] && !supersets[label]:
		return "charset " + strconv.Quote(clip(label)) + " is not known"
	}
	return ""
}

// clip bounds what an upstream says about itself.
func clip(s string) string {
	const limit = 40
	if len(s) > limit {
		return s[:limit] + "…"
	}
	return s
}
