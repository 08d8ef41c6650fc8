package policyfile

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/moat-gateway/moat/internal/rbac"
)

// Interval is how often files are looked at. A change counts when the file was
// left alone for one interval, so that half a file is hardly ever read; who
// writes beside the file and renames is sure.
const Interval = time.Second

// Watched is one file whose content is in force.
type Watched struct {
	Path string
	// Sum is the SHA-256 of the content in force.
	Sum [sha256.Size]byte
	// Apply puts a new content in force, all of it or nothing.
	Apply func(data []byte) (rbac.Changes, error)
}

// Outcome is what became of a changed file.
type Outcome struct {
	Path string
	// Sum is the SHA-256 of the new content, zero when it could not be read.
	Sum     [sha256.Size]byte
	Changes rbac.Changes
	// Err says why the new content was refused; the old one stays in force.
	Err error
}

// Watcher looks at files and has changed ones applied, one after the other.
type Watcher struct {
	// Report is told of every new content, once each.
	Report func(Outcome)

	mu    sync.Mutex
	files []*file
}

type file struct {
	Watched
	seen    os.FileInfo
	settled bool // what was seen is what was read
	told    string
}

// Add has a file watched.
func (w *Watcher) Add(f Watched) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.files = append(w.files, &file{Watched: f})
}

// Run checks the files every interval until done is closed.
func (w *Watcher) Run(interval time.Duration, done <-chan struct{}) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			w.Check()
		case <-done:
			return
		}
	}
}

// Check looks at every file once.
func (w *Watcher) Check() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range w.files {
		w.check(f)
	}
}

func (w *Watcher) check(f *file) {
	info, err := os.Stat(f.Path)
	if err != nil {
		f.seen = nil
		w.refuse(f, Outcome{Path: f.Path, Err: err})
		return
	}
	if f.seen == nil || !same(f.seen, info) {
		f.seen, f.settled = info, false
		return
	}
	if f.settled {
		return
	}
	data, err := Read(f.Path)
	if err != nil {
		w.refuse(f, Outcome{Path: f.Path, Err: err})
		return
	}
	if again, err := os.Stat(f.Path); err != nil || !same(info, again) {
		f.seen = nil // It changed while it was read.
		return
	}
	f.settled = true
	w.apply(f, data)
}

func same(a, b os.FileInfo) bool {
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

func (w *Watcher) apply(f *file, data []byte) {
	sum := sha256.Sum256(data)
	if sum == f.Sum {
		f.told = ""
		return
	}
	changes, err := f.Apply(data)
	out := Outcome{Path: f.Path, Sum: sum, Changes: changes, Err: err}
	if err != nil {
		w.refuse(f, out)
		return
	}
	f.Sum, f.told = sum, ""
	w.Report(out)
}

// refuse reports a refused content once, however often it is seen.
func (w *Watcher) refuse(f *file, out Outcome) {
	what := fmt.Sprintf("%x %v", out.Sum, out.Err)
	if f.told == what {
		return
	}
	f.told = what
	w.Report(out)
}

// Read reads a policy file, at most MaxSize of it and a byte. What is no
// regular file is an error: to open a pipe could wait for ever.
func Read(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return data, err
}
