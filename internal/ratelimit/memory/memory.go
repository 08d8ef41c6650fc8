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
	// Each takes about 80 bytes.
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
		limit := cfg.Capacity / n
		if i < cfg.Capacity%n {
			limit++
		}
		s.shards[i].limit = limit
		s.shards[i].index = make(map[[16]byte]int32)
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
		c.resolve(i, now, reqs[i].Cost > 0)
	}
	var tats [ratelimit.MaxRequests]int64
	for i := range reqs {
		tats[i] = c.tat(i, now, reqs[i].Rate)
	}
	if dst == nil {
		dst = make([]ratelimit.Result, 0, len(reqs))
	}
	results, charged := ratelimit.Settle(now, reqs, tats[:len(reqs)], dst)
	if charged {
		for i := range reqs {
			c.charge(i, now, tats[i])
		}
	}
	return results, nil
}

// Give implements ratelimit.Store. Units taken from a bucket that was shared
// for lack of room are not given back: whose they were is not known.
func (s *Store) Give(_ context.Context, reqs []ratelimit.Request) error {
	return s.refill(reqs, false)
}

// Reset implements ratelimit.Store. A bucket shared for lack of room stays.
func (s *Store) Reset(_ context.Context, reqs []ratelimit.Request) error {
	return s.refill(reqs, true)
}

// refill raises the buckets that exist: by the units given, or all the way.
func (s *Store) refill(reqs []ratelimit.Request, all bool) error {
	if err := ratelimit.Check(reqs); err != nil {
		return err
	}
	var c call
	c.lock(s, reqs)
	defer c.unlock()
	now := s.clock()
	for i := range reqs {
		if c.resolve(i, now, false); c.refs[i].slot < 0 {
			continue
		}
		tat := now
		if !all {
			tat = ratelimit.Refund(now, c.tat(i, now, reqs[i].Rate), reqs[i])
		}
		c.write(i, tat, reqs[i].Rate)
	}
	return nil
}

// Learn implements ratelimit.Learner. Buckets that find no room are not learned.
func (s *Store) Learn(reqs []ratelimit.Request, results []ratelimit.Result) {
	if len(reqs) != len(results) || ratelimit.Check(reqs) != nil {
		return
	}
	var c call
	c.lock(s, reqs)
	defer c.unlock()
	now := s.clock()
	for i := range reqs {
		told := min(results[i].ResetAfter.Microseconds(), reqs[i].Rate.SpanMicros())
		if told <= 0 {
			continue
		}
		if c.resolve(i, now, true); c.refs[i].slot < 0 {
			continue
		}
		if known := c.tat(i, now, reqs[i].Rate); now+told > known {
			c.write(i, now+told, reqs[i].Rate)
		}
	}
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
		total.Buckets += len(sh.index)
		total.Overflowed += sh.overflowed
		sh.mu.Unlock()
	}
	return total
}
