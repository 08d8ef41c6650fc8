package syslog

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/moat-gateway/moat/internal/audit/follow"
)

// Bounds of RFC 5424, sections 6 and 7.3.1, and one of our own.
const (
	maxHostname   = 255
	maxMsgID      = 32
	maxSequenceID = 1<<31 - 1
	// maxValue bounds a value of structured data. The whole one is in the message.
	maxValue = 128
)

// layout is RFC 5424's timestamp: of RFC 3339's forms, with at most six digits.
const layout = "2006-01-02T15:04:05.000000Z"

// format writes messages.
type format struct {
	facility   int
	appName    string
	enterprise uint32
	limit      int

	header []byte // reused
}

// fields are what a message's header says of an event.
type fields struct {
	Timestamp string `json:"timestamp"`
	Action    string `json:"action"`
	Outcome   string `json:"outcome"`
	Severity  string `json:"severity"`
	ID        string `json:"id"`
}

// append adds the line as one message, its length before it (RFC 5425, section
// 4.3; RFC 6587, section 3.4.1).
func (f *format) append(dst []byte, line follow.Line) ([]byte, error) {
	var event fields
	// A field of another type stays empty, and the line is sent all the same.
	_ = json.Unmarshal(line.Raw, &event)
	f.header = f.appendHeader(f.header[:0], line, event)
	content := line.Content()
	size := len(f.header) + len(content)
	if size > f.limit {
		return dst, fmt.Errorf("syslog: a message of %d bytes: max_message is %d", size, f.limit)
	}
	dst = strconv.AppendInt(dst, int64(size), 10)
	dst = append(dst, ' ')
	dst = append(dst, f.header...)
	// No byte order mark goes before it: receivers would have to take it off
	// again, since JSON must not begin with one (RFC 8259, section 8.1). RFC 5424
	// calls such a message MSG-ANY.
	return append(dst, content...), nil
}

// appendHeader adds all that stands before the message proper.
func (f *format) appendHeader(dst []byte, line follow.Line, event fields) []byte {
	dst = append(dst, '<')
	dst = strconv.AppendInt(dst, int64(f.facility*8+severity(event.Severity)), 10)
	dst = append(dst, ">1 "...)
	dst = appendTime(dst, event.Timestamp)
	dst = append(dst, ' ')
	dst = append(dst, headerField(line.Instance, maxHostname)...)
	dst = append(dst, ' ')
	dst = append(dst, f.appName...)
	dst = append(dst, " - "...) // the process says nothing: instance and epoch do
	dst = append(dst, headerField(event.Action, maxMsgID)...)
	dst = append(dst, ' ')
	dst = f.appendStructured(dst, line, event)
	return append(dst, ' ')
}

// appendStructured adds the structured data. A sequenceId begins anew where it
// would become too large.
func (f *format) appendStructured(dst []byte, line follow.Line, event fields) []byte {
	dst = append(dst, `[meta sequenceId="`...)
	dst = strconv.AppendUint(dst, (max(line.Seq, 1)-1)%maxSequenceID+1, 10)
	dst = append(dst, `"]`...)
	if f.enterprise == 0 {
		return dst
	}
	dst = append(dst, "[moat@"...)
	dst = strconv.AppendUint(dst, uint64(f.enterprise), 10)
	dst = append(dst, ` seq="`...)
	dst = strconv.AppendUint(dst, line.Seq, 10)
	dst = append(dst, '"')
	dst = appendParam(dst, "epoch", line.Epoch)
	dst = appendParam(dst, "class", line.Class)
	dst = appendParam(dst, "outcome", event.Outcome)
	dst = appendParam(dst, "id", event.ID)
	return append(dst, ']')
}

// appendParam escapes what RFC 5424, section 6.3.3 demands. What is not
// printable ASCII becomes an underscore, because a line break or a mark that
// turns the text around would deceive whoever reads the receiver's file.
func appendParam(dst []byte, name, value string) []byte {
	dst = append(dst, ' ')
	dst = append(dst, name...)
	dst = append(dst, `="`...)
	for _, c := range []byte(printable(value, ' ', maxValue)) {
		if c == '"' || c == '\\' || c == ']' {
			dst = append(dst, '\\')
		}
		dst = append(dst, c)
	}
	return append(dst, '"')
}

// appendTime adds the time in UTC with microseconds, or "-" for what is none.
func appendTime(dst []byte, text string) []byte {
	at, err := time.Parse(time.RFC3339Nano, text)
	at = at.UTC()
	if year := at.Year(); err != nil || year < 0 || year > 9999 {
		return append(dst, '-')
	}
	return at.AppendFormat(dst, layout)
}

// severity returns the number of RFC 5424, table 2, for a severity of ours. An
// event without one counts as medium.
func severity(text string) int {
	switch text {
	case "high":
		return 4 // warning
	case "low":
		return 6 // informational
	default:
		return 5 // notice: normal but significant
	}
}

// headerField makes a value fit the header: printable ASCII without a space, or
// "-" for an empty one.
func headerField(value string, limit int) string {
	if value == "" {
		return "-"
	}
	return printable(value, '!', limit)
}

// printable replaces each character outside of ASCII from first to "~" and cuts
// at limit. What fits already is returned as it is.
func printable(value string, first rune, limit int) string {
	fits := len(value) <= limit
	for i := 0; fits && i < len(value); i++ {
		fits = rune(value[i]) >= first && value[i] <= '~'
	}
	if fits {
		return value
	}
	clean := make([]byte, 0, limit)
	for _, r := range value {
		if len(clean) == limit {
			break
		}
		if r < first || r > '~' {
			r = '_'
		}
		clean = append(clean, byte(r))
	}
	return string(clean)
}
