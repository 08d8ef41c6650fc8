//go:build interop && linux

package interop

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// startBudget bounds how long a process may take until it serves.
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
	stdin  io.WriteCloser
	stdout logBuffer
	stderr logBuffer
	done   chan struct{}
}

func startProcess(t testing.TB, env []string, name string, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(name, args...), done: make(chan struct{})}
	p.cmd.Env = env
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	var err error
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("starting %s: %v", name, err)
	}
	go func() {
		defer close(p.done)
		// The exit status is read from ProcessState by whoever cares.
		_ = p.cmd.Wait()
	}()
	t.Cleanup(p.end)
	return p
}

// startNode starts a program under node/.
func startNode(t testing.TB, program string, args ...string) *process {
	t.Helper()
	path := "PATH=" + os.Getenv("PATH")
	return startProcess(t, []string{path, "HOME=" + t.TempDir()}, "node", append([]string{"node/" + program}, args...)...)
}

func (p *process) exited() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// end asks the process to end and does not ask twice.
func (p *process) end() {
	if p.exited() {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(15 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// lines returns the whole lines that the process printed so far.
func (p *process) lines() []string {
	text := p.stdout.String()
	return strings.Split(text, "\n")[:strings.Count(text, "\n")]
}

// await polls until ok holds or the budget is over.
func await(t testing.TB, budget time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(budget)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s for %s", budget, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// ports remembers what freePort gave away, so that two tests never get the same.
var ports sync.Map

// freePort returns a loopback port that nothing listens at.
func freePort(t testing.TB) int {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		_ = l.Close()
		if _, taken := ports.LoadOrStore(port, true); !taken {
			return port
		}
	}
	t.Fatal("no free port")
	return 0
}

func canDial(port int) bool {
	conn, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), time.Second)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}
