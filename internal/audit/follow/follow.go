// Package follow reads an audit journal and hands its lines to a sink, at
// least once and in order. It knows the journal's file format and how to keep
// a place in it; it does not know what a line means beyond its sequence
// number, instance and class, and it never writes to the journal.
//
// The journal is a directory of segments named NNNNNNNNNNNN.jsonl, after the
// sequence number of their first line. Segments are appended to and removed
// from the front, nothing else. A line counts once its newline is there.
package follow

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds that no setting can lift.
const (
	// MaxLine is the longest line a sink is given, in bytes and without its
	// newline. A longer one is set aside.
	MaxLine = 1 << 20
	// MaxBatch is the largest accepted Config.Batch, in lines.
	MaxBatch = 10_000
)

// Line is one complete line of the journal.
type Line struct {
	// Seq is the line's sequence number, never zero.
	Seq uint64
	// Instance names the gateway that wrote the line, never empty.
	Instance string
	// Class is the event's class, "access", "security" or "admin".
	Class string
	// Epoch is the boot during which the line was written: the line's own, or
	// the one its segment begins with. Empty when neither names one.
	Epoch string
	// Raw is the line without its newline: valid JSON in valid UTF-8. It is
	// valid only during the call unless copied, and must not be changed.
	Raw []byte
	// Text is what a sink carries instead of Raw when the events are wanted in
	// another format: one JSON object without a line break. Nil: Raw itself. It is
	// valid only during the call unless copied.
	Text []byte
}

// Content is what a sink carries: Text, or Raw where there is none.
func (l Line) Content() []byte {
	if l.Text != nil {
		return l.Text
	}
	return l.Raw
}

// Sink takes lines somewhere else.
type Sink interface {
	// Name is the kind of sink, for example "webhook": short and constant.
	Name() string
	// Deliver hands over lines in order. Nil means that all of them arrived.
	// Any error means that nothing is known about any of them and the same
	// lines come again, so a sink must bear duplicates. The errors *Poison,
	// ErrTooLarge, ErrRefused and *RetryAfter say more. Deliver returns soon after ctx
	// ends and is never called twice at the same time.
	Deliver(ctx context.Context, lines []Line) error
	// Close gives back what the sink holds. Closing twice is harmless.
	Close() error
}

// Config is what New needs. Dir, Cursor and Sink are required.
type Config struct {
	// Directory of the journal. It may come into being later.
	Dir string
	// File that keeps this sink's place across restarts, mode 0600, replaced
	// atomically. Its directory is created with mode 0700 when missing. Lines
	// that were set aside go to the same name with ".rejected" appended.
	Cursor string
	// Where the lines go. The owner closes it, after Run has returned.
	Sink Sink
	// Which events the sink is given. Default: all.
	Filter Filter
	// Appends a line in another format to dst: one JSON object without a line
	// break, the Text of the Line that the sink is given. A line that has none is
	// set aside. Default: the line itself.
	Format func(dst, line []byte) ([]byte, error)
	// Most lines in one delivery, which never exceeds one MiB either.
	// Default: 256.
	Batch int
	// How often the journal is looked at while there is nothing to deliver.
	// Default: 100 ms.
	Poll time.Duration
	// Budget of one delivery. Default: 10 s.
	Timeout time.Duration
	// Wait after the first failed delivery; each further one doubles it.
	// Default: 250 ms.
	BackoffMin time.Duration
	// Longest wait between two deliveries, also when the sink's server asks
	// for more. Default: 30 s.
	BackoffMax time.Duration
	// Clock for reported times. Default: time.Now.
	Now func() time.Time
	// Called on the first delivery that arrives, on each failure, when a row of
	// failures ends, when CursorError changes, and whenever lines were lost or set aside. It runs on the follower's goroutine and
	// must not block. Default: nobody is told.
	OnState func(State)
}

// State is what a follower knows about itself.
type State struct {
	// Sink is the sink's name.
	Sink string
	// Lag is the number of lines in the journal that were not delivered yet.
	Lag uint64
	// Failures counts failed attempts since the last delivery. Zero: healthy.
	Failures uint64
	// Failed counts failed attempts since start.
	Failed uint64
	// LastError says why the last attempt failed, at most 512 bytes of one
	// line. Empty while healthy.
	LastError string
	// CursorError says why the place could not be read or stored. Delivery
	// goes on, and a restart repeats lines. Empty while it could.
	CursorError string
	// LastSuccess is when lines were last delivered. Zero: never since start.
	LastSuccess time.Time
	// Position is the sequence number of the last line that is done with:
	// delivered, or set aside.
	Position uint64
	// Lost counts lines that were gone from the journal before this sink got
	// them, since start.
	Lost uint64
	// SetAside counts lines that the sink cannot take or that are no events,
	// since start. They are in the rejected file while it has room.
	SetAside uint64
}

// Follower delivers one journal to one sink.
type Follower struct {
	cfg  Config
	wake chan struct{}

	running  atomic.Bool
	position atomic.Uint64
	stored   atomic.Uint64

	mu    sync.Mutex
	state State
	ends  []end // of the journal, as it was seen to grow: those that are ahead of the place

	// Owned by Run.
	trail   *trail
	done    cursor // up to here everything is delivered or set aside
	saved   cursor
	savedAt time.Time
	limit   int // lines in the next delivery: below cfg.Batch after ErrTooLarge
	streak  int // deliveries since limit last changed
	looked  time.Time
	refused error // why the server refused a line that stood alone
}

// New checks cfg and returns a follower that has not touched any file yet.
func New(cfg Config) (*Follower, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	f := &Follower{cfg: cfg, wake: make(chan struct{}, 1), limit: cfg.Batch}
	f.state.Sink = cfg.Sink.Name()
	return f, nil
}

func (c Config) withDefaults() Config {
	if c.Batch == 0 {
		c.Batch = 256
	}
	c.Poll = orDefault(c.Poll, 100*time.Millisecond)
	c.Timeout = orDefault(c.Timeout, 10*time.Second)
	c.BackoffMin = orDefault(c.BackoffMin, 250*time.Millisecond)
	c.BackoffMax = orDefault(c.BackoffMax, 30*time.Second)
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

func orDefault(d, standard time.Duration) time.Duration {
	if d == 0 {
		return standard
	}
	return d
}

func (c Config) validate() error {
	var errs []error
	say := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("follow: "+format, args...))
	}
	if c.Dir == "" {
		say("dir: is empty: must name the journal's directory")
	}
	switch {
	case c.Cursor == "":
		say("cursor: is empty: must name a file")
	case isSegment(filepath.Base(c.Cursor)):
		say("cursor %q: is the name of a segment: must be another", c.Cursor)
	}
	switch {
	case c.Sink == nil:
		say("sink: is missing: must be given")
	case c.Sink.Name() == "":
		say("sink: has no name: its place could not be told from another's")
	}
	if err := c.Filter.Validate(); err != nil {
		errs = append(errs, err)
	}
	if c.Batch < 1 || c.Batch > MaxBatch {
		say("batch %d: must be between 1 and %d lines", c.Batch, MaxBatch)
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"poll", c.Poll}, {"timeout", c.Timeout},
		{"backoff_min", c.BackoffMin}, {"backoff_max", c.BackoffMax},
	} {
		if d.value < time.Millisecond || d.value > time.Hour {
			say("%s %s: must be between 1ms and 1h", d.name, d.value)
		}
	}
	if c.BackoffMin > c.BackoffMax {
		say("backoff_min %s: must not exceed backoff_max %s", c.BackoffMin, c.BackoffMax)
	}
	return errors.Join(errs...)
}

// Wake says that the journal has grown, so that an idle follower looks at once
// instead of after its poll interval. It never blocks.
func (f *Follower) Wake() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// Position is the sequence number of the last line the sink is done with, zero
// before any.
func (f *Follower) Position() uint64 { return f.position.Load() }

// Stored is the position from which a crash would have to go on, a moment behind
// Position, and zero before Run. Retention must keep what comes after it when the
// sink has to receive everything.
func (f *Follower) Stored() uint64 { return f.stored.Load() }
