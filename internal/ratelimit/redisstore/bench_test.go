package redisstore_test

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/ratelimit"
	"github.com/moat-gateway/moat/internal/ratelimit/redisstore"
	"github.com/moat-gateway/moat/internal/redisconn/redistest"
)

func BenchmarkTake(b *testing.B) {
	server := redistest.Start(b)
	s := newStore(b, newClient(b, server.URL(), patient), redisstore.Config{})
	rate := ratelimit.Rate{N: 1000, Window: time.Second}
	for _, n := range []int{1, 4} {
		var reqs []ratelimit.Request
		for i := range n {
			reqs = append(reqs, one("limit"+strconv.Itoa(i), "192.0.2.1", rate, 1)...)
		}
		b.Run("limits="+strconv.Itoa(n), func(b *testing.B) {
			dst := make([]ratelimit.Result, 0, n)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Take(context.Background(), reqs, dst); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("parallel/limits="+strconv.Itoa(n), func(b *testing.B) {
			b.SetParallelism(16)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := s.Take(context.Background(), reqs, nil); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
