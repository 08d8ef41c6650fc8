package file

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	// maxPath bounds Config.Path, and maxBase the name of the file in it, in
	// bytes: a rotated name is 24 bytes longer, and most systems end at 255.
	maxPath = 4000
	maxBase = 200
)

// Config is what New needs. Path is required.
type Config struct {
	// File that the lines are appended to. It is created when missing, its
	// directory with mode 0700. Rotated files stand beside it: audit.jsonl becomes
	// audit-20261126T031638.123456Z.jsonl, by the time of its rotation in UTC.
	Path string
	// Size at which the file is rotated, in bytes. A delivery is never divided, so
	// a single one larger than this makes a larger file. Default: 100 MiB.
	RollSize int64
	// Number of rotated files kept. Older ones are removed at a rotation; one that
	// cannot be removed stays and stops nothing. Default: 10.
	RollKeep int
	// Permissions of files that are created, whatever the umask. Others may be let
	// read, but not write. Default: 0600.
	Mode os.FileMode
	// Budget of one delivery. Default: 10 s.
	Timeout time.Duration
}

func (c Config) withDefaults() Config {
	if c.RollSize == 0 {
		c.RollSize = 100 << 20
	}
	if c.RollKeep == 0 {
		c.RollKeep = 10
	}
	if c.Mode == 0 {
		c.Mode = 0o600
	}
	if c.Timeout == 0 {
		c.Timeout = 10 * time.Second
	}
	return c
}

// validate returns all that is wrong at once.
func (c Config) validate() error {
	errs := []error{validatePath(c.Path)}
	say := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("file: "+format, args...))
	}
	if c.RollSize < 1<<20 || c.RollSize > 1<<40 {
		say("roll_size %d: must be between 1 MiB and 1 TiB, in bytes", c.RollSize)
	}
	if c.RollKeep < 1 || c.RollKeep > 10_000 {
		say("roll_keep %d: must be between 1 and 10000 files", c.RollKeep)
	}
	if c.Mode&0o600 != 0o600 || c.Mode&^0o644 != 0 {
		say("mode %#o: must let the owner read and write, and others read at most", uint32(c.Mode))
	}
	if c.Timeout < time.Millisecond || c.Timeout > time.Minute {
		say("timeout %s: must be between 1ms and 1m", c.Timeout)
	}
	return errors.Join(errs...)
}

func validatePath(path string) error {
	base := filepath.Base(path)
	switch {
	case path == "":
		return errors.New("file: path: is empty: must name a file")
	case len(path) > maxPath || len(base) > maxBase:
		return fmt.Errorf("file: path: has %d bytes, its last part %d: must have at most %d and %d", len(path), len(base), maxPath, maxBase)
	case strings.ContainsRune(path, 0):
		return fmt.Errorf("file: path %.80q: must not hold NUL", path)
	case os.IsPathSeparator(path[len(path)-1]), base == ".", base == "..":
		return fmt.Errorf("file: path %.80q: is a directory: must name a file", path)
	case rotatedName.MatchString(base):
		return fmt.Errorf("file: path %.300q: is the name of a rotated file: must be another", path)
	}
	return nil
}
