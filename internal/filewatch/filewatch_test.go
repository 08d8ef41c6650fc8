//go:build unix

package filewatch_test

import (
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/filewatch"
)

// watching is a watcher of one file with what it applied and reported.
type watching struct {
	filewatch.Watcher[string]
	path    string
	applied []string
	told    []filewatch.Outcome[string]
	clock   time.Time
}

func watch(t *testing.T, content string) *watching {
	t.Helper()
	w := &watching{path: filepath.Join(t.TempDir(), "file"), clock: time.Now()}
	w.write(t, content)
	w.Report = func(o filewatch.Outcome[string]) { w.told = append(w.told, o) }
	w.Add(filewatch.Watched[string]{Path: w.path, Sum: sha256.Sum256([]byte(content)), Prepare: w.prepare("bad")})
	return w
}

// prepare refuses what contains bad.
func (w *watching) prepare(bad string) func([]byte) (string, func(), error) {
	return func(data []byte) (string, func(), error) {
		text := string(data)
		if strings.Contains(text, "panic") {
			panic("cannot cope")
		}
		if strings.Contains(text, bad) {
			return "", nil, errors.New(bad)
		}
		return text, func() { w.applied = append(w.applied, text) }, nil
	}
}

func (w *watching) write(t *testing.T, content string) {
	t.Helper()
	w.clock = w.clock.Add(time.Second)
	if err := errors.Join(os.WriteFile(w.path, []byte(content), 0o600), os.Chtimes(w.path, w.clock, w.clock)); err != nil {
		t.Fatal(err)
	}
}

func (w *watching) check(times int) {
	for range times {
		w.Check()
	}
}

func TestAChangedFileIsAppliedOnceItRests(t *testing.T) {
	w := watch(t, "one")
	w.check(5)
	if len(w.applied)+len(w.told) != 0 {
		t.Fatalf("an unchanged file was applied: %v %v", w.applied, w.told)
	}
	w.write(t, "half")
	w.check(1)
	w.write(t, "half and the rest")
	w.check(1)
	if len(w.applied) != 0 {
		t.Fatalf("a file that is being written was applied: %q", w.applied)
	}
	w.check(5)
	if len(w.applied) != 1 || w.applied[0] != "half and the rest" || len(w.told) != 1 || w.told[0].Err != nil ||
		w.told[0].Sum != sha256.Sum256([]byte("half and the rest")) || w.told[0].Changes != "half and the rest" {
		t.Fatalf("applied %q, told %+v", w.applied, w.told)
	}
	w.write(t, "half and the rest")
	w.check(5)
	if len(w.applied) != 1 || len(w.told) != 1 {
		t.Errorf("the same content again was applied")
	}
}

func TestARefusedFileIsToldOnceAndTheOldStays(t *testing.T) {
	w := watch(t, "one")
	for range 2 {
		w.write(t, "bad")
		w.check(4)
	}
	if len(w.applied) != 0 || len(w.told) != 1 || w.told[0].Err == nil || w.told[0].Sum != sha256.Sum256([]byte("bad")) {
		t.Fatalf("applied %q, told %+v", w.applied, w.told)
	}
	// Back to what is in force: nothing to apply. Bad again: that is news.
	w.write(t, "one")
	w.check(4)
	w.write(t, "bad")
	w.check(4)
	if len(w.applied) != 0 || len(w.told) != 2 {
		t.Errorf("applied %q, told %+v", w.applied, w.told)
	}
	w.write(t, "good")
	w.check(4)
	if len(w.applied) != 1 || len(w.told) != 3 {
		t.Errorf("applied %q, told %+v", w.applied, w.told)
	}
}

func TestAMissingFileIsToldOnceAndTheOldStays(t *testing.T) {
	w := watch(t, "one")
	if err := os.Remove(w.path); err != nil {
		t.Fatal(err)
	}
	w.check(4)
	if len(w.told) != 1 || !errors.Is(w.told[0].Err, os.ErrNotExist) || w.told[0].Sum != [sha256.Size]byte{} {
		t.Fatalf("%+v", w.told)
	}
	if err := os.Mkdir(w.path, 0o700); err != nil {
		t.Fatal(err)
	}
	w.check(4)
	if len(w.told) != 2 {
		t.Fatalf("a directory: %+v", w.told)
	}
	if err := os.Remove(w.path); err != nil {
		t.Fatal(err)
	}
	// A rename in place, as a careful writer does it.
	next := w.path + ".new"
	if err := errors.Join(os.WriteFile(next, []byte("two"), 0o600), os.Rename(next, w.path)); err != nil {
		t.Fatal(err)
	}
	w.check(4)
	if len(w.applied) != 1 || w.applied[0] != "two" {
		t.Errorf("%q", w.applied)
	}
}

func TestAFileOfTwoIsTakenByBothOrNone(t *testing.T) {
	w := watch(t, "one")
	w.Add(filewatch.Watched[string]{Path: w.path, Sum: sha256.Sum256([]byte("one")), Prepare: w.prepare("evil")})
	w.check(4)
	w.write(t, "evil")
	w.check(4)
	if len(w.applied) != 0 || len(w.told) != 1 || w.told[0].Err == nil {
		t.Fatalf("applied %q, told %+v", w.applied, w.told)
	}
	w.write(t, "good")
	w.check(4)
	if len(w.applied) != 2 || len(w.told) != 2 || w.told[1].Err != nil {
		t.Fatalf("applied %q, told %+v", w.applied, w.told)
	}
	// One that was read with another content is brought up to date.
	w.Add(filewatch.Watched[string]{Path: w.path, Sum: sha256.Sum256([]byte("older")), Prepare: w.prepare("bad")})
	w.write(t, "good")
	w.check(4)
	if len(w.applied) != 5 {
		t.Errorf("applied %q", w.applied)
	}
}

func TestNoContentEndsTheProcess(t *testing.T) {
	w := watch(t, "one")
	w.write(t, "panic")
	w.check(4)
	if len(w.told) != 1 || w.told[0].Err == nil || !strings.Contains(w.told[0].Err.Error(), "cannot cope") {
		t.Fatalf("%+v", w.told)
	}
	w.write(t, "good")
	w.check(4)
	if len(w.applied) != 1 {
		t.Errorf("applied %q", w.applied)
	}
}

func TestAnInPlaceChangeIsFoundWithoutItsTime(t *testing.T) {
	w := watch(t, "one")
	w.check(3)
	if err := errors.Join(os.WriteFile(w.path, []byte("two"), 0o600), os.Chtimes(w.path, w.clock, w.clock)); err != nil {
		t.Fatal(err)
	}
	w.check(31)
	if len(w.applied) != 1 || w.applied[0] != "two" {
		t.Errorf("applied %q", w.applied)
	}
}

func TestAPipeIsNotRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := filewatch.Read(path, 1); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("%v", err)
	}
}

func TestRunEnds(t *testing.T) {
	w := watch(t, "one")
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		w.Run(time.Millisecond, done)
		close(ended)
	}()
	close(done)
	<-ended
}

func TestOfALargeFileOneByteTooMuchIsRead(t *testing.T) {
	w := watch(t, "one")
	w.MaxSize = 4
	w.write(t, "four and more")
	w.check(4)
	if len(w.applied) != 1 || w.applied[0] != "four " {
		t.Errorf("applied %q", w.applied)
	}
}
