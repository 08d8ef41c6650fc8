package follow

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
)

const suffix = ".jsonl"

// isSegment reports whether a file name is one of a segment: at least twelve
// digits and the suffix. Nothing else is ever opened.
func isSegment(name string) bool {
	digits, ok := strings.CutSuffix(name, suffix)
	if !ok || len(digits) < 12 || len(digits) > 20 {
		return false
	}
	return strings.Trim(digits, "0123456789") == ""
}

// compareSegments orders segment names by number: names grow past twelve
// digits one day, and then the text order is wrong.
func compareSegments(a, b string) int {
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	return strings.Compare(a, b)
}

// segments lists the directory's segments in order. A directory that is not
// there yet has none.
func segments(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if isSegment(e.Name()) && e.Type().IsRegular() {
			names = append(names, e.Name())
		}
	}
	slices.SortFunc(names, compareSegments)
	return names, nil
}

// firstLine returns the first complete line of r, or nil when it has none.
func firstLine(r io.ReaderAt) ([]byte, error) {
	for size := 4 << 10; ; size *= 4 {
		buf := make([]byte, min(size, MaxLine+1))
		n, err := r.ReadAt(buf, 0)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		if end := bytes.IndexByte(buf[:n], '\n'); end >= 0 {
			return buf[:end], nil
		}
		if n < len(buf) || len(buf) > MaxLine {
			return nil, nil
		}
	}
}

// lastNewline returns the offset after the last newline before size, zero when
// there is none.
func lastNewline(r io.ReaderAt, size int64) (int64, error) {
	buf := make([]byte, 64<<10)
	for end := size; end > 0; {
		start := max(0, end-int64(len(buf)))
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

// afterNewline reports whether offset is where a line begins.
func afterNewline(r io.ReaderAt, offset int64) bool {
	if offset == 0 {
		return true
	}
	var b [1]byte
	n, _ := r.ReadAt(b[:], offset-1)
	return n == 1 && b[0] == '\n'
}

// lastSeq returns the sequence number of the last complete line, zero when
// there is none or it is no event.
func lastSeq(r io.ReaderAt, size int64) (uint64, error) {
	end, err := lastNewline(r, size)
	if err != nil || end == 0 {
		return 0, err
	}
	start, err := lastNewline(r, end-1)
	if err != nil || end-start > MaxLine+1 {
		return 0, err
	}
	line := make([]byte, end-1-start)
	if _, err := r.ReadAt(line, start); err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	h, err := readHead(line)
	if err != nil {
		return 0, nil //nolint:nilerr // Set aside when its turn comes.
	}
	return h.seq, nil
}

// fingerprint tells one segment from another of the same name.
func fingerprint(first []byte) string {
	sum := sha256.Sum256(first)
	return hex.EncodeToString(sum[:])
}
