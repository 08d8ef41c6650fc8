// Package headers is the moat_headers handler: exactly one value of each
// security header on every answer.
package headers

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/moat-gateway/moat/caddymodule/internal/dispense"
	"github.com/moat-gateway/moat/caddymodule/internal/exchange"
	"github.com/moat-gateway/moat/internal/headers"
)

func init() {
	caddy.RegisterModule(new(Handler))
	httpcaddyfile.RegisterHandlerDirective("moat_headers", parse)
}

// Handler sets the security headers of a preset. They are set at once, so that
// errors, refusals and redirects carry them, and settled when the answer's
// header is written, so that the upstream's copies are neither doubled nor
// left to win. HSTS is sent over TLS only.
//
// Informational answers (1xx) are left alone, except 101, which is final.
type Handler struct {
	// Preset is "html" for pages or "api" for machine clients. Default: html.
	Preset string `json:"preset,omitempty"`
	// Set replaces the preset's value of single headers, or adds a header.
	Set []headers.Field `json:"set,omitempty"`
	// Keep names headers of which the upstream's value wins when it sends
	// exactly one that is not empty.
	Keep []string `json:"keep,omitempty"`
	// Remove names answer headers to take off beside Server, X-Powered-By, Via
	// and the like, which always go.
	Remove []string `json:"remove,omitempty"`
	// CSP replaces single directives of the preset's Content-Security-Policy.
	CSP []headers.Directive `json:"csp,omitempty"`
	// ReportOnly sends the policy as Content-Security-Policy-Report-Only.
	ReportOnly bool `json:"report_only,omitempty"`
	// InsecureUnsafeCSP allows sources that undo the policy, such as
	// 'unsafe-inline'. Default: such a source is an error.
	InsecureUnsafeCSP bool `json:"insecure_unsafe_csp,omitempty"`
	// Mode is "enforce" (default) or "shadow": headers that would change are
	// left as the upstream sent them, and named in the audit event.
	Mode string `json:"mode,omitempty"`

	policy *headers.Policy
}

// CaddyModule returns the module's registration.
func (*Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.moat_headers",
		New: func() caddy.Module { return new(Handler) },
	}
}

// Provision compiles the policy.
func (h *Handler) Provision(ctx caddy.Context) error {
	set, err := h.expand()
	if err != nil {
		return err
	}
	policy, err := headers.New(headers.Config{
		Preset:        h.Preset,
		Set:           set,
		Keep:          h.Keep,
		Remove:        h.Remove,
		CSP:           h.CSP,
		CSPReportOnly: h.ReportOnly,
		InsecureCSP:   h.InsecureUnsafeCSP,
	})
	if err != nil {
		return err
	}
	h.policy = policy
	if h.InsecureUnsafeCSP {
		ctx.Logger().Warn("insecure_unsafe_csp: the content security policy allows sources that undo it")
	}
	if h.Mode == "shadow" {
		ctx.Logger().Warn("headers are in shadow mode: answers keep the upstream's headers", zap.String("preset", h.Preset))
	}
	return nil
}

// expand replaces placeholders in the values that are set.
func (h *Handler) expand() ([]headers.Field, error) {
	set := slices.Clone(h.Set)
	var errs []error
	for i, field := range set {
		value, err := dispense.Expand(fmt.Sprintf("headers: set %s at %s", field.Name, field.Place), field.Value)
		set[i].Value = value
		errs = append(errs, err)
	}
	return set, errors.Join(errs...)
}

// ServeHTTP sets the headers and settles them on the way out.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	ex := exchange.Ensure(w, r)
	s := &settler{
		shadow:                h.Mode == "shadow",
		ResponseWriterWrapper: caddyhttp.ResponseWriterWrapper{ResponseWriter: w},
		policy:                h.policy,
		exchange:              ex,
		tls:                   r.TLS != nil,
	}
	if !s.shadow {
		h.policy.Apply(w.Header(), s.conn())
	}
	// Answers to errors are written by the outermost handler; they must come
	// through here, or an error page's own upstream would double the headers.
	ex.Response = s
	return next.ServeHTTP(s, r)
}

// settler settles the headers when the final status is known.
type settler struct {
	caddyhttp.ResponseWriterWrapper

	policy   *headers.Policy
	exchange *exchange.Exchange
	tls      bool
	settled  bool
	shadow   bool
}

func (s *settler) conn() headers.Conn {
	return headers.Conn{TLS: s.tls, Authenticated: s.exchange.Caller.Known()}
}

// WriteHeader settles the headers of the final answer.
func (s *settler) WriteHeader(status int) {
	if !s.settled && (status >= http.StatusOK || status == http.StatusSwitchingProtocols) {
		s.settled = true
		s.settle(status)
	}
	s.ResponseWriterWrapper.WriteHeader(status)
}

func (s *settler) settle(status int) {
	if !s.shadow {
		s.policy.Settle(s.Header(), status, s.conn())
		return
	}
	for _, name := range s.policy.Changes(s.Header(), status, s.conn()) {
		s.exchange.Shadow("headers." + name)
	}
}

// Write sends the header first, as net/http would, but through here.
func (s *settler) Write(p []byte) (int, error) {
	s.begin()
	return s.ResponseWriterWrapper.Write(p)
}

// ReadFrom keeps the zero-copy path.
func (s *settler) ReadFrom(src io.Reader) (int64, error) {
	s.begin()
	return s.ResponseWriterWrapper.ReadFrom(src)
}

// FlushError sends what is buffered; the first flush sends the header.
func (s *settler) FlushError() error {
	s.begin()
	return http.NewResponseController(s.ResponseWriter).Flush() //nolint:bodyclose // no body here
}

func (s *settler) begin() {
	if !s.settled {
		s.WriteHeader(http.StatusOK)
	}
}

// Interface guards.
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
	_ http.ResponseWriter         = (*settler)(nil)
	_ io.ReaderFrom               = (*settler)(nil)
)
