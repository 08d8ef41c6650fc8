package token

import (
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// The ways a document can fail. encoding/json is not used because it takes the
// last of two equal names, folds case into struct fields, replaces broken
// UTF-8 and reads past what a second parser would have stopped at: each lets
// the gateway and the application see two different tokens.
var (
	errJSONSyntax    = errors.New("not strict JSON")
	errJSONDuplicate = errors.New("a name stands twice in one object")
	errJSONTooLarge  = errors.New("too deep or too many members")
)

// maxNumber is the length in bytes up to which a number is read.
const maxNumber = 64

// jsonLimits bounds one document: how deep values nest, and how many object
// members and array elements there are in all.
type jsonLimits struct {
	depth, nodes int
}

// decodeObject reads one JSON object (RFC 8259) and nothing after it. Names
// keep their case and must be unique at every depth. Numbers come out as
// json.Number with the exact text.
func decodeObject(data string, limits jsonLimits) (map[string]any, error) {
	if !utf8.ValidString(data) {
		return nil, errJSONSyntax
	}
	d := decoder{data: data, limits: limits}
	d.space()
	if d.peek() != '{' {
		return nil, errJSONSyntax
	}
	object, err := d.object(1)
	if err != nil {
		return nil, err
	}
	d.space()
	if d.pos != len(d.data) {
		return nil, errJSONSyntax
	}
	return object, nil
}

type decoder struct {
	data   string
	pos    int
	nodes  int
	limits jsonLimits
}

// peek returns the next byte, or 0 at the end. A real 0 is no JSON outside
// strings and strings do not come here, so the two need no telling apart.
func (d *decoder) peek() byte {
	if d.pos < len(d.data) {
		return d.data[d.pos]
	}
	return 0
}

func (d *decoder) space() {
	for d.pos < len(d.data) {
		switch d.data[d.pos] {
		case ' ', '\t', '\n', '\r':
			d.pos++
		default:
			return
		}
	}
}

// enter counts one member or element.
func (d *decoder) enter() error {
	d.nodes++
	if d.nodes > d.limits.nodes {
		return errJSONTooLarge
	}
	return nil
}

func (d *decoder) value(depth int) (any, error) {
	switch c := d.peek(); {
	case c == '{':
		return d.object(depth)
	case c == '[':
		return d.array(depth)
	case c == '"':
		return d.text()
	case c == '-' || isDigit(c):
		return d.number()
	case strings.HasPrefix(d.data[d.pos:], "true"):
		d.pos += len("true")
		return true, nil
	case strings.HasPrefix(d.data[d.pos:], "false"):
		d.pos += len("false")
		return false, nil
	case strings.HasPrefix(d.data[d.pos:], "null"):
		d.pos += len("null")
		return nil, nil
	}
	return nil, errJSONSyntax
}

// object reads an object; the caller has seen its opening brace.
func (d *decoder) object(depth int) (map[string]any, error) {
	if depth > d.limits.depth {
		return nil, errJSONTooLarge
	}
	d.pos++
	object := map[string]any{}
	d.space()
	if d.peek() == '}' {
		d.pos++
		return object, nil
	}
	for {
		if err := d.member(object, depth); err != nil {
			return nil, err
		}
		last, err := d.next('}')
		if err != nil || last {
			return object, err
		}
	}
}

func (d *decoder) member(object map[string]any, depth int) error {
	if err := d.enter(); err != nil {
		return err
	}
	d.space()
	if d.peek() != '"' {
		return errJSONSyntax
	}
	name, err := d.text()
	if err != nil {
		return err
	}
	if _, twice := object[name]; twice {
		return errJSONDuplicate
	}
	d.space()
	if d.peek() != ':' {
		return errJSONSyntax
	}
	d.pos++
	d.space()
	value, err := d.value(depth + 1)
	if err != nil {
		return err
	}
	object[name] = value
	return nil
}

// array reads an array; the caller has seen its opening bracket.
func (d *decoder) array(depth int) ([]any, error) {
	if depth > d.limits.depth {
		return nil, errJSONTooLarge
	}
	d.pos++
	array := []any{}
	d.space()
	if d.peek() == ']' {
		d.pos++
		return array, nil
	}
	for {
		if err := d.enter(); err != nil {
			return nil, err
		}
		d.space()
		value, err := d.value(depth + 1)
		if err != nil {
			return nil, err
		}
		array = append(array, value)
		last, err := d.next(']')
		if err != nil || last {
			return array, err
		}
	}
}

// next reads what follows a member or element: a comma, or the closing byte.
func (d *decoder) next(closing byte) (last bool, err error) {
	d.space()
	switch d.peek() {
	case ',':
		d.pos++
		return false, nil
	case closing:
		d.pos++
		return true, nil
	}
	return false, errJSONSyntax
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func (d *decoder) digits() int {
	start := d.pos
	for isDigit(d.peek()) {
		d.pos++
	}
	return d.pos - start
}

func (d *decoder) number() (any, error) {
	start := d.pos
	if d.peek() == '-' {
		d.pos++
	}
	leadingZero := d.peek() == '0'
	if n := d.digits(); n == 0 || leadingZero && n > 1 {
		return nil, errJSONSyntax
	}
	if d.peek() == '.' {
		d.pos++
		if d.digits() == 0 {
			return nil, errJSONSyntax
		}
	}
	if c := d.peek(); c == 'e' || c == 'E' {
		d.pos++
		if c := d.peek(); c == '+' || c == '-' {
			d.pos++
		}
		if d.digits() == 0 {
			return nil, errJSONSyntax
		}
	}
	if d.pos-start > maxNumber {
		return nil, errJSONTooLarge
	}
	return json.Number(d.data[start:d.pos]), nil
}

// text reads a string; the caller has seen its opening quote. Without an escape
// the result shares the document's memory.
func (d *decoder) text() (string, error) {
	d.pos++
	start := d.pos
	for ; d.pos < len(d.data); d.pos++ {
		switch c := d.data[d.pos]; {
		case c == '"':
			s := d.data[start:d.pos]
			d.pos++
			return s, nil
		case c == '\\':
			return d.escapedText(start)
		case c < ' ':
			return "", errJSONSyntax
		}
	}
	return "", errJSONSyntax
}

// escapedText goes on with a string that began at start and has its first
// escape at the current position.
func (d *decoder) escapedText(start int) (string, error) {
	var b strings.Builder
	b.WriteString(d.data[start:d.pos])
	for d.pos < len(d.data) {
		c := d.data[d.pos]
		d.pos++
		switch {
		case c == '"':
			return b.String(), nil
		case c == '\\':
			r, err := d.escape()
			if err != nil {
				return "", err
			}
			b.WriteRune(r)
		case c < ' ':
			return "", errJSONSyntax
		default:
			b.WriteByte(c)
		}
	}
	return "", errJSONSyntax
}

// escape reads what follows a backslash.
func (d *decoder) escape() (rune, error) {
	c := d.peek()
	d.pos++
	switch c {
	case '"', '\\', '/':
		return rune(c), nil
	case 'b':
		return '\b', nil
	case 'f':
		return '\f', nil
	case 'n':
		return '\n', nil
	case 'r':
		return '\r', nil
	case 't':
		return '\t', nil
	case 'u':
		return d.unicodeEscape()
	}
	return 0, errJSONSyntax
}

// unicodeEscape reads what follows \u. Half a surrogate pair is refused: it
// stands for no character, and parsers differ in what they make of it.
func (d *decoder) unicodeEscape() (rune, error) {
	r, err := d.hex4()
	if err != nil || !utf16.IsSurrogate(r) {
		return r, err
	}
	if !strings.HasPrefix(d.data[d.pos:], `\u`) {
		return 0, errJSONSyntax
	}
	d.pos += len(`\u`)
	low, err := d.hex4()
	if err != nil {
		return 0, err
	}
	if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
		return 0, errJSONSyntax
	}
	return r, nil
}

func (d *decoder) hex4() (rune, error) {
	if len(d.data)-d.pos < 4 {
		return 0, errJSONSyntax
	}
	n, err := strconv.ParseUint(d.data[d.pos:d.pos+4], 16, 16)
	if err != nil {
		return 0, errJSONSyntax
	}
	d.pos += 4
	return rune(n), nil
}
