package rbac

import (
	"errors"
	"io"
	"net/http"

	"github.com/moat-gateway/moat/caddymodule/internal/exchange"
)

// passTrailers gives the request its declared trailers back, except names that
// no caller may send: some servers merge trailers into headers. The values come
// with the end of the body, and so may names that were not declared.
func passTrailers(r *http.Request, ex *exchange.Exchange) {
	declared := make(map[string]bool, len(ex.Trailer))
	for _, set := range ex.Unwanted {
		set.StripFrom(ex.Trailer)
	}
	for name := range ex.Trailer {
		declared[name] = true
	}
	r.Trailer = ex.Trailer
	r.Body = &trailed{ReadCloser: r.Body, trailer: ex.Trailer, declared: declared}
}

// trailed is a body whose trailers are checked when it ends.
type trailed struct {
	io.ReadCloser
	trailer  http.Header
	declared map[string]bool
}

// Read reads on; at the end it takes off what was not declared.
func (t *trailed) Read(p []byte) (int, error) {
	n, err := t.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		for name := range t.trailer {
			if !t.declared[name] {
				delete(t.trailer, name)
			}
		}
	}
	return n, err
}
