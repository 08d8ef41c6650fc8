//go:build interop && linux

// Package interop puts the gateway before programs that other people wrote: npm's
// jose signs and verifies tokens, oidc-provider is an OpenID provider in a process
// of its own, MDN's HTTP Observatory and Google's CSP Evaluator judge headers.
// `make interop` runs it; versions are pinned in package-lock.json.
//
// The binary is taken from MOAT_BIN, or built into tmp/moat at the root of the
// module.
package interop

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// moatBinary is the path of the binary under test. TestMain sets it once.
var moatBinary string

// TestMain runs the tests and prints what was tried.
func TestMain(m *testing.M) {
	if _, err := os.Stat("node_modules"); err != nil {
		fmt.Fprintln(os.Stderr, "the libraries are missing; run scripts/interop, or npm ci --ignore-scripts here")
		os.Exit(1)
	}
	path, err := locateBinary()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	moatBinary = path
	began := time.Now()
	code := m.Run()
	figures.print(time.Since(began))
	os.Exit(code)
}

func locateBinary() (string, error) {
	if given := os.Getenv("MOAT_BIN"); given != "" {
		path, err := filepath.Abs(given)
		if err != nil {
			return "", fmt.Errorf("MOAT_BIN %q: %w", given, err)
		}
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("MOAT_BIN: %w", err)
		}
		return path, nil
	}
	path, err := filepath.Abs(filepath.Join("..", "..", "tmp", "moat"))
	if err != nil {
		return "", err
	}
	build := exec.Command("go", "build", "-o", path, "../../cmd/moat")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the gateway: %w\n%s", err, out)
	}
	return path, nil
}

// figures counts what the tests tried.
var figures tally

// tally is how many tokens met the gateway, by who made them, and the times
// worth knowing.
type tally struct {
	mu       sync.Mutex
	versions []string
	accepted map[string]int
	refused  map[string]map[string]int // maker, then reason
	verified map[string]int            // by jose, of tokens that Go code made
	times    map[string][]time.Duration
	started  []string // order of times
	notes    []string
}

// note leaves a line to be printed at the end.
func (f *tally) note(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.notes = append(f.notes, fmt.Sprintf(format, args...))
}

func (f *tally) version(name, value string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if line := name + " " + value; !slices.Contains(f.versions, line) {
		f.versions = append(f.versions, line)
	}
}

func (f *tally) accept(maker string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.accepted == nil {
		f.accepted = map[string]int{}
	}
	f.accepted[maker]++
}

func (f *tally) refuse(maker, reason string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refused == nil {
		f.refused = map[string]map[string]int{}
	}
	if f.refused[maker] == nil {
		f.refused[maker] = map[string]int{}
	}
	f.refused[maker][reason]++
}

func (f *tally) verify(maker string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.verified == nil {
		f.verified = map[string]int{}
	}
	f.verified[maker]++
}

func (f *tally) time(what string, d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.times == nil {
		f.times = map[string][]time.Duration{}
	}
	if f.times[what] == nil {
		f.started = append(f.started, what)
	}
	f.times[what] = append(f.times[what], d)
}

func (f *tally) print(total time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	slices.Sort(f.versions)
	fmt.Printf("interop: %s\n", strings.Join(f.versions, ", "))
	var makers []string
	for maker := range f.accepted {
		makers = append(makers, maker)
	}
	for maker := range f.refused {
		if f.accepted[maker] == 0 {
			makers = append(makers, maker)
		}
	}
	slices.Sort(makers)
	for _, maker := range makers {
		refused, why := 0, []string{}
		for reason, n := range f.refused[maker] {
			refused += n
			why = append(why, fmt.Sprintf("%s %d", reason, n))
		}
		slices.Sort(why)
		line := fmt.Sprintf("%d tried, %d accepted, %d refused", f.accepted[maker]+refused, f.accepted[maker], refused)
		if refused > 0 {
			line += " (" + strings.Join(why, ", ") + ")"
		}
		fmt.Printf("interop: tokens of %s: %s\n", maker, line)
	}
	for maker, n := range f.verified {
		fmt.Printf("interop: verifications by jose of tokens of %s: %d\n", maker, n)
	}
	for _, what := range f.started {
		all := f.times[what]
		slices.Sort(all)
		fmt.Printf("interop: %s: %d, median %s, most %s\n", what, len(all),
			all[len(all)/2].Round(10*time.Microsecond), all[len(all)-1].Round(10*time.Microsecond))
	}
	for _, line := range f.notes {
		fmt.Printf("interop: %s\n", line)
	}
	fmt.Printf("interop: %s in all\n", total.Round(100*time.Millisecond))
}
