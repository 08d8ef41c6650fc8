package canon

import (
	"net/http"
	"strings"
)

// FoldHeader returns the form in which header names are compared before a header
// is removed: lower case, with "_" and "." as "-". Many servers hand headers to
// applications as variables, in which all these spellings are one name (RFC 3875
// section 4.1.18). It does not allocate when name is folded already.
func FoldHeader(name string) string {
	for i := range len(name) {
		if foldByte(name[i]) != name[i] {
			var buf [64]byte
			return string(appendFolded(buf[:0], name))
		}
	}
	return name
}

func foldByte(c byte) byte {
	switch {
	case 'A' <= c && c <= 'Z':
		return c + ('a' - 'A')
	case c == '_' || c == '.':
		return '-'
	}
	return c
}

func appendFolded(b []byte, name string) []byte {
	for i := range len(name) {
		b = append(b, foldByte(name[i]))
	}
	return b
}

// HeaderSet is a set of header names that knows each name in every spelling. It
// is immutable and safe for concurrent use; the nil and the zero HeaderSet are
// empty.
type HeaderSet struct {
	names    map[string]struct{}
	prefixes []string
	longest  int
}

// NewHeaderSet returns the set of the given names. A name that ends in "*", such
// as "x-forwarded-*", stands for all names that begin with what is before it.
// Empty names are left out.
func NewHeaderSet(names ...string) *HeaderSet {
	s := &HeaderSet{names: make(map[string]struct{}, len(names))}
	prefixes := make(map[string]struct{})
	for _, name := range names {
		name = FoldHeader(name)
		if prefix, ok := strings.CutSuffix(name, "*"); ok {
			if _, dup := prefixes[prefix]; !dup {
				prefixes[prefix] = struct{}{}
				s.prefixes = append(s.prefixes, prefix)
			}
			continue
		}
		if name != "" {
			s.names[name] = struct{}{}
			s.longest = max(s.longest, len(name))
		}
	}
	return s
}

// Has reports whether the set has name, in any spelling. It does not allocate
// for sets whose names have at most 128 bytes.
func (s *HeaderSet) Has(name string) bool {
	if s == nil {
		return false
	}
	if len(name) <= s.longest {
		var buf [128]byte
		if _, ok := s.names[string(appendFolded(buf[:0], name))]; ok {
			return true
		}
	}
	for _, prefix := range s.prefixes {
		if hasFoldedPrefix(name, prefix) {
			return true
		}
	}
	return false
}

func hasFoldedPrefix(name, prefix string) bool {
	if len(name) < len(prefix) {
		return false
	}
	for i := range len(prefix) {
		if foldByte(name[i]) != prefix[i] {
			return false
		}
	}
	return true
}

// StripFrom deletes every key of h that the set has, in any spelling, and
// returns how many keys it deleted. It does for trailers as well.
func (s *HeaderSet) StripFrom(h http.Header) (removed int) {
	for name := range h {
		if s.Has(name) {
			delete(h, name)
			removed++
		}
	}
	return removed
}

// Len returns the number of different names and prefixes in the set.
func (s *HeaderSet) Len() int {
	if s == nil {
		return 0
	}
	return len(s.names) + len(s.prefixes)
}
