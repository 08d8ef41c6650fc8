//go:build linux && soak

package integration

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestSoakKilledWhileItDelivers kills often enough to meet moments that are rare.
func TestSoakKilledWhileItDelivers(t *testing.T) { killedSinks(t, 30) }

// TestSoakCostOfTenSinks sends the same requests, in turns, to a gateway whose
// journal nobody follows and to one that ten sinks follow, and prints what a
// request took. It checks nothing but that all were answered.
func TestSoakCostOfTenSinks(t *testing.T) {
	with, list := sinksSite(t, "100ms")
	without := startSite(t, siteConfig{}, nil)
	sites := []*site{without, with}
	users := []string{bearer(without.Issuer.as(t, "u-1", "user")), bearer(with.Issuer.as(t, "u-1", "user"))}
	for _, rate := range []int{100, 0} {
		times, cpu, count := [2][]time.Duration{}, [2]time.Duration{}, [2]int{}
		var ratios []float64
		for round := range 10 {
			var medians [2]float64
			for n := range 2 {
				n = (n + round) % 2
				before := cpuOf(t, sites[n])
				took := burst(t, sites[n], users[n], rate, 2*time.Second)
				cpu[n] += cpuOf(t, sites[n]) - before
				count[n] += len(took)
				times[n] = append(times[n], took...)
				slices.Sort(took)
				medians[n] = float64(took[len(took)/2])
			}
			ratios = append(ratios, medians[1]/medians[0])
		}
		slices.Sort(ratios)
		for n, name := range []string{"no sink", "ten sinks"} {
			slices.Sort(times[n])
			t.Logf("rate %d: %s: %d requests, p50 %s, p99 %s, %s of CPU a request", rate, name, count[n],
				times[n][len(times[n])/2], times[n][len(times[n])*99/100], (cpu[n] / time.Duration(count[n])).Round(time.Microsecond))
		}
		t.Logf("rate %d: median times of a round, ten sinks against none: x%.2f [%.2f..%.2f]", rate, ratios[len(ratios)/2], ratios[1], ratios[len(ratios)-2])
	}
	want := awaitPlaces(t, with, list, 3*time.Minute)
	for _, p := range list {
		checkPlace(t, p, want)
	}
}

// burst sends requests from four clients, each so many in a second, or as many as
// it can, and returns how long each took.
func burst(t *testing.T, s *site, user string, rate int, length time.Duration) []time.Duration {
	t.Helper()
	var mu sync.Mutex
	var all []time.Duration
	var group sync.WaitGroup
	end := time.Now().Add(length)
	for range 4 {
		group.Go(func() {
			var mine []time.Duration
			next := time.Now()
			for time.Now().Before(end) {
				begin := time.Now()
				if a, err := s.web.try("GET", "/me", "", user); err != nil || a.Status != 200 {
					t.Errorf("status %d, %v", a.Status, err)
					return
				}
				mine = append(mine, time.Since(begin))
				if rate > 0 {
					next = next.Add(time.Second / time.Duration(rate))
					time.Sleep(time.Until(next))
				}
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, mine...)
		})
	}
	group.Wait()
	return all
}

// cpuOf is how much processor time the gateway has used.
func cpuOf(t *testing.T, s *site) time.Duration {
	t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.pid()))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(raw), ") ")
	var ticks int
	for _, field := range strings.Fields(rest)[11:13] {
		n, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond // a tick is a hundredth of a second
}
