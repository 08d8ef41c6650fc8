// Package jsonline looks into a line of a trail without decoding it: it finds the
// members of a JSON object that is known to be valid, as they stand there. It knows
// JSON and nothing of events.
package jsonline

import (
	"bytes"
	"encoding/json"
	"iter"
)

// Members yields the members of a JSON object that is known to be valid, each as it
// stands: the key with its quotes, and the value.
func Members(object []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(key, value []byte) bool) {
		for i := 1; i < len(object); {
			open := bytes.IndexByte(object[i:], '"')
			if open < 0 {
				return
			}
			key := object[i+open:]
			key = key[:StringEnd(key)]
			i += open + len(key)
			i += bytes.IndexByte(object[i:], ':') + 1
			for i < len(object) && IsSpace(object[i]) {
				i++
			}
			value := object[i:]
			value = value[:valueEnd(value)]
			i += len(value)
			if !yield(key, value) {
				return
			}
		}
	}
}

// Key takes the quotes off a key and resolves its escapes.
func Key(quoted []byte) []byte {
	if bytes.IndexByte(quoted, '\\') >= 0 {
		return []byte(Text(quoted))
	}
	return quoted[1 : len(quoted)-1]
}

// Text returns the text of a JSON string, or "" for any other value.
func Text(value []byte) string {
	if len(value) < len(`""`) || value[0] != '"' {
		return ""
	}
	if bytes.IndexByte(value, '\\') < 0 {
		return string(value[1 : len(value)-1])
	}
	var s string
	if err := json.Unmarshal(value, &s); err != nil {
		return ""
	}
	return s
}

// Number returns an integer without a sign or an exponent, and whether the value is
// one of at most 19 digits.
func Number(value []byte) (n uint64, ok bool) {
	if len(value) == 0 || len(value) > 19 { // every 19 digits fit
		return 0, false
	}
	for _, c := range value {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	return n, true
}

// StringEnd returns the length of the JSON string that s begins with.
func StringEnd(s []byte) int {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(s)
}

// valueEnd returns the length of the JSON value that s begins with.
func valueEnd(s []byte) int {
	depth := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"':
			i += StringEnd(s[i:]) - 1
			if depth == 0 {
				return i + 1
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return i
			}
			if depth--; depth == 0 {
				return i + 1
			}
		case ',', ' ', '\t', '\r', '\n':
			if depth == 0 {
				return i
			}
		}
	}
	return len(s)
}

// IsSpace reports whether c is what JSON calls white space.
func IsSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }
