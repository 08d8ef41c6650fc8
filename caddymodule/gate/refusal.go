package gate

import (
	"io"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/moat-gateway/moat/caddymodule/internal/denial"
)

func init() { caddy.RegisterModule(new(Refusal)) }

// Refusal is the error route that the moat directive adds to a site. It answers
// errors that no other error route of the site answers, with a problem document
// (RFC 9457) or, for a navigation that prefers HTML, a short page. Where it
// stands among the site's error routes does not matter: it lets the ones behind
// it speak first.
type Refusal struct{}

// CaddyModule returns the module's registration.
func (*Refusal) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.moat_refusal",
		New: func() caddy.Module { return new(Refusal) },
	}
}

// ServeHTTP answers unless another error route did.
func (*Refusal) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	held := &bareStatus{ResponseWriterWrapper: caddyhttp.ResponseWriterWrapper{ResponseWriter: w}}
	if err := next.ServeHTTP(held, r); err != nil {
		return err
	}
	cause, _ := r.Context().Value(caddyhttp.ErrorCtxKey).(error)
	switch {
	case held.answered:
		return nil
	case cause == nil, held.status != 0 && held.status != denial.Status(cause), described(w.Header()):
		held.release()
		return nil
	}
	denial.Write(w, r, denial.Status(cause), cause)
	return nil
}

// described reports whether somebody has said what the answer is, even if it
// has no body.
func described(h http.Header) bool {
	return h.Get("Content-Type") != "" || h.Get("Location") != ""
}

// bareStatus holds a status back until a body follows: Caddy ends a chain of
// error routes that nobody answered with a status and nothing else.
type bareStatus struct {
	caddyhttp.ResponseWriterWrapper
	status   int
	answered bool
}

// WriteHeader holds a final status back.
func (b *bareStatus) WriteHeader(status int) {
	if b.answered || status < http.StatusOK {
		b.ResponseWriterWrapper.WriteHeader(status)
		return
	}
	if b.status == 0 {
		b.status = status
	}
}

// Write lets the held status go.
func (b *bareStatus) Write(p []byte) (int, error) {
	b.release()
	return b.ResponseWriterWrapper.Write(p)
}

// ReadFrom lets the held status go.
func (b *bareStatus) ReadFrom(src io.Reader) (int64, error) {
	b.release()
	return b.ResponseWriterWrapper.ReadFrom(src)
}

// FlushError lets the held status go.
func (b *bareStatus) FlushError() error {
	b.release()
	return http.NewResponseController(b.ResponseWriter).Flush() //nolint:bodyclose // no body here
}

func (b *bareStatus) release() {
	if b.answered {
		return
	}
	b.answered = true
	if b.status != 0 {
		b.ResponseWriterWrapper.WriteHeader(b.status)
	}
}

// Interface guards.
var (
	_ caddyhttp.MiddlewareHandler = (*Refusal)(nil)
	_ http.ResponseWriter         = (*bareStatus)(nil)
)
