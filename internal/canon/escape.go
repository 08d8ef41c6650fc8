package canon

import "unicode/utf8"

// unhex decodes the escape at the beginning of s.
func unhex(s string) (byte, bool) {
	if len(s) < 3 || s[0] != '%' || !isHex(s[1]) || !isHex(s[2]) {
		return 0, false
	}
	return digit(s[1])<<4 | digit(s[2]), true
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func digit(c byte) byte {
	switch {
	case c >= 'a':
		return c - 'a' + 10
	case c >= 'A':
		return c - 'A' + 10
	}
	return c - '0'
}

// hasLowerHex reports whether s, which holds escapes only, has a digit that the
// canonical form writes in upper case.
func hasLowerHex(s string) bool {
	for i := range len(s) {
		if s[i] >= 'a' {
			return true
		}
	}
	return false
}

// unescapeRune decodes the escapes of one UTF-8 character at the beginning of s
// and returns their width in s; 0 when they are not valid UTF-8.
func unescapeRune(s string) (r rune, width int) {
	var b [utf8.UTFMax]byte
	n := 0
	for n < len(b) {
		c, ok := unhex(s[3*n:])
		if !ok {
			break
		}
		b[n] = c
		n++
	}
	r, size := utf8.DecodeRune(b[:n])
	if r == utf8.RuneError && size <= 1 {
		return 0, 0
	}
	return r, 3 * size
}

// decodesTo reports whether escaped is a spelling of the decoded path. A broken
// escape is a spelling of nothing.
func decodesTo(escaped, decoded string) bool {
	j := 0
	for i := 0; i < len(escaped); j++ {
		c, width := escaped[i], 1
		if c == '%' {
			var ok bool
			if c, ok = unhex(escaped[i:]); !ok {
				return false
			}
			width = 3
		}
		if j >= len(decoded) || decoded[j] != c {
			return false
		}
		i += width
	}
	return j == len(decoded)
}

// isDefaultEncoding reports whether net/url would choose this spelling for the
// decoded path, but for the case of hexadecimal digits. Where they are in upper
// case, URL.RawPath need not keep it.
func isDefaultEncoding(escaped string) bool {
	for i := 0; i < len(escaped); {
		c, escape := unhex(escaped[i:])
		width := 3
		if !escape {
			c, width = escaped[i], 1
		}
		raw := classes[c] == unreserved || classes[c] == plain
		if raw == escape {
			return false
		}
		i += width
	}
	return true
}
