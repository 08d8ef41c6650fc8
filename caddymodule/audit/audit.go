// Package audit is the moat_audit handler: it wraps everything else the gate
// does and ends every request in exactly one event.
package audit

import (
	"errors"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/moat-gateway/moat/caddymodule/internal/denial"
	"github.com/moat-gateway/moat/caddymodule/internal/dispense"
	"github.com/moat-gateway/moat/caddymodule/internal/exchange"
	"github.com/moat-gateway/moat/caddymodule/internal/moatapp"
	"github.com/moat-gateway/moat/caddymodule/internal/telemetry"
	"github.com/moat-gateway/moat/internal/audit"
)

func init() {
	caddy.RegisterModule(new(Handler))
	httpcaddyfile.RegisterHandlerDirective("moat_audit", parse)
}

// Handler gives every request an ID, sees how it ends and hands one event to
// the trail that the moat app configures. It answers errors of the handlers
// behind it through the server's error routes, so that their pages are counted
// too. A request that meets a second Handler is answered 500.
//
// It does not protect against anything by itself.
type Handler struct {
	// Site is the label of this site in moat_requests_total. Default: the
	// server's name.
	Site string `json:"site,omitempty"`

	trail   audit.Trail
	headers []string // that events carry
	answers denial.Answers
	logger  *zap.Logger
}

// CaddyModule returns the module's registration.
func (*Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.moat_audit",
		New: func() caddy.Module { return new(Handler) },
	}
}

// Provision finds the trail.
func (h *Handler) Provision(ctx caddy.Context) error {
	h.logger = ctx.Logger()
	source, err := moatapp.Load[audit.Source](ctx)
	if err != nil {
		return err
	}
	h.trail, h.headers = source.Trail(), source.RecordHeaders()
	return telemetry.Register(ctx)
}

// ServeHTTP opens the exchange, lets everything else happen and records how it
// ended: also when a handler panics or the client is gone.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	seen := see(r.Header, h.headers)
	ex := exchange.Ensure(w, r)
	if ex.Audited {
		return denial.Refuse(w, r, &denial.Refusal{Code: denial.Internal, Reason: "gate.second"})
	}
	ex.Audited = true
	ex.TrailDown = h.trail.Down()
	rec := newRecorder(w, ex.RequestID)
	rec.seen = seen
	if d, ok := h.trail.(audit.Durable); ok && r.Method != http.MethodHead {
		rec.promise = func() (durable, strict bool) { return d.Durable(class(ex)) }
	}
	ex.Response = rec
	body := countBody(r)
	rec.onStream = func() { _ = h.record(h.opened(r, ex, rec)) }

	var err error
	finished := false
	defer func() {
		// A panic of the proxy is its way to abort an answer half-way. It goes
		// on to the server; the event must not be lost over it.
		h.finish(r, ex, rec, body, err, finished)
	}()
	err = next.ServeHTTP(rec, r)
	if err != nil && !rec.wrote {
		denial.Adopt(ex, err)
		h.logFailure(r, ex, err)
		if failed := h.answers.Answer(ex.Response, r, err); failed != nil && !rec.wrote {
			h.logger.Error("an error route failed",
				zap.String("request_id", ex.RequestID), zap.Error(failed))
			denial.Write(ex.Response, r, denial.Status(err), err)
		}
		finished = true
		return nil
	}
	finished = true
	if err != nil {
		// The header is out: an error page now would be the middle of the answer.
		h.logFailure(r, ex, err)
		panic(http.ErrAbortHandler)
	}
	return nil
}

// logFailure logs what went wrong behind the gate. Refusals are in the trail.
func (h *Handler) logFailure(r *http.Request, ex *exchange.Exchange, err error) {
	var refusal *denial.Refusal
	if errors.As(err, &refusal) || denial.Status(err) < http.StatusInternalServerError {
		return
	}
	h.logger.Error("request failed behind the gate",
		zap.String("request_id", ex.RequestID),
		zap.String("host", r.Host),
		zap.String("path", ex.Path),
		zap.Error(err))
}

func (h *Handler) record(e *audit.Event) error {
	// The trail counts what it could not take and says so itself.
	err := h.trail.Record(e)
	if err != nil {
		if c := h.logger.Check(zap.WarnLevel, "the trail could not take an event"); c != nil {
			c.Write(zap.String("request_id", e.RequestID), zap.Error(err))
		}
	}
	return err
}

func (h *Handler) finish(r *http.Request, ex *exchange.Exchange, rec *recorder, body *bodyCounter, err error, finished bool) {
	total := time.Since(ex.Start)
	ex.TakeBack()
	rec.promised()
	e := h.closed(r, ex, rec, err, finished)
	e.Duration = total
	rec.settle()
	e.BytesIn = body.read() + rec.bytesIn
	e.BytesOut = rec.bytesOut
	var failed error
	if !ex.Collected || ex.Refusal != nil {
		failed = h.record(e)
	}
	defer func() {
		switch {
		case !finished: // The answer is cut off anyway.
		case failed != nil && rec.hold && rec.strict:
			// It was promised not to end without its event.
			panic(http.ErrAbortHandler)
		default:
			rec.release()
		}
	}()

	code := statusClass(e.Status)
	if ex.Refusal != nil {
		code = ex.Refusal.Code
	}
	telemetry.Requests.WithLabelValues(h.site(r), string(e.Outcome), code).Inc()
	telemetry.Added.Observe(ex.Added(total).Seconds())
}

func (h *Handler) site(r *http.Request) string {
	if h.Site != "" {
		return h.Site
	}
	if srv, ok := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); ok && srv != nil {
		return srv.Name()
	}
	return ""
}

func statusClass(status int) string {
	switch status / 100 {
	case 1:
		return "1xx"
	case 2:
		return "2xx"
	case 3:
		return "3xx"
	case 4:
		return "4xx"
	default:
		return "5xx"
	}
}

// parse reads:
//
//	moat_audit [<matcher>] {
//		site <label>
//	}
func parse(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	handler := new(Handler)
	return handler, handler.UnmarshalCaddyfile(h.Dispenser)
}

// UnmarshalCaddyfile reads the directive's block.
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if d.NextArg() {
		return d.ArgErr()
	}
	return dispense.Words{
		"site": {Parse: dispense.String(&h.Site)},
	}.Block(d, "moat_audit")
}

// Interface guards.
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
	_ caddyfile.Unmarshaler       = (*Handler)(nil)
)
