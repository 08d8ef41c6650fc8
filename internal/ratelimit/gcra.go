package ratelimit

import (
	"math"
	"time"
)

// invalidWait is how long callers are told to wait when a rate is invalid.
const invalidWait = time.Second

// Decide is the whole algorithm for one bucket, without a clock or a store.
//
// A bucket is its theoretical arrival time tat, the moment at which it will be
// full again; now and tat are microseconds since any one epoch, not negative
// and below 2^52. A tat in the past is a full bucket. A tat further ahead than
// the bucket takes to fill is cut to that, so that a clock that stepped back or
// a limit that shrank locks nobody out for longer than the limit can.
//
// Decide returns the new arrival time; when the cost does not fit or is zero,
// that is the old one after the cut. An invalid rate and a negative cost refuse.
func Decide(now, tat int64, rate Rate, cost int64) (int64, Result) {
	if !rate.valid() || cost < 0 {
		return tat, Result{RetryAfter: invalidWait}
	}
	unit, span := rate.UnitMicros(), rate.SpanMicros()
	ahead := min(max(tat-now, 0), span)
	need, fits := max(cost, 1), (span-ahead)/unit
	switch {
	case need > rate.Capacity():
		return now + ahead, Result{Remaining: fits, RetryAfter: micros(span), ResetAfter: micros(ahead)}
	case need > fits:
		return now + ahead, Result{
			Remaining:  fits,
			RetryAfter: micros(ahead + need*unit - span),
			ResetAfter: micros(ahead),
		}
	}
	ahead += cost * unit
	return now + ahead, Result{Allowed: true, Remaining: fits - cost, ResetAfter: micros(ahead)}
}

// slotWait is how long callers are told to wait for a place: when one becomes
// free is not known.
const slotWait = time.Second

// occupy is the decision for a concurrency limit of which used places are taken.
func occupy(used, slots, cost int64) (int64, Result) {
	free := max(0, slots-used)
	if free < 1 {
		return used, Result{RetryAfter: slotWait}
	}
	return used + cost, Result{Allowed: true, Remaining: free - cost}
}

// decide is Decide or occupy. The state is an arrival time, or places in use.
func (r *Request) decide(now, state, cost int64) (int64, Result) {
	if r.Slots > 0 {
		return occupy(state, r.Slots, cost)
	}
	return Decide(now, state, r.Rate, cost)
}

// Settle decides the requests of one call together: all are charged or none,
// and a shadow in addition only if it fits. states holds the arrival time of
// each request's bucket, or its places in use, and when Settle reports true the
// new ones afterwards. The results overwrite dst.
func Settle(now int64, reqs []Request, states []int64, dst []Result) ([]Result, bool) {
	dst = dst[:0]
	charge := true
	for i := range reqs {
		_, r := reqs[i].decide(now, states[i], reqs[i].Cost)
		charge = charge && (r.Allowed || !reqs[i].stops())
		dst = append(dst, r)
	}
	for i := range reqs {
		if reqs[i].Cost == 0 || !dst[i].Allowed {
			continue
		}
		if charge {
			states[i], _ = reqs[i].decide(now, states[i], reqs[i].Cost)
		} else {
			dst[i] = reqs[i].uncharged(now, states[i])
		}
	}
	return dst, charge
}

// uncharged is the result of a request that had room and was not charged,
// because another one of its call was refused.
func (r *Request) uncharged(now, state int64) Result {
	_, result := r.decide(now, state, 0)
	result.Allowed, result.RetryAfter = true, 0
	return result
}

// Debited is the arrival time of a bucket after cost units were taken from it
// that may not have fitted: an empty bucket at worst.
func Debited(now, tat int64, rate Rate, cost int64) int64 {
	if !rate.valid() || cost < 0 {
		return tat
	}
	ahead := min(max(tat-now, 0), rate.SpanMicros())
	return now + min(ahead+min(cost, rate.Capacity())*rate.UnitMicros(), rate.SpanMicros())
}

// Refund is the arrival time of a bucket after r.Cost units were given back:
// never before now, which is a full bucket. Units that came back by themselves give
// nothing back; see Request.Age and Request.Level.
func Refund(now, tat int64, r Request) int64 {
	back := r.RefundMicros()
	if back == 0 {
		return tat
	}
	ahead := min(max(tat-now, 0), r.Rate.SpanMicros())
	return now + max(0, ahead-back)
}

// RefundMicros is by how many microseconds giving the request back moves its
// bucket's arrival time, at most.
func (r *Request) RefundMicros() int64 {
	if r.Slots > 0 || r.Cost <= 0 || !r.Rate.valid() || r.Age.Microseconds() >= r.Rate.SpanMicros() {
		return 0
	}
	back := min(r.Cost, r.Rate.Capacity()) * r.Rate.UnitMicros()
	if r.Level > 0 {
		// The bucket was Level away from full. By that much it filled since, and had
		// the units never been taken it would have been full the sooner.
		back = min(back, max(0, (r.Level-r.Age).Microseconds()))
	}
	return back
}

// Refundable reports whether giving the request back can change anything.
func (r *Request) Refundable() bool {
	return r.Slots > 0 && r.Cost > 0 || r.RefundMicros() > 0
}

// Rescale carries a bucket over to another rate. oldSpan is the time in which
// the bucket filled when tat was written, in microseconds. The part of the
// bucket that is used stays the same, so an exhausted caller stays exhausted
// when a limit is tightened or widened, and is refilled at the new pace.
//
// The division comes first and in floating point because stores in other
// languages have to reach the same integer.
func Rescale(now, tat, oldSpan int64, rate Rate) int64 {
	ahead := min(tat-now, oldSpan)
	if ahead <= 0 {
		return now
	}
	span := rate.SpanMicros()
	if span != oldSpan {
		ahead = int64(math.Ceil(float64(ahead) / float64(oldSpan) * float64(span)))
	}
	return now + min(ahead, span)
}

func micros(us int64) time.Duration { return time.Duration(us) * time.Microsecond }
