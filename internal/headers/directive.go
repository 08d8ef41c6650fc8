package headers

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// grammar is what a directive allows as its value.
type grammar struct {
	// word returns one value in normal form.
	word func(string) (string, error)
	// least and most bound the number of values.
	least, most int
}

func (g grammar) count(n int) error {
	switch {
	case n > g.most && g.most == 0:
		return errors.New("takes no value")
	case n > g.most:
		return fmt.Errorf("%d values: at most %d are allowed", n, g.most)
	case n < g.least:
		return errors.New("needs a value; to allow nothing, write 'none'")
	default:
		return nil
	}
}

// directives are the directives of CSP Level 3 and of the specifications that
// add to it. Those that browsers have dropped are missing.
var directives = func() map[string]grammar {
	all := map[string]grammar{
		"frame-ancestors":           {word: ancestor, least: 1, most: maxSources},
		"sandbox":                   {word: oneOf(sandboxFlags), most: maxSources},
		"upgrade-insecure-requests": {},
		"block-all-mixed-content":   {},
		"require-trusted-types-for": {word: oneOf("'script'"), least: 1, most: 1},
		"trusted-types":             {word: trustedType, least: 1, most: maxSources},
		"webrtc":                    {word: oneOf("'allow' 'block'"), least: 1, most: 1},
		"report-to":                 {word: endpoint, least: 1, most: 1},
		"report-uri":                {word: asWritten, least: 1, most: 8},
	}
	for name := range strings.FieldsSeq(sourceLists) {
		all[name] = grammar{word: source, least: 1, most: maxSources}
	}
	return all
}()

const sourceLists = "default-src script-src script-src-elem script-src-attr style-src style-src-elem " +
	"style-src-attr img-src font-src connect-src media-src object-src frame-src child-src worker-src " +
	"manifest-src prefetch-src fenced-frame-src base-uri form-action"

const sandboxFlags = "allow-downloads allow-forms allow-modals allow-orientation-lock allow-pointer-lock " +
	"allow-popups allow-popups-to-escape-sandbox allow-presentation allow-same-origin allow-scripts " +
	"allow-storage-access-by-user-activation allow-top-navigation allow-top-navigation-by-user-activation " +
	"allow-top-navigation-to-custom-protocols"

// checkWord bounds a value's bytes before its grammar sees it: with `;` a value
// would begin a directive, with `,` another policy, with a space another value.
func checkWord(word string, grammar func(string) (string, error)) (string, error) {
	switch {
	case word == "":
		return "", errors.New("is empty")
	case len(word) > maxSource:
		return "", fmt.Errorf("%d bytes: at most %d are allowed", len(word), maxSource)
	}
	for i := range len(word) {
		switch c := word[i]; {
		case c == ';', c == ',':
			return "", fmt.Errorf("contains %q: sources are separated by spaces; in an address write %%%02X", c, c)
		case c <= ' ', c > '~':
			return "", fmt.Errorf("contains %q: only printable ASCII without spaces is allowed", c)
		}
	}
	if grammar == nil {
		return word, nil // the directive takes no value at all; its count says so
	}
	return grammar(word)
}

// oneOf accepts the listed words, in any case.
func oneOf(list string) func(string) (string, error) {
	known := make(map[string]bool)
	for word := range strings.FieldsSeq(list) {
		known[word] = true
	}
	return func(word string) (string, error) {
		word = strings.ToLower(word)
		if !known[word] {
			return "", fmt.Errorf("is none of the words allowed here%s", didYouMean(word, known))
		}
		return word, nil
	}
}

// trustedType accepts a policy name, a wildcard or a keyword (Trusted Types
// section 3.2).
func trustedType(word string) (string, error) {
	if word[0] == '\'' {
		return oneOf("'none' 'allow-duplicates' 'allow-eval'")(word)
	}
	if word == "*" || only(word, "-#=_/@.%") {
		return word, nil
	}
	return "", errors.New("is no policy name")
}

// endpoint accepts the name of a reporting endpoint.
func endpoint(word string) (string, error) {
	if !only(word, "-_.*") {
		return "", errors.New("is no endpoint's name; its address stands in the header Reporting-Endpoints")
	}
	return word, nil
}

func asWritten(word string) (string, error) { return word, nil }

// only reports whether a word has no bytes but letters, digits and those of
// extra.
func only(word, extra string) bool {
	for i := range len(word) {
		if c := word[i]; !isAlnum(c) && strings.IndexByte(extra, c) < 0 {
			return false
		}
	}
	return word != ""
}

func isAlnum(c byte) bool { return isAlpha(c) || c >= '0' && c <= '9' }

func isAlpha(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }

// didYouMean returns a hint with the known word nearest to what was written,
// or nothing when none is near. Of words equally near it names the first in
// the alphabet, so that the text is always the same.
func didYouMean[V any](word string, known map[string]V) string {
	if len(word) > 64 {
		return ""
	}
	best, least := "", 4
	for _, candidate := range slices.Sorted(maps.Keys(known)) {
		if d := distance(word, candidate); d < least && d < len(candidate) {
			best, least = candidate, d
		}
	}
	if best == "" {
		return ""
	}
	return "; did you mean " + best + "?"
}

// distance counts the single-byte edits between two words.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}

// clip shortens a word for an error text.
func clip(s string) string {
	const most = 100
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}
