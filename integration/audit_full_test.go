//go:build linux

package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// fullDisk is where a journal lies that can be made full and given space again.
type fullDisk struct {
	journal string
	audit   string // more lines of the journal block
	fill    func(*site)
	free    func(*site)
}

// newFullDisk mounts a small tmpfs. Where that is not permitted, the disk counts as
// full by a reserve that no disk has, until a reload takes the reserve away: the
// gateway behaves the same, and ENOSPC itself is tried by the journal's own tests.
func newFullDisk(t *testing.T) fullDisk {
	t.Helper()
	dir := privateDir(t)
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=2m,mode=0700"); err != nil {
		if !errors.Is(err, syscall.EPERM) && !errors.Is(err, syscall.EACCES) {
			t.Fatal(err)
		}
		t.Logf("mount: %v: full by reserve; ENOSPC is tried in internal/audit/journal/full_test.go only", err)
		return fullDisk{
			journal: filepath.Join(dir, "journal"), audit: "reserve 0",
			fill: func(s *site) { s.reserve(t, "0", "900TiB") },
			free: func(s *site) { s.reserve(t, "900TiB", "0") },
		}
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	filler := filepath.Join(dir, "filler")
	return fullDisk{
		journal: filepath.Join(dir, "journal"), audit: "reserve 0",
		fill: func(*site) { fillUp(t, filler) },
		free: func(*site) {
			if err := os.Remove(filler); err != nil {
				t.Fatal(err)
			}
		},
	}
}

func (s *site) reserve(t *testing.T, from, to string) {
	t.Helper()
	s.reload(t, func(c *siteConfig) { c.Global = strings.Replace(c.Global, "reserve "+from, "reserve "+to, 1) })
}

// fillUp writes a file until there is no space left.
func fillUp(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	block := make([]byte, 4096)
	for range 10_000 {
		if _, err := f.Write(block); errors.Is(err, syscall.ENOSPC) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("the disk is larger than it should be")
}

func startOnFullDisk(t *testing.T, onFull string) (*site, fullDisk) {
	t.Helper()
	d := newFullDisk(t)
	s := startSite(t, siteConfig{NoAudit: true, Global: fmt.Sprintf(`
		audit {
			journal {$MOAT_JOURNAL} {
				fsync 10ms
				%s
			}
			%s
		}`, d.audit, onFull)}, map[string]string{"MOAT_JOURNAL": d.journal})
	if a := s.get(t, "/open/before"); a.Status != 200 {
		t.Fatalf("with space: status %d\n%s", a.Status, a.Body)
	}
	d.fill(s)
	// What is left of the last page takes some events yet.
	await(t, 10*time.Second, "the journal to be full", func() bool {
		s.get(t, "/nowhere/filling")
		return strings.Contains(s.Log(), "disk-full") || s.get(t, "/open/filling").Status == 503
	})
	return s, d
}

// wantRefusals checks that refusals stay what they are on a full disk, and that
// nobody is held up for them.
func wantRefusals(t *testing.T, s *site) {
	t.Helper()
	user := bearer(s.Issuer.as(t, "u-1", "user"))
	for range 3 {
		began := time.Now()
		wantProblem(t, s.get(t, "/me"), 401, "token-missing")
		wantProblem(t, s.get(t, "/documents/7", user), 403, "forbidden")
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("two refusals took %s", took)
		}
	}
}

// wantRecovery frees space: requests pass again, and the trail verifies.
func wantRecovery(t *testing.T, s *site, d fullDisk) {
	t.Helper()
	d.free(s)
	var a answer
	await(t, 3*time.Second, "requests to pass again", func() bool {
		a = s.get(t, "/open/after")
		return a.Status == 200
	})
	var found []event
	await(t, 3*time.Second, "the trail to go on", func() bool {
		found = ofRequest(readJournal(t, d.journal), a.Header.Get("X-Request-Id"))
		return len(found) > 0
	})
	if found[0].Path != "/open/after" {
		t.Errorf("%s", found[0].Line)
	}
	for _, when := range []string{"while the gateway runs", "after its end"} {
		if out, exit := s.moat(t, "audit", "verify", d.journal); exit != 0 {
			t.Errorf("audit verify %s: exit %d\n%s", when, exit, out)
		}
		s.Stop(t)
	}
	checkTrail(t, readJournal(t, d.journal))
}

func TestFullDiskRefusesWhatWouldBeAllowed(t *testing.T) {
	t.Parallel()
	s, d := startOnFullDisk(t, "")
	for range 5 {
		a := s.get(t, "/open/full")
		wantProblem(t, a, 503, "unavailable")
		if a.Header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
	}
	before := len(s.Spy.requests())
	s.get(t, "/open/full")
	if n := len(s.Spy.requests()); n != before {
		t.Error("a request that was answered 503 reached the upstream")
	}
	wantRefusals(t, s)
	wantRecovery(t, s, d)
}

func TestFullDiskWithOnFullOpenLetsRequestsPass(t *testing.T) {
	t.Parallel()
	s, d := startOnFullDisk(t, "on_full open")
	for range 5 {
		if a := s.get(t, "/open/full"); a.Status != 200 {
			t.Fatalf("status %d\n%s", a.Status, a.Body)
		}
	}
	wantRefusals(t, s)
	wantRecovery(t, s, d)
}
