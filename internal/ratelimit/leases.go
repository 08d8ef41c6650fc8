package ratelimit

import (
	"context"
	"sync"
	"time"
)

const (
	// LeaseTime is how long units taken in advance may be spent. What is left is
	// dropped.
	LeaseTime = time.Second

	leaseShards = 64
	// leasesPerShard bounds the memory. A subject without room is counted exactly.
	leasesPerShard = 1024
)

// Leases is a Store that takes Request.Lease units of a busy subject in one call
// and spends them here, so that a very hot key is no longer one call a request.
// A subject is busy when it asked as often as its lease is large within LeaseTime.
//
// Units are taken before they are spent, so over a long time exactly the rate is
// granted. In any one interval each instance can spend what it took before it
// began: at most burst + rate × interval + instances × lease units are granted.
// Units that are not spent in time are lost to the caller, at most one lease per
// instance and LeaseTime.
type Leases struct {
	next Store
	now  func() time.Time

	shards [leaseShards]leaseShard
}

type leaseShard struct {
	mu      sync.Mutex
	entries map[[16]byte]*lease
}

type lease struct {
	rate      Rate
	units     int64     // left to spend
	until     time.Time // when they are dropped
	remaining int64     // in the store when they were taken
	full      time.Time
	degraded  bool  // taken without the shared store
	asked     int64 // requests since
	since     time.Time
	busy      bool // as of the LeaseTime before
	taking    bool // a call for the next lease is on its way
}

var _ Store = (*Leases)(nil)

// NewLeases returns a store in front of next. now is the clock; nil means
// time.Now.
func NewLeases(next Store, now func() time.Time) *Leases {
	if now == nil {
		now = time.Now
	}
	return &Leases{next: next, now: now}
}

// leaseStep is what becomes of one request of a call.
type leaseStep struct {
	key   [16]byte
	entry *lease // to tell it from one made after Forget; guarded by the shard
	spent bool   // from a lease: not asked for
	takes bool   // asks for a whole lease
}

// Take spends leases where there are any and asks for the rest.
func (l *Leases) Take(ctx context.Context, reqs []Request, dst []Result) ([]Result, error) {
	if !anyLease(reqs) {
		return l.next.Take(ctx, reqs, dst)
	}
	if err := Check(reqs); err != nil {
		return nil, err
	}
	steps := make([]leaseStep, len(reqs))
	now := l.now()
	var asked []Request
	for i := range reqs {
		steps[i] = l.begin(&reqs[i], now)
		if steps[i].spent {
			continue
		}
		r := reqs[i]
		if steps[i].takes {
			r.Cost = r.Lease
		}
		asked = append(asked, r)
	}
	results, err := l.ask(ctx, reqs, steps, asked)
	charged := err == nil && (len(asked) == 0 || Charged(asked, results))
	l.end(reqs, steps, results, charged)
	if err != nil {
		return nil, err
	}
	return l.merge(reqs, steps, results, charged, dst), nil
}

func anyLease(reqs []Request) bool {
	for i := range reqs {
		if reqs[i].leases() {
			return true
		}
	}
	return false
}

func (r *Request) leases() bool {
	return r.Lease > 1 && r.stops() && r.Slots == 0 && !r.Tentative && r.Cost < r.Lease && r.Lease <= r.Rate.Capacity()
}

// begin spends units of a lease, or says whether the caller shall ask for one.
func (l *Leases) begin(r *Request, now time.Time) leaseStep {
	if !r.leases() {
		return leaseStep{}
	}
	step := leaseStep{key: KeyHash(r.Limit, r.Subject)}
	sh := l.shard(step.key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	e := sh.entry(step.key, now)
	if e == nil {
		return step
	}
	step.entry = e
	if e.rate != r.Rate {
		*e = lease{rate: r.Rate, since: now, taking: e.taking}
	}
	if idle := now.Sub(e.since); idle >= LeaseTime {
		// Who was busy until now need not show it again, call by call.
		e.busy = e.asked > r.Lease && idle < 2*LeaseTime
		e.asked, e.since = 0, now
	}
	e.asked++
	switch {
	case now.Before(e.until) && e.units >= r.Cost:
		e.units -= r.Cost
		step.spent = true
	case (e.busy || e.asked > r.Lease) && !e.taking:
		// What is left is too little for this cost. Kept, it could be spent in
		// addition to the whole lease that is on its way.
		e.units, e.taking = 0, true
		step.takes = true
	}
	return step
}

// ask asks the next store. When there is no room for a lease any more the
// requests are asked for as they are.
func (l *Leases) ask(ctx context.Context, reqs []Request, steps []leaseStep, asked []Request) ([]Result, error) {
	if len(asked) == 0 {
		return nil, nil
	}
	results, err := l.next.Take(ctx, asked, nil)
	if err != nil || Charged(asked, results) {
		return results, err
	}
	again, n := false, 0
	for i := range steps {
		if steps[i].spent {
			continue
		}
		if steps[i].takes && !results[n].Allowed {
			steps[i].takes, again = false, true
			asked[n].Cost = reqs[i].Cost
			l.abandon(steps[i])
		}
		n++
	}
	if !again {
		return results, nil
	}
	return l.next.Take(ctx, asked, nil)
}

// abandon says that nobody is on the way for a lease any more.
func (l *Leases) abandon(step leaseStep) {
	sh := l.shard(step.key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	step.entry.taking = false
	step.entry.refused(l.now())
}

// refused makes the subject show again that it is busy. Near the limit, where a
// lease hardly ever fits, every request would ask twice otherwise, and the two
// refusals of different cost would take each other's place in Denials.
func (e *lease) refused(now time.Time) { e.busy, e.asked, e.since = false, 0, now }

// end keeps the leases that were taken, and returns what was spent when the call
// was refused.
func (l *Leases) end(reqs []Request, steps []leaseStep, results []Result, charged bool) {
	now := l.now()
	for i := range steps {
		var result *Result
		if !steps[i].spent && len(results) > 0 {
			result, results = &results[0], results[1:]
		}
		if steps[i].entry == nil || steps[i].spent && charged {
			continue
		}
		sh := l.shard(steps[i].key)
		sh.mu.Lock()
		steps[i].entry.finish(&reqs[i], steps[i], result, charged, now)
		sh.mu.Unlock()
	}
}

// finish reports how the call went; result is nil when it failed or when nothing
// was asked. An entry that was forgotten meanwhile is changed to no effect.
func (e *lease) finish(r *Request, step leaseStep, result *Result, charged bool, now time.Time) {
	if result != nil && !result.Allowed {
		e.refused(now)
	}
	switch {
	case step.spent && !e.taking:
		// Never more than a lease: what came meanwhile is the newer one's. With
		// one on its way there is no room.
		e.units = min(e.units+r.Cost, max(e.units, r.Lease-r.Cost))
	case step.takes:
		e.taking = false
		if charged && e.rate == r.Rate {
			// Without the shared store too: the units were taken from this
			// instance's share and would be lost.
			e.units, e.until, e.degraded = r.Lease-r.Cost, now.Add(LeaseTime), result.Degraded
			e.remaining, e.full = result.Remaining, now.Add(result.ResetAfter)
		}
	}
}

// merge puts the results of what was spent here between those of the next store.
func (l *Leases) merge(reqs []Request, steps []leaseStep, results []Result, charged bool, dst []Result) []Result {
	dst = dst[:0]
	now := l.now()
	for i := range reqs {
		if !steps[i].spent {
			r := results[0]
			results = results[1:]
			if steps[i].takes && charged {
				r.Remaining += reqs[i].Lease - reqs[i].Cost
			}
			dst = append(dst, r)
			continue
		}
		dst = append(dst, l.spent(steps[i].key, now))
	}
	return dst
}

// spent is the result of units taken from a lease. What the store holds may have
// changed since it was asked.
func (l *Leases) spent(key [16]byte, now time.Time) Result {
	sh := l.shard(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	r := Result{Allowed: true}
	if e := sh.entries[key]; e != nil {
		r.Remaining, r.ResetAfter = e.remaining+e.units, max(0, e.full.Sub(now))
		r.Degraded = e.degraded
	}
	return r
}

func (l *Leases) shard(key [16]byte) *leaseShard { return &l.shards[int(key[0])%leaseShards] }

// entry returns the subject's entry, making one if there is room.
func (sh *leaseShard) entry(key [16]byte, now time.Time) *lease {
	if e := sh.entries[key]; e != nil {
		return e
	}
	if sh.entries == nil {
		sh.entries = make(map[[16]byte]*lease)
	}
	if len(sh.entries) >= leasesPerShard && !sh.sweep(now) {
		return nil
	}
	e := &lease{since: now}
	sh.entries[key] = e
	return e
}

// sweep drops an entry that is not in use, if it finds one among a few.
func (sh *leaseShard) sweep(now time.Time) bool {
	looked := 0
	for key, e := range sh.entries {
		if !e.taking && !now.Before(e.until) && now.Sub(e.since) >= LeaseTime {
			delete(sh.entries, key)
			return true
		}
		if looked++; looked == 16 {
			return false
		}
	}
	return false
}

// Forget drops the leases of the buckets (see KeyHash), or all for nil.
func (l *Leases) Forget(keys [][16]byte) {
	if keys == nil {
		for i := range l.shards {
			l.shards[i].mu.Lock()
			clear(l.shards[i].entries)
			l.shards[i].mu.Unlock()
		}
		return
	}
	for _, key := range keys {
		sh := l.shard(key)
		sh.mu.Lock()
		delete(sh.entries, key)
		sh.mu.Unlock()
	}
}

// Give passes on: what was spent from a lease was taken from the store before.
func (l *Leases) Give(ctx context.Context, reqs []Request) error { return l.next.Give(ctx, reqs) }

// Debit passes on.
func (l *Leases) Debit(ctx context.Context, reqs []Request) error { return l.next.Debit(ctx, reqs) }

// Reset passes on and drops the leases, whose units the bucket has again.
func (l *Leases) Reset(ctx context.Context, reqs []Request) error {
	err := l.next.Reset(ctx, reqs)
	for i := range reqs {
		l.Forget([][16]byte{KeyHash(reqs[i].Limit, reqs[i].Subject)})
	}
	return err
}
