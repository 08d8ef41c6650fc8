// Package jwt is the moat_jwt handler: it finds the caller's token, has it
// verified and says who the caller is.
package jwt

import (
	"errors"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/moat-gateway/moat/caddymodule/internal/denial"
	"github.com/moat-gateway/moat/caddymodule/internal/exchange"
	"github.com/moat-gateway/moat/caddymodule/internal/telemetry"
	"github.com/moat-gateway/moat/internal/canon"
	"github.com/moat-gateway/moat/internal/identity"
	"github.com/moat-gateway/moat/internal/token"
)

func init() {
	caddy.RegisterModule(new(Handler))
	httpcaddyfile.RegisterHandlerDirective("moat_jwt", parse)
}

// Handler verifies the caller's token: 401 for none where one is needed and for
// every bad one, 400 for two tokens in one source, 403 for a cookie token on an
// unsafe request from another origin, 503 while the issuer's keys are not
// loaded. On a public route it refuses nothing: whoever it cannot verify is
// anonymous.
//
// It sets {http.auth.user.id}, .tenant, .roles, .session and .claims.*. A token
// that was not verified never goes upstream.
type Handler struct {
	// Issuers are the names of configured issuers whose tokens count. The first
	// one's identifiers are those that owner= and tenant= compare with.
	Issuers []string `json:"issuers,omitempty"`
	// From lists where a token may be, in order; the first source that carries
	// one decides. Default: the Authorization header.
	From []Source `json:"from,omitempty"`
	// Anonymous is the role of a caller without a token. Default: none, and a
	// missing token is refused with 401 except on public routes.
	Anonymous string `json:"anonymous,omitempty"`
	// Forward lists the headers that tell the upstream who the caller is.
	Forward []Forward `json:"forward,omitempty"`
	// ForwardToken is "on" (default) or "off": off removes the verified token
	// from the request to the upstream.
	ForwardToken string `json:"forward_token,omitempty"`
	// LoginURL is a path on this site, for example /login. A navigation that would
	// get 401 is sent there with 303 instead, with what it asked for as the query
	// parameter next. The path's rule must be public. Default: none.
	LoginURL string `json:"login_url,omitempty"`
	// TrustedOrigins may send unsafe requests with a cookie token, beside the
	// site's own origin. For example https://app.example.com.
	TrustedOrigins []string `json:"trusted_origins,omitempty"`
	// Realm is named in WWW-Authenticate. Default: moat.
	Realm string `json:"realm,omitempty"`
	// InsecureForwardUnverified leaves tokens that were not verified on the
	// request to the upstream.
	InsecureForwardUnverified bool `json:"insecure_forward_unverified,omitempty"`
	// InsecureShadow records what would be refused and lets the caller pass as
	// anonymous.
	InsecureShadow bool `json:"insecure_shadow,omitempty"`

	verifiers *token.Set
	strip     *canon.HeaderSet
	origins   map[string]bool
}

// Source is one place where a token may be.
type Source struct {
	// In is "header" or "cookie".
	In string `json:"in"`
	// Name of the header or cookie. Default for a header: Authorization, with
	// the Bearer scheme.
	Name string `json:"name,omitempty"`
	// Domain and Path are those that the application set the cookie with; they
	// are needed to clear it. Default: no domain, and the path /.
	Domain string `json:"domain,omitempty"`
	Path   string `json:"path,omitempty"`
	// Keep never clears the cookie.
	Keep bool `json:"keep,omitempty"`
}

// Forward is one identity header.
type Forward struct {
	// Header is the header's name.
	Header string `json:"header"`
	// Value is id, tenant, roles (joined with commas), session or issuer.
	Value string `json:"value"`
}

// CaddyModule returns the module's registration.
func (*Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.moat_jwt",
		New: func() caddy.Module { return new(Handler) },
	}
}

// ServeHTTP judges the token and goes on as whoever it names.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	ex := exchange.Ensure(w, r)
	ex.LoginURL = h.LoginURL
	h.strip.StripFrom(r.Header)
	if ex.Strip == nil || ex.Strip.Len() == 0 {
		ex.Strip = h.strip
	}
	open := ex.Match.Public() || ex.Preflight
	v := h.judge(r)
	if v.refused != nil {
		telemetry.Tokens.WithLabelValues(v.issuer, v.refused.Reason).Inc()
		ex.AuthFailure = v.refused.Reason
	} else if v.caller == nil && h.Anonymous == "" {
		v.refused = &denial.Refusal{Code: denial.TokenMissing, Reason: "jwt.missing"}
	}
	switch {
	case v.refused == nil, open:
	case h.InsecureShadow:
		ex.Shadow(v.refused.Reason)
	default:
		// Whatever Refuse returns, the request ends here: composed without the
		// moat directive it has answered already and returns nil.
		return h.refuse(w, r, v)
	}
	r = h.identify(r, ex, v)
	return next.ServeHTTP(w, r)
}

func (h *Handler) refuse(w http.ResponseWriter, r *http.Request, v verdict) error {
	// Only on an answer of our own, which no cache keeps: on a public route the
	// answer is the application's, and a shared cache that stored it would log
	// everybody out.
	if v.clear && !v.source.Keep {
		v.source.clear(w.Header(), r, v.twice)
	}
	h.dropTokens(r, Source{}) // Not to an error route's upstream either.
	switch v.refused.Code.Status {
	case http.StatusUnauthorized:
		denial.Challenge(w.Header(), h.Realm, v.refused.Code)
	case http.StatusServiceUnavailable:
		denial.RetryAfter(w.Header(), 0)
	}
	return denial.Refuse(w, r, v.refused)
}

// verdict is what became of the token, if there was one.
type verdict struct {
	source  Source
	caller  *identity.Principal
	fields  []exchange.Field
	refused *denial.Refusal
	// issuer is the configured issuer whose rules judged; empty when none did.
	issuer string
	// clear says that the cookie can never be good again and should go; twice
	// that there is more than one of its name.
	clear, twice bool
}

// judge finds the deciding token and verifies it.
func (h *Handler) judge(r *http.Request) verdict {
	for _, source := range h.From {
		raw, count := source.find(r)
		if count == 0 || count == 1 && raw == "" {
			continue // An application that logs out by an empty cookie left no token.
		}
		v := verdict{source: source}
		if count > 1 {
			v.refused = &denial.Refusal{Code: denial.BadRequest, Reason: "jwt.two-tokens"}
			v.clear, v.twice = source.In == inCookie, true
			return v
		}
		if source.In == inCookie && !h.sameOrigin(r) {
			v.refused = &denial.Refusal{Code: denial.CrossOrigin, Reason: "jwt.cross-origin"}
			return v
		}
		caller, err := h.verifiers.Verify(r.Context(), raw)
		if err != nil {
			return v.failed(err)
		}
		v.caller = caller
		if v.fields, err = h.fields(caller); err != nil {
			v.caller = nil
			v.refused = &denial.Refusal{Code: denial.TokenInvalid, Reason: "jwt.unsafe-value"}
			return v
		}
		telemetry.Tokens.WithLabelValues(caller.Issuer, "ok").Inc()
		return v
	}
	return verdict{}
}

func (v verdict) failed(err error) verdict {
	v.refused = &denial.Refusal{Code: denial.TokenInvalid, Reason: "jwt.invalid"}
	var failure *token.Error
	if !errors.As(err, &failure) {
		return v
	}
	v.refused.Reason, v.issuer = failure.Reason, failure.Issuer
	switch failure.Code {
	case token.Expired:
		v.refused.Code = denial.TokenExpired
		v.clear = v.source.In == inCookie
	case token.Revoked:
		v.refused.Code = denial.TokenRevoked
		v.clear = v.source.In == inCookie
	case token.Unavailable:
		v.refused.Code = denial.Unavailable
	case token.Invalid:
		// A token under an unknown key or of another issuer may belong to
		// somebody else's application under the same name.
		v.clear = v.source.In == inCookie && failure.Reason == token.ReasonBadSignature && failure.OfIssuer
	}
	return v
}

// identify puts the caller into the exchange, the context, the placeholders
// and the upstream's headers, and takes every unverified token off.
func (h *Handler) identify(r *http.Request, ex *exchange.Exchange, v verdict) *http.Request {
	if v.caller == nil {
		h.dropTokens(r, Source{})
		ex.Caller, ex.Forward, ex.Auth = identity.Anonymous(), nil, "none"
		if h.Anonymous != "" {
			ex.Caller = identity.Anonymous(h.Anonymous)
		}
		return r
	}
	keep := v.source
	if h.ForwardToken == "off" {
		keep = Source{}
	}
	h.dropTokens(r, keep)
	ex.Caller, ex.Forward = v.caller, v.fields
	ex.Auth = "bearer"
	if v.source.In == inCookie {
		ex.Auth = "cookie"
	}
	ex.SetForward(r.Header)
	setPlaceholders(r, v.caller)
	return r.WithContext(identity.With(r.Context(), v.caller))
}

// Interface guards.
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
