package lint

import (
	"slices"
	"strings"
)

// middlewares answer nothing by themselves.
var middlewares = []string{
	"authentication", "copy_response_headers", "encode", "error", "headers", "intercept", "log_append", "map", "push",
	"request_body", "rewrite", "timeouts", "tracing", "vars",
}

// gate notes what a handler of ours does for the requests behind it.
func (w *walker) gate(path, name string, h object, at position) position {
	switch name {
	case "moat_health", "moat_refusal":
		w.responder(path, name, h, at)
		return at
	case "moat_guard":
		at.guard = h
	case "moat_limit":
		at = w.limits(path, h, at)
	case "moat_rbac":
		at = w.rbac(path, h, at)
	case "moat_headers":
		if text(h["mode"]) == "shadow" {
			at.site.shadows = append(at.site.shadows, shadow{w.at(path, "mode", "shadow"), "headers: mode shadow: answers keep the upstream's headers"})
		}
	}
	if at.behind != nil && !slices.Contains(at.behind.handlers, name) {
		at.behind.handlers = append(at.behind.handlers, name)
	}
	return at
}

func (w *walker) rbac(path string, h object, at position) position {
	if set(h["insecure_shadow"]) {
		at.site.shadowed = true
	}
	if text(h["stage"]) != "decide" {
		w.gates = append(w.gates, &policy{path: path, handler: h, guard: at.guard, site: at.site})
	}
	if text(h["stage"]) != "match" {
		at.decided = true
		at.site.limits = append(at.site.limits, at.limits...)
		if at.site.gate == "" {
			at.site.gate = path
		}
	}
	return at
}

func (w *walker) behind(d *detour, s *site) {
	w.add(GateBehindMatcher, Medium, w.at(d.place, d.handlers[0]),
		"%s in site %s run only where the matcher %s holds: a request that is spelled otherwise passes by",
		strings.Join(d.handlers, ", "), s.name, d.matcher)
}

// proxy judges a reverse_proxy.
func (w *walker) proxy(path string, h object, at position) {
	if asks(h) {
		return
	}
	var dials []string
	for _, upstream := range objects(h["upstreams"]) {
		dials = append(dials, text(upstream["dial"]))
	}
	protocol := text(dig(h, "transport", "protocol"))
	word := "reverse_proxy"
	if protocol == "fastcgi" {
		if _, ok := w.lines.find("php_fastcgi", dials...); ok {
			word = "php_fastcgi"
		}
	}
	place, to := w.at(path, word, dials...), strings.Join(dials, ", ")
	sealed := protocol == "moat"
	switch {
	case at.inError && w.guarded && !sealed:
		w.add(ProxyWithoutSeal, High, place,
			"the %s to %s in an error route of site %s has no `transport moat`: it sends requests on that were refused, with their method, target and body",
			word, to, at.site.name)
	case at.inError && w.guarded && at.fixed:
	case at.inError && w.guarded:
		severity := Medium
		if slices.ContainsFunc(dials, func(d string) bool { return slices.Contains(w.dials, d) }) {
			severity = High
		}
		w.add(ErrorRouteByPath, severity, place,
			"the %s to %s in an error route of site %s gets the path that was refused, as a request of nobody: what it answers reaches the refused caller",
			word, to, at.site.name)
	case !at.gated() && sealed:
		w.add(ResponderWithoutGate, Low, place,
			"the %s to %s in site %s is reached %s: its seal answers 403 to every request", word, to, at.site.name, at.lacks())
	case !at.gated():
		w.ungated(w.capped(High), place, word+" to "+to, at)
	case !sealed:
		w.add(ProxyWithoutSeal, High, place,
			"the %s to %s in site %s has no `transport moat`: what it sends is not checked against the decision, and identity headers are not written",
			word, to, at.site.name)
	}
	if at.gated() {
		w.dials = append(w.dials, dials...)
	}
}

// asks reports whether a proxy looks exactly like what forward_auth makes: a GET
// for one fixed path whose good answer (2xx) is not passed on but only read. That
// is a question to another server, not the request to the application.
func asks(h object) bool {
	path, _, _ := strings.Cut(text(dig(h, "rewrite", "uri")), "?")
	responses := objects(h["handle_response"])
	if text(dig(h, "rewrite", "method")) != "GET" || path == "" || strings.Contains(path, "{") || len(responses) != 1 {
		return false
	}
	statuses, _ := dig(responses[0], "match", "status_code").([]any)
	if len(statuses) != 1 || text(statuses[0]) != "2" {
		return false
	}
	reads := true
	visit("", responses[0]["routes"], func(_, key string, _ object, value any) {
		reads = reads && (key != "handler" || value == "vars" || value == "headers" || value == "request_header")
	})
	return reads
}

// responder judges a handler that may answer by itself.
func (w *walker) responder(path, name string, h object, at position) {
	if at.inError && w.guarded {
		if name == "file_server" && !at.fixed {
			w.add(ErrorRouteByPath, High, w.at(path, name),
				"the file_server in an error route of site %s serves what lies at the path that was refused", at.site.name)
		}
		return
	}
	if at.gated() || slices.Contains(middlewares, name) || name == "moat_refusal" {
		return
	}
	severity, word := w.answers(name, h, at)
	if severity == "" {
		return
	}
	w.ungated(severity, w.at(path, word, bodyOf(h)...), word, at)
}

// answers returns how grave it is that a handler answers unguarded, and its
// directive.
func (w *walker) answers(name string, h object, at position) (severity Severity, word string) {
	switch name {
	case "file_server":
		return w.capped(High), name
	case "static_response":
		if !reveals(h) {
			return "", ""
		}
		if at.templated {
			return w.capped(High), "respond"
		}
		return w.harmless(Medium), "respond"
	case "metrics":
		return w.harmless(Medium), name
	case "moat_health", "acme_server":
		return w.harmless(Low), name
	case "copy_response", "":
		return "", "" // The proxy that it copies from was judged.
	default:
		return Low, name
	}
}

// capped is the severity of a way in: where only this machine can connect, it
// is at most medium.
func (w *walker) capped(severity Severity) Severity {
	if w.local && severity == High {
		return Medium
	}
	return severity
}

// harmless is the severity of what may well be open to this machine.
func (w *walker) harmless(severity Severity) Severity {
	if w.local {
		return ""
	}
	return severity
}

// reveals reports whether a static response says anything beyond a redirect or
// an error.
func reveals(h object) bool {
	status := text(h["status_code"])
	erroneous := status != "" && strings.ContainsRune("345", rune(status[0]))
	return !set(h["abort"]) && text(h["body"]) != "" && !erroneous
}

func bodyOf(h object) []string {
	if body := text(h["body"]); body != "" {
		return []string{body}
	}
	return nil
}

func (w *walker) ungated(severity Severity, place, what string, at position) {
	w.add(ResponderWithoutGate, severity, place, "%s in site %s is reached %s", what, at.site.name, at.lacks())
}

// lacks says what a request has not met.
func (p *position) lacks() string {
	switch {
	case p.guard == nil && !p.decided:
		return "without moat_guard and moat_rbac"
	case p.guard == nil:
		return "without moat_guard"
	default:
		return "without the decision of a moat_rbac"
	}
}
