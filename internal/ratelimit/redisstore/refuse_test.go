package redisstore_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/moat-gateway/moat/internal/ratelimit"
	"github.com/moat-gateway/moat/internal/ratelimit/redisstore"
	"github.com/moat-gateway/moat/internal/ratelimit/storetest"
	"github.com/moat-gateway/moat/internal/redisconn/redistest"
)

// mixed is places and buckets in one call, in either order.
func mixed(holder string) map[string][]ratelimit.Request {
	return map[string][]ratelimit.Request{
		"place first":  append(place(5, holder), one("a", "x", perMinute, 1)...),
		"bucket first": append(one("a", "x", perMinute, 1), place(5, holder)...),
		"place alone":  place(5, holder),
		"bucket alone": one("b", "new", perMinute, 1),
	}
}

// wantUncharged looks at what the requests of mixed would have changed.
func wantUncharged(t *testing.T, s ratelimit.Store) {
	t.Helper()
	looks := append(one("a", "x", perMinute, 0), ratelimit.Request{Limit: "c", Subject: "x", Slots: 5})
	for i, r := range take(t, s, append(looks, one("b", "new", perMinute, 0)...)) {
		if want := []int64{4, 4, 6}[i]; r.Remaining != want {
			t.Errorf("request %d: %+v, want %d left", i, r, want)
		}
	}
}

// A server that takes no writes must not let anybody pass uncounted.
func TestServerThatTakesNoWritesIsAnErrorAndChargesNothing(t *testing.T) {
	for _, tt := range []struct {
		name        string
		close, open []string
		gives       bool // whether what frees memory is still done
	}{
		{"read-only replica", []string{"REPLICAOF", "127.0.0.1", "1"}, []string{"REPLICAOF", "NO", "ONE"}, false},
		{"out of memory", []string{"CONFIG", "SET", "maxmemory", "1"}, []string{"CONFIG", "SET", "maxmemory", "0"}, true},
		{
			"too few replicas", []string{"CONFIG", "SET", "min-replicas-to-write", "1"},
			[]string{"CONFIG", "SET", "min-replicas-to-write", "0"}, false,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server, clock, ctx := redistest.Start(t), storetest.NewClock(), context.Background()
			s := newStore(t, newClient(t, server.URL(), patient), redisstore.Config{Now: clock.Now})
			take(t, s, one("a", "x", perMinute, 2))
			take(t, s, place(5, "h"))
			server.Command(tt.close...)
			for name, reqs := range mixed("late") {
				if results, err := s.Take(ctx, reqs, nil); err == nil {
					t.Errorf("%s: results %v, want an error", name, results)
				}
			}
			if err := s.Debit(ctx, append(one("a", "x", perMinute, 1), one("b", "new", perMinute, 1)...)); err == nil {
				t.Error("debit: no error")
			}
			if err := s.Give(ctx, one("a", "x", perMinute, 1)); err == nil {
				t.Error("give: no error")
			}
			if err := s.Reset(ctx, one("d", "x", perMinute, 1)); (err == nil) != tt.gives {
				t.Errorf("reset: error %v", err)
			}
			server.Command(tt.open...)
			wantUncharged(t, s)
		})
	}
}

func TestForeignPlacesAreLeftAlone(t *testing.T) {
	server := redistest.Start(t)
	client := newClient(t, server.URL(), patient)
	s := newStore(t, client, redisstore.Config{})
	ctx := context.Background()
	if err := client.Set(ctx, s.Key("c", "x"), "1:1", 0).Err(); err != nil {
		t.Fatal(err)
	}
	for name, reqs := range mixed("h") {
		if name == "bucket alone" {
			continue
		}
		if results, err := s.Take(ctx, reqs, nil); err == nil {
			t.Errorf("%s: results %v, want an error", name, results)
		}
	}
	if err := s.Give(ctx, place(5, "h")); err == nil {
		t.Error("give: no error")
	}
	if got, err := client.Get(ctx, s.Key("c", "x")).Result(); err != nil || got != "1:1" {
		t.Errorf("the key became %q, error %v", got, err)
	}
	if r := take(t, s, one("a", "x", perMinute, 0))[0]; r.Remaining != 6 {
		t.Errorf("the bucket beside it was charged: %+v", r)
	}
}

func TestEveryOperationSendsAForgottenScriptAgain(t *testing.T) {
	server, ctx := redistest.Start(t), context.Background()
	client := newClient(t, server.URL(), patient)
	s := newStore(t, client, redisstore.Config{})
	take(t, s, one("b", "x", perMinute, 0)) // connects
	var calls counter
	client.AddHook(&calls)
	for _, step := range []func() error{
		func() error {
			_, err := s.Take(ctx, append(place(5, "h"), one("a", "x", perMinute, 1)...), nil)
			return err
		},
		func() error { return s.Debit(ctx, one("a", "x", perMinute, 3)) },
		func() error { s.Renew(); return nil },
		func() error { return s.Give(ctx, one("a", "x", perMinute, 1)) },
		func() error { _, err := s.Take(ctx, place(5, "other"), nil); return err },
		func() error { return s.Give(ctx, place(5, "other")) },
	} {
		server.Command("SCRIPT", "FLUSH")
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	if got := calls.names(); got != strings.TrimSpace(strings.Repeat("evalsha eval ", 6)) {
		t.Errorf("commands sent: %s", got)
	}
	got := take(t, s, append(one("a", "x", perMinute, 0), ratelimit.Request{Limit: "c", Subject: "x", Slots: 5}))
	if got[0].Remaining != 3 || got[1].Remaining != 4 {
		t.Errorf("%+v, want 3 units and 4 places left", got)
	}
}

// TestPlacesLeaveNothingBehind: what nobody holds any more takes no memory, also
// when its holder never came back.
func TestPlacesLeaveNothingBehind(t *testing.T) {
	server, ctx := redistest.Start(t), context.Background()
	client := newClient(t, server.URL(), patient)
	s := newStore(t, client, redisstore.Config{})
	take(t, s, place(5, "h"))
	ttl, err := client.PTTL(ctx, s.Key("c", "x")).Result()
	if err != nil || ttl <= 25*time.Second || ttl > 30*time.Second+2*time.Millisecond {
		t.Errorf("time to live %s, error %v, want about 30s", ttl, err)
	}
	// A holder who expired goes with the next one to come.
	if err := client.ZAdd(ctx, s.Key("c", "x"), redis.Z{Score: 1, Member: "crashed"}).Err(); err != nil {
		t.Fatal(err)
	}
	take(t, s, place(5, "next"))
	if n, err := client.ZCard(ctx, s.Key("c", "x")).Result(); err != nil || n != 2 {
		t.Errorf("%d holders are kept, error %v, want 2", n, err)
	}
	give(t, s, place(5, "h"))
	give(t, s, place(5, "next"))
	if n, err := client.DBSize(ctx).Result(); err != nil || n != 0 {
		t.Errorf("%d keys, error %v, want none", n, err)
	}
}
