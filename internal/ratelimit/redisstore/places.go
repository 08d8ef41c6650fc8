package redisstore

import (
	"sync"
	"time"

	"github.com/moat-gateway/moat/internal/ratelimit"
)

const (
	// placeTTL is how long a place is held unless it is renewed: what an instance
	// that crashed keeps from others.
	placeTTL = 30 * time.Second
	// renewals in the time of a place leave room for two failures.
	renewals = 3
)

// places are what this instance holds. A goroutine renews them while there are
// any.
type places struct {
	renew func([]ratelimit.Request)
	every time.Duration

	mu       sync.Mutex
	held     map[placeKey]ratelimit.Request
	renewing bool
}

// placeKey has the subject in it too: a holder is unique to a call, which may ask
// one limit for several subjects.
type placeKey struct{ limit, subject, holder string }

func keyOf(r *ratelimit.Request) placeKey { return placeKey{r.Limit, r.Subject, r.Holder} }

// hold notes the places that a call took.
func (p *places) hold(reqs []ratelimit.Request, results []ratelimit.Result) {
	for i := range reqs {
		if reqs[i].Slots > 0 && reqs[i].Cost > 0 && results[i].Allowed && ratelimit.Charged(reqs, results) {
			p.add(reqs[i])
		}
	}
}

func (p *places) add(r ratelimit.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held == nil {
		p.held = make(map[placeKey]ratelimit.Request)
	}
	p.held[keyOf(&r)] = r
	if !p.renewing {
		p.renewing = true
		go p.keep()
	}
}

// drop notes that places are given back, before they are.
func (p *places) drop(reqs []ratelimit.Request) {
	for i := range reqs {
		// A look holds no place: giving it back must not let one expire.
		if reqs[i].Slots > 0 && reqs[i].Cost > 0 {
			p.mu.Lock()
			delete(p.held, keyOf(&reqs[i]))
			p.mu.Unlock()
		}
	}
}

func (p *places) keep() {
	ticker := time.NewTicker(p.every)
	defer ticker.Stop()
	for range ticker.C {
		held := p.snapshot()
		if held == nil {
			return
		}
		for len(held) > 0 {
			n := min(len(held), ratelimit.MaxRequests)
			p.renew(held[:n])
			held = held[n:]
		}
	}
}

// snapshot is nil when there is nothing to renew, and the goroutine ends.
func (p *places) snapshot() []ratelimit.Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.held) == 0 {
		p.renewing = false
		return nil
	}
	held := make([]ratelimit.Request, 0, len(p.held))
	for _, r := range p.held {
		held = append(held, r)
	}
	return held
}
