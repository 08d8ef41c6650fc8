package follow

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/moat-gateway/moat/internal/audit/jsonline"
)

const (
	maxBatchBytes = 1 << 20
	// settle is how long a directory listing is not trusted after a change,
	// because two changes in one tick of the file clock look like one.
	settle = 2 * time.Second
)

// entry is one line as the trail found it.
type entry struct {
	line Line
	bad  error  // why the line is no event; Raw then holds its beginning
	at   cursor // the place after the line
	lost uint64 // lines missing between the one before and this
	skip bool   // not for this sink; it may stand for many such lines
	done bool   // delivered already
	own  bool   // Raw is a copy
	// refused counts how often the server refused the line while it took others.
	refused int
}

// trail reads a journal from a place on. It opens one segment at a time and
// keeps it open, so that a segment removed while it is read is still read to
// its end.
type trail struct {
	dir  string
	now  func() time.Time
	keep *Filter
	// restarted is told when the journal begins anew behind a number.
	restarted func(seq uint64)
	file      *os.File
	at        cursor // the place after the last line read
	boot      string // epoch of the open segment
	buf       []byte

	instance, class memo

	names    []string
	listed   time.Time
	modified time.Time
}

func (t *trail) close() {
	if t.file != nil {
		_ = t.file.Close() // read only: nothing to lose
		t.file = nil
	}
}

// next returns the next complete lines, at most limit of them that the filter
// keeps and one MiB, and none when the trail has been read to its end. They share
// one buffer, valid until the next call.
func (t *trail) next(limit int) ([]entry, error) {
	if t.file == nil {
		if ok, err := t.resume(); !ok || err != nil {
			return nil, err
		}
	}
	for {
		if batch, err := t.read(limit); len(batch) > 0 || err != nil {
			return batch, err
		}
		name, err := t.following()
		if name == "" || err != nil {
			return nil, err
		}
		// The journal has moved on, which makes this segment final. Lines may
		// have come between the look at it and the look at the directory.
		if name != t.at.Segment {
			if batch, err := t.read(limit); len(batch) > 0 || err != nil {
				return batch, err
			}
		}
		if err := t.open(name); err != nil {
			return nil, err
		}
	}
}

// resume opens the segment in which t.at lies. If it has been removed, the
// next one; if that does not exist either, the journal was replaced and is
// read from its beginning.
func (t *trail) resume() (bool, error) {
	if err := t.list(true); err != nil || len(t.names) == 0 {
		return false, err
	}
	for _, name := range t.names {
		if t.at.Segment == "" || compareSegments(name, t.at.Segment) > 0 {
			return true, t.open(name)
		}
		if name == t.at.Segment {
			return true, t.reopen()
		}
	}
	return true, t.open(t.names[0])
}

// open starts with the first line of a segment.
func (t *trail) open(name string) error {
	file, err := os.Open(filepath.Clean(filepath.Join(t.dir, name)))
	if err != nil {
		t.listed = time.Time{}
		return err
	}
	t.close()
	t.file, t.boot = file, ""
	t.at = cursor{Segment: name, Seq: t.at.Seq}
	return nil
}

// rewound corrects the place when the open segment, which is read from its start,
// begins before it: what comes then was not delivered yet, whatever its numbers say.
func (t *trail) rewound(first uint64) {
	if first == 0 || first > t.at.Seq {
		return
	}
	t.at.Seq = first - 1
	if t.restarted != nil {
		t.restarted(first - 1)
	}
}

// reopen goes back to t.at in a segment that still has its name. A different
// first line means that it is another segment: it is read from its start. The
// same one but less of it means that a crash took the end, of which the sink
// has got more than the journal kept: it goes on where the rest ends.
func (t *trail) reopen() error {
	want := t.at
	if err := t.open(want.Segment); err != nil {
		return err
	}
	first, err := firstLine(t.file)
	if err != nil || first == nil || fingerprint(first) != want.Head {
		return err
	}
	info, err := t.file.Stat()
	if err != nil {
		return err
	}
	offset := want.Offset
	if info.Size() < offset {
		if offset, err = lastNewline(t.file, info.Size()); err != nil {
			return err
		}
	}
	if !afterNewline(t.file, offset) {
		return nil // the place is not ours: from the start, rather twice than never
	}
	t.at, t.boot = want, ""
	t.at.Offset = offset
	if h, err := readHead(first); err == nil {
		t.boot = h.bootOf()
	}
	return nil
}

// following returns the segment to go on with after the open one, "" when the
// open one is the last, and the open one's own name when its file was replaced.
func (t *trail) following() (string, error) {
	if err := t.list(false); err != nil {
		return "", err
	}
	if len(t.names) == 0 {
		return "", nil
	}
	i, found := slices.BinarySearchFunc(t.names, t.at.Segment, compareSegments)
	if found {
		if replaced, err := t.replaced(); replaced || err != nil {
			return t.at.Segment, err
		}
		i++
	}
	switch {
	case i < len(t.names):
		return t.names[i], nil
	case found:
		return "", nil
	}
	// All that exists is older than what was read: the last segment is never
	// removed, so this is another journal.
	return t.names[0], nil
}

// replaced reports whether the open segment's name belongs to another file now.
func (t *trail) replaced() (bool, error) {
	mine, err := t.file.Stat()
	if err != nil {
		return false, err
	}
	theirs, err := os.Stat(filepath.Join(t.dir, t.at.Segment))
	if err != nil {
		t.listed = time.Time{}
		return false, ignoreMissing(err)
	}
	return !os.SameFile(mine, theirs), nil
}

// list refreshes the names of the segments when the directory has changed.
func (t *trail) list(force bool) error {
	info, err := os.Stat(t.dir)
	if err != nil {
		t.names, t.listed = nil, time.Time{}
		return ignoreMissing(err)
	}
	now := t.now()
	if !force && !t.listed.IsZero() && info.ModTime().Equal(t.modified) &&
		t.listed.Sub(t.modified) > settle {
		return nil
	}
	names, err := segments(t.dir)
	if err != nil {
		return err
	}
	t.names, t.listed, t.modified = names, now, info.ModTime()
	return nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// read returns complete lines of the open segment.
func (t *trail) read(limit int) ([]entry, error) {
	info, err := t.file.Stat()
	if err != nil {
		return nil, err
	}
	size := info.Size()
	if !afterNewline(t.file, t.at.Offset) {
		// Cut while it was open: a failed write was taken back, and what was
		// written since may differ. From the start, rather twice than never.
		t.at.Offset = 0
	}
	if size == t.at.Offset {
		return nil, nil
	}
	chunk, err := t.chunk(min(size-t.at.Offset, maxBatchBytes+1))
	if err != nil {
		return nil, err
	}
	var batch []entry
	for kept := 0; kept < limit; {
		end := bytes.IndexByte(chunk, '\n')
		if end < 0 {
			break
		}
		e := t.entry(chunk[:end], int64(end)+1)
		chunk = chunk[end+1:]
		if last := len(batch) - 1; e.skip && last >= 0 && batch[last].skip {
			batch[last].at, batch[last].lost = e.at, batch[last].lost+e.lost
			continue
		}
		batch = append(batch, e)
		if !e.skip {
			kept++
		}
	}
	if len(batch) == 0 && len(chunk) > MaxLine {
		return t.oversize(chunk, size)
	}
	return batch, nil
}

// chunk reads n bytes at the trail's place, or what there is of them.
func (t *trail) chunk(n int64) ([]byte, error) {
	if int64(len(t.buf)) < n {
		t.buf = make([]byte, max(n, 64<<10))
	}
	got, err := t.file.ReadAt(t.buf[:n], t.at.Offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return t.buf[:got], nil
}

// entry reads one line of width bytes and moves the place behind it.
func (t *trail) entry(raw []byte, width int64) entry {
	h, err := readHead(raw)
	if t.at.Offset == 0 {
		t.at.Head = fingerprint(raw)
		if err == nil {
			t.boot = h.bootOf()
			t.rewound(h.seq)
		}
	}
	return t.step(raw, width, h, err)
}

func (t *trail) step(raw []byte, width int64, h head, bad error) entry {
	e := entry{bad: bad, line: Line{Raw: raw}}
	before := t.at.Seq
	t.at.Offset += width
	if bad != nil {
		t.at.Seq++ // it holds the place of one event
		e.line.Seq = t.at.Seq
	} else {
		t.at.Seq = h.seq
		e.line = Line{Seq: h.seq, Instance: t.instance.text(h.instance), Class: t.class.text(h.class), Epoch: jsonline.Text(h.epoch), Raw: raw}
		if e.line.Epoch == "" {
			e.line.Epoch = t.boot
		}
		if before > 0 && h.seq > before+1 {
			e.lost = h.seq - before - 1
		}
		e.skip = !t.keep.keeps(h)
	}
	e.at = t.at
	return e
}

// memo keeps the last string decoded, since most lines repeat it.
type memo struct{ quoted, plain string }

func (m *memo) text(quoted []byte) string {
	if string(quoted) != m.quoted {
		m.quoted, m.plain = string(quoted), jsonline.Text(quoted)
	}
	return m.plain
}

// oversize passes over a line that is too long for any sink, once its newline
// is there. Only its beginning is returned.
func (t *trail) oversize(start []byte, size int64) ([]entry, error) {
	raw := bytes.Clone(start[:4<<10])
	for offset := t.at.Offset; offset < size; {
		n, err := t.file.ReadAt(t.buf, offset)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		if n == 0 {
			break
		}
		if i := bytes.IndexByte(t.buf[:n], '\n'); i >= 0 {
			if t.at.Offset == 0 {
				t.at.Head = "oversize"
			}
			width := offset + int64(i) + 1 - t.at.Offset
			return []entry{t.step(raw, width, head{}, errOversize)}, nil
		}
		offset += int64(n)
	}
	return nil, nil
}

// newest returns the sequence number at the end of the journal.
func (t *trail) newest() (uint64, error) {
	if err := t.list(false); err != nil || len(t.names) == 0 {
		return 0, err
	}
	for _, name := range slices.Backward(t.names[max(0, len(t.names)-2):]) {
		seq, err := newestOf(filepath.Join(t.dir, name))
		if seq > 0 || (err != nil && !errors.Is(err, fs.ErrNotExist)) {
			return seq, err
		}
	}
	return 0, nil
}

func newestOf(path string) (uint64, error) {
	file, err := os.Open(filepath.Clean(path))
	if err != nil {
		return 0, err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return 0, err
	}
	return lastSeq(file, info.Size())
}
