package app

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/moat-gateway/moat/caddymodule/internal/explanation"
	"github.com/moat-gateway/moat/internal/identity"
)

// Vouch implements explanation.Issuers.
func (a *App) Vouch(issuer string, first bool, who *explanation.Caller) (*identity.Principal, error) {
	keys := a.keys[issuer]
	if keys == nil {
		return nil, fmt.Errorf("issuer %q is not configured; configured are: %s", issuer, strings.Join(a.issuerNames(), ", "))
	}
	roles := a.Roles()
	for _, role := range who.Roles {
		if !roles.Has(role) {
			return nil, fmt.Errorf("role %q is not configured; configured are: %s", role, strings.Join(roles.Names(), ", "))
		}
		if may := keys.config.MayGrant; may != nil && !slices.Contains(may, role) {
			return nil, fmt.Errorf("role %q: the issuer %q may not grant it; it may grant: %s", role, issuer, strings.Join(may, ", "))
		}
	}
	if who.ID == "" {
		return nil, fmt.Errorf("a caller of issuer %q needs an id", issuer)
	}
	return identity.Authenticated(identity.Principal{
		ID:        who.ID,
		Tenant:    who.Tenant,
		Roles:     who.Roles,
		Issuer:    issuer,
		SharesIDs: keys.config.SharesIDs || first,
		Claims:    who.Claims,
	}), nil
}

// fetchWaits is how often a fetch of keys is waited for, two seconds each time.
const fetchWaits = 5

// FetchKeys implements explanation.Issuers. A look-up waits for a fetch, or
// begins the first one; a fetch that has failed is not begun again so soon, and
// then the look-up does not wait. What became of it shows when a token is judged.
func (a *App) FetchKeys(ctx context.Context, issuers []string) {
	for _, name := range issuers {
		k := a.keys[name]
		if k == nil || k.remote == nil {
			continue
		}
		for n := 0; n < fetchWaits && !k.remote.Ready(); n++ {
			_, _ = k.remote.Lookup(ctx, "", "") // The verifier asks again.
		}
	}
}

var _ explanation.Issuers = (*App)(nil)
