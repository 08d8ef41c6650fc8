package sqlite_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/audit/follow"
	"github.com/moat-gateway/moat/internal/audit/sinks/sqlite"
	"github.com/moat-gateway/moat/internal/audit/sinktest"
)

// place returns the path of a database of the test's own.
func place(t testing.TB) string { return filepath.Join(t.TempDir(), "audit.db") }

func open(t testing.TB, cfg sqlite.Config) *sqlite.Sink {
	t.Helper()
	s, err := sqlite.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func deliver(t testing.TB, s *sqlite.Sink, from, to uint64) {
	t.Helper()
	if err := s.Deliver(t.Context(), sinktest.Lines(from, to)); err != nil {
		t.Fatal(err)
	}
}

// wantFailure delivers and wants an error that says what is the matter.
func wantFailure(t *testing.T, s *sqlite.Sink, want string) {
	t.Helper()
	err := s.Deliver(t.Context(), sinktest.Lines(1, 3))
	if err == nil || !strings.HasPrefix(err.Error(), "sqlite: ") || !strings.Contains(err.Error(), want) || len(err.Error()) > 300 {
		t.Fatalf("Deliver = %v, want %q", err, want)
	}
}

// database is another program's connection to a file.
func database(t testing.TB, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: path}).String()+"?_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func exec(t testing.TB, path, statements string) {
	t.Helper()
	db := database(t, path)
	if _, err := db.ExecContext(context.Background(), statements); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

// column returns one column of all rows, as text, in the order of their arrival.
func column(t testing.TB, path, expression string) []string {
	t.Helper()
	return ask(t, path, "SELECT "+expression+" FROM moat_audit ORDER BY rowid")
}

func ask(t testing.TB, path, query string) []string {
	t.Helper()
	if info, err := os.Stat(path); err != nil || info.IsDir() {
		return nil
	}
	db := database(t, path)
	defer func() { _ = db.Close() }()
	rows, err := db.QueryContext(context.Background(), query)
	if err != nil {
		if strings.Contains(err.Error(), "no such table") {
			return nil
		}
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	var values []string
	for rows.Next() {
		var value sql.NullString
		if err := rows.Scan(&value); err != nil {
			t.Fatal(err)
		}
		values = append(values, value.String)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return values
}

func raws(from, to uint64) []string {
	var want []string
	for _, line := range sinktest.Lines(from, to) {
		want = append(want, string(line.Raw))
	}
	return want
}

func wantLines(t *testing.T, path string, want []string) {
	t.Helper()
	if got := column(t, path, "line"); !slices.Equal(got, want) {
		t.Errorf("the database holds %d lines, want %d: %.300q", len(got), len(want), got)
	}
}

func TestColumnsAreWhatTheLineSays(t *testing.T) {
	path := place(t)
	line := sinktest.Line(7, 0)
	line.Text = []byte(`{"format":"other"}`)
	s := open(t, sqlite.Config{Path: path})
	if s.Name() != "sqlite" {
		t.Errorf("Name = %q", s.Name())
	}
	if err := s.Deliver(t.Context(), []follow.Line{line}); err != nil {
		t.Fatal(err)
	}
	for expression, want := range map[string]string{
		"instance": "gw-test", "epoch": "boot-1", "seq": "7", "class": "access", "user_id": "u-7", "action": "http.request",
		"outcome": "allow", "ip": "203.0.113.7", "request_id": "r-7", "line": string(line.Raw), "typeof(line)": "text",
		"ts": "2026-01-02T03:04:05.000007Z", "datetime(ts)": "2026-01-02 03:04:05", "typeof(seq)": "integer",
	} {
		if got := column(t, path, expression); len(got) != 1 || got[0] != want {
			t.Errorf("%s = %q, want %q", expression, got, want)
		}
	}
}

func TestTimesSortAsText(t *testing.T) {
	path := place(t)
	var lines []follow.Line
	for i, at := range []string{
		"2026-01-02T03:04:05Z", "2026-01-02T03:04:05.1Z", "2026-01-02T05:04:05.25+02:00", "2026-01-02T03:04:05.999999999Z",
		"9999-12-31T23:59:59Z", "0000-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00", "yesterday",
	} {
		lines = append(lines, follow.Line{Seq: uint64(i) + 1, Instance: "gw", Raw: fmt.Appendf(nil, `{"timestamp":%q}`, at)})
	}
	if err := open(t, sqlite.Config{Path: path}).Deliver(t.Context(), lines); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"2026-01-02T03:04:05.000000Z", "2026-01-02T03:04:05.100000Z", "2026-01-02T03:04:05.250000Z", "2026-01-02T03:04:05.999999Z",
		"9999-12-31T23:59:59.000000Z", "", "", "",
	}
	if got := column(t, path, "ts"); !slices.Equal(got, want) {
		t.Errorf("ts = %q, want %q", got, want)
	}
}

func TestStrangeEventsAreStoredAllTheSame(t *testing.T) {
	path := place(t)
	var lines []follow.Line
	for i, raw := range []string{
		`{}`,
		`{"userId":"a\u0000b","action":"\ud800"}`,
		`{"userId":7,"action":["x"],"timestamp":5,"ip":null}`,
		`{"userId":"` + strings.Repeat("é", 9000) + `","ip":"` + strings.Repeat("x", 9000) + `"}`,
	} {
		lines = append(lines, follow.Line{Seq: uint64(i) + 1, Instance: "gw", Raw: []byte(raw)})
	}
	if err := open(t, sqlite.Config{Path: path}).Deliver(t.Context(), lines); err != nil {
		t.Fatal(err)
	}
	stored := column(t, path, "line")
	for i, line := range lines {
		if i >= len(stored) || stored[i] != string(line.Raw) {
			t.Fatalf("row %d differs: %.80q", i, stored)
		}
	}
	if users := column(t, path, "user_id"); users[1] != "a\uFFFDb" || users[3] != strings.Repeat("é", 128) {
		t.Errorf("user_id = %.300q", users)
	}
}

func TestARowThatCanNeverBeTakenIsNamed(t *testing.T) {
	path := place(t)
	s := open(t, sqlite.Config{Path: path})
	for what, spoil := range map[string]func(*follow.Line){
		"a number beyond the column": func(l *follow.Line) { l.Seq = 1 << 63 },
		"a huge instance":            func(l *follow.Line) { l.Instance = strings.Repeat("x", 300) },
		"NUL in the epoch":           func(l *follow.Line) { l.Epoch = "a\x00" },
		"NUL in the line":            func(l *follow.Line) { l.Raw = []byte("{\x00}") },
		"broken UTF-8 in the line":   func(l *follow.Line) { l.Raw = []byte("{\xff}") },
	} {
		lines := sinktest.Lines(1, 4)
		spoil(&lines[2])
		var poison *follow.Poison
		if err := s.Deliver(t.Context(), lines); !errors.As(err, &poison) || poison.Index != 2 {
			t.Errorf("%s: %v", what, err)
		}
		wantLines(t, path, nil)
	}
	deliver(t, s, 1, 4)
}

func TestAnotherEpochIsNoDuplicate(t *testing.T) {
	path := place(t)
	s := open(t, sqlite.Config{Path: path})
	again := sinktest.Lines(1, 2)
	for i := range again {
		again[i].Epoch = "boot-2"
	}
	for _, lines := range [][]follow.Line{sinktest.Lines(1, 2), again, again, nil} {
		if err := s.Deliver(t.Context(), lines); err != nil {
			t.Fatal(err)
		}
	}
	if got := column(t, path, "epoch || seq"); !slices.Equal(got, []string{"boot-11", "boot-12", "boot-21", "boot-22"}) {
		t.Errorf("rows = %q", got)
	}
}

func TestSearchesUseAnIndexAndNeedNoSorting(t *testing.T) {
	path := place(t)
	deliver(t, open(t, sqlite.Config{Path: path}), 1, 100)
	for _, row := range []struct{ where, want string }{
		{"user_id = 'u-7' ORDER BY ts", "moat_audit_user_ts_idx (user_id=?)"},
		{"user_id = 'u-7' AND ts >= '2026-01-02' AND ts < '2026-01-03' ORDER BY ts DESC", "moat_audit_user_ts_idx (user_id=? AND ts>? AND ts<?)"},
		{"action = 'http.request' AND ts >= '2026-01-02T03' ORDER BY ts", "moat_audit_action_ts_idx (action=? AND ts>?)"},
		{"ts >= '2026-01-02' AND ts < '2026-01-03' ORDER BY ts", "moat_audit_ts_idx (ts>? AND ts<?)"},
		{"instance = 'gw-test' AND epoch = 'boot-1' AND seq = 7", "sqlite_autoindex_moat_audit_1 (instance=? AND epoch=? AND seq=?)"},
	} {
		db := database(t, path)
		var id, parent, unused int
		var plan string
		err := db.QueryRowContext(t.Context(), "EXPLAIN QUERY PLAN SELECT line FROM moat_audit WHERE "+row.where).Scan(&id, &parent, &unused, &plan)
		if want := "SEARCH moat_audit USING INDEX " + row.want; err != nil || plan != want {
			t.Errorf("%s: %q, %v, want %q", row.where, plan, err, want)
		}
		var steps int
		_ = db.QueryRowContext(t.Context(), "SELECT count(*) FROM (SELECT line FROM moat_audit WHERE "+row.where+")").Scan(&steps)
		if steps == 0 {
			t.Errorf("%s: finds nothing", row.where)
		}
	}
}

func TestADeliveryIsOnDiskWhenItReturns(t *testing.T) {
	s := open(t, sqlite.Config{Path: place(t), Timeout: 2 * time.Second})
	deliver(t, s, 1, 1)
	for pragma, want := range map[string]string{
		"journal_mode": "wal", "synchronous": "2", "busy_timeout": "1800", "journal_size_limit": "67108864",
		"trusted_schema": "0", "cell_size_check": "1", "recursive_triggers": "0",
	} {
		if got, err := sqlite.Ask(t.Context(), s, "PRAGMA "+pragma); err != nil || got != want {
			t.Errorf("%s = %q, %v, want %q", pragma, got, err, want)
		}
	}
}

func TestFilesAreForTheGatewayOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	path := filepath.Join(dir, "audit.db")
	deliver(t, open(t, sqlite.Config{Path: path}), 1, 1)
	for name, want := range map[string]os.FileMode{path: 0o600, path + "-wal": 0o600, path + "-shm": 0o600, dir: 0o700, filepath.Dir(dir): 0o700} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
}

func TestOddPathsAreTakenLiterally(t *testing.T) {
	for _, name := range []string{"a%20b?mode=ro#c", "file:x.db", ":memory:", "é 1.db"} {
		path := filepath.Join(t.TempDir(), name)
		deliver(t, open(t, sqlite.Config{Path: path}), 1, 2)
		wantLines(t, path, raws(1, 2))
	}
}

func TestARelativePathIsTaken(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	deliver(t, open(t, sqlite.Config{Path: "audit.db"}), 1, 2)
	wantLines(t, filepath.Join(dir, "audit.db"), raws(1, 2))
}

func TestWhatIsNoFileIsRefused(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "target.db")
	if err := os.WriteFile(target, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, make := range map[string]func(path string) error{
		"a directory":     func(path string) error { return os.Mkdir(path, 0o700) },
		"a link":          func(path string) error { return os.Symlink(target, path) },
		"a dangling link": func(path string) error { return os.Symlink(filepath.Join(dir, "nowhere"), path) },
	} {
		path := filepath.Join(dir, name)
		if err := make(path); err != nil {
			t.Fatal(err)
		}
		wantFailure(t, open(t, sqlite.Config{Path: path}), "must be a file")
	}
	if info, err := os.Stat(target); err != nil || info.Size() != 0 {
		t.Errorf("the link was followed: %v, %v", info, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "nowhere")); err == nil {
		t.Error("the dangling link was followed")
	}
	wantFailure(t, open(t, sqlite.Config{Path: filepath.Join(target, "audit.db")}), "not a directory")
}

func TestAReaderSeesWholeDeliveriesAndHoldsNobodyUp(t *testing.T) {
	path := place(t)
	s := open(t, sqlite.Config{Path: path, Timeout: 2 * time.Second})
	deliver(t, s, 1, 10)
	// A search that takes its time, begun before the other deliveries.
	slow, err := database(t, path).BeginTx(t.Context(), &sql.TxOptions{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	var before int
	if err := slow.QueryRowContext(t.Context(), "SELECT count(*) FROM moat_audit").Scan(&before); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var reader sync.WaitGroup
	reader.Go(func() {
		db := database(t, path)
		for {
			var n int
			if err := db.QueryRowContext(context.Background(), "SELECT count(*) FROM moat_audit").Scan(&n); err != nil || n%10 != 0 {
				t.Errorf("a reader sees %d rows, %v", n, err)
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	for from := uint64(11); from <= 500; from += 10 {
		deliver(t, s, from, from+9)
	}
	close(stop)
	reader.Wait()
	var after int
	if err := slow.QueryRowContext(t.Context(), "SELECT count(*) FROM moat_audit").Scan(&after); err != nil || before != 10 || after != 10 {
		t.Errorf("one search sees %d, then %d, %v", before, after, err)
	}
	if err := slow.Rollback(); err != nil {
		t.Fatal(err)
	}
	wantLines(t, path, raws(1, 500))
}

func TestTwoSinksMayUseOneFile(t *testing.T) {
	path := place(t)
	var all sync.WaitGroup
	for part := range uint64(6) {
		s := open(t, sqlite.Config{Path: path})
		all.Go(func() {
			for i := range uint64(5) {
				err := errors.New("not delivered yet")
				// SQLite waits for most locks, but not for the one that turns the
				// write-ahead log of a new database on; the delivery comes again.
				for tries := 0; err != nil && tries < 10; tries++ {
					err = s.Deliver(t.Context(), sinktest.Lines(100*part+10*i+1, 100*part+10*i+10))
				}
				if err != nil {
					t.Error(err)
				}
			}
			_ = s.Close()
		})
	}
	all.Wait()
	if got := column(t, path, "line"); len(got) != 300 {
		t.Errorf("%d rows", len(got))
	}
}

func within(t *testing.T, what string, met func() bool) {
	t.Helper()
	deadline := time.After(5 * time.Second)
	for !met() {
		select {
		case <-deadline:
			t.Fatalf("not within five seconds: %s", what)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func TestNothingIsLeftRunning(t *testing.T) {
	before := runtime.NumGoroutine()
	s := open(t, sqlite.Config{Path: place(t)})
	deliver(t, s, 1, 10)
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := s.Deliver(t.Context(), sinktest.Lines(1, 1)); !errors.Is(err, sqlite.ErrClosed) {
		t.Errorf("Deliver after Close = %v", err)
	}
	within(t, "the end of all goroutines", func() bool { return runtime.NumGoroutine() <= before })
}

func BenchmarkDeliver(b *testing.B) {
	s := open(b, sqlite.Config{Path: place(b)})
	b.ReportAllocs()
	seq := uint64(1)
	for b.Loop() {
		b.StopTimer()
		lines := sinktest.Lines(seq, seq+255)
		b.StartTimer()
		if err := s.Deliver(b.Context(), lines); err != nil {
			b.Fatal(err)
		}
		seq += 256
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(seq), "ns/line")
}
