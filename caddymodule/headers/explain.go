package headers

import (
	"cmp"
	"fmt"
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/moat-gateway/moat/caddymodule/internal/explanation"
)

// Explain implements explanation.Explainer. The headers of an answer decide
// nothing.
func (h *Handler) Explain(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, t *explanation.Trace) error {
	ex := t.Open(w, r)
	says := "every answer gets the preset " + cmp.Or(h.Preset, "html")
	if n := len(h.Paths); n > 0 {
		says = fmt.Sprintf("answers get the preset %s, but those of %d paths with headers of their own", cmp.Or(h.Preset, "html"), n)
	}
	if h.Mode == "shadow" {
		says = "shadow: answers keep the application's headers (preset " + cmp.Or(h.Preset, "html") + ")"
	}
	t.Note("headers", says)
	if h.reports.takes(r) {
		// What it does with a body is not run: reports would be counted.
		t.Pass("reports", "the collector of reports about the content security policy takes it, without a token and before the rules; "+
			"a body that is a report gets 204")
		ex.Collected = true
		return nil
	}
	return next.ServeHTTP(w, r)
}

var _ explanation.Explainer = (*Handler)(nil)
