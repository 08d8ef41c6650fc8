package explanation

import (
	"strings"

	"github.com/moat-gateway/moat/internal/canon"
	"github.com/moat-gateway/moat/internal/rbac"
	"github.com/moat-gateway/moat/internal/token"
)

// sentences say what a reason means. A test holds them complete for the
// reasons of rules, tokens and targets.
var sentences = map[string]string{
	rbac.ReasonPublic:         "the rule lets everybody pass",
	rbac.ReasonAuthenticated:  "the rule needs a known caller and nothing else",
	rbac.ReasonPermission:     "a role of the caller grants what the rule needs",
	rbac.ReasonOwner:          "the caller passes because the route is its own",
	rbac.ReasonNoRule:         "no rule matches, and what no rule names is refused",
	rbac.ReasonDenyRule:       "the rule lets nobody pass",
	rbac.ReasonNoIdentity:     "the rule needs somebody, and nobody is known",
	rbac.ReasonNoPermission:   "no role of the caller grants a permission that the rule needs",
	rbac.ReasonNotOwner:       "the caller would pass on a route of its own, and this one is somebody else's",
	rbac.ReasonWrongTenant:    "the caller would pass on a route of its own tenant, or with a role of scope global",
	rbac.ReasonForeignIssuer:  "the rule compares identifiers, and those of the caller's issuer are not comparable (shares_ids)",
	rbac.ReasonCondition:      "the rule's condition does not hold",
	rbac.ReasonConditionError: "the rule's condition could not be evaluated, and what cannot be told is refused",

	"rbac.preflight":             "a CORS preflight for a method that a rule lists passes without identity",
	"rbac.not-canonical":         "the request target is not in its one canonical form",
	"rbac.path-parameter":        "another rule would decide if the path had no parameters (;x), as some applications read it",
	"rbac.no-lookup":             "no handler before this one looked a rule up",
	"rbac.changed-since-guard":   "something changed the request after it was put into canonical form",
	"rbac.changed-since-look-up": "something changed the request after its rule was looked up",

	token.ReasonMalformed:       "the token is not three parts of base64url around two JSON objects",
	token.ReasonTooLarge:        "the token is too large or too deep",
	token.ReasonHeaderDuplicate: "the token's header has a name twice",
	token.ReasonClaimDuplicate:  "the token's claims have a name twice",
	token.ReasonHeaderMember:    "the token's header has a member that is not allowed",
	token.ReasonCrit:            "the token's header has crit, and no extension is understood",
	token.ReasonTypMismatch:     "the token's typ is not one that the issuer accepts",
	token.ReasonAlgMismatch:     "the token's alg is not accepted, or not the one that its key is for",
	token.ReasonUnknownKey:      "the issuer has no key for the token",
	token.ReasonKidMissing:      "the token names no key, and the issuer has too many to try",
	token.ReasonBadSignature:    "no key of the issuer made the token's signature",
	token.ReasonKeysUnavailable: "the issuer's keys could not be had, so nothing can be said about the token",
	token.ReasonIDToken:         "it is an ID token, and an access token is needed",
	token.ReasonEventToken:      "it is a logout or event token, and an access token is needed",
	token.ReasonIssMismatch:     "the token's iss is not a configured one",
	token.ReasonAudMismatch:     "the token's aud does not name this audience",
	token.ReasonExpMissing:      "the token never expires",
	token.ReasonBadDate:         "a date of the token is no number of seconds",
	token.ReasonExpired:         "the token has expired and has no other fault",
	token.ReasonNotYetValid:     "the token is not valid yet (nbf)",
	token.ReasonIatFuture:       "the token was issued in the future",
	token.ReasonLifetime:        "the token lives longer than max_lifetime",
	token.ReasonBadClaim:        "a claim for id, tenant, session or roles is missing though needed, empty or of the wrong type",

	"jwt.missing":           "a token is needed, and the request carries none",
	"jwt.invalid":           "the token is not valid",
	token.ReasonAzpMismatch: "the token was issued to a client that is not among azp",
	token.ReasonRevoked:     "the caller, the session or the token was revoked",
	"jwt.two-tokens":        "one source carries two tokens",
	"jwt.cross-origin":      "a token in a cookie, an unsafe method, and no sign that the request comes from the site's own pages (Sec-Fetch-Site or Origin)",
	"jwt.unsafe-value":      "a value that would be forwarded is not safe in a header",

	canon.ReasonMethod:         "the method is not in the guard's list",
	canon.ReasonNoTarget:       "the request has no path",
	canon.ReasonOpaque:         "the target has no path to judge",
	canon.ReasonAsterisk:       "the target * names the server and no resource",
	canon.ReasonRelative:       "the path does not begin with /",
	canon.ReasonFragment:       "the target has a # in it",
	canon.ReasonUserinfo:       "the target has a user name in it",
	canon.ReasonScheme:         "the target is absolute, of a scheme other than http and https",
	canon.ReasonBadHost:        "the host is absent, or neither a name nor an address",
	canon.ReasonForeignHost:    "the target is absolute, for another host than the request's",
	canon.ReasonPathTooLong:    "the path is longer than max_path",
	canon.ReasonQueryTooLong:   "the query is longer than max_query",
	canon.ReasonDotSegment:     "the path has a segment of dots, in some spelling",
	canon.ReasonEmptySegment:   "the path has an empty segment (//)",
	canon.ReasonEncodedSlash:   "the path has %2F, and the rule does not say encoded_slash",
	canon.ReasonBackslash:      "the path has a backslash, raw or encoded",
	canon.ReasonControlByte:    "the target has a control byte or a raw space",
	canon.ReasonForbiddenByte:  "the path has a byte that has no place in a URL",
	canon.ReasonNonASCII:       "the target has a raw byte outside ASCII",
	canon.ReasonBadEscape:      "the target has a % without two hexadecimal digits",
	canon.ReasonDoubleEncoding: "the path has an escape that decodes to another escape",
	canon.ReasonBadUTF8:        "the target does not decode to UTF-8",
	canon.ReasonParameter:      "the path has a semicolon, and the guard says refuse_parameters",
	canon.ReasonLetterCase:     "the path has a letter that is not in lower case, and the guard says case_insensitive",
	canon.ReasonTrailingDot:    "a segment ends in a dot or a space, and the guard says case_insensitive",
	canon.ReasonQuerySemicolon: "the query has a semicolon, which parsers read differently",

	"guard.tls-version":       "the connection is below TLS 1.3",
	"guard.host-mismatch":     "the host is not the one that the connection was made for",
	"guard.early-data":        "early data can be replayed, and this request is not safe",
	"guard.two-hosts":         "the request names two hosts",
	"guard.header-too-long":   "a header line is longer than max_header",
	"guard.too-many-headers":  "the request has more header lines than max_headers",
	"guard.body-too-large":    "the body is larger than max_body",
	"guard.no-client-address": "the caller's address is not known",

	"limit.no-identity": "a limit by user, tenant or session stands in front of jwt",
	"csp.collected":     "browsers report violations of the content security policy there, and nothing of it reaches the application",
	"gate.second":       "the request met a second gate",

	"seal.no-decision":    "nothing decided on the request before it reached the proxy",
	"seal.method-changed": "the site changes the method after the decision, and the rule does not say rewrite_ok",
	"seal.path-changed":   "the site changes the path after the decision, and the rule says neither rewrite_ok nor a strip_prefix that fits",
	"seal.query-changed":  "the site changes the query after the decision, and the rule does not say rewrite_ok",
}

// families say what the reasons of one kind have in common, for those that have
// no sentence of their own.
var families = map[string]string{
	"rbac":    "the rules refuse it",
	"jwt":     "the token does not count",
	"canon":   "the request target is not in its one canonical form",
	"guard":   "the guard refuses it",
	"limit":   "a limit refuses it",
	"seal":    "the seal refuses it",
	"headers": "a header would be set",
}

// Sentence says what a reason means.
func Sentence(reason string) string {
	if s, ok := sentences[reason]; ok {
		return s
	}
	family, _, _ := strings.Cut(reason, ".")
	if s, ok := families[family]; ok {
		return s
	}
	return "no more is known about it"
}
