package memory

import (
	"sync"

	"github.com/moat-gateway/moat/internal/ratelimit"
)

const (
	// reclaimScan bounds the work of one insertion into a crowded shard.
	reclaimScan = 64
	// maxOverflow bounds the shared buckets of a shard. Limits past it share
	// the last one among themselves.
	maxOverflow = 64
)

// bucket is an arrival time and the rate's span it was written for, both in
// microseconds.
type bucket struct{ tat, span int64 }

// slot is one bucket in a shard's slab.
type slot struct {
	bucket

	key  [16]byte
	next int32 // in the chain of the index: a slot's number and one; zero for none
	// In use by the call that holds the lock, which is about to write it.
	held bool
}

// shard is a part of the buckets behind one lock.
type shard struct {
	index

	mu         sync.Mutex
	slab       []slot
	limit      int
	hand       int // where the search for a slot to reuse goes on
	overflow   map[[16]byte]*bucket
	overflowed uint64
	places     map[[16]byte]map[string]struct{} // who holds a place; by limit and subject

	_ [64]byte // keeps neighbours off this shard's cache line
}

// ref says where the bucket of one request is.
type ref struct {
	shard  int
	key    [16]byte
	slot   int32   // -1: not in the slab
	shared *bucket // set when the slab had no room
}

// call is the state of one call: the shards it locked and its buckets.
type call struct {
	store  *Store
	reqs   []ratelimit.Request
	refs   [ratelimit.MaxRequests]ref
	shards [ratelimit.MaxRequests]int // locked, ascending, without repetition
	locked int
}

// lock locks the shards of all requests in ascending order, so that two calls
// never wait for each other.
func (c *call) lock(s *Store, reqs []ratelimit.Request) {
	c.store, c.reqs = s, reqs
	for i := range reqs {
		key := ratelimit.KeyHash(reqs[i].Limit, reqs[i].Subject)
		n := s.shardOf(key)
		c.refs[i] = ref{shard: n, key: key, slot: -1}
		c.insert(n)
	}
	for _, n := range c.shards[:c.locked] {
		s.shards[n].mu.Lock()
	}
}

// shardOf is the shard of a key.
func (s *Store) shardOf(key [16]byte) int {
	return int(hash(s.seed, key) & s.mask) //nolint:gosec // Masked.
}

func (c *call) insert(n int) {
	at := c.locked
	for at > 0 && c.shards[at-1] >= n {
		if c.shards[at-1] == n {
			return
		}
		at--
	}
	copy(c.shards[at+1:c.locked+1], c.shards[at:c.locked])
	c.shards[at] = n
	c.locked++
}

func (c *call) unlock() {
	for i := range c.reqs {
		if r := &c.refs[i]; r.slot >= 0 {
			c.store.shards[r.shard].slab[r.slot].held = false
		}
	}
	for _, n := range c.shards[:c.locked] {
		c.store.shards[n].mu.Unlock()
	}
}

// resolve finds the bucket of request i. With create it makes one, full, where
// there is none, or falls back to the shared one.
func (c *call) resolve(i int, now int64, create bool) {
	r := &c.refs[i]
	sh := &c.store.shards[r.shard]
	at, found := sh.find(r.key)
	if !found {
		if !create {
			return
		}
		if at, found = sh.allocate(r.key, now); !found {
			r.shared = sh.share(c.reqs[i].Limit)
			return
		}
	}
	r.slot = at
	sh.slab[at].held = true
}

func (c *call) shard(i int) *shard { return &c.store.shards[c.refs[i].shard] }

// state is what ratelimit.Settle goes by: the places in use or the arrival time.
func (c *call) state(i int, now int64) int64 {
	if c.reqs[i].Slots > 0 {
		return int64(len(c.shard(i).places[c.refs[i].key]))
	}
	return c.tat(i, now, c.reqs[i].Rate)
}

// enter takes a place for request i's holder.
func (c *call) enter(i int) {
	sh, key := c.shard(i), c.refs[i].key
	if sh.places == nil {
		sh.places = make(map[[16]byte]map[string]struct{})
	}
	if sh.places[key] == nil {
		sh.places[key] = make(map[string]struct{}, 1)
	}
	sh.places[key][c.reqs[i].Holder] = struct{}{}
}

// leave gives the place of request i's holder back, if there is one.
func (c *call) leave(i int) {
	sh, key := c.shard(i), c.refs[i].key
	delete(sh.places[key], c.reqs[i].Holder)
	if len(sh.places[key]) == 0 {
		delete(sh.places, key)
	}
}

// tat is the arrival time of request i's bucket, carried over to the rate.
func (c *call) tat(i int, now int64, rate ratelimit.Rate) int64 {
	b := c.bucket(i)
	if b == nil {
		return now
	}
	return ratelimit.Rescale(now, b.tat, b.span, rate)
}

// charge writes the arrival time after units were taken from request i's bucket,
// or takes the place.
func (c *call) charge(i int, now, tat int64) {
	req, r := &c.reqs[i], &c.refs[i]
	switch {
	case req.Cost == 0:
		return
	case req.Slots > 0:
		c.enter(i)
		return
	}
	if r.shared != nil {
		// Another request of this call may have charged the same shared bucket
		// a moment ago; neither charge may get lost.
		unit, span := req.Rate.UnitMicros(), req.Rate.SpanMicros()
		tat = min(c.tat(i, now, req.Rate)+req.Cost*unit, now+span)
		c.store.shards[r.shard].overflowed++
	}
	c.write(i, tat, req.Rate)
}

// adopt lets a bucket at another rate go on at request i's, though nothing is
// taken from it: it would otherwise fill at the old pace until something is.
func (c *call) adopt(i int, tat int64) {
	req := &c.reqs[i]
	if req.Cost == 0 || req.Slots > 0 || c.refs[i].slot < 0 || c.bucket(i).span == req.Rate.SpanMicros() {
		return
	}
	c.write(i, tat, req.Rate)
}

func (c *call) write(i int, tat int64, rate ratelimit.Rate) {
	*c.bucket(i) = bucket{tat: tat, span: rate.SpanMicros()}
}

func (c *call) bucket(i int) *bucket {
	r := &c.refs[i]
	if r.slot >= 0 {
		return &c.store.shards[r.shard].slab[r.slot].bucket
	}
	return r.shared
}

// allocate returns a slot holding a full bucket: a new one while there is room,
// else one whose bucket is full again. There may be neither.
func (sh *shard) allocate(key [16]byte, now int64) (int32, bool) {
	if len(sh.slab) < sh.limit {
		sh.slab = append(sh.slab, slot{bucket: bucket{tat: now}, key: key})
		at := int32(len(sh.slab) - 1) //nolint:gosec // At most MaxCapacity.
		sh.link(at)
		return at, true
	}
	for range min(reclaimScan, len(sh.slab)) {
		at := int32(sh.hand) //nolint:gosec // At most MaxCapacity.
		sh.hand = (sh.hand + 1) % len(sh.slab)
		if s := &sh.slab[at]; s.tat <= now && !s.held {
			sh.unlink(at)
			*s = slot{bucket: bucket{tat: now}, key: key}
			sh.link(at)
			return at, true
		}
	}
	return -1, false
}

// share returns the bucket that callers without a slot have in common. Limits
// have one each, lest a strict limit be drained by a generous one.
func (sh *shard) share(limit string) *bucket {
	key := ratelimit.KeyHash(limit, "")
	if b := sh.overflow[key]; b != nil {
		return b
	}
	if sh.overflow == nil {
		sh.overflow = make(map[[16]byte]*bucket)
	}
	if len(sh.overflow) >= maxOverflow {
		key = [16]byte{}
	}
	b := sh.overflow[key]
	if b == nil {
		b = new(bucket)
		sh.overflow[key] = b
	}
	return b
}
