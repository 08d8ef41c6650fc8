package sqlite

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"modernc.org/sqlite"
	codes "modernc.org/sqlite/lib"

	"github.com/moat-gateway/moat/internal/audit/follow"
)

// maxText bounds what is passed on of SQLite's words.
const maxText = 200

// plain is an error in this package's own words.
type plain string

func (p plain) Error() string { return string(p) }

// errHangs is the failure of a delivery that outlived its context.
const errHangs = plain("the disk does not answer")

// phrases say for SQLite's primary codes what is the matter.
var phrases = map[int]string{
	codes.SQLITE_PERM:       "access to the database is denied",
	codes.SQLITE_BUSY:       "the database is locked by another program",
	codes.SQLITE_LOCKED:     "the database is locked by another program",
	codes.SQLITE_READONLY:   "the database cannot be written",
	codes.SQLITE_IOERR:      "the disk failed to read or write",
	codes.SQLITE_CORRUPT:    "the database is damaged",
	codes.SQLITE_FULL:       "the disk is full",
	codes.SQLITE_CANTOPEN:   "the database cannot be opened",
	codes.SQLITE_PROTOCOL:   "the locks of the database are in disorder",
	codes.SQLITE_CONSTRAINT: "a rule of the table refuses the row",
	codes.SQLITE_NOTADB:     "the file is no database",
}

// clean reduces an error to what an operator needs. Values of rows never pass.
func clean(ctx context.Context, err error) error {
	if p, ok := errors.AsType[plain](err); ok {
		return fmt.Errorf("sqlite: %w", p)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("sqlite: %w", ctx.Err())
	}
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return ofCode(e)
	}
	if e, ok := errors.AsType[syscall.Errno](err); ok {
		return fmt.Errorf("sqlite: %w", e)
	}
	return errors.New("sqlite: the connection to the database broke")
}

// ofCode says what SQLite's code means. A constraint is a rule that somebody
// added to the table: whether a line or the rule is at fault, nobody knows.
func ofCode(e *sqlite.Error) error {
	primary := e.Code() & 0xff
	text, known := phrases[primary]
	if !known {
		text = cut(e.Error())
	}
	if primary == codes.SQLITE_CONSTRAINT {
		return fmt.Errorf("sqlite: %s (code %d): %w", text, e.Code(), follow.ErrRefused)
	}
	return fmt.Errorf("sqlite: %s (code %d)", text, e.Code())
}

func cut(text string) string {
	return strings.ToValidUTF8(text[:min(len(text), maxText)], "")
}
