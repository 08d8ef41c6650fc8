package headers

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Bounds of header values.
const (
	maxValue = 4096
	maxHSTS  = 10 * 365 * 24 * time.Hour
	// minPreload is what the preload list asks for, in seconds.
	minPreload = 365 * 24 * 60 * 60
)

// known are the headers whose values are understood here. Each function says
// why browsers would ignore a value; empty means that they obey it.
var known = map[string]func(string) string{
	nameCSP:         policyProblem,
	nameCSPReport:   policyProblem,
	nameHSTS:        hstsProblem,
	nameNoSniff:     word("nosniff"),
	nameFrame:       word("DENY", "SAMEORIGIN"),
	nameReferrer:    referrerProblem,
	namePermissions: permissionsProblem,
	nameCOOP:        coopProblem,
	nameCOEP:        token("require-corp", "credentialless", "unsafe-none"),
	nameCORP:        token("same-origin", "same-site", "cross-origin"),
	nameOAC:         token("?1", "?0"),
	nameXPCDP:       word("none", "none-this-response", "master-only", "by-content-type", "by-ftp-filename", "all"),
}

// problem says why a value must not be sent; empty means that it may.
func problem(name, value string) string {
	value = strings.TrimSpace(value)
	limit := maxValue
	if name == nameCSP || name == nameCSPReport {
		limit = maxCSP
	}
	switch {
	case value == "":
		return "is empty"
	case len(value) > limit:
		return fmt.Sprintf("%d bytes: at most %d are allowed", len(value), limit)
	}
	for i := range len(value) {
		if c := value[i]; c != '\t' && (c < ' ' || c > '~') {
			return "only printable ASCII is allowed"
		}
	}
	if check := known[name]; check != nil {
		return check(value)
	}
	return ""
}

// word accepts one of the words, in any case.
func word(words ...string) func(string) string {
	return func(value string) string {
		for _, w := range words {
			if strings.EqualFold(w, value) {
				return ""
			}
		}
		return "must be one of " + strings.Join(words, ", ")
	}
}

// token accepts one of the words as a structured item, case and all, which may
// have parameters (RFC 9651 section 3.3).
func token(words ...string) func(string) string {
	return func(value string) string {
		item, _, _ := strings.Cut(value, ";")
		for _, w := range words {
			if item == w {
				return ""
			}
		}
		return "must be one of " + strings.Join(words, ", ")
	}
}

// coopProblem accepts a token with nothing but a place for reports.
func coopProblem(value string) string {
	item, params, has := strings.Cut(value, ";")
	if why := token("same-origin", "same-origin-allow-popups", "noopener-allow-popups", "unsafe-none")(item); why != "" {
		return why
	}
	name, place, _ := strings.Cut(strings.TrimSpace(params), "=")
	if has && (name != "report-to" || len(place) < 3 || place[0] != '"' || place[len(place)-1] != '"') {
		return `what follows ; must be report-to="NAME"`
	}
	return ""
}

// referrerProblem accepts a list, of which browsers obey the last they know.
func referrerProblem(value string) string {
	check := word("no-referrer", "no-referrer-when-downgrade", "origin", "origin-when-cross-origin",
		"same-origin", "strict-origin", "strict-origin-when-cross-origin", "unsafe-url")
	for item := range strings.SplitSeq(value, ",") {
		if why := check(strings.TrimSpace(item)); why != "" {
			return why
		}
	}
	return ""
}

// permissionsProblem finds what makes browsers drop the whole header, above all
// the syntax of its forerunner Feature-Policy.
func permissionsProblem(value string) string {
	for _, member := range splitOutside(value, ',') {
		member = strings.TrimSpace(member)
		feature, list, found := strings.Cut(member, "=")
		list, _, _ = strings.Cut(list, ";")
		inner := strings.TrimPrefix(list, "(")
		closed := inner != list && strings.HasSuffix(inner, ")") && strings.Count(inner, `"`)%2 == 0
		if !found || !only(feature, "-_") || strings.ToLower(feature) != feature ||
			!closed && list != "*" && list != "self" {
			return fmt.Sprintf("at %q: write feature=() or feature=(self \"https://example.com\")", clip(member))
		}
	}
	if strings.ContainsRune(value, '\'') {
		return "keywords have no quotes here, as in camera=(self)"
	}
	return ""
}

// splitOutside splits at a separator that stands outside double quotes.
func splitOutside(s string, sep byte) []string {
	var parts []string
	start, inside := 0, false
	for i := range len(s) {
		switch {
		case s[i] == '"':
			inside = !inside
		case s[i] == sep && !inside:
			parts = append(parts, s[start:i])
			start = i + 1
		}
	}
	return append(parts, s[start:])
}

// hsts is a Strict-Transport-Security value.
type hsts struct {
	seconds             uint64
	subdomains, preload bool
}

// parseHSTS follows RFC 6797 section 6.1, or says why the value does not.
func parseHSTS(value string) (h hsts, why string) {
	seen := make(map[string]bool)
	for item := range strings.SplitSeq(value, ";") {
		name, arg, hasArg := strings.Cut(strings.TrimSpace(item), "=")
		name = strings.ToLower(strings.TrimSpace(name))
		switch {
		case name == "" && !hasArg:
			continue
		case seen[name]:
			return h, fmt.Sprintf("%q stands twice", clip(name))
		case name == "max-age":
			arg = strings.TrimSpace(arg)
			if inner, quoted := strings.CutPrefix(arg, `"`); quoted && strings.HasSuffix(inner, `"`) {
				arg = strings.TrimSuffix(inner, `"`)
			}
			seconds, err := strconv.ParseUint(arg, 10, 64)
			if err != nil {
				return h, "max-age must be a number of seconds"
			}
			h.seconds = seconds
		case name == "includesubdomains" && !hasArg:
			h.subdomains = true
		case name == "preload" && !hasArg:
			h.preload = true
		default:
			return h, fmt.Sprintf("%q is no directive of this header", clip(item))
		}
		seen[name] = true
	}
	if !seen["max-age"] {
		return h, "max-age is missing"
	}
	return h, ""
}

func hstsProblem(value string) string {
	_, why := parseHSTS(value)
	return why
}

// policyProblem accepts what a browser would enforce at least in part: one
// policy with a directive it knows. A comma begins a second policy.
func policyProblem(value string) string {
	if strings.Contains(value, ",") {
		return "holds more than one policy"
	}
	for segment := range strings.SplitSeq(value, ";") {
		words := strings.Fields(segment)
		if len(words) == 0 {
			continue
		}
		if _, ok := directives[strings.ToLower(words[0])]; ok {
			return ""
		}
	}
	return "holds no directive that browsers know"
}
