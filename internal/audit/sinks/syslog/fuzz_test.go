package syslog_test

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/moat-gateway/moat/internal/audit/follow"
	"github.com/moat-gateway/moat/internal/audit/sinks/syslog"
	"github.com/moat-gateway/moat/internal/audit/sinktest"
)

// FuzzMessage checks that a strict receiver reads back what was sent, whatever
// an event says, and that what does not fit the header only ever becomes "_".
func FuzzMessage(f *testing.F) {
	for _, seed := range []struct{ raw, instance, epoch string }{
		{string(sinktest.Line(1, 0).Raw), "gw", "boot-1"},
		{`{"timestamp":"2026-01-02T03:04:05.123456+02:00","action":"a b","severity":"low","outcome":"]\\\"","id":"\u0000\ud800"}`, "k\nöln", `"]\`},
		{`{"timestamp":7,"action":[],"severity":{},"outcome":null,"id":1e9}`, "", ""},
		{`{"timestamp":"9999-12-31T23:59:59-23:59","ACTION":"x","action":"` + strings.Repeat("ü", 40) + `"}`, strings.Repeat("x", 300), "\xff"},
		{`["no object"]`, "-", "-"},
	} {
		f.Add([]byte(seed.raw), seed.instance, seed.epoch, uint64(1)<<40)
	}
	s := formatter(f, func(c *syslog.Config) { c.Enterprise = 4294967295 })
	f.Fuzz(func(t *testing.T, raw []byte, instance, epoch string, seq uint64) {
		if !json.Valid(raw) || !utf8.Valid(raw) || seq == 0 || len(raw) > follow.MaxLine {
			return // no line of a journal
		}
		m := sent(t, s, follow.Line{Seq: seq, Instance: instance, Epoch: epoch, Class: "access", Raw: raw})
		if m.text != string(raw) {
			t.Errorf("sent %q, received %q", raw, m.text)
		}
		var event struct{ Outcome, ID string }
		_ = json.Unmarshal(raw, &event)
		own := m.data["moat@4294967295"]
		for _, pair := range [][2]string{{instance, m.host}, {epoch, own["epoch"]}, {event.Outcome, own["outcome"]}, {event.ID, own["id"]}} {
			resembles(t, pair[0], pair[1])
		}
	})
}

// resembles compares what was received with the beginning of what was meant.
func resembles(t *testing.T, meant, got string) {
	t.Helper()
	if meant == "" && (got == "" || got == "-") {
		return
	}
	runes := []rune(meant)
	if len(got) > len(runes) || len(got) < min(len(runes), 128) {
		t.Errorf("%q became %q", meant, got)
		return
	}
	for i, c := range []byte(got) {
		if rune(c) != runes[i] && c != '_' {
			t.Errorf("%q became %q", meant, got)
			return
		}
	}
}
