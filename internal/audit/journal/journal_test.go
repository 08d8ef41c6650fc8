package journal_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/audit"
	"github.com/moat-gateway/moat/internal/audit/journal"
)

func config(dir string) journal.Config {
	// A long wait: the machine that runs the tests may be busy.
	return journal.Config{Dir: dir, Instance: "gw-a", Wait: 10 * time.Second}
}

func mustOpen(t testing.TB, cfg journal.Config) *journal.Journal {
	t.Helper()
	j, err := journal.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	return j
}

func mustClose(t testing.TB, j *journal.Journal) {
	t.Helper()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
}

func mustRecord(t testing.TB, j *journal.Journal, e *audit.Event) {
	t.Helper()
	if err := j.Record(context.Background(), e); err != nil {
		t.Fatal(err)
	}
}

func mustVerify(t testing.TB, dir string) journal.Report {
	t.Helper()
	r, err := journal.Verify(dir, journal.VerifyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func event(class audit.Class, id string) *audit.Event {
	return &audit.Event{Timestamp: time.Now(), ID: id, Action: "http.request", Class: class, Outcome: audit.Deny, Reason: "rbac.no-rule"}
}

// line is what the tests look at in a line.
type line struct {
	File                       string
	No                         int
	ID, Action, Class, Reason  string
	Severity, Resource, UserID string
	Instance, Prev             string
	Seq                        uint64
	Details                    map[string]any
	raw                        []byte
}

// trail reads every line of a directory.
func trail(t testing.TB, dir string) []line {
	t.Helper()
	var all []line
	for _, path := range segments(t, dir) {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for i, raw := range bytes.SplitAfter(content, []byte("\n")) {
			if len(raw) == 0 {
				continue
			}
			l := line{File: filepath.Base(path), No: i + 1, raw: raw}
			if err := json.Unmarshal(raw, &l); err != nil {
				t.Fatalf("%s:%d: %v\n%s", path, i+1, err, raw)
			}
			all = append(all, l)
		}
	}
	return all
}

func segments(t testing.TB, dir string) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func find(lines []line, action string) []line {
	var found []line
	for _, l := range lines {
		if l.Action == action {
			found = append(found, l)
		}
	}
	return found
}

func TestATrailIsChainedFromItsFirstLine(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	j := mustOpen(t, config(dir))
	for i := range 3 {
		mustRecord(t, j, event(audit.Security, fmt.Sprint("e", i)))
	}
	mustClose(t, j)

	lines := trail(t, dir)
	if len(lines) != 4 || lines[0].Action != audit.ActionSegment || lines[0].Class != "admin" || lines[0].Reason != "start" {
		t.Fatalf("lines %+v", lines)
	}
	if lines[0].File != "000000000001.jsonl" || lines[0].Prev != strings.Repeat("0", 64) {
		t.Errorf("begins with %+v", lines[0])
	}
	d := lines[0].Details
	if epoch, _ := d["epoch"].(string); len(epoch) != 36 || d["lastHash"] != lines[0].Prev || d["lastSeq"] != 0.0 {
		t.Errorf("segment details %v", d)
	}
	for i, l := range lines {
		if l.Seq != uint64(i+1) || l.Instance != "gw-a" {
			t.Errorf("line %d: seq %d, instance %q", i+1, l.Seq, l.Instance)
		}
	}
	r := mustVerify(t, dir)
	if r.Events != 4 || r.Segments != 1 || r.FirstSeq != 1 || r.LastSeq != 4 || r.Epochs != 1 || r.Live || r.Removed {
		t.Errorf("report %+v", r)
	}
	if s := j.Stats(); s.Seq != 4 || s.LastHash != r.LastHash || s.Events[audit.Security] != 3 || s.Events[audit.Admin] != 1 {
		t.Errorf("stats %+v", s)
	}
}

func TestOnlyTheOwnerCanReadATrail(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "trail")
	j := mustOpen(t, config(dir))
	mustRecord(t, j, event(audit.Security, "e"))
	for path, want := range map[string]os.FileMode{dir: 0o700, segments(t, dir)[0]: 0o600} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s: %v, want %v", path, info.Mode().Perm(), want)
		}
	}
}

func TestAStartContinuesTheChainInANewSegmentAndEpoch(t *testing.T) {
	dir := t.TempDir()
	for range 3 {
		j := mustOpen(t, config(dir))
		mustRecord(t, j, event(audit.Security, "e"))
		mustClose(t, j)
	}
	lines := trail(t, dir)
	starts := find(lines, audit.ActionSegment)
	if len(lines) != 6 || len(starts) != 3 {
		t.Fatalf("%d lines, %d segments", len(lines), len(starts))
	}
	if starts[2].File != "000000000005.jsonl" || starts[2].Details["lastSeq"] != 4.0 || starts[2].Details["lastHash"] != starts[2].Prev {
		t.Errorf("third start %+v", starts[2])
	}
	if starts[0].Details["epoch"] == starts[1].Details["epoch"] {
		t.Error("two starts share an epoch")
	}
	if r := mustVerify(t, dir); r.Epochs != 3 || r.Segments != 3 || r.Events != 6 {
		t.Errorf("report %+v", r)
	}
}

func TestAFullSegmentIsFollowedByTheNextOfTheSameEpoch(t *testing.T) {
	dir := t.TempDir()
	cfg := config(dir)
	cfg.Segment = 128 << 10
	j := mustOpen(t, cfg)
	for i := range 700 {
		mustRecord(t, j, event(audit.Access, fmt.Sprint("a", i)))
	}
	mustRecord(t, j, event(audit.Security, "last"))
	mustClose(t, j)
	r := mustVerify(t, dir)
	if r.Segments < 3 || r.Epochs != 1 {
		t.Errorf("report %+v", r)
	}
	var total int64
	for _, path := range segments(t, dir) {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() > cfg.Segment {
			t.Errorf("%s has %d bytes", path, info.Size())
		}
		total += info.Size()
	}
	for _, l := range find(trail(t, dir), audit.ActionSegment)[1:] {
		if l.Reason != "full" || l.Severity != "low" {
			t.Errorf("segment %+v", l)
		}
	}
	if s := j.Stats(); s.Bytes != total || s.Segments != r.Segments || s.Events[audit.Access] != 700 {
		t.Errorf("stats %+v, %d bytes on disk", s, total)
	}
}

func TestWhatTheCallerLeavesOutIsFilledInAndHisEventStaysAsItIs(t *testing.T) {
	dir := t.TempDir()
	cfg := config(dir)
	cfg.Now = func() time.Time { return time.Unix(1_800_000_000, 0) }
	j := mustOpen(t, cfg)
	var e audit.Event
	mustRecord(t, j, &e)
	with := audit.Event{ID: "mine", Class: "invented"}
	mustRecord(t, j, &with)
	if e.ID != "" || !e.Timestamp.IsZero() || e.Seq != 0 || e.Prev != "" {
		t.Errorf("the event became %+v", e)
	}
	mustClose(t, j)
	lines := trail(t, dir)
	if len(lines[1].ID) != 36 || lines[2].ID != "mine" || lines[2].Class != "security" {
		t.Errorf("lines %+v", lines)
	}
	if !bytes.Contains(lines[1].raw, []byte(`{"timestamp":"2027-01-15T08:00:00.000000Z"`)) {
		t.Errorf("%s", lines[1].raw)
	}
}

func TestAnAcknowledgedEventIsInTheFileBeforeRecordReturns(t *testing.T) {
	for _, class := range []audit.Class{audit.Security, audit.Admin, "", "unknown"} {
		dir := t.TempDir()
		j := mustOpen(t, config(dir))
		for i := range 50 {
			id := fmt.Sprint("e", i)
			mustRecord(t, j, event(class, id))
			content, err := os.ReadFile(segments(t, dir)[0])
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.HasSuffix(content, []byte("}\n")) || !bytes.Contains(content, []byte(`"id":"`+id+`"`)) {
				t.Fatalf("class %q: %s is not in the file", class, id)
			}
		}
	}
}

func TestACancelledRequestStillLeavesItsEvent(t *testing.T) {
	dir := t.TempDir()
	j := mustOpen(t, config(dir))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for i := range 20 {
		if err := j.Record(ctx, event(audit.Security, fmt.Sprint("e", i))); err != nil {
			t.Fatal(err)
		}
	}
	mustClose(t, j)
	if n := len(trail(t, dir)); n != 21 {
		t.Errorf("%d lines", n)
	}
}

func TestConcurrentRecordersLoseAndTearNothing(t *testing.T) {
	dir := t.TempDir()
	cfg := config(dir)
	cfg.Segment = 128 << 10
	j := mustOpen(t, cfg)
	const each = 300
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range each {
				class := audit.Security
				if i%3 == 0 {
					class = audit.Access
				}
				if err := j.Record(context.Background(), event(class, fmt.Sprintf("%d-%d", g, i))); err != nil {
					t.Error(err)
				}
				if i%100 == 50 {
					j.Stats()
					if _, err := journal.Verify(dir, journal.VerifyOptions{}); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	mustClose(t, j)
	mustVerify(t, dir)
	next := make(map[string]int)
	for _, l := range trail(t, dir) {
		g, i, ok := strings.Cut(l.ID, "-")
		if l.Action != "http.request" || !ok {
			continue
		}
		// One goroutine's events stand in its order.
		if i != fmt.Sprint(next[g]) {
			t.Fatalf("%s follows %s-%d", l.ID, g, next[g]-1)
		}
		next[g]++
	}
	for g := range 8 {
		if n := next[fmt.Sprint(g)]; n != each {
			t.Errorf("%d events of %d", n, g)
		}
	}
}

func TestTheSecondWriterIsTurnedAway(t *testing.T) {
	dir := t.TempDir()
	j := mustOpen(t, config(dir))
	if _, err := journal.Open(config(dir)); !errors.Is(err, journal.ErrLocked) {
		t.Fatalf("second Open: %v", err)
	}
	if r := mustVerify(t, dir); !r.Live {
		t.Error("an open trail is not reported as live")
	}
	mustClose(t, j)
	mustClose(t, mustOpen(t, config(dir)))
}

func TestOpenWaitsForAHolderThatIsJustLeaving(t *testing.T) {
	dir := t.TempDir()
	j := mustOpen(t, config(dir))
	timer := time.AfterFunc(100*time.Millisecond, func() { _ = j.Close() })
	defer timer.Stop()
	mustClose(t, mustOpen(t, config(dir)))
}

func TestCloseDrainsTheQueueAndIsHarmlessTwice(t *testing.T) {
	dir := t.TempDir()
	j := mustOpen(t, config(dir))
	for i := range 2000 {
		mustRecord(t, j, event(audit.Access, fmt.Sprint("a", i)))
	}
	mustClose(t, j)
	mustClose(t, j)
	if r := mustVerify(t, dir); r.Events != 2001 {
		t.Errorf("%d events", r.Events)
	}
	for _, class := range []audit.Class{audit.Access, audit.Security} {
		if err := j.Record(context.Background(), event(class, "late")); !errors.Is(err, audit.ErrClosed) {
			t.Errorf("Record after Close: %v", err)
		}
	}
	if err := j.Reconfigure(config(dir)); !errors.Is(err, audit.ErrClosed) {
		t.Errorf("Reconfigure after Close: %v", err)
	}
}
