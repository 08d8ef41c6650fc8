package format

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/moat-gateway/moat/internal/audit"
	"github.com/moat-gateway/moat/internal/audit/jsonline"
)

const (
	// ceType begins the type of every event: CloudEvents wants a domain name in
	// reverse, of those who say what the type means.
	ceType = "io.github.moat-gateway.audit."
	// ceRequest is the type of a request. Its action is a pattern, or whatever the
	// operator calls the rule, and no kind of event.
	ceRequest = "http.request"
	// longestType bounds an action that becomes a type.
	longestType = 64
	// longestSubject bounds a resource that becomes a subject, in bytes.
	longestSubject = 2048
)

// appendCloudEvent wraps the line, byte for byte, into a CloudEvent 1.0 in the JSON
// format. Id and source together are the key by which a consumer recognises a
// repeated delivery.
func appendCloudEvent(dst []byte, e *event) []byte {
	o := &object{append(dst, '{')}
	o.label("specversion", "1.0")
	o.label("id", ceID(e))
	o.label("source", ceSource(e))
	o.label("type", ceType+ceKind(e))
	o.ceSubject(e)
	if isMoment(e.values[timestamp]) {
		o.text("time", e.text(timestamp))
	}
	o.label("datacontenttype", "application/json")
	// The sequence extension wants what compares as text as it does as a number.
	if n, ok := whole(e.values[seq], math.MaxInt64); ok && n > 0 {
		o.label("sequence", fmt.Sprintf("%019d", n))
	}
	switch v := audit.Outcome(e.text(outcome)); v {
	case audit.Allow, audit.Deny, audit.Failure, audit.Aborted:
		o.label("outcome", string(v))
	}
	switch v := audit.Severity(e.text(severity)); v {
	case audit.Low, audit.Medium, audit.High:
		o.label("severity", string(v))
	}
	o.value("data", e.line)
	return append(o.b, '}')
}

// ceID is the id of the event, or where that cannot be one the hash of the line.
func ceID(e *event) string {
	text := e.text(id)
	if len(text) > 0 && len(text) <= longestType && isName(text) {
		return string(text)
	}
	sum := sha256.Sum256(e.line)
	return hex.EncodeToString(sum[:])
}

// isName reports whether text is letters, digits, dots, hyphens and underscores.
func isName(text []byte) bool {
	for _, c := range text {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case c == '.', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}

// ceSource is the gateway as a URI reference.
func ceSource(e *event) string {
	name := jsonline.Text(e.values[instance])
	var s strings.Builder
	s.WriteString("/moat")
	if name != "" {
		s.WriteByte('/')
	}
	for i := range len(name) {
		if c := name[i]; isName([]byte{c}) || c == '~' {
			s.WriteByte(c)
		} else {
			fmt.Fprintf(&s, "%%%02X", c)
		}
	}
	return s.String()
}

// ceKind is the last part of the type.
func ceKind(e *event) string {
	if e.isRequest() {
		return ceRequest
	}
	text := e.text(action)
	if len(text) == 0 || len(text) > longestType || !isName(text) {
		return "unknown"
	}
	return strings.TrimPrefix(string(text), "audit.")
}

// ceSubject writes what it was done to. A text that is too long or has a character
// that CloudEvents does not allow is left to the data.
func (o *object) ceSubject(e *event) {
	text := e.text(resource)
	if len(text) == 0 || len(text) > longestSubject {
		return
	}
	meant := text
	if bytes.IndexByte(text, '\\') >= 0 {
		meant = []byte(jsonline.Text(e.values[resource]))
	}
	if !bytes.ContainsFunc(meant, isForbidden) {
		o.text("subject", text)
	}
}

// isForbidden reports whether a CloudEvents string must not have a character:
// controls, noncharacters, and U+FFFD as what half a surrogate pair was read as.
func isForbidden(r rune) bool {
	return unicode.IsControl(r) || r == utf8.RuneError || r&0xfffe == 0xfffe || r >= 0xfdd0 && r <= 0xfdef
}
