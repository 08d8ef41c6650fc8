package reader

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moat-gateway/moat/internal/audit"
)

// segmentFirst returns the number of the first line of a segment, which is its
// name, padded to twelve digits. Other files are never opened.
func segmentFirst(name string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, ".jsonl")
	if !ok {
		return 0, false
	}
	first, err := strconv.ParseUint(digits, 10, 63)
	return first, err == nil && first > 0 && segmentName(first) == name
}

func segmentName(first uint64) string { return fmt.Sprintf("%012d.jsonl", first) }

// segments lists the segments of a directory in order, by their first numbers.
func segments(dir string) ([]uint64, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var list []uint64
	for _, e := range entries {
		if first, ok := segmentFirst(e.Name()); ok && e.Type().IsRegular() {
			list = append(list, first)
		}
	}
	slices.Sort(list)
	return list, nil
}

func openSegment(dir string, first uint64) (*os.File, error) {
	return os.Open(filepath.Join(dir, segmentName(first))) // #nosec G304 -- given by the operator
}

func fileSize(f *os.File) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// begun returns the time of a segment's first line: when it was begun. It is false
// where that is not known (yet).
func begun(dir string, first uint64) (time.Time, bool) {
	f, err := openSegment(dir, first)
	if err != nil {
		return time.Time{}, false
	}
	defer func() { _ = f.Close() }()
	buf := make([]byte, 4<<10)
	for {
		n, err := f.ReadAt(buf, 0)
		if line, _, whole := bytes.Cut(buf[:n], []byte{'\n'}); whole {
			var e Event
			return e.Time, e.parse(line) && !e.Time.IsZero()
		}
		if err != nil || len(buf) > audit.MaxLine {
			return time.Time{}, false
		}
		buf = make([]byte, audit.MaxLine+1)
	}
}

// lastLineEnd returns the offset behind the last line end before size, 0 when there
// is none.
func lastLineEnd(r io.ReaderAt, size int64) (int64, error) {
	buf := make([]byte, block)
	for end := size; end > 0; {
		start := max(0, end-block)
		n, err := r.ReadAt(buf[:end-start], start)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		if i := bytes.LastIndexByte(buf[:n], '\n'); i >= 0 {
			return start + int64(i) + 1, nil
		}
		end = start
	}
	return 0, nil
}
