package format

import (
	"bytes"
	"math/bits"
	"net/netip"
	"time"

	"github.com/moat-gateway/moat/internal/audit"
	"github.com/moat-gateway/moat/internal/audit/jsonline"
)

// field is one of the fields of an event, in the order of the line.
type field uint8

const (
	timestamp field = iota
	userID
	action
	resource
	details
	ip
	id
	class
	outcome
	reason
	severity
	requestID
	tenant
	roles
	method
	host
	path
	route
	status
	durationMs
	bytesIn
	bytesOut
	seq
	instance
	prev
	fieldCount
)

var fieldNames = [fieldCount]string{
	"timestamp", "userId", "action", "resource", "details", "ip", "id", "class", "outcome",
	"reason", "severity", "requestId", "tenant", "roles", "method", "host", "path", "route",
	"status", "durationMs", "bytesIn", "bytesOut", "seq", "instance", "prev",
}

var fieldOf = func() map[string]field {
	fields := make(map[string]field, fieldCount)
	for f, name := range fieldNames {
		fields[name] = field(f)
	}
	return fields
}()

// The names that a line uses for those who are no known caller.
const (
	anonymous = "anonymous"
	gateway   = "moat"
)

// event is a line, taken apart. Its values are pieces of the line.
type event struct {
	line   []byte
	values [fieldCount][]byte
	// others are the members that no event has.
	others []member
	// left has a bit for each field that has a value and was not written yet.
	left uint32
}

// read finds the fields. Of a repeated name the last counts, as with
// encoding/json: Elasticsearch refuses an object that has one name twice.
func (e *event) read() {
	var others map[string]int
	for quoted, value := range jsonline.Members(e.line) {
		key := jsonline.Key(quoted)
		if f, known := fieldOf[string(key)]; known {
			e.values[f] = value
			continue
		}
		if at, again := others[string(key)]; again {
			e.others[at] = member{quoted, value}
			continue
		}
		if others == nil {
			others = make(map[string]int)
		}
		others[string(key)] = len(e.others)
		e.others = append(e.others, member{quoted, value})
	}
	for f, value := range e.values {
		if !says(field(f), value) {
			continue
		}
		e.left |= 1 << f
	}
	if !e.isRequest() {
		e.forgetZeros()
	}
}

// says reports whether a field has a value that says something. An empty string
// and an empty list stand for what is not known, and status 0 for no answer.
func says(f field, value []byte) bool {
	switch string(value) {
	case "", `""`, "[]", "{}":
		return false
	case "0":
		return f != status
	}
	return true
}

// forgetZeros leaves out the sizes and times of a request where there was none.
func (e *event) forgetZeros() {
	for _, f := range []field{durationMs, bytesIn, bytesOut} {
		if v := e.values[f]; string(v) == "0" || string(v) == "0.000" {
			e.done(f)
		}
	}
}

// isRequest reports whether the event is about one request. Only such an event
// has a method; its action is whatever the operator called the rule.
func (e *event) isRequest() bool { return len(e.text(method)) > 0 }

// isSummary reports whether the event stands for many refused requests.
func (e *event) isSummary() bool {
	return string(e.text(action)) == audit.ActionSummary && !e.isRequest()
}

// text is a string field as it stands between its quotes.
func (e *event) text(f field) []byte { return inner(e.values[f]) }

// has reports whether a field says something and was not written yet.
func (e *event) has(f field) bool { return e.left&(1<<f) != 0 }

// done marks a field as written.
func (e *event) done(f field) { e.left &^= 1 << f }

// detail is one value of the details.
func (e *event) detail(name string) []byte {
	object := e.values[details]
	if len(object) == 0 || object[0] != '{' {
		return nil
	}
	var value []byte
	for key, v := range jsonline.Members(object) {
		if string(jsonline.Key(key)) == name {
			value = v
		}
	}
	return value
}

// code is the public code of a refusal.
func (e *event) code() string { return string(inner(e.detail("code"))) }

// address returns the address of the client, and whether it is one. A pseudonym
// is none.
func (e *event) address() (netip.Addr, bool) {
	addr, err := netip.ParseAddr(string(e.text(ip)))
	return addr, err == nil && addr.Zone() == ""
}

// callerKind says what the user id of a line is.
type callerKind uint8

const (
	noCaller callerKind = iota
	nobody
	itself
	pseudonym
	caller
)

func (e *event) caller() callerKind {
	text := e.text(userID)
	switch {
	case len(text) == 0, e.isSummary():
		return noCaller // A summary stands for many.
	case string(text) == anonymous:
		return nobody
	case string(text) == gateway && !e.isRequest():
		return itself
	case isPseudonym(text):
		return pseudonym
	}
	return caller
}

// isPseudonym recognises what audit.Pseudonyms writes: "p:" and 32 hex digits.
func isPseudonym(text []byte) bool {
	digits, marked := bytes.CutPrefix(text, []byte("p:"))
	if !marked || len(digits) != 32 {
		return false
	}
	for _, c := range digits {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// moment reads a JSON string that is a time by RFC 3339.
func moment(value []byte) (time.Time, bool) {
	var t time.Time
	text := inner(value)
	if len(text) == 0 || t.UnmarshalText(text) != nil {
		return time.Time{}, false
	}
	return t, true
}

func isMoment(value []byte) bool {
	_, ok := moment(value)
	return ok
}

// hostPort returns the name and the port of the requested host. Port is nil when
// there is none.
func (e *event) hostPort() (name, port []byte) {
	text := e.text(host)
	colon := bytes.LastIndexByte(text, ':')
	if colon <= 0 {
		return text, nil
	}
	name, port = text[:colon], text[colon+1:]
	if n, ok := whole(port, 65535); !ok || (n == 0 || port[0] == '0') {
		return text, nil
	}
	if bytes.IndexByte(name, ':') >= 0 && name[len(name)-1] != ']' {
		return text, nil // an IPv6 address without brackets
	}
	return name, port
}

// rest yields the fields that have not been written.
func (e *event) rest(yield func(name string, value []byte) bool) {
	for left := e.left; left != 0; left &= left - 1 {
		f := bits.TrailingZeros32(left)
		if !yield(fieldNames[f], e.values[f]) {
			return
		}
	}
}
