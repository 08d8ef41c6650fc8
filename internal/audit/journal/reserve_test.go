package journal_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moat-gateway/moat/internal/audit"
	"github.com/moat-gateway/moat/internal/audit/journal"
)

// smallDisk says how much is free on it.
type smallDisk struct {
	journal.OSFiles

	free    atomic.Int64
	freeing atomic.Int64 // what each removed file gives back
}

func (d *smallDisk) Space(string) (int64, error) { return d.free.Load(), nil }

func (d *smallDisk) Remove(path string) error {
	d.free.Add(d.freeing.Load())
	return d.OSFiles.Remove(path)
}

const kib = 1 << 10

// fill records events until there are n segments.
func fill(t *testing.T, j *journal.Journal, n int) {
	t.Helper()
	for i := 0; j.Stats().Segments < n; i++ {
		e := event(audit.Security, fmt.Sprint(i))
		e.Path = strings.Repeat("p", 2000)
		mustRecord(t, j, e)
		if i > 10_000 {
			t.Fatalf("%d segments", j.Stats().Segments)
		}
	}
}

func TestTheOldestSegmentsGoForTheReserve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		d := new(smallDisk)
		d.free.Store(100 * kib * kib)
		d.freeing.Store(128 * kib)
		cfg := config(dir)
		cfg.Segment, cfg.Reserve = 128*kib, 10*kib*kib
		j, err := journal.OpenWith(cfg, d)
		if err != nil {
			t.Fatal(err)
		}
		fill(t, j, 6)
		d.free.Store(cfg.Reserve - 200*kib) // two segments too few
		time.Sleep(2 * time.Second)
		mustRecord(t, j, event(audit.Security, "low"))
		synctest.Wait()
		removed := find(trail(t, dir), audit.ActionRemoved)
		if len(removed) != 2 || removed[0].Reason != "reserve" || j.Stats().Segments != 4 {
			t.Errorf("removed %+v, %d segments left, want 4", removed, j.Stats().Segments)
		}
		mustRecord(t, j, event(audit.Security, "on"))
		mustClose(t, j)
		mustVerify(t, dir)
	})
}

func TestADiskNearlyFullStopsTheTrailUntilThereIsSpace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		d := new(smallDisk)
		d.free.Store(100 * kib * kib)
		var told troubles
		cfg := config(dir)
		cfg.Wait, cfg.Reserve, cfg.OnTrouble = 50*time.Millisecond, 10*kib*kib, told.tell
		j, err := journal.OpenWith(cfg, d)
		if err != nil {
			t.Fatal(err)
		}
		d.free.Store(cfg.Reserve - 1)
		time.Sleep(2 * time.Second)
		if err := j.Record(context.Background(), event(audit.Security, "full")); !errors.Is(err, audit.ErrFull) {
			t.Errorf("error %v, want ErrFull", err)
		}
		if j.Err() == nil || told.String() != journal.TroubleFull {
			t.Errorf("Err %v, told of %q", j.Err(), told.String())
		}
		d.free.Store(100 * kib * kib)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if j.Err() != nil {
			t.Errorf("still %v", j.Err())
		}
		mustRecord(t, j, event(audit.Security, "again"))
		mustClose(t, j)
		mustVerify(t, dir)
	})
}

// TestATrailThatNobodyMayShortenIsFullAtItsSize: a reader that stays away must not
// fill the disk.
func TestATrailThatNobodyMayShortenIsFullAtItsSize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		var read atomic.Uint64
		cfg := config(dir)
		cfg.Segment, cfg.MaxSize, cfg.Wait = 128*kib, 512*kib, 50*time.Millisecond
		cfg.Hold = read.Load
		j := mustOpen(t, cfg)
		var err error
		n := 0
		for ; err == nil && n < 2000; n++ {
			e := event(audit.Security, fmt.Sprint(n))
			e.Path = strings.Repeat("p", 2000)
			err = j.Record(context.Background(), e)
			time.Sleep(20 * time.Millisecond)
		}
		if !errors.Is(err, audit.ErrFull) || j.Stats().Bytes > 800*kib {
			t.Fatalf("after %d events: %v, %d bytes", n, err, j.Stats().Bytes)
		}
		read.Store(j.Stats().Seq)
		time.Sleep(5 * time.Second)
		mustRecord(t, j, event(audit.Security, "again"))
		synctest.Wait()
		if b := j.Stats().Bytes; b > 512*kib {
			t.Errorf("%d bytes after the reader came back", b)
		}
		mustClose(t, j)
		mustVerify(t, dir)
	})
}

func TestAutoSizeIsMostOfWhatIsFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := new(smallDisk)
		d.free.Store(1000 * kib)
		cfg := config(t.TempDir())
		cfg.Segment, cfg.MaxSize = 128*kib, journal.AutoSize
		j, err := journal.OpenWith(cfg, d)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 700 { // about 1.6 MiB
			e := event(audit.Security, fmt.Sprint(i))
			e.Path = strings.Repeat("p", 2000)
			mustRecord(t, j, e)
		}
		// What is free later does not count: by then the trail has taken some itself.
		d.free.Store(kib * kib * kib)
		if err := j.Reconfigure(cfg); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * journal.Upkeep)
		synctest.Wait()
		if b := j.Stats().Bytes; b > 800*kib || b < 600*kib {
			t.Errorf("%d KiB, want 800 at most", b/kib)
		}
		mustClose(t, j)
	})
}

func TestEachClassWaitsForWhatItIsTold(t *testing.T) {
	dir := t.TempDir()
	var d disk
	cfg := config(dir)
	cfg.Fsync = time.Minute
	cfg.Waits = map[audit.Class]journal.Level{audit.Admin: journal.Synced, audit.Access: journal.Written}
	j, err := journal.OpenWith(cfg, &d)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		class audit.Class
		syncs int
	}{{audit.Access, 0}, {audit.Security, 0}, {audit.Admin, 1}} {
		before := d.count()
		mustRecord(t, j, event(row.class, string(row.class)))
		if l := last(trail(t, dir)); l.ID != string(row.class) {
			t.Errorf("%s: the trail ends with %s", row.class, l.ID)
		}
		if n := d.count() - before; n != row.syncs {
			t.Errorf("%s: %d syncs, want %d", row.class, n, row.syncs)
		}
	}
	mustClose(t, j)
}

func TestLevelsAreReadByName(t *testing.T) {
	for _, l := range []journal.Level{journal.Queued, journal.Written, journal.Synced} {
		if got, err := journal.ParseLevel(l.String()); err != nil || got != l {
			t.Errorf("%s: %s, %v", l, got, err)
		}
	}
	if got, err := journal.ParseLevel("fsync"); err == nil || got != journal.Synced {
		t.Errorf("%s, %v, want the strictest and an error", got, err)
	}
}
