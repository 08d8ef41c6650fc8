package rbac

import (
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/moat-gateway/moat/caddymodule/internal/exchange"
	"github.com/moat-gateway/moat/caddymodule/internal/explanation"
	"github.com/moat-gateway/moat/internal/rbac"
)

// Explain implements explanation.Explainer: it serves.
func (h *Handler) Explain(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, t *explanation.Trace) error {
	ex := t.Open(w, r)
	seen := len(ex.Shadowed)
	refused := true
	err := h.ServeHTTP(w, r, caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		refused = false
		h.tell(ex, t)
		if h.Stage != stageMatch {
			t.Shadowed("rbac", seen)
			tellDecision(ex, t)
		}
		return next.ServeHTTP(w, r)
	}))
	if refused {
		h.tell(ex, t)
		t.Refused("rbac")
	}
	return err
}

// tell writes the rule down that was looked up.
func (h *Handler) tell(ex *exchange.Exchange, t *explanation.Trace) {
	if h.Stage == stageDecide || !ex.LookedUp {
		return
	}
	rule := ex.Match.Rule()
	if rule == nil {
		t.Note("rule", "none matches "+ex.Target.Method+" "+ex.Target.Path)
		return
	}
	t.Add(explanation.Step{
		Name: "rule", Outcome: explanation.Notes,
		Says: explanation.RuleText(rule), More: explanation.RuleSettings(rule), Place: rule.Place,
	})
}

// tellDecision writes down why a request may pass.
func tellDecision(ex *exchange.Exchange, t *explanation.Trace) {
	d := ex.Decision
	if !d.Allowed() || d.Shadowed {
		return
	}
	step := explanation.Step{
		Name: "rbac", Outcome: explanation.Passes, Reason: d.Reason, Says: explanation.Sentence(d.Reason),
	}
	if d.Role != "" {
		step.More = []string{"role " + d.Role + " grants " + d.Permission}
	}
	t.Add(step)
}

// Policy implements explanation.PolicyHolder.
func (h *Handler) Policy() *rbac.Policy { return h.policy.Load() }

var (
	_ explanation.Explainer    = (*Handler)(nil)
	_ explanation.PolicyHolder = (*Handler)(nil)
)
