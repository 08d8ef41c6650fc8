package file

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

var errNoFile = plain("the path is a directory, a link or a device: must be a file")

// handle is an open file, so that tests can let it fail.
type handle interface {
	io.ReaderAt
	io.WriteCloser
	Stat() (os.FileInfo, error)
	Chmod(mode os.FileMode) error
	Sync() error
}

func openFile(path string, flag int, mode os.FileMode) (handle, error) {
	file, err := os.OpenFile(path, flag|noFollow, mode)
	if err != nil {
		return nil, err // no handle that holds a nil
	}
	return file, nil
}

// regular fails when there is nothing at path, or something else than a file.
func regular(path string) error {
	info, err := os.Lstat(path)
	if err == nil && !info.Mode().IsRegular() {
		return errNoFile
	}
	return err
}

// openOrCreate opens the file, or creates it durably and with the mode, whatever
// the umask. It does not follow a link (CWE-59).
func (s *Sink) openOrCreate() (handle, error) {
	const flag = os.O_RDWR | os.O_APPEND
	err := regular(s.config.Path)
	if err == nil {
		return s.open(s.config.Path, flag, 0)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err := makeDir(s.names.dir); err != nil {
		return nil, err
	}
	file, err := s.open(s.config.Path, flag|os.O_CREATE|os.O_EXCL, s.config.Mode)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(file.Chmod(s.config.Mode), syncDir(s.names.dir)); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// makeDir creates what is missing of dir, durably.
func makeDir(dir string) error {
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(dir)
	if err := makeDir(parent); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(parent)
}

// syncDir makes the names in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
