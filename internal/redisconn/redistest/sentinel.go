package redistest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	masterName = "moat"
	sentinels  = 3
	// quorum is how many sentinels must miss the master before it counts as
	// down.
	quorum = "2"
)

// Sentinel is a master with a replica, watched by three sentinels that put the
// replica in the master's place a second after they lost it.
type Sentinel struct {
	tb              testing.TB
	master, replica *Server
	sentinels       []*Server
}

// StartSentinel returns when the sentinels know each other and the replica, so
// that a failover can begin.
func StartSentinel(tb testing.TB) *Sentinel {
	tb.Helper()
	s := &Sentinel{tb: tb}
	// The delay is for more replicas to come; the default is five seconds.
	s.master = StartTCP(tb, "--repl-diskless-sync-delay", "0")
	host, port := splitAddr(tb, s.master.addr)
	s.replica = StartTCP(tb, "--replicaof", host+" "+port, "--repl-diskless-sync-delay", "0")
	s.replica.await("replication", hasAll("master_link_status:up"), "INFO", "replication")
	for range sentinels {
		s.sentinels = append(s.sentinels, startSentinel(tb, host, port))
	}
	s.waitReady()
	return s
}

// startSentinel runs one sentinel. Unlike a server it needs a file, in which it
// keeps what it learns.
func startSentinel(tb testing.TB, host, port string) *Server {
	tb.Helper()
	dir := makeDir(tb)
	file := filepath.Join(dir, "sentinel.conf")
	return startOnPort(tb, false, func(own string) []string {
		text := strings.Join([]string{
			"port " + own,
			"bind " + loopback,
			"dir " + dir,
			fmt.Sprintf("sentinel monitor %s %s %s %s", masterName, host, port, quorum),
			"sentinel down-after-milliseconds " + masterName + " 1000",
			// A failover that came to nothing is tried again after twice this time.
			"sentinel failover-timeout " + masterName + " 2000",
			"",
		}, "\n")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			tb.Fatal(err)
		}
		return []string{file, "--sentinel"}
	})
}

// waitReady waits for what a failover takes: the others to vote, and a replica
// known to follow its master.
func (s *Sentinel) waitReady() {
	s.tb.Helper()
	for _, sentinel := range s.sentinels {
		sentinel.await("the other sentinels",
			hasAll("flags\nmaster", "num-slaves\n1", fmt.Sprintf("num-other-sentinels\n%d", sentinels-1)),
			"SENTINEL", "MASTER", masterName)
		sentinel.await("the replica",
			hasAll("flags\nslave", "master-link-status\nok"),
			"SENTINEL", "REPLICAS", masterName)
	}
}

// URL names every sentinel and the master.
func (s *Sentinel) URL() string { return "redis+sentinel://" + addrs(s.sentinels) + "/" + masterName }

// URLOf names one sentinel, which a client then asks first; it learns of the
// others.
func (s *Sentinel) URLOf(i int) string {
	return "redis+sentinel://" + s.sentinels[i].addr + "/" + masterName
}

// Master is the server that started as the master.
func (s *Sentinel) Master() *Server { return s.master }

// Replica is the server that started as the replica.
func (s *Sentinel) Replica() *Server { return s.replica }

// Sentinels are the three that watch.
func (s *Sentinel) Sentinels() []*Server { return s.sentinels }

// WaitPromoted waits until the replica is the master, and all sentinels say so
// that are up.
func (s *Sentinel) WaitPromoted() {
	s.tb.Helper()
	host, port := splitAddr(s.tb, s.replica.addr)
	s.replica.await("the promotion", hasAll("role:master"), "INFO", "replication")
	for _, sentinel := range s.sentinels {
		if sentinel.cmd == nil || sentinel.paused {
			continue
		}
		sentinel.await("the new master", func(answer string) bool { return answer == host+"\n"+port },
			"SENTINEL", "GET-MASTER-ADDR-BY-NAME", masterName)
	}
}
