// Package stdout is the audit sink that writes each line as it stands to the
// standard output or any other writer. It knows follow's lines and an
// io.Writer, nothing of who reads on the other end.
package stdout

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/moat-gateway/moat/internal/audit/follow"
)

// ErrClosed is returned by Deliver after Close.
var ErrClosed = errors.New("stdout: the sink is closed")

// Sink writes lines to a writer. A writer that blocks, for example a pipe whose
// reader has stopped, holds up this sink only: Deliver returns when its context
// ends, while the one write under way goes on in the background, and no further
// one begins before it is over.
type Sink struct {
	w io.Writer

	mu      sync.Mutex
	closed  bool
	pending *write
	torn    bool // the last write ended within a line
}

// write is one call of the writer.
type write struct {
	content []byte
	done    chan struct{}
	n       int
	err     error
}

// New returns a sink that writes to w, or to the standard output when w is nil.
func New(w io.Writer) *Sink {
	if w == nil {
		w = os.Stdout
	}
	return &Sink{w: w}
}

// Name returns "stdout".
func (s *Sink) Name() string { return "stdout" }

// Deliver writes the lines in one call of the writer. After a write that ended
// within a line the next one begins with a newline, so that what was torn does
// not spoil a whole line.
func (s *Sink) Deliver(ctx context.Context, lines []follow.Line) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	content := join(lines)
	if s.pending != nil {
		// Written late, but written: the same lines need not come twice.
		late := bytes.Equal(bytes.TrimPrefix(s.pending.content, []byte{'\n'}), content)
		if err := s.wait(ctx); err == nil && late {
			return nil
		} else if s.pending != nil {
			return err
		}
	}
	if s.torn {
		content = append([]byte{'\n'}, content...)
	}
	s.begin(content)
	return s.wait(ctx)
}

func join(lines []follow.Line) []byte {
	size := 0
	for _, line := range lines {
		size += len(line.Content()) + 1
	}
	content := make([]byte, 0, size+1)
	for _, line := range lines {
		content = append(append(content, line.Content()...), '\n')
	}
	return content
}

func (s *Sink) begin(content []byte) {
	p := &write{content: content, done: make(chan struct{})}
	s.pending = p
	go func() {
		defer close(p.done)
		p.n, p.err = s.w.Write(p.content)
	}()
}

// wait waits for the pending write and returns how it ended. When ctx ends
// first the write stays pending.
func (s *Sink) wait(ctx context.Context) error {
	p := s.pending
	select {
	case <-p.done:
	case <-ctx.Done():
		return fmt.Errorf("stdout: the writer blocks: %w", ctx.Err())
	}
	s.pending = nil
	n := min(max(p.n, 0), len(p.content))
	if n > 0 {
		s.torn = p.content[n-1] != '\n'
	}
	if p.err != nil {
		return fmt.Errorf("stdout: %w", p.err)
	}
	if n < len(p.content) {
		return fmt.Errorf("stdout: %w", io.ErrShortWrite)
	}
	return nil
}

// Close ends the sink and leaves the writer open. A write that blocks ends when
// the writer lets it.
func (s *Sink) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return nil
}
