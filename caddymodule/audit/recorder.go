package audit

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/moat-gateway/moat/caddymodule/internal/exchange"
)

// recorder sees the final status and counts the bytes, also those of a
// connection that was taken over. It copies nothing.
type recorder struct {
	caddyhttp.ResponseWriterWrapper

	requestID []string
	seen      []seenHeader
	onStream  func()
	// promise says what the end of the answer waits for. May be nil.
	promise func() (durable, strict bool)

	status   int
	bytesIn  int64
	bytesOut int64
	wrote    bool
	stream   bool

	// hold keeps the last byte of an answer back until its event is recorded;
	// remaining counts down to it, or is -1 where the end is not known ahead.
	hold      bool
	strict    bool
	remaining int64
	held      []byte
	tunnel    *tunnel
}

func newRecorder(w http.ResponseWriter, requestID string) *recorder {
	return &recorder{
		ResponseWriterWrapper: caddyhttp.ResponseWriterWrapper{ResponseWriter: w},
		requestID:             []string{requestID},
		remaining:             -1,
	}
}

// WriteHeader notes the final status. Informational answers are none, except
// 101, after which there is no other.
func (rec *recorder) WriteHeader(status int) {
	if rec.wrote {
		return
	}
	if status >= http.StatusOK || status == http.StatusSwitchingProtocols {
		rec.wrote, rec.status = true, status
		rec.promised()
		h := rec.Header()
		h[exchange.RequestIDHeader] = rec.requestID
		rec.stream = status == http.StatusSwitchingProtocols ||
			strings.HasPrefix(h.Get("Content-Type"), "text/event-stream")
		if rec.stream {
			rec.onStream()
		}
		if length, err := strconv.ParseInt(h.Get("Content-Length"), 10, 64); err == nil && rec.hold && length > 0 {
			rec.remaining = length
		}
	}
	rec.ResponseWriterWrapper.WriteHeader(status)
}

// promised asks, once, what the end of the answer waits for: when it begins, as
// then it is decided whether it is a refusal.
func (rec *recorder) promised() {
	if rec.promise != nil {
		rec.hold, rec.strict = rec.promise()
		rec.promise = nil
	}
}

// Write counts what is written.
func (rec *recorder) Write(p []byte) (int, error) {
	rec.WriteHeader(http.StatusOK)
	if rec.remaining > 0 && int64(len(p)) == rec.remaining {
		return rec.holdBack(p)
	}
	n, err := rec.ResponseWriterWrapper.Write(p)
	rec.wroteBytes(int64(n))
	return n, err
}

// holdBack writes all but the last byte of an answer.
func (rec *recorder) holdBack(p []byte) (int, error) {
	last := len(p) - 1
	if last > 0 {
		n, err := rec.ResponseWriterWrapper.Write(p[:last])
		rec.wroteBytes(int64(n))
		if err != nil {
			return n, err
		}
	}
	rec.held = []byte{p[last]}
	rec.wroteBytes(1)
	return len(p), nil
}

func (rec *recorder) wroteBytes(n int64) {
	rec.bytesOut += n
	if rec.remaining > 0 {
		rec.remaining -= n
	}
}

// release lets the last byte go.
func (rec *recorder) release() {
	if rec.held != nil {
		_, _ = rec.ResponseWriterWrapper.Write(rec.held) // The client may be gone.
		rec.held = nil
	}
}

// ReadFrom counts what is copied, without giving up the zero-copy path.
func (rec *recorder) ReadFrom(src io.Reader) (int64, error) {
	rec.WriteHeader(http.StatusOK)
	if rec.remaining > 0 {
		return io.Copy(writerOnly{rec}, src)
	}
	n, err := rec.ResponseWriterWrapper.ReadFrom(src)
	rec.bytesOut += n
	return n, err
}

// writerOnly hides ReadFrom from io.Copy.
type writerOnly struct{ io.Writer }

// FlushError sends what is buffered; the first flush sends the header.
func (rec *recorder) FlushError() error {
	rec.WriteHeader(http.StatusOK)
	return http.NewResponseController(rec.ResponseWriter).Flush() //nolint:bodyclose // no body here
}

// Hijack counts on over the tunnel.
func (rec *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(rec.ResponseWriter).Hijack() //nolint:bodyclose // no body here
	if err != nil {
		return nil, nil, err
	}
	rec.tunnel = &tunnel{Conn: conn}
	rw.Writer.Reset(rec.tunnel)
	return rec.tunnel, rw, nil
}

// settle takes the tunnel's counts over, once it has ended.
func (rec *recorder) settle() {
	if rec.tunnel != nil {
		rec.bytesIn += rec.tunnel.in.Swap(0)
		rec.bytesOut += rec.tunnel.out.Swap(0)
	}
}

// tunnel is a connection that was taken over. Two goroutines use it.
type tunnel struct {
	net.Conn
	in, out atomic.Int64
}

func (t *tunnel) Read(p []byte) (int, error) {
	n, err := t.Conn.Read(p)
	t.in.Add(int64(n))
	return n, err
}

func (t *tunnel) Write(p []byte) (int, error) {
	n, err := t.Conn.Write(p)
	t.out.Add(int64(n))
	return n, err
}

// bodyCounter counts what is read of a request's body.
type bodyCounter struct {
	io.ReadCloser
	n atomic.Int64
}

// countBody wraps the body, if there can be one. It returns nil otherwise.
func countBody(r *http.Request) *bodyCounter {
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		return nil
	}
	c := &bodyCounter{ReadCloser: r.Body}
	r.Body = c
	return c
}

func (c *bodyCounter) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.n.Add(int64(n))
	return n, err
}

func (c *bodyCounter) read() int64 {
	if c == nil {
		return 0
	}
	return c.n.Load()
}

// Interface guards.
var (
	_ http.ResponseWriter = (*recorder)(nil)
	_ http.Hijacker       = (*recorder)(nil)
	_ io.ReaderFrom       = (*recorder)(nil)
)
