package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/moat-gateway/moat/internal/audit"
)

// tailBytes is how far back from its end a segment is searched for its last
// whole line: more than any one write, so more than a crash can tear.
const tailBytes = 1 << 20

// recover finds the end of the trail and cuts off what a crash tore: bytes
// after the last line end, and lines at the very end that are no events. It
// returns the event that says so, or nil. Damage elsewhere is left alone for
// Verify to find; nothing but the torn end is ever changed.
func (w *writer) recover() (*audit.Event, error) {
	list, err := listSegments(w.j.dir)
	if err != nil {
		return nil, err
	}
	var note *audit.Event
	for len(list) > 0 {
		last := &list[len(list)-1]
		end, err := readTail(w.path(last.name()), last.size)
		if err != nil {
			return nil, err
		}
		if end.size() > 0 || end.lines == 0 {
			note = w.recoveredEvent(note, last.name(), end)
		}
		if end.lines > 0 {
			if last.size, err = w.cut(*last, end); err != nil {
				return nil, err
			}
			w.chain = end.chain
			w.trailKey = keyOf(w.path(last.name()))
			break
		}
		// Begun and not finished: not even its first line was acknowledged.
		if err := w.fs.Remove(w.path(last.name())); err != nil {
			return nil, err
		}
		list = list[:len(list)-1]
	}
	if len(list) == 0 {
		w.chain = chain{last: genesis}
	}
	w.old = list
	return note, nil
}

func (w *writer) cut(s segment, end tail) (int64, error) {
	if end.size() == 0 {
		return s.size, nil
	}
	size := s.size - end.size()
	return size, w.fs.Truncate(w.path(s.name()), size)
}

func (w *writer) recoveredEvent(note *audit.Event, name string, end tail) *audit.Event {
	if note == nil {
		note = w.event(audit.ActionRecovered, name)
		note.Severity = audit.High
		note.Reason = "torn-tail"
		note.Details.Set("file", name)
		note.Details.Set("cutBytes", end.size())
		note.Details.Set("cutHash", lineHash(end.torn))
		return note
	}
	// A torn segment behind a torn one: a crash during the start after a crash.
	note.Details.Set("file2", name)
	note.Details.Set("cutBytes2", end.size())
	note.Details.Set("cutHash2", lineHash(end.torn))
	return note
}

// tail is the end of a segment.
type tail struct {
	chain chain
	lines int // whole lines seen, 0 when there is none
	torn  []byte
	zeros int64 // behind the torn bytes, which a loss of power can leave in any number
}

// size is how many bytes are to be cut off.
func (t *tail) size() int64 { return int64(len(t.torn)) + t.zeros }

// readTail finds the last whole line of a segment. A segment without one is
// taken for a torn beginning when it is no longer than a line; else it is not
// what a crash leaves, and an error.
func readTail(path string, size int64) (tail, error) {
	f, err := os.Open(filepath.Clean(path))
	if err != nil {
		return tail{}, err
	}
	defer func() { _ = f.Close() }()
	zeros, err := trailingZeros(f, size)
	if err != nil {
		return tail{}, fmt.Errorf("read %s: %w", path, err)
	}
	if zeros < tailBytes/2 {
		zeros = 0 // Few enough to be looked at with the rest.
	}
	size -= zeros
	from := max(size-tailBytes, 0)
	buf := make([]byte, size-from)
	if n, err := f.ReadAt(buf, from); err != nil && !errors.Is(err, io.EOF) || n < len(buf) {
		return tail{}, fmt.Errorf("read %s: %w", path, errors.Join(err, io.ErrUnexpectedEOF))
	}
	// Each turn looks at the last line of what is left and cuts it off when it
	// is no event.
	for end := len(buf); ; {
		whole := bytes.LastIndexByte(buf[:end], '\n')
		if whole < 0 {
			break
		}
		start := bytes.LastIndexByte(buf[:whole], '\n') + 1
		line := buf[start:whole]
		if h, err := parseHead(line); err == nil {
			return tail{chain: chain{seq: h.Seq, last: lineHash(line)}, lines: 1, torn: buf[whole+1:], zeros: zeros}, nil
		}
		end = whole
	}
	if size > audit.MaxLine {
		return tail{}, fmt.Errorf("%s: no event in its last %d bytes: move the file away to go on without it", path, len(buf))
	}
	return tail{torn: buf, zeros: zeros}, nil
}

// trailingZeros counts the zeros at the end of a file.
func trailingZeros(f io.ReaderAt, size int64) (int64, error) {
	buf := make([]byte, tailBytes)
	for end := size; end > 0; {
		from := max(end-tailBytes, 0)
		part := buf[:end-from]
		if n, err := f.ReadAt(part, from); n < len(part) {
			return 0, errors.Join(err, io.ErrUnexpectedEOF)
		}
		if used := len(bytes.TrimRight(part, "\x00")); used > 0 {
			return size - from - int64(used), nil
		}
		end = from
	}
	return size, nil
}

// readFull reads until buf is full or the file ends.
func readFull(r io.Reader, buf []byte) (int, error) {
	n, err := io.ReadFull(r, buf)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return n, err
}
