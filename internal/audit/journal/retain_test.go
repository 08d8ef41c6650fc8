package journal_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moat-gateway/moat/internal/audit"
	"github.com/moat-gateway/moat/internal/audit/journal"
)

// later makes the journal believe that time has passed since the files were
// written.
func later(d time.Duration) func() time.Time {
	return func() time.Time { return time.Now().Add(d) }
}

func TestSegmentsOlderThanKeepAreRemovedAndTheRestVerifies(t *testing.T) {
	dir := crashed(t, 700)
	old := segments(t, dir)
	cfg := config(dir)
	cfg.Keep = time.Hour
	mustClose(t, mustOpen(t, cfg))
	if n := len(segments(t, dir)); n != len(old)+1 {
		t.Fatalf("%d of %d segments are left although they are young", n, len(old)+1)
	}
	cfg.Now = later(2 * time.Hour)
	j := mustOpen(t, cfg)
	mustRecord(t, j, event(audit.Security, "after"))
	mustClose(t, j)
	if n := len(segments(t, dir)); n != 1 {
		t.Fatalf("%d segments", n)
	}
	r := mustVerify(t, dir)
	if !r.Removed || r.FirstSeq <= 700 {
		t.Errorf("report %+v", r)
	}
	removed := find(trail(t, dir), audit.ActionRemoved)
	if len(removed) != len(old)+1 {
		t.Fatalf("%d removals recorded", len(removed))
	}
	for i, l := range removed[:len(old)] {
		if l.Class != "admin" || l.Reason != "keep" || l.Resource != filepath.Base(old[i]) || l.Details["bytes"] == nil || l.Details["firstSeq"] == nil {
			t.Errorf("removal %+v", l)
		}
	}
	if l := last(removed); l.Details["lastSeq"] != float64(r.FirstSeq-1) || l.Details["lastHash"] != trail(t, dir)[0].Prev {
		t.Errorf("last removal %+v", l)
	}
	// The next start must not lose the record of what is missing.
	mustClose(t, mustOpen(t, config(dir)))
	mustVerify(t, dir)
}

func TestMaxSizeRemovesTheOldestFirst(t *testing.T) {
	dir := t.TempDir()
	cfg := config(dir)
	cfg.Segment, cfg.MaxSize = 128<<10, 300<<10
	cfg.Now = time.Now
	synctest.Test(t, func(t *testing.T) {
		j := mustOpen(t, cfg)
		for i := range 1500 {
			mustRecord(t, j, event(audit.Security, fmt.Sprint(i)))
		}
		time.Sleep(journal.Upkeep)
		synctest.Wait()
		s := j.Stats()
		if s.Bytes > cfg.MaxSize || s.Segments < 2 || s.Segments != len(segments(t, dir)) {
			t.Errorf("stats %+v, %d files", s, len(segments(t, dir)))
		}
		mustClose(t, j)
	})
	r := mustVerify(t, dir)
	if !r.Removed || r.LastSeq < 1500 {
		t.Errorf("report %+v", r)
	}
	for _, l := range find(trail(t, dir), audit.ActionRemoved) {
		if l.Reason != "max_size" {
			t.Errorf("removal %+v", l)
		}
	}
	// The records explain what the journal removed, and nothing more.
	list := segments(t, dir)
	if err := os.Remove(list[0]); err != nil {
		t.Fatal(err)
	}
	wantFault(t, dir, filepath.Base(list[1]), 1)
}

func TestARemovalIsOnDiskBeforeTheSegmentGoes(t *testing.T) {
	dir := crashed(t, 300)
	cfg := config(dir)
	cfg.Keep, cfg.Now = time.Hour, later(2*time.Hour)
	var d disk
	removals := 0
	d.onRemove = func(path string) {
		removals++
		found := false
		for _, l := range find(trail(t, dir), audit.ActionRemoved) {
			found = found || l.Resource == filepath.Base(path)
		}
		// One sync for the first line of the segment, one for the record.
		if !found || d.count() < 2 {
			t.Errorf("%s goes with record %v after %d syncs", path, found, d.count())
		}
	}
	j, err := journal.OpenWith(cfg, &d)
	if err != nil {
		t.Fatal(err)
	}
	mustClose(t, j)
	if removals == 0 {
		t.Error("nothing was removed")
	}
}

func TestNothingIsRemovedWhenItsRecordIsNotSafe(t *testing.T) {
	dir := crashed(t, 300)
	before := len(segments(t, dir))
	cfg := config(dir)
	var d disk
	// The first sync, of the new segment, works.
	synctest.Test(t, func(t *testing.T) {
		// Files carry the real time, the bubble its own.
		cfg.Now = func() time.Time { return time.Now().AddDate(100, 0, 0) }
		j, err := journal.OpenWith(cfg, &d)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Keep = time.Hour
		if err := j.Reconfigure(cfg); err != nil {
			t.Fatal(err)
		}
		d.set(func(d *disk) { d.sync = errBroken })
		time.Sleep(journal.Upkeep)
		synctest.Wait()
		if n := len(segments(t, dir)); n != before+1 {
			t.Errorf("%d segments of %d", n, before+1)
		}
		d.set(func(d *disk) { d.sync = nil })
		time.Sleep(2 * journal.Upkeep)
		synctest.Wait()
		if n := len(segments(t, dir)); n > 2 {
			t.Errorf("%d segments after the disk is well again", n)
		}
		mustClose(t, j)
		mustVerify(t, dir)
	})
}

func TestASegmentThatCannotBeRemovedIsTriedAgainAndRecordedOnce(t *testing.T) {
	dir := crashed(t, 700)
	before := len(segments(t, dir))
	var d disk
	var told troubles
	cfg := config(dir)
	cfg.Keep, cfg.OnTrouble = time.Hour, told.tell
	synctest.Test(t, func(t *testing.T) {
		// Files carry the real time, the bubble its own.
		cfg.Now = func() time.Time { return time.Now().AddDate(100, 0, 0) }
		d.remove = errBroken
		j, err := journal.OpenWith(cfg, &d)
		if err != nil {
			t.Fatal(err)
		}
		if told.String() != journal.TroubleRemove {
			t.Errorf("told of %q", told.String())
		}
		time.Sleep(3 * journal.Upkeep)
		if n := len(segments(t, dir)); n != before+1 {
			t.Errorf("%d segments", n)
		}
		d.set(func(d *disk) { d.remove = nil })
		time.Sleep(2 * journal.Upkeep)
		synctest.Wait()
		if n := len(segments(t, dir)); n != 1 {
			t.Errorf("%d segments", n)
		}
		mustClose(t, j)
		mustVerify(t, dir)
		if n := len(find(trail(t, dir), audit.ActionRemoved)); n != before {
			t.Errorf("%d removals of %d segments recorded", n, before)
		}
	})
}

func TestASegmentSomebodyElseRemovedIsNoTrouble(t *testing.T) {
	dir := crashed(t, 300)
	cfg := config(dir)
	cfg.Keep, cfg.Now = time.Hour, later(2*time.Hour)
	var told troubles
	cfg.OnTrouble = told.tell
	var d disk
	d.onRemove = func(path string) {
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	}
	j, err := journal.OpenWith(cfg, &d)
	if err != nil {
		t.Fatal(err)
	}
	mustClose(t, j)
	if told.String() != "" {
		t.Errorf("told of %q", told.String())
	}
}

func TestARemovalWhoseRecordCannotBeMadeIsTrouble(t *testing.T) {
	dir := crashed(t, 700)
	list := segments(t, dir)
	// The segment behind the oldest says what its end was.
	if err := os.WriteFile(list[1], []byte("no line end"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := config(dir)
	cfg.Keep, cfg.Now = time.Hour, later(2*time.Hour)
	var told troubles
	cfg.OnTrouble = told.tell
	mustClose(t, mustOpen(t, cfg))
	if told.String() != journal.TroubleRemove {
		t.Errorf("told of %q", told.String())
	}
	if _, err := os.Stat(list[0]); err != nil {
		t.Errorf("the oldest is gone: %v", err)
	}
}

func TestAReaderHoldsWhatItHasNotRead(t *testing.T) {
	dir := crashed(t, 700)
	list := segments(t, dir)
	var position atomic.Uint64
	cfg := config(dir)
	cfg.Keep, cfg.Now, cfg.Hold = time.Hour, later(2*time.Hour), position.Load
	var second uint64
	if _, err := fmt.Sscanf(filepath.Base(list[1]), "%d.jsonl", &second); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		read uint64
		gone bool
	}{{0, false}, {second - 2, false}, {second - 1, true}} {
		position.Store(step.read)
		mustClose(t, mustOpen(t, cfg))
		if _, err := os.Stat(list[0]); errors.Is(err, os.ErrNotExist) != step.gone {
			t.Errorf("read to %d of %d: %v", step.read, second-1, err)
		}
		if _, err := os.Stat(list[1]); err != nil {
			t.Errorf("read to %d: the second is gone", step.read)
		}
		mustVerify(t, dir)
	}
}
