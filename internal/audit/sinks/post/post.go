// Package post is what the audit sinks share that post to an HTTP server: one
// request at a time, its answer read to a bound, no redirects, and errors that
// repeat neither a URL nor what a server sent. It knows nothing of events.
package post

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

const (
	// MaxAnswer is how much of an answer's body is read, in bytes. What comes behind
	// it is not waited for.
	MaxAnswer = 64 << 10
	// maxAnswerHeader bounds an answer's header, in bytes.
	maxAnswerHeader = 16 << 10
	// maxRetryAfter bounds what a server's Retry-After may ask.
	maxRetryAfter = 24 * time.Hour
)

// Client posts to servers. It is used by one goroutine at a time.
type Client struct {
	client http.Client
	link   *link
}

// New returns a client whose connections are made with tls and within timeout. When
// given is not nil its transport is used instead.
func New(timeout time.Duration, tls *tls.Config, given *http.Client) *Client {
	c := &Client{link: newLink(timeout)}
	c.client.Transport = transport(tls, c.link)
	if given != nil {
		c.client = *given
	}
	// A redirect would carry the events to a place nobody configured.
	c.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	c.client.Jar = nil
	return c
}

func transport(config *tls.Config, link *link) *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            link.dial,
		TLSClientConfig:        config,
		TLSHandshakeTimeout:    link.dialer.Timeout,
		ForceAttemptHTTP2:      true,
		MaxIdleConns:           1,
		MaxConnsPerHost:        2,
		IdleConnTimeout:        time.Minute,
		MaxResponseHeaderBytes: maxAnswerHeader,
		DisableCompression:     true,
	}
}

// Answer is what a server said.
type Answer struct {
	// Status of the answer.
	Status int
	// Header of the answer.
	Header http.Header
	// Body has at most one byte more than MaxAnswer.
	Body []byte
}

// Success reports whether the status is a 2xx.
func (a Answer) Success() bool { return a.Status/100 == 2 }

// RetryAfter is how long the server asks to wait (RFC 9110, section 10.2.3), in
// seconds or until a date, at most a day. Zero: it does not ask.
func (a Answer) RetryAfter(now time.Time) time.Duration {
	value := a.Header.Get("Retry-After")
	if seconds, err := strconv.ParseUint(value, 10, 32); err == nil {
		return min(time.Duration(seconds)*time.Second, maxRetryAfter) //nolint:gosec // 32 bits
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	return min(max(0, at.Sub(now)), maxRetryAfter)
}

// Post sends a body, which it may go on reading after it has returned, and returns
// the answer. An error says in a few words why there is none; the connection is then
// gone, since it may be the reason. An answer that breaks off is none.
func (c *Client) Post(ctx context.Context, url string, header http.Header, body []byte) (Answer, error) {
	got, err := c.post(ctx, url, header, body)
	if err != nil {
		c.client.CloseIdleConnections()
		c.link.sever()
		return Answer{}, clean(err)
	}
	return got, nil
}

func (c *Client) post(ctx context.Context, url string, header http.Header, body []byte) (Answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return Answer{}, err
	}
	req.Header = header.Clone()
	resp, err := c.client.Do(req)
	if err != nil {
		return Answer{}, err
	}
	got := Answer{Status: resp.StatusCode, Header: resp.Header}
	got.Body, err = io.ReadAll(io.LimitReader(resp.Body, MaxAnswer+1))
	if closeErr := resp.Body.Close(); err == nil {
		err = closeErr
	}
	if err != nil && got.Success() {
		return Answer{}, err
	}
	return got, nil
}

// Close ends all connections.
func (c *Client) Close() {
	c.client.CloseIdleConnections()
	c.link.close()
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
