package journal_test

import (
	"context"
	"testing"

	"github.com/moat-gateway/moat/internal/audit"
	"github.com/moat-gateway/moat/internal/audit/journal"
)

// request is an event of an ordinary request.
func request(class audit.Class) *audit.Event {
	e := event(class, "019abc00-0000-7000-8000-000000000001")
	e.UserID, e.Tenant, e.Roles, e.IP = "u-1", "acme", []string{"user"}, "203.0.113.7"
	e.Method, e.Host, e.Path, e.Route, e.Status = "GET", "orders.example.com", "/orders/17", "/orders/{id}", 200
	e.Resource, e.RequestID = "GET orders.example.com/orders/{id}", "019abc00-0000-7000-8000-000000000002"
	e.Details.Set("auth", "jwt")
	return e
}

func TestRecordingHardlyAllocates(t *testing.T) {
	ctx := context.Background()
	// What the writer does counts too: one string for the hash of a line. The
	// events of class access pile up while it sleeps, so their memory is new.
	for class, limit := range map[audit.Class]float64{audit.Security: 2, audit.Access: 5} {
		j := mustOpen(t, config(t.TempDir()))
		e := request(class)
		if n := testing.AllocsPerRun(2000, func() { _ = j.Record(ctx, e) }); n > limit {
			t.Errorf("%s: %v allocations", class, n)
		}
	}
}

func benchmark(b *testing.B, class audit.Class, change func(*journal.Config)) {
	cfg := config(b.TempDir())
	change(&cfg)
	j := mustOpen(b, cfg)
	ctx := context.Background()
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		e := request(class)
		for pb.Next() {
			if err := j.Record(ctx, e); err != nil {
				b.Error(err)
			}
		}
	})
	// What is queued has to be on disk before the clock stops.
	if err := j.Close(); err != nil {
		b.Error(err)
	}
	b.StopTimer()
	s := j.Stats()
	b.ReportMetric(float64(s.Events[class])/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric(float64(s.Dropped[class])/float64(b.N), "dropped/op")
}

// BenchmarkAccess measures how many events the writer takes when recorders are
// faster: the rest is dropped, and counted, as the class allows.
func BenchmarkAccess(b *testing.B) { benchmark(b, audit.Access, func(*journal.Config) {}) }

// BenchmarkSecurity measures events that wait for their write, of 64 at a time.
func BenchmarkSecurity(b *testing.B) {
	b.SetParallelism(32)
	benchmark(b, audit.Security, func(*journal.Config) {})
}

// BenchmarkFsyncAlways measures events that wait for the disk, 64 at a time.
func BenchmarkFsyncAlways(b *testing.B) {
	b.SetParallelism(32)
	benchmark(b, audit.Access, func(c *journal.Config) { c.FsyncAlways = true })
}

func BenchmarkVerify(b *testing.B) {
	dir := b.TempDir()
	j := mustOpen(b, config(dir))
	for range 20000 {
		_ = j.Record(context.Background(), request(audit.Security))
	}
	mustClose(b, j)
	b.ResetTimer()
	for b.Loop() {
		b.SetBytes(j.Stats().Bytes)
		if _, err := journal.Verify(dir, journal.VerifyOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}
