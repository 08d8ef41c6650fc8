package audit_test

import (
	"testing"

	"github.com/moat-gateway/moat/internal/audit"
)

func TestEncodingDoesNotAllocate(t *testing.T) {
	e := sample()
	buf := make([]byte, 0, audit.MaxLine)
	if n := testing.AllocsPerRun(100, func() { buf = e.AppendJSON(buf[:0]) }); n > 0 {
		t.Errorf("AppendJSON allocates %v times", n)
	}
	if n := testing.AllocsPerRun(100, func() { _ = audit.NewID(moment) }); n > 1+raceAllocs {
		t.Errorf("NewID allocates %v times", n)
	}
	user := "u-1"
	if n := testing.AllocsPerRun(100, func() {
		e.Details.Reset()
		e.Details.Set("auth", user)
		e.Details.Set("count", len(user))
	}); n > 0 {
		t.Errorf("Details.Set allocates %v times", n)
	}
}

func BenchmarkAppendJSON(b *testing.B) {
	e := sample()
	buf := make([]byte, 0, audit.MaxLine)
	b.ReportAllocs()
	for b.Loop() {
		buf = e.AppendJSON(buf[:0])
	}
	b.SetBytes(int64(len(buf)))
}

func BenchmarkNewID(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		_ = audit.NewID(moment)
	}
}

func BenchmarkFloodAdmit(b *testing.B) {
	f := audit.NewFlood(audit.FloodConfig{Emit: func(*audit.Event) {}})
	e := sample()
	e.Class, e.Outcome, e.Reason = audit.Security, audit.Deny, "forbidden"
	b.ReportAllocs()
	for b.Loop() {
		f.Admit(e)
	}
}
