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
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/moat-gateway/moat/internal/audit/follow"
)

const (
	// maxAnswer is how much of an answer's body is read, to keep the
	// connection usable. Its content means nothing.
	maxAnswer = 64 << 10
	// maxAnswerHeader bounds an answer's header.
	maxAnswerHeader = 16 << 10
	// maxRetryAfter bounds what a server's Retry-After may ask.
	maxRetryAfter = 24 * time.Hour
)

// ErrClosed is returned by Deliver after Close.
var ErrClosed = errors.New("webhook: the sink is closed")

// Sink posts lines to one URL.
type Sink struct {
	url     string
	keys    [][]byte
	timeout time.Duration
	client  *http.Client
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
	client := http.Client{Transport: transport()}
	if cfg.Client != nil {
		client = *cfg.Client
	}
	// A redirect would carry the events to a place nobody configured.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	client.Jar = nil
	return &Sink{url: cfg.URL, keys: keys, timeout: cfg.Timeout, client: &client, now: cfg.Now}, nil
}

func transport() *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2:      true,
		MaxIdleConns:           1,
		MaxConnsPerHost:        2,
		IdleConnTimeout:        time.Minute,
		MaxResponseHeaderBytes: maxAnswerHeader,
		DisableCompression:     true,
	}
}

// Name returns "webhook".
func (s *Sink) Name() string { return "webhook" }

// Close ends the sink and its idle connections.
func (s *Sink) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.client.CloseIdleConnections()
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
	answer, err := s.post(ctx, lines) //nolint:bodyclose // post has read and closed it.
	if err != nil {
		// The connection may be the reason, and HTTP/2 would use it again.
		s.client.CloseIdleConnections()
		return fmt.Errorf("webhook: %w", clean(err))
	}
	return s.judge(answer, len(lines))
}

// post sends the lines and returns the answer, its body already read.
func (s *Sink) post(ctx context.Context, lines []follow.Line) (*http.Response, error) {
	now := s.now()
	body := bodyOf(lines, now)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	id, stamp := idOf(lines), strconv.FormatInt(now.Unix(), 10)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "Moat")
	req.Header.Set("Webhook-Id", id)
	req.Header.Set("Webhook-Timestamp", stamp)
	req.Header.Set("Webhook-Signature", s.sign(id, stamp, body))
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, err
	}
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer))
	if closeErr := resp.Body.Close(); err == nil {
		err = closeErr
	}
	if err != nil && resp.StatusCode/100 == 2 {
		return nil, err // an answer that breaks off is none
	}
	return resp, nil
}

// judge turns the answer to a delivery of n lines into success or an error.
func (s *Sink) judge(resp *http.Response, n int) error {
	if resp.StatusCode/100 == 2 {
		return nil
	}
	err := fmt.Errorf("webhook: answered %d", resp.StatusCode)
	if resp.StatusCode == http.StatusRequestEntityTooLarge {
		if n == 1 {
			return &follow.Poison{Index: 0, Err: err}
		}
		return fmt.Errorf("%w: %w", err, follow.ErrTooLarge)
	}
	if after := s.retryAfter(resp.Header.Get("Retry-After")); after > 0 {
		return &follow.RetryAfter{After: after, Err: err}
	}
	return err
}

// retryAfter reads the header's seconds or date (RFC 9110, section 10.2.3),
// zero when there is nothing to wait for.
func (s *Sink) retryAfter(value string) time.Duration {
	if seconds, err := strconv.ParseUint(value, 10, 32); err == nil {
		return min(time.Duration(seconds)*time.Second, maxRetryAfter) //nolint:gosec // 32 bits
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	return min(max(0, at.Sub(s.now())), maxRetryAfter)
}

// bodyOf returns the request's body. The lines are valid JSON already.
func bodyOf(lines []follow.Line, now time.Time) []byte {
	size := 128
	for _, line := range lines {
		size += len(line.Raw) + 1
	}
	body := make([]byte, 0, size)
	body = append(body, `{"type":"moat.audit","timestamp":"`...)
	body = now.UTC().AppendFormat(body, "2006-01-02T15:04:05.000000Z07:00")
	body = append(body, `","data":[`...)
	for i, line := range lines {
		if i > 0 {
			body = append(body, ',')
		}
		body = append(body, line.Raw...)
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

// clean reduces an error to what an operator needs. It may name the URL, whose
// query may hold a token, or what a server sent: neither is repeated.
func clean(err error) error {
	for _, known := range []error{context.DeadlineExceeded, context.Canceled} {
		if errors.Is(err, known) {
			return known
		}
	}
	return fmt.Errorf("no answer: %s", reason(err))
}
