package reader

import (
	"bufio"
	"bytes"
	"errors"
	"io"

	"github.com/moat-gateway/moat/internal/audit"
)

// block is how much of a file is read at once.
const block = 64 << 10

// forward calls each for every complete line of r. A line that is too long to be an
// event is nil. It returns how many bytes those lines have.
func forward(r *bufio.Reader, each func(line []byte) error) (int64, error) {
	var read int64
	for {
		line, width, err := nextLine(r)
		if errors.Is(err, io.EOF) {
			return read, nil
		}
		if err != nil {
			return read, err
		}
		read += width
		if err := each(line); err != nil {
			return read, err
		}
	}
}

// nextLine returns a line without its line end, and its width with it. At a torn
// line it is at the end.
func nextLine(r *bufio.Reader) (line []byte, width int64, err error) {
	line, err = r.ReadSlice('\n')
	width = int64(len(line))
	if err == nil {
		return line[:len(line)-1], width, nil
	}
	for errors.Is(err, bufio.ErrBufferFull) {
		line, err = r.ReadSlice('\n')
		width += int64(len(line))
	}
	return nil, width, err
}

// backward reads lines from an end, which is behind a line end, to the beginning.
type backward struct {
	r       io.ReaderAt
	before  int64  // offset of buf in the file
	buf     []byte // lines that were read and not returned, line ends included
	storage []byte
}

func newBackward(r io.ReaderAt, end int64) *backward {
	return &backward{r: r, before: end, storage: make([]byte, block+audit.MaxLine+1)}
}

// next returns the line before, without its line end, valid until the next call. A
// line that is too long to be an event is nil. The error is io.EOF at the beginning.
func (b *backward) next() ([]byte, error) {
	for {
		if n := len(b.buf) - 1; n >= 0 {
			i := bytes.LastIndexByte(b.buf[:n], '\n')
			if i >= 0 || b.before == 0 {
				line := b.buf[i+1 : n]
				b.buf = b.buf[:i+1]
				return line, nil
			}
			if n > audit.MaxLine {
				return nil, b.skip()
			}
		}
		if b.before == 0 {
			return nil, io.EOF
		}
		if err := b.more(); errors.Is(err, io.EOF) {
			return nil, io.ErrUnexpectedEOF // Else it would look like the beginning.
		} else if err != nil {
			return nil, err
		}
	}
}

// more puts the block before buf in front of it.
func (b *backward) more() error {
	n := min(block, b.before)
	rest := copy(b.storage[n:], b.buf)
	if got, err := b.r.ReadAt(b.storage[:n], b.before-n); int64(got) < n {
		return err // io.EOF when the file was cut meanwhile.
	}
	b.before -= n
	b.buf = b.storage[:n+int64(rest)]
	return nil
}

// skip passes over the rest of a line that is too long.
func (b *backward) skip() error {
	end, err := lastLineEnd(b.r, b.before)
	b.before, b.buf = end, nil
	return err
}
