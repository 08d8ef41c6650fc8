package app

import (
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"go.uber.org/zap"

	"github.com/moat-gateway/moat/caddymodule/internal/proxy"
)

const gateModule = "http.handlers.moat_guard"

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

func (s *sights) look(handler any) {
	switch h := handler.(type) {
	case *caddyhttp.Subroute:
		s.walk(h.Routes)
	case *reverseproxy.Handler:
		if !proxy.Asks(h) && !proxy.Sealed(h) {
			s.unsealed++
		}
	case caddy.Module:
		s.gate = s.gate || string(h.CaddyModule().ID) == gateModule
	}
}
