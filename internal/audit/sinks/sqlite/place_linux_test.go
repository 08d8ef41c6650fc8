package sqlite_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/internal/audit/sinks/sqlite"
	"github.com/moat-gateway/moat/internal/audit/sinktest"
)

// descriptors returns how often this process has the file open.
func descriptors(path string) (n int) {
	links, _ := filepath.Glob("/proc/self/fd/*")
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && target == path {
			n++
		}
	}
	return n
}

// TestAFileReplacedWhileItIsOpenedIsNotWrittenTo holds the sink between opening
// and laying out the database by a lock.
func TestAFileReplacedWhileItIsOpenedIsNotWrittenTo(t *testing.T) {
	path := place(t)
	db := database(t, path)
	if _, err := db.ExecContext(t.Context(), "BEGIN EXCLUSIVE"); err != nil {
		t.Fatal(err)
	}
	s := open(t, sqlite.Config{Path: path})
	result := make(chan error, 1)
	go func() { result <- s.Deliver(t.Context(), sinktest.Lines(1, 3)) }()
	within(t, "a second opening", func() bool { return descriptors(path) == 2 })
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	other := open(t, sqlite.Config{Path: path})
	deliver(t, other, 4, 4)
	_ = other.Close()
	if _, err := db.ExecContext(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	if err := <-result; err == nil || !strings.Contains(err.Error(), "removed or replaced") {
		t.Errorf("Deliver = %v, although the file bears its name no more", err)
	}
	deliver(t, s, 1, 3)
	wantLines(t, path, append(raws(4, 4), raws(1, 3)...))
}
