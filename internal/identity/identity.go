// Package identity knows who a caller is. It knows nothing of tokens, HTTP or
// rules: those packages produce or consume a Principal and meet here.
package identity

import (
	"context"
	"time"
)

// Principal is one caller. The nil and the zero Principal are nobody: they are
// not authenticated and hold no role.
//
// A Principal is immutable once it is in a context; verified ones are shared
// between requests.
type Principal struct {
	// ID is the caller's identifier, never empty for an authenticated caller.
	ID string
	// Tenant is the tenant the caller belongs to. Empty equals no tenant.
	Tenant string
	// Session identifies the login session or the token itself. May be empty.
	Session string
	// Roles are the names of configured roles the caller holds. What a token
	// carries beyond them grants nothing and is not listed.
	Roles []string
	// Issuer is the configured name of the issuer that vouched for the caller.
	Issuer string
	// SharesIDs says that ID and Tenant live in the namespace of the first
	// issuer, so that they may be compared with path parameters.
	SharesIDs bool
	// Claims are the verified claims. Readers must not change them.
	Claims map[string]any
	// Expires is when the caller's credential ends. Zero: never.
	Expires time.Time

	authenticated bool
}

// Authenticated returns a copy of p that counts as an authenticated caller.
// It panics on an empty ID: no verifier may vouch for nobody.
func Authenticated(p Principal) *Principal {
	if p.ID == "" {
		panic("identity: an authenticated principal needs an ID")
	}
	p.authenticated = true
	return &p
}

// Anonymous returns a caller that nobody vouched for, holding the given roles.
func Anonymous(roles ...string) *Principal {
	return &Principal{Roles: roles}
}

// Known reports whether somebody vouched for the caller. It is false for nil.
func (p *Principal) Known() bool { return p != nil && p.authenticated }

type contextKey struct{}

// With returns a context that carries p.
func With(ctx context.Context, p *Principal) context.Context {
	return context.WithValue(ctx, contextKey{}, p)
}

// From returns the caller that With put into the context, or nil.
func From(ctx context.Context) *Principal {
	p, _ := ctx.Value(contextKey{}).(*Principal)
	return p
}
