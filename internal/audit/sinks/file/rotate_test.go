package file_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/audit/follow"
	"github.com/moat-gateway/moat/internal/audit/sinks/file"
	"github.com/moat-gateway/moat/internal/audit/sinktest"
)

// deliverLarge delivers lines of 256 KiB, of which a file of 1 MiB takes three.
func deliverLarge(t testing.TB, s *file.Sink, from, to uint64) {
	t.Helper()
	for seq := from; seq <= to; seq++ {
		if err := s.Deliver(t.Context(), []follow.Line{sinktest.Line(seq, 256<<10)}); err != nil {
			t.Fatal(err)
		}
	}
}

func largeText(from, to uint64) string {
	var all strings.Builder
	for seq := from; seq <= to; seq++ {
		all.Write(append(sinktest.Line(seq, 256<<10).Raw, '\n'))
	}
	return all.String()
}

// everything is the content of all files, in the order of their names and the
// current one last.
func everything(t testing.TB, path string) string {
	t.Helper()
	var all strings.Builder
	for _, name := range append(rotated(t, path), path) {
		all.WriteString(read(t, name))
	}
	return all.String()
}

func TestRotationUnderLoadLosesNothingAndKeepsTheOrder(t *testing.T) {
	path := place(t)
	s := open(t, file.Config{Path: path, RollSize: 1 << 20, RollKeep: 100})
	deliverLarge(t, s, 1, 30)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, file.Config{Path: path, RollSize: 1 << 20, RollKeep: 100})
	deliverLarge(t, s, 31, 40)
	if everything(t, path) != largeText(1, 40) {
		t.Error("the files do not hold the lines in order")
	}
	files := rotated(t, path)
	if len(files) != 13 {
		t.Errorf("%d rotated files", len(files))
	}
	for _, name := range files {
		if info, err := os.Stat(name); err != nil || info.Size() > 1<<20 {
			t.Errorf("%s: %v, %v", name, info.Size(), err)
		}
	}
}

func TestADeliveryLargerThanAFileGoesIntoOneOfItsOwn(t *testing.T) {
	path := place(t)
	s := open(t, file.Config{Path: path, RollSize: 1 << 20})
	huge := sinktest.Line(2, 1<<20)
	deliverHuge := func() {
		t.Helper()
		if err := s.Deliver(t.Context(), []follow.Line{huge}); err != nil {
			t.Fatal(err)
		}
	}
	deliverHuge() // an empty file is not rotated for it
	deliver(t, s, 1, 1)
	deliverHuge()
	deliver(t, s, 3, 3)
	files := rotated(t, path)
	if len(files) != 3 {
		t.Fatalf("rotated files: %q", files)
	}
	wantText(t, files[0], string(huge.Raw)+"\n")
	wantText(t, files[1], text(1, 1))
	wantText(t, files[2], string(huge.Raw)+"\n")
	wantText(t, path, text(3, 3))
}

func TestOldFilesAreRemovedAndOthersAreNot(t *testing.T) {
	path := place(t)
	dir := filepath.Dir(path)
	strangers := []string{
		"audit-20200101T000000.000000Z.jsonl.gz", "audit-old.jsonl", "audit-x-20200101T000000.000000Z.jsonl", "other-20200101T000000.000000Z.jsonl",
		"audit-20200101T000000.00000Z.jsonl", "audit-20201301T000000.000000Z.jsonl", "audit-20200101T000000.000000Z", "audit.jsonl.1",
		"audit-20200101T000000,000000Z.jsonl", "audit-20200101T000000.000000Z.jsonl~",
	}
	for _, name := range strangers {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(dir, "audit-old.jsonl"), filepath.Join(dir, "audit-20200101T000000.000000Z.jsonl")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "audit-20200102T000000.000000Z.jsonl"), 0o700); err != nil {
		t.Fatal(err)
	}
	strangers = append(strangers, "audit-20200101T000000.000000Z.jsonl", "audit-20200102T000000.000000Z.jsonl")
	deliverLarge(t, open(t, file.Config{Path: path, RollSize: 1 << 20, RollKeep: 2}), 1, 15)
	for _, name := range strangers {
		if _, err := os.Lstat(filepath.Join(dir, name)); err != nil {
			t.Errorf("a file that is not the sink's is gone: %v", err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != len(strangers)+3 {
		t.Errorf("%d files, %v, want two rotated ones and the current one beside %d", len(entries), err, len(strangers))
	}
	if !strings.HasSuffix(everything(t, path), largeText(7, 15)) {
		t.Error("the newest lines are not there")
	}
}

func TestNamesKeepTheOrderWhenTheClockIsSetBack(t *testing.T) {
	path := place(t)
	at := time.Date(2026, 11, 26, 3, 16, 38, 123456789, time.FixedZone("", 3600))
	s := open(t, file.Config{Path: path, RollSize: 1 << 20})
	file.Clock(s, func() time.Time { at = at.Add(-time.Hour); return at })
	deliverLarge(t, s, 1, 10)
	var names []string
	for _, name := range rotated(t, path) {
		names = append(names, filepath.Base(name))
	}
	want := []string{
		"audit-20261126T011638.123456Z.jsonl", "audit-20261126T011638.123457Z.jsonl", "audit-20261126T011638.123458Z.jsonl",
	}
	if !slices.Equal(names, want) {
		t.Errorf("names = %q", names)
	}
	if everything(t, path) != largeText(1, 10) {
		t.Error("the files do not hold the lines in order")
	}
}

func TestAnExistingNameIsNeverOverwritten(t *testing.T) {
	path := place(t)
	dir := filepath.Dir(path)
	at := time.Date(2026, 11, 26, 3, 16, 38, 0, time.UTC)
	// A directory and a link are no rotated files, but their names are taken.
	if err := os.Mkdir(filepath.Join(dir, "audit-20261126T031638.000000Z.jsonl"), 0o700); err != nil {
		t.Fatal(err)
	}
	precious := filepath.Join(dir, "precious")
	if err := os.WriteFile(precious, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(precious, filepath.Join(dir, "audit-20261126T031638.000001Z.jsonl")); err != nil {
		t.Fatal(err)
	}
	s := open(t, file.Config{Path: path, RollSize: 1 << 20})
	file.Clock(s, func() time.Time { return at })
	deliverLarge(t, s, 1, 4)
	wantText(t, filepath.Join(dir, "audit-20261126T031638.000002Z.jsonl"), largeText(1, 3))
	wantText(t, precious, "x")
	if info, err := os.Lstat(filepath.Join(dir, "audit-20261126T031638.000001Z.jsonl")); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is gone: %v, %v", info, err)
	}
}

func TestARotationThatFailsLeavesNoEmptyFile(t *testing.T) {
	path := place(t)
	s := open(t, file.Config{Path: path, RollSize: 1 << 20})
	file.Wrap(s, func(h file.Handle) file.Handle {
		// Asked for its size before it is renamed: then it is gone.
		return &faulty{Handle: h, asked: func(size int64) {
			if size > 700<<10 {
				_ = os.Remove(path)
			}
		}}
	})
	deliverLarge(t, s, 1, 3)
	if err := s.Deliver(t.Context(), []follow.Line{sinktest.Line(4, 256<<10)}); err == nil {
		t.Error("a file that is gone was renamed")
	}
	if files := rotated(t, path); len(files) != 0 {
		t.Errorf("rotated files: %q", files)
	}
	deliverLarge(t, s, 4, 5)
	wantText(t, path, largeText(4, 5))
}

func TestAnExternalRotationLosesNothing(t *testing.T) {
	path := place(t)
	s := open(t, file.Config{Path: path})
	stop, done := make(chan struct{}), make(chan int)
	go func() { // logrotate in a hurry: move, now and then make anew
		n := 0
		defer func() { done <- n }()
		for {
			select {
			case <-stop:
				return
			case <-time.After(2 * time.Millisecond):
			}
			if os.Rename(path, path+"."+time.Now().UTC().Format("150405.000000000")) == nil {
				n++
			}
		}
	}()
	moved := 0
	for seq := uint64(1); seq <= 400; seq++ {
		for s.Deliver(context.Background(), sinktest.Lines(seq, seq)) != nil {
			moved++ // between the write and the answer: it comes again
		}
	}
	close(stop)
	if n := <-done; n < 3 {
		t.Fatalf("moved %d times only", n)
	}
	files, err := filepath.Glob(path + ".*")
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(files)
	var all strings.Builder
	for _, name := range append(files, path) {
		all.WriteString(read(t, name))
	}
	if got := firsts(all.String()); got != text(1, 400) {
		t.Errorf("%d bytes, want %d, after %d repetitions", len(got), len(text(1, 400)), moved)
	}
}

// firsts returns each line once, where it came first.
func firsts(content string) string {
	var once strings.Builder
	seen := map[string]bool{}
	for line := range strings.Lines(content) {
		if !seen[line] {
			seen[line] = true
			once.WriteString(line)
		}
	}
	return once.String()
}
