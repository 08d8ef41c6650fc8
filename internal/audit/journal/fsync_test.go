package journal_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moat-gateway/moat/internal/audit"
	"github.com/moat-gateway/moat/internal/audit/journal"
)

func TestAFailedFsyncEndsTheSegmentForGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		var d disk
		var told troubles
		cfg := config(dir)
		cfg.OnTrouble = told.tell
		j, err := journal.OpenWith(cfg, &d)
		if err != nil {
			t.Fatal(err)
		}
		mustRecord(t, j, event(audit.Security, "unsafe"))
		d.set(func(d *disk) { d.sync = errBroken })
		time.Sleep(journal.DefaultFsync)
		synctest.Wait()
		if !errors.Is(j.Err(), errBroken) {
			t.Errorf("Err = %v", j.Err())
		}
		// New segments fail their sync too, and leave nothing behind.
		time.Sleep(10 * time.Second)
		if n := len(segments(t, dir)); n != 1 {
			t.Errorf("%d segments while the disk is broken", n)
		}
		if err := j.Record(context.Background(), event(audit.Security, "during")); !errors.Is(err, audit.ErrFull) {
			t.Errorf("Record while the disk is broken: %v", err)
		}
		d.set(func(d *disk) { d.sync = nil })
		time.Sleep(2 * time.Second)
		mustRecord(t, j, event(audit.Security, "after"))
		mustClose(t, j)
		mustVerify(t, dir)
		lines := trail(t, dir)
		starts := find(lines, audit.ActionSegment)
		if len(starts) != 2 || starts[1].Reason != "fsync-failed" || starts[1].Severity != "high" {
			t.Fatalf("segments %+v", starts)
		}
		if lines[1].ID != "unsafe" || lines[2].Action != audit.ActionSegment || lines[3].ID != "during" || lines[4].ID != "after" {
			t.Errorf("lines %+v", lines)
		}
		if told.String() != journal.TroubleFsync+" "+journal.TroubleOver {
			t.Errorf("told of %q", told.String())
		}
	})
}

func TestFsyncAlwaysAnswersOnlyForWhatIsOnDisk(t *testing.T) {
	for _, class := range []audit.Class{audit.Access, audit.Security} {
		synctest.Test(t, func(t *testing.T) {
			dir := t.TempDir()
			var d disk
			cfg := config(dir)
			cfg.FsyncAlways = true
			j, err := journal.OpenWith(cfg, &d)
			if err != nil {
				t.Fatal(err)
			}
			before := d.count()
			mustRecord(t, j, event(class, "safe"))
			if d.count() != before+1 {
				t.Errorf("%s: %d syncs before the answer", class, d.count()-before)
			}
			d.set(func(d *disk) { d.sync = errBroken })
			if err := j.Record(context.Background(), event(class, "unsafe")); !errors.Is(err, audit.ErrFull) || !errors.Is(err, errBroken) {
				t.Errorf("%s: Record with a failing sync: %v", class, err)
			}
			d.set(func(d *disk) { d.sync = nil })
			time.Sleep(2 * time.Second)
			mustRecord(t, j, event(class, "safe again"))
			mustClose(t, j)
			mustVerify(t, dir)
		})
	}
}

func TestGroupCommitSharesOneFsync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d disk
		j, err := journal.OpenWith(config(t.TempDir()), &d)
		if err != nil {
			t.Fatal(err)
		}
		before := d.count()
		for i := range 500 {
			mustRecord(t, j, event(audit.Security, fmt.Sprint(i)))
		}
		if d.count() != before {
			t.Errorf("%d syncs before the time", d.count()-before)
		}
		time.Sleep(journal.DefaultFsync)
		synctest.Wait()
		if d.count() != before+1 {
			t.Errorf("%d syncs after it", d.count()-before)
		}
		mustClose(t, j)
	})
}

func TestAFullSegmentIsOnDiskBeforeItIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d disk
		cfg := config(t.TempDir())
		cfg.Segment = 128 << 10
		j, err := journal.OpenWith(cfg, &d)
		if err != nil {
			t.Fatal(err)
		}
		before := d.count()
		for j.Stats().Segments < 2 {
			mustRecord(t, j, event(audit.Security, "e"))
		}
		// One for the full segment, one for the first line of the next.
		if n := d.count() - before; n != 2 {
			t.Errorf("%d syncs", n)
		}
		mustClose(t, j)
	})
}

func TestCloseTellsOfAFailedLastSync(t *testing.T) {
	var d disk
	j, err := journal.OpenWith(config(t.TempDir()), &d)
	if err != nil {
		t.Fatal(err)
	}
	mustRecord(t, j, event(audit.Security, "e"))
	d.set(func(d *disk) { d.sync = errBroken })
	if err := j.Close(); !errors.Is(err, errBroken) {
		t.Errorf("Close: %v", err)
	}
}
