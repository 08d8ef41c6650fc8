//go:build linux

package integration

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"
)

// unstartable is a listener address of no machine here: the configuration
// provisions, and then an app fails to start.
const unstartable = "\tbind 203.0.113.1"

// failReloads gives the gateway configurations that cannot start. Apps start in
// random order, so that one of several finds the moat app started already.
func failReloads(t *testing.T, s *site, change func(*siteConfig)) {
	t.Helper()
	broken := s.Config
	broken.Site = unstartable
	change(&broken)
	for range 6 {
		if out, exit := s.Reload(t, broken.render(s.Issuer)); exit == 0 {
			t.Fatalf("the broken configuration was accepted\n%s", out)
		}
	}
}

func TestFailedReloadsDoNotSilenceTheLog(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{NoAudit: true}, nil)
	failReloads(t, s, func(*siteConfig) {})
	before := strings.Count(s.Log(), `"moat.audit"`) + strings.Count(s.Log(), "\tmoat.audit\t")
	for range 5 {
		s.get(t, "/me")
	}
	await(t, 10*time.Second, "five events in the log", func() bool {
		return strings.Count(s.Log(), `"moat.audit"`)+strings.Count(s.Log(), "\tmoat.audit\t") >= before+5
	})
}

func TestOnlyConfigurationsThatServeAreInTheTrail(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{}, nil)
	failReloads(t, s, func(*siteConfig) {})
	s.reload(t, func(c *siteConfig) { c.Headers = "headers api" })
	loaded := func() int {
		return len(filterEvents(readJournal(t, s.journal()), func(e event) bool { return e.Action == "config.loaded" }))
	}
	if n := loaded(); n != 2 {
		t.Errorf("%d times config.loaded, want one for the start and one for the good reload", n)
	}
	s.Stop(t)
	checkTrail(t, readJournal(t, s.journal()))
}

func TestTheRedisSinkMovesWithTheRedisBlock(t *testing.T) {
	t.Parallel()
	first, second := startRedis(t), startRedis(t)
	global := func(r *redisServer) string {
		return fmt.Sprintf(`
		redis %s
		audit {
			journal {$MOAT_JOURNAL} {
				fsync 10ms
			}
			sink redis_stream moat:audit
		}`, r.URL)
	}
	s := startSite(t, siteConfig{NoAudit: true, Global: global(first)}, nil)
	for range 5 {
		s.get(t, "/me")
	}
	awaitStream(t, s, first, 10*time.Second)
	s.reload(t, func(c *siteConfig) { c.Global = global(second) })
	events := readJournal(t, s.journal())
	s.get(t, "/me")
	key := "moat:audit:" + events[0].Instance
	await(t, 10*time.Second, "the other Redis to get the events", func() bool {
		return streamLength(t, second, key) >= 2 // config.loaded and the request.
	})
	// The last event of before may have come too late for the old sink.
	if n := streamLength(t, first, key); n >= len(events) {
		t.Errorf("the Redis of before holds %d entries, want fewer than %d", n, len(events))
	}
}

func streamLength(t *testing.T, redis *redisServer, key string) int {
	t.Helper()
	reply, err := redis.command("XLEN", key)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimPrefix(reply, ":"))
	if err != nil {
		t.Fatalf("XLEN: %s", reply)
	}
	return n
}

func TestAGoodRedisEndsTheDegradationByADeadOne(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	dead := fmt.Sprintf("\n\t\tredis redis://127.0.0.1:%d/0", freePort(t))
	s := startSite(t, siteConfig{Gate: "limit 500/24h by ip", Global: dead, Metrics: freePort(t)}, nil)
	metrics := newClient(t, "http://127.0.0.1:"+portOf(s.Config.Metrics))
	gauge := func(want string) {
		await(t, 10*time.Second, "moat_store_degraded "+want, func() bool {
			return strings.Contains(string(metrics.send(t, "GET", "/metrics", "").Body), "\nmoat_store_degraded "+want+"\n")
		})
	}
	logged := func(action string) {
		await(t, 10*time.Second, action, func() bool {
			return len(filterEvents(readJournal(t, s.journal()), func(e event) bool { return e.Action == action })) == 1
		})
	}
	gauge("0")
	for range 8 {
		s.get(t, "/open/a")
	}
	gauge("1")
	logged("store.degraded")
	s.reload(t, func(c *siteConfig) { c.Global = "\n\t\tredis " + redis.URL })
	gauge("0")
	logged("store.recovered")
}

func TestDeadSinksShareOneMomentAtTheEnd(t *testing.T) {
	t.Parallel()
	var sinks strings.Builder
	for range 4 {
		l, err := net.Listen("tcp", "127.0.0.1:0") // It accepts and never answers.
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		fmt.Fprintf(&sinks, "\t\t\tsink webhook http://%s/in {\n\t\t\t\tsecret %s\n\t\t\t}\n", l.Addr(), strings.Repeat("s", 32))
	}
	s := startSite(t, siteConfig{NoAudit: true, Global: fmt.Sprintf(`
		audit {
			journal {$MOAT_JOURNAL} {
				fsync 10ms
			}
			sink stdout
%s		}`, &sinks)}, nil)
	s.get(t, "/me")
	start := time.Now()
	s.Stop(t)
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("the gateway took %s to end: it waited for one dead sink after another", took)
	}
	if !strings.Contains(s.stdout.String(), `"action":"gateway.stop"`) {
		t.Error("the sink that is well did not get the last event")
	}
}

func TestAWarningIsToldOnce(t *testing.T) {
	t.Parallel()
	s := siteConfig{Upstream: "127.0.0.1:1", Port: freePort(t), Metrics: freePort(t), Global: `
		issuer two {
			iss https://b.test
			insecure_any_audience
			key /nowhere.pem
		}`}
	h := newHome(t, s.render(newIssuer(t)), nil)
	out, exit := h.validate(t)
	if exit == 0 {
		t.Fatal("the broken configuration is valid")
	}
	if n := strings.Count(out, "insecure_any_audience weakens"); n != 1 {
		t.Errorf("%d warnings, want 1:\n%s", n, out)
	}
}
