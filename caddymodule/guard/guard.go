// Package guard is the moat_guard handler: the door. A request is put into one
// canonical form or refused, and headers that pretend are taken off.
package guard

import (
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/moat-gateway/moat/caddymodule/internal/denial"
	"github.com/moat-gateway/moat/caddymodule/internal/dispense"
	"github.com/moat-gateway/moat/caddymodule/internal/exchange"
	"github.com/moat-gateway/moat/internal/canon"
)

func init() {
	caddy.RegisterModule(new(Handler))
	httpcaddyfile.RegisterHandlerDirective("moat_guard", parse)
}

// Handler refuses requests that can be read in more than one way: 400 for
// targets and headers that are not canonical, 405 for methods outside the
// list, 413, 414 for what is too large, 421 for TLS below 1.3, 425 for early
// data. What passes is forwarded in exactly the bytes that rules match.
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
}

// TLS 1.3 is the floor for requests that come over TLS.
const minTLS = tls.VersionTLS13

// Headers by which a request can claim another method or URL than it has.
// Frameworks act on them behind the gateway's back, so no peer may send them.
var overrideHeaders = []string{
	"X-Original-URL", "X-Original-URI", "X-Rewrite-URL",
	"X-HTTP-Method", "X-HTTP-Method-Override", "X-Method-Override",
}

// Headers that only a trusted proxy may send. Caddy's own proxy writes
// X-Forwarded-For, -Proto and -Host anew from the connection.
var forwardingHeaders = []string{
	"X-Forwarded-*", "Forwarded", "X-Real-IP", "True-Client-IP", "X-Client-IP",
	"X-Cluster-Client-IP", "CF-Connecting-IP",
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
	h.policy = policy
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
	if refusal := h.connection(r); refusal != nil {
		return denial.Refuse(w, r, refusal)
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

// connection judges what the request came in on.
func (h *Handler) connection(r *http.Request) *denial.Refusal {
	if r.TLS == nil {
		return nil
	}
	if r.TLS.Version < minTLS && !h.InsecureAllowTLS12 {
		return &denial.Refusal{Code: denial.Misdirected, Reason: "guard.tls-version"}
	}
	// Early data can be replayed by whoever saw it (RFC 8470 section 3).
	if !r.TLS.HandshakeComplete && (!safe(r.Method) || r.Header["Authorization"] != nil || r.Header["Cookie"] != nil) {
		return &denial.Refusal{Code: denial.TooEarly, Reason: "guard.early-data"}
	}
	return nil
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

func (h *Handler) body(w http.ResponseWriter, r *http.Request) *denial.Refusal {
	if h.MaxBody <= 0 {
		return nil
	}
	if r.ContentLength > h.MaxBody {
		return &denial.Refusal{Code: denial.ContentTooLarge, Reason: "guard.body-too-large"}
	}
	if r.ContentLength < 0 {
		r.Body = bounded{http.MaxBytesReader(w, r.Body, h.MaxBody), r}
	}
	return nil
}

// bounded makes a body that turns out too large a refusal of ours.
type bounded struct {
	io.ReadCloser
	request *http.Request
}

// Read reads up to the bound.
func (b bounded) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		err = denial.Late(b.request, &denial.Refusal{Code: denial.ContentTooLarge, Reason: "guard.body-too-large"})
	}
	return n, err
}

// clean takes off what pretends or what would act on the way to the upstream.
func (h *Handler) clean(r *http.Request, ex *exchange.Exchange) {
	ex.Unwanted = []*canon.HeaderSet{h.identity, h.overrides}
	if !exchange.TrustedPeer(r) {
		ex.Unwanted = append(ex.Unwanted, h.forwarding)
	}
	for _, set := range ex.Unwanted {
		set.StripFrom(r.Header)
	}
	cleanConnection(r.Header)
	if r.Trailer != nil {
		// Some servers merge trailers into headers. A rule can ask for them.
		ex.Trailer = r.Trailer
		r.Trailer = nil
		delete(r.Header, "Trailer")
	}
}

// cleanConnection keeps Connection from naming headers away: the proxy deletes
// every header listed there, identity headers that the gate set included.
func cleanConnection(h http.Header) {
	upgrade := strings.EqualFold(h.Get("Upgrade"), "websocket") && len(h["Upgrade"]) == 1
	if !upgrade {
		delete(h, "Upgrade")
	}
	if values, ok := h["Connection"]; ok {
		closing := false
		upgrading := false
		for _, value := range values {
			for option := range strings.SplitSeq(value, ",") {
				switch strings.ToLower(strings.TrimSpace(option)) {
				case "close":
					closing = true
				case "upgrade":
					upgrading = true
				}
			}
		}
		switch {
		case upgrading && upgrade:
			h["Connection"] = []string{"Upgrade"}
		case closing:
			h["Connection"] = []string{"close"}
		default:
			delete(h, "Connection")
		}
	}
	delete(h, "Proxy-Connection")
	delete(h, "Keep-Alive")
	delete(h, "Http2-Settings")
	if te, ok := h["Te"]; ok {
		delete(h, "Te")
		for _, value := range te {
			if strings.EqualFold(strings.TrimSpace(value), "trailers") {
				h["Te"] = []string{"trailers"}
			}
		}
	}
}

func safe(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions
}

func parse(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	handler := new(Handler)
	return handler, handler.UnmarshalCaddyfile(h.Dispenser)
}

// UnmarshalCaddyfile reads:
//
//	moat_guard [<matcher>] {
//		methods <method>...
//		identity <header>...
//		case_insensitive
//		refuse_parameters
//		credentials <header>...
//		encoded_slash
//		max_body <size>
//		max_path <bytes>
//		max_query <bytes>
//		insecure_allow_encoded_slash
//		insecure_allow_empty_segments
//		insecure_allow_tls12
//	}
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if d.NextArg() {
		return d.Errf("guard: unexpected argument %q", d.Val())
	}
	return dispense.Words{
		"methods":                       {Parse: dispense.Strings(&h.Methods)},
		"identity":                      {Parse: dispense.Strings(&h.Identity)},
		"refuse_parameters":             {Parse: dispense.Flag(&h.RefuseParameters)},
		"case_insensitive":              {Parse: dispense.Flag(&h.CaseInsensitive)},
		"credentials":                   {Parse: dispense.Strings(&h.Credentials)},
		"encoded_slash":                 {Parse: dispense.Flag(&h.EncodedSlash)},
		"max_body":                      {Parse: dispense.Size(&h.MaxBody)},
		"max_path":                      {Parse: dispense.Count(&h.MaxPath, 1)},
		"max_query":                     {Parse: dispense.Count(&h.MaxQuery, 1)},
		"insecure_allow_encoded_slash":  {Parse: dispense.Flag(&h.InsecureAllowEncodedSlash)},
		"insecure_allow_empty_segments": {Parse: dispense.Flag(&h.InsecureAllowEmptySegments)},
		"insecure_allow_tls12":          {Parse: dispense.Flag(&h.InsecureAllowTLS12)},
	}.Block(d, "guard")
}

// Interface guards.
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
	_ caddyfile.Unmarshaler       = (*Handler)(nil)
)
