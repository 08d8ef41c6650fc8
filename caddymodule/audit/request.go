package audit

import (
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/moat-gateway/moat/caddymodule/internal/exchange"
	"github.com/moat-gateway/moat/internal/audit"
)

// Bounds of what an event tells of a request's query and headers.
const (
	maxQueryNames  = 32
	maxQueryName   = 64
	maxHeaderValue = 256
)

// others stands for what is not told by name.
const others = "…"

// queryNames are the names of a query's parameters, sorted, without their values.
// What may be a value is not told either: a name is only what is followed by "=",
// made of plain characters, and no padded base64.
func queryNames(query string) []string {
	if query == "" {
		return nil
	}
	var names []string
	hidden := false
	for part := range strings.SplitSeq(query, "&") {
		if part == "" {
			continue
		}
		name, ok := queryName(part)
		switch {
		case ok && slices.Contains(names, name):
		case ok && len(names) < maxQueryNames:
			names = append(names, name)
		default:
			hidden = true
		}
	}
	slices.Sort(names)
	if hidden {
		names = append(names, others)
	}
	return names
}

func queryName(part string) (string, bool) {
	name, value, ok := strings.Cut(part, "=")
	if !ok || (value == "" || value == "=") && len(part)%4 == 0 {
		return "", false
	}
	if strings.Contains(name, "%") {
		var err error
		if name, err = url.QueryUnescape(name); err != nil {
			return "", false
		}
	}
	return name, plainName(name)
}

func plainName(name string) bool {
	if name == "" || len(name) > maxQueryName {
		return false
	}
	for _, c := range []byte(name) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("_.-[]", c) >= 0:
		default:
			return false
		}
	}
	return true
}

// seenHeader is a header as the client sent it.
type seenHeader struct {
	name   string
	values []string
}

// see remembers the headers of names, before the gate writes headers of its own
// under the same names.
func see(h http.Header, names []string) []seenHeader {
	var seen []seenHeader
	for _, name := range names {
		if values := h[name]; len(values) > 0 {
			seen = append(seen, seenHeader{name, values})
		}
	}
	return seen
}

// told are the headers that an event carries. What the guard took off pretends to
// be something, and what may carry a credential on this site is none of the trail.
func told(seen []seenHeader, h http.Header, ex *exchange.Exchange) []audit.Field {
	var fields []audit.Field
	for _, s := range seen {
		if _, stayed := h[s.name]; !stayed || ex.Strip.Has(s.name) || ex.Credentials.Has(s.name) {
			continue
		}
		f := audit.Field{Name: strings.ToLower(s.name)}
		if len(s.values) == 1 {
			f.Value = beginning(withoutURLSecrets(s.name, s.values[0]))
		} else {
			f.Count = len(s.values)
		}
		fields = append(fields, f)
	}
	return fields
}

var userinfo = regexp.MustCompile(`://[^/?#\s]*@`)

// withoutURLSecrets takes the query, the fragment and the user information off a
// value that is or holds a URL: like those of the request itself, they are no part
// of an event.
func withoutURLSecrets(name, value string) string {
	if name != "Referer" && !strings.Contains(value, "://") {
		return value
	}
	if cut := strings.IndexAny(value, "?#"); cut >= 0 {
		value = value[:cut]
	}
	return userinfo.ReplaceAllLiteralString(value, "://")
}

// beginning is what of a header's value is told.
func beginning(value string) string {
	if len(value) <= maxHeaderValue {
		return value
	}
	return strings.ToValidUTF8(value[:maxHeaderValue], "") + others
}
