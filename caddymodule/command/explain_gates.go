package command

import (
	"maps"
	"slices"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/moat-gateway/moat/caddymodule/internal/explanation"
	"github.com/moat-gateway/moat/internal/rbac"
)

// gatePolicy is the rules of one gate, and the site that it names.
type gatePolicy struct {
	policy *rbac.Policy
	site   string
}

// gatesOf returns the policies of all gates, always in the same order: a
// configuration that is provisioned twice has each of them twice.
func gatesOf(app *caddyhttp.App) []gatePolicy {
	f := &gateFinder{}
	for _, name := range slices.Sorted(maps.Keys(app.Servers)) {
		srv := app.Servers[name]
		for _, route := range srv.Routes {
			f.site = "" // A composed gate need not name one.
			f.routes(caddyhttp.RouteList{route})
		}
		for _, route := range slices.Sorted(maps.Keys(srv.NamedRoutes)) {
			f.routes(caddyhttp.RouteList{*srv.NamedRoutes[route]})
		}
	}
	return f.gates
}

type gateFinder struct {
	site  string
	gates []gatePolicy
}

func (f *gateFinder) routes(routes caddyhttp.RouteList) {
	for _, route := range routes {
		for _, handler := range route.Handlers {
			switch h := handler.(type) {
			case *caddyhttp.Subroute:
				f.routes(h.Routes)
			case *step:
				f.step(h)
			}
		}
	}
}

func (f *gateFinder) step(s *step) {
	if s.name == "moat_audit" {
		f.site = s.site
	}
	holder, ok := s.inner.(explanation.PolicyHolder)
	if !ok {
		return
	}
	if policy := holder.Policy(); policy != nil {
		f.gates = append(f.gates, gatePolicy{policy, f.site})
	}
}

// gateOf returns which gate a policy is of, or -1.
func (g *gateway) gateOf(policy *rbac.Policy) int {
	return slices.IndexFunc(g.gates, func(p gatePolicy) bool { return p.policy == policy })
}
