package token

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
)

func (c Config) checkNames() error {
	var errs []error
	if !printable(c.Name, maxIssuerName) || strings.ContainsFunc(c.Name, unicode.IsSpace) {
		errs = append(errs, fmt.Errorf("name %q: must be 1 to %d printable characters without spaces", c.Name, maxIssuerName))
	}
	errs = append(errs,
		checkExact("iss", "insecure_any_issuer", c.Issuers, c.AnyIssuer),
		checkExact("audience", "insecure_any_audience", c.Audience, c.AnyAudience))
	if (c.AnyIssuer || c.AnyAudience) && !c.local() {
		errs = append(errs, errors.New("insecure_any_issuer and insecure_any_audience: need a key or secret written down, not a key server"))
	}
	return errors.Join(errs...)
}

func checkExact(what, waiver string, values []string, waived bool) error {
	switch {
	case waived && len(values) > 0:
		return fmt.Errorf("%s %q: must not stand beside %s", what, values, waiver)
	case !waived && len(values) == 0:
		return fmt.Errorf("%s: is required (%s accepts any, with a key or secret only)", what, waiver)
	}
	return checkList(what, values)
}

func checkList(what string, values []string) error {
	var errs []error
	if len(values) > maxListed {
		errs = append(errs, fmt.Errorf("%s: %d values, at most %d", what, len(values), maxListed))
	}
	for i, value := range values {
		if !printable(value, 1024) {
			errs = append(errs, fmt.Errorf("%s %q: must be 1 to 1024 printable bytes", what, value))
		}
		if slices.Contains(values[:i], value) {
			errs = append(errs, fmt.Errorf("%s %q: stands twice", what, value))
		}
	}
	return errors.Join(errs...)
}

func (c Config) checkKeys() error {
	errs := []error{checkAlgorithms(c.Algorithms), c.checkTypes(), c.checkHeaders()}
	keys, fixed := c.Keys.(*KeySet)
	if c.Keys == nil || fixed && keys == nil {
		return errors.Join(append(errs, errors.New("keys: one source of keys is required"))...)
	}
	for _, name := range c.Algorithms {
		switch {
		case !c.local() && isSecretAlgorithm(name):
			errs = append(errs, fmt.Errorf("algorithm %q: needs a secret written down, not a key server", name))
		case c.local() && !slices.Contains(keys.algorithms(), name):
			errs = append(errs, fmt.Errorf("algorithm %q: no key serves it", name))
		}
	}
	return errors.Join(errs...)
}

// refusedTypes are tokens that are never the credential of a caller, whoever
// signed them.
var refusedTypes = []string{"logout+jwt", "secevent+jwt", "dpop+jwt"}

func (c Config) checkTypes() error {
	errs := []error{checkList("typ", c.Types)}
	if len(c.Types) == 0 {
		errs = append(errs, errors.New("typ: an empty list accepts no token"))
	}
	for _, typ := range c.Types {
		if foldType(typ) == "" {
			errs = append(errs, fmt.Errorf("typ %q: names no type", typ))
		}
		if slices.Contains(refusedTypes, foldType(typ)) {
			errs = append(errs, fmt.Errorf("typ %q: is no credential of a caller", typ))
		}
	}
	return errors.Join(errs...)
}

// judgedHeaders are members that are read, or that change what a token means or
// which key it is checked with; none of them can be waved through.
var judgedHeaders = []string{"alg", "kid", "typ", "cty", "crit", "b64", "jku", "x5u", "jwk", "x5c", "enc", "zip"}

func (c Config) checkHeaders() error {
	errs := []error{checkList("ignored header", c.IgnoredHeaders)}
	for _, name := range c.IgnoredHeaders {
		if slices.Contains(judgedHeaders, strings.ToLower(name)) {
			errs = append(errs, fmt.Errorf("ignored header %q: must not be ignored", name))
		}
	}
	return errors.Join(errs...)
}

func (c Config) checkBounds() error {
	var errs []error
	if c.Leeway < 0 || c.Leeway > mostLeeway {
		errs = append(errs, fmt.Errorf("leeway %s: must be at most %s and not negative", c.Leeway, mostLeeway))
	}
	if c.MaxLifetime < 0 {
		errs = append(errs, fmt.Errorf("max_lifetime %s: must be positive", c.MaxLifetime))
	}
	if c.MaxToken < 0 || c.MaxToken > largestToken {
		errs = append(errs, fmt.Errorf("largest token %d: must be 1 to %d bytes", c.MaxToken, largestToken))
	}
	if c.MaxHeader < 0 || c.MaxHeader > c.MaxToken {
		errs = append(errs, fmt.Errorf("largest header %d: must be 1 byte to the largest token, %d", c.MaxHeader, c.MaxToken))
	}
	return errors.Join(errs...)
}

func (c Config) checkClaims() error {
	return errors.Join(
		checkList("azp", c.AuthorizedParties),
		checkPaths("id", c.Claims.ID), checkPaths("tenant", c.Claims.Tenant),
		checkPaths("roles", c.Claims.Roles), checkPaths("session", c.Claims.Session))
}

func checkPaths(what string, paths [][]string) error {
	if len(paths) == 0 || len(paths) > maxPaths {
		return fmt.Errorf("claims %s: %d claims, must be 1 to %d", what, len(paths), maxPaths)
	}
	var errs []error
	for _, path := range paths {
		if len(path) == 0 || len(path) > maxPathNames {
			errs = append(errs, fmt.Errorf("claims %s: a path of %d names, must be 1 to %d", what, len(path), maxPathNames))
		}
		for _, name := range path {
			if err := checkClaimName(name); err != nil {
				errs = append(errs, fmt.Errorf("claims %s: %w", what, err))
			}
		}
	}
	return errors.Join(errs...)
}

func (c Config) checkRoles() error {
	var errs []error
	known := func(role string) bool { return c.KnownRole != nil && c.KnownRole(role) }
	for _, value := range slices.Sorted(maps.Keys(c.RoleMap)) {
		if value == "" || len(c.RoleMap[value]) == 0 {
			errs = append(errs, fmt.Errorf("role_map %q: needs a value and a role", value))
		}
		for _, role := range c.RoleMap[value] {
			if !known(role) {
				errs = append(errs, fmt.Errorf("role_map %q: %q is no role", value, role))
			}
		}
	}
	for _, role := range c.MayGrant {
		if !known(role) {
			errs = append(errs, fmt.Errorf("may_grant: %q is no role", role))
		}
	}
	return errors.Join(errs...)
}
