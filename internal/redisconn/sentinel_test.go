package redisconn_test

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/redisconn"
	"github.com/moat-gateway/moat/internal/redisconn/redistest"
)

var errLost = errors.New("the write did not reach the new master")

func TestSentinelClientFollowsAFailover(t *testing.T) {
	for name, away := range map[string]func(*redistest.Server){
		"killed": (*redistest.Server).Kill,
		// Its connections stay open and nothing comes back on them.
		"stopped": (*redistest.Server).Pause,
	} {
		t.Run(name, func(t *testing.T) {
			sentinel := redistest.StartSentinel(t)
			client := newClient(t, redisconn.Options{URL: sentinel.URL(), Timeout: outageTimeout})
			recovers(t, "set", outageTimeout, set(client, "k", "before"))
			if got := sentinel.Master().Command("GET", "k"); got != "before" {
				t.Fatalf("the master holds %q", got)
			}
			away(sentinel.Master())
			start := time.Now()
			calls := 0
			back := recovers(t, "set", outageTimeout, func(ctx context.Context) error {
				calls++
				return set(client, "k", "after "+strconv.Itoa(calls))(ctx)
			})
			sentinel.WaitPromoted()
			t.Logf("written again after %s and %d calls, promotion known after %s", back, calls, time.Since(start))
			if got := sentinel.Replica().Command("GET", "k"); got != "after "+strconv.Itoa(calls) {
				t.Errorf("the new master holds %q", got)
			}
		})
	}
}

// The master that comes back is a replica and refuses to write; connections to
// it are left over from before.
func TestSentinelClientLeavesTheOldMaster(t *testing.T) {
	sentinel := redistest.StartSentinel(t)
	client := newClient(t, redisconn.Options{URL: sentinel.URL(), Timeout: outageTimeout})
	recovers(t, "set", outageTimeout, set(client, "k", "before"))
	// No call on the client until all is over.
	sentinel.Master().Pause()
	sentinel.WaitPromoted()
	sentinel.Master().Resume()
	t.Logf("written again after %s", recovers(t, "set", outageTimeout, func(ctx context.Context) error {
		if err := set(client, "k", "after")(ctx); err != nil {
			return err
		}
		// Until the old master has learned of its place it takes writes that are lost.
		if got := sentinel.Replica().Command("GET", "k"); got != "after" {
			return errLost
		}
		return nil
	}))
}

// The sentinel the client asks can hang together with the master: they often
// share a machine.
func TestSentinelThatHangsIsLeft(t *testing.T) {
	for _, timeout := range []time.Duration{redisconn.DefaultTimeout, outageTimeout} {
		t.Run(timeout.String(), func(t *testing.T) {
			sentinel := redistest.StartSentinel(t)
			client := newClient(t, redisconn.Options{URL: sentinel.URLOf(0), Timeout: timeout})
			recovers(t, "set", outageTimeout, set(client, "k", "before"))
			sentinel.Sentinels()[0].Pause()
			sentinel.Master().Kill()
			back := recovers(t, "set", outageTimeout, set(client, "k", "after"))
			t.Logf("written again after %s", back)
			sentinel.Sentinels()[0].Resume()
		})
	}
}

func TestClientBuiltBeforeTheSentinelsAreUp(t *testing.T) {
	sentinel := redistest.StartSentinel(t)
	for _, s := range sentinel.Sentinels() {
		s.Kill()
	}
	client := newClient(t, redisconn.Options{URL: sentinel.URL(), Timeout: outageTimeout})
	for range 3 {
		if err := call(t, "set", outageTimeout, set(client, "k", "v")); err == nil {
			t.Fatal("no error without a sentinel")
		}
	}
	for _, s := range sentinel.Sentinels() {
		s.Restart()
	}
	t.Logf("after %s", recovers(t, "set", outageTimeout, set(client, "k", "v")))
}
