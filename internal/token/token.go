// Package token decides whether a JSON Web Token vouches for a caller. It
// knows tokens, keys and claims; it knows nothing of HTTP, of where a token
// came from, of configuration files or of what a role may do.
//
// A token passes a strict front (RFC 7515, RFC 7519) before any cryptography:
// size, alphabet, JSON without duplicate names, an allow-list of header
// members. Then the signature is checked with a key that is bound to exactly
// one algorithm (RFC 8725 section 3.1), and only then do the claims speak. The
// zero value of every type refuses.
package token

import "errors"

// Code is the class of a refusal: what the client may learn.
type Code uint8

const (
	// Invalid is a token that proves nothing. It is the zero value.
	Invalid Code = iota
	// Expired is a token that would be accepted had its exp not passed.
	Expired
	// Revoked is a token that was good until somebody took it back.
	Revoked
	// Unavailable says that no verdict was possible, because the keys could not
	// be had. It is no statement about the token.
	Unavailable
)

// String returns the class as a lower-case word.
func (c Code) String() string {
	switch c {
	case Expired:
		return "expired"
	case Revoked:
		return "revoked"
	case Unavailable:
		return "unavailable"
	default:
		return "invalid"
	}
}

// The reasons for a refusal, for the operator only. They are stable: audit
// events carry them.
const (
	// ReasonMalformed is a token that is not three parts of strict base64url
	// around two JSON objects.
	ReasonMalformed = "jwt.malformed"
	// ReasonTooLarge is a token or header over its size, or JSON that is too
	// deep or has too many members.
	ReasonTooLarge = "jwt.too-large"
	// ReasonHeaderDuplicate is a header with a name twice in one object.
	ReasonHeaderDuplicate = "jwt.header-duplicate"
	// ReasonClaimDuplicate is a claims set with a name twice in one object.
	ReasonClaimDuplicate = "jwt.claim-duplicate"
	// ReasonHeaderMember is a header member that is not allowed or of the wrong
	// shape.
	ReasonHeaderMember = "jwt.header-member"
	// ReasonCrit is a header with crit; no extension is understood (RFC 7515
	// section 4.1.11).
	ReasonCrit = "jwt.crit"
	// ReasonTypMismatch is a typ that is not among the accepted ones.
	ReasonTypMismatch = "jwt.typ-mismatch"
	// ReasonAlgMismatch is an alg that is not accepted, or not the one the named
	// key is bound to.
	ReasonAlgMismatch = "jwt.alg-mismatch"
	// ReasonUnknownKey is a token for which the issuer has no key.
	ReasonUnknownKey = "jwt.unknown-key"
	// ReasonKidMissing is a token that names no key although the issuer has more
	// candidates than are tried.
	ReasonKidMissing = "jwt.kid-missing"
	// ReasonBadSignature is a signature that none of the candidate keys made.
	ReasonBadSignature = "jwt.bad-signature"
	// ReasonKeysUnavailable says that the issuer's keys could not be had.
	ReasonKeysUnavailable = "jwt.keys-unavailable"
	// ReasonIDToken is an OpenID Connect ID token where an access token is
	// needed.
	ReasonIDToken = "jwt.id-token"
	// ReasonEventToken is a logout token or another security event token
	// (RFC 8417).
	ReasonEventToken = "jwt.event-token"
	// ReasonIssMismatch is a missing, malformed or foreign iss.
	ReasonIssMismatch = "jwt.iss-mismatch"
	// ReasonAudMismatch is a missing, malformed or foreign aud.
	ReasonAudMismatch = "jwt.aud-mismatch"
	// ReasonAzpMismatch is a token that was issued to a client that is not among
	// the configured ones.
	ReasonAzpMismatch = "jwt.azp-mismatch"
	// ReasonRevoked is a token whose caller, session or self was revoked.
	ReasonRevoked = "jwt.revoked"
	// ReasonExpMissing is a token that never ends.
	ReasonExpMissing = "jwt.exp-missing"
	// ReasonBadDate is a date that is no number of seconds in a sane range.
	ReasonBadDate = "jwt.bad-date"
	// ReasonExpired is a token whose exp has passed and that has no other fault.
	ReasonExpired = "jwt.expired"
	// ReasonNotYetValid is a token before its nbf.
	ReasonNotYetValid = "jwt.not-yet-valid"
	// ReasonIatFuture is a token issued in the future.
	ReasonIatFuture = "jwt.iat-future"
	// ReasonLifetime is a token that lives longer than the issuer may grant.
	ReasonLifetime = "jwt.lifetime"
	// ReasonBadClaim is a claim for id, tenant, session or roles that is missing
	// though needed, of the wrong type, empty, or a name no caller may bear.
	ReasonBadClaim = "jwt.bad-claim"
)

// Reasons returns every reason an Error can carry.
func Reasons() []string {
	return []string{
		ReasonMalformed, ReasonTooLarge, ReasonHeaderDuplicate, ReasonClaimDuplicate,
		ReasonHeaderMember, ReasonCrit, ReasonTypMismatch, ReasonAlgMismatch,
		ReasonUnknownKey, ReasonKidMissing, ReasonBadSignature, ReasonKeysUnavailable,
		ReasonIDToken, ReasonEventToken, ReasonIssMismatch, ReasonAudMismatch,
		ReasonAzpMismatch, ReasonRevoked, ReasonExpMissing, ReasonBadDate, ReasonExpired, ReasonNotYetValid,
		ReasonIatFuture, ReasonLifetime, ReasonBadClaim,
	}
}

// Error is the refusal of a token.
type Error struct {
	// Code is the class of the refusal.
	Code Code
	// Reason is one of the Reason constants. For audit events, not for clients.
	Reason string
	// Issuer is the configured name of the issuer whose rules refused. It is
	// empty when the token could not be assigned to one.
	Issuer string
	// OfIssuer says, of a bad signature, that the token claims an iss of this
	// issuer, and not of another whose key it may be under.
	OfIssuer bool
}

// Error returns one fixed text per class. It never contains any part of the
// token.
func (e *Error) Error() string { return "token: " + e.Code.String() }

// ErrKeysUnavailable is what a KeySource returns while it has no keys to offer.
var ErrKeysUnavailable = errors.New("token: keys unavailable")

func refuse(issuer, reason string) *Error {
	code := Invalid
	switch reason {
	case ReasonExpired:
		code = Expired
	case ReasonRevoked:
		code = Revoked
	case ReasonKeysUnavailable:
		code = Unavailable
	}
	return &Error{Code: code, Reason: reason, Issuer: issuer}
}
