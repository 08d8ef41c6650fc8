package journal_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moat-gateway/moat/internal/audit"
	"github.com/moat-gateway/moat/internal/audit/journal"
)

// volatileDisk is a disk whose power can go. The directory shows what programs
// see; beside it the disk remembers what a loss would leave: the content of a file
// as of its last Sync, and the names as of the last SyncDir.
//
// Names that are not synced survive in the order they were made in, as on every
// file system with a journal; their number is chance.
type volatileDisk struct {
	journal.OSFiles

	mu         sync.Mutex
	random     *rand.Rand
	left       int // calls until the power goes; negative: it stays
	dead       bool
	diedAt     time.Time
	faults     int // one call in so many fails; 0: none
	syncFaults int // one Sync in so many
	failed     int
	files      map[string]*cachedFile
	safe       map[string]*cachedFile
	unsaved    []func(map[string]*cachedFile) // changes of names since the last SyncDir
	removed    map[string]bool                // ids of events in segments that were removed
}

type cachedFile struct {
	now, safe []byte
	// lost: a Sync failed. The kernel has dropped what it could not write, and the
	// next Sync succeeds without writing it.
	lost bool
}

var errPower = errors.New("the power is gone")

// newVolatileDisk takes everything in dir as safely there.
func newVolatileDisk(t *testing.T, dir string, random *rand.Rand) *volatileDisk {
	d := &volatileDisk{random: random, left: -1, files: make(map[string]*cachedFile), removed: make(map[string]bool)}
	list, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, entry := range list {
		content, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		d.files[entry.Name()] = &cachedFile{now: content, safe: content}
	}
	d.safe = maps.Clone(d.files)
	return d
}

// step counts a call; from the one at which the power goes all fail.
func (d *volatileDisk) step() error {
	if d.left == 0 && !d.dead {
		d.dead, d.diedAt = true, time.Now()
	}
	if d.dead {
		return errPower
	}
	d.left--
	return nil
}

// call is a step that may fail where the disk does so.
func (d *volatileDisk) call() error {
	err := d.step()
	if err == nil && d.faults > 0 && d.random.IntN(d.faults) == 0 {
		d.failed++
		err = syscall.EIO
	}
	return err
}

// endless reports whether the power goes by the clock and not by a count.
func (d *volatileDisk) endless() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.left < 0
}

// cut ends the power now, if it has not gone before.
func (d *volatileDisk) cut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.left = 0
	_ = d.step()
}

func (d *volatileDisk) gone() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.dead
}

// rename notes a change of names for now and, some day, for the disk.
func (d *volatileDisk) rename(change func(map[string]*cachedFile)) {
	change(d.files)
	d.unsaved = append(d.unsaved, change)
}

func (d *volatileDisk) Create(path string) (journal.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.call(); err != nil {
		return nil, err
	}
	f, err := d.OSFiles.Create(path)
	if err != nil {
		return nil, err
	}
	c := new(cachedFile)
	d.rename(func(names map[string]*cachedFile) { names[filepath.Base(path)] = c })
	return &volatileFile{File: f, disk: d, cached: c}, nil
}

// Truncate is durable, as that of the real disk.
func (d *volatileDisk) Truncate(path string, size int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.call(); err != nil {
		return err
	}
	c := d.files[filepath.Base(path)]
	c.now = c.now[:size:size]
	c.safe = c.now
	return d.OSFiles.Truncate(path, size)
}

func (d *volatileDisk) Remove(path string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.call(); err != nil {
		return err
	}
	name := filepath.Base(path)
	if c := d.files[name]; c != nil {
		for line := range bytes.Lines(c.now) {
			d.removed[idOf(line)] = true
		}
	}
	d.rename(func(names map[string]*cachedFile) { delete(names, name) })
	return d.OSFiles.Remove(path)
}

func (d *volatileDisk) Replace(path string, content []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.call(); err != nil {
		return err
	}
	c := &cachedFile{now: bytes.Clone(content)}
	c.safe = c.now
	d.rename(func(names map[string]*cachedFile) { names[filepath.Base(path)] = c })
	return os.WriteFile(path, content, 0o600)
}

func (d *volatileDisk) SyncDir(string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.call(); err != nil {
		return err
	}
	d.safe, d.unsaved = maps.Clone(d.files), nil
	return nil
}

type volatileFile struct {
	journal.File
	disk   *volatileDisk
	cached *cachedFile
}

// Write writes a part when it fails.
func (f *volatileFile) Write(b []byte) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	already := f.disk.dead
	err := f.disk.call()
	n := len(b)
	switch {
	case already:
		return 0, err
	case err != nil:
		n = f.disk.random.IntN(len(b) + 1)
	}
	f.cached.now = append(f.cached.now, b[:n]...)
	m, writeErr := f.File.Write(b[:n])
	return m, errors.Join(err, writeErr)
}

func (f *volatileFile) Sync() error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	err := f.disk.step()
	if err == nil && f.disk.syncFaults > 0 && f.disk.random.IntN(f.disk.syncFaults) == 0 {
		f.disk.failed++
		f.cached.lost, err = true, syscall.EIO
	}
	if err == nil && !f.cached.lost {
		f.cached.safe = f.cached.now[:len(f.cached.now):len(f.cached.now)]
	}
	return err
}

func (f *volatileFile) Truncate(size int64) error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if err := f.disk.call(); err != nil {
		return err
	}
	f.cached.now = f.cached.now[:size:size]
	return f.File.Truncate(size)
}

// end is what a loss makes of the bytes of a file that were not synced.
type end func(random *rand.Rand, at int, unsynced []byte) []byte

// page is what a file system writes at once.
const page = 4096

// chanceEnd leaves a prefix, and behind it nothing, zeros or garbage: a size that
// reached the disk before the content did.
func chanceEnd(random *rand.Rand, at int, unsynced []byte) []byte {
	kept := random.IntN(len(unsynced) + 1)
	switch random.IntN(6) {
	case 0:
		return nil
	case 1:
		return unsynced
	case 2:
		return unsynced[:kept]
	case 3:
		// From a page on.
		kept = min(max(0, (at+kept)/page*page-at), len(unsynced))
	}
	out := bytes.Clone(unsynced)
	clear(out[kept:])
	if random.IntN(2) == 0 {
		for i := kept; i < len(out); i++ {
			out[i] = byte(random.Uint32())
		}
	}
	return out
}

// lose writes to dir what is found when the power is back, and returns the lines
// that had to survive.
func (d *volatileDisk) lose(t *testing.T, dir string, chance end) (safe [][]byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Sorted(maps.Keys(d.safe)) {
		if name == journal.HeadFile {
			continue
		}
		for line := range bytes.Lines(d.safe[name].safe) {
			if whole(line) {
				safe = append(safe, line)
			}
		}
	}
	names := maps.Clone(d.safe)
	for _, change := range d.unsaved[:d.random.IntN(len(d.unsaved)+1)] {
		change(names)
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		c := names[name]
		content := c.safe
		if unsynced, ok := bytes.CutPrefix(c.now, c.safe); ok {
			content = append(content[:len(content):len(content)], chance(d.random, len(content), unsynced)...)
		} else if d.random.IntN(2) == 0 {
			content = c.now // a cut that was not synced
		}
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return safe
}

// whole reports whether a line is neither torn nor garbage.
func whole(line []byte) bool {
	return bytes.HasPrefix(line, []byte(`{"timestamp":`)) && bytes.HasSuffix(line, []byte("\"}\n")) && json.Valid(line)
}

// idOf and seqOf read a line of the journal without decoding all of it.
func idOf(line []byte) string {
	_, rest, _ := bytes.Cut(line, []byte(`,"id":"`))
	id, _, _ := bytes.Cut(rest, []byte(`"`))
	return string(id)
}

func seqOf(line []byte) uint64 {
	_, rest, _ := bytes.Cut(line, []byte(`,"seq":`))
	digits, _, _ := bytes.Cut(rest, []byte(","))
	seq, _ := strconv.ParseUint(string(digits), 10, 64)
	return seq
}

// rawLines returns all lines of a trail.
func rawLines(t *testing.T, dir string) [][]byte {
	var all [][]byte
	for _, path := range segments(t, dir) {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all = slices.AppendSeq(all, bytes.Lines(content))
	}
	return all
}

// accepted is an event that Record took.
type accepted struct {
	id    string
	level journal.Level
	at    time.Time
}

// workload is what happens between two losses.
type workload struct {
	cfg     journal.Config
	workers int
	events  int           // of each worker
	pace    time.Duration // the longest pause between two of them
}

// run records until the power is gone, and returns what was taken.
func (w workload) run(t *testing.T, d *volatileDisk, random *rand.Rand, prefix string) []accepted {
	// The disk goes on with the one given, on the writer's goroutine.
	random = rand.New(rand.NewPCG(random.Uint64(), 3)) // #nosec G404 -- repeatable
	j, err := journal.OpenWith(w.cfg, d)
	if err != nil {
		if !d.gone() && d.failed == 0 {
			t.Fatal(err)
		}
		d.cut()
		return nil
	}
	var mu sync.Mutex
	var taken []accepted
	var wg sync.WaitGroup
	for worker := range w.workers {
		own := rand.New(rand.NewPCG(random.Uint64(), 1)) // #nosec G404 -- repeatable
		wg.Go(func() {
			for i := range w.events {
				time.Sleep(time.Duration(own.Int64N(int64(w.pace))))
				class := []audit.Class{audit.Access, audit.Security, audit.Admin}[own.IntN(3)]
				e := event(class, fmt.Sprintf("%s-%d-%d", prefix, worker, i))
				e.Path = "/" + string(bytes.Repeat([]byte("p"), own.IntN(1800)))
				err := j.Record(context.Background(), e)
				if err == nil {
					mu.Lock()
					taken = append(taken, accepted{e.ID, w.level(class), time.Now()})
					mu.Unlock()
				}
				if d.gone() {
					return
				}
			}
		})
	}
	if d.endless() {
		time.Sleep(time.Duration(random.Int64N(50 * int64(w.pace))))
		d.cut()
	}
	wg.Wait()
	d.cut()
	_ = j.Close() // Of a process that is gone nothing else remains to be ended.
	return taken
}

// level is what Record promises for a class.
func (w workload) level(class audit.Class) journal.Level {
	if w.cfg.FsyncAlways {
		return journal.Synced
	}
	if l, ok := w.cfg.Waits[class]; ok {
		return l
	}
	if class == audit.Access {
		return journal.Queued
	}
	return journal.Written
}

// randomWorkload is one of the configurations that a gateway can have.
func randomWorkload(random *rand.Rand, keys string) workload {
	cfg := journal.Config{Instance: "gw-a", Segment: 128 << 10}
	cfg.Fsync = []time.Duration{time.Millisecond, 10 * time.Millisecond, 100 * time.Millisecond, 400 * time.Millisecond}[random.IntN(4)]
	cfg.FsyncAlways = random.IntN(4) == 0
	if random.IntN(2) == 0 {
		cfg.Waits = make(map[audit.Class]journal.Level)
		for _, class := range []audit.Class{audit.Access, audit.Security, audit.Admin} {
			cfg.Waits[class] = journal.Level(random.IntN(3)) // #nosec G115 -- three levels
		}
	}
	cfg.KeyFile = keys
	cfg.CheckpointEvents = 1 + random.IntN(100)
	w := workload{cfg: cfg, workers: 1 + random.IntN(4), events: 50, pace: 20 * time.Millisecond}
	if random.IntN(2) == 0 {
		w.pace = 200 * time.Millisecond // HEAD is written once a second
	}
	if random.IntN(2) == 0 {
		// Enough to come to it.
		w.cfg.MaxSize, w.workers, w.events = 2*cfg.Segment, 4, 100
	}
	return w
}

// tally is what many losses came to.
type tally struct {
	losses, events, synced, written, safe, missing, recovered, removed, faults, holes int
}

// round loses power one to three times and checks what is left.
func (sum *tally) round(t *testing.T, random *rand.Rand, faults, syncFaults int, chance end) {
	root, keys := t.TempDir(), ""
	if random.IntN(2) == 0 {
		keys = filepath.Join(root, "key")
	}
	var taken []accepted
	var safe [][]byte
	removed := make(map[string]bool)
	dir := filepath.Join(root, "0")
	w := randomWorkload(random, keys)
	for n := range 1 + random.IntN(3) {
		w.cfg.Dir = dir
		d := newVolatileDisk(t, dir, random)
		d.faults, d.syncFaults = faults, syncFaults
		switch random.IntN(4) {
		case 0: // when everything is quiet
		case 1: // in the middle of Open
			d.left = random.IntN(20)
		default:
			d.left = random.IntN(4 * w.events)
		}
		got := w.run(t, d, random, fmt.Sprint("e", n))
		dir = filepath.Join(root, strconv.Itoa(n+1))
		left := d.lose(t, dir, chance)
		onDisk := make(map[string]bool)
		for _, line := range left {
			onDisk[idOf(line)] = true
		}
		for _, a := range got {
			late := a.level == journal.Written && d.failed == 0 && a.at.Add(w.cfg.Fsync).Before(d.diedAt)
			if (a.level == journal.Synced || late) && !onDisk[a.id] && !d.removed[a.id] {
				t.Errorf("%s, %s, was taken %s before the loss and was not on disk", a.id, a.level, d.diedAt.Sub(a.at))
			}
		}
		taken, safe = append(taken, got...), append(safe, left...)
		maps.Copy(removed, d.removed)
		sum.losses++
		sum.faults += d.failed
	}
	w.cfg.Dir, w.cfg.MaxSize = dir, 0
	j := mustOpen(t, w.cfg)
	mustRecord(t, j, event(audit.Security, "after"))
	mustClose(t, j)
	sum.check(t, dir, safe, removed, syncFaults > 0)
	found := make(map[string]bool)
	for _, line := range rawLines(t, dir) {
		found[idOf(line)] = true
	}
	for _, a := range taken {
		switch a.level {
		case journal.Synced:
			sum.synced++
			if !found[a.id] && !removed[a.id] {
				t.Errorf("%s was promised to be on disk and is missing", a.id)
			}
		case journal.Written:
			sum.written++
			fallthrough
		default:
			if !found[a.id] && !removed[a.id] {
				sum.missing++
			}
		}
	}
	sum.events += len(taken)
	sum.safe += len(safe)
}

// check verifies the trail, and that what had to survive is in it byte by byte. Only
// where the disk lost a part that was not synced, from the middle, may Verify see a
// hole, which must be behind everything that was on disk until then.
func (sum *tally) check(t *testing.T, dir string, safe [][]byte, removed map[string]bool, holes bool) {
	report, err := journal.Verify(dir, journal.VerifyOptions{})
	if _, fault := errors.AsType[*journal.Fault](err); err != nil && (!holes || !fault) {
		t.Fatal(err)
	}
	if err != nil {
		sum.holes++
	}
	first, there := uint64(0), make(map[uint64][]byte)
	for i, line := range rawLines(t, dir) {
		seq := seqOf(line)
		if i == 0 {
			first = seq
		}
		if seq != first+uint64(i) && err == nil {
			t.Fatalf("number %d at place %d from %d on", seq, i, first)
		}
		if whole(line) {
			there[seq] = line
		}
		if bytes.Contains(line, []byte(`"action":"`+audit.ActionRecovered+`"`)) {
			sum.recovered++
		}
	}
	for _, line := range safe {
		seq := seqOf(line)
		switch {
		case seq < first && removed[idOf(line)]:
			sum.removed++
		case !bytes.Equal(there[seq], line):
			t.Fatalf("line %d was on disk and is not in the trail of %d to %d", seq, first, report.LastSeq)
		}
	}
}

func (sum *tally) log(t *testing.T) {
	t.Logf("%d losses, %d faults, %d events taken: %d synced, %d written, %d of the others missing; %d lines were on disk, %d of them removed by retention, %d torn ends recorded, %d holes",
		sum.losses, sum.faults, sum.events, sum.synced, sum.written, sum.missing, sum.safe, sum.removed, sum.recovered, sum.holes)
}

// losses runs rounds. A seed repeats one but for the order in which goroutines run.
func losses(t *testing.T, rounds, kind uint64, round func(*tally, *testing.T, *rand.Rand)) tally {
	var sum tally
	for seed := range rounds {
		synctest.Test(t, func(t *testing.T) {
			round(&sum, t, rand.New(rand.NewPCG(seed, kind))) // #nosec G404 -- a test
		})
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	sum.log(t)
	return sum
}

// TestALossOfPowerTakesNothingThatWasPromised loses power at any call to the disk,
// also while the journal is opened after a loss.
func TestALossOfPowerTakesNothingThatWasPromised(t *testing.T) {
	sum := losses(t, 150, 0, func(sum *tally, t *testing.T, random *rand.Rand) {
		sum.round(t, random, 0, 0, chanceEnd)
	})
	// Else the rounds no longer try what they are for.
	if sum.synced < 500 || sum.missing < 150 || sum.recovered < 25 || sum.removed < 50 {
		t.Error("too little happened")
	}
}

// TestALossOfPowerAfterADiskErrorTakesNothingThatWasPromised does so on a disk
// that refuses a call now and then.
func TestALossOfPowerAfterADiskErrorTakesNothingThatWasPromised(t *testing.T) {
	sum := losses(t, 50, 1, func(sum *tally, t *testing.T, random *rand.Rand) {
		sum.round(t, random, 20, 0, chanceEnd)
	})
	if sum.synced < 150 || sum.faults < 50 {
		t.Error("too little happened")
	}
}

// TestALossOfPowerAfterAFailedSyncIsShownAndCostsNothingThatWasPromised: what a
// failed fsync was to save may be gone, in the middle of the trail. Nobody was
// promised it, and Verify must not call that trail whole.
func TestALossOfPowerAfterAFailedSyncIsShownAndCostsNothingThatWasPromised(t *testing.T) {
	sum := losses(t, 50, 2, func(sum *tally, t *testing.T, random *rand.Rand) {
		sum.round(t, random, 0, 20, chanceEnd)
	})
	if sum.synced < 150 || sum.faults < 50 || sum.holes < 5 {
		t.Error("too little happened")
	}
}

// holedEnd keeps everything but one page in the middle: the disk writes in the
// order it likes.
func holedEnd(random *rand.Rand, at int, unsynced []byte) []byte {
	out := bytes.Clone(unsynced)
	if from := (at/page+1)*page - at; from+page < len(out) {
		from += page * random.IntN((len(out)-from)/page)
		clear(out[from : from+page])
	}
	return out
}

// TestAHoleInTheEndIsShownAndCostsNothingThatWasPromised: lines behind a hole look
// whole. The trail goes on behind them, and Verify names the hole.
func TestAHoleInTheEndIsShownAndCostsNothingThatWasPromised(t *testing.T) {
	sum := losses(t, 50, 3, func(sum *tally, t *testing.T, random *rand.Rand) {
		sum.round(t, random, 0, 1<<40, holedEnd)
	})
	if sum.synced < 150 || sum.holes < 2 {
		t.Error("too little happened")
	}
}

// TestALongEndOfZerosIsCutOff: more can wait for a sync than one write has, and
// after a loss all of it can be zeros.
func TestALongEndOfZerosIsCutOff(t *testing.T) {
	dir := crashed(t, 3)
	appendTo(t, segments(t, dir)[0], make([]byte, 3<<20))
	j := mustOpen(t, config(dir))
	mustRecord(t, j, event(audit.Security, "after"))
	mustClose(t, j)
	mustVerify(t, dir)
	if n := len(find(trail(t, dir), audit.ActionRecovered)); n != 1 {
		t.Errorf("recorded %d times", n)
	}
}
