package memory_test

import (
	"context"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/ratelimit"
	"github.com/moat-gateway/moat/internal/ratelimit/memory"
)

func BenchmarkTake(b *testing.B) {
	for _, n := range []int{1, 4} {
		b.Run("limits="+strconv.Itoa(n), func(b *testing.B) {
			s := newStore(b, memory.Config{})
			var reqs []ratelimit.Request
			for i := range n {
				reqs = append(reqs, one("limit"+strconv.Itoa(i), "192.0.2.1", perMinute, 1)...)
			}
			dst := make([]ratelimit.Result, 0, n)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Take(context.Background(), reqs, dst); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkTakeParallel has 64 callers at once: in the worst case of one limit and
// one subject, and each with a subject of its own.
func BenchmarkTakeParallel(b *testing.B) {
	b.Run("one key", func(b *testing.B) { benchmarkParallel(b, 64, false) })
	b.Run("distinct keys", func(b *testing.B) { benchmarkParallel(b, 64, true) })
}

func benchmarkParallel(b *testing.B, goroutines int, distinct bool) {
	var callers atomic.Int64
	s := newStore(b, memory.Config{})
	rate := ratelimit.Rate{N: 1000, Window: time.Second}
	b.SetParallelism(max(1, goroutines/runtime.GOMAXPROCS(0)))
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		subject := "192.0.2.1"
		if distinct {
			subject += strconv.FormatInt(callers.Add(1), 10)
		}
		reqs := one("default", subject, rate, 1)
		dst := make([]ratelimit.Result, 0, 1)
		for pb.Next() {
			if _, err := s.Take(context.Background(), reqs, dst); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// BenchmarkFlood is a stranger a call against a store that is full.
func BenchmarkFlood(b *testing.B) {
	s := newStore(b, memory.Config{Capacity: 100_000})
	subjects := make([]string, 1<<20)
	for i := range subjects {
		subjects[i] = strconv.Itoa(i)
	}
	reqs := one("default", "", perMinute, 1)
	dst := make([]ratelimit.Result, 0, 1)
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		reqs[0].Subject = subjects[i%len(subjects)]
		i++
		if _, err := s.Take(context.Background(), reqs, dst); err != nil {
			b.Fatal(err)
		}
	}
}
