package report

import (
	"net/netip"
	"sync"
	"time"
)

// Defaults of CollectorConfig.
const (
	DefaultInterval    = time.Minute
	DefaultMaxKeys     = 2000
	DefaultMaxOfOne    = 200
	maxNetworksCounted = 100
)

// CollectorConfig says how many violations are told one by one.
type CollectorConfig struct {
	// Interval is the least time between two calls of Emit for the same key.
	// Default: 1 min.
	Interval time.Duration
	// MaxKeys is the most keys that are remembered at the same time. Default:
	// 2000. When it is reached, violations with further keys are told to nobody
	// until a key has been silent for an interval.
	MaxKeys int
	// MaxOfOne is the most of these keys that one network may have brought, so
	// that it cannot take the place of all others. Default: 200.
	MaxOfOne int
	// Now is the clock. Default: time.Now.
	Now func() time.Time
	// Emit takes what was reported since the last call for the same key: the
	// sum of all counts is what was added. It is called by Add, Sweep and Close,
	// on their goroutine and outside any lock. Without it violations are told to
	// nobody.
	Emit func(Reported)
}

// Reported is a violation and who reported it how often.
type Reported struct {
	Violation
	// Count is the number of reports.
	Count int64
	// From is the address that sent the first of them.
	From netip.Addr
	// Networks is how many networks they came from, counted up to 100. It
	// says more than Count: anybody can send one report a thousand times.
	Networks int
}

// Network is what one sender may have: an IPv4 address, or an IPv6 network of 48
// bits, as providers give them to a site (RFC 6177).
func Network(from netip.Addr) netip.Prefix {
	bits := 48
	if from = from.Unmap().WithZone(""); from.Is4() {
		bits = 32
	}
	prefix, _ := from.Prefix(bits) // The zero address has the zero network.
	return prefix
}

// Collector tells the first violation of a key at once and the number of its
// repetitions at most once an interval. It has no goroutine: the owner calls
// Sweep about every few seconds and Close at the end. Safe for concurrent use.
type Collector struct {
	cfg CollectorConfig

	mu     sync.Mutex
	seen   map[Key]*repeated
	of     map[netip.Prefix]int // keys that a network has brought
	swept  time.Time
	closed bool
}

// repeated is a key's running interval.
type repeated struct {
	first    Violation
	by       netip.Prefix // who has brought the key
	begin    time.Time
	held     int64
	from     netip.Addr            // of the first that is held
	networks map[netip.Prefix]bool // of what is held
}

// hold counts one report that is not told yet.
func (r *repeated) hold(from netip.Addr) {
	if r.held == 0 {
		r.from, r.networks = from, make(map[netip.Prefix]bool, 1)
	}
	r.held++
	if len(r.networks) < maxNetworksCounted {
		r.networks[Network(from)] = true
	}
}

// tell begins the next interval and returns what was held.
func (r *repeated) tell(now time.Time) Reported {
	told := Reported{Violation: r.first, Count: r.held, From: r.from, Networks: len(r.networks)}
	r.begin, r.held, r.networks = now, 0, nil
	return told
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
	if cfg.MaxOfOne <= 0 {
		cfg.MaxOfOne = DefaultMaxOfOne
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Emit == nil {
		cfg.Emit = func(Reported) {}
	}
	return &Collector{cfg: cfg, seen: make(map[Key]*repeated), of: make(map[netip.Prefix]int), swept: cfg.Now()}
}

// Add takes one violation and who reported it, and reports whether it counts: its
// key may find no room, and after Close none does.
func (c *Collector) Add(v Violation, from netip.Addr) bool {
	now := c.cfg.Now()
	c.mu.Lock()
	due, ok := c.add(v, from, now)
	c.mu.Unlock()
	c.emit(due)
	return ok
}

// add counts v and returns what is to be told now.
func (c *Collector) add(v Violation, from netip.Addr, now time.Time) (due []Reported, ok bool) {
	key := v.Key()
	if r := c.seen[key]; r != nil {
		r.hold(from)
		if c.over(r, now) {
			due = append(due, r.tell(now))
		}
		return due, true
	}
	// At most once an interval, so that a flood of keys does not make every
	// report walk the whole table.
	if c.full(from) && c.elapsed(c.swept, now) {
		due = c.sweep(now, false)
	}
	if c.closed || c.full(from) {
		return due, false
	}
	r := &repeated{first: v, by: Network(from)}
	c.seen[key] = r
	c.of[r.by]++
	r.hold(from)
	return append(due, r.tell(now)), true
}

// full reports whether a key that comes from there would find no room.
func (c *Collector) full(from netip.Addr) bool {
	return len(c.seen) >= c.cfg.MaxKeys || c.of[Network(from)] >= c.cfg.MaxOfOne
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

// Len returns how many keys are remembered.
func (c *Collector) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.seen)
}

// sweep ends the intervals that are over, or all of them.
func (c *Collector) sweep(now time.Time, all bool) []Reported {
	c.swept = now
	var due []Reported
	for key, r := range c.seen {
		if !all && !c.over(r, now) {
			continue
		}
		if silent := r.held == 0; silent || all {
			c.forget(key, r)
			if silent {
				continue
			}
		}
		due = append(due, r.tell(now))
	}
	return due
}

func (c *Collector) forget(key Key, r *repeated) {
	delete(c.seen, key)
	if c.of[r.by]--; c.of[r.by] == 0 {
		delete(c.of, r.by)
	}
}

func (c *Collector) over(r *repeated, now time.Time) bool { return c.elapsed(r.begin, now) }

// elapsed reports whether an interval went by. A clock that went back ends it
// too.
func (c *Collector) elapsed(since, now time.Time) bool {
	age := now.Sub(since)
	return age >= c.cfg.Interval || age < 0
}

func (c *Collector) emit(due []Reported) {
	for _, told := range due {
		c.cfg.Emit(told)
	}
}
