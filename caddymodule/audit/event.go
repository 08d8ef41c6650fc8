package audit

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/moat-gateway/moat/caddymodule/internal/denial"
	"github.com/moat-gateway/moat/caddymodule/internal/exchange"
	"github.com/moat-gateway/moat/internal/audit"
)

// statusClientGone is what Caddy's proxy reports when the client went away.
const statusClientGone = 499

// closed is the event of a request that has ended.
func (h *Handler) closed(r *http.Request, ex *exchange.Exchange, rec *recorder, err error, finished bool) *audit.Event {
	e := describe(r, ex, rec.seen)
	e.Status = rec.status
	if err != nil && !rec.wrote {
		e.Status = denial.Status(err)
	}
	if rec.stream {
		e.Details.Set("stream", "close")
	}
	switch {
	case ex.Refusal != nil:
		e.Class, e.Outcome = audit.Security, audit.Deny
		e.Reason = ex.Refusal.Reason
		e.Status = ex.Refusal.Status
		e.Details.Set("code", ex.Refusal.Code)
	case aborted(r, rec, err, finished):
		e.Class, e.Outcome = audit.Access, audit.Aborted
		e.Reason = "client.gone"
		if !finished && r.Context().Err() == nil {
			e.Reason = "upstream.aborted"
		}
	case err != nil:
		e.Class, e.Outcome = audit.Access, audit.Failure
		e.Reason = "upstream.failed"
		var herr caddyhttp.HandlerError
		if errors.As(err, &herr) && herr.StatusCode < http.StatusInternalServerError {
			e.Outcome, e.Reason = audit.Allow, ex.Decision.Reason
		}
	default:
		e.Class, e.Outcome = audit.Access, audit.Allow
		e.Reason = ex.Decision.Reason
	}
	if e.Status == 0 && finished {
		// Nothing was written: net/http answers 200 with an empty body.
		e.Status = http.StatusOK
	}
	return e
}

// opened is the first of a stream's two events.
func (h *Handler) opened(r *http.Request, ex *exchange.Exchange, rec *recorder) *audit.Event {
	e := describe(r, ex, rec.seen)
	e.Class, e.Outcome, e.Reason = audit.Access, audit.Allow, ex.Decision.Reason
	e.Status = rec.status
	e.Duration = time.Since(ex.Start)
	e.Details.Set("stream", "open")
	return e
}

// aborted reports whether the answer did not come to its end.
func aborted(r *http.Request, rec *recorder, err error, finished bool) bool {
	if !finished || rec.status == statusClientGone {
		return true
	}
	return err != nil && (denial.Status(err) == statusClientGone || errors.Is(r.Context().Err(), context.Canceled))
}

// class is the class of a request's event, as far as it is decided.
func class(ex *exchange.Exchange) audit.Class {
	if ex.Refusal != nil {
		return audit.Security
	}
	return audit.Access
}

// describe fills in what is known of the request itself. Only listed fields are
// taken: no header that is not listed, no query value, no body can get into an
// event.
func describe(r *http.Request, ex *exchange.Exchange, seen []seenHeader) *audit.Event {
	now := time.Now()
	e := &audit.Event{
		Timestamp: now,
		ID:        audit.NewID(now),
		RequestID: ex.RequestID,
		Method:    r.Method,
		Host:      r.Host,
		Path:      r.URL.EscapedPath(),
		Route:     ex.Match.Route(),
	}
	if ex.Canonical {
		e.Method, e.Host, e.Path = ex.Target.Method, ex.Target.Host, ex.Target.Path
		if names := queryNames(ex.Target.Query); names != nil {
			e.Details.Set("query", names)
		}
	}
	if fields := told(seen, r.Header, ex); fields != nil {
		e.Details.Set("headers", fields)
	}
	if ex.Client.IsValid() {
		e.IP = ex.Client.String()
	}
	if p := ex.Caller; p != nil {
		e.UserID, e.Tenant, e.Roles = p.ID, p.Tenant, p.Roles
		if p.Issuer != "" {
			e.Details.Set("issuer", p.Issuer)
		}
	}
	e.Resource = e.Path
	e.Action = e.Method
	if rule := ex.Match.Rule(); rule != nil {
		e.Action = e.Method + " " + e.Route
		if rule.Action != "" {
			e.Action = rule.Action
		}
	}
	if d := &ex.Decision; d.Permission != "" {
		e.Details.Set("role", d.Role)
		e.Details.Set("permission", d.Permission)
	}
	e.Details.Set("auth", ex.Auth)
	if ex.AuthFailure != "" {
		e.Details.Set("authFailure", ex.AuthFailure)
	}
	if len(ex.Shadowed) > 0 {
		e.Details.Set("shadow", ex.Shadowed)
	}
	return e
}
