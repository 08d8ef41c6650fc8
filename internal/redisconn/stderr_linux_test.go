package redisconn_test

import (
	"context"
	"io"
	"os"
	"syscall"
	"testing"

	"github.com/moat-gateway/moat/internal/redisconn"
)

// Not parallel: it looks at the standard error of the process.
func TestLibraryDoesNotWriteToStandardError(t *testing.T) {
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	// The library took os.Stderr when it was loaded; the descriptor is what counts.
	restore := redirectStderr(t, write)
	client := newClient(t, redisconn.Options{URL: "unix:///nowhere"})
	for range 50 {
		_ = client.Ping(context.Background()).Err()
	}
	_ = client.Close()
	restore()
	_ = write.Close()
	printed, err := io.ReadAll(read)
	if err != nil || len(printed) > 0 {
		t.Errorf("printed %q, error %v", printed, err)
	}
}

// redirectStderr points descriptor 2 to file until the returned function runs.
func redirectStderr(t *testing.T, file *os.File) (restore func()) {
	t.Helper()
	saved, err := syscall.Dup(2)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Dup3(int(file.Fd()), 2, 0); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := syscall.Dup3(saved, 2, 0); err != nil {
			t.Error(err)
		}
		_ = syscall.Close(saved)
	}
}
