//go:build linux

package integration

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestSinksFollowTheJournal(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	s := startSite(t, siteConfig{
		NoAudit: true,
		Global: `
		redis {$MOAT_REDIS}
		audit {
			journal {$MOAT_JOURNAL} {
				fsync 10ms
			}
			sink stdout
			sink redis_stream moat:audit
		}`,
	}, map[string]string{"MOAT_REDIS": redis.URL})
	for range 5 {
		s.get(t, "/me")
	}
	awaitStream(t, s, redis, 10*time.Second)
	// A sink that is away slows no request and loses no event.
	redis.signal(t, syscall.SIGSTOP)
	start := time.Now()
	for range 5 {
		s.get(t, "/me")
	}
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("five requests took %s while the sink was frozen", took)
	}
	redis.signal(t, syscall.SIGCONT)
	awaitStream(t, s, redis, 60*time.Second)
	s.Stop(t)
	for _, e := range readJournal(t, s.journal()) {
		if e.Method != "" && !strings.Contains(s.stdout.String(), string(e.Line)+"\n") {
			t.Errorf("stdout has no line\n%s", e.Line)
		}
	}
}

// awaitStream waits until the stream holds an entry for every line of the journal.
func awaitStream(t *testing.T, s *site, redis *redisServer, budget time.Duration) {
	t.Helper()
	await(t, budget, "the stream to hold the journal", func() bool {
		events := readJournal(t, s.journal())
		if len(filterEvents(events, func(e event) bool { return e.Path == "/me" })) < 5 {
			return false
		}
		length, err := redis.command("XLEN", "moat:audit:"+events[0].Instance)
		return err == nil && length == fmt.Sprintf(":%d", len(events))
	})
}
