package rbac

import "strings"

// delimiters are the characters other than the unreserved ones that a segment
// may carry both as themselves and escaped (RFC 3986 section 3.3, with the
// brackets that browsers leave raw).
const delimiters = "!$&'()*+,;=:@[]"

// key returns the form of a canonical path in which literals are compared:
// escaped delimiters as themselves and, with fold, ASCII letters in lower case.
//
// Canonical paths keep "%40" apart from "@", because whoever builds a URL may
// mean different things by them. Routers do not: they decode a segment before
// they compare it. Without this, a rule for "/users/@me" would be passed by as
// "/users/%40me", which the rule for "/users/{id}" then judges. All that stays
// escaped has no raw spelling, so equal keys are equal decoded segments.
//
// Folding stops at ASCII: canonical paths have nothing else, and a wider
// folding could make one path of two.
func key(path string, fold bool) string {
	i := 0
	for i < len(path) && !changes(path[i:], fold) {
		i++
	}
	if i == len(path) {
		return path
	}
	var b strings.Builder
	b.Grow(len(path))
	b.WriteString(path[:i])
	for ; i < len(path); i++ {
		c := path[i]
		if d, ok := delimiter(path[i:]); ok {
			c = d
			i += 2
		}
		if fold && 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		b.WriteByte(c)
	}
	return b.String()
}

// changes reports whether the first character of s has another key.
func changes(s string, fold bool) bool {
	if fold && 'A' <= s[0] && s[0] <= 'Z' {
		return true
	}
	_, ok := delimiter(s)
	return ok
}

// delimiter decodes the escaped delimiter at the beginning of s.
func delimiter(s string) (byte, bool) {
	if s[0] != '%' || len(s) < 3 {
		return 0, false
	}
	c := unhex(s[1])<<4 | unhex(s[2])
	return c, strings.IndexByte(delimiters, c) >= 0
}

// unhex returns the value of a hexadecimal digit. For anything else all bits are
// set, so that what is made of it is not ASCII and so no delimiter.
func unhex(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	}
	return 0xff
}
