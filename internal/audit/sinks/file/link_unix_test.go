//go:build unix

package file_test

import (
	"os"
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
