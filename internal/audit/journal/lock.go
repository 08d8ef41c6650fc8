package journal

import (
	"errors"
	"time"
)

// ErrLocked says that somebody else writes to the directory.
var ErrLocked = errors.New("journal: another process writes to this directory")

// lockName is the file whose lock stands for the directory.
const lockName = ".lock"

// Patience with a holder that is just leaving, such as a process that ends
// while its successor starts, or a reader that looks whether the trail is live.
const (
	lockPatience = time.Second
	lockInterval = 20 * time.Millisecond
)

// releaser gives a lock back.
type releaser interface{ release() error }

func acquire(dir string) (releaser, error) {
	for began := time.Now(); ; time.Sleep(lockInterval) {
		lock, err := tryLock(dir)
		if !errors.Is(err, ErrLocked) || time.Since(began) > lockPatience {
			return lock, err
		}
	}
}
