// Package otlp is the audit sink that sends lines as OpenTelemetry logs, by
// OTLP/HTTP with protobuf bodies. It knows follow's lines, the names of an
// event's fields and the OpenTelemetry logs data model; it does not know the
// OpenTelemetry SDK, whose exporter drops what it cannot send and takes its
// settings from the environment.
//
// A delivery is one request. A server that accepts a part of it says only how
// many records it rejected, not which: the delivery then counts as refused, and
// what was accepted comes again. The attribute log.record.uid, the event's id,
// tells a receiver which records it has already.
package otlp

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/moat-gateway/moat/internal/audit/follow"
	"github.com/moat-gateway/moat/internal/audit/sinks/post"
)

// ErrClosed is returned by Deliver after Close.
var ErrClosed = errors.New("otlp: the sink is closed")

// Sink posts log records to one URL.
type Sink struct {
	url     string
	header  http.Header
	secrets []string
	timeout time.Duration
	client  *post.Client
	now     func() time.Time

	mu     sync.Mutex
	closed bool
	gzip   *gzip.Writer // nil: bodies are not compressed
}

// New checks cfg and returns a sink that has not connected to anything yet.
func New(cfg Config) (*Sink, error) {
	cfg = cfg.withDefaults()
	set, err := cfg.check()
	if err != nil {
		return nil, err
	}
	s := &Sink{
		url: set.url.String(), header: set.header, secrets: secretsOf(set),
		timeout: cfg.Timeout, client: post.New(cfg.Timeout, set.tls, cfg.Client), now: cfg.Now,
	}
	s.header.Set("Content-Type", protobufType)
	s.header.Set("User-Agent", "Moat")
	if cfg.Compression == Gzip {
		s.header.Set("Content-Encoding", "gzip")
		s.gzip = gzip.NewWriter(io.Discard)
	}
	return s, nil
}

// Name returns "otlp".
func (s *Sink) Name() string { return "otlp" }

// Close ends the sink and its connections.
func (s *Sink) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.client.Close()
	return nil
}

// Deliver posts the lines in one request. Only a 2xx answer that rejects no
// record is success.
func (s *Sink) Deliver(ctx context.Context, lines []follow.Line) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	if len(lines) == 0 {
		return nil
	}
	body, err := s.encode(lines)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	got, err := s.client.Post(ctx, s.url, s.header, body)
	if err != nil {
		return fmt.Errorf("otlp: %w", err)
	}
	return s.judge(got)
}

// encode returns the body of a request that carries the lines. It is new each
// time, because a transport may read it for longer than a request lasts.
func (s *Sink) encode(lines []follow.Line) ([]byte, error) {
	request, err := requestOf(lines, s.now())
	if err != nil {
		return nil, err
	}
	body, err := proto.Marshal(request)
	if err != nil {
		return nil, errors.New("otlp: the lines have no protobuf form")
	}
	if s.gzip == nil {
		return body, nil
	}
	return s.pack(body), nil
}

// pack compresses a body.
func (s *Sink) pack(body []byte) []byte {
	var packed bytes.Buffer
	packed.Grow(len(body) / 4)
	s.gzip.Reset(&packed)
	// Writing to memory never fails.
	_, _ = s.gzip.Write(body)
	_ = s.gzip.Close()
	return packed.Bytes()
}
