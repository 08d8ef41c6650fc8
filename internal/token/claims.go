package token

import (
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/moat-gateway/moat/internal/identity"
)

// maxIdentifier is the most bytes of an id, tenant or session.
const maxIdentifier = 256

// dates are the times a token states; begins and issued are zero where it does
// not.
type dates struct {
	expires, begins, issued time.Time
}

// checkClaims checks the registered claims (RFC 7519 section 4.1), except
// whether exp has passed, and returns the dates.
func (v *Verifier) checkClaims(claims map[string]any, now time.Time) (when dates, reason string) {
	if reason := v.checkKind(claims); reason != "" {
		return when, reason
	}
	if iss, _ := claims["iss"].(string); !v.anyIssuer && !v.issuers[iss] {
		return when, ReasonIssMismatch
	}
	if !v.anyAudience && !v.addressed(claims["aud"]) {
		return when, ReasonAudMismatch
	}
	if !v.issuedTo(claims) {
		return when, ReasonAzpMismatch
	}
	return v.checkDates(claims, now)
}

// issuedTo reports whether the token was issued to one of the configured
// clients.
func (v *Verifier) issuedTo(claims map[string]any) bool {
	if len(v.parties) == 0 {
		return true
	}
	client, present := claims["azp"]
	if !present {
		client = claims["client_id"]
	}
	name, ok := client.(string)
	return ok && v.parties[name]
}

// checkKind refuses tokens that were signed by the right issuer for another
// purpose: typ is optional, so their claims have to give them away (RFC 8725
// section 3.12).
func (v *Verifier) checkKind(claims map[string]any) string {
	if _, ok := claims["events"]; ok {
		return ReasonEventToken
	}
	if v.idTokens {
		return ""
	}
	for _, name := range []string{"nonce", "at_hash", "c_hash", "s_hash"} {
		if _, ok := claims[name]; ok {
			return ReasonIDToken
		}
	}
	// Cognito and Keycloak say it in a claim of their own.
	if claims["token_use"] == "id" || claims["typ"] == "ID" {
		return ReasonIDToken
	}
	return ""
}

// addressed reports whether one of the configured audiences is in aud, which is
// a string or an array of strings.
func (v *Verifier) addressed(aud any) bool {
	switch aud := aud.(type) {
	case string:
		return v.audience[aud]
	case []any:
		found := false
		for _, entry := range aud {
			s, ok := entry.(string)
			if !ok {
				return false
			}
			found = found || v.audience[s]
		}
		return found
	}
	return false
}

func (v *Verifier) checkDates(claims map[string]any, now time.Time) (when dates, reason string) {
	if _, ok := claims["exp"]; !ok {
		return when, ReasonExpMissing
	}
	expires, _, okExp := date(claims, "exp")
	begins, hasNbf, okNbf := date(claims, "nbf")
	issued, hasIat, okIat := date(claims, "iat")
	switch {
	case !okExp || !okNbf || !okIat:
		return when, ReasonBadDate
	case hasNbf && now.Add(v.leeway).Before(begins):
		return when, ReasonNotYetValid
	case hasIat && now.Add(v.leeway).Before(issued):
		return when, ReasonIatFuture
	case hasIat && expires.Sub(issued) > v.maxLifetime:
		return when, ReasonLifetime
	case expires.After(now.Add(v.maxLifetime).Add(v.leeway)):
		return when, ReasonLifetime
	}
	return dates{expires, begins, issued}, ""
}

// date reads a NumericDate: seconds since 1970, possibly with a fraction. It is
// read as a float because forms like 1e9 are allowed and 1e300 must not wrap
// around; below 1e11 (the year 5138) that is exact to some microseconds.
func date(claims map[string]any, name string) (t time.Time, present, ok bool) {
	value, present := claims[name]
	if !present {
		return time.Time{}, false, true
	}
	number, ok := value.(json.Number)
	if !ok {
		return time.Time{}, true, false
	}
	seconds, err := strconv.ParseFloat(string(number), 64)
	if err != nil || seconds <= 0 || seconds >= 1e11 {
		return time.Time{}, true, false
	}
	whole, fraction := math.Modf(seconds)
	return time.Unix(int64(whole), int64(fraction*1e9)), true, true
}

// principal reads the caller's properties.
func (v *Verifier) principal(claims map[string]any) (identity.Principal, string) {
	id, hasID, okID := firstIdentifier(claims, v.claims.ID)
	tenant, _, okTenant := firstIdentifier(claims, v.claims.Tenant)
	session, _, okSession := firstIdentifier(claims, v.claims.Session)
	roles, okRoles := v.roles(claims)
	// Nobody may bear the name that stands for nobody in the audit trail.
	if !hasID || !okID || !okTenant || !okSession || !okRoles || strings.EqualFold(id, "anonymous") {
		return identity.Principal{}, ReasonBadClaim
	}
	return identity.Principal{
		ID: id, Tenant: tenant, Session: session, Roles: roles,
		Issuer: v.name, SharesIDs: v.sharesIDs, Claims: claims,
	}, ""
}

// firstIdentifier returns the first claim present as an identifier. It is ok
// when there is none.
func firstIdentifier(claims map[string]any, paths [][]string) (id string, present, ok bool) {
	value, present, ok := firstClaim(claims, paths)
	if !ok || !present {
		return "", present, ok
	}
	id, ok = identifier(value)
	return id, true, ok
}

// firstClaim returns the first claim present. It is not ok when a path leads
// through something that is no object: whether the claim is meant to be there
// can then not be told, and the next one may name somebody else.
func firstClaim(claims map[string]any, paths [][]string) (value any, present, ok bool) {
	for _, path := range paths {
		value, present, ok = claimAt(claims, path)
		if present || !ok {
			return value, present, ok
		}
	}
	return nil, false, true
}

func claimAt(object map[string]any, path []string) (value any, present, ok bool) {
	for _, name := range path[:len(path)-1] {
		inner, present := object[name]
		if !present {
			return nil, false, true
		}
		if object, ok = inner.(map[string]any); !ok {
			return nil, false, false
		}
	}
	value, present = object[path[len(path)-1]]
	return value, present, true
}

// identifier returns a string as it is, or an integer in decimal. White space
// around it is refused: a header field drops it, and the application would see
// another caller than the one that was judged.
func identifier(value any) (string, bool) {
	switch value := value.(type) {
	case string:
		return value, printable(value, maxIdentifier) && strings.TrimFunc(value, unicode.IsSpace) == value
	case json.Number:
		s := string(value)
		return s, s != "-0" && !strings.ContainsAny(s, ".eE")
	}
	return "", false
}

// roles returns the configured roles that the token grants, each once, in the
// order of the token.
func (v *Verifier) roles(claims map[string]any) ([]string, bool) {
	value, present, ok := firstClaim(claims, v.claims.Roles)
	if !ok || !present {
		return nil, ok
	}
	values, ok := v.roleValues(value)
	if !ok {
		return nil, false
	}
	var roles []string
	for _, value := range values {
		granted, mapped := v.roleMap[value]
		if !mapped {
			granted = []string{value}
		}
		for _, role := range granted {
			if v.grants(role) && !slices.Contains(roles, role) {
				roles = append(roles, role)
			}
		}
	}
	return roles, true
}

func (v *Verifier) roleValues(value any) ([]string, bool) {
	switch value := value.(type) {
	case string:
		if v.splitRoles == "" {
			return []string{value}, value != ""
		}
		return strings.Split(value, v.splitRoles), value != ""
	case []any:
		values := make([]string, 0, len(value))
		for _, entry := range value {
			s, ok := entry.(string)
			if !ok || s == "" {
				return nil, false
			}
			values = append(values, s)
		}
		return values, true
	}
	return nil, false
}

func (v *Verifier) grants(role string) bool {
	return role != "" && v.knownRole != nil && v.knownRole(role) && (v.mayGrant == nil || v.mayGrant[role])
}
