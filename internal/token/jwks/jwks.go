// Package jwks keeps the key set of one issuer that publishes it at a URL or in
// a file. It knows when to fetch and what to do while that fails; what a key is
// and which are good is the business of package token.
//
// A set is swapped whole, so a key that its issuer withdrew is gone with the
// next fetch. A token under an unknown key makes the set be fetched again, but
// at most once in thirty seconds however many keys are named: nobody can make
// the gateway hammer the key server. While fetching fails the last good set
// serves, up to MaxStale.
package jwks

import (
	"context"
	"crypto/sha256"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/moat-gateway/moat/internal/token"
)

const (
	// refetchPause is the shortest time between two fetches that unknown keys
	// ask for.
	refetchPause = 30 * time.Second
	// waitForFetch is the longest time that a request waits for a fetch.
	waitForFetch = 2 * time.Second
)

// Source is a remote key set. It implements token.KeySource and token.Holder.
type Source struct {
	cfg Config
	set atomic.Pointer[fetched]

	mu      sync.Mutex
	running *fetch    // the fetch under way, nil when there is none
	tried   time.Time // when the last fetch began
	told    trouble

	start sync.Once
	end   sync.Once
	done  chan struct{}
}

// trouble is what the last event has told of.
type trouble uint8

const (
	none    trouble = iota
	failing         // fetching fails
	lapsed          // and there is no set any more that may be used
)

// fetch is one fetch that any number of requests wait for.
type fetch struct {
	done chan struct{}
	err  error
}

// New returns a source that has fetched nothing yet.
func New(c Config) (*Source, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return &Source{cfg: c.withDefaults(), done: make(chan struct{})}, nil
}

// Start begins to keep the set fresh in the background. Starting twice is
// harmless.
func (s *Source) Start() { s.start.Do(func() { go s.refresh() }) }

// Close ends the background work. Lookup goes on answering from the last set.
func (s *Source) Close() error {
	s.end.Do(func() { close(s.done) })
	return nil
}

// Ready reports whether there is a set that may be used.
func (s *Source) Ready() bool { return s.usable() != nil }

// Age is the time since the set was fetched; false when none ever was.
func (s *Source) Age() (time.Duration, bool) {
	l := s.set.Load()
	if l == nil {
		return 0, false
	}
	return s.cfg.Now().Sub(l.at), true
}

// usable returns the set unless it is too old.
func (s *Source) usable() *fetched {
	l := s.set.Load()
	if l == nil || s.cfg.Now().Sub(l.at) > s.cfg.MaxStale {
		return nil
	}
	return l
}

// Holds implements token.Holder. A set that is too old holds nothing.
func (s *Source) Holds(print [sha256.Size]byte) bool {
	l := s.usable()
	return l != nil && l.keys.Holds(print)
}

// Lookup implements token.KeySource. It waits for a fetch when there is no set
// yet or the set has no such key, at most two seconds and as long as ctx lives.
func (s *Source) Lookup(ctx context.Context, kid, alg string) ([]token.Key, error) {
	l := s.usable()
	if l != nil {
		keys, err := l.keys.Lookup(ctx, kid, alg)
		if err != nil || len(keys) > 0 {
			return keys, err
		}
	}
	f := s.refetch()
	if f == nil {
		if l == nil {
			return nil, token.ErrKeysUnavailable
		}
		return nil, nil
	}
	timer := time.NewTimer(waitForFetch)
	defer timer.Stop()
	select {
	case <-f.done:
	case <-timer.C:
	case <-ctx.Done():
	}
	if l = s.usable(); l == nil {
		return nil, token.ErrKeysUnavailable
	}
	return l.keys.Lookup(ctx, kid, alg)
}

// refetch returns the fetch under way, or begins one unless the last one is too
// recent; then it returns nil.
func (s *Source) refetch() *fetch {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running != nil {
		return s.running
	}
	if !s.tried.IsZero() && s.cfg.Now().Sub(s.tried) < refetchPause {
		return nil
	}
	return s.begin()
}

// begin starts a fetch. The caller holds mu.
func (s *Source) begin() *fetch {
	f := &fetch{done: make(chan struct{})}
	s.running, s.tried = f, s.cfg.Now()
	go func() {
		// No request's context: whoever asked first may hang up, the others wait.
		ctx, cancel := context.WithTimeout(context.Background(), s.cfg.Timeout)
		defer cancel()
		next, err := s.try(ctx)
		s.finish(f, next, err)
	}()
	return f
}

func (s *Source) try(ctx context.Context) (next *fetched, err error) {
	defer func() {
		// No answer may end the process that serves requests, nor leave those who
		// wait without one.
		if r := recover(); r != nil {
			next, err = nil, fmt.Errorf("key set: cannot be read: %v", r)
		}
	}()
	return s.cfg.fetch(ctx, s.set.Load())
}

func (s *Source) finish(f *fetch, next *fetched, err error) {
	s.mu.Lock()
	f.err = err
	var event *Event
	if err != nil {
		event = s.failed(err)
	} else {
		event = s.swap(next)
	}
	s.running = nil
	s.mu.Unlock()
	close(f.done)
	if event != nil && s.cfg.OnEvent != nil {
		s.cfg.OnEvent(*event)
	}
}

// failed returns what is to be told of a fetch that failed: the first one, and
// the first one after the last good set has become too old. The caller holds mu.
func (s *Source) failed(err error) *Event {
	now, event := failing, &Event{Err: err}
	if l := s.usable(); l != nil {
		event.Keys = l.count
	} else {
		now = lapsed
	}
	if now <= s.told {
		return nil
	}
	s.told = now
	return event
}

// swap puts a set in force and returns what is to be told of it. The caller
// holds mu.
func (s *Source) swap(next *fetched) *Event {
	next.at = s.cfg.Now()
	var before *loaded
	if last := s.set.Swap(next); last != nil {
		before = last.loaded
	}
	event := changes(before, next.loaded)
	if event == nil && s.told != none {
		event = &Event{Keys: next.count}
	}
	s.told = none
	return event
}

// Interface guards.
var (
	_ token.KeySource = (*Source)(nil)
	_ token.Holder    = (*Source)(nil)
)
