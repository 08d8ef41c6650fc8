package sqlite

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// maxPath bounds Config.Path, in bytes. SQLite's own bound is 512.
const maxPath = 500

// Config is what New needs. Path is required.
type Config struct {
	// File of the database, best on a disk of this machine: the write-ahead log
	// does not work over a network. It is created with mode 0600 when missing, its
	// directory with mode 0700, and two files of the same name with "-wal" and
	// "-shm" appended stand beside it while it is in use. A file that is there must
	// be one of this sink, or empty.
	Path string
	// Table that takes the events, in lower case. It is created when missing.
	// Default: moat_audit.
	Table string
	// Budget of one delivery, waiting for other programs' locks included.
	// Default: 10 s.
	Timeout time.Duration
}

// tableName is PostgreSQL's rule of the sink of that name, without a schema.
var tableName = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,45}$`)

func (c Config) withDefaults() Config {
	if c.Table == "" {
		c.Table = "moat_audit"
	}
	if c.Timeout == 0 {
		c.Timeout = 10 * time.Second
	}
	return c
}

// validate returns all that is wrong at once.
func (c Config) validate() error {
	errs := []error{validatePath(c.Path)}
	switch {
	case !tableName.MatchString(c.Table):
		errs = append(errs, fmt.Errorf("sqlite: table %.80q: must be of a-z, 0-9 and _, at most 46 bytes", c.Table))
	case strings.HasPrefix(c.Table, "sqlite_"):
		errs = append(errs, fmt.Errorf("sqlite: table %q: must not begin with sqlite_, which SQLite keeps to itself", c.Table))
	}
	if c.Timeout < time.Millisecond || c.Timeout > time.Minute {
		errs = append(errs, fmt.Errorf("sqlite: timeout %s: must be between 1ms and 1m", c.Timeout))
	}
	return errors.Join(errs...)
}

func validatePath(path string) error {
	switch {
	case path == "":
		return errors.New("sqlite: path: is empty: must name a file")
	case len(path) > maxPath:
		return fmt.Errorf("sqlite: path: has %d bytes: must have at most %d", len(path), maxPath)
	case strings.ContainsRune(path, 0):
		return fmt.Errorf("sqlite: path %.80q: must not hold NUL", path)
	case os.IsPathSeparator(path[len(path)-1]), filepath.Base(path) == ".", filepath.Base(path) == "..":
		return fmt.Errorf("sqlite: path %.80q: is a directory: must name a file", path)
	}
	return nil
}
