// Package health is the moat_health handler: whether the gateway lives and
// whether it is ready for traffic.
package health

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/moat-gateway/moat/caddymodule/internal/moatapp"
)

func init() {
	caddy.RegisterModule(new(Handler))
	httpcaddyfile.RegisterHandlerDirective("moat_health", parse)
}

// Handler answers GET and HEAD on paths that end in /live or /ready and leaves
// all others to the next handler. Live is 200 as long as requests are answered.
// Ready is 200 when the configuration is loaded, the journal can be written and
// every issuer's keys are loaded, else 503; Redis and the audit sinks are reported
// only, because limits go on without it and the journal keeps what they did not
// get. The body names the parts, never an address or a
// cause. Serve it on an address that only the orchestrator reaches.
type Handler struct {
	source reporter
}

// reporter is what the handler asks the moat app.
type reporter interface {
	Health(ctx context.Context, report func(part string, required bool, err error))
}

// CaddyModule returns the module's registration.
func (*Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.moat_health",
		New: func() caddy.Module { return new(Handler) },
	}
}

// Provision finds the app.
func (h *Handler) Provision(ctx caddy.Context) (err error) {
	h.source, err = moatapp.Load[reporter](ctx)
	return err
}

// ServeHTTP answers the two questions.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	path := strings.TrimSuffix(r.URL.Path, "/")
	live, ready := strings.HasSuffix(path, "/live"), strings.HasSuffix(path, "/ready")
	if !live && !ready || r.Method != http.MethodGet && r.Method != http.MethodHead {
		return next.ServeHTTP(w, r)
	}
	answer := struct {
		Status string            `json:"status"`
		Parts  map[string]string `json:"parts,omitempty"`
	}{Status: "ok"}
	status := http.StatusOK
	if ready {
		answer.Parts = make(map[string]string)
		h.source.Health(r.Context(), func(part string, required bool, err error) {
			answer.Parts[part] = "ok"
			if err == nil {
				return
			}
			answer.Parts[part] = "degraded"
			if required {
				answer.Parts[part] = "failing"
				answer.Status, status = "unavailable", http.StatusServiceUnavailable
			}
		})
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	if r.Method == http.MethodHead {
		return nil
	}
	return json.NewEncoder(w).Encode(answer)
}

// parse reads:
//
//	moat_health [<matcher>]
func parse(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	handler := new(Handler)
	return handler, handler.UnmarshalCaddyfile(h.Dispenser)
}

// UnmarshalCaddyfile reads the directive; it has no options.
func (*Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if d.NextArg() {
		return d.ArgErr()
	}
	return nil
}

// Interface guards.
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
	_ caddyfile.Unmarshaler       = (*Handler)(nil)
)
