//go:build linux

package integration

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestAuditVerifySaysWhetherATrailIsAsItWasWritten runs the command on the trail of
// a gateway that runs, of one that was stopped, and of one that somebody changed.
func TestAuditVerifySaysWhetherATrailIsAsItWasWritten(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{Rules: publicRules}, nil)
	for range 20 {
		s.get(t, "/open/a")
	}
	dir := s.journal()
	key := filepath.Join(dir, "checkpoint.key.pub")
	verify := func(want int, parts []string, args ...string) string {
		t.Helper()
		out, exit := s.moat(t, append([]string{"audit", "verify", dir}, args...)...)
		if exit != want || !containsAll(out, parts) {
			t.Errorf("%q: exit %d, want %d with %q\n%s", args, exit, want, parts, out)
		}
		return out
	}
	await(t, 5*time.Second, "HEAD", func() bool { _, err := os.Stat(filepath.Join(dir, "HEAD")); return err == nil })
	verify(0, []string{"clean", "signed", "as the trail itself says"})
	verify(0, []string{"clean", "signed"}, "--public-key", key, "--fresh", "5m")
	kept := filepath.Join(s.Dir, "kept-HEAD")
	copyFile(t, filepath.Join(dir, "HEAD"), kept)
	s.Stop(t)
	verify(0, []string{"0 lines behind the last signature"}, "--public-key", key, "--head", kept)
	var report struct {
		Clean  bool
		Report struct {
			Signed      bool
			Checkpoints int
		}
	}
	if err := json.Unmarshal([]byte(verify(0, nil, "--json")), &report); err != nil || !report.Clean || !report.Report.Signed || report.Report.Checkpoints < 2 {
		t.Errorf("%+v, %v", report, err)
	}
	verify(1, []string{"older than"}, "--fresh", "1ns")

	file := filepath.Join(dir, "000000000001.jsonl")
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(whole, []byte("\n"))
	put(t, file, string(bytes.Join(lines[:len(lines)-3], nil)))
	verify(1, []string{"CHANGED", "the trail ends before line number"})
	put(t, file, strings.Replace(string(whole), `"path":"/open/a"`, `"path":"/open/b"`, 1))
	out := verify(1, []string{"CHANGED  000000000001.jsonl:"}, "--public-key", key)
	if strings.Contains(out, "clean") {
		t.Errorf("%s", out)
	}
	put(t, file, string(whole))
	verify(0, []string{"clean"})
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	put(t, to, string(data))
}

// TestAuditVerifySaysWhenItCannotTell asks about nothing, and with wrong options.
func TestAuditVerifySaysWhenItCannotTell(t *testing.T) {
	t.Parallel()
	h := newHome(t, "", nil)
	put(t, filepath.Join(h.Dir, "no-key"), "x")
	for want, args := range map[string][]string{
		"there is no trail":        {h.Dir},
		"0 arguments":              {},
		"2 arguments":              {h.Dir, h.Dir},
		"--public-key: is empty":   {h.Dir, "--public-key", ""},
		"PEM-encoded public key":   {h.Dir, "--public-key", filepath.Join(h.Dir, "no-key")},
		"is no HEAD":               {h.Dir, "--head", filepath.Join(h.Dir, "no-key")},
		"no such file":             {h.Dir, "--head", filepath.Join(h.Dir, "nowhere")},
		"--fresh -1s":              {h.Dir, "--fresh", "-1s"},
		"unknown flag: --nonsense": {h.Dir, "--nonsense"},
	} {
		if out, exit := h.moat(t, append([]string{"audit", "verify"}, args...)...); exit != 2 || !strings.Contains(out, want) {
			t.Errorf("%q: exit %d, want 2 and %q\n%s", args, exit, want, out)
		}
	}
}
