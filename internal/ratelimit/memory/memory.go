// Package memory keeps rate limit buckets in this process. It knows hashes and
// arrival times, never who they belong to, and holds a fixed number of them.
package memory

import (
	"context"
	"fmt"
	"hash/maphash"
	"math/bits"
	"runtime"
	"time"

	"github.com/moat-gateway/moat/internal/ratelimit"
)

const (
	// DefaultCapacity is the number of buckets kept when Config names none.
	// Each takes about 50 bytes.
	DefaultCapacity = 1_000_000
	// MaxCapacity is the largest Config.Capacity.
	MaxCapacity = 100_000_000
)

// Config configures a Store. The zero value is usable.
type Config struct {
	// Largest number of buckets held. Default: 1,000,000. When as many callers
	// are being counted, nobody's count is dropped: callers not yet known share
	// one bucket per limit and shard until others are full again.
	Capacity int
	// The clock, which should carry a monotonic reading so that steps of the
	// wall clock move nothing. Default: time.Now.
	Now func() time.Time
}

// Store keeps buckets in memory.
//
// Buckets lie in shards with a lock each; a call locks the shards it needs in
// ascending order. Memory grows with the callers seen up to the capacity and is
// then reused: a bucket may be forgotten only when it is full again, which
// nobody can tell from never having existed.
type Store struct {
	shards []shard
	mask   uint64
	seed   maphash.Seed
	now    func() time.Time
	start  time.Time
}

var (
	_ ratelimit.Store   = (*Store)(nil)
	_ ratelimit.Learner = (*Store)(nil)
)

// New returns an empty store.
func New(cfg Config) (*Store, error) {
	if cfg.Capacity < 0 || cfg.Capacity > MaxCapacity {
		return nil, fmt.Errorf("ratelimit: capacity %d: must be between 1 and %d", cfg.Capacity, MaxCapacity)
	}
	if cfg.Capacity == 0 {
		cfg.Capacity = DefaultCapacity
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	n := shardCount(cfg.Capacity)
	s := &Store{
		shards: make([]shard, n),
		mask:   uint64(n - 1),
		seed:   maphash.MakeSeed(),
		now:    cfg.Now,
		start:  cfg.Now(),
	}
	for i := range s.shards {
		s.shards[i].limit = s.share(i, cfg.Capacity)
		s.shards[i].seed = s.seed
	}
	return s, nil
}

// shardCount is a power of two, at least eight per processor, but leaves every
// shard some room: small shards overflow early.
func shardCount(capacity int) int {
	want := 1 << bits.Len(uint(8*runtime.GOMAXPROCS(0)-1)) //nolint:gosec // Positive.
	for want > 1 && capacity/want < 64 {
		want /= 2
	}
	return want
}

// clock is the time since the store was made, in microseconds. A clock that was
// set to before that counts as the beginning.
func (s *Store) clock() int64 {
	return max(0, s.now().Sub(s.start).Microseconds())
}

// Take implements ratelimit.Store. It ignores ctx, because it never waits.
func (s *Store) Take(_ context.Context, reqs []ratelimit.Request, dst []ratelimit.Result) ([]ratelimit.Result, error) {
	if err := ratelimit.Check(reqs); err != nil {
		return nil, err
	}
	var c call
	c.lock(s, reqs)
	defer c.unlock()
	now := s.clock()
	for i := range reqs {
		c.resolve(i, now, reqs[i].Cost > 0 && reqs[i].Slots == 0)
	}
	var states [ratelimit.MaxRequests]int64
	for i := range reqs {
		states[i] = c.state(i, now)
	}
	if dst == nil {
		dst = make([]ratelimit.Result, 0, len(reqs))
	}
	results, charged := ratelimit.Settle(now, reqs, states[:len(reqs)], dst)
	for i := range reqs {
		if charged && results[i].Allowed {
			c.charge(i, now, states[i])
		} else {
			c.adopt(i, states[i])
		}
	}
	return results, nil
}

// Give implements ratelimit.Store. Units taken from a bucket that was shared
// for lack of room are not given back: whose they were is not known.
func (s *Store) Give(_ context.Context, reqs []ratelimit.Request) error {
	return s.change(reqs, gives)
}

func (c *call) give(i int, now int64) {
	req := &c.reqs[i]
	if req.Slots > 0 {
		if req.Cost > 0 { // A look holds no place.
			c.leave(i)
		}
		return
	}
	if c.resolve(i, now, false); c.refs[i].slot >= 0 {
		c.write(i, ratelimit.Refund(now, c.tat(i, now, req.Rate), *req), req.Rate)
	}
}

// Debit implements ratelimit.Store.
func (s *Store) Debit(_ context.Context, reqs []ratelimit.Request) error {
	return s.change(reqs, debits)
}

func (c *call) debit(i int, now int64) {
	req := &c.reqs[i]
	if req.Slots > 0 || req.Cost == 0 {
		return
	}
	c.resolve(i, now, true)
	c.write(i, ratelimit.Debited(now, c.tat(i, now, req.Rate), req.Rate, req.Cost), req.Rate)
}

// Reset implements ratelimit.Store. A bucket shared for lack of room stays.
func (s *Store) Reset(_ context.Context, reqs []ratelimit.Request) error {
	return s.change(reqs, resets)
}

func (c *call) reset(i int, now int64) {
	if c.reqs[i].Slots > 0 {
		delete(c.shard(i).places, c.refs[i].key)
		return
	}
	if c.resolve(i, now, false); c.refs[i].slot >= 0 {
		c.write(i, now, c.reqs[i].Rate)
	}
}

// Forget is Reset for buckets of which only the hash is known; see
// ratelimit.KeyHash.
func (s *Store) Forget(keys [][16]byte) {
	now := s.clock()
	for _, key := range keys {
		sh := &s.shards[s.shardOf(key)]
		sh.mu.Lock()
		if at, found := sh.find(key); found {
			sh.slab[at].tat = now
		}
		delete(sh.places, key)
		sh.mu.Unlock()
	}
}

// change is what happens to buckets outside of Take. No function value: a call
// passed to one would be allocated.
type change uint8

const (
	gives change = iota
	debits
	resets
)

func (s *Store) change(reqs []ratelimit.Request, what change) error {
	if err := ratelimit.Check(reqs); err != nil {
		return err
	}
	var c call
	c.lock(s, reqs)
	defer c.unlock()
	now := s.clock()
	for i := range reqs {
		switch what {
		case gives:
			c.give(i, now)
		case debits:
			c.debit(i, now)
		case resets:
			c.reset(i, now)
		}
	}
	return nil
}

// Learn implements ratelimit.Learner. Buckets that find no room are not learned.
func (s *Store) Learn(reqs []ratelimit.Request, results []ratelimit.Result) {
	if len(reqs) != len(results) || ratelimit.Check(reqs) != nil {
		return
	}
	charged := ratelimit.Charged(reqs, results)
	var c call
	c.lock(s, reqs)
	defer c.unlock()
	now := s.clock()
	for i := range reqs {
		switch {
		case reqs[i].Fallback.OnError != ratelimit.Local:
		case reqs[i].Slots == 0:
			c.learn(i, now, results[i])
		case charged && results[i].Allowed && reqs[i].Cost > 0:
			c.enter(i)
		}
	}
}

// learn raises the bucket of request i to the level that the result shows.
func (c *call) learn(i int, now int64, result ratelimit.Result) {
	rate := c.reqs[i].Rate
	told := min(result.ResetAfter.Microseconds(), rate.SpanMicros())
	if told <= 0 {
		return
	}
	if c.resolve(i, now, true); c.refs[i].slot < 0 {
		return
	}
	if known := c.tat(i, now, rate); now+told > known {
		c.write(i, now+told, rate)
	}
}

// SetCapacity changes how many buckets are held. Fewer than are held already
// takes none away: they are reused and no new ones are made.
func (s *Store) SetCapacity(capacity int) error {
	if capacity < 1 || capacity > MaxCapacity {
		return fmt.Errorf("ratelimit: capacity %d: must be between 1 and %d", capacity, MaxCapacity)
	}
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		sh.limit = s.share(i, capacity)
		sh.mu.Unlock()
	}
	return nil
}

// share is shard i's part of the capacity.
func (s *Store) share(i, capacity int) int {
	part := capacity / len(s.shards)
	if i < capacity%len(s.shards) {
		part++
	}
	return part
}

// Stats counts what a Store holds.
type Stats struct {
	// Buckets held.
	Buckets int
	// Charges that went to a shared bucket for lack of room, since the start.
	Overflowed uint64
}

// Stats takes each shard's lock in turn.
func (s *Store) Stats() Stats {
	var total Stats
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		total.Buckets += len(sh.slab)
		total.Overflowed += sh.overflowed
		sh.mu.Unlock()
	}
	return total
}
