package redisstore

import (
	"context"
	"encoding/hex"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/moat-gateway/moat/internal/ratelimit"
)

// channel is where resets are announced.
func (s *Store) channel() string { return s.prefix + "reset" }

// announce tells all instances that buckets were reset. It is a courtesy: what
// they remember of a refusal is never older than a few seconds.
func (s *Store) announce(ctx context.Context, reqs []ratelimit.Request) {
	names := make([]string, len(reqs))
	for i := range reqs {
		key := ratelimit.KeyHash(reqs[i].Limit, reqs[i].Subject)
		names[i] = hex.EncodeToString(key[:])
	}
	_ = s.client.Publish(ctx, s.channel(), strings.Join(names, " ")).Err()
}

// Watch calls forget with the buckets (see ratelimit.KeyHash) that any instance
// reset, until ctx ends. While the connection is down resets are missed, so each
// time it is made forget is called with nil: forget all. A server that is away
// is tried again for as long as it takes.
func (s *Store) Watch(ctx context.Context, forget func(keys [][16]byte)) {
	sub := s.client.Subscribe(ctx, s.channel())
	defer func() { _ = sub.Close() }()
	messages := sub.ChannelWithSubscriptions()
	for {
		select {
		case <-ctx.Done():
			return
		case message, open := <-messages:
			if !open {
				return
			}
			switch m := message.(type) {
			case *redis.Subscription:
				forget(nil)
			case *redis.Message:
				forget(parseKeys(m.Payload))
			}
		}
	}
}

// parseKeys is nil, which is all, for a message that cannot be read.
func parseKeys(payload string) [][16]byte {
	var keys [][16]byte
	for name := range strings.FieldsSeq(payload) {
		raw, err := hex.DecodeString(name)
		if err != nil || len(raw) != 16 {
			return nil
		}
		keys = append(keys, [16]byte(raw))
	}
	return keys
}
