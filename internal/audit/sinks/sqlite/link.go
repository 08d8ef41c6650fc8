package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"modernc.org/sqlite"
)

// maxLog is what remains of the write-ahead log, in bytes, once its content is in
// the database. A reader that takes its time can make it grow beyond.
const maxLog = 64 << 20

// errMoved is the failure of a delivery that found another file than the one it
// had opened.
const errMoved = plain("the database was removed or replaced: it is opened anew")

// suffixes name the files of a database in use.
var suffixes = [...]string{"", "-wal", "-shm"}

// link is a connection to the database.
type link struct {
	path  string
	db    *sql.DB
	conn  *sql.Conn
	files [len(suffixes)]os.FileInfo
}

// connect opens the database within ctx and sees to the table. The link lives on
// after ctx.
func connect(ctx context.Context, cfg Config) (*link, error) {
	path, err := filepath.Abs(cfg.Path)
	if err != nil {
		return nil, err
	}
	if err := makeFile(path); err != nil {
		return nil, err
	}
	connector, err := sqlite.NewConnector(address(path))
	if err != nil {
		return nil, err
	}
	l := &link{path: path, db: sql.OpenDB(connector)}
	l.db.SetMaxOpenConns(1)
	if err := l.prepare(ctx, cfg); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// address makes SQLite open what is there and create nothing, and begin every
// transaction with the lock it will need: one that takes it later cannot wait.
func address(path string) string {
	path = "/" + strings.TrimPrefix(filepath.ToSlash(path), "/") // before a drive's letter too
	return (&url.URL{Scheme: "file", Path: path, RawQuery: "mode=rw&_txlock=immediate"}).String()
}

// prepare touches nothing of a database that is not the sink's.
func (l *link) prepare(ctx context.Context, cfg Config) (err error) {
	if l.files[0], err = regular(l.path); err != nil {
		return err
	}
	if l.conn, err = l.db.Conn(ctx); err != nil {
		return err
	}
	if err := l.configure(ctx, cfg.Timeout); err != nil {
		return err
	}
	if err := l.migrate(ctx, cfg.Table); err != nil {
		return err
	}
	if err := l.useLog(ctx); err != nil {
		return err
	}
	return l.remember()
}

// configure sets what SQLite does not keep in the file. It gives up a lock a
// little before the budget ends, to have time to say so. The settings are made
// here and not by the address, because opening does not heed ctx.
func (l *link) configure(ctx context.Context, budget time.Duration) error {
	for _, setting := range []string{
		fmt.Sprintf("busy_timeout = %d", max(1, (budget*9/10).Milliseconds())),
		"synchronous = FULL",     // a commit is on disk when it returns
		"trusted_schema = OFF",   // nothing in the file may call more than plain functions
		"cell_size_check = ON",   // damage is noticed early
		"recursive_triggers = 0", // none of somebody's own runs away
		fmt.Sprintf("journal_size_limit = %d", maxLog),
	} {
		if _, err := l.conn.ExecContext(ctx, "PRAGMA "+setting); err != nil {
			return err
		}
	}
	return nil
}

// useLog turns the write-ahead log on, so that readers and the sink do not wait
// for each other, and reads once, so that its files are there.
func (l *link) useLog(ctx context.Context) error {
	var mode string
	if err := l.conn.QueryRowContext(ctx, "PRAGMA journal_mode = WAL").Scan(&mode); err != nil {
		return err
	}
	if mode != "wal" {
		return plain("the file system does not allow a write-ahead log: the database must be on a disk of this machine")
	}
	var tables int
	return l.conn.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema").Scan(&tables)
}

// remember notes which files were opened beside the database.
func (l *link) remember() error {
	for i, suffix := range suffixes[1:] {
		info, err := regular(l.path + suffix)
		if err != nil {
			return errMoved
		}
		l.files[1+i] = info
	}
	return nil
}

// intact reports whether the files that were opened still bear their names. What
// is written to others is lost when the last one closes them.
func (l *link) intact() bool {
	for i := range suffixes {
		if !l.bears(i) {
			return false
		}
	}
	return true
}

func (l *link) bears(i int) bool {
	info, err := os.Lstat(l.path + suffixes[i])
	return err == nil && os.SameFile(info, l.files[i])
}

// insert stores the rows in one transaction, and none of them when it fails.
func (l *link) insert(ctx context.Context, statement string, rows [][]any) error {
	tx, err := l.conn.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // there is nothing to undo after Commit
	insert, err := tx.PrepareContext(ctx, statement)
	if err != nil {
		return err
	}
	defer func() { _ = insert.Close() }()
	// The lock is held since the beginning, so no row waits for anything; a
	// context that can end would cost a goroutine for each. When ctx ends, the
	// transaction does.
	lasting := context.WithoutCancel(ctx)
	for _, row := range rows {
		if _, err := insert.ExecContext(lasting, row...); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// close ends the connection. SQLite then moves the log into the database, unless
// that no longer bears its name.
func (l *link) close() {
	if l.conn != nil {
		_ = l.conn.Close()
	}
	_ = l.db.Close()
}
