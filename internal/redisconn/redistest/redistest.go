// Package redistest runs a real redis-server for a test. A missing binary fails
// the test: what was not tried with Redis is not known to work with it.
package redistest

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// startTimeout is far more than the 20 milliseconds a start takes, for busy
// machines.
const startTimeout = 20 * time.Second

const loopback = "127.0.0.1"

// frugal keeps a server off the disk.
var frugal = []string{"--save", "", "--appendonly", "no", "--databases", "4"}

var errPortTaken = errors.New("redis-server found its port taken")

// Server is one redis-server that ends with its test.
type Server struct {
	tb      testing.TB
	args    []string
	network string
	addr    string
	tls     bool

	cmd    *exec.Cmd
	out    *output
	paused bool
}

// Start runs a server without persistence on a Unix socket. Further arguments
// are settings of redis-server, such as "--maxmemory", "1mb".
func Start(tb testing.TB, args ...string) *Server {
	tb.Helper()
	dir := makeDir(tb)
	socket := filepath.Join(dir, "s")
	s := &Server{tb: tb, network: "unix", addr: socket}
	s.args = slices.Concat(frugal, []string{"--port", "0", "--unixsocket", socket, "--dir", dir}, args)
	s.launch()
	tb.Cleanup(s.Kill)
	return s
}

// StartTCP is Start on a port of the loopback address, for cluster mode.
func StartTCP(tb testing.TB, args ...string) *Server {
	tb.Helper()
	return startTCP(tb, "--port", args)
}

// StartTLS is StartTCP with TLS only. It takes PEM files and accepts clients
// with and without a certificate.
func StartTLS(tb testing.TB, cert, key, ca string) *Server {
	tb.Helper()
	return startTCP(tb, "--tls-port", []string{
		"--port", "0", "--tls-auth-clients", "optional",
		"--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", ca,
	})
}

func startTCP(tb testing.TB, port string, args []string) *Server {
	tb.Helper()
	dir := makeDir(tb)
	return startOnPort(tb, port == "--tls-port", func(number string) []string {
		return slices.Concat(frugal, []string{port, number, "--bind", loopback, "--dir", dir}, args)
	})
}

// startOnPort runs a server with the arguments made for a free port. The port
// may be taken by another process before the server has it; then the next one
// is tried.
func startOnPort(tb testing.TB, tls bool, args func(port string) []string) *Server {
	tb.Helper()
	const tries = 5
	for i := 1; ; i++ {
		port := strconv.Itoa(freePort(tb))
		s := &Server{tb: tb, network: "tcp", addr: net.JoinHostPort(loopback, port), tls: tls, args: args(port)}
		err := s.run()
		if err == nil {
			tb.Cleanup(s.Kill)
			return s
		}
		if i == tries || !errors.Is(err, errPortTaken) {
			tb.Fatal(err)
		}
	}
}

// makeDir is a directory that outlives the servers started in it, because
// Cleanup runs in reverse. Not tb.TempDir: a socket's path must be shorter than
// 108 bytes.
func makeDir(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("/tmp", "redis")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// freePort is a port that is free together with the one 10000 above it, which
// a cluster node takes as well.
func freePort(tb testing.TB) int {
	tb.Helper()
	for range 100 {
		l, err := net.Listen("tcp", net.JoinHostPort(loopback, "0"))
		if err != nil {
			tb.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		_ = l.Close()
		if port > 55535 {
			port -= 10000
		}
		a, errA := net.Listen("tcp", net.JoinHostPort(loopback, strconv.Itoa(port)))
		b, errB := net.Listen("tcp", net.JoinHostPort(loopback, strconv.Itoa(port+10000)))
		if errA == nil {
			_ = a.Close()
		}
		if errB == nil {
			_ = b.Close()
		}
		if errA == nil && errB == nil {
			return port
		}
	}
	tb.Fatal("no free port for redis-server")
	return 0
}

// Addr is the socket's path, or host:port.
func (s *Server) Addr() string { return s.addr }

// URL is the address as redisconn reads it.
func (s *Server) URL() string {
	if s.network == "unix" {
		return "unix://" + s.addr
	}
	return "redis://" + s.addr
}

func (s *Server) launch() {
	s.tb.Helper()
	if err := s.run(); err != nil {
		s.tb.Fatal(err)
	}
}

// run starts the process and returns when it answers. After an error there is
// no process.
func (s *Server) run() error {
	s.out = new(output)
	s.cmd = exec.Command("redis-server", s.args...) //nolint:gosec // A test's own arguments.
	s.cmd.Stdout, s.cmd.Stderr = s.out, s.out
	s.cmd.SysProcAttr = procAttr()
	if err := s.cmd.Start(); err != nil {
		s.cmd = nil
		return fmt.Errorf("redis-server has to be installed for this test: %w", err)
	}
	deadline := time.Now().Add(startTimeout)
	for {
		// First of all: on a port that is taken, somebody else may answer.
		if s.out.contains("Failed listening on") {
			s.Kill()
			return fmt.Errorf("%w\n%s", errPortTaken, s.out)
		}
		err := s.ping()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			s.Kill()
			return fmt.Errorf("redis-server did not start: %w\n%s", err, s.out)
		}
		// Waiting for another process; there is nothing to be notified by.
		time.Sleep(2 * time.Millisecond)
	}
}

// ping takes every answer for a sign of life, a demand for a password too.
func (s *Server) ping() error {
	conn, err := net.DialTimeout(s.network, s.addr, time.Second)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if s.tls {
		return nil // It listens only once it is ready.
	}
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("PING\r\n")); err != nil {
		return err
	}
	answer := make([]byte, 64)
	n, err := conn.Read(answer)
	if err == nil && bytes.HasPrefix(answer[:n], []byte("-LOADING")) {
		err = fmt.Errorf("still loading")
	}
	return err
}

// Pause stops the process without closing its connections, as a machine that
// swaps or a network that drops packets would.
// It returns when the process has stopped.
func (s *Server) Pause() {
	s.tb.Helper()
	s.signal(syscall.SIGSTOP)
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(s.cmd.Process.Pid, &status, syscall.WUNTRACED, nil); err != nil || !status.Stopped() {
		s.tb.Fatalf("redis-server did not stop: status %d, error %v", status, err)
	}
	s.paused = true
}

// Resume undoes Pause.
func (s *Server) Resume() {
	s.tb.Helper()
	s.signal(syscall.SIGCONT)
	s.paused = false
}

func (s *Server) signal(sig syscall.Signal) {
	s.tb.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.tb.Fatal(err)
	}
}

// Kill ends the process at once. Killing a dead server does nothing.
func (s *Server) Kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
	s.cmd, s.paused = nil, false
}

// Restart runs the server again at the same address, empty. A cluster node
// still has its slots, and a sentinel its master.
func (s *Server) Restart() {
	s.tb.Helper()
	s.Kill()
	s.launch()
}

// output collects what the server prints, for the message of a failed start.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) contains(text string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return bytes.Contains(o.buf.Bytes(), []byte(text))
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}
