// Package reader reads the audit trail in a directory, forwards, backwards and as
// it grows, and picks events out of it. It knows lines and files; it checks no hash
// and no signature, and it writes and locks nothing. A journal may be open on the
// directory meanwhile: what is read is the trail as it was at the beginning of a
// call, segments that are removed during it are passed over, and a last line that
// is not complete is not there yet.
package reader

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"github.com/moat-gateway/moat/internal/audit"
)

// ErrNoTrail says that a directory holds no segment.
var ErrNoTrail = errors.New("there is no trail in this directory")

// ErrEnough is what a visitor returns to end a call without an error.
var ErrEnough = errors.New("enough")

// Visitor is called for each event that is meant. Events are valid until it
// returns.
type Visitor func(*Event) error

// Trail reads one directory. It is used by one goroutine at a time.
type Trail struct {
	dir string

	// NoEvents counts lines that were passed over because they are no events.
	NoEvents int
	// Removed counts segments that were removed before they could be read.
	Removed int

	event Event
	lines *bufio.Reader
}

// Open looks whether there is a trail.
func Open(dir string) (*Trail, error) {
	list, err := segments(dir)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%s: %w", dir, ErrNoTrail)
	}
	return &Trail{dir: dir, lines: bufio.NewReaderSize(nil, audit.MaxLine+1)}, nil
}

// Forward visits the events that f means, oldest first.
func (t *Trail) Forward(f *Filter, visit Visitor) error {
	list, err := segments(t.dir)
	if err != nil {
		return err
	}
	for i, first := range list {
		if t.outside(f, list, i) {
			continue
		}
		err := t.within(first, func(file *os.File) error {
			return t.segmentForward(file, i == len(list)-1, f, visit)
		})
		if errors.Is(err, ErrEnough) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *Trail) segmentForward(file *os.File, last bool, f *Filter, visit Visitor) error {
	size, err := fileSize(file)
	if err != nil {
		return err
	}
	t.lines.Reset(io.NewSectionReader(file, 0, size))
	read, err := forward(t.lines, func(line []byte) error { return t.take(line, f, visit) })
	if err == nil && read < size && !last {
		t.NoEvents++
	}
	return err
}

// Backward visits the events that f means, newest first, and returns where the
// trail ended when it began, for Follow.
func (t *Trail) Backward(f *Filter, visit Visitor) (end Place, err error) {
	list, err := segments(t.dir)
	if err != nil || len(list) == 0 {
		return end, err
	}
	if end, err = t.end(list[len(list)-1]); err != nil {
		return end, err
	}
	for i, first := range slices.Backward(list) {
		if t.outside(f, list, i) {
			continue
		}
		err := t.within(first, func(file *os.File) error {
			if first == end.segment {
				return t.linesBackward(file, end.offset, f, visit)
			}
			return t.segmentBackward(file, f, visit)
		})
		if errors.Is(err, ErrEnough) {
			return end, nil
		}
		if err != nil {
			return end, err
		}
	}
	return end, nil
}

// End returns where the trail ends, for Follow.
func (t *Trail) End() (Place, error) {
	list, err := segments(t.dir)
	if err != nil || len(list) == 0 {
		return Place{}, err
	}
	return t.end(list[len(list)-1])
}

// end returns the end of the last complete line of a segment.
func (t *Trail) end(first uint64) (Place, error) {
	place := Place{segment: first}
	err := t.within(first, func(file *os.File) error {
		size, err := fileSize(file)
		if err == nil {
			place.offset, err = lastLineEnd(file, size)
		}
		return err
	})
	return place, err
}

// segmentBackward reads a segment that is final.
func (t *Trail) segmentBackward(file *os.File, f *Filter, visit Visitor) error {
	size, err := fileSize(file)
	if err != nil {
		return err
	}
	end, err := lastLineEnd(file, size)
	if err != nil {
		return err
	}
	if end < size {
		t.NoEvents++
	}
	return t.linesBackward(file, end, f, visit)
}

func (t *Trail) linesBackward(file *os.File, end int64, f *Filter, visit Visitor) error {
	lines := newBackward(file, end)
	for {
		line, err := lines.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = t.take(line, f, visit)
		}
		if err != nil {
			return err
		}
	}
}

// within opens a segment for read. One that is gone is passed over: a journal
// removes its oldest.
func (t *Trail) within(first uint64, read func(*os.File) error) error {
	file, err := openSegment(t.dir, first)
	if errors.Is(err, fs.ErrNotExist) {
		t.Removed++
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }() // Read only: nothing to lose.
	if err := read(file); err != nil {
		return fmt.Errorf("%s: %w", segmentName(first), err)
	}
	return nil
}

// take visits the event in a line, if it is one and is meant.
func (t *Trail) take(line []byte, f *Filter, visit Visitor) error {
	switch {
	case line == nil || !t.event.parse(line):
		t.NoEvents++
		return nil
	case !f.Match(&t.event):
		return nil
	}
	return visit(&t.event)
}

// outside reports whether no event of segment i can be in the time that f means. It
// was written from its first line's time to that of the next segment.
func (t *Trail) outside(f *Filter, list []uint64, i int) bool {
	if !f.Until.IsZero() {
		if from, ok := begun(t.dir, list[i]); ok && f.afterAll(from) {
			return true
		}
	}
	if !f.Since.IsZero() && i+1 < len(list) {
		to, ok := begun(t.dir, list[i+1])
		return ok && f.beforeAll(to)
	}
	return false
}
