//go:build linux

package integration

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// startBudget bounds how long a process may take until it serves. Two slow cores
// that run a dozen gateways at once need more than one would think.
const startBudget = 30 * time.Second

// logBuffer collects what a process prints; it may be read while it grows.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// process is a child of the test. The kernel ends it when the test dies.
type process struct {
	cmd    *exec.Cmd
	stdout logBuffer
	stderr logBuffer
	done   chan struct{}
}

// startProcess starts name and kills it at the end of the test at the latest.
func startProcess(t testing.TB, env []string, name string, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(name, args...), done: make(chan struct{})}
	p.cmd.Env = env
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("starting %s: %v", name, err)
	}
	go func() {
		defer close(p.done)
		// The exit status is read from ProcessState by whoever cares.
		_ = p.cmd.Wait()
	}()
	t.Cleanup(p.kill)
	return p
}

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) exited() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (p *process) signal(t testing.TB, sig syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		t.Fatalf("signal %v: %v", sig, err)
	}
}

func (p *process) kill() {
	if p.exited() {
		return
	}
	// A stopped process takes a SIGKILL too.
	_ = p.cmd.Process.Kill()
	<-p.done
}

// status reads one field of /proc/PID/status that counts in kB.
func (p *process) statusKiB(t testing.TB, field string) int64 {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid()))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		name, rest, _ := strings.Cut(line, ":")
		if name != field {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	t.Fatalf("no %s in /proc/%d/status", field, p.pid())
	return 0
}

// await polls until ok holds or the budget is over.
func await(t testing.TB, budget time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(budget)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s for %s", budget, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// ports remembers what freePort gave away, so that two tests never get the same.
var ports struct {
	sync.Mutex
	given map[int]bool
}

// freePort returns a loopback port that is free for TCP and UDP.
func freePort(t testing.TB) int {
	t.Helper()
	ports.Lock()
	defer ports.Unlock()
	if ports.given == nil {
		ports.given = map[int]bool{}
	}
	for range 100 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		u, err := net.ListenPacket("udp", fmt.Sprintf("127.0.0.1:%d", port))
		_ = l.Close()
		if err != nil {
			continue
		}
		_ = u.Close()
		if !ports.given[port] {
			ports.given[port] = true
			return port
		}
	}
	t.Fatal("no free port")
	return 0
}

// privateDir returns a directory with a short name: a Unix socket's path ends at
// 108 bytes, which t.TempDir may exceed.
func privateDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "moat")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("removing %s: %v", dir, err)
		}
	})
	return dir
}

// canDial reports whether something accepts connections at the TCP address.
func canDial(addr string) bool {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}
