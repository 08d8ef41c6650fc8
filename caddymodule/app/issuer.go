package app

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/moat-gateway/moat/caddymodule/internal/dispense"
	"github.com/moat-gateway/moat/internal/rbac"
	"github.com/moat-gateway/moat/internal/token"
)

// Issuer is one token issuer.
type Issuer struct {
	// Name by which sites call it; limit keys and events carry it.
	Name string `json:"name"`
	// Iss are the accepted values of the iss claim, exact. Required.
	Iss []string `json:"iss,omitempty"`
	// Audience are the accepted values of the aud claim; a token must name one
	// of them, exactly. Required.
	Audience []string `json:"audience,omitempty"`
	// Discovery finds the key set through OpenID Connect discovery at Iss.
	Discovery bool `json:"discovery,omitempty"`
	// JWKS is the https URL or the file of a JSON Web Key Set. A file is watched:
	// a new content counts within two seconds, and with a bad one the old keys
	// stay.
	JWKS string `json:"jwks,omitempty"`
	// Key are PEM files with public keys or certificates.
	Key []string `json:"key,omitempty"`
	// Secret are shared secrets of at least 32 bytes; two during a rotation.
	Secret []string `json:"secret,omitempty"`
	// Algorithms that are accepted. Default: what each key allows.
	Algorithms []string `json:"algorithms,omitempty"`
	// Typ are the accepted values of the typ header. Default: JWT, at+jwt.
	Typ []string `json:"typ,omitempty"`
	// Leeway is how far clocks may differ, at most 60s. Default: 30s.
	Leeway caddy.Duration `json:"leeway,omitempty"`
	// MaxLifetime is the longest time a token may be good for. Default: 24h.
	MaxLifetime caddy.Duration `json:"max_lifetime,omitempty"`
	// MaxToken and MaxHeader are the most bytes of a token and of its decoded
	// header. Default: 8192 and 1024; at most 16384.
	MaxToken  int64 `json:"max_token,omitempty"`
	MaxHeader int64 `json:"max_header,omitempty"`
	// AZP are the clients that a token may have been issued to (azp, or client_id
	// where there is no azp), exact. Default: any.
	AZP []string `json:"azp,omitempty"`
	// IgnoreHeaders are further header members that a token may carry, such as
	// x5t. They are not looked at. Default: alg, kid, typ and cty only.
	IgnoreHeaders []string `json:"ignore_headers,omitempty"`
	// Claims says where the caller's properties stand in a token.
	Claims Claims `json:"claims"`
	// RoleMap translates values of the roles claim to role names.
	RoleMap map[string][]string `json:"role_map,omitempty"`
	// MayGrant bounds the roles that this issuer can give. Default: all.
	MayGrant []string `json:"may_grant,omitempty"`
	// SharesIDs says that identifiers and tenants of this issuer are those of
	// a site's first issuer, so that owner= and tenant= hold for its callers.
	SharesIDs bool `json:"shares_ids,omitempty"`
	// Timeout is the budget of one fetch from a key server. Default: 2s.
	Timeout caddy.Duration `json:"timeout,omitempty"`
	// MaxStale is how long the last good key set serves while the key server is
	// away. Default: 24h.
	MaxStale caddy.Duration `json:"max_stale,omitempty"`
	// InsecureAnyIssuer and InsecureAnyAudience leave the claim unchecked. Only
	// with Key or Secret.
	InsecureAnyIssuer   bool `json:"insecure_any_issuer,omitempty"`
	InsecureAnyAudience bool `json:"insecure_any_audience,omitempty"`
	// InsecureHTTPJWKS lets keys be fetched without TLS.
	InsecureHTTPJWKS bool `json:"insecure_http_jwks,omitempty"`
	// InsecureAcceptIDTokens admits OpenID Connect ID tokens, which tell a client
	// who logged in and are not meant to open an API.
	InsecureAcceptIDTokens bool `json:"insecure_accept_id_tokens,omitempty"`
}

// Claims are paths into a token, the first present one counts. Dots go into
// objects; a name in double quotes keeps its dots.
type Claims struct {
	// ID default: sub. Tenant default: tenant_id. Roles default: roles, role.
	// Session default: sid, jti.
	ID      []string `json:"id,omitempty"`
	Tenant  []string `json:"tenant,omitempty"`
	Roles   []string `json:"roles,omitempty"`
	Session []string `json:"session,omitempty"`
	// Split separates roles in a claim that is one string: "space", "comma" or
	// the separator itself. Default: such a string is one role, spaces kept.
	Split string `json:"split,omitempty"`
}

// provisionIssuers builds every issuer's keys, so that a bad issuer is an error
// even while no site names it.
func (a *App) provisionIssuers() error {
	a.keys = make(map[string]*issuerKeys)
	var errs []error
	for _, i := range a.Issuers {
		if a.keys[i.Name] != nil {
			errs = append(errs, fmt.Errorf("issuer %q: stands twice", i.Name))
			continue
		}
		keys, err := a.provisionIssuer(i)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		a.keys[i.Name] = keys
	}
	return errors.Join(errs...)
}

func (a *App) provisionIssuer(i *Issuer) (*issuerKeys, error) {
	place := fmt.Sprintf("issuer %q", i.Name)
	a.warnIssuer(i, place)
	config, err := i.expand(place)
	// The keys are opened even so: all that is wrong with an issuer is to be
	// told at once.
	keys, keysErr := a.openKeys(i, config, place)
	if err := errors.Join(err, keysErr); err != nil {
		return nil, err
	}
	config.Keys = keys.source
	config.KnownRole = func(role string) bool { return a.roles.Roles().Has(role) }
	config.RolesID = func() [sha256.Size]byte { return a.roles.Roles().ID() }
	keys.config = config
	a.roles.Depend(func(next *rbac.Roles) (func(), error) {
		asked := config
		asked.KnownRole = next.Has
		_, err := token.NewVerifier(asked)
		return nil, err
	})
	// The verifiers that sites get are built per site, because which issuer is
	// the first differs; this one shows the errors.
	if _, err := token.NewVerifier(config); err != nil {
		return nil, err
	}
	return keys, nil
}

func (a *App) warnIssuer(i *Issuer, place string) {
	for word, on := range map[string]bool{
		"insecure_any_issuer":   i.InsecureAnyIssuer,
		"insecure_any_audience": i.InsecureAnyAudience,
		"insecure_http_jwks":    i.InsecureHTTPJWKS,

		"insecure_accept_id_tokens": i.InsecureAcceptIDTokens,
	} {
		if on {
			a.logger.Warn(place + ": " + word + " weakens the check of tokens")
		}
	}
}

// expand replaces placeholders and reads claim paths. Everything that is wrong
// is reported.
func (i *Issuer) expand(place string) (token.Config, error) {
	var errs []error
	all := func(word string, values []string) []string {
		out, err := dispense.ExpandAll(place+": "+word, values)
		errs = append(errs, err)
		return out
	}
	c := token.Config{
		Name:        i.Name,
		Issuers:     all("iss", i.Iss),
		Audience:    all("audience", i.Audience),
		AnyIssuer:   i.InsecureAnyIssuer,
		AnyAudience: i.InsecureAnyAudience,
		Algorithms:  i.Algorithms,
		Types:       i.Typ,
		Leeway:      time.Duration(i.Leeway),
		MaxLifetime: time.Duration(i.MaxLifetime),
		RoleMap:     i.RoleMap,
		SplitRoles:  splitter(i.Claims.Split),
		MayGrant:    i.MayGrant,
		SharesIDs:   i.SharesIDs,

		MaxToken:          int(i.MaxToken),
		MaxHeader:         int(i.MaxHeader),
		AuthorizedParties: all("azp", i.AZP),
		IgnoredHeaders:    i.IgnoreHeaders,
		AcceptIDTokens:    i.InsecureAcceptIDTokens,
	}
	if len(i.Iss) == 0 && !i.InsecureAnyIssuer {
		errs = append(errs, fmt.Errorf("%s: iss is missing; it is required and exact (insecure_any_issuer leaves it unchecked, with key or secret only)", place))
	}
	if len(i.Audience) == 0 && !i.InsecureAnyAudience {
		errs = append(errs, fmt.Errorf("%s: audience is missing; it is required and exact (insecure_any_audience leaves it unchecked, with key or secret only)", place))
	}
	paths := func(word string, texts []string) [][]string {
		var out [][]string
		for _, text := range texts {
			path, err := token.ParseClaimPath(text)
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: claims: %s: %w", place, word, err))
				continue
			}
			out = append(out, path)
		}
		return out
	}
	c.Claims = token.ClaimPaths{
		ID:      paths("id", i.Claims.ID),
		Tenant:  paths("tenant", i.Claims.Tenant),
		Roles:   paths("roles", i.Claims.Roles),
		Session: paths("session", i.Claims.Session),
	}
	return c, errors.Join(errs...)
}

func splitter(word string) string {
	switch word {
	case "space":
		return " "
	case "comma":
		return ","
	default:
		return word
	}
}

// Verifiers implements token.Source.
func (a *App) Verifiers(names []string) (*token.Set, error) {
	var errs []error
	verifiers := make([]*token.Verifier, 0, len(names))
	for n, name := range names {
		keys := a.keys[name]
		if keys == nil {
			errs = append(errs, fmt.Errorf("issuer %q is not configured; configured are: %s", name, strings.Join(a.issuerNames(), ", ")))
			continue
		}
		config := keys.config
		config.SharesIDs = config.SharesIDs || n == 0
		v, err := token.NewVerifier(config)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		verifiers = append(verifiers, v)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	set, err := token.NewSet(verifiers...)
	if err == nil && a.tokens != nil {
		set.Remember(a.tokens.Cache)
	}
	return set, err
}

func (a *App) issuerNames() []string {
	names := make([]string, 0, len(a.Issuers))
	for _, i := range a.Issuers {
		names = append(names, i.Name)
	}
	slices.Sort(names)
	return names
}

// readKeys reads PEM files.
func readKeys(place string, files []string) ([]token.Key, error) {
	var keys []token.Key
	var errs []error
	for _, file := range files {
		data, err := os.ReadFile(file) //nolint:gosec // The operator's own configuration names it.
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: key: %w", place, err))
			continue
		}
		found, err := token.ParsePEM(data)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: key %q: %w", place, file, err))
			continue
		}
		keys = append(keys, found...)
	}
	return keys, errors.Join(errs...)
}
