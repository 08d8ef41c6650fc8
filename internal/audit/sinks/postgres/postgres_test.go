package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/moat-gateway/moat/internal/audit/follow"
	"github.com/moat-gateway/moat/internal/audit/sinks/postgres"
	"github.com/moat-gateway/moat/internal/audit/sinktest"
)

var server *sinktest.Postgres

func TestMain(m *testing.M) {
	var err error
	if server, err = sinktest.StartPostgres(); err != nil {
		log.Fatal(err)
	}
	code := m.Run()
	if err := server.Stop(); err != nil {
		log.Print(err)
	}
	os.Exit(code)
}

// dsn reaches the server through the socket in dir. The server asks for no
// password; one is sent to see whether it turns up anywhere.
func dsn(dir string) string {
	return fmt.Sprintf("host=%s user=postgres password=planted-secret dbname=postgres", dir)
}

var tables atomic.Int64

// table returns the name of a table of the test's own.
func table() string { return fmt.Sprintf("audit_%d", tables.Add(1)) }

func admin(t *testing.T) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(context.Background(), dsn(server.Dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func exec(t *testing.T, sql string) {
	t.Helper()
	if _, err := admin(t).PgConn().Exec(context.Background(), sql).ReadAll(); err != nil {
		t.Fatal(err)
	}
}

// column returns one column of all rows, as text.
func column(t *testing.T, table, expression string) []string {
	t.Helper()
	conn := admin(t)
	var exists bool
	if err := conn.QueryRow(context.Background(), "SELECT to_regclass($1) IS NOT NULL", table).Scan(&exists); err != nil {
		t.Fatal(err)
	}
	if !exists {
		return nil
	}
	rows, err := conn.Query(context.Background(), "SELECT "+expression+" FROM "+table+" ORDER BY epoch, seq")
	if err != nil {
		t.Fatal(err)
	}
	values, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return values
}

func open(t *testing.T, cfg postgres.Config) *postgres.Sink {
	t.Helper()
	if cfg.DSN == "" {
		cfg.DSN = dsn(server.Dir)
	}
	s, err := postgres.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func proxied(t *testing.T) (*sinktest.Proxy, string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "moat-x")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return sinktest.StartProxy(t, filepath.Join(dir, sinktest.PostgresSocket), filepath.Join(server.Dir, sinktest.PostgresSocket)), dir
}

func TestSuite(t *testing.T) {
	sinktest.Run(t, func(t *testing.T) sinktest.Harness {
		proxy, dir := proxied(t)
		name := table()
		return sinktest.Harness{
			Once: true, RawOnly: true,
			Open:     func(t *testing.T) follow.Sink { return open(t, postgres.Config{DSN: dsn(dir), Table: name}) },
			Received: func(t *testing.T) []string { return column(t, name, "line") },
			Fault:    proxy.Set,
		}
	})
}

func TestColumnsAreWhatTheLineSays(t *testing.T) {
	name := table()
	line := sinktest.Line(7, 0)
	if err := open(t, postgres.Config{Table: name}).Deliver(t.Context(), []follow.Line{line}); err != nil {
		t.Fatal(err)
	}
	for expression, want := range map[string]string{
		"instance": "gw-test", "epoch": "boot-1", "seq::text": "7", "class": "access", "user_id": "u-7", "action": "http.request",
		"outcome": "allow", "ip": "203.0.113.7", "request_id": "r-7", "line": string(line.Raw),
		"to_char(ts AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')": "2026-01-02 03:04:05.000007",
	} {
		if got := column(t, name, expression); len(got) != 1 || got[0] != want {
			t.Errorf("%s = %q, want %q", expression, got, want)
		}
	}
}

func TestStrangeEventsAreStoredAllTheSame(t *testing.T) {
	name := table()
	var lines []follow.Line
	for i, raw := range []string{
		`{}`,
		`{"userId":"a\u0000b","action":"\ud800"}`,
		`{"userId":7,"action":["x"],"timestamp":5,"ip":null}`,
		`{"timestamp":"0000-01-01T00:00:00Z"}`,
		`{"timestamp":"9999-12-31T23:59:59.999999Z"}`,
		`{"timestamp":"yesterday"}`,
		`{"userId":"` + strings.Repeat("é", 9000) + `","ip":"` + strings.Repeat("x", 9000) + `"}`,
	} {
		lines = append(lines, follow.Line{Seq: uint64(i) + 1, Instance: "gw", Raw: []byte(raw)})
	}
	if err := open(t, postgres.Config{Table: name}).Deliver(t.Context(), lines); err != nil {
		t.Fatal(err)
	}
	stored := column(t, name, "line")
	for i, line := range lines {
		if i >= len(stored) || stored[i] != string(line.Raw) {
			t.Fatalf("row %d differs: %.80q", i, stored)
		}
	}
	if users := column(t, name, "user_id"); users[1] != "a\uFFFDb" || users[6] != strings.Repeat("é", 128) {
		t.Errorf("user_id = %.300q", users)
	}
}

func TestARowThatCanNeverBeTakenIsNamed(t *testing.T) {
	name := table()
	s := open(t, postgres.Config{Table: name})
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
		if got := column(t, name, "line"); len(got) != 0 {
			t.Fatalf("%s: %d rows although the delivery failed", what, len(got))
		}
	}
	if err := s.Deliver(t.Context(), sinktest.Lines(1, 4)); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestAnotherEpochIsNoDuplicate(t *testing.T) {
	name := table()
	s := open(t, postgres.Config{Table: name})
	again := sinktest.Lines(1, 2)
	for i := range again {
		again[i].Epoch = "boot-2"
	}
	for _, lines := range [][]follow.Line{sinktest.Lines(1, 2), again, again} {
		if err := s.Deliver(t.Context(), lines); err != nil {
			t.Fatal(err)
		}
	}
	if got := column(t, name, "epoch || seq"); !slices.Equal(got, []string{"boot-11", "boot-12", "boot-21", "boot-22"}) {
		t.Errorf("rows = %q", got)
	}
}

func TestManyGatewaysMayCreateTheTableAtOnce(t *testing.T) {
	name := table()
	var all sync.WaitGroup
	for i := range 12 {
		s := open(t, postgres.Config{Table: name})
		all.Go(func() {
			line := sinktest.Line(uint64(i)+1, 0)
			if err := s.Deliver(t.Context(), []follow.Line{line}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if got := column(t, name, "line"); len(got) != 12 {
		t.Errorf("%d rows", len(got))
	}
	rows, err := admin(t).Query(t.Context(), "SELECT indexname FROM pg_indexes WHERE tablename = $1 ORDER BY 1", name)
	if err != nil {
		t.Fatal(err)
	}
	indexes, err := pgx.CollectRows(rows, pgx.RowTo[string])
	want := []string{name + "_action_ts_idx", name + "_pkey", name + "_ts_idx", name + "_user_ts_idx"}
	if err != nil || !slices.Equal(indexes, want) {
		t.Errorf("indexes = %q, %v, want %q", indexes, err, want)
	}
}

func TestTheTableIsMadeByOneGatewayAtATime(t *testing.T) {
	conn, name := admin(t), table()
	lock := func(call string) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), "SELECT "+call+"(7020082116463461740)"); err != nil {
			t.Fatal(err)
		}
	}
	lock("pg_advisory_lock")
	s := open(t, postgres.Config{Table: name, Timeout: time.Second})
	if err := s.Deliver(t.Context(), sinktest.Lines(1, 1)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Deliver = %v, although another one makes tables", err)
	}
	lock("pg_advisory_unlock")
	if err := s.Deliver(t.Context(), sinktest.Lines(1, 1)); err != nil {
		t.Error(err)
	}
}

func TestTheRightToInsertIsEnough(t *testing.T) {
	name := table()
	if err := open(t, postgres.Config{Table: name}).Deliver(t.Context(), sinktest.Lines(1, 1)); err != nil {
		t.Fatal(err)
	}
	exec(t, "CREATE ROLE writer_"+name+" LOGIN; GRANT INSERT ON "+name+" TO writer_"+name)
	s := open(t, postgres.Config{Table: name, DSN: fmt.Sprintf("host=%s user=writer_%s dbname=postgres", server.Dir, name)})
	for range 2 {
		if err := s.Deliver(t.Context(), sinktest.Lines(1, 3)); err != nil {
			t.Fatal(err)
		}
	}
	if got := column(t, name, "line"); len(got) != 3 {
		t.Errorf("%d rows", len(got))
	}
}

func TestWhatTheServerForbidsIsAFailureWithItsCode(t *testing.T) {
	odd, good, role := table(), table(), "nobody_"+table()
	if err := open(t, postgres.Config{Table: good}).Deliver(t.Context(), sinktest.Lines(1, 1)); err != nil {
		t.Fatal(err)
	}
	exec(t, "CREATE TABLE "+odd+" (line text); CREATE ROLE "+role+" LOGIN")
	for name, row := range map[string]struct{ user, table, code string }{
		"no right to insert":       {role, good, "42501"},
		"no right to create":       {role, table(), "42501"},
		"a table of another shape": {"postgres", odd, "42703"},
		"no such schema":           {"postgres", "nowhere.events", "3F000"},
		"no such role":             {"stranger", good, "28000"},
	} {
		s := open(t, postgres.Config{Table: row.table, DSN: fmt.Sprintf("host=%s user=%s dbname=postgres", server.Dir, row.user)})
		err := s.Deliver(t.Context(), sinktest.Lines(1, 1))
		if err == nil || !strings.Contains(err.Error(), "SQLSTATE "+row.code) {
			t.Errorf("%s: %v, want %s", name, err, row.code)
		}
	}
}

func TestATableDroppedUnderneathIsMadeAgain(t *testing.T) {
	name := table()
	s := open(t, postgres.Config{Table: name})
	if err := s.Deliver(t.Context(), sinktest.Lines(1, 1)); err != nil {
		t.Fatal(err)
	}
	exec(t, "DROP TABLE "+name)
	if err := s.Deliver(t.Context(), sinktest.Lines(2, 2)); err == nil {
		t.Error("delivered into nothing")
	}
	if err := s.Deliver(t.Context(), sinktest.Lines(2, 2)); err != nil {
		t.Error(err)
	}
}

func TestALockedTableCostsTheBudgetAndNoMore(t *testing.T) {
	name := table()
	s := open(t, postgres.Config{Table: name, Timeout: time.Second})
	if err := s.Deliver(t.Context(), sinktest.Lines(1, 1)); err != nil {
		t.Fatal(err)
	}
	tx, err := admin(t).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "LOCK TABLE "+name+" IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if err := s.Deliver(t.Context(), sinktest.Lines(2, 2)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Deliver = %v", err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("took %s", took)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Deliver(t.Context(), sinktest.Lines(2, 2)); err != nil {
		t.Error(err)
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

func TestErrorsCarryNoSecretAndNothingIsLeftRunning(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Run("faults", func(t *testing.T) {
		proxy, dir := proxied(t)
		s := open(t, postgres.Config{DSN: dsn(dir), Table: table(), Timeout: 1500 * time.Millisecond})
		for _, fault := range []sinktest.Fault{sinktest.HalfOpen, sinktest.Refuse, sinktest.Malformed} {
			for _, connected := range []bool{false, true} {
				proxy.Set(sinktest.Healthy)
				if connected {
					if err := s.Deliver(t.Context(), sinktest.Lines(1, 1)); err != nil {
						t.Fatal(err)
					}
				}
				proxy.Set(fault)
				err := s.Deliver(t.Context(), sinktest.Lines(2, 2))
				if err == nil || strings.Contains(err.Error(), "planted") || strings.Contains(err.Error(), "~}|") {
					t.Errorf("%s: %v", fault, err)
				}
				within(t, "the end of all connections", func() bool { return proxy.Connections() == 0 })
			}
		}
		missing := open(t, postgres.Config{DSN: dsn(dir + "/nowhere")})
		if err := missing.Deliver(t.Context(), sinktest.Lines(1, 1)); err == nil || !strings.Contains(err.Error(), "no such file") {
			t.Errorf("no server: %v", err)
		}
	})
	within(t, "the end of all goroutines", func() bool { return runtime.NumGoroutine() <= before })
}

func BenchmarkDeliver(b *testing.B) {
	s, err := postgres.New(postgres.Config{DSN: dsn(server.Dir), Table: table()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	b.ReportAllocs()
	seq := uint64(1)
	for b.Loop() {
		if err := s.Deliver(b.Context(), sinktest.Lines(seq, seq+255)); err != nil {
			b.Fatal(err)
		}
		seq += 256
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(seq), "ns/line")
}
