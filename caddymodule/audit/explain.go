package audit

import (
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/moat-gateway/moat/caddymodule/internal/denial"
	"github.com/moat-gateway/moat/caddymodule/internal/explanation"
)

// Explain implements explanation.Explainer. Nothing is recorded.
func (h *Handler) Explain(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, t *explanation.Trace) error {
	ex := t.Open(w, r)
	if ex.Audited {
		err := denial.Refuse(w, r, &denial.Refusal{Code: denial.Internal, Reason: "gate.second"})
		t.Refused("audit")
		return err
	}
	ex.Audited = true
	t.Note("audit", "the outcome is one event of the site "+h.site(r))
	return next.ServeHTTP(w, r)
}

var _ explanation.Explainer = (*Handler)(nil)
