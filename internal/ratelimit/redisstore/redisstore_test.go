package redisstore_test

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/moat-gateway/moat/internal/ratelimit"
	"github.com/moat-gateway/moat/internal/ratelimit/redisstore"
	"github.com/moat-gateway/moat/internal/ratelimit/storetest"
	"github.com/moat-gateway/moat/internal/redisconn"
	"github.com/moat-gateway/moat/internal/redisconn/redistest"
)

// patient is a budget for tests that are not about time, on busy machines.
const patient = 5 * time.Second

var perMinute = ratelimit.Rate{N: 6, Window: time.Minute}

func newClient(tb testing.TB, url string, timeout time.Duration) redis.UniversalClient {
	tb.Helper()
	client, err := redisconn.New(redisconn.Options{URL: url, Timeout: timeout})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = client.Close() })
	return client
}

func newStore(tb testing.TB, client redis.UniversalClient, cfg redisstore.Config) *redisstore.Store {
	tb.Helper()
	if cfg.Timeout == 0 {
		cfg.Timeout = patient
	}
	s, err := redisstore.New(client, cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func one(limit, subject string, rate ratelimit.Rate, cost int64) []ratelimit.Request {
	return []ratelimit.Request{{Limit: limit, Subject: subject, Rate: rate, Cost: cost}}
}

func take(tb testing.TB, s ratelimit.Store, reqs []ratelimit.Request) []ratelimit.Result {
	tb.Helper()
	results, err := s.Take(context.Background(), reqs, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return results
}

// prefixes keeps the subtests of one server apart.
func prefixes() func() string {
	var n atomic.Int64
	return func() string { return "t" + strconv.FormatInt(n.Add(1), 10) + ":" }
}

func TestStoreKeepsTheContract(t *testing.T) {
	server := redistest.Start(t)
	client := newClient(t, server.URL(), patient)
	prefix := prefixes()
	storetest.Run(t, func(t *testing.T, clock *storetest.Clock) ratelimit.Store {
		return newStore(t, client, redisstore.Config{Prefix: prefix(), Now: clock.Now})
	})
}

// startCluster is a cluster of one node: it insists on slots like any other.
func startCluster(tb testing.TB) *redistest.Server {
	tb.Helper()
	server := redistest.StartTCP(tb, "--cluster-enabled", "yes", "--cluster-require-full-coverage", "no")
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	defer func() { _ = client.Close() }()
	if err := client.ClusterAddSlotsRange(context.Background(), 0, 16383).Err(); err != nil {
		tb.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		info, err := client.ClusterInfo(context.Background()).Result()
		if err == nil && strings.Contains(info, "cluster_state:ok") {
			return server
		}
		if time.Now().After(deadline) {
			tb.Fatalf("cluster is not up: %v\n%s", err, info)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func clusterURL(s *redistest.Server) string { return "redis+cluster://" + s.Addr() }

func TestStoreKeepsTheContractOnACluster(t *testing.T) {
	client := newClient(t, clusterURL(startCluster(t)), patient)
	prefix := prefixes()
	storetest.Run(t, func(t *testing.T, clock *storetest.Clock) ratelimit.Store {
		return newStore(t, client, redisstore.Config{Prefix: prefix(), Now: clock.Now})
	})
}

func TestTwoGatewaysAdmitTheLimitTogether(t *testing.T) {
	server := redistest.Start(t)
	gateways := []*redisstore.Store{
		newStore(t, newClient(t, server.URL(), patient), redisstore.Config{}),
		newStore(t, newClient(t, server.URL(), patient), redisstore.Config{}),
	}
	rate, err := ratelimit.ParseRate("50/24h")
	if err != nil {
		t.Fatal(err)
	}
	var admitted atomic.Int64
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			reqs := one("ip", "192.0.2.1", rate, 1)
			results, err := gateways[i%2].Take(context.Background(), reqs, nil)
			if err != nil {
				t.Error(err)
			}
			if ratelimit.Charged(reqs, results) {
				admitted.Add(1)
			}
		})
	}
	wg.Wait()
	if got := admitted.Load(); got != 50 {
		t.Fatalf("200 requests over two gateways: %d admitted, want 50", got)
	}
}

func TestTakeIsOneRoundTrip(t *testing.T) {
	server := redistest.Start(t)
	client := newClient(t, server.URL(), patient)
	s := newStore(t, client, redisstore.Config{})
	reqs := append(one("a", "x", perMinute, 1), one("b", "y", perMinute, 1)...)
	take(t, s, reqs) // loads the script
	var calls counter
	client.AddHook(&calls)
	take(t, s, reqs)
	if got := calls.names(); got != "evalsha" {
		t.Fatalf("commands sent: %q, want one evalsha", got)
	}
}

// counter records the commands a client sends.
type counter struct {
	mu   sync.Mutex
	sent []string
}

func (c *counter) DialHook(next redis.DialHook) redis.DialHook { return next }

func (c *counter) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (c *counter) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		c.mu.Lock()
		c.sent = append(c.sent, cmd.Name())
		c.mu.Unlock()
		return next(ctx, cmd)
	}
}

func (c *counter) names() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Join(c.sent, " ")
}

func TestScriptIsSentAgainWhenTheServerForgotIt(t *testing.T) {
	server := redistest.Start(t)
	client := newClient(t, server.URL(), patient)
	s := newStore(t, client, redisstore.Config{})
	take(t, s, one("a", "x", perMinute, 1))
	if err := client.ScriptFlush(context.Background()).Err(); err != nil {
		t.Fatal(err)
	}
	var calls counter
	client.AddHook(&calls)
	if r := take(t, s, one("a", "x", perMinute, 1))[0]; r.Remaining != 4 {
		t.Fatalf("%+v, want 4 left", r)
	}
	if got := calls.names(); got != "evalsha eval" {
		t.Fatalf("commands sent: %q, want evalsha and one eval", got)
	}
}

func TestSubjectsAreNeverSentInClear(t *testing.T) {
	server := redistest.Start(t)
	client := newClient(t, server.URL(), patient)
	s := newStore(t, client, redisstore.Config{})
	const secret = "someone@example.com"
	take(t, s, append(one("user", secret, perMinute, 1), one("pair", secret+"}{", perMinute, 1)...))
	keys, err := client.Keys(context.Background(), "*").Result()
	if err != nil || len(keys) != 2 {
		t.Fatalf("keys %v, error %v, want 2", keys, err)
	}
	for _, key := range keys {
		if strings.Contains(key, "someone") || strings.Contains(key, "example") {
			t.Errorf("key %q shows the subject", key)
		}
		tag := key[strings.IndexByte(key, '{')+1 : strings.IndexByte(key, '}')]
		if !strings.HasPrefix(key, "moat:rl:{") || len(tag) != 32 {
			t.Errorf("key %q: want moat:rl:{32 characters}:limit", key)
		}
	}
}

func TestErrorsShowNoSubject(t *testing.T) {
	server := redistest.Start(t)
	s := newStore(t, newClient(t, server.URL(), 50*time.Millisecond), redisstore.Config{})
	server.Kill()
	_, err := s.Take(context.Background(), one("user", "planted-secret", perMinute, 1), nil)
	if err == nil || strings.Contains(err.Error(), "planted-secret") {
		t.Fatalf("error %v", err)
	}
}

func TestKeysExpireWhenTheirBucketIsFull(t *testing.T) {
	server := redistest.Start(t)
	client := newClient(t, server.URL(), patient)
	s := newStore(t, client, redisstore.Config{})
	take(t, s, one("a", "x", perMinute, 3))
	key := onlyKey(t, client)
	ttl, err := client.PTTL(context.Background(), key).Result()
	if err != nil || ttl <= 25*time.Second || ttl > 30*time.Second+2*time.Millisecond {
		t.Fatalf("time to live %s, error %v, want about 30s", ttl, err)
	}
	// Given back to the full, nothing is left to remember.
	if err := s.Give(context.Background(), one("a", "x", perMinute, 3)); err != nil {
		t.Fatal(err)
	}
	if n, err := client.DBSize(context.Background()).Result(); err != nil || n != 0 {
		t.Fatalf("%d keys, error %v, want none", n, err)
	}
}

func onlyKey(t *testing.T, client redis.UniversalClient) string {
	t.Helper()
	keys, err := client.Keys(context.Background(), "*").Result()
	if err != nil || len(keys) != 1 {
		t.Fatalf("keys %v, error %v, want 1", keys, err)
	}
	return keys[0]
}

// The real clock, once: everything else runs on a clock of the test's.
func TestServerClockRefills(t *testing.T) {
	server := redistest.Start(t)
	s := newStore(t, newClient(t, server.URL(), patient), redisstore.Config{})
	rate := ratelimit.Rate{N: 1, Window: 30 * time.Millisecond}
	take(t, s, one("a", "x", rate, 1))
	for deadline := time.Now().Add(10 * time.Second); ; {
		if take(t, s, one("a", "x", rate, 1))[0].Allowed {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("30ms did not pass in 10s")
		}
	}
}

func TestForeignKeysAreLeftAlone(t *testing.T) {
	server := redistest.Start(t)
	client := newClient(t, server.URL(), patient)
	s := newStore(t, client, redisstore.Config{})
	ctx := context.Background()
	take(t, s, one("a", "x", perMinute, 1))
	key := onlyKey(t, client)
	for _, plant := range []func() error{
		func() error { return client.Set(ctx, key, "someone else's", 0).Err() },
		func() error { return client.Set(ctx, key, "1e9:60000000", 0).Err() },
		func() error { return client.Set(ctx, key, "nan:60000000", 0).Err() },
		func() error { return client.Set(ctx, key, "5", 0).Err() },
		func() error { return client.Del(ctx, key).Err() },
		func() error { return client.HSet(ctx, key, "f", "v").Err() },
	} {
		if err := plant(); err != nil {
			t.Fatal(err)
		}
		before, _ := client.Dump(ctx, key).Result()
		if before == "" {
			continue
		}
		reqs := append(one("b", "y", perMinute, 1), one("a", "x", perMinute, 1)...)
		if results, err := s.Take(ctx, reqs, nil); err == nil || ratelimit.Charged(reqs, results) {
			t.Errorf("results %v, error %v, want an error", results, err)
		}
		if err := s.Give(ctx, one("a", "x", perMinute, 1)); err == nil {
			t.Error("give: no error")
		}
		if after, _ := client.Dump(ctx, key).Result(); after != before {
			t.Error("the key was changed")
		}
		if r := take(t, s, one("b", "y", perMinute, 0))[0]; r.Remaining != 6 {
			t.Errorf("the other bucket was charged: %+v", r)
		}
	}
}

// On a cluster subjects are charged one after the other; what came before a
// failure has to be given back.
func TestClusterGivesBackWhenALaterSubjectFails(t *testing.T) {
	client := newClient(t, clusterURL(startCluster(t)), patient)
	s := newStore(t, client, redisstore.Config{})
	ctx := context.Background()
	take(t, s, one("b", "broken", perMinute, 1))
	key := onlyKey(t, client)
	if err := client.Set(ctx, key, "foreign", 0).Err(); err != nil {
		t.Fatal(err)
	}
	reqs := append(one("a", "x", perMinute, 2), one("b", "broken", perMinute, 1)...)
	reqs = append(reqs, one("c", "z", perMinute, 1)...)
	if results, err := s.Take(ctx, reqs, nil); err == nil {
		t.Fatalf("results %v, want an error", results)
	}
	for _, r := range take(t, s, append(one("a", "x", perMinute, 0), one("c", "z", perMinute, 0)...)) {
		if r.Remaining != 6 {
			t.Errorf("%+v, want 6 left", r)
		}
	}
	// Giving goes on after a failure, and tells of it.
	take(t, s, one("c", "z", perMinute, 1))
	if err := s.Give(ctx, reqs); err == nil {
		t.Error("give: no error")
	}
	if r := take(t, s, one("c", "z", perMinute, 0))[0]; r.Remaining != 6 {
		t.Errorf("%+v, want 6 left", r)
	}
}

func TestFullServerIsAnErrorAndChargesNothing(t *testing.T) {
	server := redistest.Start(t)
	client := newClient(t, server.URL(), patient)
	s := newStore(t, client, redisstore.Config{})
	ctx := context.Background()
	take(t, s, one("a", "x", perMinute, 1))
	if err := client.ConfigSet(ctx, "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	reqs := append(one("a", "x", perMinute, 1), one("b", "y", perMinute, 1)...)
	if results, err := s.Take(ctx, reqs, nil); err == nil {
		t.Fatalf("results %v from a server out of memory, want an error", results)
	}
	if err := client.ConfigSet(ctx, "maxmemory", "0").Err(); err != nil {
		t.Fatal(err)
	}
	if r := take(t, s, one("a", "x", perMinute, 0))[0]; r.Remaining != 5 {
		t.Fatalf("%+v, want 5 left", r)
	}
}

func TestUserNeedsOnlyTheRightsNamed(t *testing.T) {
	server := redistest.Start(t)
	admin := newClient(t, server.URL(), patient)
	ctx := context.Background()
	if err := admin.Do(ctx, "ACL", "SETUSER", "moat", "on", ">secret", "~moat:rl:*",
		"+evalsha", "+eval", "+time", "+get", "+set", "+del").Err(); err != nil {
		t.Fatal(err)
	}
	client, err := redisconn.New(redisconn.Options{
		URL: server.URL(), Username: "moat", Password: "secret", Timeout: patient,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	s := newStore(t, client, redisstore.Config{})
	take(t, s, one("a", "x", perMinute, 2))
	if err := errors.Join(
		s.Give(ctx, one("a", "x", perMinute, 1)),
		s.Give(ctx, one("a", "x", perMinute, 1)),
		s.Debit(ctx, one("a", "x", perMinute, 1)),
		// Nobody hears of it, and it is done.
		s.Reset(ctx, one("a", "x", perMinute, 1)),
	); err != nil {
		t.Fatal(err)
	}
	if err := admin.Do(ctx, "ACL", "SETUSER", "moat", "+zadd", "+zrem", "+zcount", "+zremrangebyscore", "+pexpire",
		"+publish", "+subscribe", "resetchannels", "&moat:rl:reset").Err(); err != nil {
		t.Fatal(err)
	}
	place := []ratelimit.Request{{Limit: "c", Subject: "x", Slots: 1, Cost: 1, Holder: "h"}}
	take(t, s, place)
	told := watch(t, s)
	if err := errors.Join(s.Give(ctx, place), s.Reset(ctx, place)); err != nil {
		t.Fatal(err)
	}
	wantTold(t, told, "c", "x")
	if _, err := newStore(t, client, redisstore.Config{Prefix: "other:"}).
		Take(ctx, one("a", "x", perMinute, 1), nil); err == nil {
		t.Fatal("the test's user may do everything: it proves nothing")
	}
}
