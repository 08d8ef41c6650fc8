package redisstream_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/moat-gateway/moat/internal/audit/follow"
	"github.com/moat-gateway/moat/internal/audit/sinks/redisstream"
	"github.com/moat-gateway/moat/internal/audit/sinktest"
)

var server *sinktest.Redis

func TestMain(m *testing.M) {
	var err error
	if server, err = sinktest.StartRedis(); err != nil {
		log.Fatal(err)
	}
	code := m.Run()
	if err := server.Stop(); err != nil {
		log.Print(err)
	}
	os.Exit(code)
}

func connect(t *testing.T, socket string, edit func(*redis.Options)) *redis.Client {
	t.Helper()
	o := &redis.Options{
		Network: "unix", Addr: socket, ContextTimeoutEnabled: true, MaxRetries: -1,
		DialTimeout: 200 * time.Millisecond, DialerRetries: 1, PoolTimeout: 200 * time.Millisecond,
		// Short on purpose: the sink brings its own.
		ReadTimeout: 20 * time.Millisecond, WriteTimeout: 20 * time.Millisecond,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	if edit != nil {
		edit(o)
	}
	client := redis.NewClient(o)
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "moat-x")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

var keys atomic.Int64

// key returns a key prefix of the test's own.
func key() string { return fmt.Sprintf("moat:audit%d", keys.Add(1)) }

// held returns the events of the stream, and their ids.
func held(t *testing.T, stream string) (events, ids []string) {
	t.Helper()
	entries, err := connect(t, server.Socket, func(o *redis.Options) { o.ReadTimeout = 10 * time.Second }).
		XRange(context.Background(), stream, "-", "+").Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if len(e.Values) != 1 {
			t.Errorf("entry %s has %d fields", e.ID, len(e.Values))
		}
		event, _ := e.Values["event"].(string)
		events, ids = append(events, event), append(ids, e.ID)
	}
	return events, ids
}

func TestSuite(t *testing.T) {
	sinktest.Run(t, func(t *testing.T) sinktest.Harness {
		socket, prefix := filepath.Join(shortDir(t), "p.sock"), key()
		proxy := sinktest.StartProxy(t, socket, server.Socket)
		return sinktest.Harness{
			Once: true,
			Open: func(t *testing.T) follow.Sink {
				s, err := redisstream.New(connect(t, socket, nil), redisstream.Config{Key: prefix})
				if err != nil {
					t.Fatal(err)
				}
				return s
			},
			Received: func(t *testing.T) []string {
				events, _ := held(t, prefix+":gw-test")
				return events
			},
			Fault: proxy.Set,
		}
	})
}

func open(t *testing.T, prefix string) *redisstream.Sink {
	t.Helper()
	s, err := redisstream.New(connect(t, server.Socket, nil), redisstream.Config{Key: prefix})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func deliver(t *testing.T, s *redisstream.Sink, lines ...follow.Line) {
	t.Helper()
	if err := s.Deliver(t.Context(), lines); err != nil {
		t.Fatal(err)
	}
}

func TestEveryConfigErrorIsReportedAtOnce(t *testing.T) {
	_, err := redisstream.New(nil, redisstream.Config{Timeout: -1})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"key", "timeout -1ns", "client"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q: %v", want, err)
		}
	}
	if _, err := redisstream.New(nil, redisstream.Config{Key: strings.Repeat("k", 513)}); err == nil {
		t.Error("an endless key was accepted")
	}
}

func TestAClientThatIgnoresDeadlinesIsRefused(t *testing.T) {
	single := connect(t, server.Socket, func(o *redis.Options) { o.ContextTimeoutEnabled = false })
	cluster := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{"127.0.0.1:1"}})
	t.Cleanup(func() { _ = cluster.Close() })
	for name, client := range map[string]redis.UniversalClient{"single": single, "cluster": cluster} {
		if _, err := redisstream.New(client, redisstream.Config{Key: "k"}); err == nil || !strings.Contains(err.Error(), "ContextTimeoutEnabled") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEntriesCarryTheSequenceNumberAsID(t *testing.T) {
	prefix := key()
	s := open(t, prefix)
	deliver(t, s, sinktest.Lines(1, 3)...)
	deliver(t, s, sinktest.Lines(7, 7)...) // a gap is the journal's, not ours
	if _, ids := held(t, prefix+":gw-test"); !slices.Equal(ids, []string{"1-0", "2-0", "3-0", "7-0"}) {
		t.Errorf("ids = %q", ids)
	}
}

func TestEachInstanceHasItsStream(t *testing.T) {
	prefix := key()
	lines := sinktest.Lines(1, 4)
	lines[1].Instance, lines[2].Instance = "gw-b", "gw-b"
	deliver(t, open(t, prefix), lines...)
	for stream, want := range map[string][]string{":gw-test": {"1-0", "4-0"}, ":gw-b": {"2-0", "3-0"}} {
		if _, ids := held(t, prefix+stream); !slices.Equal(ids, want) {
			t.Errorf("%s: ids = %q, want %q", stream, ids, want)
		}
	}
}

func other(lines []follow.Line) []follow.Line {
	for i := range lines {
		lines[i].Raw = []byte(strings.Replace(string(lines[i].Raw), "u-", "other-", 1))
		lines[i].Epoch = "boot-2"
	}
	return lines
}

func TestAJournalThatNumbersAnewLosesNothing(t *testing.T) {
	for name, restart := range map[string]bool{"in the same process": false, "after a restart": true} {
		t.Run(name, func(t *testing.T) {
			prefix := key()
			s := open(t, prefix)
			deliver(t, s, sinktest.Lines(1, 5)...)
			if restart {
				s = open(t, prefix)
			}
			again := other(sinktest.Lines(4, 7))
			deliver(t, s, again...)
			deliver(t, open(t, prefix), again...) // the answer was lost
			deliver(t, s, other(sinktest.Lines(8, 8))...)
			events, ids := held(t, prefix+":gw-test")
			if want := []string{"1-0", "2-0", "3-0", "4-0", "5-0", "5-1", "5-2", "6-0", "7-0", "8-0"}; !slices.Equal(ids, want) {
				t.Fatalf("ids = %q, want %q", ids, want)
			}
			for i, line := range again {
				if events[5+i] != string(line.Raw) {
					t.Errorf("entry %s = %q", ids[5+i], events[5+i])
				}
			}
		})
	}
}

func TestAnotherWriterOnTheStreamCostsARetryAndNoLine(t *testing.T) {
	prefix := key()
	s := open(t, prefix)
	deliver(t, s, sinktest.Lines(1, 2)...)
	deliver(t, open(t, prefix), other(sinktest.Lines(3, 5))...)
	lines := sinktest.Lines(3, 4)
	if err := s.Deliver(t.Context(), lines); err == nil {
		t.Fatal("a refused entry counted as delivered")
	}
	deliver(t, s, lines...)
	events, ids := held(t, prefix+":gw-test")
	if want := []string{"1-0", "2-0", "3-0", "4-0", "5-0", "5-1", "5-2"}; !slices.Equal(ids, want) || events[6] != string(lines[1].Raw) {
		t.Errorf("ids = %q, last event %q", ids, events[len(events)-1])
	}
}

// memory limits what the server may use, until the test ends.
func memory(t *testing.T, admin *redis.Client, value int64) {
	t.Helper()
	if err := admin.ConfigSet(context.Background(), "maxmemory", fmt.Sprint(value)).Err(); err != nil {
		t.Fatal(err)
	}
}

func TestADeliveryIsTakenWholeOrNotAtAll(t *testing.T) {
	prefix, admin := key(), connect(t, server.Socket, nil)
	t.Cleanup(func() { memory(t, admin, 0) })
	s := open(t, prefix)
	deliver(t, s, sinktest.Line(1, 0))
	var lines []follow.Line
	for seq := range uint64(8) {
		lines = append(lines, sinktest.Line(seq+2, 64<<10))
	}
	for _, room := range []int64{-1 << 20, 64 << 10, 256 << 10, 512 << 10} {
		info, err := admin.InfoMap(t.Context(), "memory").Result()
		if err != nil {
			t.Fatal(err)
		}
		var used int64
		if _, err := fmt.Sscan(info["Memory"]["used_memory"], &used); err != nil {
			t.Fatal(err)
		}
		memory(t, admin, used+room)
		err = s.Deliver(t.Context(), lines)
		memory(t, admin, 0)
		if err == nil || !strings.Contains(err.Error(), "OOM") {
			t.Errorf("with room for %d: Deliver = %v", room, err)
		}
		if _, ids := held(t, prefix+":gw-test"); len(ids) != 1 {
			t.Fatalf("with room for %d: ids = %q", room, ids)
		}
	}
	deliver(t, s, lines...)
	if _, ids := held(t, prefix+":gw-test"); len(ids) != 9 {
		t.Errorf("ids = %q", ids)
	}
}

func TestADeliveryHasItsOwnBudgetAndNotTheClients(t *testing.T) {
	s := open(t, key()) // by a client that waits for 20 ms
	deliver(t, s, sinktest.Line(1, 0))
	if err := connect(t, server.Socket, nil).ClientPause(t.Context(), 200*time.Millisecond).Err(); err != nil {
		t.Fatal(err)
	}
	deliver(t, s, sinktest.Line(2, 0))
}

func TestAKeyOfAnotherKindIsAFailure(t *testing.T) {
	prefix := key()
	if err := connect(t, server.Socket, nil).Set(t.Context(), prefix+":gw-test", "x", 0).Err(); err != nil {
		t.Fatal(err)
	}
	err := open(t, prefix).Deliver(t.Context(), sinktest.Lines(1, 1))
	if err == nil || !strings.Contains(err.Error(), "WRONGTYPE") {
		t.Errorf("Deliver = %v", err)
	}
}

func TestErrorsCarryNoSecretAndNoGarbage(t *testing.T) {
	socket := filepath.Join(shortDir(t), "p.sock")
	proxy := sinktest.StartProxy(t, socket, server.Socket)
	for _, fault := range []sinktest.Fault{sinktest.Healthy, sinktest.Refuse, sinktest.HalfOpen, sinktest.Malformed} {
		proxy.Set(fault)
		client := connect(t, socket, func(o *redis.Options) { o.Username, o.Password = "moat", "planted-secret" })
		s, err := redisstream.New(client, redisstream.Config{Key: key(), Timeout: 200 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		err = s.Deliver(t.Context(), sinktest.Lines(1, 1))
		if err == nil || strings.Contains(err.Error(), "planted-secret") || strings.Contains(err.Error(), "~}|") || len(err.Error()) > 300 {
			t.Errorf("%s: %v", fault, err)
		}
		if fault == sinktest.HalfOpen && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v is no timeout", fault, err)
		}
	}
}

func BenchmarkDeliver(b *testing.B) {
	client := redis.NewClient(&redis.Options{Network: "unix", Addr: server.Socket, ContextTimeoutEnabled: true})
	b.Cleanup(func() { _ = client.Close() })
	s, err := redisstream.New(client, redisstream.Config{Key: key()})
	if err != nil {
		b.Fatal(err)
	}
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
