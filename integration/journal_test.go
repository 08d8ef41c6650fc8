//go:build linux

package integration

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// event is one line of the journal.
type event struct {
	Line   []byte // without the newline
	Fields map[string]any

	Timestamp  string         `json:"timestamp"`
	UserID     string         `json:"userId"`
	Action     string         `json:"action"`
	Resource   string         `json:"resource"`
	Details    map[string]any `json:"details"`
	IP         string         `json:"ip"`
	ID         string         `json:"id"`
	Seq        uint64         `json:"seq"`
	Instance   string         `json:"instance"`
	Class      string         `json:"class"`
	Outcome    string         `json:"outcome"`
	Reason     string         `json:"reason"`
	Severity   string         `json:"severity"`
	RequestID  string         `json:"requestId"`
	Tenant     string         `json:"tenant"`
	Roles      []string       `json:"roles"`
	Method     string         `json:"method"`
	Host       string         `json:"host"`
	Path       string         `json:"path"`
	Route      string         `json:"route"`
	Status     int            `json:"status"`
	DurationMs float64        `json:"durationMs"`
	BytesIn    int64          `json:"bytesIn"`
	BytesOut   int64          `json:"bytesOut"`
	Prev       string         `json:"prev"`
}

// readJournal returns every complete line of a journal, oldest first.
func readJournal(t testing.TB, dir string) []event {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(files)
	var events []event
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for len(data) > 0 {
			line, rest, whole := bytes.Cut(data, []byte("\n"))
			if !whole {
				break
			}
			data = rest
			e := event{Line: line}
			if err := json.Unmarshal(line, &e); err != nil {
				t.Fatalf("%s: %v\n%s", file, err, line)
			}
			if err := json.Unmarshal(line, &e.Fields); err != nil {
				t.Fatal(err)
			}
			events = append(events, e)
		}
	}
	return events
}

// ofRequest returns the events that carry the request id.
func ofRequest(events []event, id string) []event {
	return filterEvents(events, func(e event) bool { return e.RequestID == id })
}

func filterEvents(events []event, keep func(event) bool) []event {
	var out []event
	for _, e := range events {
		if keep(e) {
			out = append(out, e)
		}
	}
	return out
}

// awaitEvent waits for the event of a request; the journal is written beside the
// answer, not before it.
func awaitEvent(t testing.TB, dir, requestID string) event {
	t.Helper()
	if requestID == "" {
		t.Fatal("the answer carries no X-Request-Id, so its event cannot be found")
	}
	var found []event
	await(t, 10*time.Second, "the event of request "+requestID, func() bool {
		found = ofRequest(readJournal(t, dir), requestID)
		return len(found) > 0
	})
	return found[0]
}
