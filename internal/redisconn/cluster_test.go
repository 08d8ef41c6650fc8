package redisconn_test

import (
	"context"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/moat-gateway/moat/internal/redisconn"
	"github.com/moat-gateway/moat/internal/redisconn/redistest"
)

const (
	// outageTimeout is the client's timeout and the budget of a call in tests
	// with servers that are away. A busy machine answers within it.
	outageTimeout = 2 * time.Second
	// outageSlack is what a busy machine may add to a budget.
	outageSlack = 2 * time.Second
	// recoveryTimeout is far more than a failover takes.
	recoveryTimeout = 20 * time.Second
)

// call runs one call with a budget and fails the test if it takes longer.
func call(t *testing.T, what string, budget time.Duration, f func(context.Context) error) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), budget)
	defer cancel()
	start := time.Now()
	err := f(ctx)
	if took := time.Since(start); took > budget+outageSlack {
		t.Errorf("%s took %s of a budget of %s, error %v", what, took, budget, err)
	}
	return err
}

func set(client redis.UniversalClient, key, value string) func(context.Context) error {
	return func(ctx context.Context) error { return client.Set(ctx, key, value, 0).Err() }
}

// recovers repeats a call, each time within the budget, until it succeeds, and
// returns how long that took.
func recovers(t *testing.T, what string, budget time.Duration, f func(context.Context) error) time.Duration {
	t.Helper()
	start := time.Now()
	for {
		err := call(t, what, budget, f)
		if err == nil {
			return time.Since(start)
		}
		if time.Since(start) > recoveryTimeout {
			t.Fatalf("%s: still failing after %s: %v", what, recoveryTimeout, err)
		}
		// A client that refuses at once must not keep the servers from the processor.
		time.Sleep(5 * time.Millisecond)
	}
}

// keyOfEach is one key for each node of the cluster, in their order.
func keyOfEach(t *testing.T, c *redistest.Cluster) []string {
	t.Helper()
	keys := map[*redistest.Server]string{}
	for i := 0; len(keys) < len(c.Nodes()); i++ {
		key := "key" + strconv.Itoa(i)
		keys[c.NodeOf(key)] = key
	}
	var list []string
	for _, node := range c.Nodes() {
		list = append(list, keys[node])
	}
	return list
}

func TestClusterClientReachesEveryNode(t *testing.T) {
	cluster := redistest.StartCluster(t, 3)
	keys := keyOfEach(t, cluster)
	for name, url := range map[string]string{
		"all named": cluster.URL(),
		"one named": "redis+cluster://" + cluster.Nodes()[1].Addr(),
	} {
		client := newClient(t, redisconn.Options{URL: url, Timeout: patient})
		for i, key := range keys {
			if err := call(t, name, patient, set(client, key, name)); err != nil {
				t.Fatalf("%s: set on node %d: %v", name, i, err)
			}
			if got, err := client.Get(context.Background(), key).Result(); err != nil || got != name {
				t.Errorf("%s: node %d holds %q, error %v", name, i, got, err)
			}
			if n := cluster.Nodes()[i].Command("EXISTS", key); n != "1" {
				t.Errorf("%s: node %d itself answers %s for the key", name, i, n)
			}
		}
	}
}

func TestClusterNodeThatIsAwayCostsItsSlotsOnly(t *testing.T) {
	for name, tt := range map[string]struct{ away, back func(*redistest.Server) }{
		"stopped": {(*redistest.Server).Pause, (*redistest.Server).Resume},
		"killed":  {(*redistest.Server).Kill, (*redistest.Server).Restart},
	} {
		t.Run(name, func(t *testing.T) {
			cluster := redistest.StartCluster(t, 3)
			keys := keyOfEach(t, cluster)
			client := newClient(t, redisconn.Options{URL: cluster.URL(), Timeout: outageTimeout})
			for _, key := range keys {
				recovers(t, "set", outageTimeout, set(client, key, "before"))
			}
			away := cluster.Nodes()[1]
			tt.away(away)
			var slowest, slowestOther time.Duration
			for range 3 {
				for i, key := range keys {
					start := time.Now()
					err := call(t, key, outageTimeout, set(client, key, "during"))
					took := time.Since(start)
					if i == 1 {
						slowest = max(slowest, took)
					} else {
						slowestOther = max(slowestOther, took)
					}
					if (err != nil) != (i == 1) {
						t.Errorf("node %d, with node 1 away: error %v", i, err)
					}
				}
			}
			t.Logf("slowest call to the node that is away %s, to the others %s", slowest, slowestOther)
			// A new client may ask the node that is away for the slots first.
			fresh := newClient(t, redisconn.Options{URL: cluster.URL(), Timeout: outageTimeout})
			t.Logf("new client after %s", recovers(t, "new client", outageTimeout, set(fresh, keys[0], "fresh")))
			tt.back(away)
			t.Logf("back after %s", recovers(t, "set after the return", outageTimeout, set(client, keys[1], "after")))
		})
	}
}

// A command that timed out may have been run, so it must not be sent again.
func TestClusterClientSendsAfterATimeoutNothingAgain(t *testing.T) {
	cluster := redistest.StartCluster(t, 1)
	node := cluster.Nodes()[0]
	const timeout = 100 * time.Millisecond
	client := newClient(t, redisconn.Options{URL: cluster.URL(), Timeout: timeout})
	for name, increment := range map[string]func(ctx context.Context, key string) error{
		"command": func(ctx context.Context, key string) error { return client.Incr(ctx, key).Err() },
		"pipeline": func(ctx context.Context, key string) error {
			_, err := client.Pipelined(ctx, func(p redis.Pipeliner) error { return p.Incr(ctx, key).Err() })
			return err
		},
		"transaction": func(ctx context.Context, key string) error {
			_, err := client.TxPipelined(ctx, func(p redis.Pipeliner) error { return p.Incr(ctx, key).Err() })
			return err
		},
	} {
		// Idle connections, for the repetitions to find one that can be written to.
		// Another key, because these calls may time out as well and be run later.
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() { _ = increment(context.Background(), "other") })
		}
		wg.Wait()
		recovers(t, name, patient, func(ctx context.Context) error { return increment(ctx, "other") })
		node.Pause()
		err := call(t, name, patient, func(ctx context.Context) error { return increment(ctx, name) })
		node.Resume()
		if err == nil {
			t.Errorf("%s: no error from a node that is stopped", name)
		}
		// What waits in the node's sockets was there before this, but the node may
		// take the sockets in any order, a few at a time.
		for range 10 {
			node.Command("PING")
		}
		if n := node.Command("GET", name); n != "" && n != "1" {
			t.Errorf("%s: run %s times", name, n)
		}
	}
}

func TestClientBuiltBeforeTheClusterIsUp(t *testing.T) {
	cluster := redistest.StartCluster(t, 3)
	keys := keyOfEach(t, cluster)
	for _, node := range cluster.Nodes() {
		node.Kill()
	}
	client := newClient(t, redisconn.Options{URL: cluster.URL(), Timeout: outageTimeout})
	for range 3 {
		if err := call(t, "set", outageTimeout, set(client, keys[0], "v")); err == nil {
			t.Fatal("no error from a cluster that is down")
		}
	}
	for _, node := range cluster.Nodes() {
		node.Restart()
	}
	for _, key := range keys {
		t.Logf("after %s", recovers(t, "set", outageTimeout, set(client, key, "v")))
	}
}
