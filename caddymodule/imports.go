// Package caddymodule registers every Moat module with Caddy. It is the import
// path for builds with other plugins.
package caddymodule

import (
	_ "github.com/moat-gateway/moat/caddymodule/app"     // the moat app
	_ "github.com/moat-gateway/moat/caddymodule/audit"   // http.handlers.moat_audit
	_ "github.com/moat-gateway/moat/caddymodule/command" // moat demo
	_ "github.com/moat-gateway/moat/caddymodule/gate"    // the moat directive
	_ "github.com/moat-gateway/moat/caddymodule/guard"   // http.handlers.moat_guard
	_ "github.com/moat-gateway/moat/caddymodule/headers" // http.handlers.moat_headers
	_ "github.com/moat-gateway/moat/caddymodule/health"  // http.handlers.moat_health
	_ "github.com/moat-gateway/moat/caddymodule/jwt"     // http.handlers.moat_jwt
	_ "github.com/moat-gateway/moat/caddymodule/limit"   // http.handlers.moat_limit
	_ "github.com/moat-gateway/moat/caddymodule/rbac"    // http.handlers.moat_rbac
	_ "github.com/moat-gateway/moat/caddymodule/seal"    // http.reverse_proxy.transport.moat
	_ "github.com/moat-gateway/moat/caddymodule/sinks"   // moat.sinks.*
)
