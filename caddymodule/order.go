package caddymodule

import "github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"

// Order is the order in which the directives of a site run, whatever the order
// they are written in. Every directive in front of the first standard one,
// tracing, so that no responder, rewrite or header directive of the site runs
// ahead of a check. Caddy knows orders only relative to its own directives and
// keeps the registration order among several at one anchor: hence one table,
// registered from one place.
var Order = []struct{ Directive, Before string }{
	{"moat", "tracing"},
	{"moat_audit", "tracing"},
	{"moat_headers", "tracing"},
	{"moat_guard", "tracing"},
	{"moat_limit", "tracing"},
	{"moat_jwt", "tracing"},
	{"moat_rbac", "tracing"},
	{"moat_health", "respond"},
}

func init() {
	for _, o := range Order {
		httpcaddyfile.RegisterDirectiveOrder(o.Directive, httpcaddyfile.Before, o.Before)
	}
}
