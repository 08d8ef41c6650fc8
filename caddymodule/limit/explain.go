package limit

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/moat-gateway/moat/caddymodule/internal/denial"
	"github.com/moat-gateway/moat/caddymodule/internal/explanation"
)

// Explain implements explanation.Explainer: it says which limits apply and
// charges none of them.
func (h *Handler) Explain(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, t *explanation.Trace) error {
	ex := t.Open(w, r)
	for _, l := range h.Limits {
		if l.identity && ex.Caller == nil {
			err := denial.Refuse(w, r, &denial.Refusal{Code: denial.Internal, Reason: "limit.no-identity"})
			t.Refused("limit")
			return err
		}
	}
	for _, l := range h.Limits {
		if _, grants, ok := l.applies(r, ex); ok {
			t.Add(explanation.Step{
				Name: "limit", Outcome: explanation.Notes, Says: l.says(grants), Place: l.Place,
			})
		}
	}
	return next.ServeHTTP(w, r)
}

// says is the limit as on its line, with what counts for the caller.
func (l *Limit) says(grants []grant) string {
	var parts []string
	for _, g := range grants {
		if g.slots > 0 {
			parts = append(parts, fmt.Sprintf("%d at one time", g.slots))
			continue
		}
		parts = append(parts, fmt.Sprintf("%d in %s", g.rate.N, window(g.rate.Window)))
	}
	text := fmt.Sprintf("%s: %s by %s applies, not charged here", l.Name, strings.Join(parts, " and "), strings.Join(l.By, " "))
	if l.Cost != "" {
		text += "; a request costs " + l.Cost
	}
	if len(l.Count) > 0 {
		text += fmt.Sprintf("; answers with %v count", l.Count)
	}
	if l.Mode == modeShadow {
		text += "; shadow: it refuses nothing"
	}
	return text
}

// window writes 1m0s as 1m and 24h0m0s as 24h.
func window(d time.Duration) string {
	text := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, zero) {
			text = text[:len(text)-2]
		}
	}
	return text
}

var _ explanation.Explainer = (*Handler)(nil)
