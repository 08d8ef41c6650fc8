package file

import (
	"errors"
	"io"
	"os"
)

var errMoved = plain("the file was removed or moved: it is opened anew")

// append writes the content, which is on disk when it returns nil. After a
// failure the file is opened anew, and so is looked at anew.
func (s *Sink) append(content []byte) error {
	err := s.ready(int64(len(content)))
	if err == nil {
		err = s.write(content)
	}
	// Moved meanwhile, the lines may be in a file that nobody finds any more.
	if err == nil && !s.named() {
		err = errMoved
	}
	if err != nil {
		s.shut()
	}
	return err
}

func (s *Sink) write(content []byte) error {
	n, err := s.file.Write(content)
	if err == nil && n < len(content) {
		err = io.ErrShortWrite
	}
	if err != nil {
		return err
	}
	// What a failed fsync leaves on disk is unknown, and a later one says nothing
	// about it.
	s.suspect = true
	if err := s.file.Sync(); err != nil {
		return err
	}
	s.suspect = false
	return nil
}

// ready sees to it that the file at the path is open and has room.
func (s *Sink) ready(size int64) error {
	if s.file != nil && !s.named() {
		s.shut()
	}
	if s.file == nil {
		if err := s.reopen(); err != nil {
			return err
		}
	}
	// Asked each time: somebody may have cut the file, or written to it.
	info, err := s.file.Stat()
	if err != nil {
		return err
	}
	if info.Size() == 0 || info.Size()+size <= s.config.RollSize {
		return nil
	}
	return s.rotate()
}

// reopen opens the file and ends a line that a crash, a full disk or another
// program tore. The torn end is not cut off: a shipper may have read it, and
// would take what comes in its place for the rest of it.
func (s *Sink) reopen() error {
	file, err := s.openOrCreate()
	if err != nil {
		return err
	}
	s.file = file
	if s.info, err = file.Stat(); err != nil {
		return err
	}
	if !s.info.Mode().IsRegular() {
		return errNoFile
	}
	whole, err := endsWhole(file, s.info.Size())
	if err != nil || whole && !s.suspect || s.info.Size() == 0 {
		return err
	}
	return s.write([]byte{'\n'})
}

func endsWhole(file io.ReaderAt, size int64) (bool, error) {
	if size == 0 {
		return true, nil
	}
	last := make([]byte, 1)
	if _, err := file.ReadAt(last, size-1); err != nil {
		return false, err
	}
	return last[0] == '\n', nil
}

// named reports whether the file that is open still bears its name. What is
// written to a file without one is lost when it is closed.
func (s *Sink) named() bool {
	info, err := os.Lstat(s.config.Path)
	return err == nil && os.SameFile(info, s.info)
}

// rotate gives the file its rotated name and begins another one.
func (s *Sink) rotate() error {
	path, err := s.names.reserve(s.now(), s.config.Mode)
	if err != nil {
		return err
	}
	s.shut() // some systems rename no open file
	if err := os.Rename(s.config.Path, path); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	// Durable before a line goes to the next file: after a power loss no line may
	// be found before an older one.
	if err := syncDir(s.names.dir); err != nil {
		return err
	}
	if err := s.names.prune(s.config.RollKeep); err != nil {
		return err
	}
	return s.reopen()
}

func (s *Sink) shut() {
	if s.file != nil {
		_ = s.file.Close() // what was delivered is on disk
		s.file, s.info = nil, nil
	}
}
