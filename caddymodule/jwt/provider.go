package jwt

import (
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/caddyauth"

	"github.com/moat-gateway/moat/caddymodule/internal/denial"
	"github.com/moat-gateway/moat/caddymodule/internal/exchange"
	"github.com/moat-gateway/moat/internal/identity"
)

func init() { caddy.RegisterModule(new(Provider)) }

// Provider is Moat's verifier for Caddy's own `authentication` handler, for
// people who compose a site without the moat directive. It knows who a caller is
// and nothing else: no rule, no anonymous role, no identity header, no event. A
// caller without a valid token is not authenticated, and Caddy answers 401.
//
// It must be the only provider of its handler: of several Caddy asks in no order
// and stops at the first that succeeds, so that a token which this one would have
// taken off could go upstream unverified. Whatever is wrong is 401 here, and no
// cookie is cleared.
//
// It sets {http.auth.user.id}, .tenant, .roles, .session and .issuer.
type Provider struct {
	// Issuers are the names of configured issuers whose tokens count.
	Issuers []string `json:"issuers,omitempty"`
	// From lists where a token may be, in order; the first source that carries
	// one decides. Default: the Authorization header.
	From []Source `json:"from,omitempty"`
	// TrustedOrigins may send unsafe requests with a cookie token, beside the
	// site's own origin.
	TrustedOrigins []string `json:"trusted_origins,omitempty"`
	// Realm is named in WWW-Authenticate. Default: moat.
	Realm string `json:"realm,omitempty"`

	handler Handler
}

// CaddyModule returns the module's registration.
func (*Provider) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.authentication.providers.moat_jwt",
		New: func() caddy.Module { return new(Provider) },
	}
}

// Provision finds the issuers.
func (p *Provider) Provision(ctx caddy.Context) error {
	p.handler = Handler{Issuers: p.Issuers, From: p.From, TrustedOrigins: p.TrustedOrigins, Realm: p.Realm}
	return p.handler.Provision(ctx)
}

// Authenticate verifies the request's token. That the keys cannot be had is no
// error for Caddy, which would only log it: the caller is not authenticated.
func (p *Provider) Authenticate(w http.ResponseWriter, r *http.Request) (caddyauth.User, bool, error) {
	ex := exchange.Ensure(w, r)
	if ex.Audited || ex.Decided {
		// Behind a gate: what was judged there, and is recorded, stays.
		ex = new(exchange.Exchange)
	}
	v := p.handler.judge(r)
	if v.caller == nil {
		p.handler.dropTokens(r, Source{})
		code := denial.TokenMissing
		if v.refused != nil {
			code, ex.AuthFailure = v.refused.Code, v.refused.Reason
		}
		denial.Challenge(w.Header(), p.handler.Realm, code)
		return caddyauth.User{}, false, nil
	}
	// Caddy takes no other request back: the caller goes into this one's context.
	*r = *p.handler.identify(r, ex, v)
	return caddyauth.User{ID: v.caller.ID, Metadata: metadata(v.caller)}, true, nil
}

func metadata(p *identity.Principal) map[string]string {
	return map[string]string{
		"tenant": p.Tenant, "session": p.Session, "issuer": p.Issuer, "roles": strings.Join(p.Roles, ","),
	}
}

// Interface guards.
var (
	_ caddy.Provisioner       = (*Provider)(nil)
	_ caddyauth.Authenticator = (*Provider)(nil)
)
