package file_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/audit/follow"
	"github.com/moat-gateway/moat/internal/audit/sinks/file"
	"github.com/moat-gateway/moat/internal/audit/sinktest"
)

// place returns the path of a file of the test's own.
func place(t testing.TB) string { return filepath.Join(t.TempDir(), "audit.jsonl") }

func open(t testing.TB, cfg file.Config) *file.Sink {
	t.Helper()
	s, err := file.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func deliver(t testing.TB, s *file.Sink, from, to uint64) {
	t.Helper()
	if err := s.Deliver(t.Context(), sinktest.Lines(from, to)); err != nil {
		t.Fatal(err)
	}
}

// wantFailure delivers and wants an error that says what is the matter.
func wantFailure(t *testing.T, s *file.Sink, want string) {
	t.Helper()
	err := s.Deliver(t.Context(), sinktest.Lines(1, 3))
	if err == nil || !strings.HasPrefix(err.Error(), "file: ") || !strings.Contains(err.Error(), want) || len(err.Error()) > 300 {
		t.Fatalf("Deliver = %v, want %q", err, want)
	}
}

func read(t testing.TB, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) && !strings.Contains(err.Error(), "is a directory") {
		t.Fatal(err)
	}
	return string(content)
}

// text is what a file holds after the lines were delivered.
func text(from, to uint64) string {
	var all strings.Builder
	for _, line := range sinktest.Lines(from, to) {
		all.Write(append(line.Raw, '\n'))
	}
	return all.String()
}

func wantText(t *testing.T, path, want string) {
	t.Helper()
	if got := read(t, path); got != want {
		t.Errorf("%s holds %d bytes, want %d: %.300q", filepath.Base(path), len(got), len(want), got)
	}
}

// rotated returns the rotated files in the order of their names.
func rotated(t testing.TB, path string) []string {
	t.Helper()
	files, err := filepath.Glob(strings.TrimSuffix(path, ".jsonl") + "-*.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(files)
	return files
}

func TestLinesAreAppendedAsTheyStand(t *testing.T) {
	path := place(t)
	if err := os.WriteFile(path, []byte("{}\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	s := open(t, file.Config{Path: path})
	if s.Name() != "file" {
		t.Errorf("Name = %q", s.Name())
	}
	deliver(t, s, 1, 2)
	formatted := sinktest.Line(3, 0)
	formatted.Text = []byte(`{"format":"other"}`)
	if err := s.Deliver(t.Context(), []follow.Line{formatted}); err != nil {
		t.Fatal(err)
	}
	if err := s.Deliver(t.Context(), nil); err != nil {
		t.Errorf("nothing to deliver: %v", err)
	}
	wantText(t, path, "{}\n"+text(1, 2)+`{"format":"other"}`+"\n")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("the mode of a file that was there became %v, %v", info.Mode(), err)
	}
}

func TestWhatIsNoFileIsRefused(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "target")
	if err := os.WriteFile(target, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, make := range map[string]func(path string) error{
		"a directory":     func(path string) error { return os.Mkdir(path, 0o700) },
		"a link":          func(path string) error { return os.Symlink(target, path) },
		"a dangling link": func(path string) error { return os.Symlink(filepath.Join(dir, "nowhere"), path) },
	} {
		path := filepath.Join(dir, name)
		if err := make(path); err != nil {
			t.Fatal(err)
		}
		wantFailure(t, open(t, file.Config{Path: path}), "must be a file")
	}
	wantFailure(t, open(t, file.Config{Path: os.DevNull}), "must be a file")
	wantFailure(t, open(t, file.Config{Path: filepath.Join(target, "audit.jsonl")}), "not a directory")
	wantText(t, target, "")
	if _, err := os.Stat(filepath.Join(dir, "nowhere")); err == nil {
		t.Error("the dangling link was followed")
	}
}

// TestALinkPutThereAtTheLastMomentIsNotFollowed: CWE-59 and CWE-367.
func TestALinkPutThereAtTheLastMomentIsNotFollowed(t *testing.T) {
	path := place(t)
	target := path + ".target"
	for _, exists := range []bool{false, true} {
		if err := os.WriteFile(target, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		_ = os.Remove(path)
		if exists {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s := open(t, file.Config{Path: path})
		file.Opening(s, func() {
			_ = os.Remove(path)
			if err := os.Symlink(target, path); err != nil {
				t.Error(err)
			}
		})
		wantFailure(t, s, "open")
		wantText(t, target, "")
	}
}

func TestATornLineIsEndedBeforeTheNext(t *testing.T) {
	for name, row := range map[string]struct{ before, want string }{
		"nothing":          {"", ""},
		"a whole line":     {"{}\n", "{}\n"},
		"a torn line":      {"{}\n{\"a\":", "{}\n{\"a\":\n"},
		"only a torn line": {"{", "{\n"},
	} {
		path := place(t)
		if err := os.WriteFile(path, []byte(row.before), 0o600); err != nil {
			t.Fatal(err)
		}
		s := open(t, file.Config{Path: path})
		deliver(t, s, 1, 2)
		deliver(t, s, 3, 4)
		if got := read(t, path); got != row.want+text(1, 4) {
			t.Errorf("%s: %.100q", name, got)
		}
	}
}

func TestAFileThatIsGoneOrReplacedIsNotWrittenTo(t *testing.T) {
	for name, change := range map[string]func(path string) error{
		"removed": os.Remove,
		"moved":   func(path string) error { return os.Rename(path, path+".1") },
		"moved and made anew": func(path string) error {
			return errors.Join(os.Rename(path, path+".1"), os.WriteFile(path, nil, 0o600))
		},
		"replaced": func(path string) error {
			return errors.Join(os.WriteFile(path+".new", nil, 0o600), os.Rename(path+".new", path))
		},
		"its directory is removed": func(path string) error { return os.RemoveAll(filepath.Dir(path)) },
		"cut":                      func(path string) error { return os.Truncate(path, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			path := place(t)
			s := open(t, file.Config{Path: path})
			deliver(t, s, 1, 3)
			if err := change(path); err != nil {
				t.Fatal(err)
			}
			deliver(t, s, 4, 6)
			wantText(t, path, text(4, 6))
			if moved := read(t, path+".1"); moved != "" && moved != text(1, 3) {
				t.Errorf("the moved file holds %.200q", moved)
			}
		})
	}
}

func TestAFileThatIsRemovedDuringADeliveryIsNoSuccess(t *testing.T) {
	path := place(t)
	s := open(t, file.Config{Path: path})
	file.Wrap(s, func(h file.Handle) file.Handle {
		return &faulty{Handle: h, after: func() { _ = os.Remove(path) }}
	})
	wantFailure(t, s, "removed or moved")
	file.Wrap(s, func(h file.Handle) file.Handle { return h })
	deliver(t, s, 1, 3)
	wantText(t, path, text(1, 3))
}

func within(t *testing.T, what string, met func() bool) {
	t.Helper()
	deadline := time.After(5 * time.Second)
	for !met() {
		select {
		case <-deadline:
			t.Fatalf("not within five seconds: %s", what)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func TestNothingIsLeftRunning(t *testing.T) {
	before := runtime.NumGoroutine()
	s := open(t, file.Config{Path: place(t), RollSize: 1 << 20})
	deliverLarge(t, s, 1, 10)
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := s.Deliver(t.Context(), sinktest.Lines(1, 1)); !errors.Is(err, file.ErrClosed) {
		t.Errorf("Deliver after Close = %v", err)
	}
	within(t, "the end of all goroutines", func() bool { return runtime.NumGoroutine() <= before })
}

func BenchmarkDeliver(b *testing.B) {
	for _, size := range []int64{0, 1 << 20} {
		b.Run(fmt.Sprintf("roll_size=%d", size), func(b *testing.B) {
			s := open(b, file.Config{Path: place(b), RollSize: size})
			lines := sinktest.Lines(1, 256)
			b.SetBytes(int64(len(text(1, 256))))
			b.ReportAllocs()
			for b.Loop() {
				if err := s.Deliver(b.Context(), lines); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(256*b.N), "ns/line")
		})
	}
}
