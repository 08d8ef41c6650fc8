package guard

import (
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/moat-gateway/moat/caddymodule/internal/explanation"
)

// Explain implements explanation.Explainer: it serves.
func (h *Handler) Explain(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, t *explanation.Trace) error {
	ex := t.Open(w, r)
	written := r.URL.RequestURI()
	refused := true
	err := h.ServeHTTP(w, r, caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		refused = false
		says := "canonical: " + ex.Target.Method + " " + ex.Target.URI() + " of " + ex.Target.Host
		if uri := ex.Target.URI(); uri != written {
			says += ", written " + written
		}
		t.Pass("guard", says)
		return next.ServeHTTP(w, r)
	}))
	if refused {
		t.Refused("guard")
	}
	return err
}

var _ explanation.Explainer = (*Handler)(nil)
