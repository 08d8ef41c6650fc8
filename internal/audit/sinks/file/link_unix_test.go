//go:build unix

package file_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/moat-gateway/moat/internal/audit/sinks/file"
)

func TestAPipePutThereAtTheLastMomentIsRefused(t *testing.T) {
	path := place(t)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := open(t, file.Config{Path: path})
	file.Opening(s, func() {
		_ = os.Remove(path)
		if err := syscall.Mkfifo(path, 0o600); err != nil {
			t.Error(err)
		}
	})
	wantFailure(t, s, "must be a file")
	wantFailure(t, s, "must be a file")
}

func TestCreatedFilesHaveTheirModeWhateverTheUmask(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	for _, mode := range []os.FileMode{0, 0o600, 0o640, 0o644} {
		dir := filepath.Join(t.TempDir(), "a", "b")
		path := filepath.Join(dir, "audit.jsonl")
		s := open(t, file.Config{Path: path, Mode: mode, RollSize: 1 << 20})
		deliverLarge(t, s, 1, 5)
		want := mode
		if mode == 0 {
			want = 0o600
		}
		for name, want := range map[string]os.FileMode{path: want, rotated(t, path)[0]: want, dir: 0o700, filepath.Dir(dir): 0o700} {
			if info, err := os.Stat(name); err != nil || info.Mode().Perm() != want {
				t.Errorf("%s: %v, %v, want %v", name, info.Mode(), err, want)
			}
		}
	}
}
