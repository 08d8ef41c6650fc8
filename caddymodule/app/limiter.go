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

// Pools of what limits count with: counters must survive reloads.
var (
	memories = caddy.NewUsagePool()
	redises  = caddy.NewUsagePool()
)

// limiter is a configuration's view of the stores.
type limiter struct {
	memory    *sharedMemory
	redis     *sharedRedis
	onError   string
	instances int
}

// degraded reports whether limits that Redis should hold go by on_error.
func (l *limiter) degraded() bool {
	return l.redis != nil && l.redis.breaker.Degraded()
}

// sharedMemory is the store of this instance.
type sharedMemory struct{ *memory.Store }

// Destruct has nothing to close.
func (*sharedMemory) Destruct() error { return nil }

// sharedRedis is the client, its circuit breaker and the store of this instance
// that takes over while Redis is away. That one is apart from the store of
// limits that never were in Redis.
type sharedRedis struct {
	// key tells two clients apart: a change of any option makes another.
	key     string
	client  redis.UniversalClient
	store   *redisstore.Store
	breaker *ratelimit.Breaker
	local   *memory.Store
}

// warm opens a few connections, so that the first requests need not dial.
func (s *sharedRedis) warm() {
	for range 4 {
		go func() { _ = s.client.Ping(context.Background()).Err() }() // The client has its own budget.
	}
}

// Destruct closes the client, after the requests of the last configuration had
// time to end.
func (s *sharedRedis) Destruct() error {
	if caddy.Exiting() {
		return s.client.Close()
	}
	time.AfterFunc(linger, func() { _ = s.client.Close() })
	return nil
}

func (a *App) provisionLimiter() error {
	a.limiter = &limiter{onError: "local", instances: 1}
	var err error
	a.limiter.memory, err = hold(a, memories, "memory", func() (*sharedMemory, error) {
		store, err := memory.New(memory.Config{})
		return &sharedMemory{store}, err
	})
	if err != nil || a.Redis == nil {
		return err
	}
	if a.Redis.OnError != "" {
		a.limiter.onError = a.Redis.OnError
	}
	if a.Redis.OnError == "open" {
		a.logger.Warn("redis: on_error open: nothing is limited while Redis is away")
	}
	if a.Redis.Instances > 0 {
		a.limiter.instances = a.Redis.Instances
	}
	options, err := a.Redis.options()
	if err != nil {
		return err
	}
	key := redisconn.Key(options)
	a.limiter.redis, err = hold(a, redises, "redis "+key, func() (*sharedRedis, error) {
		return openRedis(key, options)
	})
	return err
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
func openRedis(key string, o redisconn.Options) (*sharedRedis, error) {
	client, err := redisconn.New(o)
	if err != nil {
		return nil, fmt.Errorf("redis: %w", err)
	}
	store, err := redisstore.New(client, redisstore.Config{Timeout: o.Timeout})
	if err != nil {
		return nil, fmt.Errorf("redis: %w", err)
	}
	local, err := memory.New(memory.Config{})
	if err != nil {
		return nil, err
	}
	return &sharedRedis{
		key: key, client: client, store: store, local: local,
		breaker: ratelimit.NewBreaker(ratelimit.BreakerConfig{OnChange: func(bool) { storeChanged() }}),
	}, nil
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
func (a *App) Limiter(onError string, instances int) (ratelimit.Store, error) {
	if a.limiter.redis == nil {
		return a.limiter.memory, nil
	}
	if onError == "" {
		onError = a.limiter.onError
	}
	policy, err := ratelimit.ParseOnError(onError)
	if err != nil {
		return nil, err
	}
	if instances == 0 {
		instances = a.limiter.instances
	}
	return ratelimit.NewGuarded(ratelimit.GuardedConfig{
		Remote:    a.limiter.redis.store,
		Local:     a.limiter.redis.local,
		Policy:    policy,
		Instances: instances,
		Breaker:   a.limiter.redis.breaker,
	})
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
