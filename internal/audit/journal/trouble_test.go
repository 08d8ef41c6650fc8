package journal_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moat-gateway/moat/internal/audit"
	"github.com/moat-gateway/moat/internal/audit/journal"
)

// eventually waits for what the writer does by itself.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not in ten seconds", what)
		}
	}
}

func TestAFullDiskStopsTheTrailAndSpaceStartsItAgain(t *testing.T) {
	dir := t.TempDir()
	var d disk
	var told troubles
	cfg := config(dir)
	cfg.Wait, cfg.OnTrouble = 30*time.Millisecond, told.tell
	j, err := journal.OpenWith(cfg, &d)
	if err != nil {
		t.Fatal(err)
	}
	mustRecord(t, j, event(audit.Security, "before"))

	// Room for one line and a half.
	d.set(func(d *disk) { d.limited, d.room = true, 1000 })
	var failed int
	for i := range 4 {
		err := j.Record(context.Background(), event(audit.Security, fmt.Sprint("full", i)))
		if err != nil && (!errors.Is(err, audit.ErrFull) || !errors.Is(err, syscall.ENOSPC)) {
			t.Errorf("Record on a full disk: %v", err)
		}
		if err != nil {
			failed++
		}
	}
	if failed < 2 || !errors.Is(j.Err(), syscall.ENOSPC) || j.Stats().Healthy {
		t.Errorf("%d failed, Err %v, stats %+v", failed, j.Err(), j.Stats())
	}
	if told.String() != journal.TroubleFull {
		t.Errorf("told of %q", told.String())
	}
	if err := j.Record(context.Background(), event(audit.Access, "queued")); err != nil {
		t.Errorf("there is room in the queue: %v", err)
	}

	d.set(func(d *disk) { d.limited = false })
	eventually(t, "healing", func() bool { return j.Err() == nil })
	mustClose(t, j)
	mustVerify(t, dir)
	// Nothing that was queued is lost, and nothing is there twice.
	seen := make(map[string]int)
	for _, l := range find(trail(t, dir), "http.request") {
		seen[l.ID]++
	}
	for _, id := range []string{"before", "full0", "full1", "full2", "full3", "queued"} {
		if seen[id] != 1 {
			t.Errorf("%s is in the trail %d times", id, seen[id])
		}
	}
	if told.String() != journal.TroubleFull+" "+journal.TroubleOver {
		t.Errorf("told of %q", told.String())
	}
}

// stuck is a journal of a queue of two whose writer hangs in a write of one
// event.
func stuck(t *testing.T, d *disk, cfg journal.Config) *journal.Journal {
	t.Helper()
	cfg.Queue = 2
	j, err := journal.OpenWith(cfg, d)
	if err != nil {
		t.Fatal(err)
	}
	d.set(func(d *disk) { d.hang = make(chan struct{}) })
	mustRecord(t, j, event(audit.Access, "in hand"))
	return j
}

func TestAccessEventsThatDoNotFitAreCountedAndTheGapIsWrittenDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		var d disk
		j := stuck(t, &d, config(dir))
		synctest.Wait()
		for i := range 7 {
			// Two fit, five are dropped, and no request is refused for that.
			mustRecord(t, j, event(audit.Access, fmt.Sprint("a", i)))
		}
		if got := j.Stats().Dropped[audit.Access]; got != 5 {
			t.Errorf("%d dropped", got)
		}
		began := time.Now()
		if err := j.Record(context.Background(), event(audit.Security, "refused")); !errors.Is(err, audit.ErrFull) {
			t.Errorf("a security event: %v", err)
		}
		if waited := time.Since(began); waited != 10*time.Second {
			t.Errorf("waited %s of a budget of 10s", waited)
		}
		close(d.hang)
		mustClose(t, j)
		mustVerify(t, dir)
		lines := trail(t, dir)
		gaps := find(lines, audit.ActionGap)
		if len(gaps) != 1 || len(find(lines, "http.request")) != 3 {
			t.Fatalf("%d gaps in %d lines", len(gaps), len(lines))
		}
		g := gaps[0]
		if g.Class != "security" || g.Severity != "high" || g.Details["count"] != 6.0 ||
			g.Details["access"] != 5.0 || g.Details["security"] != 1.0 || g.Details["from"] == g.Details["to"] {
			t.Errorf("gap %+v", g)
		}
	})
}

func TestASecurityEventWaitsForRoomWithinItsBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		var d disk
		j := stuck(t, &d, config(dir))
		synctest.Wait()
		for i := range 2 {
			mustRecord(t, j, event(audit.Access, fmt.Sprint("a", i)))
		}
		time.AfterFunc(9*time.Second, func() { close(d.hang) })
		if err := j.Record(context.Background(), event(audit.Security, "patient")); err != nil {
			t.Errorf("there was room in time: %v", err)
		}
		mustClose(t, j)
		if n := j.Stats().Dropped[audit.Security]; n != 0 || len(find(trail(t, dir), audit.ActionGap)) != 0 {
			t.Errorf("%d dropped", n)
		}
	})
}

func TestALateEventIsWrittenThoughNobodyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		var d disk
		j := stuck(t, &d, config(dir))
		if err := j.Record(context.Background(), event(audit.Security, "late")); !errors.Is(err, audit.ErrFull) {
			t.Errorf("Record while the disk hangs: %v", err)
		}
		close(d.hang)
		mustClose(t, j)
		if lines := trail(t, dir); lines[len(lines)-1].ID != "late" {
			t.Errorf("ends with %+v", lines[len(lines)-1])
		}
	})
}

func TestCloseTurnsAwayWhoStillWaitsForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		var d disk
		j := stuck(t, &d, config(dir))
		synctest.Wait()
		for i := range 2 {
			mustRecord(t, j, event(audit.Access, fmt.Sprint("a", i)))
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := j.Record(context.Background(), event(audit.Security, "turned away")); !errors.Is(err, audit.ErrClosed) {
				t.Errorf("Record during Close: %v", err)
			}
		})
		synctest.Wait()
		wg.Go(func() { mustClose(t, j) })
		synctest.Wait()
		close(d.hang)
		wg.Wait()
		mustVerify(t, dir)
	})
}

func TestAFullQueueOnABrokenTrailIsAnErrorForEveryClass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d disk
		cfg := config(t.TempDir())
		cfg.Queue = 2
		j, err := journal.OpenWith(cfg, &d)
		if err != nil {
			t.Fatal(err)
		}
		d.set(func(d *disk) { d.limited = true })
		mustRecord(t, j, event(audit.Access, "in hand"))
		synctest.Wait()
		for i := range 2 {
			mustRecord(t, j, event(audit.Access, fmt.Sprint("a", i)))
		}
		if err := j.Record(context.Background(), event(audit.Access, "over")); !errors.Is(err, audit.ErrFull) || !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("Record: %v", err)
		}
		err = j.Close()
		if err == nil || !strings.Contains(err.Error(), "3 events unwritten") || !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("Close: %v", err)
		}
		if got := j.Stats().Dropped[audit.Access]; got != 4 {
			t.Errorf("%d dropped", got)
		}
	})
}

func TestCloseOnABrokenTrailTellsWhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d disk
		j, err := journal.OpenWith(config(t.TempDir()), &d)
		if err != nil {
			t.Fatal(err)
		}
		d.set(func(d *disk) { d.limited = true })
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := j.Record(context.Background(), event(audit.Security, "lost")); !errors.Is(err, audit.ErrClosed) {
				t.Errorf("Record: %v", err)
			}
		})
		synctest.Wait()
		if err := j.Close(); err == nil {
			t.Error("Close says that nothing was lost")
		}
		wg.Wait()
	})
}

func TestABrokenWriteIsCutOffAndTriedInANewSegment(t *testing.T) {
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
		mustRecord(t, j, event(audit.Security, "first"))
		d.set(func(d *disk) { d.write = errBroken })
		time.AfterFunc(time.Second, func() { d.set(func(d *disk) { d.write = nil }) })
		mustRecord(t, j, event(audit.Security, "second"))
		mustClose(t, j)
		mustVerify(t, dir)
		starts := find(trail(t, dir), audit.ActionSegment)
		if len(starts) != 2 || starts[1].Reason != "write-failed" || starts[1].Severity != "high" {
			t.Errorf("segments %+v", starts)
		}
		if told.String() != journal.TroubleWrite+" "+journal.TroubleOver {
			t.Errorf("told of %q", told.String())
		}
	})
}

// size is about what the line of an event takes in a file.
func size(id string) int64 {
	e := event(audit.Access, id)
	e.Seq, e.Instance, e.Prev = 2, "gw-a", strings.Repeat("0", 64)
	return int64(len(e.AppendJSON(nil)) + 1)
}

func TestWholeLinesOfABrokenWriteStayAsReadersSawThem(t *testing.T) {
	for _, always := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			dir := t.TempDir()
			var d disk
			cfg := config(dir)
			j := stuck(t, &d, cfg)
			synctest.Wait()
			var wg sync.WaitGroup
			for i := range 2 {
				wg.Go(func() { mustRecord(t, j, event(audit.Security, fmt.Sprint("e", i))) })
				synctest.Wait()
			}
			cfg.Queue, cfg.FsyncAlways = 2, always
			if err := j.Reconfigure(cfg); err != nil {
				t.Fatal(err)
			}
			// The write of two lines that follows the hanging one stops in the
			// middle of the second.
			before := d.count()
			room := size("in hand") + size("e0")*3/2
			d.set(func(d *disk) {
				close(d.hang)
				d.hang, d.limited, d.room = nil, true, room
			})
			synctest.Wait()
			if l := last(trail(t, dir)); l.ID != "e0" {
				t.Errorf("fsync always %v: the trail ends with %+v", always, l)
			}
			// One sync for each of the two answers.
			if n := d.count() - before; always && n != 2 {
				t.Errorf("%d syncs", n)
			}
			d.set(func(d *disk) { d.limited = false })
			wg.Wait()
			mustClose(t, j)
			mustVerify(t, dir)
			if n := len(find(trail(t, dir), "http.request")); n != 3 {
				t.Errorf("fsync always %v: %d events", always, n)
			}
		})
	}
}

func TestATornLineThatCannotBeCutStopsTheTrailUntilItCan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		var d disk
		j, err := journal.OpenWith(config(dir), &d)
		if err != nil {
			t.Fatal(err)
		}
		d.set(func(d *disk) { d.write, d.truncate = errBroken, syscall.EIO })
		time.AfterFunc(time.Second, func() { d.set(func(d *disk) { d.write = nil }) })
		time.AfterFunc(3*time.Second, func() {
			if !errors.Is(j.Err(), syscall.EIO) {
				t.Errorf("Err = %v", j.Err())
			}
			d.set(func(d *disk) { d.truncate = nil })
		})
		mustRecord(t, j, event(audit.Security, "patient"))
		mustClose(t, j)
		mustVerify(t, dir)
	})
}

func TestASegmentThatCannotBeBegunLeavesTheTrailAsItWas(t *testing.T) {
	for name, fail := range map[string]func(*disk){
		"no space":          func(d *disk) { d.limited = true },
		"create":            func(d *disk) { d.create = errBroken },
		"directory":         func(d *disk) { d.syncDir = errBroken },
		"and not taken off": func(d *disk) { d.syncDir, d.remove = errBroken, errBroken },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				var d disk
				j, err := journal.OpenWith(config(dir), &d)
				if err != nil {
					t.Fatal(err)
				}
				mustRecord(t, j, event(audit.Security, "first"))
				// A failed sync makes the writer begin a segment.
				d.set(func(d *disk) { d.sync = errBroken })
				time.Sleep(journal.DefaultFsync)
				synctest.Wait()
				d.set(func(d *disk) { d.sync = nil; fail(d) })
				time.AfterFunc(5*time.Second, func() {
					if j.Err() == nil {
						t.Error("not broken")
					}
					d.set(func(d *disk) { d.limited, d.create, d.syncDir, d.remove = false, nil, nil, nil })
				})
				mustRecord(t, j, event(audit.Security, "second"))
				mustClose(t, j)
				if r := mustVerify(t, dir); r.Segments != 2 || r.Events != 4 {
					t.Errorf("report %+v", r)
				}
			})
		})
	}
}

func TestOpenTellsWhatTheDiskDoesNotAllow(t *testing.T) {
	for name, fail := range map[string]func(*disk){
		"mkdir":    func(d *disk) { d.mkdir = errBroken },
		"create":   func(d *disk) { d.create = errBroken },
		"sync":     func(d *disk) { d.sync = errBroken },
		"sync dir": func(d *disk) { d.syncDir = errBroken },
		"write":    func(d *disk) { d.write = errBroken },
	} {
		dir := t.TempDir()
		var d disk
		fail(&d)
		if _, err := journal.OpenWith(config(dir), &d); !errors.Is(err, errBroken) {
			t.Errorf("%s: %v", name, err)
		}
		if n := len(segments(t, dir)); n != 0 {
			t.Errorf("%s: left %d segments", name, n)
		}
		// The directory is free again.
		mustClose(t, mustOpen(t, config(dir)))
	}
}
