package jwt

import (
	"errors"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"golang.org/x/net/http/httpguts"

	"github.com/moat-gateway/moat/caddymodule/internal/exchange"
	"github.com/moat-gateway/moat/internal/identity"
)

var errUnsafeValue = errors.New("a forwarded value is not safe in a header")

// values are what can be forwarded.
var values = map[string]func(*identity.Principal) string{
	"id":      func(p *identity.Principal) string { return p.ID },
	"tenant":  func(p *identity.Principal) string { return p.Tenant },
	"session": func(p *identity.Principal) string { return p.Session },
	"issuer":  func(p *identity.Principal) string { return p.Issuer },
	"roles":   func(p *identity.Principal) string { return strings.Join(p.Roles, ",") },
}

// fields are the identity headers of a caller. An empty value sets no header:
// the upstream must not take "" for a tenant.
func (h *Handler) fields(p *identity.Principal) ([]exchange.Field, error) {
	if len(h.Forward) == 0 {
		return nil, nil
	}
	fields := make([]exchange.Field, 0, len(h.Forward))
	for _, f := range h.Forward {
		value := values[f.Value](p)
		if value == "" {
			continue
		}
		if !httpguts.ValidHeaderFieldValue(value) || strings.TrimSpace(value) != value {
			return nil, errUnsafeValue
		}
		fields = append(fields, exchange.Field{Name: f.Header, Value: value})
	}
	return fields, nil
}

// setPlaceholders makes the caller known to Caddy's own handlers and access
// log, which prints {http.auth.user.id} as user_id.
func setPlaceholders(r *http.Request, p *identity.Principal) {
	repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if !ok {
		return
	}
	repl.Map(func(key string) (any, bool) {
		name, ok := strings.CutPrefix(key, "http.auth.user.")
		if !ok {
			return nil, false
		}
		if claim, ok := strings.CutPrefix(name, "claims."); ok {
			value, ok := p.Claims[claim]
			return value, ok
		}
		value, ok := values[name]
		if !ok {
			return nil, false
		}
		return value(p), true
	})
}
