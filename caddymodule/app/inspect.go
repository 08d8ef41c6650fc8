package app

import (
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"go.uber.org/zap"
)

const (
	gateModule = "http.handlers.moat_guard"
	sealModule = "http.reverse_proxy.transport.moat"
)

// inspect warns about what stands beside a gate and weakens it: a proxy without
// the seal, a TLS policy below 1.3, a site without TLS. It runs when the app
// starts, so that it never makes the http app load.
func (a *App) inspect() {
	value, err := a.ctx.AppIfConfigured("http")
	if err != nil {
		return
	}
	app, ok := value.(*caddyhttp.App)
	if !ok {
		return
	}
	for name, srv := range app.Servers {
		found := &sights{}
		found.walk(srv.Routes)
		if srv.Errors != nil {
			found.walk(srv.Errors.Routes)
		}
		if !found.gate {
			continue
		}
		log := a.logger.With(zap.String("server", name))
		if found.unsealed > 0 {
			log.Warn("a reverse_proxy beside a gate has no `transport moat`: what it sends is not checked against the decision",
				zap.Int("proxies", found.unsealed))
		}
		if len(srv.TLSConnPolicies) == 0 {
			log.Warn("a guarded server is served without TLS: there is no HSTS and no TLS floor")
		}
		for _, policy := range srv.TLSConnPolicies {
			if policy.ProtocolMin != "tls1.3" {
				log.Warn("a TLS policy of a guarded server allows versions below 1.3; " +
					"give every site `tls { protocols tls1.3 }` and add a catch-all `https://` site with it")
				break
			}
		}
	}
}

// sights is what a walk over routes has seen.
type sights struct {
	gate     bool
	unsealed int
}

func (s *sights) walk(routes caddyhttp.RouteList) {
	for _, route := range routes {
		for _, handler := range route.Handlers {
			s.look(handler)
		}
	}
}

// asks reports whether a proxy looks exactly like what forward_auth makes: a GET
// for one fixed path whose good answer is handled and not passed on. That is a
// question to another server, not the request to the application.
func asks(h *reverseproxy.Handler) bool {
	if h.Rewrite == nil || h.Rewrite.Method != http.MethodGet || len(h.HandleResponse) != 1 {
		return false
	}
	path, _, _ := strings.Cut(h.Rewrite.URI, "?")
	match := h.HandleResponse[0].Match
	return path != "" && !strings.Contains(path, "{") && match != nil && slices.Equal(match.StatusCode, []int{2})
}

func (s *sights) look(handler any) {
	switch h := handler.(type) {
	case *caddyhttp.Subroute:
		s.walk(h.Routes)
	case *reverseproxy.Handler:
		if asks(h) {
			return
		}
		transport, ok := h.Transport.(caddy.Module)
		if !ok || string(transport.CaddyModule().ID) != sealModule {
			s.unsealed++
		}
	case caddy.Module:
		s.gate = s.gate || string(h.CaddyModule().ID) == gateModule
	}
}
