package file

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
)

// plain is an error in this package's own words.
type plain string

func (p plain) Error() string { return string(p) }

// clean reduces an error to what an operator needs: what failed, and how.
func clean(err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("file: %s: %w", e.Op, e.Err)
	}
	if e, ok := errors.AsType[syscall.Errno](err); ok {
		return fmt.Errorf("file: %w", e)
	}
	return fmt.Errorf("file: %w", err)
}
