package app

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/intercept"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/moat-gateway/moat/caddymodule/internal/proxy"
	"github.com/moat-gateway/moat/internal/rbac"
)

// maxChanged is how many changed parts an event names.
const maxChanged = 32

// parts are the parts of a configuration by name, such as "issuer main", each as
// it is configured: before placeholders are expanded, and without the lines of the
// file it stands in.
type parts map[string][]byte

// add appends to a part: a site may have a handler of one kind twice.
func (p parts) add(name string, value any) {
	text, err := json.Marshal(value)
	if err != nil {
		text = []byte(err.Error()) // Settings came from JSON.
	}
	p[name] = append(append(p[name], text...), '\n')
}

// sum is the hash of all parts, in hex.
func (p parts) sum() string {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(p)) {
		_, _ = fmt.Fprintf(h, "%s\x00%d\x00%s", name, len(p[name]), p[name])
	}
	return hex.EncodeToString(h.Sum(nil))
}

// changed names the parts that differ, sorted.
func (p parts) changed(before parts) []string {
	names := []string{}
	for name := range p {
		if was, ok := before[name]; !ok || string(was) != string(p[name]) {
			names = append(names, name)
		}
	}
	for name := range before {
		if _, ok := p[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	if len(names) > maxChanged {
		names = append(names[:maxChanged:maxChanged], "…")
	}
	return names
}

// configuredParts is what of the configuration is Moat's. The http app must have
// been provisioned.
func (a *App) configuredParts() parts {
	p := make(parts)
	a.addOwn(p)
	a.eachServer(func(name string, srv *caddyhttp.Server) {
		s := sitePart{parts: p, place: "server " + name}
		s.routes(srv.Routes)
		if srv.Errors != nil {
			s.routes(srv.Errors.Routes)
		}
		for _, name := range slices.Sorted(maps.Keys(srv.NamedRoutes)) {
			s.routes(caddyhttp.RouteList{*srv.NamedRoutes[name]})
		}
	})
	return p
}

// addOwn adds the parts of the global block.
func (a *App) addOwn(p parts) {
	if a.Redis != nil {
		p.add("redis", a.Redis)
	}
	if a.Limits != nil {
		p.add("limits", a.Limits)
	}
	for _, i := range a.Issuers {
		p.add("issuer "+i.Name, i)
	}
	if a.TokenCache != nil {
		p.add("token_cache", a.TokenCache)
	}
	for _, role := range a.RoleConfigs {
		p.add("role "+role.Name, withoutPlace(role))
	}
	if a.RolesFile != "" {
		p.add("roles_file", []string{a.RolesFile, a.RolesFileSum})
	}
	p.add("audit", a.Audit)
}

func withoutPlace(role rbac.RoleConfig) rbac.RoleConfig {
	role.Place = ""
	return role
}

// eachServer calls f for the servers of the http app, by name.
func (a *App) eachServer(f func(name string, srv *caddyhttp.Server)) {
	value, err := a.ctx.AppIfConfigured("http")
	if err != nil {
		return
	}
	if app, ok := value.(*caddyhttp.App); ok {
		for _, name := range slices.Sorted(maps.Keys(app.Servers)) {
			f(name, app.Servers[name])
		}
	}
}

// sitePart collects the handlers of one site.
type sitePart struct {
	parts parts
	// place is the site that moat_audit names, or the server.
	place string
}

func (s sitePart) routes(routes caddyhttp.RouteList) {
	// On a copy: a site counts for the routes beside and in its own only.
	for _, route := range routes {
		for i, handler := range route.Handlers {
			if i+1 < len(route.Handlers) && is(route.Handlers[i+1], "moat_refusal") {
				continue // the gate's own: the site's headers once more
			}
			s.handler(handler)
		}
	}
}

// is reports whether a handler is Moat's of that name.
func is(handler any, name string) bool {
	m, ok := handler.(caddy.Module)
	return ok && string(m.CaddyModule().ID) == "http.handlers."+name
}

func (s *sitePart) handler(handler any) {
	switch h := handler.(type) {
	case *caddyhttp.Subroute:
		s.routes(h.Routes)
		if h.Errors != nil {
			s.routes(h.Errors.Routes)
		}
	case *intercept.Intercept:
		s.responses(h.HandleResponse)
	case *reverseproxy.Handler:
		s.responses(h.HandleResponse)
		if proxy.Sealed(h) {
			s.parts.add(s.place+" transport", h.Transport)
		}
	case caddy.Module:
		s.module(h)
	}
}

func (s *sitePart) responses(responses []caddyhttp.ResponseHandler) {
	for _, r := range responses {
		s.routes(r.Routes)
	}
}

// module adds a handler, if it is Moat's.
func (s *sitePart) module(m caddy.Module) {
	name, ours := strings.CutPrefix(string(m.CaddyModule().ID), "http.handlers.moat_")
	if !ours {
		return
	}
	settings := settingsOf(m)
	if site, _ := settings["site"].(string); name == "audit" && site != "" {
		s.place = "site " + site
	}
	s.parts.add(s.place+" "+name, settings)
}

// settingsOf is the JSON of a module without the places of its parts, which change
// with every line that is added above.
func settingsOf(m any) map[string]any {
	settings := make(map[string]any)
	text, err := json.Marshal(m)
	if err == nil {
		err = json.Unmarshal(text, &settings)
	}
	if err != nil {
		settings["error"] = err.Error()
	}
	unplace(settings)
	return settings
}

// unplace takes the places out of all that a value holds.
func unplace(value any) {
	switch v := value.(type) {
	case []any:
		for _, item := range v {
			unplace(item)
		}
	case map[string]any:
		if _, is := v["place"].(string); is {
			delete(v, "place")
		}
		for _, item := range v {
			unplace(item)
		}
	}
}

// tokenHeaders are the headers in which the gates look for tokens.
func (p parts) tokenHeaders() []string {
	var names []string
	for name, text := range p {
		if !strings.HasSuffix(name, " jwt") {
			continue
		}
		for line := range strings.Lines(string(text)) {
			var h struct {
				From []struct{ In, Name string }
			}
			if json.Unmarshal([]byte(line), &h) != nil {
				continue
			}
			for _, from := range h.From {
				if from.In == "header" && from.Name != "" {
					names = append(names, from.Name)
				}
			}
		}
	}
	return names
}
