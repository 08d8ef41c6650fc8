// Package sqlite is the audit sink that inserts each line into a table of a
// SQLite database file: the line as it stands, beside a few columns to search by.
// It knows follow's lines, the outer fields of an audit event and one table; it
// never changes or removes a row.
package sqlite

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/moat-gateway/moat/internal/audit/follow"
)

// grace is how long SQLite may take to end after its context did, and to close
// the database. Only a disk that hangs takes longer.
const grace = time.Second

// ErrClosed is returned by Deliver after Close.
var ErrClosed = errors.New("sqlite: the sink is closed")

// Sink inserts lines into one table over one connection. A disk that hangs holds
// up this sink only: Deliver returns after its context ended, while what it began
// goes on in the background, and nothing else begins before that is over.
type Sink struct {
	config Config
	insert string
	open   func(ctx context.Context, cfg Config) (*link, error)

	mu      sync.Mutex
	closed  bool
	pending chan struct{} // closed when the work under way ends; nil: there is none
	link    *link         // nil while there is no connection; of the work under way
}

// New checks cfg and returns a sink that has not touched any file yet.
func New(cfg Config) (*Sink, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &Sink{
		config: cfg, open: connect,
		insert: "INSERT INTO " + quote(cfg.Table) + " (" + names + ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
	}, nil
}

// Name returns "sqlite".
func (s *Sink) Name() string { return "sqlite" }

// Deliver inserts the lines in one transaction, which is on disk when it returns
// nil. Rows that exist already stay as they are.
func (s *Sink) Deliver(ctx context.Context, lines []follow.Line) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	rows, err := rowsOf(lines)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.config.Timeout)
	defer cancel()
	if err := s.run(ctx, func() error { return s.deliver(ctx, rows) }); err != nil {
		return clean(ctx, err)
	}
	return nil
}

// deliver stores the rows, over a new connection when the last one is of no use.
func (s *Sink) deliver(ctx context.Context, rows [][]any) (err error) {
	if s.link != nil && !s.link.intact() {
		s.sever()
	}
	if s.link == nil {
		if s.link, err = s.open(ctx, s.config); err != nil {
			return err
		}
	}
	err = s.link.insert(ctx, s.insert, rows)
	// Replaced meanwhile, the rows may be in the file that is gone.
	if err == nil && !s.link.intact() {
		err = errMoved
	}
	if err != nil {
		s.sever()
	}
	return err
}

func (s *Sink) sever() {
	if s.link != nil {
		s.link.close()
		s.link = nil
	}
}

// run does the work and returns how it ended, or errHangs when it does not end
// although ctx did.
func (s *Sink) run(ctx context.Context, work func() error) error {
	if !s.idle(ctx) {
		return errHangs
	}
	var err error
	done := make(chan struct{})
	s.pending = done
	go func() {
		defer close(done)
		err = work()
	}()
	select {
	case <-done:
	case <-ctx.Done():
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
		defer cancel()
		if !s.idle(late) {
			return errHangs
		}
	}
	s.pending = nil
	return err
}

// idle waits until nothing is under way, and reports whether that is so.
func (s *Sink) idle(ctx context.Context) bool {
	if s.pending == nil {
		return true
	}
	select {
	case <-s.pending:
		s.pending = nil
		return true
	case <-ctx.Done():
		return false
	}
}

// Close ends the sink and its connection. Work that hangs ends, and the
// connection after it, when the disk lets it.
func (s *Sink) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	if !s.idle(ctx) {
		pending := s.pending
		go func() {
			<-pending
			s.sever()
		}()
		return nil
	}
	_ = s.run(ctx, func() error { s.sever(); return nil }) // all that was delivered is on disk
	return nil
}
