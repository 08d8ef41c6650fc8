// Package filewatch looks at files and has changed ones applied. It knows when
// a file has changed and rests; what its content means, and whether it is good,
// is said by those who use it.
package filewatch

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"
)

// Interval is how often files are looked at. A change counts when the file was
// left alone for one interval, so that half a file is hardly ever read; who
// writes beside the file and renames is sure.
const Interval = time.Second

// DefaultMaxSize is the largest file that is read, in bytes, unless a Watcher
// says otherwise.
const DefaultMaxSize = 16 << 20

// Watched is one use of a file whose content is in force. C tells what changed
// between two contents.
type Watched[C any] struct {
	Path string
	// Sum is the SHA-256 of the content in force.
	Sum [sha256.Size]byte
	// Prepare is asked with a new content and returns what puts it in force. The
	// content may be one byte larger than the largest that is read.
	Prepare func(data []byte) (changes C, commit func(), err error)
}

// Outcome is what became of a changed file.
type Outcome[C any] struct {
	Path string
	// Sum is the SHA-256 of the new content, zero when it could not be read.
	Sum     [sha256.Size]byte
	Changes C
	// Err says why the new content was refused; the old one stays in force.
	Err error
}

// Watcher looks at files and has changed ones applied, one after the other. A
// file that several use is taken by all of them or by none.
type Watcher[C any] struct {
	// Report is told of every new content, once each.
	Report func(Outcome[C])
	// MaxSize is the largest file that is read, in bytes. Zero means
	// DefaultMaxSize. Of a larger one a byte more is read, so that it is refused.
	MaxSize int64

	mu    sync.Mutex
	files []*file[C]
}

// reread is after how many looks a file is read even though it seems to be the
// same: some tools write in place and restore size and time.
const reread = 30

type file[C any] struct {
	path    string
	sum     [sha256.Size]byte // in force
	users   []Watched[C]
	seen    os.FileInfo
	settled bool // what was seen is what was read
	looks   int  // since it was read
	told    string
}

// Add has a file watched.
func (w *Watcher[C]) Add(f Watched[C]) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, known := range w.files {
		if known.path == f.Path {
			known.users = append(known.users, f)
			if known.sum != f.Sum {
				known.sum = [sha256.Size]byte{} // It changed between; read it again for all.
			}
			return
		}
	}
	w.files = append(w.files, &file[C]{path: f.Path, sum: f.Sum, users: []Watched[C]{f}})
}

// Run checks the files every interval until done is closed.
func (w *Watcher[C]) Run(interval time.Duration, done <-chan struct{}) {
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
func (w *Watcher[C]) Check() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range w.files {
		w.check(f)
	}
}

func (w *Watcher[C]) check(f *file[C]) {
	info, err := os.Stat(f.path)
	if err != nil {
		f.seen = nil
		w.refuse(f, Outcome[C]{Path: f.path, Err: err})
		return
	}
	if f.seen == nil || !same(f.seen, info) {
		f.seen, f.settled = info, false
		return
	}
	if f.looks++; f.settled && f.looks < reread {
		return
	}
	f.looks = 0
	data, err := Read(f.path, w.maxSize())
	if err != nil {
		w.refuse(f, Outcome[C]{Path: f.path, Err: err})
		return
	}
	if again, err := os.Stat(f.path); err != nil || !same(info, again) {
		f.seen = nil // It changed while it was read.
		return
	}
	f.settled = true
	w.apply(f, data)
}

func (w *Watcher[C]) maxSize() int64 {
	if w.MaxSize == 0 {
		return DefaultMaxSize
	}
	return w.MaxSize
}

func same(a, b os.FileInfo) bool {
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

func (w *Watcher[C]) apply(f *file[C], data []byte) {
	sum := sha256.Sum256(data)
	if sum == f.sum {
		f.told = ""
		return
	}
	changes, commits, err := f.prepare(data)
	out := Outcome[C]{Path: f.path, Sum: sum, Changes: changes, Err: err}
	if err != nil {
		w.refuse(f, out)
		return
	}
	for _, commit := range commits {
		commit()
	}
	f.sum, f.told = sum, ""
	w.Report(out)
}

// prepare asks all who use the file. What changed is the same for all of them.
func (f *file[C]) prepare(data []byte) (changes C, commits []func(), err error) {
	defer func() {
		// No content of a file may end the process that serves requests.
		if r := recover(); r != nil {
			err = fmt.Errorf("%s: cannot be read: %v", f.path, r)
		}
	}()
	var errs []error
	for _, user := range f.users {
		c, commit, err := user.Prepare(data)
		changes = c
		errs = append(errs, err)
		commits = append(commits, commit)
	}
	return changes, commits, errors.Join(errs...)
}

// refuse reports a refused content once, however often it is seen.
func (w *Watcher[C]) refuse(f *file[C], out Outcome[C]) {
	what := fmt.Sprintf("%x %v", out.Sum, out.Err)
	if f.told == what {
		return
	}
	f.told = what
	w.Report(out)
}

// Read reads a file, at most maxSize of it and a byte. What is no regular file
// is an error: to open a pipe could wait for ever.
func Read(path string, maxSize int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	var data []byte
	if info, statErr := f.Stat(); statErr != nil || !info.Mode().IsRegular() {
		err = errors.Join(statErr, fmt.Errorf("%s: is not a regular file", path))
	} else {
		data, err = io.ReadAll(io.LimitReader(f, maxSize+1))
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return data, err
}
