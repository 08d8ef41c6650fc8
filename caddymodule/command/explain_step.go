package command

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/fileserver"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/moat-gateway/moat/caddymodule/internal/exchange"
	"github.com/moat-gateway/moat/caddymodule/internal/explanation"
	"github.com/moat-gateway/moat/caddymodule/internal/proxy"
)

const (
	stepName      = "moat_explained"
	handlerPrefix = "http.handlers."
)

// registerStep makes the step known to Caddy. It is no module that a
// configuration could use: it exists only while something is explained.
var registerStep = sync.OnceFunc(func() { caddy.RegisterModule(new(step)) })

// step stands in a route for one handler and explains it.
type step struct {
	Of json.RawMessage `json:"of" caddy:"namespace=http.handlers inline_key=handler"`

	inner caddyhttp.MiddlewareHandler
	name  string
	site  string // that moat_audit names
}

// CaddyModule returns the module's registration.
func (*step) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: handlerPrefix + stepName, New: func() caddy.Module { return new(step) }}
}

// Provision loads the handler.
func (s *step) Provision(ctx caddy.Context) error {
	var named struct{ Site string }
	if err := json.Unmarshal(s.Of, &named); err == nil {
		s.site = named.Site
	}
	value, err := ctx.LoadModule(s, "Of")
	if err != nil {
		return err
	}
	inner, ok := value.(caddyhttp.MiddlewareHandler)
	if !ok {
		return fmt.Errorf("%T is no handler", value)
	}
	s.inner, s.name = inner, strings.TrimPrefix(caddy.GetModuleID(value), handlerPrefix)
	return nil
}

// runs are handlers that change the request and nothing else; what stands
// behind them must see the change.
var runs = map[string]bool{"rewrite": true, "vars": true, "map": true, "headers": true}

// passes are handlers that pass every request on.
var passes = map[string]bool{
	"encode": true, "tracing": true, "log_append": true, "intercept": true, "templates": true,
	"request_body": true, "push": true, "copy_response_headers": true, "moat_refusal": true,
}

// answers are handlers that answer every request.
var answers = map[string]bool{
	"static_response": true, "error": true, "metrics": true, "acme_server": true, "moat_health": true,
	"copy_response": true,
}

// ServeHTTP explains the handler.
func (s *step) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	walk := walkOf(r.Context())
	switch h := s.inner.(type) {
	case explanation.Explainer:
		return h.Explain(w, r, next, walk.Trace)
	case *reverseproxy.Handler:
		if proxy.Asks(h) {
			walk.Note(s.name, "forward_auth, which is not asked here; it may refuse")
			return next.ServeHTTP(w, r)
		}
		walk.end(r, "reverse_proxy to "+upstreamsOf(h), proxy.Sealed(h))
		return nil
	case *fileserver.FileServer:
		if h.PassThru {
			walk.Note(s.name, "not run here; it answers what it has a file for")
			return next.ServeHTTP(w, r)
		}
		walk.end(r, s.name, false)
		return nil
	}
	switch {
	case runs[s.name]:
		return s.inner.ServeHTTP(w, r, next)
	case answers[s.name]:
		walk.end(r, s.name, false)
		return nil
	case !passes[s.name]:
		walk.Note(s.name, "not run here; it may answer or change the request")
	}
	return next.ServeHTTP(w, r)
}

func upstreamsOf(h *reverseproxy.Handler) string {
	var dials []string
	for _, u := range h.Upstreams {
		dials = append(dials, u.Dial)
	}
	if len(dials) == 0 {
		return "dynamic upstreams"
	}
	return strings.Join(dials, ", ")
}

// walk is one request's way through the routes.
type walk struct {
	*explanation.Trace
	// answerer is what answers at the end of the way; empty when none was met.
	answerer string
	// seal is the reason for which the seal refuses; empty when it does not.
	seal string
}

type walkKey struct{}

func withWalk(ctx context.Context, w *walk) context.Context {
	return context.WithValue(ctx, walkKey{}, w)
}

func walkOf(ctx context.Context) *walk {
	w, _ := ctx.Value(walkKey{}).(*walk)
	return w
}

// end writes down what answers.
func (w *walk) end(r *http.Request, answerer string, sealed bool) {
	w.answerer = answerer
	says := answerer
	ex := w.Exchange
	switch decided := ex != nil && ex.Decided; {
	case sealed:
		says += ", sealed"
		if decided {
			w.seal = drift(r, ex)
		}
	case decided && strings.HasPrefix(answerer, "reverse_proxy"):
		says += ", without the seal"
	}
	if w.seal == "" {
		w.Note("next", says)
		return
	}
	w.Add(explanation.Step{
		Name: "seal", Outcome: explanation.Refuses, Reason: w.seal, Says: explanation.Sentence(w.seal),
		More: []string{"decided " + ex.Method + " " + ex.Path, "sent " + r.Method + " " + r.URL.EscapedPath()},
	})
}

// drift says, as the seal will, what the site's own handlers changed after the
// decision. What the proxy itself changes is not seen here.
func drift(r *http.Request, ex *exchange.Exchange) string {
	rule, sent := ex.Match.Rule(), r.URL.EscapedPath()
	fits := func() bool {
		if rule == nil || rule.StripPrefix == "" {
			return false
		}
		rest, ok := strings.CutPrefix(ex.Path, rule.StripPrefix)
		return ok && (rest == sent || rest == "" && sent == "/")
	}
	switch {
	case rule != nil && rule.RewriteOK:
		return ""
	case r.Method != ex.Method:
		return "seal.method-changed"
	case sent != ex.Path && !fits():
		return "seal.path-changed"
	case r.URL.RawQuery != ex.Query:
		return "seal.query-changed"
	}
	return ""
}

// Interface guards.
var (
	_ caddy.Provisioner           = (*step)(nil)
	_ caddyhttp.MiddlewareHandler = (*step)(nil)
)
