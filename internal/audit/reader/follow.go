package reader

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Poll is how often Follow looks for new lines.
const Poll = 200 * time.Millisecond

// Place is a place between two lines of a trail.
type Place struct {
	segment uint64 // number of the segment's first line
	offset  int64
}

// Follow visits the events that f means behind a place, as they are written, until
// ctx ends. It calls pause when it has come to the end of what there is. A failed
// write that the journal takes back and repeats may be visited twice.
func (t *Trail) Follow(ctx context.Context, from Place, f *Filter, visit Visitor, pause func() error) error {
	w := &follower{trail: t, at: from, meant: f, visit: visit}
	defer w.close()
	tick := time.NewTicker(Poll)
	defer tick.Stop()
	for {
		if err := w.catchUp(ctx); err != nil {
			if errors.Is(err, ErrEnough) {
				return nil
			}
			return err
		}
		if err := pause(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// follower keeps the segment open that it reads, so that one that is removed is
// still read to its end.
type follower struct {
	trail *Trail
	file  *os.File
	at    Place
	meant *Filter
	visit Visitor
}

func (w *follower) close() {
	if w.file != nil {
		_ = w.file.Close() // Read only: nothing to lose.
		w.file = nil
	}
}

// catchUp reads to the end of the trail.
func (w *follower) catchUp(ctx context.Context) error {
	for ctx.Err() == nil {
		if w.file == nil {
			if opened, err := w.open(); err != nil || !opened {
				return err
			}
		}
		if err := w.read(); err != nil {
			return err
		}
		next, err := w.next()
		if err != nil || next == nil {
			return err
		}
		// The journal has moved on, so this segment is final. Lines may have come
		// between the look at it and the look at the directory.
		if err := w.read(); err != nil {
			return err
		}
		if w.torn() {
			w.trail.NoEvents++
		}
		w.close()
		w.at = *next
	}
	return nil
}

// open opens the segment of the place. It is false when there is none: it was
// removed, and next says how it goes on.
func (w *follower) open() (bool, error) {
	for {
		file, err := openSegment(w.trail.dir, w.at.segment)
		if err == nil {
			w.file = file
			return true, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
		next, err := w.next()
		if err != nil || next == nil {
			return false, err
		}
		w.at = *next
	}
}

// read takes the lines that are complete.
func (w *follower) read() error {
	size, err := fileSize(w.file)
	if err != nil || size == w.at.offset {
		return err
	}
	if err := w.settle(size); err != nil {
		return err
	}
	lines := w.trail.lines
	lines.Reset(io.NewSectionReader(w.file, w.at.offset, size-w.at.offset))
	read, err := forward(lines, func(line []byte) error { return w.trail.take(line, w.meant, w.visit) })
	w.at.offset += read
	return err
}

// settle goes back to a line end when the file was cut: the journal takes back a
// write that failed.
func (w *follower) settle(size int64) error {
	var end [1]byte
	if w.at.offset == 0 {
		return nil
	}
	if n, _ := w.file.ReadAt(end[:], w.at.offset-1); n == 1 && end[0] == '\n' {
		return nil
	}
	offset, err := lastLineEnd(w.file, min(size, w.at.offset))
	w.at.offset = offset
	return err
}

// torn reports whether something is behind the last complete line.
func (w *follower) torn() bool {
	size, err := fileSize(w.file)
	return err == nil && size > w.at.offset
}

// next returns where to go on, nil when the open segment is the last.
func (w *follower) next() (*Place, error) {
	list, err := segments(w.trail.dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(list) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	i, found := slices.BinarySearch(list, w.at.segment)
	if found && w.file != nil {
		replaced, err := w.replaced()
		if err != nil || replaced {
			return &Place{segment: w.at.segment}, err
		}
	}
	if found {
		i++
	}
	switch {
	case i < len(list):
		return &Place{segment: list[i]}, nil
	case found:
		return nil, nil
	}
	// All that exists is older than what was read. The last segment is never
	// removed, so this is another trail.
	return &Place{segment: list[0]}, nil
}

// replaced reports whether the open segment's name belongs to another file now.
func (w *follower) replaced() (bool, error) {
	mine, err := w.file.Stat()
	if err != nil {
		return false, err
	}
	theirs, err := os.Stat(filepath.Join(w.trail.dir, segmentName(w.at.segment)))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return !os.SameFile(mine, theirs), nil
}
