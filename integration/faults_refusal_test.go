//go:build linux

package integration

import (
	"fmt"
	"testing"
	"time"
)

// TestFaultARefusalDoesNotProveThatTheStoreIsBack has callers without units ask a
// store that reads and does not write: a refusal writes nothing.
func TestFaultARefusalDoesNotProveThatTheStoreIsBack(t *testing.T) {
	t.Parallel()
	for _, f := range storeFaults() {
		if f.name != "OutOfMemory" && f.name != "ReadOnlyReplica" {
			continue
		}
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			r := &faultRun{storeFault: f, redis: startFragileRedis(t)}
			r.site = startSite(t, siteConfig{
				Global: redisBlock, Gate: "limit narrow 1/24h by header:X-Key", Rules: "\n* /** public", Metrics: freePort(t),
			}, map[string]string{"MOAT_REDIS": r.redis.URL})
			// Each has had its unit and was never refused, so each is asked for.
			const callers = 100
			for i := range callers {
				r.wantNarrow(t, fmt.Sprint("spent-", i), 1, 1)
			}
			r.begin(t, r.redis)
			for i := range 12 {
				r.wantNarrow(t, fmt.Sprint("fresh-", i), 1, 1)
			}
			r.awaitGauge(t, faultPatience, "1")
			for i := range callers {
				r.wantNarrow(t, fmt.Sprint("spent-", i), 1, 0)
				time.Sleep(20 * time.Millisecond)
			}
			if got := r.gauge(t); got != "1" {
				t.Errorf("moat_store_degraded %s, want 1: Redis takes no writes", got)
			}
			for _, e := range storeEvents(t, r.site.journal()) {
				if e.Action == "store.recovered" {
					t.Errorf("%s at %s: Redis takes no writes", e.Action, e.Timestamp)
				}
			}
		})
	}
}
