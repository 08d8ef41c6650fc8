package follow

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// cursor is a place in a journal: behind a line. The zero cursor is before the
// first.
type cursor struct {
	// Segment is the segment's file name.
	Segment string `json:"segment"`
	// Offset is the byte after the line's newline.
	Offset int64 `json:"offset"`
	// Seq is the line's sequence number.
	Seq uint64 `json:"seq"`
	// Head is the SHA-256 of the segment's first line. After a crash a new
	// segment may get the name of a lost one.
	Head string `json:"head"`
}

// cursorFile is the cursor as it is stored.
type cursorFile struct {
	Sink string `json:"sink"`
	cursor
}

const maxCursorFile = 4 << 10

var (
	// errCursor means that the file is no cursor. The journal is then read
	// from its beginning, since a duplicate is better than a gap.
	errCursor = errors.New("follow: the cursor file is damaged: starting with the oldest line")
	// errForeign means that two sinks were given the same file.
	errForeign = errors.New("belongs to another sink")
)

// loadCursor reads the cursor of the named sink. Without a file it is zero.
func loadCursor(path, sink string) (cursor, error) {
	file, err := os.Open(filepath.Clean(path))
	if errors.Is(err, fs.ErrNotExist) {
		return cursor{}, nil
	}
	if err != nil {
		return cursor{}, fmt.Errorf("follow: cursor: %w", err)
	}
	defer func() { _ = file.Close() }()
	raw, err := io.ReadAll(io.LimitReader(file, maxCursorFile))
	if err != nil {
		return cursor{}, fmt.Errorf("follow: cursor: %w", err)
	}
	c, err := parseCursor(raw, sink)
	if errors.Is(err, errForeign) {
		return cursor{}, fmt.Errorf("follow: cursor %q: %w", path, err)
	}
	return c, err
}

func parseCursor(raw []byte, sink string) (cursor, error) {
	var stored cursorFile
	if err := json.Unmarshal(raw, &stored); err != nil || stored.Sink == "" {
		return cursor{}, errCursor
	}
	if stored.Sink != sink {
		return cursor{}, errForeign
	}
	// The name becomes part of a path: nothing but a segment's name may.
	if !isSegment(stored.Segment) || stored.Offset < 0 {
		return cursor{}, errCursor
	}
	return stored.cursor, nil
}

// save replaces the cursor file, so that a crash leaves the old or the new one.
func (c cursor) save(path, sink string) error {
	raw, err := json.Marshal(cursorFile{Sink: sink, cursor: c})
	if err != nil {
		return fmt.Errorf("follow: cursor: %w", err)
	}
	if err := replaceFile(path, append(raw, '\n')); err != nil {
		return fmt.Errorf("follow: cursor: %w", err)
	}
	return nil
}

func replaceFile(path string, content []byte) error {
	temporary := path + ".tmp"
	file, err := os.OpenFile(filepath.Clean(temporary), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	err = errors.Join(err, file.Sync(), file.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(temporary, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes a rename in dir survive a power loss.
func syncDir(dir string) error {
	d, err := os.Open(filepath.Clean(dir))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
