package journal_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/moat-gateway/moat/internal/audit/journal"
)

// disk is the real disk with faults. Its zero value works.
type disk struct {
	journal.OSFiles

	mu       sync.Mutex
	room     int64 // bytes that may still be written, when limited
	limited  bool
	write    error // what a write fails with after half of it
	sync     error
	truncate error
	create   error
	remove   error
	syncDir  error
	mkdir    error
	syncs    int
	hang     chan struct{} // writes wait for it
	onRemove func(path string)
}

var errBroken = errors.New("broken disk")

// set changes faults while the journal runs.
func (d *disk) set(change func(*disk)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(d)
}

func (d *disk) fault(pick func(*disk) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return pick(d)
}

// count returns how often files were synced.
func (d *disk) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.syncs
}

func (d *disk) MkdirAll(dir string) error {
	if err := d.fault(func(d *disk) error { return d.mkdir }); err != nil {
		return err
	}
	return d.OSFiles.MkdirAll(dir)
}

func (d *disk) Create(path string) (journal.File, error) {
	if err := d.fault(func(d *disk) error { return d.create }); err != nil {
		return nil, err
	}
	f, err := d.OSFiles.Create(path)
	return &diskFile{File: f, disk: d}, err
}

func (d *disk) Truncate(path string, size int64) error {
	if err := d.fault(func(d *disk) error { return d.truncate }); err != nil {
		return err
	}
	return d.OSFiles.Truncate(path, size)
}

func (d *disk) Remove(path string) error {
	if err := d.fault(func(d *disk) error { return d.remove }); err != nil {
		return err
	}
	if d.onRemove != nil {
		d.onRemove(path)
	}
	return d.OSFiles.Remove(path)
}

func (d *disk) SyncDir(dir string) error {
	if err := d.fault(func(d *disk) error { return d.syncDir }); err != nil {
		return err
	}
	return d.OSFiles.SyncDir(dir)
}

type diskFile struct {
	journal.File
	disk *disk
}

// Write writes what there is room for, as a real disk does.
func (f *diskFile) Write(b []byte) (int, error) {
	f.disk.mu.Lock()
	hang := f.disk.hang
	f.disk.mu.Unlock()
	if hang != nil {
		<-hang
	}
	f.disk.mu.Lock()
	n, err := len(b), f.disk.write
	if err != nil {
		n /= 2
	}
	if f.disk.limited {
		if int64(n) > f.disk.room {
			n, err = int(f.disk.room), syscall.ENOSPC
		}
		f.disk.room -= int64(n)
	}
	f.disk.mu.Unlock()
	m, writeErr := f.File.Write(b[:n])
	return m, errors.Join(err, writeErr)
}

func (f *diskFile) Sync() error {
	f.disk.mu.Lock()
	f.disk.syncs++
	err := f.disk.sync
	f.disk.mu.Unlock()
	return errors.Join(err, f.File.Sync())
}

func (f *diskFile) Truncate(size int64) error {
	if err := f.disk.fault(func(d *disk) error { return d.truncate }); err != nil {
		return err
	}
	return f.File.Truncate(size)
}

// copyTrail copies the segments to a new directory, as a crash leaves them.
func copyTrail(from, to string) error {
	list, err := filepath.Glob(filepath.Join(from, "*.jsonl"))
	if err != nil {
		return err
	}
	for _, path := range list {
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, filepath.Base(path)), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// troubles collects what OnTrouble was told.
type troubles struct {
	mu    sync.Mutex
	kinds []string
}

func (t *troubles) tell(kind string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if (err == nil) != (kind == journal.TroubleOver) {
		kind += " with the wrong error"
	}
	t.kinds = append(t.kinds, kind)
}

func (t *troubles) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(t.kinds, " ")
}
