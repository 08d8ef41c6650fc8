package format

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
)

// object writes JSON objects into one another. What it is given as a value is
// valid JSON already, and as a text valid between the quotes of a JSON string.
type object struct{ b []byte }

// name writes the name of the next member.
func (o *object) name(name string) {
	o.next()
	o.b = append(append(append(o.b, '"'), name...), `":`...)
}

// next separates the next member from the one before. No value ends in an opening
// brace or bracket.
func (o *object) next() {
	if last := o.b[len(o.b)-1]; last != '{' && last != '[' {
		o.b = append(o.b, ',')
	}
}

// value writes a member as it is.
func (o *object) value(name string, value []byte) {
	o.name(name)
	o.b = append(o.b, value...)
}

// text writes a string. Nothing is written for an empty one.
func (o *object) text(name string, text []byte) {
	if len(text) == 0 {
		return
	}
	o.name(name)
	o.b = append(append(append(o.b, '"'), text...), '"')
}

// label writes a string of ours, which needs no escapes.
func (o *object) label(name, text string) {
	o.name(name)
	o.b = append(append(append(o.b, '"'), text...), '"')
}

func (o *object) number(name string, n int64) {
	o.name(name)
	o.b = strconv.AppendInt(o.b, n, 10)
}

// labels writes a list of strings of ours.
func (o *object) labels(name string, list ...string) {
	o.name(name)
	o.b = append(o.b, '[')
	for i, text := range list {
		if i > 0 {
			o.b = append(o.b, ',')
		}
		o.b = append(append(append(o.b, '"'), text...), '"')
	}
	o.b = append(o.b, ']')
}

// open begins an object and returns what close needs.
func (o *object) open(name string) (begin int) {
	begin = len(o.b)
	o.name(name)
	o.b = append(o.b, '{')
	return begin
}

// close ends an object. One that has stayed empty is taken back.
func (o *object) close(begin int) {
	if o.b[len(o.b)-1] == '{' {
		o.b = o.b[:begin]
		return
	}
	o.b = append(o.b, '}')
}

// hash writes the SHA-256 of the line in lower-case hex.
func (o *object) hash(name string, e *event) {
	sum := sha256.Sum256(e.line)
	o.name(name)
	o.b = append(o.b, '"')
	o.b = hex.AppendEncode(o.b, sum[:])
	o.b = append(o.b, '"')
}

// move writes a field that is a string, if it says something.
func (o *object) move(name string, e *event, f field) bool {
	text := e.text(f)
	if len(text) == 0 {
		return false
	}
	o.text(name, text)
	e.done(f)
	return true
}

// count writes a field that is an integer from 0 to most.
func (o *object) count(name string, e *event, f field, most int64) {
	n, ok := whole(e.values[f], most)
	if !ok || !e.has(f) {
		return
	}
	o.number(name, n)
	e.done(f)
}

// rest writes what has no place of its own, under its own name.
func (o *object) rest(e *event) {
	for name, value := range e.rest {
		o.value(name, value)
	}
	for _, m := range e.others {
		o.next()
		o.b = append(append(append(o.b, m.key...), ':'), m.value...)
	}
}

// longestPiece is the most of one field that a message repeats.
const longestPiece = 256

// message writes a sentence for a person: what was done, to what, how it ended
// and why.
func (o *object) message(e *event) {
	begin := len(o.b)
	o.name("message")
	o.b = append(o.b, '"')
	quote := len(o.b)
	if e.isRequest() {
		o.piece("", e.text(method), "")
		o.piece(" ", e.text(host), "")
		o.piece("", e.text(path), "")
	} else {
		o.piece("", e.text(action), "")
		o.piece(" ", e.text(resource), "")
	}
	o.piece(": ", e.text(outcome), "")
	o.piece(" (", e.text(reason), ")")
	if len(o.b) == quote {
		o.b = o.b[:begin]
		return
	}
	o.b = append(o.b, '"')
}

// piece writes a part of a message. A long text is left out and not cut, for a
// cut could go through an escape.
func (o *object) piece(before string, text []byte, after string) {
	switch {
	case len(text) == 0:
		return
	case len(text) > longestPiece:
		text = []byte("…")
	}
	o.b = append(append(append(o.b, before...), text...), after...)
}
