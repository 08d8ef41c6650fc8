package audit

import (
	"net/netip"
	"sync"
	"time"
)

// Defaults of FloodConfig.
const (
	DefaultFloodLimit   = 100
	DefaultFloodWindow  = 10 * time.Second
	DefaultFloodMaxKeys = 10000
)

// FloodConfig says when refusals are summarised.
type FloodConfig struct {
	// Limit is how many refusals with the same code and address pass one by
	// one in a window. Default: 100.
	Limit int
	// Window begins with the first refusal. Default: 10 s.
	Window time.Duration
	// MaxKeys is the most pairs of code and address that are counted at the
	// same time. Default: 10000. Further pairs share one count.
	MaxKeys int
	// Now is the clock. Default: time.Now.
	Now func() time.Time
	// Emit takes a summary, which it may keep. It may be called by Admit,
	// Sweep and Close, on their goroutine and outside any lock. Without it
	// nothing is summarised and every event passes: what nobody takes must not
	// be held back.
	Emit func(*Event)
}

// Flood lets the first refusals of a kind through and turns the rest of a
// window into one event of action ActionSummary. Its details are "count",
// "from" and "to" (time of the first and the last event it stands for),
// "action", "code" and, for IPv6, "network". It has no goroutine: the owner
// calls Sweep about once a second and Close at the end. Safe for concurrent
// use.
type Flood struct {
	cfg FloodConfig

	mu     sync.Mutex
	counts map[floodKey]*floodCount
	rest   *floodCount
	swept  time.Time
	closed bool
}

// floodKey is what makes two refusals equal. A client that owns an IPv6 /64
// owns all its addresses, so they are one.
type floodKey struct {
	code string
	addr netip.Addr
	text string // the address when it is not one
}

type floodCount struct {
	begin    time.Time
	passed   int
	held     int64
	from, to time.Time
	key      floodKey
	shared   bool // counts every pair beyond MaxKeys, key is empty
	// The fields of the first event held back that all the others share.
	action, reason, ip, host string
	status                   int
	veil                     *Pseudonyms
}

// NewFlood returns a Flood. Values of cfg that are zero or negative are
// replaced by the defaults.
func NewFlood(cfg FloodConfig) *Flood {
	if cfg.Limit <= 0 {
		cfg.Limit = DefaultFloodLimit
	}
	if cfg.Window <= 0 {
		cfg.Window = DefaultFloodWindow
	}
	if cfg.MaxKeys <= 0 {
		cfg.MaxKeys = DefaultFloodMaxKeys
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Flood{cfg: cfg, counts: make(map[floodKey]*floodCount), swept: cfg.Now()}
}

// Admit reports whether e is to be recorded by itself. It is false when e was
// only counted and a summary will stand for it. Only refusals are ever held
// back, and none after Close; reports about a policy pass, for they are bounded
// and counted where they come in, and a summary would not say what they are about.
func (f *Flood) Admit(e *Event) bool {
	if e.Outcome != Deny || e.Class.Known() != Security || e.Action == ActionViolation || f.cfg.Emit == nil {
		return true
	}
	now := f.cfg.Now()
	key := keyOf(e)

	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return true
	}
	count, due := f.count(key, now)
	admitted := count.passed < f.cfg.Limit
	if admitted {
		count.passed++
	} else {
		count.hold(e, now)
	}
	f.mu.Unlock()

	f.emit(due, now)
	return admitted
}

// Sweep emits the summaries of the windows that ended and forgets them.
func (f *Flood) Sweep() {
	now := f.cfg.Now()
	f.mu.Lock()
	due := f.sweep(now, false)
	f.mu.Unlock()
	f.emit(due, now)
}

// Close emits what is still held back. Later events all pass.
func (f *Flood) Close() {
	now := f.cfg.Now()
	f.mu.Lock()
	f.closed = true
	due := f.sweep(now, true)
	f.mu.Unlock()
	f.emit(due, now)
}

// count returns the running count for key and the counts whose window it found
// to be over.
func (f *Flood) count(key floodKey, now time.Time) (*floodCount, []*floodCount) {
	if c := f.counts[key]; c != nil && !f.over(c, now) {
		return c, nil
	} else if c != nil {
		next := &floodCount{begin: now, key: key}
		f.counts[key] = next
		return next, []*floodCount{c}
	}
	var due []*floodCount
	// At most once a window, so that a flood of addresses does not make every
	// refusal walk the whole table.
	if len(f.counts) >= f.cfg.MaxKeys && now.Sub(f.swept) >= f.cfg.Window {
		due = f.sweep(now, false)
	}
	if len(f.counts) < f.cfg.MaxKeys {
		c := &floodCount{begin: now, key: key}
		f.counts[key] = c
		return c, due
	}
	if f.rest != nil && f.over(f.rest, now) {
		due = append(due, f.rest)
		f.rest = nil
	}
	if f.rest == nil {
		f.rest = &floodCount{begin: now, shared: true}
	}
	return f.rest, due
}

// over reports whether a window ended. A clock that went back ends it too.
func (f *Flood) over(c *floodCount, now time.Time) bool {
	age := now.Sub(c.begin)
	return age >= f.cfg.Window || age < 0
}

// sweep removes ended counts, or all of them, and returns those that held
// something back.
func (f *Flood) sweep(now time.Time, all bool) []*floodCount {
	f.swept = now
	var due []*floodCount
	for key, c := range f.counts {
		if all || f.over(c, now) {
			delete(f.counts, key)
			if c.held > 0 {
				due = append(due, c)
			}
		}
	}
	if f.rest != nil && (all || f.over(f.rest, now)) {
		due = append(due, f.rest)
		f.rest = nil
	}
	return due
}

func (f *Flood) emit(due []*floodCount, now time.Time) {
	for _, c := range due {
		if c.held > 0 {
			f.cfg.Emit(c.summary(now))
		}
	}
}

func (c *floodCount) hold(e *Event, now time.Time) {
	if c.held == 0 {
		c.from = now
		c.action, c.reason, c.ip, c.host, c.status = e.Action, e.Reason, e.IP, e.Host, e.Status
	}
	if e.veil != nil {
		c.veil = e.veil
	}
	if c.host != e.Host {
		c.host = ""
	}
	if c.reason != e.Reason {
		c.reason = c.key.code
	}
	c.held++
	c.to = now
}

func (c *floodCount) summary(now time.Time) *Event {
	e := &Event{
		Timestamp: now, ID: NewID(now), Action: ActionSummary, Class: Security, Outcome: Deny,
		// Many of a harmless kind are no longer quite harmless.
		Severity: Medium,
		Reason:   c.reason, IP: c.ip, Host: c.host, Status: c.status,
		veil: c.veil,
	}
	e.Details.Set("count", c.held)
	e.Details.Set("from", string(appendTime(nil, c.from)))
	e.Details.Set("to", string(appendTime(nil, c.to)))
	if c.shared {
		// It stands for many codes and addresses.
		e.Reason, e.IP, e.Host, e.Status = "", "", "", 0
		e.Details.Set("overflow", true)
		return e
	}
	e.Details.Set("action", c.action)
	e.Details.Set("code", c.key.code)
	if c.key.addr.Is6() {
		e.Details.Set("network", c.veil.Of(KindIP, netip.PrefixFrom(c.key.addr, 64).String()))
	}
	return e
}

func keyOf(e *Event) floodKey {
	addr, err := netip.ParseAddr(e.IP)
	if err != nil {
		return floodKey{code: e.Code(), text: e.IP}
	}
	addr = addr.Unmap().WithZone("")
	if addr.Is6() {
		if net, err := addr.Prefix(64); err == nil {
			addr = net.Addr()
		}
	}
	return floodKey{code: e.Code(), addr: addr}
}
