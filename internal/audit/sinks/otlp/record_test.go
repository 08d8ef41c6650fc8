package otlp_test

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/moat-gateway/moat/internal/audit"
	"github.com/moat-gateway/moat/internal/audit/follow"
	"github.com/moat-gateway/moat/internal/audit/sinks/otlp"
	"github.com/moat-gateway/moat/internal/audit/sinktest"
)

var day = time.Date(2026, 1, 2, 3, 4, 5, 678901000, time.UTC)

// request is an event as the gateway writes it.
func request(seq uint64, edit func(*audit.Event)) follow.Line {
	e := audit.Event{
		Timestamp: day, UserID: "u-7", Action: "http.request", Resource: "GET app.example/x", IP: "203.0.113.7",
		ID: audit.NewID(day), Class: audit.Security, Outcome: audit.Deny, Reason: "rbac.no-rule", RequestID: audit.NewID(day),
		Tenant: "acme", Roles: []string{"reader", "editor"}, Method: "GET", Host: "app.example:8443", Path: "/x/ä", Route: "/x/*",
		Status: 403, Duration: 1234 * time.Microsecond, BytesIn: 5, BytesOut: 42, Seq: seq, Instance: "gw-a",
		Prev: fmt.Sprintf("%x", sha256.Sum256([]byte{byte(seq), byte(seq >> 8)})),
	}
	if edit != nil {
		edit(&e)
	}
	return follow.Line{Seq: seq, Instance: e.Instance, Class: string(e.Class.Known()), Epoch: "boot-1", Raw: e.AppendJSON(nil)}
}

func requests(n uint64) []follow.Line {
	var lines []follow.Line
	for seq := uint64(1); seq <= n; seq++ {
		lines = append(lines, request(seq, func(e *audit.Event) {
			e.Timestamp = day.Add(time.Duration(seq) * 137 * time.Millisecond)
			e.UserID, e.IP = fmt.Sprintf("u-%d", seq*7919%1000), fmt.Sprintf("203.0.113.%d", seq*31%256)
			e.Path, e.BytesOut = fmt.Sprintf("/orders/%d/lines", seq*104729), int64(seq*613%9000)
		}))
	}
	return lines
}

// sent returns the records of one delivery.
func sent(t testing.TB, compression string, lines ...follow.Line) ([]record, error) {
	t.Helper()
	var out []record
	s, err := otlp.New(otlp.Config{
		URL: "https://siem.example.com", Compression: compression, Now: func() time.Time { return day.Add(time.Hour) },
		Client: &http.Client{Transport: spy(func(req *http.Request, body []byte) {
			body, err := unpacked(req.Header.Get("Content-Encoding"), body)
			if err != nil {
				t.Error(err)
			}
			if out, err = recordsOf(body); err != nil {
				t.Error(err)
			}
		})},
	})
	if err != nil {
		t.Fatal(err)
	}
	err = s.Deliver(t.Context(), lines)
	return out, err
}

// one returns the record of a line that is accepted.
func one(t *testing.T, line follow.Line) record {
	t.Helper()
	got, err := sent(t, otlp.None, line)
	if err != nil || len(got) != 1 {
		t.Fatalf("%d records, %v", len(got), err)
	}
	return got[0]
}

func TestAnEventBecomesALogRecordByTheConventions(t *testing.T) {
	line := request(9, nil)
	var ids struct{ ID, RequestID string }
	if err := json.Unmarshal(line.Raw, &ids); err != nil {
		t.Fatal(err)
	}
	want := record{
		service: "moat", instance: "gw-a", scope: "github.com/moat-gateway/moat",
		time: uint64(day.UnixNano()), observed: uint64(day.UnixNano()), severity: 13, severityText: "medium",
		body: string(line.Raw), name: "moat.audit",
		attributes: map[string]any{
			"moat.seq": int64(9), "moat.epoch": "boot-1", "moat.class": "security", "moat.action": "http.request",
			"moat.outcome": "deny", "moat.reason": "rbac.no-rule", "moat.request_id": ids.RequestID, "moat.tenant": "acme",
			"log.record.uid": ids.ID, "client.address": "203.0.113.7", "user.id": "u-7", "user.roles": []any{"reader", "editor"},
			"http.request.method": "GET", "server.address": "app.example", "server.port": int64(8443), "url.path": "/x/ä",
			"http.route": "/x/*", "http.response.status_code": int64(403),
			"http.request.body.size": int64(5), "http.response.body.size": int64(42),
		},
	}
	if got := one(t, line); !reflect.DeepEqual(got, want) {
		t.Errorf("record = %+v\nwant     %+v", got, want)
	}
}

func TestWhatAnEventDoesNotSayIsNoAttribute(t *testing.T) {
	line := request(1, func(e *audit.Event) {
		*e = audit.Event{Timestamp: day, Action: audit.ActionSegment, Class: audit.Admin, Outcome: audit.Allow, Seq: 1, Instance: "gw-a"}
	})
	line.Epoch = ""
	want := map[string]any{"moat.seq": int64(1), "moat.class": "admin", "moat.action": "audit.segment", "moat.outcome": "allow"}
	if got := one(t, line).attributes; !reflect.DeepEqual(got, want) {
		t.Errorf("attributes = %v, want %v", got, want)
	}
}

func TestANumberThatAnAttributeCannotHoldIsLeftOut(t *testing.T) {
	line := request(1, nil)
	line.Seq = 1 << 63
	if got, there := one(t, line).attributes["moat.seq"]; there {
		t.Errorf("moat.seq = %v", got)
	}
}

func TestSeveritiesRankAsInfoWarningAndError(t *testing.T) {
	for text, want := range map[audit.Severity]uint64{audit.Low: 9, audit.Medium: 13, audit.High: 17} {
		got := one(t, request(1, func(e *audit.Event) { e.Severity = text }))
		if got.severity != want || got.severityText != string(text) {
			t.Errorf("%s: %d %q, want %d", text, got.severity, got.severityText, want)
		}
	}
	line := request(1, nil)
	line.Raw = []byte(`{"severity":"grave"}`)
	if got := one(t, line); got.severity != 0 || got.severityText != "grave" {
		t.Errorf("an unknown severity: %d %q", got.severity, got.severityText)
	}
}

func TestAnUnreadableTimeIsUnknownAndTheRecordIsObservedNow(t *testing.T) {
	for _, text := range []string{`""`, `"yesterday"`, `7`, `"0001-01-01T00:00:00.000000Z"`, `"2500-01-01T00:00:00.000000Z"`, `"2700-01-01T00:00:00Z"`, `"1000-01-01T00:00:00Z"`, `"1969-12-31T23:59:59.999999Z"`, `"1970-01-01T00:00:00+14:00"`} {
		line := request(1, nil)
		line.Raw = []byte(`{"timestamp":` + text + `}`)
		if got := one(t, line); got.time != 0 || got.observed != uint64(day.Add(time.Hour).UnixNano()) {
			t.Errorf("%s: time %d, observed %d", text, got.time, got.observed)
		}
	}
}

func TestAHostIsTakenApartAndAStrangeMethodIsKeptApart(t *testing.T) {
	for host, want := range map[string][2]any{
		"app.example":      {"app.example", nil},
		"app.example:8443": {"app.example", int64(8443)},
		"[2001:db8::1]":    {"2001:db8::1", nil},
		"[2001:db8::1]:80": {"2001:db8::1", int64(80)},
		"2001:db8::1":      {"2001:db8::1", nil},
		"app:99999":        {"app", nil},
		"app:":             {"app", nil},
		"":                 {nil, nil},
	} {
		got := one(t, request(1, func(e *audit.Event) { e.Host = host })).attributes
		if got["server.address"] != want[0] || got["server.port"] != want[1] {
			t.Errorf("%q: %v %v", host, got["server.address"], got["server.port"])
		}
	}
	for method, want := range map[string][2]any{
		"QUERY": {"QUERY", nil}, "get": {"_OTHER", "get"}, "BREW": {"_OTHER", "BREW"}, "": {nil, nil},
	} {
		got := one(t, request(1, func(e *audit.Event) { e.Method = method })).attributes
		if got["http.request.method"] != want[0] || got["http.request.method_original"] != want[1] {
			t.Errorf("%q: %v %v", method, got["http.request.method"], got["http.request.method_original"])
		}
	}
}

func TestEachInstanceHasItsResourceAndOrderIsKept(t *testing.T) {
	var lines []follow.Line
	for i, instance := range []string{"gw-a", "gw-a", "gw-b", "gw-b", "gw-a"} {
		lines = append(lines, request(uint64(i)+1, func(e *audit.Event) { e.Instance = instance }))
	}
	got, err := sent(t, otlp.Gzip, lines...)
	if err != nil || len(got) != len(lines) {
		t.Fatalf("%d records, %v", len(got), err)
	}
	for i, rec := range got {
		if rec.body != string(lines[i].Raw) || rec.instance != lines[i].Instance {
			t.Errorf("record %d: %s of %s", i, rec.body, rec.instance)
		}
	}
}

func TestALineThatIsNoTextIsPoison(t *testing.T) {
	lines := sinktest.Lines(1, 3)
	lines[1].Text = []byte("{\"a\":\"\xff\"}")
	_, err := sent(t, otlp.Gzip, lines...)
	var poison *follow.Poison
	if !errors.As(err, &poison) || poison.Index != 1 {
		t.Errorf("Deliver = %v", err)
	}
}

func FuzzAnyLineArrivesByteForByte(f *testing.F) {
	f.Add(request(1, nil).Raw)
	f.Add(sinktest.Line(1, 300).Raw)
	for _, raw := range []string{
		``, `null`, `[]`, `"x"`, `{}`, `{"status":"x","userId":7,"roles":[1,"a"],"path":"/ok"}`, `{"status":1e99,"bytesIn":-1}`,
		`{"timestamp":"9999-12-31T23:59:59Z","severity":"\ud800","roles":[""]}`, `{"host":"[::1","method":"\u0000"}`,
		`{"id":"a","ID":"b","iD":null}`, "{\"a\":\"\xff\"}", `{"details":{"details":{}},"roles":{}}`, `{"path":"` + "\u2028" + `"`,
	} {
		f.Add([]byte(raw))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		line := follow.Line{Seq: 1, Instance: "gw-a", Class: "access", Raw: raw}
		for _, compression := range []string{otlp.Gzip, otlp.None} {
			got, err := sent(t, compression, line)
			if !utf8.Valid(raw) {
				if poison := (*follow.Poison)(nil); !errors.As(err, &poison) {
					t.Fatalf("not UTF-8: %v", err)
				}
				continue
			}
			if err != nil || len(got) != 1 || got[0].body != string(raw) {
				t.Fatalf("%d records, %v: %+v", len(got), err, got)
			}
			if rec := got[0]; rec.observed == 0 || rec.others != nil || rec.instance != "gw-a" {
				t.Fatalf("record = %+v", rec)
			}
			for key, value := range got[0].attributes {
				if value == "" || value == int64(0) {
					t.Fatalf("attribute %s has no value", key)
				}
			}
		}
	})
}
