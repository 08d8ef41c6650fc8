package redisstore_test

import (
	"context"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/ratelimit"
	"github.com/moat-gateway/moat/internal/ratelimit/redisstore"
	"github.com/moat-gateway/moat/internal/ratelimit/storetest"
	"github.com/moat-gateway/moat/internal/redisconn/redistest"
)

func place(slots int64, holder string) []ratelimit.Request {
	return []ratelimit.Request{{Limit: "c", Subject: "x", Slots: slots, Cost: 1, Holder: holder}}
}

func give(tb testing.TB, s ratelimit.Store, reqs []ratelimit.Request) {
	tb.Helper()
	if err := s.Give(context.Background(), reqs); err != nil {
		tb.Fatal(err)
	}
}

func TestPlacesOfAnInstanceThatCrashedAreFreeAfterAWhile(t *testing.T) {
	server, clock := redistest.Start(t), storetest.NewClock()
	crashed := newStore(t, newClient(t, server.URL(), patient), redisstore.Config{Now: clock.Now})
	lives := newStore(t, newClient(t, server.URL(), patient), redisstore.Config{Now: clock.Now})
	take(t, crashed, place(2, "gone"))
	take(t, lives, place(2, "here"))
	for range 3 {
		clock.Advance(10 * time.Second)
		lives.Renew()
		// Until its time is over the place of the other one is taken.
		if got := take(t, lives, place(2, "next"))[0]; got.Allowed != (clock.Now().Sub(storetest.NewClock().Now()) >= 30*time.Second) {
			t.Fatalf("after %s: %+v", clock.Now().Sub(storetest.NewClock().Now()), got)
		}
	}
	if got := take(t, lives, place(2, "one more"))[0]; got.Allowed {
		t.Error("a place that is renewed was given away")
	}
}

func TestRenewalBringsNoPlaceBack(t *testing.T) {
	server, clock := redistest.Start(t), storetest.NewClock()
	s := newStore(t, newClient(t, server.URL(), patient), redisstore.Config{Now: clock.Now})
	// The same place in the eyes of two stores: one gives it back while the other
	// is about to renew it.
	late := newStore(t, newClient(t, server.URL(), patient), redisstore.Config{Now: clock.Now})
	take(t, late, place(1, "h"))
	give(t, s, place(1, "h"))
	late.Renew()
	if got := take(t, s, place(1, "next"))[0]; !got.Allowed {
		t.Error("a renewal took a place that was given back")
	}
}

func TestPlacesAreRenewedWhileTheyAreHeld(t *testing.T) {
	server := redistest.Start(t)
	s := newStore(t, newClient(t, server.URL(), patient), redisstore.Config{})
	const ttl = 300 * time.Millisecond
	s.HoldPlacesFor(ttl)
	if s.Renewing() {
		t.Error("renewing before anything is held")
	}
	take(t, s, place(1, "h"))
	look := place(1, "h")
	look[0].Cost = 0
	give(t, s, look) // gives nothing back
	for end := time.Now().Add(3 * ttl); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if take(t, s, place(1, "next"))[0].Allowed {
			t.Fatal("a place that is held was given away")
		}
	}
	give(t, s, place(1, "h"))
	for deadline := time.Now().Add(10 * time.Second); s.Renewing(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("still renewing what nobody holds")
		}
	}
	if !take(t, s, place(1, "next"))[0].Allowed {
		t.Error("the place is not free")
	}
}

// TestARefusedPlaceIsNotRenewed: a call that was refused holds nothing.
func TestARefusedPlaceIsNotRenewed(t *testing.T) {
	server := redistest.Start(t)
	s := newStore(t, newClient(t, server.URL(), patient), redisstore.Config{})
	one := ratelimit.Rate{N: 1, Window: time.Hour}
	take(t, s, []ratelimit.Request{{Limit: "r", Subject: "x", Rate: one, Cost: 1}})
	reqs := append(place(1, "h"), ratelimit.Request{Limit: "r", Subject: "x", Rate: one, Cost: 1})
	if got := take(t, s, reqs); got[1].Allowed {
		t.Fatalf("%+v", got)
	}
	if s.Renewing() {
		t.Error("a place that was not taken is renewed")
	}
}

// watch returns what the store's Watch tells, and waits until it listens.
func watch(t *testing.T, s *redisstore.Store) chan [][16]byte {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	told, ended := make(chan [][16]byte, 100), make(chan struct{})
	go func() {
		defer close(ended)
		s.Watch(ctx, func(keys [][16]byte) { told <- keys })
	}()
	t.Cleanup(func() {
		cancel()
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			t.Error("Watch goes on after its context")
		}
	})
	wantAll(t, told)
	return told
}

// wantAll waits for the word to forget everything.
func wantAll(t *testing.T, told chan [][16]byte) {
	t.Helper()
	select {
	case keys := <-told:
		if keys != nil {
			t.Fatalf("told %x, want all", keys)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("not told that the connection was made")
	}
}

func wantTold(t *testing.T, told chan [][16]byte, limit, subject string) {
	t.Helper()
	select {
	case keys := <-told:
		if len(keys) != 1 || keys[0] != ratelimit.KeyHash(limit, subject) {
			t.Errorf("told %x, want %x", keys, ratelimit.KeyHash(limit, subject))
		}
	case <-time.After(10 * time.Second):
		t.Error("not told")
	}
}

func TestEveryInstanceHearsOfAReset(t *testing.T) {
	server := redistest.Start(t)
	s := newStore(t, newClient(t, server.URL(), patient), redisstore.Config{})
	told := watch(t, newStore(t, newClient(t, server.URL(), patient), redisstore.Config{}))
	other := watch(t, newStore(t, newClient(t, server.URL(), patient), redisstore.Config{Prefix: "other:"}))
	take(t, s, one("a", "x", perMinute, 1))
	if err := s.Reset(context.Background(), one("a", "x", perMinute, 1)); err != nil {
		t.Fatal(err)
	}
	wantTold(t, told, "a", "x")
	// What was missed while the server was away is made up for by forgetting all.
	server.Restart()
	wantAll(t, told)
	if err := s.Reset(context.Background(), one("a", "y", perMinute, 1)); err != nil {
		t.Fatal(err)
	}
	wantTold(t, told, "a", "y")
	wantAll(t, other)
	if len(other) != 0 {
		t.Error("told of limits with another prefix")
	}
}

func TestAMessageOfSomebodyElseMeansAll(t *testing.T) {
	server := redistest.Start(t)
	client := newClient(t, server.URL(), patient)
	told := watch(t, newStore(t, client, redisstore.Config{}))
	for _, payload := range []string{"", "x", "0123", "zz000000000000000000000000000000"} {
		if err := client.Publish(context.Background(), "moat:rl:reset", payload).Err(); err != nil {
			t.Fatal(err)
		}
		wantAll(t, told)
	}
}
