package redisstore_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/ratelimit"
	"github.com/moat-gateway/moat/internal/ratelimit/redisstore"
	"github.com/moat-gateway/moat/internal/ratelimit/storetest"
	"github.com/moat-gateway/moat/internal/redisconn/redistest"
)

// Everything about three nodes in one test, because they take seconds to start.
func TestClusterOfThreeNodes(t *testing.T) {
	cluster := redistest.StartCluster(t, 3)
	client := newClient(t, cluster.URL(), patient)
	prefix := prefixes()
	t.Run("KeepsTheContract", func(t *testing.T) {
		storetest.Run(t, func(t *testing.T, clock *storetest.Clock) ratelimit.Store {
			return newStore(t, client, redisstore.Config{Prefix: prefix(), Now: clock.Now})
		})
	})
	t.Run("ChargesTwoNodesOrNone", func(t *testing.T) {
		s := newStore(t, client, redisstore.Config{Prefix: prefix()})
		testTwoNodes(t, s, onNodes(t, cluster, s))
	})
	t.Run("TellsAllInstancesOfAReset", func(t *testing.T) {
		name := prefix()
		told := watch(t, newStore(t, newClient(t, cluster.URL(), patient), redisstore.Config{Prefix: name}))
		s := newStore(t, client, redisstore.Config{Prefix: name})
		for _, subject := range onNodes(t, cluster, s) {
			if err := s.Reset(context.Background(), one("a", subject, perMinute, 1)); err != nil {
				t.Fatal(err)
			}
			wantTold(t, told, "a", subject)
		}
	})
	// Last: the node may not be what it was.
	t.Run("OneNodeThatStandsStillIsNotAll", func(t *testing.T) {
		s := newStore(t, client, redisstore.Config{Prefix: prefix(), Timeout: 200 * time.Millisecond})
		testPausedNode(t, s, cluster, onNodes(t, cluster, s))
	})
}

// onNodes is a subject of the store for each node.
func onNodes(t *testing.T, cluster *redistest.Cluster, s *redisstore.Store) []string {
	t.Helper()
	nodes := cluster.Nodes()
	subjects := make([]string, len(nodes))
	found := 0
	for n := 0; found < len(nodes); n++ {
		subject := "x" + strconv.Itoa(n)
		owner := cluster.NodeOf(s.Key("a", subject))
		for i := range nodes {
			if nodes[i] == owner && subjects[i] == "" {
				subjects[i] = subject
				found++
			}
		}
	}
	return subjects
}

// testTwoNodes has 600 callers of a limit on one node and a wider one on another,
// asked for in both orders.
func testTwoNodes(t *testing.T, s *redisstore.Store, subjects []string) {
	narrow := ratelimit.Rate{N: 50, Window: 24 * time.Hour}
	wide := ratelimit.Rate{N: 1000, Window: 24 * time.Hour}
	var granted atomic.Int64
	var wg sync.WaitGroup
	for i := range 600 {
		wg.Go(func() {
			reqs := []ratelimit.Request{
				{Limit: "narrow", Subject: subjects[0], Rate: narrow, Cost: 1},
				{Limit: "wide", Subject: subjects[1], Rate: wide, Cost: 1},
				{Limit: "place", Subject: subjects[2], Slots: 1000, Cost: 1, Holder: strconv.Itoa(i)},
			}
			if i%2 == 1 {
				slices.Reverse(reqs)
			}
			results, err := s.Take(context.Background(), reqs, nil)
			if err != nil {
				t.Error(err)
			}
			if ratelimit.Charged(reqs, results) {
				granted.Add(1)
			}
		})
	}
	wg.Wait()
	// A unit may be away for a moment while a call that was refused gives it back,
	// but the narrow limit is never asked for after a refusal of a wide one, since
	// these never refuse.
	if got := granted.Load(); got != 50 {
		t.Errorf("600 calls: %d were granted, want 50", got)
	}
	left := take(t, s, []ratelimit.Request{
		{Limit: "narrow", Subject: subjects[0], Rate: narrow},
		{Limit: "wide", Subject: subjects[1], Rate: wide},
		{Limit: "place", Subject: subjects[2], Slots: 1000},
	})
	for i, want := range []int64{50 - granted.Load(), 1000 - granted.Load(), 1000 - granted.Load()} {
		if left[i].Remaining != want {
			t.Errorf("limit %d has %d left in the end, want %d", i, left[i].Remaining, want)
		}
	}
}

func testPausedNode(t *testing.T, s *redisstore.Store, cluster *redistest.Cluster, subjects []string) {
	for _, subject := range subjects {
		warmUp(t, s, one("warm", subject, perMinute, 0))
	}
	for _, subject := range subjects {
		take(t, s, []ratelimit.Request{{Limit: "held", Subject: subject, Slots: 1, Cost: 1, Holder: "h"}})
	}
	const paused = 2
	cluster.Nodes()[paused].Pause()
	expiry := func(i int) string {
		return cluster.Nodes()[i].Command("ZSCORE", s.Key("held", subjects[i]), "h")
	}
	for range 4 { // In any order.
		before := []string{expiry(0), expiry(1)}
		s.Renew()
		for i := range before {
			if before[i] == "" || expiry(i) == before[i] {
				t.Errorf("a place on node %d was not renewed: it expires at %q, before %q", i, expiry(i), before[i])
			}
		}
	}
	rate := ratelimit.Rate{N: 1000, Window: 24 * time.Hour}
	for i := range 5 {
		for _, subject := range subjects[:paused] {
			if left := take(t, s, one("alone", subject, rate, 1))[0].Remaining; left != int64(999-i) {
				t.Errorf("%d left on a node that is up, want %d", left, 999-i)
			}
		}
		start := time.Now()
		results, err := s.Take(context.Background(), one("alone", subjects[paused], rate, 1), nil)
		if took := time.Since(start); err == nil || took > budget {
			t.Errorf("results %v, error %v after %s from the node that stands still", results, err, took)
		}
	}
	var wg sync.WaitGroup
	for n := range 10 {
		wg.Go(func() {
			reqs := append(one("both", subjects[0], rate, 1), one("both", subjects[paused], rate, 1)...)
			reqs = append(reqs, ratelimit.Request{
				Limit: "place", Subject: subjects[0], Slots: 100, Cost: 1, Holder: strconv.Itoa(n),
			})
			if results, err := s.Take(context.Background(), reqs, nil); err == nil {
				t.Errorf("results %v, want an error", results)
			}
		})
	}
	wg.Wait()
	// Giving back goes on after the answer.
	look := append(one("both", subjects[0], rate, 0), ratelimit.Request{Limit: "place", Subject: subjects[0], Slots: 100})
	var left []ratelimit.Result
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if left = take(t, s, look); left[0].Remaining == rate.N && left[1].Remaining == 100 {
			break
		}
	}
	if left[0].Remaining != rate.N || left[1].Remaining != 100 {
		t.Errorf("%s was not given back after the other node failed", fmt.Sprint(left))
	}
	cluster.Nodes()[paused].Resume()
	warmUp(t, s, one("warm", subjects[paused], perMinute, 0))
}
