// Package guard is the moat_guard handler: the door. A request is put into one
// canonical form or refused, and headers that pretend are taken off.
package guard

import (
	"cmp"
	"crypto/tls"
	"errors"
	"net/http"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/moat-gateway/moat/caddymodule/internal/denial"
	"github.com/moat-gateway/moat/caddymodule/internal/exchange"
	"github.com/moat-gateway/moat/internal/canon"
)

func init() {
	caddy.RegisterModule(new(Handler))
	httpcaddyfile.RegisterHandlerDirective("moat_guard", parse)
}

// Handler refuses requests that can be read in more than one way: 400 for
// targets and headers that are not canonical, 405 for methods outside the
// list, 413, 414 and 431 for what is too large, 421 for TLS below 1.3 and for a
// host that the connection was not made for, 425 for early data. What passes is forwarded in exactly the bytes that rules match.
//
// It removes headers by which a caller could override the method or the URL,
// forwarding headers from peers that are not trusted proxies, and every
// spelling of the identity headers.
type Handler struct {
	// Methods that pass. Default: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS.
	Methods []string `json:"methods,omitempty"`
	// CaseInsensitive matches paths without regard to ASCII case, for upstreams
	// that do so themselves.
	CaseInsensitive bool `json:"case_insensitive,omitempty"`
	// RefuseParameters refuses a semicolon in a path, for upstreams that cut off
	// what follows it. Default: it passes where it makes no difference to the
	// rules.
	RefuseParameters bool `json:"refuse_parameters,omitempty"`
	// MaxBody is the largest request body in bytes. A larger one is refused
	// with 413: before the upstream sees a byte when its length is declared.
	// Default: no limit.
	MaxBody int64 `json:"max_body,omitempty"`
	// MaxHeaders is the largest number of header lines. More are refused with
	// 431. Default: 128.
	MaxHeaders int `json:"max_headers,omitempty"`
	// MaxHeader is the largest size of one header line in bytes, name and value.
	// A longer one is refused with 431. Default: 16384.
	MaxHeader int `json:"max_header,omitempty"`
	// MaxPath and MaxQuery are the longest path and query in bytes; longer ones
	// are refused with 414. Default: 8192 each.
	MaxPath  int `json:"max_path,omitempty"`
	MaxQuery int `json:"max_query,omitempty"`
	// Identity names the headers that carry the caller's identity to the
	// upstream. They are removed from every request.
	Identity []string `json:"identity,omitempty"`
	// EncodedSlash lets %2F pass, inside a segment, to rules that say
	// encoded_slash; moat_rbac refuses it everywhere else.
	EncodedSlash bool `json:"encoded_slash,omitempty"`
	// Credentials names further headers that may carry a token. They are kept
	// from the upstreams of error routes.
	Credentials []string `json:"credentials,omitempty"`
	// InsecureAllowEncodedSlash lets %2F pass inside a segment everywhere.
	InsecureAllowEncodedSlash bool `json:"insecure_allow_encoded_slash,omitempty"`
	// InsecureAllowEmptySegments lets // pass.
	InsecureAllowEmptySegments bool `json:"insecure_allow_empty_segments,omitempty"`
	// InsecureAllowTLS12 lets connections below TLS 1.3 pass.
	InsecureAllowTLS12 bool `json:"insecure_allow_tls12,omitempty"`

	policy     *canon.Policy
	overrides  *canon.HeaderSet
	forwarding *canon.HeaderSet
	identity   *canon.HeaderSet

	credentials *canon.HeaderSet

	logger  *zap.Logger
	noticed sync.Once
}

// TLS 1.3 is the floor for requests that come over TLS.
const minTLS = tls.VersionTLS13

// Headers by which a request can claim another method or URL than it has.
// Frameworks act on them behind the gateway's back, so no peer may send them.
var overrideHeaders = []string{
	"X-Original-URL", "X-Original-URI", "X-Rewrite-URL",
	"X-HTTP-Method", "X-HTTP-Method-Override", "X-Method-Override",
	"X-Original-Host", "X-Host", "Moat-Decision",
	"Proxy", // Becomes HTTP_PROXY in CGI environments (CVE-2016-5385).
}

// Names that mean something as headers and must not come back as trailers.
var trailerHeaders = canon.NewHeaderSet(
	"Authorization", "Cookie", "Set-Cookie", "Host", "X-Request-Id", "Content-*", "Transfer-Encoding", "Connection",
)

// Headers that only a trusted proxy may send. Caddy's own proxy writes
// X-Forwarded-For, -Proto and -Host anew from the connection.
var forwardingHeaders = []string{
	"X-Forwarded-*", "Forwarded", "X-Real-IP", "True-Client-IP", "X-Client-IP",
	"X-Cluster-Client-IP", "CF-Connecting-IP", "Client-IP", "Forwarded-For", "X-Forwarded",
	"X-Original-Forwarded-For", "WL-Proxy-Client-IP", "Fastly-Client-IP",
}

// CaddyModule returns the module's registration.
func (*Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.moat_guard",
		New: func() caddy.Module { return new(Handler) },
	}
}

// Provision compiles the policy and warns about what weakens it.
func (h *Handler) Provision(ctx caddy.Context) error {
	policy, err := canon.New(canon.Config{
		Methods:            h.Methods,
		AllowEncodedSlash:  h.InsecureAllowEncodedSlash || h.EncodedSlash,
		AllowEmptySegments: h.InsecureAllowEmptySegments,
		RefuseParameters:   h.RefuseParameters,
		CaseInsensitive:    h.CaseInsensitive,
		MaxPath:            h.MaxPath,
		MaxQuery:           h.MaxQuery,
	})
	if err != nil {
		return err
	}
	h.policy, h.logger = policy, ctx.Logger()
	h.MaxHeaders = cmp.Or(h.MaxHeaders, defaultMaxHeaders)
	h.MaxHeader = cmp.Or(h.MaxHeader, defaultMaxHeader)
	h.overrides = canon.NewHeaderSet(overrideHeaders...)
	h.forwarding = canon.NewHeaderSet(forwardingHeaders...)
	h.identity = canon.NewHeaderSet(h.Identity...)
	h.credentials = canon.NewHeaderSet(h.Credentials...)
	for word, on := range map[string]bool{
		"insecure_allow_encoded_slash":  h.InsecureAllowEncodedSlash,
		"insecure_allow_empty_segments": h.InsecureAllowEmptySegments,
		"insecure_allow_tls12":          h.InsecureAllowTLS12,
	} {
		if on {
			ctx.Logger().Warn(word + " weakens the guard")
		}
	}
	return nil
}

// ServeHTTP refuses, or cleans and goes on.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	ex := exchange.Ensure(w, r)
	// First of all: whatever becomes of this request, pretended identity must
	// not reach an error route's proxy either.
	h.identity.StripFrom(r.Header)
	ex.Strip, ex.Credentials = h.identity, h.credentials
	h.clean(r, ex)
	for _, judge := range []func(*http.Request) *denial.Refusal{h.connection, h.hosts, h.headers} {
		if refusal := judge(r); refusal != nil {
			return denial.Refuse(w, r, refusal)
		}
	}
	if !ex.Client.IsValid() {
		// Limits, rules and events would not know whom they are about.
		return denial.Refuse(w, r, &denial.Refusal{Code: denial.BadRequest, Reason: "guard.no-client-address"})
	}
	target, err := h.policy.Target(r)
	if err != nil {
		return h.refuse(w, r, err)
	}
	if refusal := h.body(w, r); refusal != nil {
		return denial.Refuse(w, r, refusal)
	}
	target.Apply(r)
	ex.Target, ex.Canonical = target, true
	ex.SlashNeedsRule = h.EncodedSlash && !h.InsecureAllowEncodedSlash
	return next.ServeHTTP(w, r)
}

func (h *Handler) refuse(w http.ResponseWriter, r *http.Request, err error) error {
	refusal := &denial.Refusal{Code: denial.BadRequest, Reason: "canon.unknown"}
	var c *canon.Refusal
	if errors.As(err, &c) {
		refusal.Reason = c.Reason
		switch c.Class {
		case canon.MethodNotAllowed:
			refusal.Code = denial.MethodNotAllowed
			w.Header().Set("Allow", h.policy.Allow())
		case canon.URITooLong:
			refusal.Code = denial.URITooLong
		case canon.BadRequest:
		}
	}
	return denial.Refuse(w, r, refusal)
}

// Interface guards.
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
	_ caddyfile.Unmarshaler       = (*Handler)(nil)
)
