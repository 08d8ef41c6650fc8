// Package file is the audit sink that appends each line to a file, a plain copy
// for log shippers, and rotates it by size. It knows follow's lines, one path and
// the names of its rotated files; what is once in a file it never changes.
package file

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/moat-gateway/moat/internal/audit/follow"
)

// goodbye is how long Close waits for a write that is under way.
const goodbye = time.Second

// ErrClosed is returned by Deliver after Close.
var ErrClosed = errors.New("file: the sink is closed")

// Sink appends lines to one file. A disk that hangs holds up this sink only:
// Deliver returns when its context ends, while the write under way goes on in the
// background, and no further one begins before it is over.
type Sink struct {
	config Config
	names  pattern
	now    func() time.Time
	open   func(path string, flag int, mode os.FileMode) (handle, error)

	mu      sync.Mutex
	closed  bool
	pending *work

	// Of the work under way.
	file    handle // nil while none is open
	info    os.FileInfo
	suspect bool // what the last write left on disk is unknown
}

// work is one delivery to the disk.
type work struct {
	content []byte
	done    chan struct{}
	err     error
}

// New checks cfg and returns a sink that has not touched any file yet.
func New(cfg Config) (*Sink, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &Sink{config: cfg, names: patternOf(cfg.Path), now: time.Now, open: openFile}, nil
}

// Name returns "file".
func (s *Sink) Name() string { return "file" }

// Deliver appends the lines in one write, which is on disk when it returns nil.
func (s *Sink) Deliver(ctx context.Context, lines []follow.Line) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	ctx, cancel := context.WithTimeout(ctx, s.config.Timeout)
	defer cancel()
	content := join(lines)
	if s.pending != nil {
		// Written late, but written: the same lines need not come twice.
		late := bytes.Equal(s.pending.content, content)
		if err := s.wait(ctx); err == nil && late || s.pending != nil {
			return err
		}
	}
	s.begin(content)
	return s.wait(ctx)
}

func join(lines []follow.Line) []byte {
	size := 0
	for _, line := range lines {
		size += len(line.Content()) + 1
	}
	content := make([]byte, 0, size)
	for _, line := range lines {
		content = append(append(content, line.Content()...), '\n')
	}
	return content
}

func (s *Sink) begin(content []byte) {
	w := &work{content: content, done: make(chan struct{})}
	s.pending = w
	go func() {
		defer close(w.done)
		w.err = s.append(w.content)
	}()
}

// wait waits for the pending work and returns how it ended. When ctx ends first
// it stays pending.
func (s *Sink) wait(ctx context.Context) error {
	w := s.pending
	select {
	case <-w.done:
		s.pending = nil
		return clean(w.err)
	case <-ctx.Done():
		return fmt.Errorf("file: the disk does not answer: %w", ctx.Err())
	}
}

// Close ends the sink and closes the file. A write that hangs ends, and the file
// is closed after it, when the disk lets it.
func (s *Sink) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	last, done := s.pending, make(chan struct{})
	go func() {
		defer close(done)
		if last != nil {
			<-last.done
		}
		s.shut()
	}()
	ctx, cancel := context.WithTimeout(context.Background(), goodbye)
	defer cancel()
	select {
	case <-done:
	case <-ctx.Done():
	}
	return nil
}
