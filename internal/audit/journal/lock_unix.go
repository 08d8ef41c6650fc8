//go:build unix && !solaris && !illumos && !aix

package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// fileLock is an advisory lock that the kernel ends with the process, so that
// a crash leaves nothing behind.
type fileLock struct{ f *os.File }

func tryLock(dir string) (releaser, error) {
	// #nosec G304 -- the configured directory
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	// #nosec G115 -- a file descriptor is a small number
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: %s", ErrLocked, dir)
		}
		return nil, fmt.Errorf("journal: lock %s: %w", dir, err)
	}
	return &fileLock{f}, nil
}

func (l *fileLock) release() error { return l.f.Close() }

// live reports whether a journal is open on dir.
func live(dir string) bool {
	f, err := os.Open(filepath.Join(dir, lockName)) // #nosec G304 -- given by the operator
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	// #nosec G115 -- a file descriptor is a small number
	return errors.Is(syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB), syscall.EWOULDBLOCK)
}
