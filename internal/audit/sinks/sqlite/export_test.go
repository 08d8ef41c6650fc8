package sqlite

import (
	"context"
	"sync/atomic"
)

// Ask returns the first value of a statement that the sink's own connection
// carries out.
func Ask(ctx context.Context, s *Sink, statement string) (value string, err error) {
	err = s.link.conn.QueryRowContext(ctx, statement).Scan(&value)
	return value, err
}

// Hang makes the next opening of the database last until the channel is closed,
// whatever its context says, and returns how many openings began.
func Hang(s *Sink, until <-chan struct{}) *atomic.Int32 {
	began := new(atomic.Int32)
	s.open = func(ctx context.Context, cfg Config) (*link, error) {
		began.Add(1)
		<-until
		return connect(ctx, cfg)
	}
	return began
}

// Meanwhile lets something happen after the database was opened and before the
// first row is stored.
func Meanwhile(s *Sink, happen func()) {
	s.open = func(ctx context.Context, cfg Config) (*link, error) {
		l, err := connect(ctx, cfg)
		happen()
		s.open = connect
		return l, err
	}
}
