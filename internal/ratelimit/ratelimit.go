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

// Request asks for units of one bucket.
type Request struct {
	// Name of the limit, part of the bucket's key. Required, at most MaxName bytes.
	Limit string
	// Whom the limit counts: an address, a user, a constant for a limit over
	// everybody. Required, because a key that could not be computed must not
	// make strangers share one bucket. Stores keep its hash only.
	Subject string
	// Rate of the bucket.
	Rate Rate
	// Units to take or give. Zero looks and takes nothing: such a request never
	// stops the others of its call, and its Result says whether one unit would fit.
	Cost int64
	// For Give only: how long ago the units were taken. Units that are older
	// than the time in which an empty bucket fills have come back by themselves
	// and are not given a second time; otherwise requests held open for long
	// could save up more than one burst.
	Age time.Duration
}

// Result tells about one bucket. The zero Result refuses.
type Result struct {
	// Whether the bucket had room for the cost. Units were taken only when all
	// results of the call allow; see AllAllowed.
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
}

// Store keeps buckets. Implementations are safe for concurrent use, never
// outlive their stated time budget, and do not abandon a call because ctx was
// canceled: a client that hangs up must not decide whether it was counted.
type Store interface {
	// Take charges all requests or none and returns one Result per request, in
	// order. The results overwrite dst when its capacity suffices; dst may be
	// nil. After an error nothing can be said about what was charged.
	Take(ctx context.Context, reqs []Request, dst []Result) ([]Result, error)
	// Give returns units taken by an earlier Take, for example a reserved unit
	// whose answer was not counted. A bucket never grows beyond its burst.
	Give(ctx context.Context, reqs []Request) error
	// Reset forgets the buckets: they are full again. Rate and Cost are ignored.
	Reset(ctx context.Context, reqs []Request) error
}

// Learner is implemented by local stores that can be told what the shared
// store answered, so that an outage does not begin with full buckets.
type Learner interface {
	// Learn raises each bucket to at least the level its result shows. It never
	// lowers one.
	Learn(reqs []Request, results []Result)
}

// AllAllowed reports whether the call that gave results was charged. It is
// false for no results at all, so that an error overlooked refuses.
func AllAllowed(results []Result) bool {
	for i := range results {
		if !results[i].Allowed {
			return false
		}
	}
	return len(results) > 0
}

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
		r.Cost >= 0 && r.Cost <= maxCost && r.Age >= 0 && r.Rate.valid()
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
		if err := r.Rate.Validate(); err != nil {
			place("%w", err)
		}
		if repeated(reqs[:i], r) {
			place("named twice for one subject in one call")
		}
	}
	return errors.Join(errs...)
}
