package redistest

import (
	"strconv"
	"testing"
)

const slots = 16384

// Cluster is a Redis Cluster of masters without replicas.
type Cluster struct {
	tb    testing.TB
	nodes []*Server
}

// StartCluster runs a cluster of so many masters, with the slots shared out
// evenly and in order. It returns when every node knows all the others and
// takes commands, which is two seconds at least: a node waits that long before
// it serves. Slots of nodes that are up are served while another is down.
// Further arguments are settings of every node.
func StartCluster(tb testing.TB, nodes int, args ...string) *Cluster {
	tb.Helper()
	c := &Cluster{tb: tb}
	settings := append([]string{
		"--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf",
		"--cluster-node-timeout", "2000", "--cluster-require-full-coverage", "no",
	}, args...)
	for range nodes {
		c.nodes = append(c.nodes, StartTCP(tb, settings...))
	}
	for i, node := range c.nodes {
		// Epochs that differ from the start need not be fought out.
		node.Command("CLUSTER", "SET-CONFIG-EPOCH", strconv.Itoa(i+1))
		node.Command("CLUSTER", "ADDSLOTSRANGE", strconv.Itoa(i*slots/nodes), strconv.Itoa((i+1)*slots/nodes-1))
	}
	for i, node := range c.nodes {
		// Every pair, so as not to wait until word of the others gets round.
		for _, other := range c.nodes[i+1:] {
			host, port := splitAddr(tb, other.addr)
			node.Command("CLUSTER", "MEET", host, port)
		}
	}
	c.WaitReady()
	return c
}

// WaitReady waits until every node knows all the others and takes commands.
func (c *Cluster) WaitReady() {
	c.tb.Helper()
	for _, node := range c.nodes {
		// Slots are learned from their owner itself, so all of them are known
		// only when no node is.
		node.await("the cluster", hasAll(
			"cluster_state:ok",
			"cluster_slots_ok:"+strconv.Itoa(slots),
			"cluster_known_nodes:"+strconv.Itoa(len(c.nodes)),
		), "CLUSTER", "INFO")
	}
}

// URL names every node.
func (c *Cluster) URL() string { return "redis+cluster://" + addrs(c.nodes) }

// Nodes are in the order of their slots.
func (c *Cluster) Nodes() []*Server { return c.nodes }

// NodeOf is the node that StartCluster gave the key's slot. A node that is away
// is found too, as long as one is not.
func (c *Cluster) NodeOf(key string) *Server {
	c.tb.Helper()
	for _, node := range c.nodes {
		if node.cmd == nil || node.paused {
			continue
		}
		slot, err := strconv.Atoi(node.Command("CLUSTER", "KEYSLOT", key))
		if err != nil {
			c.tb.Fatal(err)
		}
		for i := range c.nodes {
			if slot < (i+1)*slots/len(c.nodes) {
				return c.nodes[i]
			}
		}
	}
	c.tb.Fatal("no node of the cluster is up")
	return nil
}
