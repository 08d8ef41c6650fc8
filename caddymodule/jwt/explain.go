package jwt

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/moat-gateway/moat/caddymodule/internal/denial"
	"github.com/moat-gateway/moat/caddymodule/internal/exchange"
	"github.com/moat-gateway/moat/caddymodule/internal/explanation"
)

// Explain implements explanation.Explainer: it serves, or goes on as the caller
// that the question names.
func (h *Handler) Explain(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, t *explanation.Trace) error {
	ex := t.Open(w, r)
	t.Source = &explanation.Source{Cookie: h.From[0].In == inCookie, Name: h.From[0].Name}
	if t.Caller != nil {
		return h.explainTold(w, r, next, t)
	}
	if h.offered(r) {
		if !t.HasKeys {
			t.NeedsKeys = true
			return nil
		}
		t.Issuers.FetchKeys(r.Context(), h.Issuers)
	}
	seen := len(ex.Shadowed)
	refused := true
	err := h.ServeHTTP(w, r, caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		refused = false
		t.Shadowed("jwt", seen)
		tell(ex, t)
		return next.ServeHTTP(w, r)
	}))
	if refused {
		t.Refused("jwt")
	}
	return err
}

// offered reports whether a source of the request carries a token.
func (h *Handler) offered(r *http.Request) bool {
	return slices.ContainsFunc(h.From, func(s Source) bool {
		raw, count := s.find(r)
		return raw != "" || count > 1
	})
}

// explainTold goes on as who the question says is asking.
func (h *Handler) explainTold(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, t *explanation.Trace) error {
	issuer := t.Caller.Issuer
	if issuer == "" {
		issuer = h.Issuers[0]
	}
	at := slices.Index(h.Issuers, issuer)
	if at < 0 {
		t.Fail(fmt.Errorf("issuer %q: the site takes no tokens of it; it takes those of: %s", issuer, strings.Join(h.Issuers, ", ")))
		return nil
	}
	caller, err := t.Issuers.Vouch(issuer, at == 0, t.Caller)
	if err != nil {
		t.Fail(err)
		return nil
	}
	v := verdict{source: h.From[0], caller: caller}
	if v.fields, err = h.fields(caller); err != nil {
		err := h.refuse(w, r, verdict{refused: &denial.Refusal{Code: denial.TokenInvalid, Reason: "jwt.unsafe-value"}})
		t.Refused("jwt")
		return err
	}
	r = h.identify(r, t.Exchange, v)
	tell(t.Exchange, t)
	return next.ServeHTTP(w, r)
}

// tell writes down who is asking.
func tell(ex *exchange.Exchange, t *explanation.Trace) {
	step := explanation.Step{Name: "jwt", Outcome: explanation.Passes}
	who := ex.Caller
	switch {
	case who.Known():
		step.Says = "the caller is " + who.ID + " of issuer " + who.Issuer
		if who.Tenant != "" {
			step.Says += ", tenant " + who.Tenant
		}
		step.Says += ", " + roles(who.Roles)
	case len(who.Roles) > 0:
		step.Says = "nobody is known; the caller is anonymous, " + roles(who.Roles)
	default:
		step.Says = "nobody is known"
	}
	if ex.AuthFailure != "" {
		step.More = []string{"the token does not count: " + ex.AuthFailure + ", " + explanation.Sentence(ex.AuthFailure)}
	}
	t.Add(step)
}

func roles(names []string) string {
	switch len(names) {
	case 0:
		return "no role"
	case 1:
		return "role " + names[0]
	}
	return "roles " + strings.Join(names, ", ")
}

var _ explanation.Explainer = (*Handler)(nil)
