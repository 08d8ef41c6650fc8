// Package exchange is what Moat's handlers know together about one request:
// its canonical target, the rule that matched, the caller and the decision. It
// decides nothing itself.
//
// The Exchange hangs in the request's variable table, because Caddy runs error
// routes with the request it started with: a value in a derived context would
// be lost there, and with it the request ID and the recorded refusal. Another
// handler that overwrites the variable can only take the Exchange away, never
// forge one, since its type is not constructible from configuration; without an
// Exchange every later step refuses.
package exchange

import (
	"context"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/moat-gateway/moat/internal/audit"
	"github.com/moat-gateway/moat/internal/canon"
	"github.com/moat-gateway/moat/internal/identity"
	"github.com/moat-gateway/moat/internal/ratelimit"
	"github.com/moat-gateway/moat/internal/rbac"
)

const variable = "moat.exchange"

// RequestIDHeader carries the request ID on answers and upstream requests.
const RequestIDHeader = "X-Request-Id"

// Exchange is one request and what has been found out about it so far. It is
// used by one goroutine at a time, like the request itself.
type Exchange struct {
	// Start is when the request reached the first Moat handler.
	Start time.Time
	// RequestID is a UUIDv7, or what a trusted proxy sent.
	RequestID string
	// Client is the caller's address; the zero Addr when it is not known.
	Client netip.Addr
	// Audited says that moat_audit wraps this request.
	Audited bool

	// Target is the canonical request target; valid when Canonical is true.
	Target    canon.Target
	Canonical bool
	// Identity headers named here are removed from the request, in every
	// spelling, before Forward is written.
	Strip *canon.HeaderSet
	// Credentials names further headers that may carry a token.
	Credentials *canon.HeaderSet
	// Trailer is the request's trailer declaration that the guard took off. A
	// rule may put it back, without the names in Unwanted.
	Trailer  http.Header
	Unwanted []*canon.HeaderSet

	// SlashNeedsRule says that the guard let %2F pass only for rules that ask
	// for it.
	SlashNeedsRule bool

	// Policy and Match are the rule look-up; valid when LookedUp is true.
	Policy   *rbac.Policy
	Match    rbac.Match
	LookedUp bool
	// Preflight says that this is a CORS preflight that may pass without identity.
	Preflight bool

	// Caller is who is asking; nil until a token was judged.
	Caller *identity.Principal
	// Auth is how the caller was authenticated: "none", "bearer" or
	// "cookie"; AuthFailure is why an offered token did not count.
	Auth, AuthFailure string
	// LoginURL is where a navigation that would get 401 is sent instead; empty
	// for nowhere.
	LoginURL string
	// Forward are the identity headers for the upstream.
	Forward []Field

	// Decision is what the rules say; valid when Decided is true.
	Decision rbac.Decision
	Decided  bool
	// Revealed is the value of the header that tells the caller what was decided
	// and why. Empty for everybody who may not know.
	Revealed string
	// Method, Path, Query and Host are what the decision was about.
	Method, Path, Query, Host string

	// Refusal is set once the request was refused.
	Refusal *Refusal
	// Shadowed are the reasons that would have refused the request had their
	// part not been in shadow mode.
	Shadowed []string

	// Limits are the limits that were charged and may be told to the caller.
	Limits []ratelimit.Reported

	// TrailDown is the reason why the audit trail cannot take an event now.
	TrailDown error

	// Inline sends a request to the upstream so that the inline code of its answer can
	// be brought under the content security policy. Nil: it is sent as it is.
	Inline func(req *http.Request, next func(*http.Request) (*http.Response, error)) (*http.Response, error)

	// Collected says that the request brought reports, which are events of their own.
	Collected bool

	// Response is the writer that answers must go through: the innermost one
	// of Moat's, so that headers are settled and bytes are counted.
	Response http.ResponseWriter

	handedOver time.Time
	upstream   time.Duration
}

// Field is one header of the request to the upstream.
type Field struct{ Name, Value string }

// Refusal is the record of a refusal: the public code and the fine reason,
// which only the audit trail gets.
type Refusal struct {
	Code   string
	Status int
	Reason string
}

// String is what a placeholder that prints the variable shows.
func (ex *Exchange) String() string { return ex.RequestID }

// From returns the request's Exchange, or nil.
func From(ctx context.Context) *Exchange {
	ex, _ := caddyhttp.GetVar(ctx, variable).(*Exchange)
	return ex
}

// Ensure returns the request's Exchange and opens one if there is none. It sets
// the request ID on the request and on the answer.
func Ensure(w http.ResponseWriter, r *http.Request) *Exchange {
	if ex := From(r.Context()); ex != nil {
		return ex
	}
	now := time.Now()
	ex := &Exchange{
		Start:     now,
		RequestID: requestID(r, now),
		Client:    client(r),
		Auth:      "none",
		Response:  w,
	}
	caddyhttp.SetVar(r.Context(), variable, ex)
	id := []string{ex.RequestID}
	r.Header[RequestIDHeader] = id
	w.Header()[RequestIDHeader] = id
	return ex
}

// requestID takes the ID over from a trusted proxy and makes a new one for
// everybody else: an ID that the caller chooses would let it forge the link
// between its answers and somebody else's audit events.
func requestID(r *http.Request, now time.Time) string {
	if trusted, _ := caddyhttp.GetVar(r.Context(), caddyhttp.TrustedProxyVarKey).(bool); trusted {
		if ids := r.Header[RequestIDHeader]; len(ids) == 1 && validID(ids[0]) {
			return ids[0]
		}
	}
	return audit.NewID(now)
}

func validID(id string) bool {
	if len(id) < 8 || len(id) > 128 {
		return false
	}
	for i := range len(id) {
		c := id[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return true
}

// TrustedPeer reports whether the request comes straight from a proxy listed in
// trusted_proxies.
func TrustedPeer(r *http.Request) bool {
	trusted, _ := caddyhttp.GetVar(r.Context(), caddyhttp.TrustedProxyVarKey).(bool)
	return trusted
}

// client is the one place that yields the caller's address. IPv4-mapped IPv6
// addresses are unmapped, so that one caller has one address.
func client(r *http.Request) netip.Addr {
	text, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}
	}
	return addr.Unmap().WithZone("")
}

// HandOver notes that the gate is done and the site's own handlers begin.
func (ex *Exchange) HandOver() { ex.handedOver = time.Now() }

// TakeBack notes that the site's own handlers returned.
func (ex *Exchange) TakeBack() {
	if !ex.handedOver.IsZero() {
		ex.upstream += time.Since(ex.handedOver)
		ex.handedOver = time.Time{}
	}
}

// Added is the time that the gate itself took out of total.
func (ex *Exchange) Added(total time.Duration) time.Duration { return max(0, total-ex.upstream) }

// Shadow records a refusal that shadow mode did not carry out.
func (ex *Exchange) Shadow(reason string) { ex.Shadowed = append(ex.Shadowed, reason) }

// BarePath is the canonical path with every segment cut at its first
// semicolon, escaped or not: what servlet containers make of it before they
// look for a servlet.
func (ex *Exchange) BarePath() string {
	path := ex.Target.Path
	if !strings.Contains(path, ";") && !strings.Contains(path, "%3B") {
		return path
	}
	segments := strings.Split(strings.ReplaceAll(path, "%3B", ";"), "/")
	for i, segment := range segments {
		segments[i], _, _ = strings.Cut(segment, ";")
	}
	return strings.Join(segments, "/")
}

// SetForward replaces the identity headers on the request: first every spelling
// of every name is removed, then the sealed values are written.
func (ex *Exchange) SetForward(h http.Header) {
	if ex.Strip != nil {
		ex.Strip.StripFrom(h)
	}
	for _, f := range ex.Forward {
		h[f.Name] = []string{f.Value}
	}
}
