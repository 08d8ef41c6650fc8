package file

import (
	"os"
	"time"
)

// Handle is an open file of a sink.
type Handle = handle

// Wrap puts something around every file that the sink opens from now on.
func Wrap(s *Sink, around func(Handle) Handle) {
	s.open = func(path string, flag int, mode os.FileMode) (handle, error) {
		file, err := openFile(path, flag, mode)
		if err != nil {
			return nil, err
		}
		return around(file), nil
	}
}

// Opening lets something happen before every opening of a file.
func Opening(s *Sink, happen func()) {
	s.open = func(path string, flag int, mode os.FileMode) (handle, error) {
		happen()
		return openFile(path, flag, mode)
	}
}

// Clock sets what the sink takes for the time.
func Clock(s *Sink, now func() time.Time) { s.now = now }
