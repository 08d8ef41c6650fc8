// Package redisstream is the audit sink that adds each line to a Redis stream.
// It knows follow's lines and a Redis client; it does not know how the client
// was configured, and never trims or reads a stream on anybody's behalf.
//
// The stream of an instance is KEY:INSTANCE. An entry has one field, "event",
// the line as it stands, and the id SEQ-0. Redis takes ids in rising order
// only, which makes a second delivery of the same line harmless. When the
// stream has moved past a number with another event (a journal that began anew,
// or one that lost its end in a power failure and numbers on) the line is added
// behind the last entry, under that entry's number and the next free suffix:
// out of numbers, but in order and not lost.
package redisstream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/moat-gateway/moat/internal/audit/follow"
)

const (
	field = "event"
	// maxKey bounds Config.Key, in bytes.
	maxKey = 512
)

// ErrClosed is returned by Deliver after Close.
var ErrClosed = errors.New("redisstream: the sink is closed")

// Config is what New needs. Key is required.
type Config struct {
	// First part of the streams' keys. The instance follows after a colon.
	Key string
	// Budget of one delivery. Default: 2 s. A delivery whose context is
	// cancelled may go on for as long, because the client heeds deadlines only.
	Timeout time.Duration
}

// Sink adds lines to Redis streams.
type Sink struct {
	client  redis.UniversalClient
	key     string
	timeout time.Duration

	mu     sync.Mutex
	closed bool
	tops   map[string]id // last entry of each stream, where it is known
}

// id is the id of a stream entry.
type id struct{ seq, sub uint64 }

func (i id) String() string {
	return strconv.FormatUint(i.seq, 10) + "-" + strconv.FormatUint(i.sub, 10)
}

// New returns a sink that uses client, which stays the caller's: it is not
// closed by Close and must outlive the sink. It must heed the deadline of a
// context (ContextTimeoutEnabled).
func New(client redis.UniversalClient, cfg Config) (*Sink, error) {
	if cfg.Timeout == 0 {
		cfg.Timeout = 2 * time.Second
	}
	var errs []error
	if cfg.Key == "" || len(cfg.Key) > maxKey {
		errs = append(errs, fmt.Errorf("redisstream: key of %d bytes: must have between 1 and %d", len(cfg.Key), maxKey))
	}
	if cfg.Timeout < time.Millisecond || cfg.Timeout > time.Minute {
		errs = append(errs, fmt.Errorf("redisstream: timeout %s: must be between 1ms and 1m", cfg.Timeout))
	}
	client, err := bounded(client, cfg.Timeout)
	if err = errors.Join(append(errs, err)...); err != nil {
		return nil, err
	}
	return &Sink{client: client, key: cfg.Key, timeout: cfg.Timeout, tops: map[string]id{}}, nil
}

// bounded returns the client with timeouts that suit a delivery. What a client
// is given for single small commands on a request's path is too short here.
func bounded(client redis.UniversalClient, timeout time.Duration) (redis.UniversalClient, error) {
	heeds := true
	switch c := client.(type) {
	case nil:
		return nil, errors.New("redisstream: client: is missing: must be given")
	case *redis.Client:
		if heeds = c.Options().ContextTimeoutEnabled; heeds {
			client = c.WithTimeout(timeout)
		}
	case *redis.ClusterClient:
		heeds = c.Options().ContextTimeoutEnabled
	}
	if !heeds {
		return nil, errors.New("redisstream: client: ignores the deadline of a context: must have ContextTimeoutEnabled")
	}
	return client, nil
}

// Name returns "redis_stream".
func (s *Sink) Name() string { return "redis_stream" }

// Close ends the sink and leaves the client open.
func (s *Sink) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return nil
}

// Deliver adds the lines, each once.
func (s *Sink) Deliver(ctx context.Context, lines []follow.Line) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	for len(lines) > 0 {
		n := 1
		for n < len(lines) && lines[n].Instance == lines[0].Instance {
			n++
		}
		if err := s.deliver(ctx, s.key+":"+lines[0].Instance, lines[:n]); err != nil {
			return err
		}
		lines = lines[n:]
	}
	return nil
}

// deliver adds lines to one stream in one transaction: entries are refused
// unless their ids rise, so a line that failed in the middle of a pipeline
// could never be made up for.
func (s *Sink) deliver(ctx context.Context, stream string, lines []follow.Line) error {
	top, known := s.tops[stream]
	delete(s.tops, stream) // until it is known to be right again
	if !known || !rises(top, lines) {
		var err error
		if top, lines, err = s.missing(ctx, stream, lines); err != nil {
			return fmt.Errorf("redisstream: read: %w", clean(err))
		}
	}
	if len(lines) > 0 {
		last, err := s.add(ctx, stream, top, lines)
		if err != nil {
			return fmt.Errorf("redisstream: add: %w", clean(err))
		}
		top = last
	}
	s.tops[stream] = top
	return nil
}

// rises reports whether all lines can have their own number as id.
func rises(top id, lines []follow.Line) bool {
	for _, line := range lines {
		if line.Seq <= top.seq {
			return false
		}
		top = id{line.Seq, 0}
	}
	return true
}

// missing returns the stream's last id and those lines that it does not hold.
func (s *Sink) missing(ctx context.Context, stream string, lines []follow.Line) (id, []follow.Line, error) {
	last, err := s.client.XRevRangeN(ctx, stream, "+", "-", 1).Result()
	if err != nil || len(last) == 0 {
		return id{}, lines, err
	}
	top, err := parseID(last[0].ID)
	if err != nil {
		return id{}, nil, err
	}
	if holds(last, lines[len(lines)-1]) {
		return top, nil, nil // one transaction: the last is there, so all are
	}
	found := make([]*redis.XMessageSliceCmd, len(lines))
	_, err = s.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, line := range lines {
			at := id{line.Seq, 0}.String()
			found[i] = p.XRange(ctx, stream, at, at)
		}
		return nil
	})
	if err != nil {
		return id{}, nil, err
	}
	var rest []follow.Line
	for i, line := range lines {
		if !holds(found[i].Val(), line) {
			rest = append(rest, line)
		}
	}
	return top, rest, nil
}

func holds(entries []redis.XMessage, line follow.Line) bool {
	return len(entries) == 1 && entries[0].Values[field] == string(line.Content())
}

// add appends lines behind top and returns the last id.
func (s *Sink) add(ctx context.Context, stream string, top id, lines []follow.Line) (id, error) {
	cmds, err := s.client.TxPipelined(ctx, func(p redis.Pipeliner) error {
		for _, line := range lines {
			if top = next(top, line.Seq); top.seq == 0 {
				return errors.New("a line without a number")
			}
			p.XAdd(ctx, &redis.XAddArgs{Stream: stream, ID: top.String(), Values: []any{field, line.Content()}})
		}
		return nil
	})
	if err != nil {
		// "EXECABORT" says less than the refusal that led to it.
		for _, cmd := range cmds {
			if cause := cmd.Err(); cause != nil && !strings.HasPrefix(cause.Error(), "EXECABORT") {
				return top, cause
			}
		}
	}
	return top, err
}

// next returns the id for a line behind top.
func next(top id, seq uint64) id {
	if seq > top.seq {
		return id{seq, 0}
	}
	return id{top.seq, top.sub + 1}
}

func parseID(text string) (id, error) {
	seq, sub, ok := strings.Cut(text, "-")
	if !ok {
		return id{}, errors.New("the last entry has no usable id")
	}
	a, errA := strconv.ParseUint(seq, 10, 64)
	b, errB := strconv.ParseUint(sub, 10, 64)
	if errA != nil || errB != nil {
		return id{}, errors.New("the last entry has no usable id")
	}
	return id{a, b}, nil
}
