package sqlite

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/moat-gateway/moat/internal/audit/follow"
)

const (
	// maxColumn bounds a searchable column, in bytes, as in the sink for
	// PostgreSQL, so that a search finds the same in both. The line is whole.
	maxColumn = 256
	// sortable is the layout of the column ts, in UTC.
	sortable = "2006-01-02T15:04:05.000000Z"
)

// names are the columns in the order of rowOf.
const names = "instance, epoch, seq, ts, class, user_id, action, outcome, ip, request_id, line"

// columns are the fields of an event that have columns of their own.
type columns struct {
	Timestamp string `json:"timestamp"`
	UserID    string `json:"userId"`
	Action    string `json:"action"`
	Outcome   string `json:"outcome"`
	IP        string `json:"ip"`
	RequestID string `json:"requestId"`
}

// rowsOf returns the values of all rows. They hold nothing of the lines, which
// are valid during the delivery only.
func rowsOf(lines []follow.Line) ([][]any, error) {
	rows := make([][]any, len(lines))
	for i, line := range lines {
		row, err := rowOf(line)
		if err != nil {
			return nil, &follow.Poison{Index: i, Err: fmt.Errorf("sqlite: %w", err)}
		}
		rows[i] = row
	}
	return rows, nil
}

func rowOf(line follow.Line) ([]any, error) {
	if line.Seq > math.MaxInt64 {
		return nil, errors.New("the sequence number does not fit the column")
	}
	for _, key := range []string{line.Instance, line.Epoch} {
		if key != column(key) {
			return nil, errors.New("the instance or epoch does not fit the column")
		}
	}
	// SQLite would store it, and its functions and tools would show half of it.
	if bytes.IndexByte(line.Raw, 0) >= 0 || !utf8.Valid(line.Raw) {
		return nil, errors.New("the line is no text")
	}
	var c columns
	// A field of another type stays empty, and the line is stored all the same.
	_ = json.Unmarshal(line.Raw, &c)
	return []any{
		line.Instance, line.Epoch, int64(line.Seq), timeOf(c.Timestamp), column(line.Class), column(c.UserID), column(c.Action),
		column(c.Outcome), column(c.IP), column(c.RequestID), string(line.Raw),
	}, nil
}

// timeOf returns the sortable form of a time, or nil when there is none: a year
// of other than four digits would sort wrongly.
func timeOf(timestamp string) any {
	at, err := time.Parse(time.RFC3339Nano, timestamp)
	if err != nil {
		return nil
	}
	at = at.UTC()
	if at.Year() < 0 || at.Year() > 9999 {
		return nil
	}
	return at.Format(sortable)
}

// column makes a value fit: many functions of SQLite end a text at NUL, which
// JSON can spell, and none expects broken UTF-8.
func column(value string) string {
	value = strings.ToValidUTF8(strings.ReplaceAll(value, "\x00", "\uFFFD"), "\uFFFD")
	if len(value) <= maxColumn {
		return value
	}
	end := maxColumn
	for !utf8.RuneStart(value[end]) {
		end--
	}
	return value[:end]
}
