package canon

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// class is what a raw byte may do in a path.
type class uint8

const (
	// forbidden is the zero value: a byte the table does not name is refused.
	forbidden class = iota
	// unreserved characters mean the same escaped and raw (RFC 3986 section 2.3).
	unreserved
	// plain characters are the reserved ones that a segment may carry raw and
	// that net/url writes raw.
	plain
	// bracketed characters may be raw as well, but net/url escapes them unless
	// URL.RawPath keeps them. Browsers send "[" and "]" raw.
	bracketed
)

// classes holds the class of every byte. Nothing writes to it after it is made.
var classes = func() (t [256]class) {
	for set, c := range map[string]class{
		"abcdefghijklmnopqrstuvwxyz": unreserved,
		"ABCDEFGHIJKLMNOPQRSTUVWXYZ": unreserved,
		"0123456789-._~":             unreserved,
		"/$&+,:;=@":                  plain,
		"!'()*[]":                    bracketed,
	} {
		for i := range len(set) {
			t[set[i]] = c
		}
	}
	return t
}()

// canonical returns the canonical form of an escaped path.
func (p *Policy) canonical(raw string) (string, error) {
	switch {
	case raw == "":
		return "", refuse(BadRequest, ReasonNoTarget)
	case len(raw) > p.maxPath:
		return "", refuse(URITooLong, ReasonPathTooLong)
	case raw[0] != '/':
		return "", refuse(BadRequest, ReasonRelative)
	}
	changes, reason := p.scan(raw)
	switch {
	case reason != "":
		return "", refuse(BadRequest, reason)
	case changes:
		return rewrite(raw), nil
	}
	return raw, nil
}

// scan walks an escaped path once, in its decoded reading. It returns why the
// path is refused, or whether it has escapes to rewrite.
func (p *Policy) scan(raw string) (changes bool, reason string) {
	var (
		seg    segment
		nested nesting
	)
	for i := 1; i < len(raw); {
		c, width := raw[i], 1
		if classes[c] == forbidden || c == ';' {
			u, reason := p.special(raw[i:])
			if reason != "" {
				return false, reason
			}
			c, width = u.char, u.width
			changes = changes || u.changes
		}
		if nested.sees(c) {
			return false, ReasonDoubleEncoding
		}
		// An allowed %2F ends a segment here as "/" does: an upstream that
		// decodes it must find neither "..", nor "//".
		if c == '/' {
			if reason := p.ends(seg, false); reason != "" {
				return false, reason
			}
			seg = segment{}
		} else {
			seg.add(c)
		}
		i += width
	}
	return changes, p.ends(seg, true)
}

// unit is one character of a path and how it was spelled.
type unit struct {
	char    byte // decoded; utf8.RuneSelf for all that is not ASCII
	width   int  // bytes in the escaped path
	changes bool // the canonical spelling is another
}

// special reads the character at the beginning of s that is not simply itself:
// an escape, or a byte that may have to be refused.
func (p *Policy) special(s string) (unit, string) {
	switch c := s[0]; {
	case c == '%':
		return p.escape(s)
	case c == ';':
		if p.refuseParameters {
			return unit{}, ReasonParameter
		}
		return unit{char: c, width: 1}, ""
	case c <= ' ' || c == 0x7f:
		return unit{}, ReasonControlByte
	case c == '\\':
		return unit{}, ReasonBackslash
	case c == '#':
		return unit{}, ReasonFragment
	case c >= utf8.RuneSelf:
		// Whether such bytes are UTF-8 or an older encoding, and who escapes
		// them, is up to each hop. Escaped they are unambiguous.
		return unit{}, ReasonNonASCII
	}
	return unit{}, ReasonForbiddenByte
}

// escape reads the escape at the beginning of s.
func (p *Policy) escape(s string) (unit, string) {
	c, ok := unhex(s)
	switch {
	case !ok:
		return unit{}, ReasonBadEscape
	case c >= utf8.RuneSelf:
		return p.escapedRune(s)
	case c < ' ' || c == 0x7f:
		return unit{}, ReasonControlByte
	case c == '\\':
		return unit{}, ReasonBackslash
	case c == '/' && !p.allowEncodedSlash:
		return unit{}, ReasonEncodedSlash
	}
	return unit{char: c, width: 3, changes: classes[c] == unreserved || hasLowerHex(s[:3])}, ""
}

// escapedRune reads the escapes of one character outside ASCII.
func (p *Policy) escapedRune(s string) (unit, string) {
	r, width := unescapeRune(s)
	if width == 0 {
		return unit{}, ReasonBadUTF8
	}
	// Comparisons without case go by way of the upper or of the lower case, and
	// some characters reach ASCII that way: U+212A is a "k", U+017F an "s". What
	// both ways leave alone is the one spelling of its kind.
	if p.caseInsensitive && unicode.ToLower(unicode.ToUpper(r)) != r {
		return unit{}, ReasonLetterCase
	}
	return unit{char: utf8.RuneSelf, width: width, changes: hasLowerHex(s[:width])}, ""
}

// segment is what has been read of one segment, in its decoded reading. Its name
// is what stands before the first ";".
type segment struct {
	dots, spaces, others int
	parameters           bool
	last                 byte
}

func (s *segment) add(c byte) {
	switch {
	case s.parameters:
		return
	case c == ';':
		s.parameters = true
		return
	case c == '.':
		s.dots++
	case c == ' ':
		s.spaces++
	default:
		s.others++
	}
	s.last = c
}

// ends judges a segment that is complete; final says that it is the path's last.
func (p *Policy) ends(s segment, final bool) string {
	switch {
	case s.others == 0 && s.dots > 0:
		// More dots than two, and spaces among them, are parent directories to
		// some file systems. Nobody names a resource so.
		return ReasonDotSegment
	case s.others == 0 && s.spaces == 0 && (s.parameters || !final) && !p.allowEmptySegments:
		return ReasonEmptySegment
	case p.caseInsensitive && (s.last == '.' || s.last == ' '):
		return ReasonTrailingDot
	}
	return ""
}

// nesting finds an escape inside what was decoded: a percent sign with two
// hexadecimal digits behind it, however these were spelled.
type nesting int

func (n *nesting) sees(c byte) bool {
	switch {
	case c == '%':
		*n = 1
	case *n == 0:
	case !isHex(c):
		*n = 0
	default:
		*n++
	}
	return *n == 3
}

// rewrite spells the escapes of a path that scan accepted in the canonical way.
func rewrite(raw string) string {
	var b strings.Builder
	b.Grow(len(raw))
	for i := 0; i < len(raw); {
		c, ok := unhex(raw[i:])
		switch {
		case !ok:
			b.WriteByte(raw[i])
			i++
			continue
		case classes[c] == unreserved:
			b.WriteByte(c)
		default:
			const digits = "0123456789ABCDEF"
			b.WriteByte('%')
			b.WriteByte(digits[c>>4])
			b.WriteByte(digits[c&15])
		}
		i += 3
	}
	return b.String()
}
