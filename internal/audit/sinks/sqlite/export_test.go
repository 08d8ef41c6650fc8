package sqlite

import "context"

// Ask returns the first value of a statement that the sink's own connection
// carries out.
func Ask(ctx context.Context, s *Sink, statement string) (value string, err error) {
	err = s.link.conn.QueryRowContext(ctx, statement).Scan(&value)
	return value, err
}

// Hang makes the next opening of the database last until the channel is closed,
// whatever its context says.
func Hang(s *Sink, until <-chan struct{}) {
	s.open = func(ctx context.Context, cfg Config) (*link, error) {
		<-until
		return connect(ctx, cfg)
	}
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
