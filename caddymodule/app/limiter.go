package app

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"github.com/moat-gateway/moat/caddymodule/internal/dispense"
	"github.com/moat-gateway/moat/internal/audit"
	"github.com/moat-gateway/moat/internal/ratelimit"
	"github.com/moat-gateway/moat/internal/ratelimit/memory"
	"github.com/moat-gateway/moat/internal/ratelimit/redisstore"
	"github.com/moat-gateway/moat/internal/redisconn"
)

// Redis is the store that makes limits hold across instances.
type Redis struct {
	// URL such as redis://127.0.0.1:6379/0, rediss://… for TLS or
	// unix:///run/redis.sock.
	URL string `json:"url"`
	// Username and Password of the ACL user. Use a placeholder: {env.X} or
	// {file./run/secrets/x}.
	Username string `json:"username,omitempty"`
	Password string `json:"password,omitempty"`
	// Timeout is the budget of one call. Default: 50ms.
	Timeout caddy.Duration `json:"timeout,omitempty"`
	// OnError says what holds while Redis is away: "local" (default), "open" or
	// "closed".
	OnError string `json:"on_error,omitempty"`
	// Instances is the number of gateways that share this Redis. With on_error
	// local each grants N divided by it. Default: 1.
	Instances int `json:"instances,omitempty"`
}

// Limits are the settings that all limits share.
type Limits struct {
	// Capacity is how many callers are counted at most in this instance's memory.
	// When as many are, nobody's count is dropped: callers not yet known share one
	// bucket per limit until others are full again. Between 1 and 100000000; each
	// takes about 55 bytes. Default: 1000000.
	Capacity int `json:"capacity,omitempty"`
}

// Pools of what limits count with: counters must survive reloads.
var (
	memories = caddy.NewUsagePool()
	redises  = caddy.NewUsagePool()
)

// limiter is a configuration's view of the stores.
type limiter struct {
	memory   *sharedMemory
	redis    *sharedRedis
	fallback ratelimit.Fallback
	capacity int
	named    []ratelimit.Named
	grants   map[string]string // by bucket
}

// store is what limits are charged to.
func (l *limiter) store() ratelimit.Store {
	if l.redis == nil {
		return l.memory
	}
	return l.redis.front
}

// degraded reports whether limits that Redis should hold go by on_error.
func (l *limiter) degraded() bool {
	return l.redis != nil && l.redis.breaker.Degraded()
}

// establish applies what a running configuration may change about stores that
// outlive it. What was remembered of refusals goes: limits may have changed.
func (l *limiter) establish() {
	_ = l.memory.SetCapacity(l.capacity) // Checked before.
	if l.redis != nil {
		_ = l.redis.local.SetCapacity(l.capacity)
		l.redis.forget(nil)
	}
}

// sharedMemory is the store of this instance.
type sharedMemory struct{ *memory.Store }

// Destruct has nothing to close.
func (*sharedMemory) Destruct() error { return nil }

// sharedRedis is the client, its circuit breaker, the store of this instance that
// takes over while Redis is away, and what saves calls in front. The local store
// is apart from the one of limits that never were in Redis.
type sharedRedis struct {
	// key tells two clients apart: a change of any option makes another.
	key     string
	client  redis.UniversalClient
	store   *redisstore.Store
	breaker *ratelimit.Breaker
	local   *memory.Store
	denials *ratelimit.Denials
	leases  *ratelimit.Leases
	front   ratelimit.Store

	watching sync.Once
	unwatch  context.CancelFunc
	watched  context.Context
}

// forget drops what is known of the buckets besides what Redis holds, or for nil
// what saves calls, of all.
func (s *sharedRedis) forget(keys [][16]byte) {
	s.leases.Forget(keys)
	s.denials.Forget(keys)
	s.local.Forget(keys)
}

// warm opens a few connections, so that the first requests need not dial, and
// begins to listen for what other instances reset.
func (s *sharedRedis) warm() {
	s.watching.Do(func() { go s.store.Watch(s.watched, s.forget) })
	for range 4 {
		go func() { _ = s.client.Ping(context.Background()).Err() }() // The client has its own budget.
	}
}

// Destruct closes the client, after the requests of the last configuration had
// time to end.
func (s *sharedRedis) Destruct() error {
	s.unwatch()
	s.breaker.Close()
	if caddy.Exiting() {
		return s.client.Close()
	}
	time.AfterFunc(linger, func() { _ = s.client.Close() })
	return nil
}

func (a *App) provisionLimiter() error {
	a.limiter = &limiter{capacity: memory.DefaultCapacity}
	if a.Limits != nil && a.Limits.Capacity != 0 {
		a.limiter.capacity = a.Limits.Capacity
	}
	if n := a.limiter.capacity; n < 1 || n > memory.MaxCapacity {
		return fmt.Errorf("limits: capacity %d: must be between 1 and %d", n, memory.MaxCapacity)
	}
	var err error
	// The capacity is not part of the key: counters outlive a change of it.
	a.limiter.memory, err = hold(a, memories, "memory", func() (*sharedMemory, error) {
		store, err := memory.New(memory.Config{Capacity: a.limiter.capacity})
		return &sharedMemory{store}, err
	})
	if err != nil || a.Redis == nil {
		return err
	}
	if a.limiter.fallback, err = a.Redis.fallback(); err != nil {
		return err
	}
	if a.limiter.fallback.OnError == ratelimit.Open {
		a.logger.Warn("redis: on_error open: nothing is limited while Redis is away")
	}
	options, err := a.Redis.options()
	if err != nil {
		return err
	}
	key := redisconn.Key(options)
	a.limiter.redis, err = hold(a, redises, "redis "+key, func() (*sharedRedis, error) {
		return openRedis(key, options, a.limiter.capacity)
	})
	return err
}

// fallback is what holds while Redis is away, unless a limit says otherwise.
func (r *Redis) fallback() (ratelimit.Fallback, error) {
	f := ratelimit.Fallback{Instances: r.Instances}
	if r.Instances < 0 || r.Instances > ratelimit.MaxInstances {
		return f, fmt.Errorf("redis: instances %d: must be between 1 and %d", r.Instances, ratelimit.MaxInstances)
	}
	if r.OnError == "" {
		return f, nil
	}
	var err error
	if f.OnError, err = ratelimit.ParseOnError(r.OnError); err != nil {
		return f, fmt.Errorf("redis: %w", err)
	}
	return f, nil
}

func (r *Redis) options() (redisconn.Options, error) {
	var errs []error
	expand := func(word, value string) string {
		if value == "" {
			return ""
		}
		out, err := dispense.Expand("redis: "+word, value)
		errs = append(errs, err)
		return out
	}
	o := redisconn.Options{
		URL:      expand("url", r.URL),
		Username: expand("username", r.Username),
		Password: expand("password", r.Password),
		Timeout:  time.Duration(r.Timeout),
	}
	if err := errors.Join(errs...); err != nil {
		return o, err
	}
	if err := o.Validate(); err != nil {
		return o, fmt.Errorf("redis: %w", err)
	}
	return o, nil
}

// openRedis dials nothing: the first call does.
func openRedis(key string, o redisconn.Options, capacity int) (*sharedRedis, error) {
	client, err := redisconn.New(o)
	if err != nil {
		return nil, fmt.Errorf("redis: %w", err)
	}
	store, err := redisstore.New(client, redisstore.Config{Timeout: o.Timeout})
	if err != nil {
		return nil, fmt.Errorf("redis: %w", err)
	}
	local, err := memory.New(memory.Config{Capacity: capacity})
	if err != nil {
		return nil, err
	}
	s := &sharedRedis{
		key: key, client: client, store: store, local: local,
		breaker: ratelimit.NewBreaker(ratelimit.BreakerConfig{
			OnChange: func(bool) { storeChanged() }, Probe: store.Probe,
		}),
	}
	guarded, err := ratelimit.NewGuarded(ratelimit.GuardedConfig{Remote: store, Local: local, Breaker: s.breaker})
	if err != nil {
		return nil, err
	}
	s.denials = ratelimit.NewDenials(guarded, nil)
	s.leases = ratelimit.NewLeases(s.denials, nil)
	s.front = s.leases
	s.watched, s.unwatch = context.WithCancel(context.Background())
	return s, nil
}

// told is what was last made known about the shared limit store.
var told struct {
	sync.Mutex
	degraded bool
}

// storeChanged makes it known, once each, when limits stop and begin again to
// hold across instances. It goes by the store of the live configuration: a
// reload can replace a store that is away by another one, and what requests
// that still run find out about the old one is no news.
func storeChanged() {
	told.Lock()
	defer told.Unlock()
	a := live.Load()
	if a == nil || a.limiter.degraded() == told.degraded {
		return
	}
	told.degraded = !told.degraded
	action := "store.recovered"
	if told.degraded {
		action = "store.degraded"
		a.logger.Error("the shared limit store is away; limits go by on_error until it is back")
	} else {
		a.logger.Info("the shared limit store is back, or another one is configured; limits no longer go by on_error")
	}
	// The caller may be a request that must not wait for the trail.
	go a.trail.event(audit.Admin, action, "redis", audit.Allow, nil)
}

// Limiter implements ratelimit.Source.
func (a *App) Limiter() (ratelimit.Store, ratelimit.Fallback) {
	return a.limiter.store(), a.limiter.fallback
}

// Announce implements ratelimit.Source. Handlers announce while they are
// provisioned, one after the other.
func (a *App) Announce(n ratelimit.Named) error {
	a.limiter.named = append(a.limiter.named, n)
	for bucket, grants := range n.Grants {
		if other, known := a.limiter.grants[bucket]; known && other != grants {
			return fmt.Errorf("counts the same as another limit %q of site %q, at %s where that one has %s: give one of them a name of its own",
				n.Name, n.Site, grants, other)
		}
		if a.limiter.grants == nil {
			a.limiter.grants = make(map[string]string)
		}
		a.limiter.grants[bucket] = grants
	}
	return nil
}

// reachable reports whether Redis answers.
func (a *App) reachable(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	if err := a.limiter.redis.client.Ping(ctx).Err(); err != nil {
		a.logger.Debug("redis does not answer", zap.Error(err))
		return errors.New("does not answer")
	}
	return nil
}
