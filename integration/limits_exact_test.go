//go:build linux

package integration

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// startFleet starts gateways that serve one site and share one Redis and one
// upstream.
func startFleet(t testing.TB, n int, redis *redisServer, c siteConfig) []*site {
	t.Helper()
	spy, i := startSpy(t), newIssuer(t)
	c.Upstream = spy.Addr
	var fleet []*site
	for range n {
		c.Port = freePort(t)
		s := &site{Issuer: i, Spy: spy, Config: c, Addr: fmt.Sprintf("127.0.0.1:%d", c.Port)}
		s.gateway = startMoat(t, c.render(i), options{Ready: []string{s.Addr}, Env: map[string]string{"MOAT_REDIS": redis.URL}})
		s.web = newClient(t, "http://"+s.Addr)
		fleet = append(fleet, s)
	}
	return fleet
}

func clientsOf(fleet []*site) []*client {
	var clients []*client
	for _, s := range fleet {
		clients = append(clients, s.web)
	}
	return clients
}

// wantPassed checks that of a flood exactly n passed and all others were refused.
func wantPassed(t *testing.T, what string, got *tally, sent, n int) {
	t.Helper()
	if len(got.errs) != 0 || got.counts[200] != n || got.counts[429] != sent-n {
		t.Errorf("%s: answers %v, errors %v; want %d times 200 and %d times 429", what, got.counts, got.errs, n, sent-n)
	}
}

// reply sends one inline command and returns every value of the whole reply, in
// order.
func (r *redisServer) reply(t testing.TB, words ...string) []string {
	t.Helper()
	conn, err := net.DialTimeout("unix", r.Socket, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(conn, "%s\r\n", strings.Join(words, " ")); err != nil {
		t.Fatal(err)
	}
	values, err := readReply(bufio.NewReader(conn))
	if err != nil {
		t.Fatalf("%v: %v", words, err)
	}
	return values
}

func readReply(br *bufio.Reader) ([]string, error) {
	line, err := br.ReadString('\n')
	if err != nil {
		return nil, err
	}
	kind, text := line[0], strings.TrimRight(line[1:], "\r\n")
	if kind == '-' {
		return nil, errors.New(text)
	}
	if kind != '$' && kind != '*' {
		return []string{text}, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return nil, err
	}
	if kind == '$' {
		data := make([]byte, n+2)
		_, err := io.ReadFull(br, data)
		return []string{string(data[:n])}, err
	}
	var values []string
	for range n {
		some, err := readReply(br)
		if err != nil {
			return nil, err
		}
		values = append(values, some...)
	}
	return values, nil
}

// calls is how often a command was called so far.
func (r *redisServer) calls(t testing.TB, command string) int {
	t.Helper()
	for _, line := range strings.Split(r.reply(t, "INFO", "commandstats")[0], "\r\n") {
		rest, found := strings.CutPrefix(line, "cmdstat_"+command+":calls=")
		if !found {
			continue
		}
		number, _, _ := strings.Cut(rest, ",")
		n, err := strconv.Atoi(number)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	return 0
}

// limitState is what the admin endpoint says of one bucket.
type limitState struct {
	Site         string   `json:"site"`
	Name         string   `json:"name"`
	By           []string `json:"by"`
	Limit        string   `json:"limit"`
	Subject      string   `json:"subject"`
	Remaining    int64    `json:"remaining"`
	RetryAfterMS int64    `json:"retryAfterMs"`
	ResetAfterMS int64    `json:"resetAfterMs"`
	Degraded     bool     `json:"degraded"`
}

// limits asks the admin endpoint itself, which is cheaper than a process.
func (g *gateway) limits(t testing.TB, what, name string, keys ...string) []limitState {
	t.Helper()
	socket := strings.TrimPrefix(g.adminAddress, "unix/")
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, "unix", socket)
	}}
	defer transport.CloseIdleConnections()
	question, err := json.Marshal(map[string]any{"name": name, "keys": keys})
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), "POST", "http://127.0.0.1/moat/limit/"+what, bytes.NewReader(question))
	if err != nil {
		t.Fatal(err)
	}
	res, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != 200 {
		t.Fatalf("%s %s %q: status %d, %v\n%s", what, name, keys, res.StatusCode, err, body)
	}
	var states struct{ Limits []limitState }
	if err := json.Unmarshal(body, &states); err != nil {
		t.Fatalf("%v\n%s", err, body)
	}
	return states.Limits
}

// remaining is what is left of a limit with one rate.
func (g *gateway) remaining(t testing.TB, name string, keys ...string) int64 {
	t.Helper()
	states := g.limits(t, "show", name, keys...)
	if len(states) != 1 {
		t.Fatalf("%s %q: %+v, want one state", name, keys, states)
	}
	return states[0].Remaining
}

// awaitRemaining waits for what is put right after an answer.
func (g *gateway) awaitRemaining(t testing.TB, want int64, name string, keys ...string) {
	t.Helper()
	last, deadline := int64(-1), time.Now().Add(10*time.Second)
	for time.Now().Before(deadline) {
		if last = g.remaining(t, name, keys...); last == want {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%s %q: %d remain, want %d", name, keys, last, want)
}

// TestLimitsAreExactOverThreeGateways has nobody get a unit twice however many ask
// at once. Each round is somebody else, because the gateways remember refusals.
func TestLimitsAreExactOverThreeGateways(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	fleet := startFleet(t, 3, redis, siteConfig{Global: patientRedis, Gate: "limit rounds 100/24h by header:X-Round {\n on /open/rounds\n}\n" +
		"limit addressed 100/24h by ip {\n on /open/addressed\n}"})
	clients := clientsOf(fleet)
	for round := range 10 {
		got := flood(600, clients, "GET", "/open/rounds", fmt.Sprintf("X-Round: %d", round))
		wantPassed(t, fmt.Sprintf("round %d", round), got, 600, 100)
	}
	for range 2 {
		wantPassed(t, "by address", flood(600, clients, "GET", "/open/addressed"), 600, 100)
		out, exit := fleet[0].moat(t, "limit", "reset", "addressed", "127.0.0.1", "--address", fleet[0].adminAddress)
		if exit != 0 {
			t.Fatalf("limit reset: exit %d\n%s", exit, out)
		}
		// The others hear of it through Redis.
		for _, s := range fleet {
			await(t, 5*time.Second, "a reset to be known", func() bool { return s.get(t, "/open/addressed").Status == 200 })
		}
		fleet[0].limits(t, "reset", "addressed", "127.0.0.1")
	}
	if n := len(fleet[0].Spy.requests()); n != 10*100+2*100+2*3 {
		t.Errorf("%d requests reached the upstream, want exactly %d", n, 10*100+2*100+2*3)
	}
}

// TestLimitsOfWrongLoginsHoldOverThreeGateways guesses passwords at all
// gateways at once: no guess may slip past between the question and the count.
func TestLimitsOfWrongLoginsHoldOverThreeGateways(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	fleet := startFleet(t, 3, redis, siteConfig{Global: patientRedis, Rules: publicRules,
		Gate: "limit login 5/24h by ip {\n on POST /auth/login\n count 401\n}"})
	spy := fleet[0].Spy
	var failing atomic.Bool
	spy.respond(func(recorded) []byte {
		if failing.Load() {
			return rawAnswer(401, "no")
		}
		return []byte(plainOK)
	})
	for n := range 21 {
		if a := fleet[n%3].send(t, "POST", "/auth/login", ""); a.Status != 200 {
			t.Fatalf("good login %d: status %d, want 200", n+1, a.Status)
		}
		// The unit comes back when the answer has ended, which the next may not overtake.
		fleet[n%3].awaitRemaining(t, 5, "login", "127.0.0.1")
	}
	failing.Store(true)
	before := len(spy.requests())
	got := flood(500, clientsOf(fleet), "POST", "/auth/login")
	if reached := len(spy.requests()) - before; reached != 5 || len(got.errs) != 0 || got.counts[401] != 5 || got.counts[429] != 495 {
		t.Errorf("%d reached the upstream, answers %v, errors %v; want exactly 5 and 495 times 429", reached, got.counts, got.errs)
	}
	failing.Store(false)
	for _, s := range fleet {
		wantProblem(t, s.send(t, "POST", "/auth/login", ""), 429, "rate-limited")
	}
}

// TestLimitsRefusedByOneChargeNoOther has two limits of different subjects in one
// stage: who is refused by one has used up nothing of the other.
func TestLimitsRefusedByOneChargeNoOther(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	fleet := startFleet(t, 3, redis, siteConfig{Global: patientRedis,
		Gate: "limit a 50/24h by ip\nlimit b 10/24h by header:X-Key"})
	clients := clientsOf(fleet)
	wantPassed(t, "one key", flood(600, clients, "GET", "/open/a", "X-Key: one"), 600, 10)
	if n := fleet[1].remaining(t, "a", "127.0.0.1"); n != 40 {
		t.Errorf("%d units of a remain, want 40: the refusals of b took some", n)
	}
	// Each with another key, so that only a can refuse.
	var got tally
	var wg sync.WaitGroup
	for n := range 600 {
		wg.Go(func() { got.add(clients[n%3].try("GET", "/open/a", "", fmt.Sprintf("X-Key: k-%d", n))) })
	}
	wg.Wait()
	wantPassed(t, "many keys", &got, 600, 40)
	// What a refuses takes nothing of b.
	wantPassed(t, "a is used up", flood(60, clients, "GET", "/open/a", "X-Key: fresh"), 60, 0)
	if n := fleet[2].remaining(t, "b", "fresh"); n != 10 {
		t.Errorf("%d units of b remain, want all 10", n)
	}
	fleet[0].limits(t, "reset", "a", "127.0.0.1")
	for _, s := range fleet {
		await(t, 5*time.Second, "the reset to be known", func() bool {
			return s.get(t, "/open/a", "X-Key: probe-"+s.Addr).Status == 200
		})
	}
	wantPassed(t, "after the reset", flood(600, clients, "GET", "/open/a", "X-Key: fresh"), 600, 10)
	if n := fleet[0].remaining(t, "a", "127.0.0.1"); n != 50-3-10 {
		t.Errorf("%d units of a remain, want 37", n)
	}
}

// TestLimitsOfOneStageAreOneCall has policies of every kind in one stage, and a
// second stage: Redis is asked once for each.
func TestLimitsOfOneStageAreOneCall(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	s := startFleet(t, 1, redis, siteConfig{Global: patientRedis, Gate: "limit one 1000/24h by ip {\n on_error local\n}\n" +
		"limit two 1000/24h by header:X-Key {\n on_error open\n}\nlimit three 1000/1h 5000/24h by path {\n on_error closed\n}\n" +
		"limit four 1000/24h by ip {\n mode shadow\n}\nlimit five 1000/24h by user\nlimit six 1000/24h by tenant {\n on_error open\n}"})[0]
	s.get(t, "/open/a") // The script is not there yet.
	before := redis.calls(t, "evalsha")
	wantPassed(t, "strangers", flood(50, []*client{s.web}, "GET", "/open/a", "X-Key: k"), 50, 50)
	if n := redis.calls(t, "evalsha") - before; n != 50 {
		t.Errorf("%d calls for 50 requests, want 50", n)
	}
	before = redis.calls(t, "evalsha")
	token := bearer(s.Issuer.as(t, "u-1", "user"))
	wantPassed(t, "somebody", flood(50, []*client{s.web}, "GET", "/me", token), 50, 50)
	if n := redis.calls(t, "evalsha") - before; n != 100 {
		t.Errorf("%d calls for 50 requests in two stages, want 100", n)
	}
	if n := redis.calls(t, "eval"); n != 1 {
		t.Errorf("the script was sent %d times, want once", n)
	}
}

// TestLimitsRememberRefusals has somebody who is refused flood on: Redis is asked
// once in five seconds and not for each request.
func TestLimitsRememberRefusals(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	fleet := startFleet(t, 2, redis, siteConfig{Global: patientRedis, Gate: "limit 10/24h by ip"})
	wantPassed(t, "exhausting", flood(10, []*client{fleet[0].web}, "GET", "/open/a"), 10, 10)
	for n, s := range fleet {
		before := redis.calls(t, "evalsha")
		wantPassed(t, "the first of the flood", flood(100, []*client{s.web}, "GET", "/open/a"), 100, 0)
		t.Logf("gateway %d: %d calls for the first 100 refusals, which come before anything is known", n+1, redis.calls(t, "evalsha")-before)
		before, start := redis.calls(t, "evalsha"), time.Now()
		for range 20 {
			wantPassed(t, "the flood", flood(100, []*client{s.web}, "GET", "/open/a"), 100, 0)
		}
		took := time.Since(start)
		calls := redis.calls(t, "evalsha") - before
		t.Logf("gateway %d: %d calls for 2000 refusals in %s", n+1, calls, took.Round(time.Millisecond))
		if most := 1 + int(took.Seconds()/5); calls > most {
			t.Errorf("gateway %d: %d calls for 2000 refusals in %s, want at most %d", n+1, calls, took, most)
		}
	}
	a := fleet[1].get(t, "/open/a")
	// A remembered refusal says as much as one that was asked for.
	wantProblem(t, a, 429, "rate-limited")
	if a.Header.Get("RateLimit-Policy") != `"ip";q=10;w=86400` || !strings.HasPrefix(a.Header.Get("RateLimit"), `"ip";r=0;t=`) {
		t.Errorf("RateLimit-Policy %q, RateLimit %q", a.Header.Get("RateLimit-Policy"), a.Header.Get("RateLimit"))
	}
}

// TestLimitsChangedByAReload has counters go on at another rate: the part of the
// bucket that is used stays used, and what was remembered of refusals is dropped.
func TestLimitsChangedByAReload(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	for name, global := range map[string]string{"Redis": patientRedis, "memory": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			gate := func(n int) string {
				return fmt.Sprintf("limit plain %d/24h by header:X-Key {\n on /open/plain\n}\n"+
					"limit dear %d/24h by header:X-Key {\n cost 2\n on /open/dear\n}", n, n-1)
			}
			s := startFleet(t, 1, redis, siteConfig{Global: global, Gate: gate(4)})[0]
			pass := func(path, key string, sent, want int) {
				t.Helper()
				got := flood(sent, []*client{s.web}, "GET", path, "X-Key: "+key)
				wantPassed(t, key+" at "+s.Config.Gate, got, sent, want)
			}
			pass("/open/plain", "half", 2, 2)
			pass("/open/plain", "full", 10, 4)
			pass("/open/dear", "two of three", 5, 1)
			s.reload(t, func(c *siteConfig) { c.Gate = gate(8) })
			pass("/open/plain", "half", 20, 4)
			pass("/open/plain", "full", 10, 0)
			pass("/open/plain", "new", 20, 8)
			// Two thirds of 7 are used, which leaves 2 whole units: the refusal is over.
			pass("/open/dear", "two of three", 5, 1)
			s.reload(t, func(c *siteConfig) { c.Gate = gate(3) })
			for _, key := range []string{"half", "full", "new"} {
				pass("/open/plain", key, 3, 0)
			}
			pass("/open/plain", "late", 5, 3)
		})
	}
}

// TestLimitsChangedByAReloadFillAtTheNewPace has callers who used everything up
// before a reload and are refused after it: from the reload on their buckets fill as
// the new rate says, neither for hours as the old one did nor at once.
func TestLimitsChangedByAReloadFillAtTheNewPace(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	for name, global := range map[string]string{"Redis": patientRedis, "memory": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startFleet(t, 1, redis, siteConfig{Global: global, Gate: "limit raised 4/24h by ip {\n on /open/raised\n}\n" +
				"limit lowered 2/8s by ip {\n on /open/lowered\n}"})[0]
			s.passes(t, 6, "GET", "/open/raised")
			s.passes(t, 4, "GET", "/open/lowered")
			full := time.Now().Add(8500 * time.Millisecond)
			s.reload(t, func(c *siteConfig) {
				c.Gate = "limit raised 50/1s by ip {\n on /open/raised\n}\nlimit lowered 2/24h by ip {\n on /open/lowered\n}"
			})
			passed := s.passes(t, 1, "GET", "/open/lowered")
			raised, deadline := s.get(t, "/open/raised"), time.Now().Add(3*time.Second)
			for raised.Status == 429 && time.Now().Before(deadline) {
				time.Sleep(20 * time.Millisecond)
				raised = s.get(t, "/open/raised")
			}
			if raised.Status != 200 {
				t.Errorf("raised to 50 a second: still refused after 3s, with Retry-After %s", raised.Header.Get("Retry-After"))
			}
			time.Sleep(time.Until(full))
			// One may have come back before the reload.
			if passed += s.passes(t, 4, "GET", "/open/lowered"); passed > 1 {
				t.Errorf("lowered to 2 a day: %d passed in the seconds after, want 1 at most", passed)
			}
		})
	}
}
