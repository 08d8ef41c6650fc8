// Package ratelimit decides whether a caller may go on, how much is left and
// how long to wait. It knows rates, buckets and what happens when the shared
// store is away; it knows nothing of HTTP requests, Redis or configuration
// files, and it never logs.
//
// A limit is a token bucket held as one integer, the theoretical arrival time
// of the generic cell rate algorithm (GCRA, ITU-T I.371). A bucket admits at
// most Burst units at once and N more in every Window, so any interval of one
// Window sees at most Burst + N units.
package ratelimit

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// MaxRequests is the largest number of requests one call may carry. A site has
// a handful of limits; the bound keeps locks and scripts short.
const MaxRequests = 32

// MaxName is the longest limit name in bytes. Names come from configuration, may
// carry a site's, and stand in store keys in clear.
const MaxName = 1024

// maxCost bounds the units of one request far above every sensible burst.
const maxCost = int64(1) << 40

var (
	// ErrInvalid marks requests no store would ever accept. It is a mistake of
	// the caller, so it neither opens a circuit breaker nor meets a policy.
	ErrInvalid = errors.New("ratelimit: invalid request")

	// ErrUnavailable says that the shared store could not be asked and that the
	// policy is Closed. The request must be refused.
	ErrUnavailable = errors.New("ratelimit: store unavailable")
)

// MaxSlots is the largest number of places of a concurrency limit.
const MaxSlots = 1_000_000

// Request asks for units of one bucket, or with Slots for one place among those
// that may be in use at once.
type Request struct {
	// Name of the limit, part of the bucket's key. Required, at most MaxName bytes.
	Limit string
	// Whom the limit counts: an address, a user, a constant for a limit over
	// everybody. Required, because a key that could not be computed must not
	// make strangers share one bucket. Stores keep its hash only.
	Subject string
	// Rate of the bucket. Ignored beside Slots.
	Rate Rate
	// Units to take or give; beside Slots at most 1. Zero looks and takes nothing:
	// such a request never stops the others of its call, and its Result says
	// whether one unit would fit.
	Cost int64
	// For Give only: how long ago the units were taken. Units that are older
	// than the time in which an empty bucket fills have come back by themselves
	// and are not given a second time; otherwise requests held open for long
	// could save up more than one burst.
	Age time.Duration
	// For Give only: the ResetAfter of the Take that took the units. What of them
	// has come back by itself since is not given a second time. Default: 0, not
	// known, and all units are given.
	Level time.Duration
	// For Give and Debit only: whether the units were taken without the shared
	// store, which then has nothing to do with them.
	Degraded bool

	// Slots makes it a concurrency limit of that many places. Default: 0, a rate.
	Slots int64
	// Who holds the place; Give returns it by this name. Unique to one Take; see
	// NewHolder. Required beside Slots when Cost is 1.
	Holder string

	// Shadow says that the request stops no other one of its call. It is charged
	// when the others are and it fits.
	Shadow bool
	// Tentative says that the units may come back by Give, so that a refusal can
	// be over before its RetryAfter.
	Tentative bool
	// Lease is how many units an instance may take in advance for a busy subject.
	// Default: 0, none. See Leases for what that costs in exactness.
	Lease int64
	// Fallback says what holds while the shared store is away.
	Fallback Fallback
}

// Fallback is what a limit does while the shared store cannot be asked. The zero
// Fallback counts locally at the whole rate.
type Fallback struct {
	// OnError is the policy. Default: Local.
	OnError OnError
	// Instances that share the store: with Local each grants the rate divided by
	// it, and at least one unit. Default: 1.
	Instances int
}

// Result tells about one bucket. The zero Result refuses.
type Result struct {
	// Whether the bucket had room for the cost. Units were taken only when all
	// results of the call allow; see Charged.
	Allowed bool
	// Units that could be taken right now, after this call.
	Remaining int64
	// Time until the cost fits. Zero when allowed. For a cost above the
	// capacity, which never fits, the time an empty bucket takes to fill.
	RetryAfter time.Duration
	// Time until the bucket is full again.
	ResetAfter time.Duration
	// Whether the answer was given without the shared store.
	Degraded bool
	// Whether the shared store was away and the policy is Closed. Only a shadow
	// request gets this as a result; for others the call fails with ErrUnavailable.
	Unavailable bool
}

// Store keeps buckets. Implementations are safe for concurrent use, never
// outlive their stated time budget, and do not abandon a call because ctx was
// canceled: a client that hangs up must not decide whether it was counted.
type Store interface {
	// Take charges all requests or none, shadows aside, and returns one Result per
	// request, in order. The results overwrite dst when its capacity suffices; dst may be
	// nil. After an error nothing can be said about what was charged.
	Take(ctx context.Context, reqs []Request, dst []Result) ([]Result, error)
	// Give returns units taken by an earlier Take, for example a reserved unit
	// whose answer was not counted, or a place. A bucket never grows beyond its
	// burst.
	Give(ctx context.Context, reqs []Request) error
	// Debit takes units that an answer turned out to cost. Nobody can be refused
	// any more, so what does not fit empties the bucket and no more.
	Debit(ctx context.Context, reqs []Request) error
	// Reset forgets the buckets: they are full again. Rate and Cost are ignored.
	Reset(ctx context.Context, reqs []Request) error
}

// Releaser is implemented by shared stores that keep places from expiring while
// they are held.
type Releaser interface {
	// Release says that places are no longer held, also when the store cannot be
	// asked to give them back.
	Release(reqs []Request)
}

// Learner is implemented by local stores that can be told what the shared
// store answered, so that an outage does not begin with full buckets.
type Learner interface {
	// Learn raises each bucket to at least the level its result shows. It never
	// lowers one.
	Learn(reqs []Request, results []Result)
}

// Charged reports whether the call for reqs that gave results was charged. It is
// false for no results at all, so that an error overlooked refuses.
func Charged(reqs []Request, results []Result) bool {
	if len(results) == 0 || len(reqs) != len(results) {
		return false
	}
	for i := range results {
		if !results[i].Allowed && reqs[i].stops() {
			return false
		}
	}
	return true
}

// stops reports whether a refusal of the request refuses the whole call.
func (r *Request) stops() bool { return r.Cost > 0 && !r.Shadow }

// KeyHash identifies the bucket of a limit and a subject. It is the first half
// of a SHA-256 over both, length first, and the same in every process and release.
func KeyHash(limit, subject string) [16]byte {
	var stack [512]byte
	buf := binary.BigEndian.AppendUint32(stack[:0], uint32(len(limit))) //nolint:gosec // Names are short.
	buf = append(buf, limit...)
	buf = append(buf, subject...)
	sum := sha256.Sum256(buf)
	return [16]byte(sum[:16])
}

// Check reports whether requests can be answered at all, wrapping ErrInvalid
// with every problem found. Stores call it first. Errors never show a subject.
func Check(reqs []Request) error {
	if len(reqs) > MaxRequests {
		return fmt.Errorf("%w: %d requests in one call: at most %d", ErrInvalid, len(reqs), MaxRequests)
	}
	for i := range reqs {
		if !reqs[i].valid() || repeated(reqs[:i], &reqs[i]) {
			return explain(reqs)
		}
	}
	return nil
}

func (r *Request) valid() bool {
	return r.Limit != "" && len(r.Limit) <= MaxName && r.Subject != "" &&
		r.Cost >= 0 && r.Cost <= maxCost && r.Age >= 0 && r.Lease >= 0 &&
		int(r.Fallback.OnError) < len(policies) && r.Fallback.Instances >= 0 && r.Fallback.Instances <= MaxInstances &&
		(r.Slots == 0 && r.Rate.valid() || r.validPlace())
}

func (r *Request) validPlace() bool {
	return r.Slots > 0 && r.Slots <= MaxSlots && r.Cost <= 1 && (r.Cost == 0 || r.Holder != "")
}

// repeated guards the promise of all or none: one bucket named twice in a call
// would be read once and charged once.
func repeated(earlier []Request, r *Request) bool {
	for i := range earlier {
		if earlier[i].Limit == r.Limit && earlier[i].Subject == r.Subject {
			return true
		}
	}
	return false
}

func explain(reqs []Request) error {
	errs := []error{ErrInvalid}
	for i := range reqs {
		r := &reqs[i]
		place := func(format string, args ...any) {
			errs = append(errs, fmt.Errorf("limit %.128q: "+format, append([]any{r.Limit}, args...)...))
		}
		if r.Limit == "" || len(r.Limit) > MaxName {
			place("name of %d bytes: must have 1 to %d", len(r.Limit), MaxName)
		}
		if r.Subject == "" {
			place("subject empty: a limit counts somebody")
		}
		if r.Cost < 0 || r.Cost > maxCost {
			place("cost %d: must be between 0 and %d", r.Cost, maxCost)
		}
		if r.Age < 0 {
			place("age %s: must not be negative", r.Age)
		}
		if r.Lease < 0 {
			place("lease %d: must not be negative", r.Lease)
		}
		if int(r.Fallback.OnError) >= len(policies) {
			place("policy %d: unknown", r.Fallback.OnError)
		}
		if r.Fallback.Instances < 0 || r.Fallback.Instances > MaxInstances {
			place("instances %d: must be between 1 and %d", r.Fallback.Instances, MaxInstances)
		}
		if err := r.Rate.Validate(); err != nil && r.Slots == 0 {
			place("%w", err)
		}
		if r.Slots != 0 && !r.validPlace() {
			place("%d places: must be between 1 and %d, asked for one at a time by a named holder", r.Slots, MaxSlots)
		}
		if repeated(reqs[:i], r) {
			place("named twice for one subject in one call")
		}
	}
	return errors.Join(errs...)
}
