package guard

import (
	"errors"
	"io"
	"net/http"

	"github.com/moat-gateway/moat/caddymodule/internal/denial"
)

const (
	defaultMaxHeaders = 128
	defaultMaxHeader  = 16 << 10
)

// headers refuses more or longer header lines than an application should have
// to parse.
func (h *Handler) headers(r *http.Request) *denial.Refusal {
	lines := 0
	for name, values := range r.Header {
		lines += len(values)
		for _, value := range values {
			if len(name)+len(value) > h.MaxHeader {
				return &denial.Refusal{Code: denial.HeadersTooLarge, Reason: "guard.header-too-long"}
			}
		}
	}
	if lines > h.MaxHeaders {
		return &denial.Refusal{Code: denial.HeadersTooLarge, Reason: "guard.too-many-headers"}
	}
	return nil
}

func (h *Handler) body(w http.ResponseWriter, r *http.Request) *denial.Refusal {
	if h.MaxBody <= 0 {
		return nil
	}
	if r.ContentLength > h.MaxBody {
		return &denial.Refusal{Code: denial.ContentTooLarge, Reason: "guard.body-too-large"}
	}
	if r.ContentLength < 0 {
		r.Body = bounded{http.MaxBytesReader(w, r.Body, h.MaxBody)}
	}
	return nil
}

// bounded makes a body that turns out too large a refusal of ours.
type bounded struct{ io.ReadCloser }

// Read reads up to the bound.
func (b bounded) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		err = denial.Late(&denial.Refusal{Code: denial.ContentTooLarge, Reason: "guard.body-too-large"})
	}
	return n, err
}
