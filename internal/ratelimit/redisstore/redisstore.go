// Package redisstore keeps rate limit buckets in Redis, so that several
// gateways count together. It knows the keys and the script, and never who a
// bucket belongs to: subjects are sent as hashes.
package redisstore

import (
	"context"
	_ "embed" // The script.
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/moat-gateway/moat/internal/ratelimit"
)

const (
	// DefaultPrefix begins every key when Config names no prefix.
	DefaultPrefix = "moat:rl:"
	// DefaultTimeout bounds a call when Config names no timeout.
	DefaultTimeout = 50 * time.Millisecond
	// MaxTimeout is the largest Config.Timeout.
	MaxTimeout = 10 * time.Second
	// maxPrefix bounds Config.Prefix, in bytes.
	maxPrefix = 128
)

//go:embed script.lua
var source string

// Config configures a Store. The zero value is usable.
type Config struct {
	// What every key begins with. Gateways that shall count together need the
	// same. No braces, at most 128 bytes. Default: "moat:rl:".
	Prefix string
	// Largest time one call may take, everything included. At most 10s.
	// Default: 50ms.
	Timeout time.Duration
	// A clock that replaces the one of the Redis server, for tests. Default:
	// none, so that all gateways go by one clock.
	Now func() time.Time
}

// Store keeps buckets in Redis (5.0 or later; 6.0 for ACL).
//
// Each Take is one EVALSHA and one round trip. A server that does not know the
// script gets it with one further EVAL; nothing else is ever tried again,
// because a call that timed out may still have charged. A user needs
// +evalsha +eval +time +get +set +del on the keys "PREFIX*", for concurrency limits
// also +zadd +zrem +zcount +zremrangebyscore +pexpire, and for resets to be seen
// at once +publish +subscribe on the channel "PREFIXreset". Keys expire when
// their buckets are full. Buckets must not be evicted before that, or an
// exhausted caller starts afresh: use noeviction or volatile-ttl.
//
// With Redis Cluster the buckets of one subject lie in one slot, and those of
// different subjects do not. Take then charges subject by subject, in the order
// of their first request, and gives back what it charged when a later one
// refuses or fails. Nothing is ever granted beyond a limit; for the moment in
// between, and for good when giving back fails, others may find less than is
// there.
type Store struct {
	client  redis.UniversalClient
	script  *redis.Script
	prefix  string
	timeout time.Duration
	now     func() time.Time
	cluster bool
	batches batcher
	places  places
	ttl     time.Duration // of places
}

var (
	_ ratelimit.Store    = (*Store)(nil)
	_ ratelimit.Releaser = (*Store)(nil)
)

// New returns a store on client, which stays the caller's to close. It does not
// talk to the server. A client whose calls could outlive the timeout is refused.
func New(client redis.UniversalClient, cfg Config) (*Store, error) {
	if cfg.Prefix == "" {
		cfg.Prefix = DefaultPrefix
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultTimeout
	}
	var errs []error
	if len(cfg.Prefix) > maxPrefix || strings.ContainsAny(cfg.Prefix, "{}") {
		errs = append(errs, fmt.Errorf("ratelimit: prefix %.64q: must have at most %d bytes and no braces",
			cfg.Prefix, maxPrefix))
	}
	if cfg.Timeout < time.Millisecond || cfg.Timeout > MaxTimeout {
		errs = append(errs, fmt.Errorf("ratelimit: timeout %s: must be between 1ms and %s", cfg.Timeout, MaxTimeout))
	}
	cluster, err := inspect(client)
	errs = append(errs, err)
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	s := &Store{
		client:  client,
		script:  redis.NewScript(source),
		prefix:  cfg.Prefix,
		timeout: cfg.Timeout,
		now:     cfg.Now,
		cluster: cluster,
	}
	s.batches.client, s.batches.timeout, s.batches.single = client, cfg.Timeout, cluster
	s.holdPlacesFor(placeTTL)
	return s, nil
}

// inspect refuses clients that ignore deadlines or try again by themselves:
// with the defaults of go-redis a call to a stopped server takes five seconds.
func inspect(client redis.UniversalClient) (cluster bool, err error) {
	switch c := client.(type) {
	case *redis.Client:
		if c == nil {
			break
		}
		if o := c.Options(); !o.ContextTimeoutEnabled || o.MaxRetries > 0 {
			return false, errors.New("ratelimit: redis client: must heed deadlines and not retry")
		}
		return false, nil
	case *redis.ClusterClient:
		if c == nil {
			break
		}
		if o := c.Options(); !o.ContextTimeoutEnabled || o.MaxRetries > 0 || o.ReadOnly {
			return true, errors.New("ratelimit: redis cluster client: must heed deadlines, not retry and ask masters")
		}
		return true, nil
	}
	return false, fmt.Errorf("ratelimit: redis client %T: must be a *redis.Client or *redis.ClusterClient", client)
}

// bound detaches a call from the client's request and gives it its time. A
// client that hangs up must neither stay uncounted nor look like a Redis failure.
func (s *Store) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), s.timeout)
}

// Take implements ratelimit.Store. It is bounded by the configured timeout, not
// by ctx.
func (s *Store) Take(ctx context.Context, reqs []ratelimit.Request, dst []ratelimit.Result) ([]ratelimit.Result, error) {
	if err := ratelimit.Check(reqs); err != nil || len(reqs) == 0 {
		return dst[:0], err
	}
	ctx, cancel := s.bound(ctx)
	defer cancel()
	return s.take(ctx, reqs, dst)
}

func (s *Store) take(ctx context.Context, reqs []ratelimit.Request, dst []ratelimit.Result) ([]ratelimit.Result, error) {
	var results []ratelimit.Result
	var err error
	if s.cluster {
		results, err = s.takeGroups(ctx, reqs, dst)
	} else {
		var states []int64
		var charged bool
		if states, charged, err = s.run(ctx, "take", reqs); err == nil {
			results, err = settle(reqs, states, charged, dst)
		}
	}
	if err != nil {
		return nil, err
	}
	s.places.hold(reqs, results)
	return results, nil
}

// settle turns what the script saw into results, by the same function every
// store uses. That both came to the same decision is checked each time: a
// script replaced or a number cut short must not go unnoticed.
func settle(reqs []ratelimit.Request, states []int64, charged bool, dst []ratelimit.Result) ([]ratelimit.Result, error) {
	results, agreed := ratelimit.Settle(0, reqs, states, dst)
	if agreed != charged {
		return nil, errors.New("ratelimit: redis and gateway disagree on a decision")
	}
	return results, nil
}

// Release implements ratelimit.Releaser: what is no longer held expires.
func (s *Store) Release(reqs []ratelimit.Request) { s.places.drop(reqs) }

// Give implements ratelimit.Store.
func (s *Store) Give(ctx context.Context, reqs []ratelimit.Request) error {
	s.places.drop(reqs)
	return s.change(ctx, "give", reqs, (*ratelimit.Request).Refundable)
}

// Debit implements ratelimit.Store.
func (s *Store) Debit(ctx context.Context, reqs []ratelimit.Request) error {
	return s.change(ctx, "debit", reqs, func(r *ratelimit.Request) bool { return r.Slots == 0 && r.Cost > 0 })
}

// change runs the script for those requests that it can change anything for.
func (s *Store) change(ctx context.Context, op string, reqs []ratelimit.Request, changes func(*ratelimit.Request) bool) error {
	if err := ratelimit.Check(reqs); err != nil {
		return err
	}
	some := make([]ratelimit.Request, 0, len(reqs))
	for i := range reqs {
		if changes(&reqs[i]) {
			some = append(some, reqs[i])
		}
	}
	ctx, cancel := s.bound(ctx)
	defer cancel()
	return s.each(some, func(group []ratelimit.Request) error {
		_, _, err := s.run(ctx, op, group)
		return err
	})
}

func (s *Store) holdPlacesFor(ttl time.Duration) {
	s.ttl = ttl
	s.places.renew, s.places.every = s.renew, ttl/renewals
}

// renew keeps places from expiring.
func (s *Store) renew(reqs []ratelimit.Request) {
	// Failing is for the next renewal to make good; what expires until then is a
	// place that somebody else may take. Each group has its own time, so that a
	// node that stands still costs no place on another.
	_ = s.each(reqs, func(group []ratelimit.Request) error {
		ctx, cancel := s.bound(context.Background())
		defer cancel()
		_, _, err := s.run(ctx, "renew", group)
		return err
	})
}

// Probe runs the script so that it writes, which a server that is out of memory, a
// read-only replica and one that does not let this user run it refuse.
func (s *Store) Probe() error {
	ctx, cancel := s.bound(context.Background())
	defer cancel()
	_, _, err := s.run(ctx, "take", []ratelimit.Request{{
		Limit: "probe", Subject: "probe", Rate: ratelimit.Rate{N: 1000, Window: time.Second}, Cost: 1,
	}})
	return err
}

// Reset implements ratelimit.Store. Other instances are told; see Watch.
func (s *Store) Reset(ctx context.Context, reqs []ratelimit.Request) error {
	if err := ratelimit.Check(reqs); err != nil {
		return err
	}
	ctx, cancel := s.bound(ctx)
	defer cancel()
	err := s.each(reqs, func(group []ratelimit.Request) error {
		if err := s.client.Del(ctx, s.keys(group)...).Err(); err != nil {
			return fmt.Errorf("ratelimit: redis: %w", err)
		}
		return nil
	})
	if err == nil && len(reqs) > 0 {
		s.announce(ctx, reqs)
	}
	return err
}
