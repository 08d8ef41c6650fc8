//go:build linux

package integration

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// What a fault is measured with. The pace leaves most of a small machine idle, so
// that a latency is the gateway's and not the queue's in front of it.
const (
	faultClients  = 16
	faultPace     = 16 * time.Millisecond
	faultRequests = 3000 // of one client at most
	faultBefore   = time.Second
	faultDuring   = 3 * time.Second
	faultAfter    = 3 * time.Second
	// firstCalls is the part of a fault until the gateway knows of it.
	firstCalls = 300 * time.Millisecond
	// narrowUnits is the limit that has to hold while the store is away.
	narrowUnits = 20
)

const (
	// chargedBudget is when requests have to be charged in Redis again: two seconds
	// are promised, one is for the machine.
	chargedBudget = 3 * time.Second
	// faultPatience is how long a test waits at all.
	faultPatience = 9 * time.Second
)

// callBudget is what a call to Redis may take.
const callBudget = 50 * time.Millisecond

// faultGate has a limit that nobody reaches, one that is reached, and one that
// does not go without the store.
var faultGate = fmt.Sprintf(`limit wide 1000000/1h by ip
		limit narrow %d/24h by header:X-Key {
			on /narrow/**
		}
		limit hard 1000000/1h by ip {
			on /closed/**
			on_error closed
		}`, narrowUnits)

// storeFault is something that happens to Redis.
type storeFault struct {
	name  string
	begin func(testing.TB, *fragileRedis)
	end   func(testing.TB, *fragileRedis) // nil: it passes by itself
	// lasts is how long the fault is there; after that end is called.
	lasts time.Duration
	// harmless faults must not be noticed at all.
	harmless bool
	// forgets says that Redis comes back empty.
	forgets bool
}

func storeFaults() []storeFault {
	order := func(words ...string) func(testing.TB, *fragileRedis) {
		return func(t testing.TB, r *fragileRedis) { r.must(t, "+OK", words...) }
	}
	// Nothing listens there.
	nobody := func(t testing.TB, r *fragileRedis) {
		r.must(t, "+OK", "REPLICAOF", "127.0.0.1", strconv.Itoa(freePort(t)))
	}
	return []storeFault{
		{
			name: "Frozen", lasts: faultDuring,
			begin: func(t testing.TB, r *fragileRedis) { r.signal(t, syscall.SIGSTOP) },
			end:   func(t testing.TB, r *fragileRedis) { r.signal(t, syscall.SIGCONT) },
		},
		{
			name: "KilledAndEmpty", lasts: faultDuring, forgets: true,
			begin: func(_ testing.TB, r *fragileRedis) { r.kill() },
			end:   func(t testing.TB, r *fragileRedis) { r.start(t) },
		},
		{
			name: "OutOfMemory", lasts: faultDuring,
			begin: order("CONFIG", "SET", "maxmemory", "1"), end: order("CONFIG", "SET", "maxmemory", "0"),
		},
		{
			name: "ReadOnlyReplica", lasts: faultDuring,
			begin: nobody, end: order("REPLICAOF", "NO", "ONE"),
		},
		{
			name: "ScriptsForgotten", lasts: faultDuring, harmless: true,
			begin: order("SCRIPT", "FLUSH"), end: order("SCRIPT", "FLUSH"),
		},
		{
			name: "PausedForASecond", lasts: time.Second,
			begin: order("CLIENT", "PAUSE", "1000", "ALL"),
		},
	}
}

// fragileRedis is a Redis that can die and come back at the same address.
type fragileRedis struct {
	*redisServer
	dir  string
	port int
}

func startFragileRedis(t testing.TB) *fragileRedis {
	t.Helper()
	r := &fragileRedis{dir: privateDir(t), port: freePort(t)}
	r.start(t)
	return r
}

// start returns when the server answers. What an earlier one held is gone.
func (r *fragileRedis) start(t testing.TB) {
	t.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		t.Fatalf("redis-server is needed: %v", err)
	}
	socket := filepath.Join(r.dir, "redis.sock")
	p := startProcess(t, []string{"PATH=/usr/bin:/bin"}, path,
		"--bind", "127.0.0.1", "--port", strconv.Itoa(r.port), "--unixsocket", socket,
		"--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction", "--dir", r.dir)
	r.redisServer = &redisServer{process: p, URL: fmt.Sprintf("redis://127.0.0.1:%d/0", r.port), Socket: socket}
	await(t, startBudget, "redis-server", func() bool {
		if p.exited() {
			t.Fatalf("redis-server ended:\n%s", p.stdout.String())
		}
		reply, err := r.command("PING")
		return err == nil && reply == "+PONG"
	})
}

func (r *fragileRedis) must(t testing.TB, want string, words ...string) {
	t.Helper()
	if reply, err := r.command(words...); err != nil || !strings.HasPrefix(reply, want) {
		t.Fatalf("%s: %q, %v", strings.Join(words, " "), reply, err)
	}
}

// narrowKeys counts the callers that have used up something of the narrow limit:
// only its buckets take longer than ten minutes to fill up.
func (r *fragileRedis) narrowKeys() (int, error) {
	reply, err := r.command("EVAL", `"local n=0 for _,k in ipairs(redis.call('KEYS','moat:rl:*')) do `+
		`if redis.call('PTTL',k)>600000 then n=n+1 end end return n"`, "0")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimPrefix(reply, ":"))
}

// call is one request as its client saw it.
type call struct {
	begin, end time.Time
	answer     answer
	err        error
}

func timed(c *client, path string, header ...string) call {
	done := call{begin: time.Now()}
	done.answer, done.err = c.try("GET", path, "", header...)
	done.end = time.Now()
	return done
}

// keepAsking sends requests at a pace, by n clients at once, until stop is closed. It
// returns what is to be called for the result after that.
func keepAsking(c *client, n int, pace time.Duration, path string, stop <-chan struct{}) func() []call {
	calls := make([][]call, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			for range faultRequests {
				calls[i] = append(calls[i], timed(c, path))
				select {
				case <-stop:
					return
				case <-time.After(pace):
				}
			}
		})
	}
	return func() []call {
		wg.Wait()
		return slices.Concat(calls...)
	}
}

// latencies are those of one part of a run.
type latencies struct {
	n             int
	p50, p99, max time.Duration
}

func measure(calls []call, in func(call) bool) latencies {
	var took []time.Duration
	for _, c := range calls {
		if in(c) {
			took = append(took, c.end.Sub(c.begin))
		}
	}
	if len(took) == 0 {
		return latencies{}
	}
	slices.Sort(took)
	return latencies{n: len(took), p50: took[len(took)/2], p99: took[len(took)*99/100], max: took[len(took)-1]}
}

func (l latencies) String() string {
	return fmt.Sprintf("%s/%s/%s", millis(l.p50), millis(l.p99), millis(l.max))
}

func millis(d time.Duration) string {
	return strconv.FormatFloat(float64(d.Microseconds())/1000, 'f', 1, 64)
}

// faultRow is one line of figures; times are in milliseconds. "closed" is how many
// of the requests that do not go without the store were refused.
const faultRow = "%-17s %-14s %-15s %-13s %-14s %7v %7v %9v %4v %9v %9v %10v %8v"

var faultHead = fmt.Sprintf(faultRow, "p50/p99/max:", "before", "first 300 ms", "open", "after", "+first", "+open",
	"requests", "5xx", "closed", "degraded", "recovered", "charged")

// faultRun is one fault in front of one gateway.
type faultRun struct {
	storeFault
	redis *fragileRedis
	site  *site

	// When what happened. The mode is known from the metric.
	loadAt, faultAt, degradedAt, endAt, backAt, recoveredAt, chargedAt time.Time

	spent, refused string // callers that are exhausted before
	open, closed   []call // what the two loads got
	// overrun says that a call took longer than its budget while Redis was well, as
	// on a machine that stands still. The gateway then rightly calls it away.
	overrun bool
}

func TestFaultsOfTheStoreUnderLoad(t *testing.T) {
	// Not parallel, neither among themselves: they measure.
	rows := []string{faultHead}
	for _, f := range storeFaults() {
		t.Run(f.name, func(t *testing.T) { rows = append(rows, runFault(t, f)) })
	}
	t.Logf("milliseconds at the client; the budget of a call is 50:\n%s", strings.Join(rows, "\n"))
}

func runFault(t *testing.T, f storeFault) string {
	r := &faultRun{storeFault: f, redis: startFragileRedis(t)}
	r.site = startSite(t, siteConfig{Global: redisBlock, Gate: faultGate, Rules: "\n* /** public", Metrics: freePort(t)},
		map[string]string{"MOAT_REDIS": r.redis.URL})
	r.prepare(t)
	stop := make(chan struct{})
	r.loadAt = time.Now()
	load := keepAsking(r.site.web, faultClients, faultPace, "/open/a", stop)
	closed := keepAsking(r.site.web, 1, 20*time.Millisecond, "/closed/a", stop)
	halt := sync.OnceFunc(func() { close(stop) })
	defer halt()
	time.Sleep(faultBefore)
	r.during(t)
	r.afterwards(t)
	time.Sleep(time.Until(r.backAt.Add(faultAfter)))
	halt()
	r.open, r.closed = load(), closed()
	for _, c := range slices.Concat(r.open, r.closed) {
		r.overrun = r.overrun || r.healthy(c) && c.end.Sub(c.begin) >= callBudget
	}
	if r.overrun {
		t.Logf("%s: calls took more than %s without the fault: what follows from that is not held against the gateway", f.name, callBudget)
	}
	r.checkAnswers(t)
	r.checkNotice(t)
	return r.figures(t)
}

// prepare exhausts two callers. One has had everything and was never refused: only
// a count that has learned from Redis can refuse it. The other was refused already.
func (r *faultRun) prepare(t testing.TB) {
	t.Helper()
	for range 50 {
		r.site.get(t, "/open/warm")
		r.site.get(t, "/closed/warm")
	}
	for n := 1; ; n++ {
		r.spent, r.refused = fmt.Sprint("spent-", n), fmt.Sprint("refused-", n)
		begin := time.Now()
		spent, refused := r.narrow(t, r.spent, narrowUnits), r.narrow(t, r.refused, narrowUnits+5)
		if spent == narrowUnits && refused == narrowUnits {
			return
		}
		// A machine that stands still makes a call fail and its unit a local one.
		if n == 3 || time.Since(begin) < callBudget {
			t.Fatalf("%d and %d requests passed before the fault, want %d", spent, refused, narrowUnits)
		}
	}
}

// narrow sends n requests of one caller and returns how many passed.
func (r *faultRun) narrow(t testing.TB, key string, n int) (passed int) {
	t.Helper()
	for range n {
		switch a := r.site.get(t, "/narrow/a", "X-Key: "+key); a.Status {
		case 200:
			passed++
		case 429:
		default:
			t.Errorf("%s: status %d, want 200 or 429\n%s", key, a.Status, a.Body)
		}
	}
	return passed
}

func (r *faultRun) wantNarrow(t testing.TB, key string, n, want int) {
	t.Helper()
	if got := r.narrow(t, key, n); got != want {
		t.Errorf("%s passed %d times, want %d", key, got, want)
	}
}

func (r *faultRun) gauge(t testing.TB) string {
	t.Helper()
	page := newClient(t, "http://127.0.0.1:"+portOf(r.site.Config.Metrics)).send(t, "GET", "/metrics", "")
	_, rest, found := strings.Cut(string(page.Body), "\nmoat_store_degraded ")
	if !found {
		t.Fatal("no moat_store_degraded")
	}
	value, _, _ := strings.Cut(rest, "\n")
	return value
}

func (r *faultRun) awaitGauge(t testing.TB, budget time.Duration, want string) time.Time {
	t.Helper()
	await(t, budget, "moat_store_degraded "+want, func() bool { return r.gauge(t) == want })
	return time.Now()
}

// during begins the fault and looks at the limits while it is there.
func (r *faultRun) during(t *testing.T) {
	r.awaitGauge(t, faultPatience, "0")
	r.faultAt = time.Now()
	r.begin(t, r.redis)
	if !r.harmless {
		r.degradedAt = r.awaitGauge(t, faultPatience, "1")
	}
	over := r.faultAt.Add(r.lasts)
	// A fault that passes by itself may be over sooner than a slow machine is done.
	if r.end != nil || time.Until(over) > r.lasts/2 {
		r.wantNarrow(t, r.spent, 5, 0)
		r.wantNarrow(t, r.refused, 5, 0)
		if got := r.narrow(t, "fresh", narrowUnits+5); got != narrowUnits && (r.end != nil || time.Now().Before(over)) {
			t.Errorf("a caller passed %d times during the fault, want %d", got, narrowUnits)
		}
	}
	time.Sleep(time.Until(over))
	if r.end == nil {
		r.endAt, r.backAt = over, time.Now()
		return
	}
	if !r.harmless {
		r.wantNarrow(t, "fresh", 3, 0)
		if got := r.gauge(t); got != "1" {
			t.Errorf("moat_store_degraded %s at the end of the fault, want 1", got)
		}
	}
	r.endAt = time.Now()
	r.end(t, r.redis)
	r.backAt = time.Now()
}

// afterwards waits for the shared count to rule again.
func (r *faultRun) afterwards(t *testing.T) {
	if !r.harmless {
		r.recoveredAt = r.awaitGauge(t, faultPatience, "0")
	}
	n := 0
	await(t, faultPatience, "requests to be charged in Redis", func() bool {
		n++
		had, err := r.redis.narrowKeys()
		if err != nil {
			return false
		}
		r.narrow(t, "again-"+strconv.Itoa(n), 1)
		has, err := r.redis.narrowKeys()
		return err == nil && has == had+1
	})
	r.chargedAt = time.Now()
	if !r.forgets {
		r.wantNarrow(t, r.spent, 3, 0)
	}
}

// healthy says that the fault had no part in the call, broken that the gateway knew
// of it all the time.
func (r *faultRun) healthy(c call) bool {
	return r.harmless || c.end.Before(r.faultAt) || c.begin.After(r.recoveredAt)
}

func (r *faultRun) broken(c call) bool {
	return !r.harmless && c.begin.After(r.degradedAt) && c.end.Before(r.endAt)
}

// checkAnswers looks at what the clients got.
func (r *faultRun) checkAnswers(t *testing.T) {
	for _, c := range r.open {
		if c.err != nil || c.answer.Status != 200 {
			t.Errorf("%s after the fault: status %d, %v, want 200\n%s", c.begin.Sub(r.faultAt), c.answer.Status, c.err, c.answer.Body)
			break
		}
	}
	refused := 0
	for _, c := range r.closed {
		since := c.begin.Sub(r.faultAt)
		if c.err != nil {
			t.Errorf("/closed %s after the fault: %v", since, c.err)
			continue
		}
		switch c.answer.Status {
		case 200:
			if r.broken(c) {
				t.Errorf("/closed %s after the fault: status 200, want 503", since)
			}
		case 503:
			refused++
			if r.healthy(c) && !r.overrun {
				t.Errorf("/closed %s after the fault: status 503 while the store is there", since)
			}
			wantProblem(t, c.answer, 503, "unavailable")
			if n, err := strconv.Atoi(c.answer.Header.Get("Retry-After")); err != nil || n < 1 {
				t.Errorf("/closed: Retry-After %q, want seconds", c.answer.Header.Get("Retry-After"))
			}
		default:
			t.Errorf("/closed %s after the fault: status %d\n%s", since, c.answer.Status, c.answer.Body)
		}
	}
	if !r.harmless && refused == 0 {
		t.Error("/closed was never refused")
	}
}

// checkNotice wants the fault told of once, everywhere.
func (r *faultRun) checkNotice(t *testing.T) {
	want := 1
	if r.harmless {
		want = 0
	}
	lines := map[string]string{
		"store.degraded":  "the shared limit store is away",
		"store.recovered": "the shared limit store is back",
	}
	// Requests are what finds a store that is back.
	await(t, faultPatience, "moat_store_degraded 0 at the end", func() bool {
		r.site.get(t, "/open/end")
		return r.gauge(t) == "0"
	})
	var told []event
	await(t, 10*time.Second, "the events", func() bool {
		told = storeEvents(t, r.site.journal())
		return len(told) >= 2*want && len(told)%2 == 0
	})
	for action, line := range lines {
		events := filterEvents(told, func(e event) bool { return e.Action == action && e.Class == "admin" })
		logged := strings.Count(r.site.Log(), line)
		if len(events) != logged {
			t.Errorf("%d events %s of class admin and %d log lines %q, want as many", len(events), action, logged, line)
		}
		if len(events) < want || len(events) > want && !r.overrun {
			t.Errorf("%d events %s of class admin, want %d", len(events), action, want)
		}
	}
	// Whatever the machine does: while the store is away nothing says that it is back.
	for _, e := range told {
		at, err := time.Parse(time.RFC3339Nano, e.Timestamp)
		if err != nil {
			t.Fatal(err)
		}
		if !r.harmless && e.Action == "store.recovered" && at.After(r.degradedAt) && at.Before(r.endAt) {
			t.Errorf("%s %s after the fault began, %s before it ended", e.Action, at.Sub(r.faultAt), r.endAt.Sub(at))
		}
	}
}

// storeEvents parses only the lines that are looked for: under load a journal is
// long.
func storeEvents(t testing.TB, dir string) []event {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	few := t.TempDir()
	var lines []byte
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(data) {
			if bytes.Contains(line, []byte(`"store.`)) {
				lines = append(lines, line...)
			}
		}
	}
	if err := os.WriteFile(filepath.Join(few, "few.jsonl"), lines, 0o600); err != nil {
		t.Fatal(err)
	}
	return readJournal(t, few)
}

// figures fails on gross latencies only: machines are shared.
func (r *faultRun) figures(t *testing.T) string {
	// Whoever was on the way when it happened counts as a first call.
	known := r.faultAt.Add(firstCalls)
	openFrom := known
	if r.degradedAt.After(known) {
		openFrom = r.degradedAt
	}
	healthyFrom := r.backAt
	if r.recoveredAt.After(healthyFrom) {
		healthyFrom = r.recoveredAt
	}
	// The first moments are those of new connections.
	before := measure(r.open, func(c call) bool {
		return c.begin.After(r.loadAt.Add(200*time.Millisecond)) && c.end.Before(r.faultAt)
	})
	first := measure(r.open, func(c call) bool { return !c.end.Before(r.faultAt) && c.begin.Before(known) })
	open := measure(r.open, func(c call) bool { return c.begin.After(openFrom) && c.end.Before(r.endAt) })
	after := measure(r.open, func(c call) bool { return c.begin.After(healthyFrom) })
	for name, p := range map[string]latencies{"before": before, "first": first, "open": open, "after": after} {
		if p.n == 0 {
			t.Errorf("no requests in the phase %q", name)
		}
	}
	if took := r.chargedAt.Sub(r.backAt); took > chargedBudget && !r.overrun {
		t.Errorf("requests were charged in Redis again after %s, want %s at most", took, chargedBudget)
	}
	addedFirst, addedOpen := first.p99-before.p99, open.p99-before.p99
	if addedFirst > 500*time.Millisecond && !r.overrun {
		t.Errorf("the first calls took %s longer at the 99th percentile", addedFirst)
	}
	if addedOpen > 50*time.Millisecond && !r.overrun {
		t.Errorf("calls took %s longer at the 99th percentile while the gateway knew", addedOpen)
	}
	degraded, recovered := "-", "-"
	if !r.harmless {
		degraded, recovered = millis(r.degradedAt.Sub(r.faultAt)), millis(r.recoveredAt.Sub(r.backAt))
	}
	return fmt.Sprintf(faultRow, r.name, before, first, open, after, millis(addedFirst), millis(addedOpen),
		len(r.open), failed(r.open), fmt.Sprintf("%d/%d", failed(r.closed), len(r.closed)),
		degraded, recovered, millis(r.chargedAt.Sub(r.backAt)))
}

func failed(calls []call) (n int) {
	for _, c := range calls {
		if c.answer.Status >= 500 {
			n++
		}
	}
	return n
}
