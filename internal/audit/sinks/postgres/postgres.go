// Package postgres is the audit sink that inserts each line into a PostgreSQL
// table: the line as it stands, beside a few columns to search by. It knows
// follow's lines, the outer fields of an audit event and one table; it never
// changes or removes a row.
package postgres

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/moat-gateway/moat/internal/audit/follow"
)

// maxColumn bounds a searchable column, in bytes: an index entry has a largest
// size, and a longer value would make the row impossible. The line is whole.
const maxColumn = 256

// ErrClosed is returned by Deliver after Close.
var ErrClosed = errors.New("postgres: the sink is closed")

//go:embed schema.sql
var schema string

// Sink inserts lines into one table over one connection.
type Sink struct {
	config  *pgx.ConnConfig
	timeout time.Duration
	table   string // quoted
	create  string
	insert  string

	mu     sync.Mutex
	closed bool
	link   *link // nil while there is no connection
}

// New checks cfg and returns a sink that has not connected to anything yet.
func New(cfg Config) (*Sink, error) {
	cfg = cfg.withDefaults()
	config, err := cfg.parse()
	if err != nil {
		return nil, err
	}
	parts := strings.Split(cfg.Table, ".")
	table := pgx.Identifier(parts).Sanitize()
	return &Sink{
		config: config, timeout: cfg.Timeout, table: table,
		create: strings.NewReplacer("{table}", table, "{name}", parts[len(parts)-1]).Replace(schema),
		// No conflict target: naming one would need the right to SELECT.
		insert: "INSERT INTO " + table + " (instance, epoch, seq, ts, class, user_id, action, outcome, ip, request_id, line)" +
			" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT DO NOTHING",
	}, nil
}

// Name returns "postgres".
func (s *Sink) Name() string { return "postgres" }

// Close ends the sink and its connection.
func (s *Sink) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.link != nil {
		s.link.close()
		s.link = nil
	}
	return nil
}

// Deliver inserts the lines in one transaction. Rows that exist already stay
// as they are.
func (s *Sink) Deliver(ctx context.Context, lines []follow.Line) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	err := s.deliver(ctx, lines)
	if _, poison := errors.AsType[*follow.Poison](err); err == nil || poison {
		return err
	}
	if s.link != nil {
		s.link.sever()
		s.link = nil
	}
	return s.clean(ctx, err)
}

func (s *Sink) deliver(ctx context.Context, lines []follow.Line) error {
	batch := &pgx.Batch{}
	for i, line := range lines {
		row, err := rowOf(line)
		if err != nil {
			return &follow.Poison{Index: i, Err: fmt.Errorf("postgres: %w", err)}
		}
		batch.Queue(s.insert, row...)
	}
	if s.link == nil {
		if err := s.open(ctx); err != nil {
			return err
		}
	}
	return s.send(ctx, batch)
}

// open connects and sees to the table. A table that exists is left alone, so
// that a role without the right to create one will do.
func (s *Sink) open(ctx context.Context) error {
	l, err := connect(ctx, s.config)
	if err != nil {
		return err
	}
	s.link = l
	var exists bool
	if err := l.conn.QueryRow(ctx, "SELECT to_regclass($1) IS NOT NULL", s.table).Scan(&exists); err != nil || exists {
		return err
	}
	_, err = l.conn.PgConn().Exec(ctx, s.create).ReadAll()
	return err
}

// send inserts the rows in one implicit transaction.
func (s *Sink) send(ctx context.Context, batch *pgx.Batch) error {
	results := s.link.conn.SendBatch(ctx, batch)
	for i := range batch.Len() {
		if _, err := results.Exec(); err != nil {
			closeErr := results.Close() // the same error again, or why it could not end
			if poisonous(err) && !s.link.conn.IsClosed() {
				return &follow.Poison{Index: i, Err: s.clean(ctx, err)}
			}
			return errors.Join(err, closeErr)
		}
	}
	return results.Close()
}

// poisonous reports whether the server will never take the row: its data are
// wrong (class 22) or beyond a limit of the program (class 54).
func poisonous(err error) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (strings.HasPrefix(e.Code, "22") || strings.HasPrefix(e.Code, "54"))
}

// columns are the fields of an event that have columns of their own.
type columns struct {
	Timestamp string `json:"timestamp"`
	UserID    string `json:"userId"`
	Action    string `json:"action"`
	Outcome   string `json:"outcome"`
	IP        string `json:"ip"`
	RequestID string `json:"requestId"`
}

// rowOf returns the values of one row in the order of the insert statement.
func rowOf(line follow.Line) ([]any, error) {
	if line.Seq > math.MaxInt64 {
		return nil, errors.New("the sequence number does not fit the column")
	}
	for _, key := range []string{line.Instance, line.Epoch} {
		if key != column(key) {
			return nil, errors.New("the instance or epoch does not fit the column")
		}
	}
	var c columns
	// A field of another type stays empty, and the line is stored all the same.
	_ = json.Unmarshal(line.Raw, &c)
	var ts *time.Time
	if at, err := time.Parse(time.RFC3339Nano, c.Timestamp); err == nil {
		ts = &at
	}
	return []any{
		line.Instance, line.Epoch, int64(line.Seq), ts, column(line.Class), column(c.UserID), column(c.Action),
		column(c.Outcome), column(c.IP), column(c.RequestID), string(line.Raw),
	}, nil
}

// column makes a value fit: PostgreSQL knows no NUL in text, which JSON can
// spell, and no broken UTF-8.
func column(value string) string {
	value = strings.ToValidUTF8(strings.ReplaceAll(value, "\x00", "\uFFFD"), "\uFFFD")
	if len(value) <= maxColumn {
		return value
	}
	end := maxColumn
	for !utf8.RuneStart(value[end]) {
		end--
	}
	return value[:end]
}
