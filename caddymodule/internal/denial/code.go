// Package denial turns a refusal into what everybody gets to see of it: an
// error for Caddy's error routes, a problem document or a short page for the
// client, and a record for the audit trail. One vocabulary for all parts.
package denial

import "net/http"

// Code is one word of the refusal vocabulary.
type Code struct {
	// Name is stable: clients, metrics and audit events carry it.
	Name string
	// Status is the HTTP status that goes with it.
	Status int
	// Title is the one sentence a client gets.
	Title string
}

// The vocabulary. Each refusal has one status, one code, one audit event, one
// metric; the fine reason goes to the audit event only.
var (
	BadRequest       = Code{"bad-request", http.StatusBadRequest, "The request cannot be understood in one way only"}
	TokenMissing     = Code{"token-missing", http.StatusUnauthorized, "Authentication is required"}
	TokenInvalid     = Code{"token-invalid", http.StatusUnauthorized, "The token is not valid"}
	TokenExpired     = Code{"token-expired", http.StatusUnauthorized, "The token has expired"}
	TokenRevoked     = Code{"token-revoked", http.StatusUnauthorized, "The token was revoked"}
	Forbidden        = Code{"forbidden", http.StatusForbidden, "The request is not allowed"}
	CrossOrigin      = Code{"cross-origin", http.StatusForbidden, "The request comes from another origin"}
	MethodNotAllowed = Code{"method-not-allowed", http.StatusMethodNotAllowed, "The method is not allowed"}
	ContentTooLarge  = Code{"content-too-large", http.StatusRequestEntityTooLarge, "The request content is too large"}
	URITooLong       = Code{"uri-too-long", http.StatusRequestURITooLong, "The request target is too long"}
	HeadersTooLarge  = Code{"headers-too-large", http.StatusRequestHeaderFieldsTooLarge, "The request headers are too large"}
	Misdirected      = Code{"misdirected", http.StatusMisdirectedRequest, "The request came over a connection that must not carry it"}
	TooEarly         = Code{"too-early", http.StatusTooEarly, "The request must be sent again after the handshake"}
	RateLimited      = Code{"rate-limited", http.StatusTooManyRequests, "Too many requests, please try again later"}
	Unavailable      = Code{"unavailable", http.StatusServiceUnavailable, "The service cannot decide on the request right now"}
	Internal         = Code{"internal", http.StatusInternalServerError, "The gateway is not set up for this request"}
)
