//go:build unix

package policyfile_test

import (
	"crypto/sha256"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/moat-gateway/moat/internal/rbac"
	"github.com/moat-gateway/moat/internal/rbac/policyfile"
)

func TestAWatcherTellsWhatChangedInAPolicy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(path, []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	var told []policyfile.Outcome
	w := policyfile.Watcher{Report: func(o policyfile.Outcome) { told = append(told, o) }}
	w.Add(policyfile.Watched{
		Path: path, Sum: sha256.Sum256([]byte("old")),
		Prepare: func(data []byte) (rbac.Changes, func(), error) {
			return rbac.Changes{Added: []string{string(data)}}, func() {}, nil
		},
	})
	w.Check()
	w.Check()
	if len(told) != 1 || told[0].Err != nil || strings.Join(told[0].Changes.Added, "") != "new" {
		t.Errorf("told %+v", told)
	}
}

func TestAPipeIsNoPolicyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := policyfile.Read(path); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("%v", err)
	}
}

func TestAFileLargerThanTheLargestIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "large.yaml")
	if err := os.WriteFile(path, []byte(strings.Repeat("#", policyfile.MaxSize+10)), 0o600); err != nil {
		t.Fatal(err)
	}
	data, err := policyfile.Read(path)
	if err != nil || len(data) != policyfile.MaxSize+1 {
		t.Fatalf("%d bytes, %v; want one more than the largest", len(data), err)
	}
	if _, err := policyfile.Rules(path, data); err == nil {
		t.Error("accepted")
	}
}
