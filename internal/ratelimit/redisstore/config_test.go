package redisstore_test

import (
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/moat-gateway/moat/internal/ratelimit/redisstore"
	"github.com/moat-gateway/moat/internal/redisconn/redistest"
)

func TestConfigReportsEveryMistake(t *testing.T) {
	server := redistest.Start(t)
	slow := redis.NewClient(&redis.Options{Network: "unix", Addr: server.Addr()})
	defer func() { _ = slow.Close() }()
	slowCluster := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{"127.0.0.1:1"}})
	defer func() { _ = slowCluster.Close() }()
	retrying := redis.NewClient(&redis.Options{ContextTimeoutEnabled: true})
	defer func() { _ = retrying.Close() }()
	retryingCluster := redis.NewClusterClient(&redis.ClusterOptions{ContextTimeoutEnabled: true, MaxRetries: 1})
	defer func() { _ = retryingCluster.Close() }()
	replicas := redis.NewClusterClient(&redis.ClusterOptions{ContextTimeoutEnabled: true, ReadOnly: true})
	defer func() { _ = replicas.Close() }()
	ring := redis.NewRing(&redis.RingOptions{})
	defer func() { _ = ring.Close() }()
	good := newClient(t, server.URL(), 0)
	for _, tt := range []struct {
		name   string
		client redis.UniversalClient
		cfg    redisstore.Config
		want   []string
	}{
		{"no client", nil, redisstore.Config{}, []string{"redis client <nil>"}},
		{"nil client", (*redis.Client)(nil), redisstore.Config{}, []string{"redis client"}},
		{"nil cluster client", (*redis.ClusterClient)(nil), redisstore.Config{}, []string{"redis client"}},
		{"ring", ring, redisstore.Config{}, []string{"*redis.Ring"}},
		{"client with defaults", slow, redisstore.Config{}, []string{"must heed deadlines"}},
		{"cluster with defaults", slowCluster, redisstore.Config{}, []string{"must heed deadlines"}},
		{"client that retries", retrying, redisstore.Config{}, []string{"not retry"}},
		{"cluster that retries", retryingCluster, redisstore.Config{}, []string{"not retry"}},
		{"cluster of replicas", replicas, redisstore.Config{}, []string{"ask masters"}},
		{"braces", good, redisstore.Config{Prefix: "rl:{x}"}, []string{"prefix"}},
		{"long prefix", good, redisstore.Config{Prefix: strings.Repeat("p", 129)}, []string{"prefix"}},
		{"negative timeout", good, redisstore.Config{Timeout: -1}, []string{"timeout"}},
		{"long timeout", good, redisstore.Config{Timeout: time.Minute}, []string{"timeout 1m0s"}},
		{"all", nil, redisstore.Config{Prefix: "{", Timeout: 1}, []string{"prefix", "timeout", "client"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := redisstore.New(tt.client, tt.cfg)
			if err == nil || s != nil {
				t.Fatalf("store %v, error %v", s, err)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not name %q", err, want)
				}
			}
		})
	}
	if _, err := redisstore.New(good, redisstore.Config{}); err != nil {
		t.Errorf("defaults: %v", err)
	}
}
