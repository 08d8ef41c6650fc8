package token

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/moat-gateway/moat/internal/identity"
)

// Config is one issuer: whose tokens are accepted, and what they may say.
type Config struct {
	// Name the issuer bears in limit keys, events and metrics. Required.
	Name string
	// Issuers are the accepted values of iss, compared byte for byte. Required
	// unless AnyIssuer.
	Issuers []string
	// Audience is the accepted values of aud, compared byte for byte; a token
	// must name one of them. Required unless AnyAudience.
	Audience []string
	// AnyIssuer and AnyAudience leave the claim unchecked. They work only with
	// keys from NewStaticKeys: a remote key server signs for others too.
	AnyIssuer, AnyAudience bool
	// Algorithms is the accepted values of alg. Empty: with keys from
	// NewStaticKeys what those are bound to, otherwise every algorithm of public
	// keys.
	Algorithms []string
	// Types is the accepted values of typ, compared without case and without
	// "application/". Default: JWT and at+jwt. A token without typ counts as JWT.
	Types []string
	// IgnoredHeaders are further header members a token may carry, such as x5t
	// or cat. They are not looked at. Members that say where a key is to be
	// found, or how the token is to be read, can not be among them. Default:
	// none.
	IgnoredHeaders []string
	// AuthorizedParties are the clients a token may have been issued to: azp, or
	// client_id where there is no azp (RFC 9068 section 2.2). Compared byte for
	// byte; a token with neither is refused. Empty: any.
	AuthorizedParties []string
	// AcceptIDTokens admits OpenID Connect ID tokens, which tell a client who
	// logged in and are not meant to open an API.
	AcceptIDTokens bool
	// Leeway is how far clocks may differ. Zero means 30 s; at most 60 s.
	Leeway time.Duration
	// MaxLifetime is the longest time a token may live, from iat (if it has one)
	// and from now. Zero means 24 h.
	MaxLifetime time.Duration
	// Claims says where the caller's properties are found.
	Claims ClaimPaths
	// RoleMap translates values of the roles claim to roles. A value that stands
	// here grants what it is translated to and not itself.
	RoleMap map[string][]string
	// SplitRoles is what separates roles in a claim that is one string. Empty:
	// such a string is one role, spaces kept.
	SplitRoles string
	// KnownRole reports whether a role is configured. A value that names no role
	// grants nothing. It is used by many goroutines. Nil: none is known.
	KnownRole func(string) bool
	// RolesID identifies the set of roles that KnownRole answers from. A verdict
	// that was remembered under another one does not count. Nil: it never changes.
	RolesID func() [sha256.Size]byte
	// Revoked reports whether a caller's credential was revoked, given when it was
	// issued (zero where the token does not say). It is asked on every request and
	// used by many goroutines. Nil: none is.
	Revoked func(who *identity.Principal, issued time.Time) bool
	// MayGrant is the roles the issuer can give. Nil: all; empty: none.
	MayGrant []string
	// SharesIDs is copied into every Principal.
	SharesIDs bool
	// Keys is where the issuer's keys come from. Required.
	Keys KeySource
	// MaxToken is the most bytes of a token. Zero means 8192; at most 16384.
	MaxToken int
	// MaxHeader is the most bytes of a decoded header. Zero means 1024; at most
	// MaxToken.
	MaxHeader int
	// Now tells the time. Default: time.Now.
	Now func() time.Time
}

// ClaimPaths says where in a token the caller's properties stand. Each is a
// list of paths, as ParseClaimPath returns them; the first claim present
// counts, and no other is looked at even when it is of no use.
type ClaimPaths struct {
	// ID is a string or an integer. A token without it is refused. Default: sub.
	ID [][]string
	// Tenant is a string or an integer. Default: tenant_id.
	Tenant [][]string
	// Roles is an array of strings, possibly empty, or one string. Default:
	// roles, then role.
	Roles [][]string
	// Session is a string or an integer. Default: sid, then jti.
	Session [][]string
}

const (
	defaultLeeway      = 30 * time.Second
	mostLeeway         = 60 * time.Second
	defaultMaxLifetime = 24 * time.Hour
	maxPathNames       = 8
	maxPaths           = 8
	maxIssuerName      = 64
	maxListed          = 64 // entries in a list of issuers, audiences or types
)

// ParseClaimPath reads the path to a claim. Dots go into objects; a name in
// double quotes keeps its dots: realm_access.roles, "https://example.com/roles".
func ParseClaimPath(s string) ([]string, error) {
	var path []string
	for rest := s; ; {
		name, after, err := cutName(rest)
		if err != nil {
			return nil, fmt.Errorf("token: claim path %q: %w", s, err)
		}
		path = append(path, name)
		if len(path) > maxPathNames {
			return nil, fmt.Errorf("token: claim path %q: more than %d names", s, maxPathNames)
		}
		if after == "" {
			return path, nil
		}
		if after[0] != '.' {
			return nil, fmt.Errorf("token: claim path %q: a quoted name must be followed by a dot or nothing", s)
		}
		rest = after[1:]
	}
}

func cutName(s string) (name, after string, err error) {
	if quoted, ok := strings.CutPrefix(s, `"`); ok {
		name, after, ok = strings.Cut(quoted, `"`)
		if !ok {
			return "", "", errors.New("a quote is not closed")
		}
		return name, after, checkClaimName(name)
	}
	end := strings.IndexByte(s, '.')
	if end < 0 {
		end = len(s)
	}
	name, after = s[:end], s[end:]
	if strings.ContainsFunc(name, func(r rune) bool { return r == '"' || unicode.IsSpace(r) }) {
		return "", "", errors.New("a name with quotes or spaces inside must be quoted as a whole")
	}
	return name, after, checkClaimName(name)
}

func checkClaimName(name string) error {
	if !printable(name, 256) {
		return errors.New("a name is empty, longer than 256 bytes or not printable")
	}
	return nil
}

// printable reports whether s is 1 to most bytes of UTF-8 without control
// characters and line separators, which could end a header or a log line.
func printable(s string, most int) bool {
	return s != "" && len(s) <= most && utf8.ValidString(s) &&
		!strings.ContainsFunc(s, func(r rune) bool { return unicode.In(r, unicode.Cc, unicode.Zl, unicode.Zp) })
}

// NewVerifier returns the verifier of one issuer. The error names every fault
// of the configuration.
func NewVerifier(c Config) (*Verifier, error) {
	c = c.withDefaults()
	err := errors.Join(c.checkNames(), c.checkKeys(), c.checkBounds(), c.checkClaims(), c.checkRoles())
	if err != nil {
		return nil, fmt.Errorf("token: issuer %q: %w", c.Name, err)
	}
	v := &Verifier{
		name: c.Name, sharesIDs: c.SharesIDs, keys: c.Keys, now: c.Now,
		issuers: setOf(c.Issuers), anyIssuer: c.AnyIssuer,
		audience: setOf(c.Audience), anyAudience: c.AnyAudience,
		algorithms: map[string]algorithm{}, types: map[string]bool{},
		headers: setOf(c.IgnoredHeaders), idTokens: c.AcceptIDTokens,
		leeway: c.Leeway, maxLifetime: c.MaxLifetime,
		maxToken: c.MaxToken, maxHeader: c.MaxHeader,
		claims: c.Claims, splitRoles: c.SplitRoles,
		roleMap: make(map[string][]string, len(c.RoleMap)), knownRole: c.KnownRole,
		parties: setOf(c.AuthorizedParties), revoked: c.Revoked, roles256: c.RolesID,
	}
	v.id = c.identify()
	for _, name := range c.accepted() {
		v.algorithms[name], _ = findAlgorithm(name) // checkAlgorithms knows it
	}
	for _, typ := range c.Types {
		v.types[foldType(typ)] = true
	}
	for value, roles := range c.RoleMap {
		v.roleMap[value] = slices.Clone(roles)
	}
	if c.MayGrant != nil {
		v.mayGrant = setOf(c.MayGrant)
	}
	return v, nil
}

func setOf(names []string) map[string]bool {
	m := make(map[string]bool, len(names))
	for _, name := range names {
		m[name] = true
	}
	return m
}

func (c Config) withDefaults() Config {
	if c.Types == nil {
		c.Types = []string{"JWT", "at+jwt"}
	}
	if c.Leeway == 0 {
		c.Leeway = defaultLeeway
	}
	if c.MaxLifetime == 0 {
		c.MaxLifetime = defaultMaxLifetime
	}
	if c.MaxToken == 0 {
		c.MaxToken = defaultMaxToken
	}
	if c.MaxHeader == 0 {
		c.MaxHeader = min(defaultMaxHeader, c.MaxToken)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	c.Claims = ClaimPaths{
		ID:      orPaths(c.Claims.ID, "sub"),
		Tenant:  orPaths(c.Claims.Tenant, "tenant_id"),
		Roles:   orPaths(c.Claims.Roles, "roles", "role"),
		Session: orPaths(c.Claims.Session, "sid", "jti"),
	}
	return c
}

// orPaths returns a deep copy of paths, or the names as one path each.
func orPaths(paths [][]string, names ...string) [][]string {
	var out [][]string
	for _, path := range paths {
		out = append(out, slices.Clone(path))
	}
	if paths == nil {
		for _, name := range names {
			out = append(out, []string{name})
		}
	}
	return out
}

// local reports whether the operator wrote the keys down.
func (c Config) local() bool {
	keys, ok := c.Keys.(*KeySet)
	return ok && keys != nil && keys.local
}

// accepted returns the algorithms a token may state.
func (c Config) accepted() []string {
	if len(c.Algorithms) > 0 {
		return c.Algorithms
	}
	if keys, ok := c.Keys.(*KeySet); ok {
		return keys.algorithms()
	}
	var names []string
	for _, a := range algorithmTable {
		if a.family != familySecret {
			names = append(names, a.name)
		}
	}
	return names
}
