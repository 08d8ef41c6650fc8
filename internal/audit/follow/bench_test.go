package follow_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/internal/audit/follow"
)

const typical = `{"timestamp":"2026-11-22T03:00:00.000001Z","userId":"u-1","action":"http.request","resource":"GET orders.example.com/documents/{id}",` +
	`"details":{"auth":"bearer","issuer":"main"},"ip":"203.0.113.7","id":"019aa000-0000-7000-8000-000000000000","class":"access","outcome":"allow",` +
	`"reason":"","severity":"low","requestId":"019aa000-0000-7000-8000-000000000001","tenant":"t-1","roles":["user"],"method":"GET","host":"orders.example.com",` +
	`"path":"/documents/4711","route":"/documents/{id}","status":200,"durationMs":3.142,"bytesIn":0,"bytesOut":5120,"seq":4711,"instance":"gw-a",` +
	`"prev":"0000000000000000000000000000000000000000000000000000000000000000"}`

func TestCheckingALineDoesNotAllocate(t *testing.T) {
	line := []byte(typical)
	if n := testing.AllocsPerRun(200, func() {
		if err := follow.CheckLine(line); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations a line", n)
	}
}

func BenchmarkCheckLine(b *testing.B) {
	line := []byte(typical)
	b.ReportAllocs()
	b.SetBytes(int64(len(line)))
	for b.Loop() {
		if err := follow.CheckLine(line); err != nil {
			b.Fatal(err)
		}
	}
}

type counter struct {
	left   int
	cancel context.CancelFunc
}

func (c *counter) Name() string { return "counter" }
func (c *counter) Close() error { return nil }
func (c *counter) Deliver(_ context.Context, lines []follow.Line) error {
	if c.left -= len(lines); c.left <= 0 {
		c.cancel()
	}
	return nil
}

// BenchmarkFollow reports the cost of one line from the disk to a sink that
// does nothing.
func BenchmarkFollow(b *testing.B) {
	dir := b.TempDir()
	const lines = 20_000
	content := strings.Repeat(typical+"\n", lines)
	if err := os.WriteFile(filepath.Join(dir, segment(1)), []byte(content), 0o600); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		ctx, cancel := context.WithCancel(b.Context())
		f, err := follow.New(follow.Config{Dir: dir, Cursor: filepath.Join(b.TempDir(), "c"), Sink: &counter{lines, cancel}})
		if err != nil {
			b.Fatal(err)
		}
		if err := f.Run(ctx); err != nil {
			b.Fatal(err)
		}
		cancel()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(lines*b.N), "ns/line")
}
