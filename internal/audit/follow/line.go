package follow

import (
	"bytes"
	"encoding/json"
	"errors"
	"unicode/utf8"
)

// maxName bounds instance, epoch and class: they become keys in the sinks.
const maxName = 256

var (
	errNotJSON  = errors.New("is not a JSON object in UTF-8")
	errNoSeq    = errors.New("has no sequence number above zero")
	errNoOwner  = errors.New("names no instance")
	errLongName = errors.New("has an instance, epoch or class of over 256 bytes")
	errOversize = errors.New("is longer than one MiB")
)

// head is what a follower reads of a line. The slices are JSON values inside
// the line, nil when absent.
type head struct {
	seq                             uint64
	instance, class, epoch, details []byte
}

// readHead checks that line is an event and finds its outer fields. Of a
// repeated name the last counts, as with encoding/json.
func readHead(line []byte) (head, error) {
	var h head
	if len(line) == 0 || line[0] != '{' || !utf8.Valid(line) || !json.Valid(line) {
		return h, errNotJSON
	}
	var seq []byte
	members(line, func(key, value []byte) {
		switch string(key) {
		case "seq":
			seq = value
		case "instance":
			h.instance = value
		case "class":
			h.class = value
		case "epoch":
			h.epoch = value
		case "details":
			h.details = value
		}
	})
	if h.seq = number(seq); h.seq == 0 {
		return h, errNoSeq
	}
	if len(h.instance) <= len(`""`) || h.instance[0] != '"' {
		return h, errNoOwner
	}
	if len(h.instance) > maxName || len(h.class) > maxName || len(h.epoch) > maxName {
		return h, errLongName
	}
	return h, nil
}

// bootOf returns the epoch a line names: its own field, or the one among the
// details of the event that begins a segment. Empty when there is none.
func (h head) bootOf() string {
	if epoch := text(h.epoch); epoch != "" {
		return epoch
	}
	if len(h.details) == 0 || h.details[0] != '{' {
		return ""
	}
	var epoch []byte
	members(h.details, func(key, value []byte) {
		if string(key) == "epoch" {
			epoch = value
		}
	})
	if len(epoch) > maxName {
		return ""
	}
	return text(epoch)
}

// members calls visit for each member of a JSON object that is known to be
// valid: the key between its quotes, and the value as it stands.
func members(object []byte, visit func(key, value []byte)) {
	i := 1
	for i < len(object) {
		open := bytes.IndexByte(object[i:], '"')
		if open < 0 {
			return
		}
		key := object[i+open:]
		key = key[:stringEnd(key)]
		i += open + len(key)
		i += bytes.IndexByte(object[i:], ':') + 1
		for i < len(object) && isSpace(object[i]) {
			i++
		}
		value := object[i:]
		value = value[:valueEnd(value)]
		i += len(value)
		visit(plainKey(key), value)
	}
}

// plainKey takes the quotes off a key and resolves its escapes.
func plainKey(quoted []byte) []byte {
	if bytes.IndexByte(quoted, '\\') >= 0 {
		return []byte(text(quoted))
	}
	return quoted[1 : len(quoted)-1]
}

// stringEnd returns the length of the JSON string that s begins with.
func stringEnd(s []byte) int {
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
			i += stringEnd(s[i:]) - 1
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

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

// text returns the JSON string value, or "" for anything else.
func text(value []byte) string {
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

// number returns the positive integer, or zero for anything else.
func number(value []byte) uint64 {
	if len(value) == 0 || len(value) > 19 { // every 19 digits fit
		return 0
	}
	var n uint64
	for _, c := range value {
		if c < '0' || c > '9' {
			return 0
		}
		n = n*10 + uint64(c-'0')
	}
	return n
}
