//go:build linux

package integration

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// options of a gateway process.
type options struct {
	Ready []string          // TCP addresses that must accept before the gateway counts as started
	Env   map[string]string // added to the private environment
}

// home is a private world for moat commands: no file of the machine's user is
// read or written.
type home struct {
	Dir  string
	File string // the Caddyfile
	Env  []string
}

func newHome(t testing.TB, caddyfile string, env map[string]string) *home {
	t.Helper()
	dir := privateDir(t)
	h := &home{Dir: dir, File: filepath.Join(dir, "Caddyfile")}
	for _, sub := range []string{"home", "data", "config", "run"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	h.Env = []string{
		"PATH=/usr/bin:/bin",
		"HOME=" + filepath.Join(dir, "home"),
		"XDG_DATA_HOME=" + filepath.Join(dir, "data"),
		"XDG_CONFIG_HOME=" + filepath.Join(dir, "config"),
		"MOAT_ADMIN=unix/" + filepath.Join(dir, "run", "admin.sock") + "|0600",
		"MOAT_JOURNAL=" + filepath.Join(dir, "journal"),
	}
	for name, value := range env {
		h.Env = append(h.Env, name+"="+value)
	}
	h.write(t, caddyfile)
	return h
}

func (h *home) write(t testing.TB, caddyfile string) {
	t.Helper()
	if err := os.WriteFile(h.File, []byte(caddyfile), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (h *home) journal() string { return filepath.Join(h.Dir, "journal") }

// moat runs one command of the binary to its end and returns what it printed and
// its exit code.
func (h *home) moat(t testing.TB, args ...string) (output string, exit int) {
	t.Helper()
	cmd := exec.Command(moatBinary, args...)
	cmd.Env, cmd.Dir = h.Env, h.Dir
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	watchdog := time.AfterFunc(startBudget, func() { _ = cmd.Process.Kill() })
	defer watchdog.Stop()
	err := cmd.Wait()
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		t.Fatalf("moat %s: %v", strings.Join(args, " "), err)
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

func (h *home) validate(t testing.TB) (output string, exit int) {
	t.Helper()
	return h.moat(t, "validate", "--config", h.File, "--adapter", "caddyfile")
}

// gateway is a running moat process.
type gateway struct {
	*home
	*process
	adminAddress string
}

// startMoat starts a gateway with the Caddyfile and waits until it serves. The
// Caddyfile may use {$MOAT_ADMIN} and {$MOAT_JOURNAL} and what options.Env sets.
func startMoat(t testing.TB, caddyfile string, o options) *gateway {
	t.Helper()
	h := newHome(t, caddyfile, o.Env)
	return startIn(t, h, o.Ready, "--config", h.File, "--adapter", "caddyfile")
}

// startIn starts `moat run` in an existing home.
func startIn(t testing.TB, h *home, ready []string, args ...string) *gateway {
	t.Helper()
	g := &gateway{home: h, adminAddress: "unix/" + filepath.Join(h.Dir, "run", "admin.sock")}
	g.process = startProcess(t, h.Env, moatBinary, append([]string{"run"}, args...)...)
	t.Cleanup(func() {
		g.Stop(t)
		if t.Failed() {
			t.Logf("gateway printed:\n%s", lastLines(g.Log(), 12))
		}
	})
	await(t, startBudget, "the gateway to serve", func() bool {
		if g.exited() {
			t.Fatalf("the gateway ended:\n%s", g.Log())
		}
		if !strings.Contains(g.Log(), "serving initial configuration") {
			return false
		}
		for _, addr := range ready {
			if !canDial(addr) {
				return false
			}
		}
		return true
	})
	return g
}

// Reload gives the running gateway another Caddyfile.
func (g *gateway) Reload(t testing.TB, caddyfile string) (output string, exit int) {
	t.Helper()
	g.write(t, caddyfile)
	return g.moat(t, "reload", "--config", g.File, "--adapter", "caddyfile", "--address", g.adminAddress)
}

// Stop asks the gateway to end in good order and waits for it.
func (g *gateway) Stop(t testing.TB) {
	t.Helper()
	if g.exited() {
		return
	}
	_ = g.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-g.done:
	case <-time.After(20 * time.Second):
		t.Errorf("the gateway did not end within 20s of SIGTERM")
		g.kill()
	}
}

// Log returns everything the gateway printed so far.
func (g *gateway) Log() string { return g.stdout.String() + g.stderr.String() }

// rootCertificate is the root of the gateway's internal authority.
func (g *gateway) rootCertificate() string {
	return filepath.Join(g.Dir, "data", "caddy", "pki", "authorities", "local", "root.crt")
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return strings.Join(lines, "\n")
}

// caddyfile puts global options of a test gateway around the lines of the global
// moat block and appends the sites.
func caddyfile(moat string, sites ...string) string {
	return fmt.Sprintf(`{
	admin {$MOAT_ADMIN}
	persist_config off
	skip_install_trust
	auto_https disable_redirects
	grace_period 5s
	servers {
		strict_sni_host on
		0rtt off
	}
	moat {
%s
	}
}
%s
`, moat, strings.Join(sites, "\n"))
}
