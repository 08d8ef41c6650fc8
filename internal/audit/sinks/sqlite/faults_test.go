package sqlite_test

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/audit/follow"
	"github.com/moat-gateway/moat/internal/audit/sinks/sqlite"
	"github.com/moat-gateway/moat/internal/audit/sinktest"
)

// childPath names the database of a process that the tests start and kill.
const childPath = "MOAT_TEST_SQLITE_CHILD"

func TestMain(m *testing.M) {
	if path := os.Getenv(childPath); path != "" {
		deliverForEver(path)
		return
	}
	os.Exit(m.Run())
}

// deliverForEver is the life of the process that is killed. It says what was
// delivered.
func deliverForEver(path string) {
	s, err := sqlite.New(sqlite.Config{Path: path})
	for seq := uint64(1); err == nil; seq += 10 {
		err = s.Deliver(context.Background(), sinktest.Lines(seq, seq+9))
		fmt.Println(seq + 9)
	}
	fmt.Println(err)
}

func TestAKilledGatewayLosesNothing(t *testing.T) {
	path := place(t)
	for round := range 4 {
		cmd := osexec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childPath+"="+path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		said, last := bufio.NewScanner(out), uint64(0)
		for said.Scan() {
			if last, err = strconv.ParseUint(said.Text(), 10, 64); err != nil {
				t.Fatal(said.Text())
			}
			if last == uint64(200*(round+1)) {
				_ = cmd.Process.Kill()
			}
		}
		_ = cmd.Wait()
		got := column(t, path, "line")
		if uint64(len(got)) < last || len(got)%10 != 0 || !slices.Equal(got, raws(1, uint64(len(got)))) {
			t.Fatalf("%d rows after %d were delivered", len(got), last)
		}
		s := open(t, sqlite.Config{Path: path})
		deliver(t, s, last-5, uint64(len(got))+10)
		wantLines(t, path, raws(1, uint64(len(got))+10))
		_ = s.Close()
	}
}

// machine is a file that other programs do bad things to.
type machine struct {
	t    *testing.T
	path string
	undo func()
}

func (m *machine) set(fault sinktest.Fault) {
	if m.undo != nil {
		m.undo()
		m.undo = nil
	}
	switch fault {
	case sinktest.Slow:
		m.slow()
	case sinktest.Refuse:
		m.replace(func() error { return os.Mkdir(m.path, 0o700) })
	case sinktest.HalfOpen:
		m.lock()
	case sinktest.Malformed:
		m.replace(func() error { return os.WriteFile(m.path, []byte(strings.Repeat("no database ", 1000)), 0o600) })
	}
}

// replace puts something in the place of the database until undone.
func (m *machine) replace(by func() error) {
	aside := filepath.Join(filepath.Dir(m.path), "aside")
	move := func(from, to string) {
		for _, suffix := range []string{"", "-wal", "-shm"} {
			if err := os.Rename(from+suffix, to+suffix); err != nil && !os.IsNotExist(err) {
				m.t.Error(err)
			}
		}
	}
	move(m.path, aside)
	if err := by(); err != nil {
		m.t.Error(err)
	}
	m.undo = func() {
		if err := os.Remove(m.path); err != nil {
			m.t.Error(err)
		}
		move(aside, m.path)
	}
}

// lock keeps everybody from writing until undone.
func (m *machine) lock() {
	db := database(m.t, m.path)
	m.exec(db, "BEGIN IMMEDIATE")
	m.undo = func() {
		m.exec(db, "ROLLBACK")
		_ = db.Close()
	}
}

// slow locks the database again and again.
func (m *machine) slow() {
	db, stop, done := database(m.t, m.path), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for open := true; open; {
			m.exec(db, "BEGIN IMMEDIATE")
			<-time.After(3 * time.Millisecond)
			m.exec(db, "ROLLBACK")
			select {
			case <-stop:
				open = false
			case <-time.After(3 * time.Millisecond):
			}
		}
	}()
	m.undo = func() {
		close(stop)
		<-done
		_ = db.Close()
	}
}

func (m *machine) exec(db *sql.DB, statement string) {
	if _, err := db.ExecContext(context.Background(), statement); err != nil {
		m.t.Error(err)
	}
}

func TestSuite(t *testing.T) {
	sinktest.Run(t, func(t *testing.T) sinktest.Harness {
		m := &machine{t: t, path: place(t)}
		return sinktest.Harness{
			Once: true, RawOnly: true, Fault: m.set,
			Open:     func(t *testing.T) follow.Sink { return open(t, sqlite.Config{Path: m.path}) },
			Received: func(t *testing.T) []string { return column(t, m.path, "line") },
		}
	})
}

func TestALockedDatabaseCostsTheBudgetAndNoMore(t *testing.T) {
	path := place(t)
	s := open(t, sqlite.Config{Path: path, Timeout: 300 * time.Millisecond})
	fresh := open(t, sqlite.Config{Path: path, Timeout: 300 * time.Millisecond})
	deliver(t, s, 1, 3)
	m := &machine{t: t, path: path}
	m.set(sinktest.HalfOpen)
	start := time.Now()
	wantFailure(t, s, "locked by another program")
	wantFailure(t, fresh, "locked by another program")
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("took %s", took)
	}
	m.set(sinktest.Healthy)
	deliver(t, s, 1, 5)
	deliver(t, fresh, 4, 6)
	wantLines(t, path, raws(1, 6))
}

func TestACancelledDeliveryEndsSoonAlthoughLocked(t *testing.T) {
	for name, mode := range map[string]string{"write-ahead log": "BEGIN IMMEDIATE", "exclusive": "PRAGMA locking_mode=EXCLUSIVE; BEGIN EXCLUSIVE"} {
		t.Run(name, func(t *testing.T) {
			path := place(t)
			db := database(t, path)
			if _, err := db.ExecContext(t.Context(), mode); err != nil {
				t.Fatal(err)
			}
			s := open(t, sqlite.Config{Path: path, Timeout: time.Minute})
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(50*time.Millisecond, cancel)
			start := time.Now()
			if err := s.Deliver(ctx, sinktest.Lines(1, 1)); !errors.Is(err, context.Canceled) {
				t.Errorf("Deliver = %v", err)
			}
			if took := time.Since(start); took > 900*time.Millisecond {
				t.Errorf("took %s", took)
			}
			if _, err := db.ExecContext(t.Context(), "ROLLBACK"); err != nil {
				t.Fatal(err)
			}
			_ = db.Close()
			deliver(t, s, 1, 2)
			wantLines(t, path, raws(1, 2))
		})
	}
}

func TestADiskThatHangsHoldsUpNobodyElse(t *testing.T) {
	before := runtime.NumGoroutine()
	path := place(t)
	heal := make(chan struct{})
	s := open(t, sqlite.Config{Path: path, Timeout: 10 * time.Millisecond})
	began := sqlite.Hang(s, heal)
	start := time.Now()
	for range 3 {
		wantFailure(t, s, "the disk does not answer")
	}
	if n := began.Load(); n != 1 {
		t.Errorf("%d deliveries hang at the same time", n)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("took %s", took)
	}
	close(heal)
	within(t, "the end of all goroutines", func() bool { return runtime.NumGoroutine() <= before })
}

func TestADiskThatHungGetsEverythingOnceItAnswers(t *testing.T) {
	path := place(t)
	heal := make(chan struct{})
	s := open(t, sqlite.Config{Path: path, Timeout: 200 * time.Millisecond})
	sqlite.Hang(s, heal)
	wantFailure(t, s, "the disk does not answer")
	close(heal)
	deliver(t, s, 1, 3)
	wantLines(t, path, raws(1, 3))
}

func TestAFullDiskIsAFailureThatSaysSo(t *testing.T) {
	path := place(t)
	s := open(t, sqlite.Config{Path: path})
	deliver(t, s, 1, 3)
	if _, err := sqlite.Ask(t.Context(), s, "PRAGMA max_page_count = 12"); err != nil {
		t.Fatal(err)
	}
	if err := s.Deliver(t.Context(), sinktest.Lines(4, 300)); err == nil || !strings.Contains(err.Error(), "the disk is full") {
		t.Fatalf("Deliver = %v", err)
	}
	wantLines(t, path, raws(1, 3))
	deliver(t, s, 4, 300)
	wantLines(t, path, raws(1, 300))
}

func TestADatabaseThatCannotBeWrittenIsAFailureThatSaysSo(t *testing.T) {
	path := place(t)
	s := open(t, sqlite.Config{Path: path})
	deliver(t, s, 1, 3)
	if _, err := sqlite.Ask(t.Context(), s, "PRAGMA query_only = 1"); err != nil && !errors.Is(err, sql.ErrNoRows) {
		t.Fatal(err)
	}
	wantFailure(t, s, "cannot be written")
	deliver(t, s, 1, 4)
	wantLines(t, path, raws(1, 4))
}

func TestARuleThatSomebodyAddedIsARefusal(t *testing.T) {
	path := place(t)
	s := open(t, sqlite.Config{Path: path})
	deliver(t, s, 1, 1)
	exec(t, path, "CREATE TRIGGER rule BEFORE INSERT ON moat_audit WHEN new.seq = 3 BEGIN SELECT RAISE(ABORT, 'planted-text'); END")
	err := s.Deliver(t.Context(), sinktest.Lines(2, 4))
	if !errors.Is(err, follow.ErrRefused) || strings.Contains(err.Error(), "planted") {
		t.Errorf("Deliver = %v", err)
	}
	wantLines(t, path, raws(1, 1))
}

func TestADamagedDatabaseIsAFailureAndNothingIsLost(t *testing.T) {
	path := place(t)
	first := open(t, sqlite.Config{Path: path})
	deliver(t, first, 1, 200)
	_ = first.Close()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct{ from, to int }{
		"its head": {0, 16}, "its first page": {100, 4096}, "all but its head": {4096, len(whole)},
	} {
		damaged := slices.Clone(whole)
		for i := row.from; i < row.to; i++ {
			damaged[i] = 0xa5
		}
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		s := open(t, sqlite.Config{Path: path})
		if err := s.Deliver(t.Context(), sinktest.Lines(201, 210)); err == nil || !strings.Contains(err.Error(), "damaged") && !strings.Contains(err.Error(), "no database") {
			t.Errorf("%s: %v", name, err)
		}
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
		deliver(t, s, 201, 210)
		wantLines(t, path, raws(1, 210))
		_ = s.Close()
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAFileThatIsGoneOrReplacedIsNotWrittenTo(t *testing.T) {
	for name, change := range map[string]func(path string) error{
		"removed with all": func(path string) error {
			return errors.Join(os.Remove(path), os.Remove(path+"-wal"), os.Remove(path+"-shm"))
		},
		"removed":            os.Remove,
		"moved":              func(path string) error { return os.Rename(path, path+".old") },
		"the log is removed": func(path string) error { return os.Remove(path + "-wal") },
		"the index is gone":  func(path string) error { return os.Remove(path + "-shm") },
		"replaced": func(path string) error {
			other := open(t, sqlite.Config{Path: path + ".new"})
			deliver(t, other, 1, 1)
			_ = other.Close()
			return os.Rename(path+".new", path)
		},
	} {
		for _, when := range []string{"between deliveries", "during a delivery"} {
			t.Run(name+" "+when, func(t *testing.T) {
				path := place(t)
				s := open(t, sqlite.Config{Path: path})
				if when == "during a delivery" {
					sqlite.Meanwhile(s, func() {
						if err := change(path); err != nil {
							t.Error(err)
						}
					})
					wantFailure(t, s, "removed or replaced")
				} else {
					deliver(t, s, 1, 3)
					if err := change(path); err != nil {
						t.Fatal(err)
					}
				}
				deliver(t, s, 4, 6)
				deliver(t, s, 7, 8)
				got := column(t, path, "line")
				if n := len(got); n < 5 || !slices.Equal(got[n-5:], raws(4, 8)) {
					t.Errorf("the file holds %.200q", got)
				}
			})
		}
	}
}

func TestALogThatIsRemovedLosesNothingDelivered(t *testing.T) {
	path := place(t)
	s := open(t, sqlite.Config{Path: path})
	deliver(t, s, 1, 3)
	if err := os.Remove(path + "-wal"); err != nil {
		t.Fatal(err)
	}
	deliver(t, s, 4, 6)
	wantLines(t, path, raws(1, 6))
}
