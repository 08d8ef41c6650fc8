package ratelimit

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxDenial is how long a refusal is repeated without asking again, so that a
	// flood on one key costs a call in that time and no more.
	maxDenial = 5 * time.Second
	// maxTentative is the same for units that may come back on another instance,
	// of which this one does not hear.
	maxTentative = time.Second

	denialShards = 64
	// denialsPerShard bounds the memory. A refusal forgotten costs a call.
	denialsPerShard = 1024
)

// Denials is a Store that repeats a refusal of the next one for as long as it
// holds: a bucket that has no room now has none before its own RetryAfter, since
// others can only take more from it. The exceptions are units that come back by
// Give, a Reset and a changed rate; refusals are kept by bucket and rate, dropped
// when this instance gives back or resets, and asked for again after five seconds
// at the latest, one second for Tentative requests. Reset by others is told by
// Forget.
//
// When a refusal is to be asked for again before it is over, one caller asks and
// the others keep it meanwhile. Concurrency limits, shadows and answers given
// without the shared store are not kept.
type Denials struct {
	next  Store
	now   func() time.Time
	count atomic.Int64 // entries, so that with none nothing is hashed
	// resets counts what Reset and Forget end, so that an answer from before is not kept.
	resets atomic.Uint64

	shards [denialShards]denialShard
}

type denialShard struct {
	mu      sync.Mutex
	entries map[[16]byte]denial
}

// denial is a refusal and what it was a refusal of.
type denial struct {
	rate      Rate
	cost      int64
	remaining int64
	over      time.Time // RetryAfter
	full      time.Time // ResetAfter
	ask       time.Time
}

var _ Store = (*Denials)(nil)

// NewDenials returns a store in front of next. now is the clock; nil means
// time.Now.
func NewDenials(next Store, now func() time.Time) *Denials {
	if now == nil {
		now = time.Now
	}
	return &Denials{next: next, now: now}
}

// Take refuses what is known to be refused and asks for the rest. A request
// beside a known refusal gets a result that allows and tells no more.
func (d *Denials) Take(ctx context.Context, reqs []Request, dst []Result) ([]Result, error) {
	if err := Check(reqs); err != nil {
		return nil, err
	}
	if results, known := d.recall(reqs, dst); known {
		return results, nil
	}
	// Both from before the call: the store decides no earlier, so a refusal that
	// took long to arrive is not kept past its RetryAfter.
	now, resets := d.now(), d.resets.Load()
	results, err := d.next.Take(ctx, reqs, dst)
	if err != nil {
		return nil, err
	}
	for i := range results {
		d.learn(&reqs[i], &results[i], now, resets)
	}
	return results, nil
}

func (r *Request) keepsDenial() bool { return r.stops() && r.Slots == 0 }

// recall returns the results of a call that is known to be refused.
func (d *Denials) recall(reqs []Request, dst []Result) ([]Result, bool) {
	if d.count.Load() == 0 {
		return nil, false
	}
	now := d.now()
	dst, known, due := d.lookupAll(reqs, dst, now, false)
	if due && !known {
		// Only now: a call that another refusal stops asks nobody, and must not
		// put off the asking.
		dst, known, _ = d.lookupAll(reqs, dst, now, true)
	}
	return dst, known
}

// lookupAll looks every request up. due reports a refusal that is to be asked for
// again; with claim this caller asks.
func (d *Denials) lookupAll(reqs []Request, dst []Result, now time.Time, claim bool) (_ []Result, known, due bool) {
	dst = dst[:0]
	for i := range reqs {
		r := Result{Allowed: true}
		if reqs[i].keepsDenial() {
			kept, state := d.lookup(&reqs[i], now, claim)
			if state == denialKnown {
				r, known = kept, true
			}
			due = due || state == denialDue
		}
		dst = append(dst, r)
	}
	return dst, known, due
}

// denialState is what is known of a request.
type denialState uint8

const (
	denialUnknown denialState = iota
	denialKnown
	denialDue
)

func (d *Denials) lookup(r *Request, now time.Time, claim bool) (Result, denialState) {
	key := KeyHash(r.Limit, r.Subject)
	sh := d.shard(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	e, found := sh.entries[key]
	if !found {
		return Result{}, denialUnknown
	}
	switch {
	case !now.Before(e.over):
		delete(sh.entries, key)
		d.count.Add(-1)
		return Result{}, denialUnknown
	case e.rate != r.Rate || e.cost != r.Cost:
		return Result{}, denialUnknown
	case !now.Before(e.ask):
		if claim {
			// This caller asks; whoever comes meanwhile keeps the refusal.
			e.ask = now.Add(r.denialTime())
			sh.entries[key] = e
		}
		return Result{}, denialDue
	}
	return Result{Remaining: e.remaining, RetryAfter: e.over.Sub(now), ResetAfter: max(0, e.full.Sub(now))}, denialKnown
}

func (r *Request) denialTime() time.Duration {
	if r.Tentative {
		return maxTentative
	}
	return maxDenial
}

// learn keeps a refusal. What allows again ends the one that was kept.
func (d *Denials) learn(r *Request, result *Result, asked time.Time, resets uint64) {
	if result.Allowed {
		d.forget(r)
		return
	}
	if !r.keepsDenial() || result.Degraded || result.RetryAfter <= 0 {
		return
	}
	key := KeyHash(r.Limit, r.Subject)
	sh := d.shard(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if d.resets.Load() != resets {
		return
	}
	if sh.entries == nil {
		sh.entries = make(map[[16]byte]denial)
	}
	if _, found := sh.entries[key]; !found {
		if len(sh.entries) >= denialsPerShard {
			d.evict(sh)
		}
		d.count.Add(1)
	}
	sh.entries[key] = denial{
		rate: r.Rate, cost: r.Cost, remaining: result.Remaining,
		over: asked.Add(result.RetryAfter), full: asked.Add(result.ResetAfter), ask: asked.Add(r.denialTime()),
	}
}

// evict makes room for one entry. Which goes does not matter.
func (d *Denials) evict(sh *denialShard) {
	for key := range sh.entries {
		delete(sh.entries, key)
		d.count.Add(-1)
		return
	}
}

func (d *Denials) shard(key [16]byte) *denialShard { return &d.shards[int(key[0])%denialShards] }

func (d *Denials) forget(r *Request) {
	if d.count.Load() > 0 {
		d.drop(KeyHash(r.Limit, r.Subject))
	}
}

// Forget drops the refusals of the buckets (see KeyHash), or all for nil.
func (d *Denials) Forget(keys [][16]byte) {
	// Before the dropping, so that an answer on its way is either dropped or not kept.
	d.resets.Add(1)
	if keys == nil {
		for i := range d.shards {
			sh := &d.shards[i]
			sh.mu.Lock()
			d.count.Add(-int64(len(sh.entries)))
			clear(sh.entries)
			sh.mu.Unlock()
		}
		return
	}
	for _, key := range keys {
		d.drop(key)
	}
}

func (d *Denials) drop(key [16]byte) {
	sh := d.shard(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if _, found := sh.entries[key]; found {
		delete(sh.entries, key)
		d.count.Add(-1)
	}
}

// Give passes the units on and forgets refusals that this ends.
func (d *Denials) Give(ctx context.Context, reqs []Request) error {
	err := d.next.Give(ctx, reqs)
	d.forgetAll(reqs)
	return err
}

// Debit passes on.
func (d *Denials) Debit(ctx context.Context, reqs []Request) error { return d.next.Debit(ctx, reqs) }

// Reset passes on and forgets the refusals.
func (d *Denials) Reset(ctx context.Context, reqs []Request) error {
	err := d.next.Reset(ctx, reqs)
	d.resets.Add(1)
	d.forgetAll(reqs)
	return err
}

func (d *Denials) forgetAll(reqs []Request) {
	for i := range reqs {
		d.forget(&reqs[i])
	}
}
