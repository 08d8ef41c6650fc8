package sqlite_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/internal/audit/sinks/sqlite"
)

// whole is the table as the sink makes it, by another hand.
const whole = `CREATE TABLE moat_audit (instance text, epoch text, seq integer, ts text, class text, user_id text, action text,
	outcome text, ip text, request_id text, line text, note text, PRIMARY KEY (instance, epoch, seq))`

func TestADatabaseThatIsNotTheSinksIsLeftAlone(t *testing.T) {
	for name, row := range map[string]struct{ make, want string }{
		"a newer layout":       {"PRAGMA user_version = 2", "layout 2"},
		"a negative layout":    {"PRAGMA user_version = -1", "layout -1"},
		"another program's":    {"CREATE TABLE cats (name)", "another program"},
		"a table of no key":    {"CREATE TABLE moat_audit (instance TEXT, epoch TEXT, seq INTEGER, line TEXT)", "another shape"},
		"a table without line": {strings.Replace(whole, "line text,", "", 1), "column line"},
		"a line of bytes":      {strings.Replace(whole, "line text", "line blob", 1), "column line"},
		"a wider key":          {strings.Replace(whole, "epoch, seq)", "epoch, seq, note)", 1), `column "note"`},
		"a narrower key":       {strings.Replace(whole, "(instance, epoch, seq)", "(instance, seq)", 1), "column epoch"},
		"a view":               {"CREATE TABLE a (x); CREATE VIEW moat_audit AS SELECT * FROM a", "another shape"},
		"ours, another shape":  {"PRAGMA user_version = 1; CREATE TABLE moat_audit (line TEXT)", "another shape"},
	} {
		t.Run(name, func(t *testing.T) {
			path := place(t)
			exec(t, path, row.make)
			before, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			wantFailure(t, open(t, sqlite.Config{Path: path}), row.want)
			if after, err := os.ReadFile(path); err != nil || !slices.Equal(before, after) {
				t.Errorf("the database was changed: %v", err)
			}
		})
	}
}

func TestADatabaseOfTheSinksIsUsed(t *testing.T) {
	for name, prepare := range map[string]string{
		"an empty file":                 "",
		"the table, made by hand":       whole,
		"another table beside":          "PRAGMA user_version = 1; CREATE TABLE notes (text)",
		"the table by hand and another": whole + "; CREATE TABLE notes (text)",
	} {
		t.Run(name, func(t *testing.T) {
			path := place(t)
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			exec(t, path, prepare)
			s := open(t, sqlite.Config{Path: path})
			deliver(t, s, 1, 3)
			_ = s.Close()
			deliver(t, open(t, sqlite.Config{Path: path}), 2, 4)
			wantLines(t, path, raws(1, 4))
			if got := ask(t, path, "PRAGMA user_version"); !slices.Equal(got, []string{"1"}) {
				t.Errorf("user_version = %q", got)
			}
			want := []string{"moat_audit_action_ts_idx", "moat_audit_ts_idx", "moat_audit_user_ts_idx"}
			if got := ask(t, path, "SELECT name FROM sqlite_schema WHERE type = 'index' AND sql NOT NULL ORDER BY 1"); !slices.Equal(got, want) {
				t.Errorf("indexes = %q", got)
			}
		})
	}
}

func TestTwoTablesMayStandInOneFile(t *testing.T) {
	path := place(t)
	deliver(t, open(t, sqlite.Config{Path: path, Table: "order"}), 1, 3)
	deliver(t, open(t, sqlite.Config{Path: path}), 4, 6)
	wantLines(t, path, raws(4, 6))
	if got := ask(t, path, `SELECT line FROM "order" ORDER BY rowid`); !slices.Equal(got, raws(1, 3)) {
		t.Errorf("the other table holds %.200q", got)
	}
}

func TestATableDroppedUnderneathIsMadeAgain(t *testing.T) {
	path := place(t)
	s := open(t, sqlite.Config{Path: path})
	deliver(t, s, 1, 1)
	exec(t, path, "DROP TABLE moat_audit")
	wantFailure(t, s, "no such table")
	deliver(t, s, 2, 3)
	wantLines(t, path, raws(2, 3))
}

func TestAnIndexThatSomebodyDroppedStaysAway(t *testing.T) {
	path := place(t)
	deliver(t, open(t, sqlite.Config{Path: path}), 1, 1)
	exec(t, path, "DROP INDEX moat_audit_ts_idx")
	deliver(t, open(t, sqlite.Config{Path: path}), 2, 2)
	if got := ask(t, path, "SELECT name FROM sqlite_schema WHERE name = 'moat_audit_ts_idx'"); len(got) != 0 {
		t.Error("the index is back")
	}
}
