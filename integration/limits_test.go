//go:build linux

package integration

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// redisBlock is the store with its defaults.
const redisBlock = "\n\t\tredis {$MOAT_REDIS}"

// patientRedis makes a limit that is exact or refuses: what a store that is too
// slow for its budget does is a test of its own.
const patientRedis = redisBlock + " {\n\t\t\ttimeout 5s\n\t\t\ton_error closed\n\t\t}"

// tally counts answers by status.
type tally struct {
	mu     sync.Mutex
	counts map[int]int
	errs   []error
}

func (c *tally) add(a answer, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.counts == nil {
		c.counts = map[int]int{}
	}
	if err != nil {
		c.errs = append(c.errs, err)
		return
	}
	c.counts[a.Status]++
}

// flood sends n requests at once, spread over the clients.
func flood(n int, clients []*client, method, path string, header ...string) *tally {
	var c tally
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-start
			c.add(clients[i%len(clients)].try(method, path, "", header...))
		})
	}
	close(start)
	wg.Wait()
	return &c
}

func TestTwoGatewaysShareOneLimit(t *testing.T) {
	t.Parallel()
	redis, spy, i := startRedis(t), startSpy(t), newIssuer(t)
	var clients []*client
	// One site, served by two gateways at two ports.
	for range 2 {
		port := freePort(t)
		c := siteConfig{Global: patientRedis, Gate: "limit 50/24h by ip", Upstream: spy.Addr, Port: port}
		addr := fmt.Sprintf("127.0.0.1:%d", port)
		startMoat(t, c.render(i), options{Ready: []string{addr}, Env: map[string]string{"MOAT_REDIS": redis.URL}})
		clients = append(clients, newClient(t, "http://"+addr))
	}
	got := flood(200, clients, "GET", "/open/a")
	if len(got.errs) != 0 || got.counts[200] != 50 || got.counts[429] != 150 {
		t.Errorf("answers %v, errors %v; want 50 times 200 and 150 times 429", got.counts, got.errs)
	}
	if n := len(spy.requests()); n != 50 {
		t.Errorf("%d requests reached the upstream, want exactly 50", n)
	}
	if size, err := redis.command("DBSIZE"); err != nil || size == ":0" {
		t.Errorf("DBSIZE %q, %v: the limit is not in Redis", size, err)
	}
}

func TestCountedStatusesOnly(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{
		Gate:  "limit login 5/24h by ip {\n on POST /auth/login\n count 401\n}",
		Rules: "\n* /** public",
	}, nil)
	var failing atomic.Bool
	s.Spy.respond(func(recorded) []byte {
		if failing.Load() {
			return rawAnswer(401, "no")
		}
		return []byte(plainOK)
	})
	clients := []*client{s.web}
	for n := range 12 {
		if a := s.send(t, "POST", "/auth/login", ""); a.Status != 200 {
			t.Fatalf("good login %d: status %d, want 200: it must not be counted", n+1, a.Status)
		}
	}
	failing.Store(true)
	before := len(s.Spy.requests())
	got := flood(60, clients, "POST", "/auth/login")
	if reached := len(s.Spy.requests()) - before; reached != 5 || got.counts[401] != 5 || got.counts[429] != 55 {
		t.Errorf("%d reached the upstream, answers %v, errors %v; want 5 and 55 times 429", reached, got.counts, got.errs)
	}
	wantProblem(t, s.send(t, "POST", "/auth/login", ""), 429, "rate-limited")
	if a := s.get(t, "/auth/login"); a.Status != 401 {
		t.Errorf("another method: status %d, want the upstream's 401", a.Status)
	}
}

func TestLimitsByIdentity(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{Gate: "limit 3/24h by user {\n tier admin 6/24h\n}"}, nil)
	for id, c := range map[string]struct {
		role string
		want int
	}{"u-1": {"user", 3}, "u-2": {"user", 3}, "a-1": {"admin", 6}} {
		token, passed := s.Issuer.as(t, id, c.role), 0
		for range 9 {
			switch a := s.get(t, "/me", bearer(token)); a.Status {
			case 200:
				passed++
			case 429:
				wantProblem(t, a, 429, "rate-limited")
			default:
				t.Fatalf("%s: status %d", id, a.Status)
			}
		}
		if passed != c.want {
			t.Errorf("%s with role %s passed %d times, want %d", id, c.role, passed, c.want)
		}
	}
	for n := range 9 {
		if a := s.get(t, "/open/a"); a.Status != 200 {
			t.Fatalf("anonymous request %d: status %d, want 200: they share no bucket", n+1, a.Status)
		}
	}
}

func TestDefaultLimit(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{Gate: "limit default"}, nil)
	got := flood(140, []*client{s.web}, "GET", "/open/a")
	// A hundred a minute refill one unit each 600 ms while the flood runs.
	if n := got.counts[200]; n < 100 || n > 130 || got.counts[200]+got.counts[429] != 140 {
		t.Errorf("answers %v, errors %v; want about 100 times 200, the rest 429", got.counts, got.errs)
	}
	a := s.get(t, "/open/a")
	for n := 0; a.Status == 200 && n < 60; n++ {
		a = s.get(t, "/open/a")
	}
	wantProblem(t, a, 429, "rate-limited")
	if !strings.Contains(string(a.Body), "Too many requests, please try again later") {
		t.Errorf("body %s, want the default message", a.Body)
	}
}

func TestFrozenRedisMeansLocalLimits(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	s := startSite(t, siteConfig{Global: redisBlock, Gate: "limit 8/24h by ip"}, map[string]string{"MOAT_REDIS": redis.URL})
	for n := range 2 {
		if a := s.get(t, "/open/a"); a.Status != 200 {
			t.Fatalf("request %d: status %d, want 200", n+1, a.Status)
		}
	}
	redis.signal(t, syscall.SIGSTOP)
	var got tally
	for range 30 {
		start := time.Now()
		got.add(s.web.try("GET", "/open/a", ""))
		if took := time.Since(start); took > 4*time.Second {
			t.Errorf("a request took %s while Redis was frozen", took)
		}
	}
	if len(got.errs) != 0 || got.counts[200]+got.counts[429] != 30 {
		t.Errorf("answers %v, errors %v; want nothing but 200 and 429", got.counts, got.errs)
	}
	if n := got.counts[200]; n < 1 || n > 8 {
		t.Errorf("%d requests passed while Redis was frozen, want 1 to 8", n)
	}
	degraded := func() bool {
		for _, e := range readJournal(t, s.journal()) {
			if e.Method == "" && strings.Contains(e.Action+e.Reason, "degraded") {
				return true
			}
		}
		return false
	}
	await(t, 5*time.Second, "an event that tells of the degraded mode", degraded)
	redis.signal(t, syscall.SIGCONT)
	await(t, 15*time.Second, "the shared count to rule again", func() bool {
		a, err := s.web.try("GET", "/open/a", "")
		return err == nil && (a.Status == 200 || a.Status == 429)
	})
}

// TestForgedAddressesShareOneBucket has one client name other addresses to get a
// bucket of its own.
func TestForgedAddressesShareOneBucket(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{Gate: "limit 3/24h by ip"}, nil)
	passed := 0
	for n := range 10 {
		a := s.get(t, "/open/a", fmt.Sprintf("X-Forwarded-For: 203.0.113.%d", n),
			fmt.Sprintf("X-Real-IP: 203.0.113.%d", n), fmt.Sprintf("Forwarded: for=203.0.113.%d", n))
		if a.Status == 200 {
			passed++
		}
	}
	if passed != 3 {
		t.Errorf("%d requests passed, want 3: an untrusted peer named its own address", passed)
	}
}
