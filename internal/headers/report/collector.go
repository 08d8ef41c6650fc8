package report

import (
	"sync"
	"time"
)

// Defaults of CollectorConfig.
const (
	DefaultInterval = time.Minute
	DefaultMaxKeys  = 2000
)

// CollectorConfig says how many violations are told one by one.
type CollectorConfig struct {
	// Interval is the least time between two calls of Emit for the same key.
	// Default: 1 min.
	Interval time.Duration
	// MaxKeys is the most keys that are remembered at the same time. Default:
	// 2000. When it is reached, violations with further keys are only counted
	// (Overflow) until a key has been silent for an interval.
	MaxKeys int
	// Now is the clock. Default: time.Now.
	Now func() time.Time
	// Emit takes a violation and for how many of its key it stands since the
	// last call: the sum of all counts is what was added. It is called by Add,
	// Sweep and Close, on their goroutine and outside any lock. Without it
	// violations are counted and told to nobody.
	Emit func(v Violation, count int64)
}

// Collector tells the first violation of a key at once and the number of its
// repetitions at most once an interval. It has no goroutine: the owner calls
// Sweep about every few seconds and Close at the end. Safe for concurrent use.
type Collector struct {
	cfg CollectorConfig

	mu       sync.Mutex
	seen     map[Key]*repeated
	swept    time.Time
	overflow int64
	closed   bool
}

// repeated is a key's running interval.
type repeated struct {
	first Violation
	begin time.Time
	held  int64
}

// told is one call of Emit.
type told struct {
	violation Violation
	count     int64
}

// NewCollector returns a Collector. Values of cfg that are zero or negative are
// replaced by the defaults.
func NewCollector(cfg CollectorConfig) *Collector {
	if cfg.Interval <= 0 {
		cfg.Interval = DefaultInterval
	}
	if cfg.MaxKeys <= 0 {
		cfg.MaxKeys = DefaultMaxKeys
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Emit == nil {
		cfg.Emit = func(Violation, int64) {}
	}
	return &Collector{cfg: cfg, seen: make(map[Key]*repeated), swept: cfg.Now()}
}

// Add takes one violation. After Close it is counted as overflow.
func (c *Collector) Add(v Violation) {
	now := c.cfg.Now()
	c.mu.Lock()
	count, due := c.add(v, now)
	c.mu.Unlock()
	c.emit(due)
	if count > 0 {
		c.cfg.Emit(v, count)
	}
}

// add counts v. It returns the count to tell for it, 0 when it is held back,
// and what a sweep found due.
func (c *Collector) add(v Violation, now time.Time) (count int64, due []told) {
	key := v.Key()
	if r := c.seen[key]; r != nil {
		r.held++
		if !c.over(r, now) {
			return 0, nil
		}
		count, r.held, r.begin = r.held, 0, now
		return count, nil
	}
	// At most once an interval, so that a flood of keys does not make every
	// report walk the whole table.
	if len(c.seen) >= c.cfg.MaxKeys && c.elapsed(c.swept, now) {
		due = c.sweep(now, false)
	}
	if c.closed || len(c.seen) >= c.cfg.MaxKeys {
		c.overflow++
		return 0, due
	}
	c.seen[key] = &repeated{first: v, begin: now}
	return 1, due
}

// Sweep tells the repetitions of the intervals that ended and forgets the keys
// that had none.
func (c *Collector) Sweep() {
	now := c.cfg.Now()
	c.mu.Lock()
	due := c.sweep(now, false)
	c.mu.Unlock()
	c.emit(due)
}

// Close tells what is still held back.
func (c *Collector) Close() {
	now := c.cfg.Now()
	c.mu.Lock()
	c.closed = true
	due := c.sweep(now, true)
	c.mu.Unlock()
	c.emit(due)
}

// Overflow returns how many violations were told to nobody since the start,
// because their keys found no room.
func (c *Collector) Overflow() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.overflow
}

// Len returns how many keys are remembered.
func (c *Collector) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.seen)
}

// sweep ends the intervals that are over, or all of them.
func (c *Collector) sweep(now time.Time, all bool) []told {
	c.swept = now
	var due []told
	for key, r := range c.seen {
		if !all && !c.over(r, now) {
			continue
		}
		if r.held > 0 {
			due = append(due, told{r.first, r.held})
		}
		if r.held == 0 || all {
			delete(c.seen, key)
			continue
		}
		r.begin, r.held = now, 0
	}
	return due
}

func (c *Collector) over(r *repeated, now time.Time) bool { return c.elapsed(r.begin, now) }

// elapsed reports whether an interval went by. A clock that went back ends it
// too.
func (c *Collector) elapsed(since, now time.Time) bool {
	age := now.Sub(since)
	return age >= c.cfg.Interval || age < 0
}

func (c *Collector) emit(due []told) {
	for _, t := range due {
		c.cfg.Emit(t.violation, t.count)
	}
}
