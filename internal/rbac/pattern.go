package rbac

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/moat-gateway/moat/internal/canon"
)

const (
	maxPattern   = 2048
	maxSegments  = 64
	maxParameter = 64

	tailSign = "**"
)

type kind uint8

// In order of how specific they are.
const (
	literal kind = iota
	parameter
	tail
)

type segment struct {
	kind kind
	// text is the literal in the form that key returns, or the parameter's
	// name, which is empty for "**".
	text string
}

func (s segment) String() string {
	switch {
	case s.kind == literal:
		return strings.ReplaceAll(s.text, "*", "%2A")
	case s.kind == parameter:
		return "{" + s.text + "}"
	case s.text == "":
		return tailSign
	default:
		return "{" + s.text + "...}"
	}
}

// Pattern is a path pattern: literal segments, "{name}" for one non-empty
// segment, and "**" or "{name...}" at the end for zero or more. A final "/" is
// as none, on the pattern and on the path. The zero Pattern matches nothing.
type Pattern struct {
	written  string
	segments []segment
}

// ParsePattern reads a pattern. Literals are put into the canonical form that
// requests are put into, so that "/%7Ejoe" and "/~joe" are the same pattern;
// what could never be a canonical path ("//", dot segments, "%2F", "?", "#")
// is an error.
func ParsePattern(s string) (Pattern, error) {
	switch {
	case s == "" || s[0] != '/':
		return Pattern{}, errors.New("a pattern begins with /")
	case len(s) > maxPattern:
		return Pattern{}, fmt.Errorf("a pattern has at most %d bytes", maxPattern)
	case strings.ContainsAny(s, "?#"):
		return Pattern{}, errors.New("a pattern is a path: ? and # have no place in it")
	}
	p := Pattern{written: s}
	rest, more, _ := open(s)
	for more {
		var text string
		text, rest, more = strings.Cut(rest, "/")
		seg, err := parseSegment(text)
		if err != nil {
			return Pattern{}, err
		}
		if more && seg.kind == tail {
			return Pattern{}, fmt.Errorf("%s must be the last segment", text)
		}
		if seg.kind != literal && seg.text != "" && p.index(seg.text) >= 0 {
			return Pattern{}, fmt.Errorf("parameter {%s} stands twice", seg.text)
		}
		p.segments = append(p.segments, seg)
	}
	if len(p.segments) > maxSegments {
		return Pattern{}, fmt.Errorf("a pattern has at most %d segments", maxSegments)
	}
	return p, nil
}

func parseSegment(text string) (segment, error) {
	if text == tailSign {
		return segment{kind: tail}, nil
	}
	if strings.HasPrefix(text, "{") && strings.HasSuffix(text, "}") {
		name, isTail := strings.CutSuffix(text[1:len(text)-1], "...")
		if !isParameterName(name) {
			return segment{}, fmt.Errorf("%s: a parameter name is a-z, 0-9 and _, begins with a letter or _, "+
				"and has at most %d bytes", text, maxParameter)
		}
		if isTail {
			return segment{tail, name}, nil
		}
		return segment{parameter, name}, nil
	}
	if strings.ContainsAny(text, "{}*") {
		return segment{}, fmt.Errorf("%s: {name} and ** are whole segments; * alone is no pattern", text)
	}
	canonical, err := canonicalLiteral(text)
	return segment{literal, canonical}, err
}

func canonicalLiteral(text string) (string, error) {
	if text == "" {
		return "", errors.New("a pattern has no empty segments (//)")
	}
	canonical, err := canon.Path("/" + escapeUTF8(text))
	if err != nil {
		return "", fmt.Errorf("%q can not stand in a canonical path: %w", text, err)
	}
	return key(strings.TrimPrefix(canonical, "/"), false), nil
}

// escapeUTF8 percent-encodes what is not ASCII: a pattern may be written the
// way a browser's address bar shows it.
func escapeUTF8(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if s[i] < utf8.RuneSelf {
			b.WriteByte(s[i])
			continue
		}
		fmt.Fprintf(&b, "%%%02X", s[i])
	}
	return b.String()
}

func isParameterName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || c == '_' || i > 0 && '0' <= c && c <= '9') {
			return false
		}
	}
	return s != "" && len(s) <= maxParameter
}

// open takes the leading slash and one final slash off a path. more is false
// when there is no segment; what does not begin with a slash is no path.
func open(path string) (rest string, more, ok bool) {
	if path == "" || path[0] != '/' {
		return "", false, false
	}
	if path == "/" {
		return "", false, true
	}
	return strings.TrimSuffix(path[1:], "/"), true, true
}

// String returns the pattern as it was written.
func (p Pattern) String() string { return p.written }

// Match reports whether the pattern matches a canonical escaped path.
func (p Pattern) Match(path string) bool { return p.match(key(path, false)) }

// match compares with a path in the form that key returns. It is a loop of its
// own beside the trie: limits have few patterns, and tests hold the two against
// each other.
func (p Pattern) match(path string) bool {
	rest, more, ok := open(path)
	if !ok || p.written == "" {
		return false
	}
	for _, seg := range p.segments {
		if seg.kind == tail {
			return true
		}
		if !more {
			return false
		}
		var text string
		text, rest, more = strings.Cut(rest, "/")
		if seg.kind == parameter && text == "" || seg.kind == literal && text != seg.text {
			return false
		}
	}
	return !more
}

// folded returns the pattern that matches without regard to ASCII case, given
// paths that key folded.
func (p Pattern) folded() Pattern {
	p.segments = slices.Clone(p.segments)
	for i := range p.segments {
		if s := &p.segments[i]; s.kind == literal {
			s.text = key(s.text, true)
		}
	}
	return p
}

// allows reports whether some path of the pattern has this literal at a segment.
func (p Pattern) allows(index int, text string) bool {
	for i, s := range p.segments {
		if s.kind == tail {
			return true
		}
		if i == index {
			return s.kind == parameter || s.text == text
		}
	}
	return false
}

// index returns which segment the parameter is, or -1.
func (p Pattern) index(name string) int {
	return slices.IndexFunc(p.segments, func(s segment) bool {
		return s.kind != literal && s.text == name && name != ""
	})
}

// parameters returns the names of the pattern's parameters in their order.
func (p Pattern) parameters() []string {
	var names []string
	for _, s := range p.segments {
		if s.kind != literal && s.text != "" {
			names = append(names, s.text)
		}
	}
	return names
}

// value returns the decoded text at a segment of a path that the pattern
// matches: one segment, or all that is left for a tail.
func (p Pattern) value(path string, index int) (string, bool) {
	if index < 0 || index >= len(p.segments) {
		return "", false
	}
	text, _, _ := open(path)
	for range index {
		_, text, _ = strings.Cut(text, "/")
	}
	if p.segments[index].kind != tail {
		text, _, _ = strings.Cut(text, "/")
	}
	decoded, err := url.PathUnescape(text)
	return decoded, err == nil
}

// written returns the text of a pattern with these segments, at least one.
func written(segments []segment) string {
	var b strings.Builder
	for _, s := range segments {
		b.WriteByte('/')
		b.WriteString(s.String())
	}
	return b.String()
}
