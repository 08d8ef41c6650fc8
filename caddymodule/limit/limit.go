// Package limit is the moat_limit handler: it charges the limits that apply to
// a request and refuses what is over.
package limit

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
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

// Handler charges all its limits that apply to a request, or none of them: a
// request that one limit refuses uses up nothing of the others. It refuses with
// 429, Retry-After, RateLimit and RateLimit-Policy; with 503 when the shared
// store is away and a limit says on_error closed.
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

	groups []*group
	pool   sync.Pool
}

// group is the limits that share a store, so that one call charges them.
type group struct {
	store  ratelimit.Store
	limits []*Limit
	shadow bool
}

// CaddyModule returns the module's registration.
func (*Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.moat_limit",
		New: func() caddy.Module { return new(Handler) },
	}
}

// Provision compiles the limits and finds their stores.
func (h *Handler) Provision(ctx caddy.Context) error {
	source, err := moatapp.Load[ratelimit.Source](ctx)
	if err != nil {
		return err
	}
	h.pool.New = func() any { return new(charge) }
	var errs []error
	if len(h.Limits) == 0 {
		errs = append(errs, errors.New("limit: needs at least one limit"))
	}
	names := make(map[string]int)
	groups := make(map[string]*group)
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
	for _, l := range h.Limits {
		if err := errors.Join(l.expand(), l.compile(h.CaseInsensitive), l.checkTiers(roles.Roles())); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", l.place(), err))
			continue
		}
		// What is counted tells buckets apart, also those of several handlers in
		// one site; how fast does not, so that a new rate goes on with the count.
		shape := l.shape()
		names[shape]++
		l.bucket = fmt.Sprintf("%s/%s#%d", h.Site, shape, names[shape])
		if len(l.bucket) > ratelimit.MaxName {
			errs = append(errs, fmt.Errorf("%s: name and site have %d bytes together; at most %d are allowed", l.place(), len(l.bucket), ratelimit.MaxName))
		}
		key := fmt.Sprintf("%s/%d", l.OnError, l.Instances)
		if l.Mode == modeShadow {
			// On its own: a limit that refuses keeps all of its call from being
			// charged, and a shadow must not touch what the others count.
			key = l.bucket
		}
		if groups[key] == nil {
			store, err := source.Limiter(l.OnError, l.Instances)
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", l.place(), err))
				continue
			}
			groups[key] = &group{store: store, shadow: l.Mode == modeShadow}
			h.groups = append(h.groups, groups[key])
		}
		groups[key].limits = append(groups[key].limits, l)
		if l.Mode == modeShadow {
			ctx.Logger().Warn("limit " + l.Name + " is in shadow mode: it counts and refuses nothing")
		}
		if l.OnError == onErrorOpen {
			ctx.Logger().Warn("limit " + l.Name + ": on_error open: nothing is limited while the store is away")
		}
	}
	for _, g := range h.groups {
		if len(g.limits) > ratelimit.MaxRequests {
			errs = append(errs, fmt.Errorf("limit: %d limits are charged together; at most %d are allowed", len(g.limits), ratelimit.MaxRequests))
		}
	}
	return errors.Join(append(errs, telemetry.Register(ctx))...)
}

// charge is one call's working memory.
type charge struct {
	limits   []*Limit
	requests []ratelimit.Request
	results  []ratelimit.Result
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
	var taken []reservation
	for _, g := range h.groups {
		units, refusal := h.charge(w, r, ex, g)
		if refusal != nil {
			// What an earlier group took goes back: all limits or none.
			giveBack(taken)
			return denial.Refuse(w, r, refusal)
		}
		taken = append(taken, units...)
	}
	counted := slices.DeleteFunc(taken, func(u reservation) bool { return len(u.limit.Count) == 0 })
	if len(counted) == 0 {
		return next.ServeHTTP(w, r)
	}
	return settle(w, r, next, counted)
}

func (h *Handler) charge(w http.ResponseWriter, r *http.Request, ex *exchange.Exchange, g *group) ([]reservation, *denial.Refusal) {
	c := h.pool.Get().(*charge)
	defer func() {
		clear(c.requests)
		c.limits, c.requests, c.results = c.limits[:0], c.requests[:0], c.results[:0]
		h.pool.Put(c)
	}()
	for _, l := range g.limits {
		if subject, rate, ok := l.applies(r, ex); ok {
			c.limits = append(c.limits, l)
			c.requests = append(c.requests, ratelimit.Request{Limit: l.bucket, Subject: subject, Rate: rate, Cost: 1})
		}
	}
	if len(c.requests) == 0 {
		return nil, nil
	}
	start := time.Now()
	// The store has a budget of its own. A caller that hangs up must neither
	// save its unit nor look like a failure of the store.
	results, err := g.store.Take(context.WithoutCancel(r.Context()), c.requests, c.results)
	telemetry.StoreSeconds.Observe(time.Since(start).Seconds())
	if err != nil && g.shadow {
		ex.Shadow("limit.unavailable")
		return nil, nil
	}
	if err != nil {
		denial.RetryAfter(w.Header(), time.Second)
		return nil, &denial.Refusal{Code: denial.Unavailable, Reason: "limit.unavailable"}
	}
	c.results = results
	if g.shadow && !shadow(ex, c) {
		return nil, nil
	}
	if !g.shadow {
		if refusal := refuse(w, c); refusal != nil {
			return nil, refusal
		}
	}
	var taken []reservation
	for i, l := range c.limits {
		l.allowed.Inc()
		if len(l.Count) > 0 || len(h.groups) > 1 {
			taken = append(taken, reservation{limit: l, store: g.store, request: c.requests[i], at: start})
		}
	}
	return taken, nil
}

// shadow records what a limit in shadow mode would refuse. It reports whether
// the limit allows.
func shadow(ex *exchange.Exchange, c *charge) bool {
	for i, l := range c.limits {
		if !c.results[i].Allowed {
			l.shadowed.Inc()
			ex.Shadow("limit." + l.Name)
			return false
		}
	}
	return true
}

// refuse returns nil when every limit allows.
func refuse(w http.ResponseWriter, c *charge) *denial.Refusal {
	var violated []string
	var retry time.Duration
	var message string
	for i, l := range c.limits {
		if c.results[i].Allowed {
			continue
		}
		l.blocked.Inc()
		violated = append(violated, l.Name)
		if message == "" {
			message = l.Message
		}
		retry = max(retry, c.results[i].RetryAfter)
	}
	if violated == nil {
		return nil
	}
	reported := make([]ratelimit.Reported, len(c.limits))
	for i, l := range c.limits {
		reported[i] = ratelimit.Reported{Name: l.Name, Rate: c.requests[i].Rate, Result: c.results[i]}
	}
	w.Header()["Ratelimit-Policy"] = []string{ratelimit.PolicyHeader(reported)}
	w.Header()["Ratelimit"] = []string{ratelimit.LimitHeader(reported)}
	denial.RetryAfter(w.Header(), retry)
	return &denial.Refusal{
		Code:     denial.RateLimited,
		Reason:   "limit." + violated[0],
		Detail:   message,
		Violated: violated,
	}
}

// Interface guards.
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
