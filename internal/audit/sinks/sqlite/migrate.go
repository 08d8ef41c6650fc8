package sqlite

import (
	"context"
	"database/sql"
	_ "embed"
	"fmt"
	"strings"
)

// version is the layout that this program knows, kept in the database as its
// user_version. Zero is a database that nobody has laid out.
const version = 1

//go:embed schema.sql
var schema string

// shape is what the insert statement and the key against duplicates need of the
// table: the type of each column and its place in the primary key.
var shape = map[string]string{
	"instance": "TEXT 1", "epoch": "TEXT 2", "seq": "INTEGER 3", "ts": "TEXT 0", "class": "TEXT 0", "user_id": "TEXT 0",
	"action": "TEXT 0", "outcome": "TEXT 0", "ip": "TEXT 0", "request_id": "TEXT 0", "line": "TEXT 0",
}

// migrate brings the database to this program's layout, whole or not at all.
func (l *link) migrate(ctx context.Context, table string) error {
	tx, err := l.conn.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // there is nothing to undo after Commit
	// Waiting for the lock can take long. SQLite finds the log by its name, and
	// the one of another database would be spoilt.
	if !l.bears(0) {
		return errMoved
	}
	found, err := layout(ctx, tx)
	if err != nil {
		return err
	}
	exists, err := fits(ctx, tx, table)
	if err != nil {
		return err
	}
	if found == 0 && !exists {
		if err := vacant(ctx, tx); err != nil {
			return err
		}
	}
	if found == version && exists {
		return nil
	}
	create := strings.NewReplacer("{table}", quote(table), "{name}", table).Replace(schema)
	if _, err := tx.ExecContext(ctx, fmt.Sprintf("%s; PRAGMA user_version = %d", create, version)); err != nil {
		return err
	}
	return tx.Commit()
}

func quote(table string) string { return `"` + table + `"` }

// layout returns the database's version when this program knows it.
func layout(ctx context.Context, tx *sql.Tx) (int, error) {
	var found int
	if err := tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&found); err != nil {
		return 0, err
	}
	if found < 0 || found > version {
		return 0, plain(fmt.Sprintf("the database has layout %d, and this program knows up to %d: it was made by a newer or another program", found, version))
	}
	return found, nil
}

// fits reports whether the table exists. One of another shape is an error: its
// rows could be refused, or come twice.
func fits(ctx context.Context, tx *sql.Tx, table string) (bool, error) {
	found, err := shapeOf(ctx, tx, table)
	if err != nil || len(found) == 0 {
		return false, err
	}
	for name := range strings.SplitSeq(names, ", ") {
		if found[name] != shape[name] {
			return false, plain(fmt.Sprintf("table %q exists and has another shape: column %s is not as it must be", table, name))
		}
	}
	for name, is := range found {
		if shape[name] == "" && !strings.HasSuffix(is, " 0") {
			return false, plain(fmt.Sprintf("table %q exists and has another shape: column %.80q is in the primary key", table, name))
		}
	}
	return true, nil
}

func shapeOf(ctx context.Context, tx *sql.Tx, table string) (map[string]string, error) {
	rows, err := tx.QueryContext(ctx, "SELECT name, upper(type) || ' ' || pk FROM pragma_table_info(?)", table)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	found := map[string]string{}
	for rows.Next() {
		var name, is string
		if err := rows.Scan(&name, &is); err != nil {
			return nil, err
		}
		found[name] = is
	}
	return found, rows.Err()
}

// vacant fails when a database that was never laid out has content: its version
// is another program's to set, and so is the way it is written.
func vacant(ctx context.Context, tx *sql.Tx) error {
	var foreign int
	err := tx.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'").Scan(&foreign)
	if err == nil && foreign > 0 {
		return plain("the database belongs to another program: the sink needs a file of its own")
	}
	return err
}
