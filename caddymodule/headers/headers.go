// Package headers is the moat_headers handler: exactly one value of each
// security header on every answer.
package headers

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/moat-gateway/moat/caddymodule/internal/exchange"
	"github.com/moat-gateway/moat/internal/canon"
	"github.com/moat-gateway/moat/internal/headers"
	"github.com/moat-gateway/moat/internal/rbac"
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
	Settings
	// Paths are parts of the site with headers of their own, chosen by the canonical
	// path. A request whose target is refused has none and gets those of the site.
	Paths []*Path `json:"paths,omitempty"`
	// Site is its label in the events of the collector. The gate sets it.
	Site string `json:"site,omitempty"`
	// CaseInsensitive compares paths without regard to ASCII case, as the guard does.
	CaseInsensitive bool `json:"case_insensitive,omitempty"`
	// Mode is "enforce" (default) or "shadow": headers that would change are
	// left as the upstream sent them, and named in the audit event.
	Mode string `json:"mode,omitempty"`

	policy  *headers.Policy
	reports *collector // nil: nobody is to report
	paths   *rbac.Policy
	of      map[*rbac.Rule]*headers.Policy
	// pinned are the files of hashes in use.
	pinned   []string
	accepted sync.Once
	// inliners are those of the policies for inline code.
	inliners map[*headers.Policy]*inliner
}

// CaddyModule returns the module's registration.
func (*Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.moat_headers",
		New: func() caddy.Module { return new(Handler) },
	}
}

// Provision compiles the policies. All errors are reported at once.
func (h *Handler) Provision(ctx caddy.Context) error {
	h.inliners = make(map[*headers.Policy]*inliner)
	policy, err := h.compile()
	h.policy = policy
	if err := errors.Join(err, h.bringInline(ctx, policy, &h.Settings), h.provisionPaths(ctx)); err != nil {
		return err
	}
	if h.Mode != "" && h.Mode != "enforce" && h.Mode != "shadow" {
		return fmt.Errorf("headers: mode %.32q: must be enforce or shadow", h.Mode)
	}
	if h.reports, err = newCollector(ctx, h); err != nil {
		return err
	}
	unsafe := h.InsecureUnsafeCSP
	for _, p := range h.Paths {
		unsafe = unsafe || p.InsecureUnsafeCSP
	}
	if unsafe {
		ctx.Logger().Warn("insecure_unsafe_csp: the content security policy allows sources that undo it")
	}
	if h.Mode == "shadow" {
		ctx.Logger().Warn("headers are in shadow mode: answers keep the upstream's headers", zap.String("preset", h.Preset))
	}
	return nil
}

// Cleanup ends the collector and gives the files of hashes back.
func (h *Handler) Cleanup() error {
	h.reports.close()
	h.reports = nil
	var errs []error
	for _, path := range h.pinned {
		_, err := pinFiles.Delete(path)
		errs = append(errs, err)
	}
	h.pinned = nil
	return errors.Join(errs...)
}

// reportPaths are where browsers are to report to, each once.
func (h *Handler) reportPaths() []string {
	var paths []string
	for _, path := range append([]string{h.Report}, h.partReports()...) {
		if path != "" && !slices.Contains(paths, path) {
			paths = append(paths, path)
		}
	}
	return paths
}

func (h *Handler) partReports() []string {
	var paths []string
	for _, p := range h.Paths {
		paths = append(paths, p.Report)
	}
	return paths
}

// settles marks requests whose answers are settled already: an error route may run
// this handler once more.
func settles(ex *exchange.Exchange) bool { _, is := ex.Response.(*settler); return is }

// provisionPaths compiles the policies of the parts, and what finds them.
func (h *Handler) provisionPaths(ctx caddy.Context) error {
	if len(h.Paths) == 0 {
		return nil
	}
	var errs []error
	rules := make([]rbac.RuleConfig, len(h.Paths))
	policies := make([]*headers.Policy, len(h.Paths))
	for i, p := range h.Paths {
		if p == nil {
			return fmt.Errorf("headers: path %d: is empty", i+1)
		}
		rules[i] = rbac.RuleConfig{Methods: []string{"*"}, Pattern: p.Pattern, Require: []string{"public"}, Place: p.Place}
		settings := p.on(h.Settings)
		var err error
		if policies[i], err = settings.compile(); err == nil {
			err = errors.Join(p.check(), h.bringInline(ctx, policies[i], &settings))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", p.Pattern, err))
		}
	}
	paths, err := rbac.NewPolicy(rbac.PolicyConfig{Rules: rules, CaseInsensitive: h.CaseInsensitive}, nil)
	if err != nil {
		errs = append(errs, fmt.Errorf("headers: %w", err))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	h.paths, h.of = paths, make(map[*rbac.Rule]*headers.Policy)
	for i, rule := range paths.Rules() {
		h.of[rule] = policies[i]
	}
	return nil
}

// ServeHTTP sets the headers and settles them on the way out.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	ex := exchange.Ensure(w, r)
	if r.Context().Value(caddyhttp.ErrorCtxKey) != nil && settles(ex) {
		return next.ServeHTTP(w, r)
	}
	s := &settler{
		shadow:                h.Mode == "shadow",
		ResponseWriterWrapper: caddyhttp.ResponseWriterWrapper{ResponseWriter: w},
		handler:               h,
		exchange:              ex,
		tls:                   r.TLS != nil,
	}
	if !s.shadow {
		h.policy.Apply(w.Header(), s.conn())
	}
	// Answers to errors are written by the outermost handler; they must come
	// through here, or an error page's own upstream would double the headers.
	ex.Response = s
	if len(h.inliners) > 0 {
		h.acceptPins()
		ex.Inline = s.send
	}
	if h.reports.takes(r) {
		h.reports.serve(s, r, ex)
		return nil
	}
	return next.ServeHTTP(s, r)
}

// settler settles the headers when the final status is known.
type settler struct {
	caddyhttp.ResponseWriterWrapper

	handler  *Handler
	exchange *exchange.Exchange
	// code allows the answer's own inline code. Nil: none of it.
	code    *headers.Code
	tls     bool
	settled bool
	shadow  bool
}

func (s *settler) conn() headers.Conn {
	return headers.Conn{TLS: s.tls, Authenticated: s.exchange.Caller.Known(), Code: s.code}
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
	policy := s.policy()
	if s.shadow {
		for _, name := range policy.Changes(s.Header(), status, s.conn()) {
			s.exchange.Shadow("headers." + name)
		}
		return
	}
	if policy != s.handler.policy {
		early := s.conn()
		early.Code = nil // Apply knew of none.
		s.handler.policy.Retract(s.Header(), early)
	}
	policy.Settle(s.Header(), status, s.conn())
}

// policy is that of the path, once the guard has said which path it is.
func (s *settler) policy() *headers.Policy {
	if s.handler.paths == nil || !s.exchange.Canonical {
		return s.handler.policy
	}
	if rule := s.handler.rule(s.exchange.BarePath(), s.exchange.Target.Path); rule != nil {
		return s.handler.of[rule]
	}
	return s.handler.policy
}

// rule is that of the part of the site which a path belongs to; nil for the site itself.
// An application may cut path parameters off, or take an encoded slash for one: the part
// that it would serve then counts first.
func (h *Handler) rule(bare, path string) *rbac.Rule {
	for _, reading := range []string{strings.ReplaceAll(bare, "%2F", "/"), bare, path} {
		if rule := h.paths.Lookup(http.MethodGet, reading).Rule(); h.of[rule] != nil {
			return rule
		}
	}
	return nil
}

// part is the pattern of the part of the site that a page belongs to; empty for the site
// itself, and for a page whose path was not told.
func (h *Handler) part(page string) string {
	if h.paths == nil || page == "" {
		return ""
	}
	// What the default refuses may be allowed here, and is looked up as it stands.
	if canonical, err := canon.Path(page); err == nil {
		page = canonical
	}
	if rule := h.rule(page, page); rule != nil {
		return rule.Pattern
	}
	return ""
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
	_ caddy.CleanerUpper          = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
	_ http.ResponseWriter         = (*settler)(nil)
	_ io.ReaderFrom               = (*settler)(nil)
)
