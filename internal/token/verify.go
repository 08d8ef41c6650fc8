package token

import (
	"context"
	"crypto/sha256"
	"strings"
	"time"

	"github.com/moat-gateway/moat/internal/identity"
)

// Verifier judges the tokens of one issuer. It keeps nothing between calls (a Set
// may remember verdicts) and
// is used by many goroutines. The zero Verifier refuses every token.
type Verifier struct {
	name                   string
	sharesIDs              bool
	keys                   KeySource
	now                    func() time.Time
	issuers, audience      map[string]bool
	anyIssuer, anyAudience bool
	algorithms             map[string]algorithm
	types                  map[string]bool // folded
	headers                map[string]bool
	idTokens               bool
	leeway, maxLifetime    time.Duration
	maxToken, maxHeader    int
	claims                 ClaimPaths
	splitRoles             string
	roleMap                map[string][]string
	knownRole              func(string) bool
	mayGrant               map[string]bool // nil: all
	parties                map[string]bool // empty: any
	revoked                func(*identity.Principal, time.Time) bool
	roles256               func() [sha256.Size]byte
	id                     [sha256.Size]byte // of what it was made from
}

// Name returns the configured name of the issuer.
func (v *Verifier) Name() string { return v.name }

// Ready reports whether the issuer's keys have been loaded.
func (v *Verifier) Ready() bool { return v != nil && v.keys != nil && v.keys.Ready() }

// Verify returns the caller a token vouches for. The error is always an *Error.
//
// What is wrong with the claims of a token is said only when its signature
// holds, and Expired is said only of a token that has no other fault. The
// numbers in the caller's Claims are json.Number.
func (v *Verifier) Verify(ctx context.Context, raw string) (*identity.Principal, error) {
	if v == nil || v.keys == nil {
		return nil, refuse("", ReasonUnknownKey)
	}
	c, reason := parse(raw, v.maxToken)
	if reason != "" {
		return nil, refuse(v.name, reason)
	}
	found, refusal := v.judge(ctx, c)
	if refusal != nil {
		return nil, refusal
	}
	return found.who, nil
}

// judge is Verify from the strict front on.
func (v *Verifier) judge(ctx context.Context, c *compact) (found verdict, refusal *Error) {
	if c.size > v.maxToken || c.headerSize > v.maxHeader {
		return found, refuse(v.name, ReasonTooLarge)
	}
	alg, kid, reason := v.readHeader(c.header)
	if reason == "" {
		found.print, found.tried, reason = v.checkSignature(ctx, c, alg, kid)
	}
	if reason != "" {
		refusal = refuse(v.name, reason)
		iss, _ := c.issuer()
		refusal.OfIssuer = reason == ReasonBadSignature && v.issuers[iss]
		return found, refusal
	}
	now := v.now()
	when, reason := v.checkClaims(c.claims, now)
	if reason != "" {
		return found, refuse(v.name, reason)
	}
	p, reason := v.principal(c.claims)
	if reason != "" {
		return found, refuse(v.name, reason)
	}
	p.Expires = when.expires
	who := identity.Authenticated(p)
	if v.revoked != nil && v.revoked(who, when.issued) {
		return found, refuse(v.name, ReasonRevoked)
	}
	// Last, so that Expired is never said of a token that is wrong besides.
	// RFC 7519 section 4.1.4: not "on or after" exp.
	if !now.Before(when.expires.Add(v.leeway)) {
		return found, refuse(v.name, ReasonExpired)
	}
	found.who, found.begins, found.issued = who, when.begins, when.issued
	return found, nil
}

// readHeader checks the header's members and returns alg and kid.
func (v *Verifier) readHeader(header map[string]any) (alg algorithm, kid, reason string) {
	if _, ok := header["crit"]; ok {
		return alg, "", ReasonCrit
	}
	for name := range header {
		switch name {
		case "alg", "kid", "typ", "cty":
		default:
			if !v.headers[name] {
				return alg, "", ReasonHeaderMember
			}
		}
	}
	if !v.acceptsType(header) {
		return alg, "", ReasonTypMismatch
	}
	if cty, ok := header["cty"]; ok {
		if s, _ := cty.(string); !strings.EqualFold(s, "JWT") {
			return alg, "", ReasonHeaderMember
		}
	}
	if k, ok := header["kid"]; ok {
		if kid, _ = k.(string); !printable(kid, 256) {
			return alg, "", ReasonHeaderMember
		}
	}
	name, _ := header["alg"].(string)
	alg, ok := v.algorithms[name]
	if !ok {
		return alg, "", ReasonAlgMismatch
	}
	return alg, kid, ""
}

func (v *Verifier) acceptsType(header map[string]any) bool {
	typ, ok := header["typ"]
	if !ok {
		return v.types["jwt"]
	}
	s, ok := typ.(string)
	return ok && v.types[foldType(s)]
}

// foldType brings a typ into the form types are compared in: RFC 7515 section
// 4.1.9 lets "application/" be left out, and media types have no case.
func foldType(typ string) string {
	folded := []byte(typ)
	for i, c := range folded {
		// ASCII only: a wider folding would read other letters as those of a type.
		if 'A' <= c && c <= 'Z' {
			folded[i] = c + 'a' - 'A'
		}
	}
	return strings.TrimPrefix(string(folded), "application/")
}

// checkSignature returns the print of the key that vouches for c, or those of the
// keys that were tried and the reason why none does.
func (v *Verifier) checkSignature(ctx context.Context, c *compact, alg algorithm, kid string) (print [sha256.Size]byte, tried [][sha256.Size]byte, reason string) {
	keys, err := v.keys.Lookup(ctx, kid, alg.name)
	if err != nil {
		// Whatever went wrong, it says nothing about the token.
		return print, nil, ReasonKeysUnavailable
	}
	var candidates []Key
	for _, key := range keys {
		if key.Algorithm == alg.name && alg.fits(key.Public) && (kid == "" || key.ID == "" || key.ID == kid) {
			candidates = append(candidates, key)
		}
	}
	switch {
	case len(keys) == 0:
		return print, nil, ReasonUnknownKey
	case len(candidates) == 0:
		return print, nil, ReasonAlgMismatch
	case len(candidates) > maxTries:
		return print, nil, ReasonKidMissing
	}
	for _, key := range candidates {
		if alg.method.Verify(c.signed, c.signature, key.Public) == nil {
			return key.print, nil, ""
		}
		tried = append(tried, key.print)
	}
	return print, tried, ReasonBadSignature
}
