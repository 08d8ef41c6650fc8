package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// OnError says what a limit does while the shared store cannot be asked.
type OnError uint8

const (
	// Local counts in this instance alone, at the rate divided by the number
	// of instances. It is the default.
	Local OnError = iota
	// Open lets everybody pass. It weakens the limit for as long as the store
	// is away.
	Open
	// Closed refuses with ErrUnavailable.
	Closed
)

var policies = [...]string{Local: "local", Open: "open", Closed: "closed"}

// ParseOnError reads "local", "open" or "closed".
func ParseOnError(s string) (OnError, error) {
	for i, name := range policies {
		if s == name {
			return OnError(i), nil //nolint:gosec // Three entries.
		}
	}
	return Closed, fmt.Errorf("on_error %.32q: must be one of %s", s, strings.Join(policies[:], ", "))
}

// String is the word ParseOnError reads.
func (p OnError) String() string {
	if int(p) < len(policies) {
		return policies[p]
	}
	return fmt.Sprintf("OnError(%d)", uint8(p))
}

// MaxInstances is the largest number of instances a limit can be divided by.
const MaxInstances = 100_000

// GuardedConfig configures a Guarded.
type GuardedConfig struct {
	// The shared store. Required.
	Remote Store
	// The store of this instance, for requests whose policy is Local. Required.
	// When it is a Learner it is told what Remote answers, so that callers near
	// their limit get no fresh burst from an outage. It must not be the local
	// store of limits that never were in Remote.
	Local Store
	// Breaker of Remote, to share between several Guarded. Default: one of its
	// own, made from Now and OnChange.
	Breaker *Breaker
	// Clock of the own breaker; see BreakerConfig. Must be nil beside Breaker.
	Now func() time.Time
	// Told of degraded mode by the own breaker; see BreakerConfig. Must be nil
	// beside Breaker.
	OnChange func(degraded bool)
}

// Guarded is a Store that asks a remote store and follows each request's
// Fallback while that one fails. Results given without the remote store are
// marked Degraded.
type Guarded struct {
	remote  Store
	local   Store
	learner Learner
	breaker *Breaker
}

var _ Store = (*Guarded)(nil)

// NewGuarded reports every mistake in cfg at once.
func NewGuarded(cfg GuardedConfig) (*Guarded, error) {
	var errs []error
	if cfg.Remote == nil {
		errs = append(errs, errors.New("ratelimit: remote store missing: is required"))
	}
	if cfg.Local == nil {
		errs = append(errs, errors.New("ratelimit: local store missing: is required"))
	}
	if cfg.Breaker != nil && (cfg.Now != nil || cfg.OnChange != nil) {
		errs = append(errs, errors.New("ratelimit: now or on change beside a shared breaker: belong to the breaker"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	g := &Guarded{remote: cfg.Remote, local: cfg.Local, breaker: cfg.Breaker}
	if g.breaker == nil {
		g.breaker = NewBreaker(BreakerConfig{Now: cfg.Now, OnChange: cfg.OnChange})
	}
	g.learner, _ = cfg.Local.(Learner)
	return g, nil
}

// Degraded reports whether the remote store is not being asked at the moment.
func (g *Guarded) Degraded() bool { return g.breaker.Degraded() }

// Take asks the remote store, or follows the policies. When one of them is
// Closed and no shadow's, the error wraps ErrUnavailable.
func (g *Guarded) Take(ctx context.Context, reqs []Request, dst []Result) ([]Result, error) {
	if err := Check(reqs); err != nil {
		return nil, err
	}
	var results []Result
	asked, err := g.ask(ctx, func() (wrote bool, err error) {
		results, err = g.remote.Take(ctx, reqs, dst)
		if err == nil && len(results) != len(reqs) {
			err = fmt.Errorf("ratelimit: %d results for %d requests", len(results), len(reqs))
		}
		return err == nil && wroteUnits(reqs, results), err
	})
	if !asked || err != nil {
		return g.takeDegraded(ctx, reqs, dst, err)
	}
	if g.learner != nil && anyLocal(reqs) {
		g.learner.Learn(reqs, results)
	}
	return results, nil
}

// wroteUnits reports whether a call took something. One that took nothing says
// little of the store: out of memory or read-only it answers refusals as before.
func wroteUnits(reqs []Request, results []Result) bool {
	if !Charged(reqs, results) {
		return false
	}
	for i := range reqs {
		if reqs[i].Cost > 0 && results[i].Allowed {
			return true
		}
	}
	return false
}

// ask calls the remote store unless the breaker is open, and tells the breaker
// how it went. Only a call that wrote shows that the store works. One that failed
// because the client is gone says nothing about it: clients must not be able to
// open the breaker.
func (g *Guarded) ask(ctx context.Context, call func() (wrote bool, err error)) (asked bool, err error) {
	probe, ok := g.breaker.enter()
	if !ok {
		return false, nil
	}
	wrote, err := call()
	switch {
	case err == nil && wrote:
		g.breaker.succeeded(probe)
	case err == nil:
	case errors.Is(err, ErrInvalid):
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
	default:
		g.breaker.failed()
	}
	return true, err
}

func (g *Guarded) takeDegraded(ctx context.Context, reqs []Request, dst []Result, cause error) ([]Result, error) {
	local := make([]Request, 0, len(reqs))
	for i := range reqs {
		switch reqs[i].Fallback.OnError {
		case Local:
			local = append(local, reqs[i].share())
		case Open:
		default:
			if !reqs[i].Shadow {
				return nil, unavailable(cause)
			}
		}
	}
	counted, err := g.count(ctx, local)
	if err != nil {
		return nil, unavailable(errors.Join(cause, err))
	}
	dst = dst[:0]
	for i := range reqs {
		var r Result
		switch reqs[i].Fallback.OnError {
		case Local:
			r, counted = counted[0], counted[1:]
		case Open:
			r = reqs[i].pass()
		default:
			r.Unavailable = true
		}
		r.Degraded = true
		dst = append(dst, r)
	}
	return dst, nil
}

// count charges the local store.
func (g *Guarded) count(ctx context.Context, reqs []Request) ([]Result, error) {
	if len(reqs) == 0 {
		return nil, nil
	}
	results, err := g.local.Take(ctx, reqs, nil)
	if err == nil && len(results) != len(reqs) {
		err = fmt.Errorf("ratelimit: %d local results for %d requests", len(results), len(reqs))
	}
	return results, err
}

// pass is the result of a request that nothing limits.
func (r *Request) pass() Result {
	left := r.Slots
	if left == 0 {
		left = r.Rate.Capacity()
	}
	return Result{Allowed: true, Remaining: max(0, left-r.Cost)}
}

func unavailable(cause error) error {
	if cause == nil {
		return ErrUnavailable
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, cause)
}

func anyLocal(reqs []Request) bool {
	for i := range reqs {
		if reqs[i].Fallback.OnError == Local {
			return true
		}
	}
	return false
}

// share is the request at what this instance may grant alone.
func (r Request) share() Request {
	n := r.Fallback.Instances
	if n <= 1 {
		return r
	}
	if r.Slots > 0 {
		r.Slots = max(1, r.Slots/int64(n))
		return r
	}
	r.Rate = r.Rate.Share(n)
	return r
}

// Give returns units to the remote store and, with the policy Local, to the
// local one. It is best effort: a unit that cannot be given back comes back with
// time, so only invalid requests and a failing local store are an error.
func (g *Guarded) Give(ctx context.Context, reqs []Request) error {
	if releaser, ok := g.remote.(Releaser); ok {
		releaser.Release(reqs)
	}
	return g.after(ctx, reqs, g.remote.Give, g.local.Give)
}

// Debit takes units from the remote store and, with the policy Local, from the
// local one. It is best effort like Give.
func (g *Guarded) Debit(ctx context.Context, reqs []Request) error {
	return g.after(ctx, reqs, g.remote.Debit, g.local.Debit)
}

func (g *Guarded) after(ctx context.Context, reqs []Request, remote, local func(context.Context, []Request) error) error {
	if err := Check(reqs); err != nil {
		return err
	}
	shared, counted := make([]Request, 0, len(reqs)), make([]Request, 0, len(reqs))
	for _, r := range reqs {
		if !r.Degraded {
			shared = append(shared, r)
		}
		switch {
		case r.Fallback.OnError != Local:
		case r.Degraded:
			counted = append(counted, r.share()) // Taken from this instance's share.
		case g.learner != nil:
			counted = append(counted, r)
		}
	}
	if len(shared) > 0 {
		_, _ = g.ask(ctx, func() (bool, error) { return false, remote(ctx, shared) })
	}
	if len(counted) == 0 {
		return nil
	}
	if err := local(ctx, counted); err != nil {
		return unavailable(err)
	}
	return nil
}

// Reset forgets the buckets in both stores. When the remote one could not be
// told, the error wraps ErrUnavailable: somebody asked for this and must know.
func (g *Guarded) Reset(ctx context.Context, reqs []Request) error {
	if err := Check(reqs); err != nil {
		return err
	}
	errLocal := g.local.Reset(ctx, reqs)
	asked, err := g.ask(ctx, func() (bool, error) { return false, g.remote.Reset(ctx, reqs) })
	if !asked || err != nil || errLocal != nil {
		return unavailable(errors.Join(err, errLocal))
	}
	return nil
}
