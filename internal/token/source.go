package token

// Source offers configured issuers by name to whoever judges tokens.
type Source interface {
	// Verifiers returns the set of the named issuers. The first one's
	// identifiers are the site's own: owner= and tenant= hold for its callers,
	// and for those of another issuer only when that one shares them.
	Verifiers(names []string) (*Set, error)
}
