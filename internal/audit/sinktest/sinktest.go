// Package sinktest supports the tests of audit sinks: one suite that every
// sink passes, a proxy that breaks connections on purpose, and real servers
// started by the test. It knows no client library.
package sinktest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/audit/follow"
)

// Fault is how the way to a server misbehaves.
type Fault int

// The faults of the suite. A harness produces each of them for its server.
const (
	// Healthy passes everything on.
	Healthy Fault = iota
	// Slow passes everything on, late but within the budget of a delivery.
	Slow
	// Refuse turns every delivery away at once.
	Refuse
	// HalfOpen accepts what is sent and never answers.
	HalfOpen
	// Malformed answers with bytes that are no answer.
	Malformed
)

// String returns the fault's name.
func (f Fault) String() string {
	return [...]string{"healthy", "slow", "refuse", "half-open", "malformed"}[f]
}

// Harness is one sink with its server, fresh for each test of the suite.
type Harness struct {
	// Open returns a new sink, as after a restart of the gateway. The suite
	// closes it.
	Open func(t *testing.T) follow.Sink
	// Received returns the lines the server holds, in the order in which it
	// holds them, duplicates included.
	Received func(t *testing.T) []string
	// Fault sets how the way to the server behaves from now on.
	Fault func(f Fault)
	// Once says that the server keeps a line once however often it comes.
	Once bool
	// RawOnly says that the sink carries the journal's line whatever Text says.
	RawOnly bool
}

const (
	instance = "gw-test"
	patience = 30 * time.Second
)

// Line returns a journal line with its fields, of at least size bytes.
func Line(seq uint64, size int) follow.Line {
	raw := fmt.Sprintf(`{"timestamp":"2026-01-02T03:04:05.%06dZ","userId":"u-%d","action":"http.request",`+
		`"resource":"GET app.example/x","details":{"pad":""},"ip":"203.0.113.7","id":"e-%d","class":"access",`+
		`"outcome":"allow","requestId":"r-%d","path":"/caf\u00e9/<&>","seq":%d,"instance":%q}`, seq%1_000_000, seq, seq, seq, seq, instance)
	if pad := size - len(raw); pad > 0 {
		raw = strings.Replace(raw, `"pad":""`, `"pad":"`+strings.Repeat("x", pad)+`"`, 1)
	}
	return follow.Line{Seq: seq, Instance: instance, Class: "access", Epoch: "boot-1", Raw: []byte(raw)}
}

// Lines returns the journal lines from one sequence number to another.
func Lines(from, to uint64) []follow.Line {
	var lines []follow.Line
	for seq := from; seq <= to; seq++ {
		lines = append(lines, Line(seq, 0))
	}
	return lines
}

// Run puts the sink that open prepares through the suite. Lacks are faults that
// cannot happen to it, because what it writes to is no server or never answers;
// their tests are left out. Slow and Refuse happen to every sink.
func Run(t *testing.T, open func(t *testing.T) Harness, lacks ...Fault) {
	for _, test := range []struct {
		name  string
		needs Fault
		run   func(t *testing.T, s *suite)
	}{
		{"lines arrive in order and unchanged", Healthy, inOrder},
		{"another format arrives in place of the line", Healthy, formatted},
		{"a restart goes on where it stopped", Healthy, resume},
		{"a duplicate delivery succeeds", Healthy, duplicate},
		{"a slow server gets everything", Slow, slow},
		{"a refusing server gets everything once it recovers", Refuse, recovers(Refuse)},
		{"a half-open connection is given up and replaced", HalfOpen, recovers(HalfOpen)},
		{"a malformed answer is a failure", Malformed, recovers(Malformed)},
		{"a very large line arrives whole", Healthy, large},
		{"a shutdown in the middle ends soon and loses nothing", HalfOpen, shutdown},
		{"closing twice is harmless and a closed sink delivers nothing", Healthy, closed},
	} {
		if slices.Contains(lacks, test.needs) {
			continue
		}
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			test.run(t, &suite{
				t: t, h: open(t), dir: filepath.Join(dir, "journal"), cursor: filepath.Join(dir, "cursor"),
			})
		})
	}
}

// suite is one test: a harness, a journal and a cursor.
type suite struct {
	t           *testing.T
	h           Harness
	dir, cursor string
	want        []string
}

// write appends lines to the journal and expects them at the server.
func (s *suite) write(lines ...follow.Line) {
	s.t.Helper()
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		s.t.Fatal(err)
	}
	file, err := os.OpenFile(filepath.Join(s.dir, "000000000001.jsonl"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, line := range lines {
		s.want = append(s.want, string(line.Raw))
		if _, err := file.Write(append(line.Raw, '\n')); err != nil {
			s.t.Fatal(err)
		}
	}
	if err := file.Close(); err != nil {
		s.t.Fatal(err)
	}
}

// watched is a sink that says whether a delivery is under way.
type watched struct {
	follow.Sink
	busy atomic.Bool
}

func (w *watched) Deliver(ctx context.Context, lines []follow.Line) error {
	w.busy.Store(true)
	defer w.busy.Store(false)
	return w.Sink.Deliver(ctx, lines)
}

// session is one life of a gateway: a sink and its follower.
type session struct {
	*follow.Follower
	busy *atomic.Bool
	stop func() time.Duration
}

// start begins a session that ends with the test at the latest. Its stop
// returns how long stopping took.
func (s *suite) start(timeout time.Duration) session {
	s.t.Helper()
	sink := &watched{Sink: s.h.Open(s.t)}
	f, err := follow.New(follow.Config{
		Dir: s.dir, Cursor: s.cursor, Sink: sink, Batch: 16, Timeout: timeout,
		Poll: 2 * time.Millisecond, BackoffMin: 5 * time.Millisecond, BackoffMax: 50 * time.Millisecond,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(s.t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	var took time.Duration
	once := sync.OnceFunc(func() {
		start := time.Now()
		cancel()
		if err := <-done; err != nil {
			s.t.Errorf("Run = %v", err)
		}
		if err := sink.Close(); err != nil {
			s.t.Errorf("Close = %v", err)
		}
		took = time.Since(start)
	})
	stop := func() time.Duration { once(); return took }
	s.t.Cleanup(func() { s.h.Fault(Healthy); stop() })
	return session{f, &sink.busy, stop}
}

// until waits for a condition on a real server.
func (s *suite) until(what string, met func() bool) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !met() {
		select {
		case <-ctx.Done():
			s.t.Fatalf("%s: not within %s", what, patience)
		case <-tick.C:
		}
	}
}

// delivered waits until the follower is done with everything.
func (s *suite) delivered(run session) {
	s.t.Helper()
	s.until("delivery of everything", func() bool { return run.Position() == uint64(len(s.want)) })
	if state := run.State(); state.SetAside != 0 || state.Lost != 0 {
		s.t.Errorf("state = %+v", state)
	}
}

// check compares what the server holds with what was written.
func (s *suite) check() {
	s.t.Helper()
	got := s.h.Received(s.t)
	if !s.h.Once {
		got = firsts(got)
	}
	if slices.Equal(got, s.want) {
		return
	}
	for i := range min(len(got), len(s.want)) {
		if got[i] != s.want[i] {
			s.t.Fatalf("line %d = %.200q, want %.200q", i, got[i], s.want[i])
		}
	}
	s.t.Fatalf("the server holds %d lines, want %d", len(got), len(s.want))
}

// firsts returns each line once, where it came first.
func firsts(lines []string) []string {
	seen := make(map[string]bool, len(lines))
	var once []string
	for _, line := range lines {
		if !seen[line] {
			seen[line] = true
			once = append(once, line)
		}
	}
	return once
}
