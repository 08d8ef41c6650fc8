// Package rbac is the moat_rbac handler: it looks the rule up and decides.
package rbac

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/moat-gateway/moat/caddymodule/internal/denial"
	"github.com/moat-gateway/moat/caddymodule/internal/exchange"
	"github.com/moat-gateway/moat/caddymodule/internal/telemetry"
	"github.com/moat-gateway/moat/internal/canon"
	"github.com/moat-gateway/moat/internal/rbac"
)

func init() {
	caddy.RegisterModule(new(Handler))
	httpcaddyfile.RegisterHandlerDirective("moat_rbac", parse)
}

// The stages of a Handler. The rule is looked up before limits and tokens are
// judged, because a public route must never refuse because of a token; the
// decision falls after them, when the caller is known.
const (
	stageBoth   = ""
	stageMatch  = "match"
	stageDecide = "decide"
)

// Handler lets pass what a rule allows and refuses everything else: 401 when
// nobody is known and a rule wants somebody, 403 otherwise. A request that no
// rule matches is refused.
type Handler struct {
	// Stage is "match" (look the rule up only), "decide" (decide on the rule
	// that an earlier handler looked up) or empty (both).
	Stage string `json:"stage,omitempty"`
	// Rules in any order; the most specific one that matches decides.
	Rules []rbac.RuleConfig `json:"rules,omitempty"`
	// RulesFile is a JSON or YAML file with further rules. It is watched: a new
	// content counts within two seconds, unless something is wrong with it; then
	// the old one stays. Default: none.
	RulesFile string `json:"rules_file,omitempty"`
	// RulesFileSum is the SHA-256 of the file when the configuration was made
	// from a Caddyfile, in hex. Nothing is checked against it: it makes another
	// configuration of a changed file, so that a reload is none of nothing.
	RulesFileSum string `json:"rules_file_sum,omitempty"`
	// AnonymousOnly says that nobody can be known on this site, because no
	// moat_jwt runs there. A rule that needs somebody is then an error. The moat
	// directive sets it.
	AnonymousOnly bool `json:"anonymous_only,omitempty"`
	// Preflight is "refuse" (default) or "upstream": an OPTIONS request with
	// Origin and Access-Control-Request-Method may pass without identity when a
	// rule other than deny lists that method for that path.
	Preflight string `json:"preflight,omitempty"`
	// CaseInsensitive matches literal segments without regard to ASCII case. It
	// must be set where the guard's is.
	CaseInsensitive bool `json:"case_insensitive,omitempty"`
	// LoginURL is a path whose rule must be public, because jwt sends people
	// there. The moat directive sets it. Default: none.
	LoginURL string `json:"login_url,omitempty"`
	// Realm is named in WWW-Authenticate. Default: moat.
	Realm string `json:"realm,omitempty"`
	// InsecureShadow decides, counts and records, and refuses nothing.
	InsecureShadow bool `json:"insecure_shadow,omitempty"`
	// RevealTo is a permission. Callers whose roles grant it get the rule and the
	// reason of every decision in the header Moat-Decision. Default: nobody.
	RevealTo string `json:"reveal_to,omitempty"`
	// InsecureRevealReasons tells every caller the reason of a refusal and the
	// permissions that the rule asks for, in the problem document.
	InsecureRevealReasons bool `json:"insecure_reveal_reasons,omitempty"`

	policy    atomic.Pointer[rbac.Policy]
	fileRules []rbac.RuleConfig // in force
	canon     *canon.Policy
	logger    *zap.Logger
}

// CaddyModule returns the module's registration.
func (*Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.moat_rbac",
		New: func() caddy.Module { return new(Handler) },
	}
}

// Provision compiles the rules.
func (h *Handler) Provision(ctx caddy.Context) error {
	if h.Realm == "" {
		h.Realm = "moat"
	}
	if err := denial.CheckRealm(h.Realm); err != nil {
		return err
	}
	if err := rbac.CheckPermission(h.RevealTo); h.RevealTo != "" && err != nil {
		return fmt.Errorf("rbac: reveal_to %q: %w", h.RevealTo, err)
	}
	h.logger = ctx.Logger()
	h.warn()
	if err := telemetry.Register(ctx); err != nil {
		return err
	}
	if h.Stage == stageDecide {
		return nil
	}
	if err := h.provisionPolicy(ctx); err != nil {
		return err
	}
	var err error
	h.canon, err = canon.New(canon.Config{CaseInsensitive: h.CaseInsensitive})
	return err
}

// warn tells once what weakens the rules, however many stages there are.
func (h *Handler) warn() {
	if h.Stage == stageMatch {
		return
	}
	if h.InsecureShadow {
		h.logger.Warn("insecure_shadow: rules are recorded and refuse nothing")
	}
	if h.InsecureRevealReasons {
		h.logger.Warn("insecure_reveal_reasons: callers learn which permissions rules ask for")
	}
}

// ServeHTTP runs the handler's stage.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	ex := exchange.Ensure(w, r)
	if h.Stage != stageDecide {
		if refusal := h.match(r, ex); refusal != nil {
			return denial.Refuse(w, r, refusal)
		}
	}
	if h.Stage == stageMatch {
		return next.ServeHTTP(w, r)
	}
	if refusal := h.decide(w, r, ex); refusal != nil {
		return denial.Refuse(w, r, refusal)
	}
	ex.HandOver()
	defer ex.TakeBack()
	if h.RevealTo != "" {
		w = settled(w, ex.Revealed)
	}
	return next.ServeHTTP(w, r)
}

func (h *Handler) match(r *http.Request, ex *exchange.Exchange) *denial.Refusal {
	if ex.Canonical && changed(r, ex.Target) {
		return &denial.Refusal{Code: denial.Forbidden, Reason: "rbac.changed-since-guard"}
	}
	if !ex.Canonical {
		// Composed without a guard: what is judged must still be what goes on.
		target, err := h.canon.Target(r)
		if err != nil {
			return &denial.Refusal{Code: denial.BadRequest, Reason: "rbac.not-canonical"}
		}
		target.Apply(r)
		ex.Target, ex.Canonical = target, true
	}
	policy := h.policy.Load()
	ex.Policy = policy
	ex.Match = policy.Lookup(ex.Target.Method, ex.Target.Path)
	ex.LookedUp = true
	if h.ambiguous(ex) {
		return &denial.Refusal{Code: denial.BadRequest, Reason: "rbac.path-parameter"}
	}
	rule := ex.Match.Rule()
	if ex.SlashNeedsRule && (rule == nil || !rule.EncodedSlash) && strings.Contains(ex.Target.Path, "%2F") {
		return &denial.Refusal{Code: denial.BadRequest, Reason: "canon.encoded-slash"}
	}
	if rule != nil && rule.Trailers && ex.Trailer != nil {
		passTrailers(r, ex)
	}
	if method := r.Header.Get("Access-Control-Request-Method"); r.Method == http.MethodOptions &&
		method != "" && r.Header.Get("Origin") != "" {
		ex.Preflight = policy.Preflight(ex.Target.Path, method)
	}
	return nil
}

// ambiguous reports whether another rule would decide had the path no path
// parameters. Servlet containers cut `;x` off a segment before they look for a
// servlet, so `/internal;x/y` is `/internal/y` to them; here it is another
// path. Where both readings fall under one rule, the parameters do no harm.
//
// A rule with a condition is another matter: the condition may look at the path
// or at what stands in it, and would judge `x.exe;.txt` where the container
// serves `x.exe`.
func (h *Handler) ambiguous(ex *exchange.Exchange) bool {
	bare := ex.BarePath()
	if bare == ex.Target.Path {
		return false
	}
	rule := ex.Match.Rule()
	return rule != nil && rule.When != "" || ex.Policy.Lookup(ex.Target.Method, bare).Rule() != rule
}

func (h *Handler) decide(w http.ResponseWriter, r *http.Request, ex *exchange.Exchange) *denial.Refusal {
	if !ex.LookedUp {
		return &denial.Refusal{Code: denial.Forbidden, Reason: "rbac.no-lookup"}
	}
	if rule := ex.Match.Rule(); changed(r, ex.Target) && (rule == nil || !rule.RewriteOK) {
		// Composed, something between look-up and decision can rewrite. What
		// was judged is what may go on.
		return &denial.Refusal{Code: denial.Forbidden, Reason: "rbac.changed-since-look-up"}
	}
	d := ex.Policy.Decide(ex.Match, ex.Caller, &rbac.Request{
		Method: ex.Target.Method, Host: ex.Target.Host, Query: ex.Target.Query, Address: ex.Client, Time: ex.Start,
	})
	if ex.Preflight && !d.Allowed() {
		d = rbac.Decision{Effect: rbac.Allow, Reason: "rbac.preflight"}
	}
	ex.Decision = d
	ex.Revealed = h.revealed(ex, d)
	if ex.Revealed != "" {
		w.Header()[decisionHeader] = []string{ex.Revealed}
	}
	telemetry.Rules.WithLabelValues(verdict(d, h.InsecureShadow), d.Reason).Inc()
	switch {
	case d.Shadowed:
		ex.Shadow(d.Reason)
	case !d.Allowed() && h.InsecureShadow:
		ex.Shadow(d.Reason)
	case !d.Allowed():
		return h.refusal(w, ex, d)
	}
	if ex.TrailDown != nil {
		denial.RetryAfter(w.Header(), 0)
		return &denial.Refusal{Code: denial.Unavailable, Reason: "audit.unavailable"}
	}
	ex.Decided = true
	ex.Method, ex.Path, ex.Query, ex.Host = ex.Target.Method, ex.Target.Path, ex.Target.Query, r.Host
	return nil
}

// changed reports whether the request is no longer the one that was put into
// canonical form.
func changed(r *http.Request, target canon.Target) bool {
	return r.Method != target.Method || r.URL.EscapedPath() != target.Path || r.URL.RawQuery != target.Query
}

func (h *Handler) refusal(w http.ResponseWriter, ex *exchange.Exchange, d rbac.Decision) *denial.Refusal {
	if d.Anonymous && !ex.Caller.Known() {
		denial.Challenge(w.Header(), h.Realm, denial.TokenMissing)
		return h.forbidden(denial.TokenMissing, ex, d)
	}
	if ex.Auth == "bearer" {
		denial.Challenge(w.Header(), h.Realm, denial.Forbidden)
	}
	return h.forbidden(denial.Forbidden, ex, d)
}

func verdict(d rbac.Decision, shadow bool) string {
	switch {
	case d.Shadowed, !d.Allowed() && shadow:
		return "shadow_deny"
	case d.Allowed():
		return "allow"
	default:
		return "deny"
	}
}

// Interface guards.
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
