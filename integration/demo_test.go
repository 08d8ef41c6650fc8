//go:build linux

package integration

import (
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestTheDemoShowsWhatItPrints runs the demo and then the lines it prints.
func TestTheDemoShowsWhatItPrints(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("curl"); err != nil {
		t.Fatalf("curl is needed: %v", err)
	}
	h := newHome(t, "", nil)
	env := append(h.Env, "TMPDIR="+h.Dir)
	began := time.Now()
	p := startProcess(t, env, moatBinary, "demo", "--port", strconv.Itoa(freePort(t)))
	await(t, startBudget, "the demo's instructions", func() bool {
		if p.exited() {
			t.Fatalf("the demo ended:\n%s%s", p.stdout.String(), p.stderr.String())
		}
		return strings.Contains(p.stdout.String(), "Ctrl-C")
	})
	t.Logf("from start to instructions: %s", time.Since(began).Round(time.Millisecond))
	var statuses []string
	for line := range strings.Lines(p.stdout.String()) {
		if !strings.HasPrefix(line, "curl ") {
			continue
		}
		cmd := exec.Command("sh", "-c", line)
		cmd.Env = env
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", line, err, out)
		}
		for _, m := range regexp.MustCompile(`(?m) (\d{3})$`).FindAllStringSubmatch(string(out), -1) {
			statuses = append(statuses, m[1])
		}
	}
	if got, want := strings.Join(statuses, " "), "200 200 401 401 403 200 200 200 429"; got != want {
		t.Errorf("statuses %s, want %s", got, want)
	}
	dir := regexp.MustCompile(`The audit journal: +(\S+)`).FindStringSubmatch(p.stdout.String())
	if dir == nil {
		t.Fatal("the journal's place is not printed")
	}
	p.signal(t, syscall.SIGINT)
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		t.Fatal("Ctrl-C did not end the demo")
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d after Ctrl-C", code)
	}
	refused := filterEvents(readJournal(t, dir[1]), func(e event) bool { return e.Outcome == "deny" })
	if len(refused) != 4 {
		t.Errorf("%d refusals in the journal, want 4", len(refused))
	}
	if _, err := os.Stat(dir[1]); err != nil {
		t.Error(err)
	}
}
