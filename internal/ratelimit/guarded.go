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
	// The store of this instance. Required for the policy Local. When it is a
	// Learner it is told what Remote answers, so that callers near their limit
	// get no fresh burst from an outage. It must not be the local store of
	// limits that never were in Remote.
	Local Store
	// What to do while Remote fails. Default: Local.
	Policy OnError
	// Number of instances that share Remote. With the policy Local each grants
	// the rate divided by it, and at least one unit. Default: 1.
	Instances int
	// Breaker of Remote, to share between several Guarded. Default: one of its
	// own, made from Now and OnChange.
	Breaker *Breaker
	// Clock of the own breaker; see BreakerConfig. Must be nil beside Breaker.
	Now func() time.Time
	// Told of degraded mode by the own breaker; see BreakerConfig. Must be nil
	// beside Breaker.
	OnChange func(degraded bool)
}

// Guarded is a Store that asks a remote store and follows a policy while that
// one fails. Results given without the remote store are marked Degraded.
type Guarded struct {
	remote    Store
	local     Store
	learner   Learner
	breaker   *Breaker
	policy    OnError
	instances int
}

var _ Store = (*Guarded)(nil)

// NewGuarded reports every mistake in cfg at once.
func NewGuarded(cfg GuardedConfig) (*Guarded, error) {
	var errs []error
	if cfg.Remote == nil {
		errs = append(errs, errors.New("ratelimit: remote store missing: is required"))
	}
	if cfg.Local == nil && cfg.Policy == Local {
		errs = append(errs, errors.New("ratelimit: local store missing: the policy local requires one"))
	}
	if int(cfg.Policy) >= len(policies) {
		errs = append(errs, fmt.Errorf("ratelimit: policy %d: unknown", cfg.Policy))
	}
	if cfg.Instances < 0 || cfg.Instances > MaxInstances {
		errs = append(errs, fmt.Errorf("ratelimit: instances %d: must be between 1 and %d", cfg.Instances, MaxInstances))
	}
	if cfg.Breaker != nil && (cfg.Now != nil || cfg.OnChange != nil) {
		errs = append(errs, errors.New("ratelimit: now or on change beside a shared breaker: belong to the breaker"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	g := &Guarded{
		remote: cfg.Remote, local: cfg.Local, breaker: cfg.Breaker,
		policy: cfg.Policy, instances: max(1, cfg.Instances),
	}
	if g.breaker == nil {
		g.breaker = NewBreaker(BreakerConfig{Now: cfg.Now, OnChange: cfg.OnChange})
	}
	if g.policy == Local {
		g.learner, _ = cfg.Local.(Learner)
	}
	return g, nil
}

// Degraded reports whether the remote store is not being asked at the moment.
func (g *Guarded) Degraded() bool { return g.breaker.Degraded() }

// Take asks the remote store, or follows the policy. With the policy Closed
// the error wraps ErrUnavailable.
func (g *Guarded) Take(ctx context.Context, reqs []Request, dst []Result) ([]Result, error) {
	if err := Check(reqs); err != nil {
		return nil, err
	}
	var results []Result
	asked, err := g.ask(ctx, func() (err error) {
		results, err = g.remote.Take(ctx, reqs, dst)
		if err == nil && len(results) != len(reqs) {
			err = fmt.Errorf("ratelimit: %d results for %d requests", len(results), len(reqs))
		}
		return err
	})
	if !asked || err != nil {
		return g.takeDegraded(ctx, reqs, dst, err)
	}
	if g.learner != nil {
		g.learner.Learn(reqs, results)
	}
	return results, nil
}

// ask calls the remote store unless the breaker is open, and tells the breaker
// how it went. A call that failed because the client is gone says nothing about
// the store: clients must not be able to open the breaker.
func (g *Guarded) ask(ctx context.Context, call func() error) (asked bool, err error) {
	probe, ok := g.breaker.enter()
	if !ok {
		return false, nil
	}
	err = call()
	switch {
	case err == nil:
		g.breaker.succeeded(probe)
	case errors.Is(err, ErrInvalid):
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
	default:
		g.breaker.failed()
	}
	return true, err
}

func (g *Guarded) takeDegraded(ctx context.Context, reqs []Request, dst []Result, cause error) ([]Result, error) {
	switch g.policy {
	case Open:
		return letPass(reqs, dst), nil
	case Local:
		results, err := g.local.Take(ctx, g.share(reqs), dst)
		if err != nil {
			return nil, unavailable(errors.Join(cause, err))
		}
		for i := range results {
			results[i].Degraded = true
		}
		return results, nil
	default:
		return nil, unavailable(cause)
	}
}

func letPass(reqs []Request, dst []Result) []Result {
	dst = dst[:0]
	for i := range reqs {
		left := max(0, reqs[i].Rate.Capacity()-reqs[i].Cost)
		dst = append(dst, Result{Allowed: true, Remaining: left, Degraded: true})
	}
	return dst
}

func unavailable(cause error) error {
	if cause == nil {
		return ErrUnavailable
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, cause)
}

// share returns the requests at the rate this instance may grant alone.
func (g *Guarded) share(reqs []Request) []Request {
	if g.instances == 1 {
		return reqs
	}
	shared := make([]Request, len(reqs))
	for i, r := range reqs {
		r.Rate = r.Rate.Share(g.instances)
		shared[i] = r
	}
	return shared
}

// Give returns units to the remote store and, with the policy Local, to the
// local one. It is best effort: a unit that cannot be given back comes back with
// time, so only invalid requests and a failing local store are an error.
func (g *Guarded) Give(ctx context.Context, reqs []Request) error {
	if err := Check(reqs); err != nil {
		return err
	}
	asked, err := g.ask(ctx, func() error { return g.remote.Give(ctx, reqs) })
	if g.policy != Local {
		return nil
	}
	switch {
	case !asked || err != nil:
		// Taken, in all likelihood, from this instance's share.
		reqs = g.share(reqs)
	case g.learner == nil:
		return nil
	}
	if err := g.local.Give(ctx, reqs); err != nil {
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
	var errLocal error
	if g.policy == Local {
		errLocal = g.local.Reset(ctx, reqs)
	}
	asked, err := g.ask(ctx, func() error { return g.remote.Reset(ctx, reqs) })
	if !asked || err != nil || errLocal != nil {
		return unavailable(errors.Join(err, errLocal))
	}
	return nil
}
