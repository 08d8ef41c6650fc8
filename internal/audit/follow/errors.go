package follow

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// ErrTooLarge is returned by a sink whose server refuses the delivery for its
// size. The follower delivers half as many lines and slowly grows again. For a
// delivery of a single line it means that this line is set aside.
var ErrTooLarge = errors.New("follow: the delivery is too large")

// ErrRefused is returned by a sink whose server has understood the delivery and
// says that it will never take it, without saying whether a line or the whole way
// of delivering is at fault: HTTP 400 and 422 are such answers. The follower
// delivers less and less until one line stands alone. It sets that line aside
// only after the server has taken a later one; a server that refuses them all is
// a failure like any other, and nothing is lost.
var ErrRefused = errors.New("follow: the delivery is refused for what it holds")

// ErrRunning is returned by Run when the follower runs already.
var ErrRunning = errors.New("follow: the follower runs already")

// Poison is returned by a sink that can take the delivery but for one line,
// now and for ever. The line is set aside and the others come again.
type Poison struct {
	// Index is the line's place among those delivered.
	Index int
	// Err says what is wrong with the line.
	Err error
}

// Error names the line by its place and says what is wrong with it.
func (p *Poison) Error() string { return fmt.Sprintf("follow: line %d: %v", p.Index, p.Err) }

// Unwrap returns what is wrong with the line.
func (p *Poison) Unwrap() error { return p.Err }

// RetryAfter is returned by a sink whose server says when to come again. The
// follower waits that long, but never longer than its longest backoff.
type RetryAfter struct {
	// After is the wait the server asked for.
	After time.Duration
	// Err is why the delivery failed.
	Err error
}

// Error says why the delivery failed.
func (r *RetryAfter) Error() string { return r.Err.Error() }

// Unwrap returns why the delivery failed.
func (r *RetryAfter) Unwrap() error { return r.Err }

const maxErrorText = 512

// bounded makes one short printable line of an error, since the text may
// carry what a server said.
func bounded(err error) string {
	text := err.Error()
	if len(text) > maxErrorText {
		text = text[:maxErrorText]
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == utf8.RuneError {
			return -1
		}
		return r
	}, strings.ReplaceAll(text, "\n", "; "))
}
