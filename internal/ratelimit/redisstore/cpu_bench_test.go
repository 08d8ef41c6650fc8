package redisstore_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/moat-gateway/moat/internal/ratelimit"
	"github.com/moat-gateway/moat/internal/ratelimit/redisstore"
	"github.com/moat-gateway/moat/internal/redisconn/redistest"
)

// smallest is a script that does nothing: what any EVALSHA costs.
var smallest = redis.NewScript("return 1")

// BenchmarkCPU prints the processor time of one decision on either side, next to an
// EVALSHA that decides nothing, for one caller and for 64 at once. Each has a
// subject of its own, as different clients do. "autopipelined" is the client
// library's own batching of concurrent calls.
func BenchmarkCPU(b *testing.B) {
	server := redistest.Start(b)
	client := newClient(b, server.URL(), patient)
	s := newStore(b, client, redisstore.Config{})
	rate := ratelimit.Rate{N: 1_000_000, Window: time.Second}
	piped, err := client.(*redis.Client).AutoPipeline()
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = piped.Close() }()
	evalsha := func(on redis.Scripter) func(int) error {
		return func(n int) error {
			return smallest.Run(context.Background(), on, []string{"{key" + strconv.Itoa(n) + "}"}, "take", "", 1, 1000, 1).Err()
		}
	}
	for _, callers := range []int{1, 4, 16, 64} {
		for _, row := range []struct {
			name string
			call func(caller int) error
		}{
			{"evalsha", evalsha(client)},
			{"evalsha-autopipelined", evalsha(piped)},
			{"take", func(n int) error {
				_, err := s.Take(context.Background(), one("limit", strconv.Itoa(n), rate, 1), nil)
				return err
			}},
			{"take-4-limits", func(n int) error {
				var reqs []ratelimit.Request
				for i := range 4 {
					reqs = append(reqs, one("limit"+strconv.Itoa(i), strconv.Itoa(n), rate, 1)...)
				}
				_, err := s.Take(context.Background(), reqs, nil)
				return err
			}},
		} {
			b.Run(fmt.Sprintf("callers=%d/%s", callers, row.name), func(b *testing.B) { measureCPU(b, client, callers, row.call) })
		}
	}
}

func measureCPU(b *testing.B, client redis.UniversalClient, callers int, call func(int) error) {
	b.Helper()
	b.ReportAllocs()
	var left atomic.Int64
	left.Store(int64(b.N))
	slowest := make([][]time.Duration, callers)
	serverBefore, clientBefore := serverCPU(b, client), ownCPU(b)
	b.ResetTimer()
	var wg sync.WaitGroup
	for n := range callers {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				start := time.Now()
				if err := call(n); err != nil {
					b.Error(err)
					return
				}
				slowest[n] = append(slowest[n], time.Since(start))
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64((serverCPU(b, client)-serverBefore).Nanoseconds())/float64(b.N), "server-ns/op")
	b.ReportMetric(float64((ownCPU(b)-clientBefore).Nanoseconds())/float64(b.N), "client-ns/op")
	all := slices.Concat(slowest...)
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-µs")
}

func serverCPU(tb testing.TB, client redis.UniversalClient) time.Duration {
	tb.Helper()
	info, err := client.Info(context.Background(), "cpu").Result()
	if err != nil {
		tb.Fatal(err)
	}
	var total time.Duration
	for line := range strings.Lines(info) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if name == "used_cpu_user" || name == "used_cpu_sys" {
			d, err := time.ParseDuration(value + "s")
			if err != nil {
				tb.Fatal(err)
			}
			total += d
		}
	}
	return total
}

func ownCPU(tb testing.TB) time.Duration {
	tb.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
