package denial

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"golang.org/x/net/http/httpguts"

	"github.com/moat-gateway/moat/caddymodule/internal/exchange"
)

// Refusal is one refusal on its way to the client. Its error text is the code
// and nothing else, because {http.error.message} may be printed by an error
// route.
type Refusal struct {
	Code Code
	// Reason is the fine reason for the audit trail, for example "rbac.no-rule".
	Reason string
	// Detail replaces the code's title in the body. It must not depend on
	// secrets. Optional.
	Detail string
	// Violated are the names of the limits that were reached (429 only).
	Violated []string
	// Requires is what the rule asks for. Clients get it, and the Reason, only
	// when Revealed is set.
	Requires []string
	Revealed bool
}

// Error returns the code.
func (r *Refusal) Error() string { return r.Code.Name }

// Refuse records the refusal and returns the error that ends the request. The
// caller sets the headers that go with it (WWW-Authenticate, Retry-After, …)
// on the answer before; they survive into error routes.
func Refuse(w http.ResponseWriter, r *http.Request, refusal *Refusal) error {
	ex := exchange.Ensure(w, r)
	if login := loginFor(r, ex, refusal); login != "" {
		return redirect(w, ex, refusal, login)
	}
	err := record(ex, refusal)
	if ex.Audited || hasErrorRoutes(r) {
		return err
	}
	// Composed without the moat directive, on a server without error routes,
	// Caddy would answer with an empty body.
	Write(w, r, refusal.Code.Status, err)
	return nil
}

// Late is the error of a refusal while the request is on its way already, for
// example because its body turns out too large. It is for whoever reads the
// body, on any goroutine; Adopt records it when it comes back.
func Late(refusal *Refusal) error {
	return caddyhttp.HandlerError{Err: refusal, StatusCode: refusal.Code.Status}
}

// Adopt records a refusal that came back as an error of the handlers behind.
func Adopt(ex *exchange.Exchange, err error) {
	var refusal *Refusal
	if errors.As(err, &refusal) {
		_ = record(ex, refusal)
	}
}

func record(ex *exchange.Exchange, refusal *Refusal) error {
	if ex.Refusal == nil {
		ex.Refusal = &exchange.Refusal{
			Code:   refusal.Code.Name,
			Status: refusal.Code.Status,
			Reason: refusal.Reason,
		}
	}
	return caddyhttp.HandlerError{Err: refusal, StatusCode: refusal.Code.Status, ID: ex.RequestID}
}

// CheckRealm reports what would break out of the quotes of a challenge.
func CheckRealm(realm string) error {
	if strings.ContainsAny(realm, "\"\\") || !httpguts.ValidHeaderFieldValue(realm) {
		return fmt.Errorf("realm %q: must not contain quotes, backslashes or control characters", realm)
	}
	return nil
}

// Challenge sets WWW-Authenticate (RFC 6750 section 3) for the code.
func Challenge(h http.Header, realm string, code Code) {
	value := `Bearer realm="` + realm + `"`
	switch code.Name {
	case TokenInvalid.Name, TokenExpired.Name, TokenRevoked.Name:
		value += `, error="invalid_token"`
	case Forbidden.Name:
		value += `, error="insufficient_scope"`
	}
	h["Www-Authenticate"] = []string{value}
}

// RetryAfter sets Retry-After in whole seconds, at least 1 (RFC 9110 section
// 10.2.3).
func RetryAfter(h http.Header, d time.Duration) {
	seconds := max(1, int64((d+time.Second-1)/time.Second))
	h["Retry-After"] = []string{strconv.FormatInt(seconds, 10)}
}

// Status is the status that an error returned by a handler stands for.
func Status(err error) int {
	var herr caddyhttp.HandlerError
	if errors.As(err, &herr) && herr.StatusCode != 0 {
		return herr.StatusCode
	}
	return http.StatusInternalServerError
}

func hasErrorRoutes(r *http.Request) bool {
	srv, ok := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	return ok && srv != nil && srv.Errors != nil && len(srv.Errors.Routes) > 0
}
