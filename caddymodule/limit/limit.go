// Package limit is the moat_limit handler: it charges the limits that apply to
// a request and refuses what is over.
package limit

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/moat-gateway/moat/caddymodule/internal/denial"
	"github.com/moat-gateway/moat/caddymodule/internal/exchange"
	"github.com/moat-gateway/moat/caddymodule/internal/moatapp"
	"github.com/moat-gateway/moat/caddymodule/internal/telemetry"
	"github.com/moat-gateway/moat/internal/ratelimit"
	"github.com/moat-gateway/moat/internal/rbac"
)

func init() {
	caddy.RegisterModule(new(Handler))
	httpcaddyfile.RegisterHandlerDirective("moat_limit", parse)
}

// Handler charges all its limits that apply to a request in one step, or none of
// them: a request that one limit refuses uses up nothing of the others. It refuses
// with 429, Retry-After, RateLimit and RateLimit-Policy; with 503 when the shared
// store is away and a limit says on_error closed. Allowed answers carry RateLimit
// and RateLimit-Policy too.
//
// Limits by user, tenant or session must run behind moat_jwt.
type Handler struct {
	// Limits are charged together.
	Limits []*Limit `json:"limits,omitempty"`
	// Site keeps the counters of equally named limits of different sites apart.
	Site string `json:"site,omitempty"`
	// CaseInsensitive matches the patterns of On without regard to ASCII case.
	// It must be set where the guard's is.
	CaseInsensitive bool `json:"case_insensitive,omitempty"`

	store ratelimit.Store
	pool  sync.Pool
}

// CaddyModule returns the module's registration.
func (*Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.moat_limit",
		New: func() caddy.Module { return new(Handler) },
	}
}

// Provision compiles the limits and finds their store.
func (h *Handler) Provision(ctx caddy.Context) error {
	source, err := moatapp.Load[ratelimit.Source](ctx)
	if err != nil {
		return err
	}
	roles, err := moatapp.Load[rbac.Source](ctx)
	if err != nil {
		return err
	}
	roles.Depend(func(next *rbac.Roles) (func(), error) {
		var errs []error
		for _, l := range h.Limits {
			if err := l.checkTiers(next); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", l.place(), err))
			}
		}
		return nil, errors.Join(errs...)
	})
	var fallback ratelimit.Fallback
	h.store, fallback = source.Limiter()
	h.pool.New = func() any { return new(charge) }
	errs := []error{h.compile(roles.Roles(), fallback)}
	for _, l := range h.Limits {
		if l.shadow {
			ctx.Logger().Warn("limit " + l.Name + " is in shadow mode: it counts and refuses nothing")
		}
		if l.OnError == onErrorOpen {
			ctx.Logger().Warn("limit " + l.Name + ": on_error open: nothing is limited while the store is away")
		}
		if err := source.Announce(h.named(l)); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", l.place(), err))
		}
	}
	return errors.Join(append(errs, telemetry.Register(ctx))...)
}

// compile compiles all limits and names what they count.
func (h *Handler) compile(roles *rbac.Roles, fallback ratelimit.Fallback) error {
	if len(h.Limits) == 0 {
		return errors.New("limit: needs at least one limit")
	}
	var errs []error
	shapes, names := make(map[string]int), make(map[string]int)
	most := 0
	for _, l := range h.Limits {
		if err := errors.Join(l.expand(), l.compile(h.CaseInsensitive, fallback), l.checkTiers(roles)); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", l.place(), err))
			continue
		}
		most += l.most()
		names[l.Name] += l.most()
	}
	for _, l := range h.Limits {
		// What is counted tells buckets apart, also those of several handlers in
		// one site; how fast does not, so that a new rate goes on with the count.
		shape := l.shape()
		shapes[shape]++
		l.identify(fmt.Sprintf("%s/%s#%d", h.Site, shape, shapes[shape]), names)
		if n := len(h.Site) + len(shape) + 16; n > ratelimit.MaxName {
			errs = append(errs, fmt.Errorf("%s: name and site have %d bytes together; at most %d are allowed", l.place(), n, ratelimit.MaxName))
		}
	}
	if most > ratelimit.MaxRequests {
		errs = append(errs, fmt.Errorf("limit: %d limits are charged together; at most %d are allowed", most, ratelimit.MaxRequests))
	}
	return errors.Join(errs...)
}

// most is the largest number of buckets that one request is charged to.
func (l *Limit) most() int {
	n := len(l.grants)
	for _, tier := range l.tiers {
		n = max(n, len(tier))
	}
	return n
}

// charge is one call's working memory. requests[i] and results[i] belong to
// limits[i] and told[i].
type charge struct {
	limits   []*Limit
	told     []string
	requests []ratelimit.Request
	results  []ratelimit.Result
}

func (h *Handler) borrow() *charge { return h.pool.Get().(*charge) }

func (h *Handler) bring(c *charge) {
	clear(c.requests)
	c.limits, c.told, c.requests, c.results = c.limits[:0], c.told[:0], c.requests[:0], c.results[:0]
	h.pool.Put(c)
}

// ServeHTTP charges and goes on, or refuses.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	ex := exchange.Ensure(w, r)
	for _, l := range h.Limits {
		if l.identity && ex.Caller == nil {
			// In front of moat_jwt it would never apply, silently.
			return denial.Refuse(w, r, &denial.Refusal{Code: denial.Internal, Reason: "limit.no-identity"})
		}
	}
	pending, refusal := h.charge(w, r, ex)
	if refusal != nil {
		return denial.Refuse(w, r, refusal)
	}
	if len(pending) == 0 {
		return next.ServeHTTP(w, r)
	}
	return h.settle(w, r, next, pending)
}

// charge takes what the request needs from all limits that apply, or from none.
func (h *Handler) charge(w http.ResponseWriter, r *http.Request, ex *exchange.Exchange) ([]charged, *denial.Refusal) {
	c := h.borrow()
	defer h.bring(c)
	h.collect(c, r, ex)
	if len(c.requests) == 0 {
		return nil, nil
	}
	start := time.Now()
	// The store has a budget of its own. A caller that hangs up must neither
	// save its unit nor look like a failure of the store.
	results, err := h.store.Take(context.WithoutCancel(r.Context()), c.requests, c.results)
	telemetry.StoreSeconds.Observe(time.Since(start).Seconds())
	if err != nil {
		denial.RetryAfter(w.Header(), time.Second)
		return nil, &denial.Refusal{Code: denial.Unavailable, Reason: "limit.unavailable"}
	}
	c.results = results
	c.shadows(ex)
	if refusal := c.refuse(w, ex); refusal != nil {
		return nil, refusal
	}
	c.tell(w, ex)
	return c.allow(), nil
}

// collect gathers the limits that apply.
func (h *Handler) collect(c *charge, r *http.Request, ex *exchange.Exchange) {
	for _, l := range h.Limits {
		subject, grants, ok := l.applies(r, ex)
		if !ok {
			continue
		}
		for i := range grants {
			c.limits = append(c.limits, l)
			c.told = append(c.told, grants[i].told)
			c.requests = append(c.requests, l.request(&grants[i], subject))
		}
	}
}

// request asks for what one request takes of a grant.
func (l *Limit) request(g *grant, subject string) ratelimit.Request {
	req := ratelimit.Request{
		Limit: g.bucket, Subject: subject, Rate: g.rate, Slots: g.slots, Cost: l.cost, Lease: l.Lease,
		Shadow: l.shadow, Tentative: l.pending(), Fallback: l.fallback,
	}
	if g.slots > 0 {
		req.Holder = ratelimit.NewHolder()
	}
	return req
}

// shadows records what limits in shadow mode would refuse.
func (c *charge) shadows(ex *exchange.Exchange) {
	var last *Limit
	for i, l := range c.limits {
		if !l.shadow || c.results[i].Allowed || l == last {
			continue
		}
		last = l // Once, however many of its rates refuse.
		if c.results[i].Unavailable {
			ex.Shadow("limit.unavailable")
			continue
		}
		l.shadowed.Inc()
		ex.Shadow("limit." + l.Name)
	}
}

// refuse returns nil when every limit that is enforced allows.
func (c *charge) refuse(w http.ResponseWriter, ex *exchange.Exchange) *denial.Refusal {
	var refusal *denial.Refusal
	var retry time.Duration
	var last *Limit
	for i, l := range c.limits {
		if l.shadow || c.results[i].Allowed {
			continue
		}
		if refusal == nil {
			refusal = &denial.Refusal{Code: denial.RateLimited, Reason: "limit." + l.Name}
		}
		if refusal.Detail == "" {
			refusal.Detail = l.Message
		}
		if l != last {
			l.blocked.Inc()
		}
		last = l
		refusal.Violated = append(refusal.Violated, c.told[i])
		retry = max(retry, c.results[i].RetryAfter)
		ex.Limits = append(ex.Limits, c.reported(i))
	}
	if refusal == nil {
		return nil
	}
	c.tell(w, ex)
	denial.RetryAfter(w.Header(), retry)
	return refusal
}

// allow counts the limits that allowed and returns those that the answer has a
// bearing on.
func (c *charge) allow() []charged {
	var pending []charged
	var last *Limit
	for i, l := range c.limits {
		if !c.results[i].Allowed {
			continue // A shadow, of which nothing was taken.
		}
		if l != last {
			l.allowed.Inc()
		}
		last = l
		if l.pending() {
			req := c.requests[i]
			req.Level, req.Degraded = c.results[i].ResetAfter, c.results[i].Degraded
			pending = append(pending, charged{limit: l, request: req})
		}
	}
	return pending
}

// Interface guards.
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
