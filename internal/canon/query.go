package canon

import "unicode/utf8"

// checkQuery refuses what no query may hold on the wire (RFC 3986 section 3.4),
// and nothing else: the bytes go upstream as they came.
func checkQuery(raw string) string {
	for i := range len(raw) {
		switch c := raw[i]; {
		case c <= ' ' || c == 0x7f:
			return ReasonControlByte
		case c == '#':
			return ReasonFragment
		case c >= utf8.RuneSelf:
			return ReasonNonASCII
		}
	}
	return ""
}

// Query refuses a query that parsers read differently; the error is a *Refusal.
// It is for requests whose query a rule or a limit reads: others may carry any
// query their upstream understands.
//
// A ";" separates parameters for some and is part of a value for others. Broken
// escapes are dropped, kept or taken for the end. A NUL ends a value for some,
// and bytes that are no UTF-8 are replaced by one parser and kept by another.
func Query(raw string) error {
	if reason := checkQuery(raw); reason != "" {
		return refuse(BadRequest, reason)
	}
	for i := 0; i < len(raw); {
		width := 1
		switch raw[i] {
		case ';':
			return refuse(BadRequest, ReasonQuerySemicolon)
		case '%':
			var reason string
			if width, reason = queryEscape(raw[i:]); reason != "" {
				return refuse(BadRequest, reason)
			}
		}
		i += width
	}
	return nil
}

// queryEscape returns the width of the escaped character at the beginning of s.
func queryEscape(s string) (width int, reason string) {
	c, ok := unhex(s)
	switch {
	case !ok:
		return 0, ReasonBadEscape
	case c == 0:
		return 0, ReasonControlByte
	}
	if _, width = unescapeRune(s); width == 0 {
		return 0, ReasonBadUTF8
	}
	return width, ""
}
