//go:build linux

package integration

import (
	"context"
	"database/sql"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	_ "modernc.org/sqlite" // the driver

	"github.com/moat-gateway/moat/internal/audit/sinktest"
)

// place is somewhere that events go.
type place struct {
	name string
	// sink is its lines in the audit block.
	sink string
	// set makes it misbehave. Nil: it cannot.
	set func(fault)
	// ids are the events it holds, in the order in which it holds them.
	ids func(t testing.TB) []string
}

// sinkPlaces are ten sinks of nine kinds with real servers, except that Kafka is
// kfake, the in-process broker of its client library.
func sinkPlaces(t testing.TB, dir string) (list []place, redisURL string) {
	t.Helper()
	streams, redisURL := redisPlace(t)
	hook, hooked := receiveWebhooks(t)
	second, secondTook := receiveWebhooks(t)
	logs, logged := receiveOTLP(t)
	syslog, authority, spoken := receiveSyslog(t)
	broker, consumed := kafkaBroker(t)
	return []place{
		{name: "file", sink: "sink file " + filepath.Join(dir, "copy", "audit.jsonl") + " {\nroll_size 1MiB\nroll_keep 100\n}",
			ids: func(t testing.TB) []string { return fileIDs(t, filepath.Join(dir, "copy")) }},
		streams,
		{name: "webhook", sink: "sink webhook http://127.0.0.1:" + port(hook) + "/a {\nsecret " + strings.Repeat("s", 32) + "\ntimeout 1s\n}",
			set: hook.set, ids: ledgered(hooked)},
		{name: "webhook ocsf", sink: "sink webhook http://127.0.0.1:" + port(second) + "/b {\nsecret " + strings.Repeat("s", 32) + "\nformat ocsf\ntimeout 1s\n}",
			set: second.set, ids: ledgered(secondTook)},
		postgresPlace(t),
		sqlitePlace(t, filepath.Join(dir, "audit.db")),
		{name: "kafka cloudevents", sink: "sink kafka audit 127.0.0.1:" + port(broker) + " {\ninsecure_plaintext\nformat cloudevents\ntimeout 2s\n}",
			set: broker.set, ids: ledgered(consumed)},
		{name: "syslog", sink: "sink syslog 127.0.0.1:" + port(syslog) + " {\nca " + authority + "\ntimeout 1s\n}",
			set: syslog.set, ids: ledgered(spoken)},
		{name: "otlp ecs", sink: "sink otlp http://127.0.0.1:" + port(logs) + "/v1/logs {\nformat ecs\ntimeout 1s\n}",
			set: logs.set, ids: ledgered(logged)},
	}, redisURL
}

// sinkLines are the sinks of the places as they stand in an audit block.
func sinkLines(list []place) string {
	var lines []string
	for _, p := range list {
		lines = append(lines, p.sink)
	}
	return strings.Join(lines, "\n")
}

func ledgered(l *ledger) func(testing.TB) []string {
	return func(testing.TB) []string { return l.list() }
}

// fileIDs reads a file and what was rotated away from it, oldest first.
func fileIDs(t testing.TB, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(files) // "audit-…" before "audit."
	var ids []string
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(raw)) {
			if strings.HasSuffix(line, "}\n") {
				ids = append(ids, idOf([]byte(line)))
			}
		}
	}
	return ids
}

// redisPlace is a real redis-server that keeps its streams over a restart.
func redisPlace(t testing.TB) (place, string) {
	t.Helper()
	dir, number := privateDir(t), freePort(t)
	socket := filepath.Join(dir, "redis.sock")
	client := redis.NewClient(&redis.Options{Network: "unix", Addr: socket})
	t.Cleanup(func() { _ = client.Close() })
	var running *process
	start := func() {
		running = startProcess(t, []string{"PATH=/usr/bin:/bin"}, "/usr/bin/redis-server", "--bind", "127.0.0.1", "--port", fmt.Sprint(number),
			"--unixsocket", socket, "--save", "", "--appendonly", "yes", "--appendfsync", "always", "--dir", dir)
		await(t, startBudget, "redis-server", func() bool { return client.Ping(t.Context()).Err() == nil })
	}
	start()
	p := place{name: "redis_stream", sink: "sink redis_stream moat:audit {\ntimeout 1s\n}"}
	p.set = func(f fault) {
		running.signal(t, syscall.SIGCONT)
		switch f {
		case hanging:
			running.signal(t, syscall.SIGSTOP)
		case refusing:
			running.kill()
			start() // a restart: what it took is still there
		case healthy, slow:
		}
	}
	p.ids = func(t testing.TB) []string {
		t.Helper()
		var ids []string
		keys, err := client.Keys(t.Context(), "moat:audit:*").Result()
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range keys {
			entries, err := client.XRange(t.Context(), key, "-", "+").Result()
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				text, _ := e.Values["event"].(string)
				ids = append(ids, idOf([]byte(text)))
			}
		}
		return ids
	}
	return p, fmt.Sprintf("redis://127.0.0.1:%d/0", number)
}

// postgresPlace is a real PostgreSQL, restarted when it is to refuse, and with its
// table locked when it is to hang.
func postgresPlace(t testing.TB) place {
	t.Helper()
	server, err := sinktest.StartPostgres()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Stop() })
	var lock *pgx.Conn
	dsn := "host=" + server.Dir + " user=" + server.User + " dbname=postgres"
	return place{
		name: "postgres", sink: `sink postgres "` + dsn + "\" {\ntimeout 2s\n}",
		set: func(f fault) {
			if lock != nil {
				_ = lock.Close(context.Background())
				lock = nil
			}
			var err error
			switch f {
			case refusing:
				server.Halt()
				err = server.Start()
			case hanging:
				if lock, err = pgx.Connect(context.Background(), dsn); err == nil {
					_, err = lock.Exec(context.Background(), "BEGIN; LOCK TABLE moat_audit IN SHARE MODE")
				}
			case healthy, slow:
			}
			if err != nil {
				t.Error(err)
			}
		},
		ids: func(t testing.TB) []string {
			t.Helper()
			conn, err := pgx.Connect(t.Context(), dsn)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
			rows, err := conn.Query(t.Context(), "SELECT line FROM moat_audit ORDER BY seq, epoch")
			if err != nil {
				return nil // the table is made by the first delivery
			}
			lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
			if err != nil {
				return nil
			}
			return idsOf(lines)
		},
	}
}

// sqlitePlace locks the database against the gateway.
func sqlitePlace(t testing.TB, file string) place {
	t.Helper()
	var lock *sql.Conn
	open := func() *sql.DB {
		db, err := sql.Open("sqlite", "file:"+file+"?_pragma=busy_timeout(20000)")
		if err != nil {
			t.Fatal(err)
		}
		return db
	}
	return place{
		name: "sqlite", sink: "sink sqlite " + file + " {\ntimeout 1s\n}",
		set: func(f fault) {
			if lock != nil {
				_, _ = lock.ExecContext(context.Background(), "ROLLBACK")
				_ = lock.Close()
				lock = nil
			}
			if f != hanging && f != refusing {
				return
			}
			db := open()
			t.Cleanup(func() { _ = db.Close() })
			var err error
			if lock, err = db.Conn(context.Background()); err == nil {
				_, err = lock.ExecContext(context.Background(), "BEGIN IMMEDIATE")
			}
			if err != nil {
				t.Error(err)
			}
		},
		ids: func(t testing.TB) []string {
			t.Helper()
			db := open()
			defer func() { _ = db.Close() }()
			rows, err := db.QueryContext(t.Context(), "SELECT line FROM moat_audit ORDER BY seq, epoch")
			if err != nil {
				return nil // the table is made by the first delivery
			}
			defer func() { _ = rows.Close() }()
			var lines []string
			for rows.Next() {
				var line string
				if err := rows.Scan(&line); err != nil {
					t.Fatal(err)
				}
				lines = append(lines, line)
			}
			if err := rows.Err(); err != nil {
				t.Fatal(err)
			}
			return idsOf(lines)
		},
	}
}

func idsOf(lines []string) []string {
	ids := make([]string, len(lines))
	for i, line := range lines {
		ids[i] = idOf([]byte(line))
	}
	return ids
}

// kafkaBroker is kfake with a topic audit of three partitions, and what a consumer
// of it got.
func kafkaBroker(t testing.TB) (*moody, *ledger) {
	t.Helper()
	l, book := listenMoody(t), new(ledger)
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(3, "audit"),
		kfake.ListenFn(func(string, string) (net.Listener, error) { return l, nil }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.set(healthy); cluster.Close() })
	consumer, err := kgo.NewClient(kgo.SeedBrokers(l.Addr().String()), kgo.ConsumeTopics("audit"),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(100*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			consumer.PollFetches(ctx).EachRecord(func(r *kgo.Record) { book.add(idOf(r.Value)) })
		}
	}()
	t.Cleanup(func() { l.set(healthy); cancel(); <-done; consumer.Close() })
	return l, book
}

// checkPlace wants every event of the journal at the place, and in its order when
// repetitions are left out.
func checkPlace(t testing.TB, p place, want []string) {
	t.Helper()
	got := p.ids(t)
	seen := make(map[string]bool, len(got))
	var once []string
	for _, id := range got {
		if !seen[id] {
			seen[id] = true
			once = append(once, id)
		}
	}
	if slices.Equal(once, want) {
		t.Logf("%s: %d events, %d of them twice or more", p.name, len(once), len(got)-len(once))
		return
	}
	missing := 0
	for _, id := range want {
		if !seen[id] {
			missing++
		}
	}
	first := slices.IndexFunc(want, func(id string) bool { return !seen[id] })
	t.Errorf("%s: holds %d events, want %d; %d are missing, the first is number %d%s", p.name, len(once), len(want), missing, first+1, disorder(once, want))
}

func disorder(got, want []string) string {
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			return fmt.Sprintf("; number %d is another event", i+1)
		}
	}
	return ""
}

// awaitPlaces waits until all places hold as many events as the journal.
func awaitPlaces(t testing.TB, s *site, list []place, budget time.Duration) []string {
	t.Helper()
	var want []string
	deadline := time.Now().Add(budget)
	for {
		want = want[:0]
		for _, e := range readJournal(t, s.journal()) {
			want = append(want, idOf(e.Line))
		}
		behind := ""
		for _, p := range list {
			if !holds(p.ids(t), want) {
				behind = p.name
				break
			}
		}
		if behind == "" {
			return want
		}
		if time.Now().After(deadline) {
			for _, p := range list {
				checkPlace(t, p, want)
			}
			t.Fatalf("after %s %s is not level with the journal", budget, behind)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func holds(got, want []string) bool {
	set := make(map[string]bool, len(got))
	for _, id := range got {
		set[id] = true
	}
	return !slices.ContainsFunc(want, func(id string) bool { return !set[id] })
}
