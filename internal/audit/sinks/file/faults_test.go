package file_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/audit/follow"
	"github.com/moat-gateway/moat/internal/audit/sinks/file"
	"github.com/moat-gateway/moat/internal/audit/sinktest"
)

// childPath names the file of a process that the tests start and kill.
const childPath = "MOAT_TEST_FILE_CHILD"

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
	first, err := strconv.ParseUint(os.Getenv(childPath+"_FROM"), 10, 64)
	var s *file.Sink
	if err == nil {
		s, err = file.New(file.Config{Path: path, RollSize: 1 << 20, RollKeep: 1000})
	}
	for seq := first; err == nil; seq += 100 {
		err = s.Deliver(context.Background(), sinktest.Lines(seq, seq+99))
		fmt.Println(seq + 99)
	}
	fmt.Println(err)
}

func TestAKilledGatewayLosesNothing(t *testing.T) {
	path := place(t)
	last := uint64(0)
	for round := range 5 {
		cmd := exec.Command(os.Args[0])
		// It goes on before the last one's end, as a follower whose cursor is behind.
		cmd.Env = append(os.Environ(), childPath+"="+path, fmt.Sprintf("%s_FROM=%d", childPath, max(last, 50)-49))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		said, stop := bufio.NewScanner(out), uint64(1800*(round+1))
		for said.Scan() {
			if last, err = strconv.ParseUint(said.Text(), 10, 64); err != nil {
				t.Fatal(said.Text())
			}
			if last >= stop {
				_ = cmd.Process.Kill()
			}
		}
		_ = cmd.Wait()
	}
	// The last one may have got further than it could say.
	deliver(t, open(t, file.Config{Path: path}), last-20, last+500)
	if files := rotated(t, path); len(files) < 2 {
		t.Errorf("%d rotated files", len(files))
	}
	var whole strings.Builder
	for _, line := range wholeLines(firsts(everything(t, path))) {
		whole.WriteString(line + "\n")
	}
	if got := whole.String(); got != text(1, last+500) {
		t.Errorf("%d bytes, want %d", len(got), len(text(1, last+500)))
	}
}

// disk is what makes the files of a sink misbehave.
type disk struct {
	path string

	mu    sync.Mutex
	fault sinktest.Fault
	heal  chan struct{}
}

func (d *disk) set(fault sinktest.Fault) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fault = fault
	close(d.heal)
	d.heal = make(chan struct{})
}

func (d *disk) now() (sinktest.Fault, chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.fault, d.heal
}

// diskFile is a file on such a disk.
type diskFile struct {
	file.Handle
	disk *disk
}

func (f *diskFile) Write(p []byte) (int, error) {
	fault, heal := f.disk.now()
	switch fault {
	case sinktest.Slow:
		<-time.After(time.Millisecond)
	case sinktest.Refuse: // full in the middle of a line
		n, _ := f.Handle.Write(p[:min(len(p), 500)])
		return n, syscall.ENOSPC
	case sinktest.HalfOpen:
		<-heal
	case sinktest.Malformed: // against the contract of io.Writer
		return f.Handle.Write(p[:min(len(p), 7)])
	}
	return f.Handle.Write(p)
}

func TestSuite(t *testing.T) {
	sinktest.Run(t, func(t *testing.T) sinktest.Harness {
		d := &disk{path: place(t), heal: make(chan struct{})}
		return sinktest.Harness{
			Open: func(t *testing.T) follow.Sink {
				s := open(t, file.Config{Path: d.path})
				file.Wrap(s, func(h file.Handle) file.Handle { return &diskFile{h, d} })
				return s
			},
			Received: func(t *testing.T) []string { return wholeLines(read(t, d.path)) },
			Fault:    d.set,
		}
	})
}

// wholeLines returns the events of a file without what was torn.
func wholeLines(content string) []string {
	var whole []string
	for line := range strings.Lines(content) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "{") && strings.HasSuffix(line, "}") {
			whole = append(whole, line)
		}
	}
	return whole
}

func TestADirectoryInTheWayIsAFailureUntilItIsGone(t *testing.T) {
	path := place(t)
	s := open(t, file.Config{Path: path})
	deliver(t, s, 1, 3)
	if err := errors.Join(os.Rename(path, path+".1"), os.Mkdir(path, 0o700)); err != nil {
		t.Fatal(err)
	}
	wantFailure(t, s, "must be a file")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	deliver(t, s, 4, 6)
	wantText(t, path, text(4, 6))
}

// faulty is a file that fails as told.
type faulty struct {
	file.Handle
	keep        int // how much of a write arrives; zero: all
	write, sync error
	syncs       int
	after       func()           // each sync
	asked       func(size int64) // for its size
	block       <-chan struct{}
}

func (f *faulty) Write(p []byte) (int, error) {
	if f.block != nil {
		<-f.block
	}
	if f.keep > 0 {
		p = p[:min(f.keep, len(p))]
	}
	n, err := f.Handle.Write(p)
	return n, errors.Join(err, f.write)
}

func (f *faulty) Sync() error {
	f.syncs++
	err := errors.Join(f.Handle.Sync(), f.sync)
	if f.after != nil {
		f.after()
	}
	return err
}

func (f *faulty) Stat() (os.FileInfo, error) {
	info, err := f.Handle.Stat()
	if err == nil && f.asked != nil {
		f.asked(info.Size())
	}
	return info, err
}

func TestAFailureIsSaidAndSpoilsNoWholeLine(t *testing.T) {
	first := len(text(1, 1))
	for name, row := range map[string]struct {
		fault      faulty
		want       error
		words, now string
	}{
		"full within a line":  {faulty{keep: 5, write: syscall.ENOSPC}, syscall.ENOSPC, "no space left", text(1, 1)[:5] + "\n"},
		"full after a line":   {faulty{keep: first, write: syscall.ENOSPC}, syscall.ENOSPC, "no space left", text(1, 1)},
		"a short write":       {faulty{keep: 5}, io.ErrShortWrite, "short write", text(1, 1)[:5] + "\n"},
		"the disk loses data": {faulty{sync: syscall.EIO}, syscall.EIO, "input/output error", text(1, 3) + "\n"},
	} {
		t.Run(name, func(t *testing.T) {
			path := place(t)
			s := open(t, file.Config{Path: path})
			broken := row.fault
			file.Wrap(s, func(h file.Handle) file.Handle { broken.Handle = h; return &broken })
			err := s.Deliver(t.Context(), sinktest.Lines(1, 3))
			if !errors.Is(err, row.want) || !strings.Contains(err.Error(), row.words) || !strings.HasPrefix(err.Error(), "file: ") {
				t.Fatalf("Deliver = %v", err)
			}
			file.Wrap(s, func(h file.Handle) file.Handle { return h })
			deliver(t, s, 1, 3)
			wantText(t, path, row.now+text(1, 3))
		})
	}
}

func TestADeliveryIsOnDiskWhenItReturns(t *testing.T) {
	s := open(t, file.Config{Path: place(t)})
	watched := &faulty{}
	file.Wrap(s, func(h file.Handle) file.Handle { watched.Handle = h; return watched })
	for n := 1; n <= 3; n++ {
		if deliver(t, s, 1, 3); watched.syncs != n {
			t.Errorf("%d deliveries, %d times on disk", n, watched.syncs)
		}
	}
}

func TestADiskThatHangsHoldsUpNobodyElseAndGetsEachLineOnce(t *testing.T) {
	path := place(t)
	heal := make(chan struct{})
	s := open(t, file.Config{Path: path, Timeout: 20 * time.Millisecond})
	file.Wrap(s, func(h file.Handle) file.Handle { return &faulty{Handle: h, block: heal} })
	start := time.Now()
	for range 3 {
		err := s.Deliver(t.Context(), sinktest.Lines(1, 3))
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "does not answer") {
			t.Fatalf("Deliver = %v", err)
		}
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("took %s", took)
	}
	close(heal)
	within(t, "the delivery", func() bool { return s.Deliver(t.Context(), sinktest.Lines(1, 3)) == nil })
	within(t, "the next one", func() bool { return s.Deliver(t.Context(), sinktest.Lines(4, 5)) == nil })
	wantText(t, path, text(1, 5))
}

func TestOtherLinesAfterAWriteThatHungAreWritten(t *testing.T) {
	path := place(t)
	heal := make(chan struct{})
	s := open(t, file.Config{Path: path, Timeout: 20 * time.Millisecond})
	file.Wrap(s, func(h file.Handle) file.Handle { return &faulty{Handle: h, block: heal} })
	if err := s.Deliver(t.Context(), sinktest.Lines(1, 3)); err == nil {
		t.Fatal("a write that hangs succeeded")
	}
	close(heal)
	within(t, "the delivery", func() bool { return s.Deliver(t.Context(), sinktest.Lines(1, 4)) == nil })
	wantText(t, path, text(1, 3)+text(1, 4))
}

func TestClosingDoesNotWaitForADiskThatHangs(t *testing.T) {
	before := runtime.NumGoroutine()
	path := place(t)
	heal := make(chan struct{})
	s := open(t, file.Config{Path: path, Timeout: 10 * time.Millisecond})
	file.Wrap(s, func(h file.Handle) file.Handle { return &faulty{Handle: h, block: heal} })
	start := time.Now()
	if err := s.Deliver(t.Context(), sinktest.Lines(1, 3)); err == nil {
		t.Error("a write that hangs succeeded")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("took %s", took)
	}
	close(heal)
	within(t, "the end of all goroutines", func() bool { return runtime.NumGoroutine() <= before })
	wantText(t, path, text(1, 3))
}
