package sqlite

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// creating is held while a database file is created. POSIX forgets all locks of
// a process on a file as soon as it closes any descriptor of it, SQLite's too, so
// nothing else in the process may open the file before the creator closed it.
var creating sync.Mutex

// makeFile sees to it that there is a file for SQLite to open, and that it is
// one. SQLite gives the files beside it the same mode. A file that is there is
// never opened here, for the reason given at creating.
func makeFile(path string) error {
	if err := makeDir(filepath.Dir(path)); err != nil {
		return err
	}
	creating.Lock()
	defer creating.Unlock()
	// O_EXCL does not follow a link (CWE-59).
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		return errors.Join(file.Close(), syncDir(filepath.Dir(path)))
	}
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	_, err = regular(path)
	return err
}

// regular returns what stands at path, when that is a file and no link.
func regular(path string) (os.FileInfo, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, plain("the path is a directory, a link or a device: must be a file")
	}
	return info, nil
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
