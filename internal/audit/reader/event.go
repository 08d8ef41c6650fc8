package reader

import (
	"encoding/json"
	"time"

	"github.com/moat-gateway/moat/internal/audit"
)

// Event is what of a line a reader asks about or shows.
type Event struct {
	Time      time.Time `json:"timestamp"`
	User      string    `json:"userId"`
	Action    string    `json:"action"`
	IP        string    `json:"ip"`
	Class     string    `json:"class"`
	Outcome   string    `json:"outcome"`
	Reason    string    `json:"reason"`
	Severity  string    `json:"severity"`
	RequestID string    `json:"requestId"`
	Tenant    string    `json:"tenant"`
	Method    string    `json:"method"`
	Path      string    `json:"path"`
	Status    int       `json:"status"`
	Seq       uint64    `json:"seq"`

	// Raw is the line as it is in the trail, without its line end. It is valid
	// until the next event; Clone keeps it.
	Raw []byte `json:"-"`
}

// Clone returns an event that stays valid.
func (e *Event) Clone() *Event {
	c := *e
	c.Raw = append([]byte(nil), e.Raw...)
	return &c
}

// parse reads a line without its line end into e. It is false when that is no
// event.
func (e *Event) parse(line []byte) bool {
	*e = Event{Raw: line}
	return len(line) <= audit.MaxLine && json.Unmarshal(line, e) == nil && e.Seq > 0
}
