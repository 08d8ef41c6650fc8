//go:build linux

package integration

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// sinksSite is a site whose trail goes to ten sinks.
func sinksSite(t *testing.T, fsync string) (*site, []place) {
	t.Helper()
	list, redisURL := sinkPlaces(t, privateDir(t))
	s := startSite(t, siteConfig{
		NoAudit: true,
		Global: `
		redis {$MOAT_REDIS}
		audit {
			journal {$MOAT_JOURNAL} {
				fsync ` + fsync + `
			}
			sink stdout
` + sinkLines(list) + `
		}`,
	}, map[string]string{"MOAT_REDIS": redisURL})
	return s, list
}

// steady sends requests at a steady rate and times each, by phase.
type steady struct {
	group sync.WaitGroup
	end   atomic.Bool
	phase atomic.Int64

	mu    sync.Mutex
	times map[int64][]time.Duration
	wrong []string
}

// startSteady begins with so many clients that each send about so many requests
// in a second.
func startSteady(s *site, clients, rate int, user string) *steady {
	load := &steady{times: make(map[int64][]time.Duration)}
	for n := range clients {
		load.group.Go(func() {
			tick := time.NewTicker(time.Second / time.Duration(rate))
			defer tick.Stop()
			for i := 0; !load.end.Load(); i++ {
				path, want := "/me", 200
				if i%50 == 0 {
					path, want = fmt.Sprintf("/nowhere/%d/%d", n, i), 403
				}
				phase, begin := load.phase.Load(), time.Now()
				a, err := s.web.try("GET", path, "", user)
				took := time.Since(begin)
				load.mu.Lock()
				load.times[phase] = append(load.times[phase], took)
				if err != nil || a.Status != want {
					load.wrong = append(load.wrong, fmt.Sprintf("%s: %d, %v", path, a.Status, err))
				}
				load.mu.Unlock()
				<-tick.C
			}
		})
	}
	return load
}

func (l *steady) stop() {
	l.end.Store(true)
	l.group.Wait()
}

// answered is how many requests have come back.
func (l *steady) answered() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, times := range l.times {
		n += len(times)
	}
	return n
}

// quantile is the time within which so much of a phase's requests were answered.
func (l *steady) quantile(phase int64, q float64) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	times := slices.Clone(l.times[phase])
	if len(times) == 0 {
		return 0
	}
	slices.Sort(times)
	return times[min(len(times)-1, int(q*float64(len(times))))]
}

// TestTenSinksThatFailLoseNothingAndSlowNobody runs ten sinks on one journal under
// load, lets all that can fail in each way, and then counts.
func TestTenSinksThatFailLoseNothingAndSlowNobody(t *testing.T) {
	t.Parallel()
	s, list := sinksSite(t, "20ms")
	load := startSteady(s, 4, 25, bearer(s.Issuer.as(t, "u-1", "user")))
	defer load.stop()
	time.Sleep(time.Second)
	var names []string
	for _, f := range []fault{refusing, slow, hanging, refusing, healthy} {
		load.phase.Add(1)
		names = append(names, f.String())
		for _, p := range list {
			if p.set != nil {
				p.set(f)
			}
		}
		time.Sleep(1500 * time.Millisecond)
	}
	load.phase.Store(-1)
	// One sink that hangs holds up no other.
	list[2].set(hanging)
	time.Sleep(500 * time.Millisecond)
	awaitPlaces(t, s, slices.Delete(slices.Clone(list), 2, 3), 60*time.Second)
	list[2].set(healthy)
	load.stop()
	want := awaitPlaces(t, s, list, 90*time.Second)
	for _, p := range list {
		checkPlace(t, p, want)
	}
	var printed []string
	for line := range strings.Lines(s.stdout.String()) {
		if strings.HasPrefix(line, `{"timestamp"`) {
			printed = append(printed, idOf([]byte(line)))
		}
	}
	checkPlace(t, place{name: "stdout", ids: func(testing.TB) []string { return printed }}, want)
	if len(load.wrong) > 0 {
		t.Errorf("%d requests went wrong: %s", len(load.wrong), load.wrong[0])
	}
	t.Logf("before: p50 %s, p99 %s", load.quantile(0, 0.5), load.quantile(0, 0.99))
	for n, name := range names {
		phase := int64(n + 1)
		t.Logf("sinks %s: p50 %s, p99 %s of %d requests", name, load.quantile(phase, 0.5), load.quantile(phase, 0.99), len(load.times[phase]))
		// Not a measurement, only far from the second that a sink waits.
		if slowest := load.quantile(phase, 0.99); slowest > time.Second {
			t.Errorf("sinks %s: p99 %s", name, slowest)
		}
	}
}

// killedSinks kills a gateway in the middle of deliveries, over and over.
func killedSinks(t *testing.T, rounds int) {
	t.Helper()
	s, list := sinksSite(t, "20ms")
	for round := range rounds {
		load := startSteady(s, 4, 100, bearer(s.Issuer.as(t, "u-1", "user")))
		time.Sleep(300*time.Millisecond + time.Duration(round%10)*37*time.Millisecond)
		await(t, startBudget, "requests to be answered", func() bool { return load.answered() >= 40 })
		s.kill()
		load.stop()
		s.gateway = startIn(t, s.home, []string{s.Addr}, "--config", s.File, "--adapter", "caddyfile")
		s.web.CloseIdleConnections()
	}
	want := awaitPlaces(t, s, list, 90*time.Second)
	for _, p := range list {
		checkPlace(t, p, want)
	}
	if len(want) < 30*rounds {
		t.Errorf("only %d events in %d rounds", len(want), rounds)
	}
}

func TestAGatewayKilledWhileItDeliversLosesNothing(t *testing.T) {
	t.Parallel()
	killedSinks(t, 3)
}
