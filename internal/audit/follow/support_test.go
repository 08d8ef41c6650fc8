package follow_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moat-gateway/moat/internal/audit/follow"
)

const testInstance = "gw-a"

// event returns one journal line, without its newline.
func event(seq int) string {
	return fmt.Sprintf(`{"timestamp":"2026-01-02T03:04:05.000006Z","userId":"u-1","action":"http.request",`+
		`"details":{"n":%d},"id":"e-%d","class":"access","seq":%d,"instance":%q}`, seq, seq, seq, testInstance)
}

// begin returns the line that begins a segment.
func begin(seq int, epoch string) string {
	return fmt.Sprintf(`{"action":"audit.segment","details":{"epoch":%q},"class":"admin","seq":%d,"instance":%q}`,
		epoch, seq, testInstance)
}

func events(from, to int) []string {
	var lines []string
	for seq := from; seq <= to; seq++ {
		lines = append(lines, event(seq))
	}
	return lines
}

func segment(first int) string { return fmt.Sprintf("%012d.jsonl", first) }

// journal is a directory of segments as a journal would leave it.
type journal struct {
	t   *testing.T
	dir string
}

func newJournal(t *testing.T) *journal {
	t.Helper()
	return &journal{t: t, dir: filepath.Join(t.TempDir(), "journal")}
}

func (j *journal) path(name string) string { return filepath.Join(j.dir, name) }

// write appends raw bytes to a segment.
func (j *journal) write(name, raw string) {
	j.t.Helper()
	if err := os.MkdirAll(j.dir, 0o700); err != nil {
		j.t.Fatal(err)
	}
	file, err := os.OpenFile(j.path(name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		j.t.Fatal(err)
	}
	if _, err := file.WriteString(raw); err != nil {
		j.t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		j.t.Fatal(err)
	}
}

func (j *journal) append(name string, lines ...string) {
	j.t.Helper()
	for _, line := range lines {
		j.write(name, line+"\n")
	}
}

func (j *journal) remove(name string) {
	j.t.Helper()
	if err := os.Remove(j.path(name)); err != nil {
		j.t.Fatal(err)
	}
}

// memory is a sink that keeps what it was given. Script is consulted before
// each delivery.
type memory struct {
	name   string
	script func(ctx context.Context, lines []follow.Line) error

	mu     sync.Mutex
	lines  []string
	epochs []string
	calls  []int
}

func (m *memory) Name() string {
	if m.name == "" {
		return "memory"
	}
	return m.name
}

func (m *memory) Close() error { return nil }

func (m *memory) Deliver(ctx context.Context, lines []follow.Line) error {
	m.mu.Lock()
	m.calls = append(m.calls, len(lines))
	m.mu.Unlock()
	if m.script != nil {
		if err := m.script(ctx, lines); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, line := range lines {
		m.lines = append(m.lines, string(line.Raw))
		m.epochs = append(m.epochs, line.Epoch)
	}
	return nil
}

// deliveries is how many there were.
func (m *memory) deliveries() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.calls)
}

func (m *memory) got() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.lines)
}

func (m *memory) want(t *testing.T, want []string) {
	t.Helper()
	got := m.got()
	if slices.Equal(got, want) {
		return
	}
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			t.Fatalf("delivered %d lines, want %d: missing from %.120q", len(got), len(want), want[i])
		case i >= len(want):
			t.Fatalf("delivered %d lines, want %d: too many from %.120q", len(got), len(want), got[i])
		case got[i] != want[i]:
			t.Fatalf("line %d = %.120q, want %.120q", i, got[i], want[i])
		}
	}
}

// states collects what OnState is told but for the first delivery, which is told
// whatever a test is about.
type states struct {
	mu       sync.Mutex
	all      []follow.State
	last     follow.State
	arrivals int
}

func (s *states) add(state follow.State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.last
	s.last = state
	if before.LastSuccess.IsZero() && !state.LastSuccess.IsZero() {
		s.arrivals++
		if before.Failures == 0 && before.SetAside == state.SetAside && before.Lost == state.Lost && before.CursorError == state.CursorError {
			return
		}
	}
	s.all = append(s.all, state)
}

func (s *states) list() []follow.State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.all)
}

// running is a follower that runs in the test's bubble.
type running struct {
	*follow.Follower
	t    *testing.T
	stop func()
}

// start runs a follower over j until stop is called or the test ends.
func (j *journal) start(t *testing.T, sink follow.Sink, edit func(*follow.Config)) *running {
	t.Helper()
	cfg := follow.Config{Dir: j.dir, Cursor: filepath.Join(filepath.Dir(j.dir), "cursors", "memory"), Sink: sink}
	if edit != nil {
		edit(&cfg)
	}
	f, err := follow.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	r := &running{Follower: f, t: t}
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	t.Cleanup(r.stop)
	return r
}

// settle lets the follower look at the journal a few times.
func (r *running) settle() {
	r.t.Helper()
	time.Sleep(time.Second) // in the bubble: no real time passes
	synctest.Wait()
}

// bubble runs a test with a clock of its own.
func bubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, test)
}
