package ratelimit

import (
	"crypto/rand"
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// tripFailures failures in a row open the breaker.
	tripFailures = 5
	// tripAfter of nothing but failures opens the breaker too, for sites with
	// little traffic.
	tripAfter = time.Second
	// An open breaker lets one call through every probeMin to probeMin+probeJitter.
	// The jitter keeps instances from probing a returning store in step; the sum
	// leaves a client library its own second to redial and still ends degraded
	// mode within two.
	probeMin    = 200 * time.Millisecond
	probeJitter = 600 * time.Millisecond
)

// BreakerConfig configures a Breaker. The zero value is usable.
type BreakerConfig struct {
	// The clock. Default: time.Now.
	Now func() time.Time
	// Called with true when degraded mode begins and with false when it ends,
	// once each and in order. The call that changed the mode waits for it, so
	// it should return quickly; it may ask Degraded. Optional.
	OnChange func(degraded bool)
	// Probe asks the store for what only one that works can do, within a budget of
	// its own. With it an open breaker lets nobody pass and probes in the
	// background, so that no client waits for a store that is away, and nobody's
	// refusal is taken for proof that it is back. Default: none, and single calls
	// are let through.
	Probe func() error
}

// Breaker keeps a store that fails from being asked for every request. It opens
// after 5 failures in a row, or after one second of failures only, and then lets
// single calls through, or probes, until one succeeds. One Breaker belongs to one
// remote store and may be shared by several Guarded.
type Breaker struct {
	now      func() time.Time
	onChange func(degraded bool)
	probe    func() error
	closed   chan struct{}
	closing  sync.Once

	degraded atomic.Bool  // the breaker is open
	failures atomic.Int32 // in a row; written under mu

	mu      sync.Mutex
	since   time.Time // of the first failure in the row
	probeAt time.Time // when the next call may pass an open breaker

	telling sync.Mutex
	told    bool
}

// NewBreaker returns a closed breaker.
func NewBreaker(cfg BreakerConfig) *Breaker {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Breaker{now: cfg.Now, onChange: cfg.OnChange, probe: cfg.Probe, closed: make(chan struct{})}
}

// Close ends probing in the background.
func (b *Breaker) Close() { b.closing.Do(func() { close(b.closed) }) }

// Degraded reports whether the breaker is open.
func (b *Breaker) Degraded() bool { return b.degraded.Load() }

// enter asks to call the store. ok is false while the breaker is open; probe
// marks the one call that may close it.
func (b *Breaker) enter() (probe, ok bool) {
	if !b.degraded.Load() {
		return false, true
	}
	if b.probe != nil {
		return false, false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.degraded.Load() {
		return false, true
	}
	now := b.now()
	if now.Before(b.probeAt) {
		return false, false
	}
	// Set when the probe starts, not when it ends: a probe that never reports
	// back delays the next one and cannot prevent it.
	b.probeAt = now.Add(probeDelay())
	return true, true
}

// succeeded reports that a call which entered was answered.
func (b *Breaker) succeeded(probe bool) {
	if !probe && b.failures.Load() == 0 {
		return
	}
	b.mu.Lock()
	// A call from before the breaker opened proves nothing about the store now.
	if probe || !b.degraded.Load() {
		b.failures.Store(0)
		b.degraded.Store(false)
	}
	b.mu.Unlock()
	b.tell()
}

// failed reports that a call which entered was not answered.
func (b *Breaker) failed() {
	b.mu.Lock()
	if !b.degraded.Load() {
		now := b.now()
		n := b.failures.Add(1)
		if n == 1 {
			b.since = now
		}
		if n >= tripFailures || now.Sub(b.since) >= tripAfter {
			b.degraded.Store(true)
			b.probeAt = now.Add(probeDelay())
			if b.probe != nil {
				go b.keepProbing()
			}
		}
	}
	b.mu.Unlock()
	b.tell()
}

// keepProbing ends when a probe succeeds.
func (b *Breaker) keepProbing() {
	for {
		timer := time.NewTimer(probeDelay())
		select {
		case <-b.closed:
			timer.Stop()
			return
		case <-timer.C:
		}
		if b.probe() == nil {
			b.succeeded(true)
			return
		}
	}
}

// tell reports the mode as it is now if that was not yet reported. Its own lock
// keeps the reports in order without holding up decisions.
func (b *Breaker) tell() {
	if b.onChange == nil {
		return
	}
	b.telling.Lock()
	defer b.telling.Unlock()
	if mode := b.degraded.Load(); mode != b.told {
		b.told = mode
		b.onChange(mode)
	}
}

func probeDelay() time.Duration {
	var b [4]byte
	_, _ = rand.Read(b[:]) // Never fails; see crypto/rand.
	return probeMin + time.Duration(binary.BigEndian.Uint32(b[:]))%probeJitter
}
