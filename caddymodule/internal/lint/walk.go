package lint

import (
	"maps"
	"slices"
	"strings"
)

// position is what a request has met when it comes to a handler.
type position struct {
	// guard is the moat_guard that it passed.
	guard object
	// decided says that a moat_rbac has decided on it.
	decided bool
	// limits are those that every request here has passed.
	limits []*limit
	// templated says that what answers next is a template.
	templated bool
	// inError says that the request runs through error routes; fixed that its
	// path is not the refused one any more but that of a page.
	inError, fixed bool
	// partial says that not every request of the site comes here.
	partial bool
	behind  *detour
	site    *site
}

// gated reports whether nothing gets here that no rule allows.
func (p *position) gated() bool { return p.guard != nil && p.decided }

// detour is a matcher that only some requests of a site meet.
type detour struct {
	place, matcher string
	handlers       []string
}

// site is the routes of one host matcher, or those of a server without one.
type site struct {
	name     string
	gate     string // where its first gate stands
	limits   []*limit
	shadowed bool // by insecure_shadow
	shadows  []shadow
}

// walker follows requests through the routes of one server.
type walker struct {
	*linter
	path    string
	named   object // routes that invoke calls
	local   bool   // only this machine can connect
	guarded bool   // somewhere in the server stands a guard
	// calls are the named routes that a request is in.
	calls []string
	// groups are the route groups that a request has met: Caddy keeps them for
	// the whole request, however deep a route stands.
	groups map[string]position
	// dials are the upstreams that stand behind the gate.
	dials []string
	// steps bounds the walk: named routes can call each other in very many ways.
	steps int
}

// maxSteps is far more than any configuration has routes.
const maxSteps = 100_000

// walk goes through the routes of every server.
func (l *linter) walk() {
	servers := asObject(dig(l.root, "apps", "http", "servers"))
	for _, name := range slices.Sorted(maps.Keys(servers)) {
		srv := asObject(servers[name])
		path := join("apps/http/servers", name)
		w := &walker{
			linter: l, path: path, named: asObject(srv["named_routes"]), local: loopbackOnly(srv), guarded: holdsGuard(srv),
			groups: make(map[string]position),
		}
		whole := &site{name: strings.Join(texts(srv["listen"]), ", ")}
		l.seen = append(l.seen, whole)
		w.routes(path+"/routes", srv["routes"], position{site: whole})
		w.errorRoutes(path, srv, position{site: whole})
		l.tooMany = l.tooMany || w.steps > maxSteps
	}
}

// holdsGuard reports whether a guard stands anywhere below v.
func holdsGuard(v any) (found bool) {
	visit("", v, func(_, key string, _ object, value any) {
		found = found || key == "handler" && value == "moat_guard"
	})
	return found
}

// routes follows a request through a list of routes and returns what every
// request has met that comes out at its end.
func (w *walker) routes(path string, list any, at position) position {
	for i, route := range objects(list) {
		at = w.route(join(path, i), route, at)
	}
	return at
}

func (w *walker) route(path string, route object, at position) position {
	if w.steps++; w.steps > maxSteps {
		return at
	}
	inner, conditional := w.enter(path, route, at)
	group := text(route["group"])
	others, met := w.groups[group]
	if group != "" {
		// A route of the same group inside of this one is never run.
		w.groups[group] = at
	}
	after := w.handlers(path+"/handle", route["handle"], inner)
	w.leave(at, inner)
	if group != "" {
		// Of a group only the first route that matches runs, so behind one that
		// always matches a request has met what all of them have in common.
		if met {
			after = after.common(&others)
		}
		w.groups[group] = after
	}
	if conditional {
		return at
	}
	at.guard, at.decided, at.limits = after.guard, after.decided, after.limits
	at.templated, at.fixed = after.templated, after.fixed
	return at
}

// common keeps what both have met.
func (p position) common(other *position) position {
	if other.guard == nil {
		p.guard = nil
	}
	p.decided, p.fixed = p.decided && other.decided, p.fixed && other.fixed
	p.limits = slices.DeleteFunc(slices.Clone(p.limits), func(l *limit) bool { return !slices.Contains(other.limits, l) })
	return p
}

// enter returns the position inside a route.
func (w *walker) enter(path string, route object, at position) (inner position, conditional bool) {
	sets := objects(route["match"])
	if len(sets) == 0 {
		return at, false
	}
	var hosts, chosen []string
	for _, matchers := range sets {
		for _, name := range slices.Sorted(maps.Keys(matchers)) {
			switch {
			case name == "host":
				hosts = append(hosts, texts(matchers[name])...)
			case name == "method":
				at.partial = true
			case !connectionFact(name, matchers[name]):
				chosen = append(chosen, name)
			}
		}
	}
	if len(hosts) > 0 {
		at.site = &site{name: strings.Join(hosts, ", ")}
		w.seen = append(w.seen, at.site)
	}
	if len(chosen) > 0 {
		at.partial = true
		if at.behind == nil {
			at.behind = &detour{place: path, matcher: strings.Join(slices.Compact(chosen), ", ")}
		}
	}
	return at, true
}

// connectionFact reports whether a matcher asks for what is settled before the
// request: who connects, and how. Everything else is spelled by the caller.
func connectionFact(name string, value any) bool {
	switch name {
	case "host", "protocol", "remote_ip", "client_ip", "tls":
		return true
	case "not":
		for _, matchers := range objects(value) {
			for inner, v := range matchers {
				if inner != "method" && !connectionFact(inner, v) {
					return false
				}
			}
		}
		return true
	}
	return false
}

// leave reports the single directives that stand behind the matcher of the
// route that is left.
func (w *walker) leave(outer, inner position) {
	if outer.behind == nil && inner.behind != nil && len(inner.behind.handlers) > 0 {
		w.behind(inner.behind, inner.site)
	}
}

func (w *walker) handlers(path string, list any, at position) position {
	for i, h := range objects(list) {
		at = w.handler(join(path, i), h, at)
	}
	return at
}

func (w *walker) handler(path string, h object, at position) position {
	name := text(h["handler"])
	switch {
	case strings.HasPrefix(name, "moat_"):
		return w.gate(path, name, h, at)
	case name == "subroute":
		w.errorRoutes(path, h, at)
		return w.routes(path+"/routes", h["routes"], at)
	case name == "invoke":
		return w.invoke(h, at)
	case name == "templates":
		at.templated = true
	case name == "rewrite":
		at.fixed = at.fixed || fixedPage(text(h["uri"]))
	case name == "reverse_proxy":
		w.proxy(path, h, at)
	default:
		w.responder(path, name, h, at)
	}
	for i, response := range objects(h["handle_response"]) {
		w.routes(join(join(path, "handle_response"), i)+"/routes", response["routes"], at)
	}
	return at
}

// fixedPage reports whether a rewrite leads to a page that the request cannot
// choose: only the error is in its URI.
func fixedPage(uri string) bool {
	return uri != "" && !strings.Contains(strings.ReplaceAll(strings.ReplaceAll(uri, "{http.error.", ""), "{err.", ""), "{")
}

// invoke follows a request into a named route. One that calls itself is an
// endless loop to Caddy as well.
func (w *walker) invoke(h object, at position) position {
	name := text(h["name"])
	route := asObject(w.named[name])
	if route == nil || slices.Contains(w.calls, name) {
		return at
	}
	w.calls = append(w.calls, name)
	defer func() { w.calls = w.calls[:len(w.calls)-1] }()
	return w.route(join(w.path+"/named_routes", name), route, at)
}

func (w *walker) errorRoutes(path string, of object, at position) {
	at.inError = true
	w.routes(path+"/errors/routes", dig(of, "errors", "routes"), at)
}
