// Package kafka is the audit sink that produces each line as a record of a Kafka
// topic. It knows follow's lines and Kafka's protocol; it does not know what
// stands in a line, and it never creates a topic.
//
// A record's key is the instance that wrote the line, so that one instance's
// lines stay in one partition and in order as long as the topic keeps its number
// of partitions. Its headers epoch, seq and class are text. A line can arrive more
// than once; instance, epoch and seq tell.
//
// Order survives failures because of two things. A line is appended only after
// those before it: the first delivery of a client is one batch for each partition,
// which arrives whole or not at all, and the sequence numbers of the idempotent
// producer keep later batches behind one another. And a delivery begins after
// everything that was acknowledged, so whenever a delivery that was given up
// arrives after all, what came before it is there already: the first copies of the
// lines are in order. That holds across restarts too, where the idempotent
// producer does not help.
package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/moat-gateway/moat/internal/audit/follow"
)

// maxIdle is how long a client may have been idle and still be used. A broker forgets
// the sequence numbers of a producer that was idle for a day; the first delivery of a
// new client needs none.
const maxIdle = 10 * time.Minute

// ErrClosed is returned by Deliver after Close.
var ErrClosed = errors.New("kafka: the sink is closed")

// Sink produces lines to one topic.
type Sink struct {
	topic   string
	timeout time.Duration
	options []kgo.Opt

	mu      sync.Mutex
	closed  bool
	brokers []string
	link    *link     // nil while there is no client
	used    time.Time // when it last delivered
	now     func() time.Time
}

// New checks cfg and returns a sink that has not connected to anything yet.
func New(cfg Config) (*Sink, error) {
	cfg = cfg.withDefaults()
	parsed, err := cfg.parse()
	if err != nil {
		return nil, err
	}
	opts := options(cfg, parsed)
	if err := kgo.ValidateOpts(opts...); err != nil {
		return nil, fmt.Errorf("kafka: the client refuses its settings: %w", err)
	}
	return &Sink{topic: cfg.Topic, timeout: cfg.Timeout, options: opts, brokers: slices.Clone(cfg.Brokers), now: time.Now}, nil
}

// Name returns "kafka".
func (s *Sink) Name() string { return "kafka" }

// Close ends the sink and its connections.
func (s *Sink) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.drop()
	return nil
}

// drop ends the client and with it all it was doing.
func (s *Sink) drop() {
	if s.link != nil {
		s.link.client.Close()
		s.link = nil
	}
}

// Deliver produces the lines and waits until all replicas in sync have them.
func (s *Sink) Deliver(ctx context.Context, lines []follow.Line) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	if len(lines) == 0 {
		return nil
	}
	records, err := recordsOf(lines)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	if now := s.now(); now.Sub(s.used) > maxIdle {
		s.drop()
	}
	if err = s.deliver(ctx, records); err == nil {
		s.used = s.now()
		return nil
	}
	var trouble error
	if s.link != nil {
		trouble = s.link.last()
	}
	// The client cannot forget records that it may have sent: it would send them
	// again, behind those that now come anew. So it goes as a whole.
	s.drop()
	return clean(ctx, err, trouble)
}

func (s *Sink) deliver(ctx context.Context, records []kgo.Record) error {
	if s.link == nil {
		if err := s.open(ctx); err != nil {
			return err
		}
	}
	return s.link.send(ctx, records)
}

// open makes a client and sees that it can produce. Each time it asks another
// broker, and only that one: those that accept and never answer cost the budget.
func (s *Sink) open(ctx context.Context) error {
	l, err := connect(s.options, s.brokers[0])
	if err != nil {
		return err
	}
	s.link = l
	s.brokers = append(s.brokers[1:], s.brokers[0])
	return l.prepare(ctx, s.topic)
}
