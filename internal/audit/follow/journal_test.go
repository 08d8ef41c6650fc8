package follow_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/audit"
	"github.com/moat-gateway/moat/internal/audit/follow"
	trail "github.com/moat-gateway/moat/internal/audit/journal"
)

// TestARealJournalIsFollowedThroughRotationAndRestart holds the format that
// this package expects against the one that is written.
func TestARealJournalIsFollowedThroughRotationAndRestart(t *testing.T) {
	dir := t.TempDir()
	sink, told := &memory{}, &states{}
	f, err := follow.New(follow.Config{
		Dir: filepath.Join(dir, "j"), Cursor: filepath.Join(dir, "c"), Sink: sink, Poll: time.Millisecond, OnState: told.add,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()

	var last uint64
	for boot := range 3 {
		last = oneBoot(t, filepath.Join(dir, "j"), boot)
	}
	deadline, tick := time.After(30*time.Second), time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for f.Position() < last {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("at %d of %d: %+v", f.Position(), last, f.State())
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if len(told.list()) != 0 || uint64(len(sink.got())) != last {
		t.Errorf("%d lines of %d, told %+v", len(sink.got()), last, told.list())
	}
	checkTrail(t, sink)
}

// oneBoot opens the journal, fills several segments and closes it.
func oneBoot(t *testing.T, dir string, boot int) uint64 {
	t.Helper()
	j, err := trail.Open(trail.Config{Dir: dir, Instance: "gw-a", Segment: 128 << 10})
	if err != nil {
		t.Fatal(err)
	}
	for n := range 1000 {
		e := &audit.Event{
			Timestamp: time.Now(), ID: audit.NewID(time.Now()), Class: audit.Security, Outcome: audit.Deny,
			Action: "http.request", UserID: fmt.Sprintf("u-%d-%d", boot, n), Path: "/" + strings.Repeat("p", n%500),
		}
		if err := j.Record(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	return j.Stats().Seq
}

func checkTrail(t *testing.T, sink *memory) {
	t.Helper()
	epochs := map[string]bool{}
	for i, line := range sink.got() {
		e, err := follow.ReadEvent([]byte(line))
		if err != nil || e.Seq != uint64(i)+1 || e.Instance != "gw-a" || e.Class == "" {
			t.Fatalf("line %d: %+v, %v", i+1, e, err)
		}
		epochs[sink.epochs[i]] = true
	}
	if len(epochs) != 3 || epochs[""] {
		t.Errorf("epochs of three boots: %v", epochs)
	}
}
