// Package webhook is the audit sink that posts lines to an HTTP server, signed
// by the Standard Webhooks specification. It knows follow's lines and HTTP; it
// does not know what stands in a line.
//
// A delivery is {"type":"moat.audit","timestamp":…,"data":[EVENT,…]} with each
// event as it stands in the journal. Its webhook-id depends on nothing but the
// first and the last event, so a receiver recognises a repeated delivery; one
// that was cut differently it recognises by the events' own ids.
package webhook

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/moat-gateway/moat/internal/audit/follow"
	"github.com/moat-gateway/moat/internal/audit/sinks/post"
)

// ErrClosed is returned by Deliver after Close.
var ErrClosed = errors.New("webhook: the sink is closed")

// Sink posts lines to one URL.
type Sink struct {
	url     string
	keys    [][]byte
	timeout time.Duration
	client  *post.Client
	now     func() time.Time

	mu     sync.Mutex
	closed bool
}

// New checks cfg and returns a sink that has not connected to anything yet.
func New(cfg Config) (*Sink, error) {
	cfg = cfg.withDefaults()
	errs := []error{checkURL(cfg.URL)}
	keys, err := keysOf(cfg.Secrets)
	errs = append(errs, err)
	if cfg.Timeout < time.Millisecond || cfg.Timeout > time.Minute {
		errs = append(errs, fmt.Errorf("webhook: timeout %s: must be between 1ms and 1m", cfg.Timeout))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	client := post.New(cfg.Timeout, &tls.Config{MinVersion: tls.VersionTLS12}, cfg.Client)
	return &Sink{url: cfg.URL, keys: keys, timeout: cfg.Timeout, client: client, now: cfg.Now}, nil
}

// Name returns "webhook".
func (s *Sink) Name() string { return "webhook" }

// Close ends the sink and its idle connections.
func (s *Sink) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.client.Close()
	return nil
}

// Deliver posts the lines in one request. Only a 2xx answer is success.
func (s *Sink) Deliver(ctx context.Context, lines []follow.Line) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	if len(lines) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	answer, err := s.post(ctx, lines)
	if err != nil {
		return fmt.Errorf("webhook: %w", err)
	}
	return s.judge(answer, len(lines))
}

// post sends the lines and returns the answer.
func (s *Sink) post(ctx context.Context, lines []follow.Line) (post.Answer, error) {
	now := s.now()
	body := bodyOf(lines, now)
	id, stamp := idOf(lines), strconv.FormatInt(now.Unix(), 10)
	header := make(http.Header)
	header.Set("Content-Type", "application/json")
	header.Set("User-Agent", "Moat")
	header.Set("Webhook-Id", id)
	header.Set("Webhook-Timestamp", stamp)
	header.Set("Webhook-Signature", s.sign(id, stamp, body))
	return s.client.Post(ctx, s.url, header, body)
}

// judge turns the answer to a delivery of n lines into success or an error.
func (s *Sink) judge(got post.Answer, n int) error {
	if got.Success() {
		return nil
	}
	err := fmt.Errorf("webhook: answered %d", got.Status)
	if got.Status == http.StatusRequestEntityTooLarge {
		if n == 1 {
			return &follow.Poison{Index: 0, Err: err}
		}
		return fmt.Errorf("%w: %w", err, follow.ErrTooLarge)
	}
	if got.Status == http.StatusBadRequest || got.Status == http.StatusUnprocessableEntity {
		return fmt.Errorf("%w: %w", err, follow.ErrRefused)
	}
	if after := got.RetryAfter(s.now()); after > 0 {
		return &follow.RetryAfter{After: after, Err: err}
	}
	return err
}

// bodyOf returns the request's body. The lines are valid JSON already.
func bodyOf(lines []follow.Line, now time.Time) []byte {
	size := 128
	for _, line := range lines {
		size += len(line.Content()) + 1
	}
	body := make([]byte, 0, size)
	body = append(body, `{"type":"moat.audit","timestamp":"`...)
	body = now.UTC().AppendFormat(body, "2006-01-02T15:04:05.000000Z07:00")
	body = append(body, `","data":[`...)
	for i, line := range lines {
		if i > 0 {
			body = append(body, ',')
		}
		body = append(body, line.Content()...)
	}
	return append(body, `]}`...)
}

// idOf names a delivery by its first and last event. The epoch is part of it,
// because a journal that begins anew uses the same numbers again.
func idOf(lines []follow.Line) string {
	h := sha256.New()
	for _, line := range []follow.Line{lines[0], lines[len(lines)-1]} {
		_, _ = fmt.Fprintf(h, "%q %q %d\n", line.Instance, line.Epoch, line.Seq)
	}
	return "msg_" + hex.EncodeToString(h.Sum(nil)[:16])
}

// sign returns one signature for each key.
func (s *Sink) sign(id, stamp string, body []byte) string {
	var out []byte
	for i, key := range s.keys {
		if i > 0 {
			out = append(out, ' ')
		}
		mac := hmac.New(sha256.New, key)
		_, _ = fmt.Fprintf(mac, "%s.%s.", id, stamp)
		_, _ = mac.Write(body)
		out = append(out, "v1,"...)
		out = base64.StdEncoding.AppendEncode(out, mac.Sum(nil))
	}
	return string(out)
}
