package journal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// fileSystem is what the writer does to the disk, so that tests can let it fail.
type fileSystem interface {
	MkdirAll(dir string) error
	// Create makes a new file and fails when there is one already.
	Create(path string) (file, error)
	Truncate(path string, size int64) error
	Remove(path string) error
	// Replace puts content in the place of a file, whole or not at all.
	Replace(path string, content []byte) error
	// Space is how many bytes may still be written below dir.
	Space(dir string) (int64, error)
	// SyncDir makes created and removed names durable.
	SyncDir(dir string) error
}

// file appends: a write goes to the end, wherever that is after a Truncate.
type file interface {
	io.WriteCloser
	Sync() error
	Truncate(size int64) error
}

// osFiles is the real disk.
type osFiles struct{}

func (osFiles) MkdirAll(dir string) error { return os.MkdirAll(dir, 0o700) }

func (osFiles) Create(path string) (file, error) {
	// #nosec G304 -- the path is the configured directory and a number
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
}

// Truncate makes the cut durable too, so that a second crash does not bring
// the torn end back behind what is already recorded about it.
func (osFiles) Truncate(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0) // #nosec G304 -- as above
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Sync(), f.Close())
}

func (osFiles) Remove(path string) error { return os.Remove(path) }

func (osFiles) Replace(path string, content []byte) error {
	next := path + ".next"
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600) // #nosec G304 -- as above
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	// Without it the new name could be found with nothing in it.
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(next, path)
}

func (osFiles) SyncDir(dir string) error {
	d, err := os.Open(dir) // #nosec G304 -- the configured directory
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// noSpace reports whether err says that the disk or the quota is full.
// errReserve says that the space that is left is not for the trail.
var errReserve = errors.New("the reserve is reached")

func noSpace(err error) bool {
	return errors.Is(err, errReserve) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

const (
	segmentSuffix = ".jsonl"
	segmentDigits = 12
)

// segment is a file of the trail.
type segment struct {
	first uint64 // number of its first line
	size  int64
	mtime int64 // Unix seconds of the last write
	told  bool  // its removal is recorded
}

func (s segment) name() string { return segmentName(s.first) }

func segmentName(first uint64) string {
	return fmt.Sprintf("%0*d%s", segmentDigits, first, segmentSuffix)
}

// segmentFirst returns the number in the name of a segment.
func segmentFirst(name string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok || len(digits) < segmentDigits {
		return 0, false
	}
	first, err := strconv.ParseUint(digits, 10, 63)
	return first, err == nil && first > 0 && segmentName(first) == name
}

// listSegments returns the segments of a directory in order.
func listSegments(dir string) ([]segment, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var list []segment
	for _, entry := range entries {
		first, ok := segmentFirst(entry.Name())
		if !ok {
			continue
		}
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed between the two calls
		}
		if err != nil {
			return nil, err
		}
		if !info.Mode().IsRegular() {
			return nil, fmt.Errorf("%s: is not a regular file", filepath.Join(dir, entry.Name()))
		}
		list = append(list, segment{first: first, size: info.Size(), mtime: info.ModTime().Unix()})
	}
	slices.SortFunc(list, func(a, b segment) int {
		if a.first < b.first {
			return -1
		}
		return 1
	})
	return list, nil
}
