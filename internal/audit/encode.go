package audit

import (
	"strconv"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// MaxLine is the most bytes AppendJSON appends for one event, whatever is in
// it. Readers of a trail may refuse a longer line.
const MaxLine = 32 << 10

// Bounds of the fields in bytes of their escaped form, without the quotes. A
// longer value is cut at a character and ends in "…".
const (
	maxUserID    = 256
	maxAction    = 128
	maxResource  = 2048 + 256
	maxIP        = 64
	maxID        = 64
	maxReason    = 256
	maxRequestID = 128
	maxTenant    = 256
	maxRoles     = 32
	maxRole      = 128
	maxMethod    = 32
	maxHost      = 256
	maxPath      = 2048
	maxRoute     = 1024
	maxInstance  = 128
	maxPrev      = 64
)

const timeLayout = "2006-01-02T15:04:05.000000Z"

// ellipsis marks a value that was cut.
const ellipsis = "…"

// AppendJSON appends the event as one JSON object and returns the extended
// slice. All fields are always present: timestamp, userId, action, resource,
// details, ip, id, class, outcome, reason, severity, requestId, tenant, roles,
// method, host, path, route, status, durationMs, bytesIn, bytesOut, seq,
// instance, prev. What is appended is valid UTF-8 (invalid bytes become
// U+FFFD), holds no line break and no unescaped control or invisible character,
// and is at most MaxLine bytes long.
func (e *Event) AppendJSON(dst []byte) []byte {
	return AppendChain(e.AppendOpen(dst), e.Seq, e.Instance, e.Prev)
}

// AppendOpen appends what AppendJSON does up to the fields that only the
// journal knows. AppendChain completes the object.
func (e *Event) AppendOpen(dst []byte) []byte {
	dst = append(dst, `{"timestamp":"`...)
	dst = appendTime(dst, e.Timestamp)
	dst = append(dst, `","userId":`...)
	user := e.veil.Of(KindUser, e.UserID)
	if user == "" {
		user = "anonymous"
	}
	dst = appendQuoted(dst, user, maxUserID)
	dst = appendField(dst, `,"action":`, e.Action, maxAction)
	dst = appendField(dst, `,"resource":`, e.Resource, maxResource)
	dst = append(dst, `,"details":`...)
	dst = e.Details.appendJSON(dst)
	dst = appendField(dst, `,"ip":`, e.veil.Of(KindIP, e.IP), maxIP)
	dst = appendField(dst, `,"id":`, e.ID, maxID)
	dst = appendField(dst, `,"class":`, string(e.Class.Known()), maxAction)
	dst = appendField(dst, `,"outcome":`, string(e.Outcome.Known()), maxAction)
	dst = appendField(dst, `,"reason":`, e.Reason, maxReason)
	dst = appendField(dst, `,"severity":`, string(e.severity()), maxAction)
	dst = appendField(dst, `,"requestId":`, e.RequestID, maxRequestID)
	dst = appendField(dst, `,"tenant":`, e.Tenant, maxTenant)
	dst = append(dst, `,"roles":`...)
	dst = appendWords(dst, e.Roles, maxRoles, maxRole)
	return e.appendRequest(dst)
}

// appendRequest appends what is known of the request and its answer.
func (e *Event) appendRequest(dst []byte) []byte {
	dst = appendField(dst, `,"method":`, e.Method, maxMethod)
	dst = appendField(dst, `,"host":`, e.Host, maxHost)
	dst = appendField(dst, `,"path":`, e.Path, maxPath)
	dst = appendField(dst, `,"route":`, e.Route, maxRoute)
	dst = append(dst, `,"status":`...)
	dst = strconv.AppendInt(dst, int64(e.Status), 10)
	dst = append(dst, `,"durationMs":`...)
	dst = appendMillis(dst, e.Duration)
	dst = append(dst, `,"bytesIn":`...)
	dst = strconv.AppendInt(dst, max(e.BytesIn, 0), 10)
	dst = append(dst, `,"bytesOut":`...)
	return strconv.AppendInt(dst, max(e.BytesOut, 0), 10)
}

// AppendChain completes an object that AppendOpen began with the number of the
// event in its trail, the instance that wrote it and the SHA-256 of the line
// before it in lower-case hex.
func AppendChain(dst []byte, seq uint64, instance, prev string) []byte {
	dst = append(dst, `,"seq":`...)
	dst = strconv.AppendUint(dst, seq, 10)
	dst = appendField(dst, `,"instance":`, instance, maxInstance)
	dst = appendField(dst, `,"prev":`, prev, maxPrev)
	return append(dst, '}')
}

// severity returns the given severity, or the computed one.
func (e *Event) severity() Severity {
	switch e.Severity {
	case Low, Medium, High:
		return e.Severity
	}
	what := e.Action
	if e.Outcome.Known() == Deny {
		what = e.Code()
	}
	return SeverityOf(e.Class, e.Outcome, what)
}

func appendField(dst []byte, name, value string, limit int) []byte {
	return appendQuoted(append(dst, name...), value, limit)
}

// appendTime writes RFC 3339 in UTC with six digits. A year that RFC 3339 can
// not express is written as the zero time.
func appendTime(dst []byte, t time.Time) []byte {
	t = t.UTC()
	if y := t.Year(); y < 1 || y > 9999 {
		t = time.Time{}
	}
	return t.AppendFormat(dst, timeLayout)
}

// appendMillis writes milliseconds with three decimals; a negative duration,
// as a clock that was set back can give, is 0.
func appendMillis(dst []byte, d time.Duration) []byte {
	us := max(d, 0).Microseconds()
	dst = strconv.AppendInt(dst, us/1000, 10)
	rest := us % 1000
	return append(dst, '.', byte('0'+rest/100), byte('0'+rest/10%10), byte('0'+rest%10))
}

// appendWords appends an array of at most count strings; more of them are
// shown by a last element "…".
func appendWords(dst []byte, words []string, count, limit int) []byte {
	dst = append(dst, '[')
	for i, word := range words {
		if i > 0 {
			dst = append(dst, ',')
		}
		if i == count-1 && len(words) > count {
			dst = appendQuoted(dst, ellipsis, limit)
			break
		}
		dst = appendQuoted(dst, word, limit)
	}
	return append(dst, ']')
}

// plain marks the bytes that stand for themselves in a JSON string.
var plain = func() (table [256]bool) {
	for c := ' '; c < 0x7f; c++ {
		table[c] = c != '"' && c != '\\'
	}
	return table
}()

// appendQuoted appends s as a JSON string of at most limit bytes between the
// quotes.
func appendQuoted(dst []byte, s string, limit int) []byte {
	dst = append(dst, '"')
	if len(s) > limit || !isPlain(s) {
		return append(appendEscaped(dst, s, limit), '"')
	}
	return append(append(dst, s...), '"')
}

func isPlain(s string) bool {
	for i := range len(s) {
		if !plain[s[i]] {
			return false
		}
	}
	return true
}

// appendEscaped looks at no more of s than fits, so a huge value costs no more
// than a full one.
func appendEscaped(dst []byte, s string, limit int) []byte {
	start, cut := len(dst), len(dst)
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		dst = appendRune(dst, r)
		if len(dst)-start > limit {
			return append(dst[:cut], ellipsis...)
		}
		if len(dst)-start <= limit-len(ellipsis) {
			cut = len(dst)
		}
		i += size
	}
	return dst
}

// appendRune escapes what JSON demands and every character that is not
// printable: C1 controls, line and paragraph separators and bidirectional
// marks make some readers see a second line, and a terminal a different text
// (CWE-117). A JSON reader gets the same character either way.
func appendRune(dst []byte, r rune) []byte {
	switch {
	case r == '"' || r == '\\':
		return append(dst, '\\', byte(r))
	case r < 0x80 && plain[r], r == utf8.RuneError, r >= 0x80 && unicode.IsPrint(r):
		return utf8.AppendRune(dst, r)
	case r > 0xffff:
		high, low := utf16.EncodeRune(r)
		return appendHex(appendHex(dst, high), low)
	default:
		return appendHex(dst, r)
	}
}

func appendHex(dst []byte, r rune) []byte {
	const digits = "0123456789abcdef"
	return append(dst, '\\', 'u', digits[r>>12&0xf], digits[r>>8&0xf], digits[r>>4&0xf], digits[r&0xf])
}
