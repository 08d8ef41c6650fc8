//go:build linux

package integration

import (
	"bufio"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// redisServer is a Redis of its own for one test: nothing persistent, loopback
// and a Unix socket only.
type redisServer struct {
	*process
	URL    string // redis://127.0.0.1:PORT/0
	Socket string
}

// startRedis fails the test when no redis-server is installed: a suite that
// silently leaves Redis out proves nothing about it.
func startRedis(t testing.TB) *redisServer {
	t.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		t.Fatalf("redis-server is needed: %v", err)
	}
	dir, port := privateDir(t), freePort(t)
	socket := filepath.Join(dir, "redis.sock")
	p := startProcess(t, []string{"PATH=/usr/bin:/bin"}, path,
		"--bind", "127.0.0.1", "--port", fmt.Sprint(port),
		"--unixsocket", socket, "--save", "", "--appendonly", "no", "--dir", dir)
	r := &redisServer{process: p, URL: fmt.Sprintf("redis://127.0.0.1:%d/0", port), Socket: socket}
	await(t, startBudget, "redis-server", func() bool {
		if p.exited() {
			t.Fatalf("redis-server ended:\n%s", p.stdout.String())
		}
		reply, err := r.command("PING")
		return err == nil && reply == "+PONG"
	})
	return r
}

// command sends one inline command and returns the first line of the reply.
func (r *redisServer) command(words ...string) (string, error) {
	conn, err := net.DialTimeout("unix", r.Socket, time.Second)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintf(conn, "%s\r\n", strings.Join(words, " ")); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	return strings.TrimRight(line, "\r\n"), err
}
