package sinks

import (
	"errors"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/redis/go-redis/v9"

	"github.com/moat-gateway/moat/caddymodule/internal/dispense"
	"github.com/moat-gateway/moat/internal/audit/follow"
	"github.com/moat-gateway/moat/internal/audit/sinks/redisstream"
)

// RedisStream adds each event to a stream of the Redis that the redis block
// names, one stream for each gateway. The id of an entry is the event's number,
// so that an event that is delivered again is there once.
type RedisStream struct {
	// Key of the streams; the instance's name is appended after a colon.
	Key string `json:"key,omitempty"`
	// Timeout is the budget of one delivery. Default: 2s.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	client redis.UniversalClient
	block  string
}

// CaddyModule returns the module's registration.
func (*RedisStream) CaddyModule() caddy.ModuleInfo {
	return module("redis_stream", func() caddy.Module { return new(RedisStream) })
}

// Provision expands placeholders.
func (s *RedisStream) Provision(caddy.Context) error {
	return expand(map[string]*string{"key": &s.Key})
}

// UseRedis gives the sink the client of the redis block, whose settings the block
// stands for: the sink cannot outlive it.
func (s *RedisStream) UseRedis(block string, client redis.UniversalClient) {
	s.block, s.client = block, client
}

// Target implements follow.Settings.
func (s *RedisStream) Target() follow.Target {
	return follow.Target{Timeout: time.Duration(s.Timeout), Place: s.Key, Means: meansOf(s.Timeout, s.block)}
}

// Open implements follow.Settings.
func (s *RedisStream) Open() (follow.Sink, error) {
	return redisstream.New(s.client, redisstream.Config{Key: s.Key, Timeout: time.Duration(s.Timeout)})
}

// UnmarshalCaddyfile reads:
//
//	redis_stream <key> {
//		timeout <duration>
//	}
func (s *RedisStream) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	return errors.Join(named(d, &s.Key), dispense.Words{
		"timeout": timeout(&s.Timeout),
	}.Block(d, "sink redis_stream"))
}
