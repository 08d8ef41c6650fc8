package journal_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moat-gateway/moat/internal/audit"
	"github.com/moat-gateway/moat/internal/audit/journal"
)

// load records events of all classes until it is stopped, and notes what became of
// them.
type load struct {
	j     *journal.Journal
	stop  atomic.Bool
	group sync.WaitGroup

	mu      sync.Mutex
	ids     map[string]audit.Class // taken without an error
	refused map[audit.Class]int
	slowest time.Duration
	wrong   error // neither nil nor ErrFull
}

func startLoad(j *journal.Journal, workers int) *load {
	l := &load{j: j, ids: make(map[string]audit.Class), refused: make(map[audit.Class]int)}
	for worker := range workers {
		random := rand.New(rand.NewPCG(uint64(worker), 9)) // #nosec G404 -- repeatable
		l.group.Go(func() {
			for i := 0; !l.stop.Load(); i++ {
				class := []audit.Class{audit.Access, audit.Access, audit.Security, audit.Admin}[random.IntN(4)]
				l.record(event(class, fmt.Sprintf("w%d-%d", worker, i)))
				time.Sleep(time.Duration(1+random.IntN(3)) * time.Millisecond)
			}
		})
	}
	return l
}

func (l *load) record(e *audit.Event) {
	began := time.Now()
	err := l.j.Record(context.Background(), e)
	took := time.Since(began)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.slowest = max(l.slowest, took)
	switch {
	case err == nil:
		l.ids[e.ID] = e.Class
	case errors.Is(err, audit.ErrFull):
		l.refused[e.Class]++
	default:
		l.wrong = err
	}
}

// reset begins a new count and returns what the old one had.
func (l *load) reset() (taken, refused map[audit.Class]int, slowest time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	taken = make(map[audit.Class]int)
	for _, class := range l.ids {
		taken[class]++
	}
	refused, slowest = l.refused, l.slowest
	l.ids, l.refused, l.slowest = make(map[string]audit.Class), make(map[audit.Class]int), 0
	return taken, refused, slowest
}

func (l *load) end(t *testing.T) {
	t.Helper()
	l.stop.Store(true)
	l.group.Wait()
	if l.wrong != nil {
		t.Errorf("an error that is not ErrFull: %v", l.wrong)
	}
}

// wantGaps compares what the trail says about dropped events with the counters.
func wantGaps(t *testing.T, lines []line, dropped map[audit.Class]uint64) {
	t.Helper()
	gaps := find(lines, audit.ActionGap)
	if len(gaps) == 0 {
		t.Error("no gap is recorded")
	}
	for class, n := range dropped {
		sum := 0.0
		for _, g := range gaps {
			sum += g.Details[string(class)].(float64)
		}
		if sum != float64(n) {
			t.Errorf("%s: the trail says that %v were dropped, the counter %d", class, sum, n)
		}
	}
}

// slack is what a Record may take above Wait. The clock of these tests moves only
// when nobody can go on, so that a busy machine needs none.
const slack = 5 * time.Millisecond

// TestAFullDiskUnderLoadHoldsNobodyLongerThanToldAndGoesOn fills the disk in the
// middle of a load and frees it again.
func TestAFullDiskUnderLoadHoldsNobodyLongerThanToldAndGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		var d disk
		cfg := config(dir)
		cfg.Wait, cfg.Queue = journal.DefaultWait, 64
		j, err := journal.OpenWith(cfg, &d)
		if err != nil {
			t.Fatal(err)
		}
		l := startLoad(j, 8)
		time.Sleep(500 * time.Millisecond)
		taken, refused, _ := l.reset()
		if len(refused) != 0 || taken[audit.Access] == 0 || taken[audit.Security] == 0 || taken[audit.Admin] == 0 {
			t.Fatalf("on a disk with room: %v taken, %v refused", taken, refused)
		}

		d.set(func(d *disk) { d.limited, d.room = true, 20_000 })
		time.Sleep(500 * time.Millisecond)
		l.reset() // what was taken while there was still some room
		time.Sleep(10 * time.Second)
		taken, refused, slowest := l.reset()
		if taken[audit.Security] != 0 || taken[audit.Admin] != 0 {
			t.Errorf("on a full disk %v were taken", taken)
		}
		if refused[audit.Security] == 0 || refused[audit.Admin] == 0 || refused[audit.Access] == 0 {
			t.Errorf("on a full disk %v were refused", refused)
		}
		if slowest > cfg.Wait+slack {
			t.Errorf("Record took %s, Wait is %s", slowest, cfg.Wait)
		}
		dropped := j.Stats().Dropped
		if dropped[audit.Access] == 0 || j.Err() == nil {
			t.Errorf("%v dropped, Err %v", dropped, j.Err())
		}
		t.Logf("full for 10s: %v refused, %v dropped, the slowest Record took %s", refused, dropped, slowest)

		d.set(func(d *disk) { d.limited = false })
		time.Sleep(1100 * time.Millisecond)
		if err := j.Err(); err != nil {
			t.Errorf("a second after there is room: %v", err)
		}
		l.reset()
		time.Sleep(200 * time.Millisecond)
		l.end(t)
		kept := l.ids
		if taken, refused, _ := l.reset(); len(refused) != 0 || taken[audit.Security] == 0 {
			t.Errorf("after that %v taken, %v refused", taken, refused)
		}
		mustClose(t, j)
		mustVerify(t, dir)
		lines := trail(t, dir)
		wantGaps(t, lines, j.Stats().Dropped)
		for _, line := range lines {
			delete(kept, line.ID)
		}
		if len(kept) != 0 {
			t.Errorf("%d events that were taken are missing", len(kept))
		}
	})
}

// TestAHangingDiskHoldsNobodyLongerThanTold lets writes, and then syncs, take two
// seconds.
func TestAHangingDiskHoldsNobodyLongerThanTold(t *testing.T) {
	for name, always := range map[string]bool{"fsync 100ms": false, "fsync always": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				d := new(slowDisk)
				cfg := config(dir)
				cfg.Wait, cfg.Queue, cfg.FsyncAlways = journal.DefaultWait, 64, always
				j, err := journal.OpenWith(cfg, d)
				if err != nil {
					t.Fatal(err)
				}
				l := startLoad(j, 8)
				time.Sleep(200 * time.Millisecond)
				if _, refused, _ := l.reset(); len(refused) != 0 {
					t.Fatalf("on a quick disk %v were refused", refused)
				}
				for _, hang := range []*atomic.Int64{&d.write, &d.sync} {
					hang.Store(int64(2 * time.Second))
					time.Sleep(5 * time.Second)
					hang.Store(0)
					_, refused, slowest := l.reset()
					if slowest > cfg.Wait+slack || slowest < cfg.Wait || refused[audit.Security] == 0 {
						t.Errorf("the slowest Record took %s, Wait is %s; %v refused", slowest, cfg.Wait, refused)
					}
					time.Sleep(3 * time.Second)
					l.reset()
					time.Sleep(200 * time.Millisecond)
					if taken, refused, _ := l.reset(); len(refused) != 0 || taken[audit.Security] == 0 {
						t.Errorf("after that %v taken, %v refused", taken, refused)
					}
				}
				l.end(t)
				mustClose(t, j)
				mustVerify(t, dir)
				wantGaps(t, trail(t, dir), j.Stats().Dropped)
			})
		})
	}
}

// slowDisk takes its time.
type slowDisk struct {
	journal.OSFiles

	write, sync atomic.Int64
}

func (d *slowDisk) Create(path string) (journal.File, error) {
	f, err := d.OSFiles.Create(path)
	return &slowFile{f, d}, err
}

type slowFile struct {
	journal.File
	disk *slowDisk
}

func (f *slowFile) Write(b []byte) (int, error) {
	time.Sleep(time.Duration(f.disk.write.Load()))
	return f.File.Write(b)
}

func (f *slowFile) Sync() error {
	time.Sleep(time.Duration(f.disk.sync.Load()))
	return f.File.Sync()
}

// TestWhatWasWrittenBeforeTheDiskWasFullIsOnDiskInTime: a disk can stay full for
// days, and a loss of power then must not take what was recorded before.
func TestWhatWasWrittenBeforeTheDiskWasFullIsOnDiskInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		var d disk
		cfg := config(dir)
		cfg.Wait = journal.DefaultWait
		j, err := journal.OpenWith(cfg, &d)
		if err != nil {
			t.Fatal(err)
		}
		mustRecord(t, j, event(audit.Security, "before"))
		d.set(func(d *disk) { d.limited = true })
		before := d.count()
		if err := j.Record(context.Background(), event(audit.Security, "full")); !errors.Is(err, audit.ErrFull) {
			t.Errorf("Record on a full disk: %v", err)
		}
		time.Sleep(10 * time.Second)
		if d.count() == before {
			t.Errorf("not synced in 10s, fsync is %s", journal.DefaultFsync)
		}
		d.set(func(d *disk) { d.limited = false })
		time.Sleep(2 * time.Second)
		mustClose(t, j)
		mustVerify(t, dir)
	})
}

// TestWhatAFullDiskStillTookIsOnDiskInTime: of a write that did not fit, the whole
// lines count as written, and no later write makes them durable.
func TestWhatAFullDiskStillTookIsOnDiskInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		var d disk
		cfg := config(dir)
		cfg.Waits = map[audit.Class]journal.Level{audit.Admin: journal.Synced}
		j, err := journal.OpenWith(cfg, &d)
		if err != nil {
			t.Fatal(err)
		}
		hang := make(chan struct{})
		d.set(func(d *disk) { d.hang = hang })
		var group sync.WaitGroup
		group.Go(func() { mustRecord(t, j, event(audit.Admin, "in hand")) })
		synctest.Wait()
		var took atomic.Int64
		for i := range 2 {
			group.Go(func() {
				if j.Record(context.Background(), event(audit.Security, fmt.Sprint("e", i))) == nil {
					took.Add(1)
				}
			})
			synctest.Wait()
		}
		d.set(func(d *disk) {
			d.hang, d.limited, d.room = nil, true, size("in hand")+size("e0")*3/2
			close(hang)
		})
		synctest.Wait()
		before := d.count()
		if took.Load() != 1 {
			t.Fatalf("%d events were taken", took.Load())
		}
		time.Sleep(5 * time.Second)
		if d.count() == before {
			t.Errorf("not synced in 5s, fsync is %s", journal.DefaultFsync)
		}
		d.set(func(d *disk) { d.limited = false })
		group.Wait()
		mustClose(t, j)
		mustVerify(t, dir)
	})
}
