package headers

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/moat-gateway/moat/caddymodule/internal/exchange"
	"github.com/moat-gateway/moat/internal/headers/report"
	"github.com/moat-gateway/moat/internal/ratelimit/memory"
)

// silentCollector takes reports and tells nobody.
func silentCollector(t *testing.T) *collector {
	t.Helper()
	limits, err := memory.New(memory.Config{Capacity: 10_000})
	if err != nil {
		t.Fatal(err)
	}
	return &collector{limits: limits, reports: report.NewCollector(report.CollectorConfig{}), stop: make(chan struct{})}
}

func (c *collector) post(from string) int {
	r := httptest.NewRequest(http.MethodPost, "/-/csp", strings.NewReader("{}"))
	return c.take(r, &exchange.Exchange{Client: netip.MustParseAddr(from)})
}

// refuses reports whether one of some more requests is refused: the limits refill while
// the test runs.
func (c *collector) refuses(from string, more int64) bool {
	for range more {
		if c.post(from) == http.StatusTooManyRequests {
			return true
		}
	}
	return false
}

// Together, many senders may bring no more than all may.
func TestAllSendersTogetherAreLimited(t *testing.T) {
	c := silentCollector(t)
	for n := range requestsOfAll.N {
		from := netip.AddrFrom4([4]byte{192, 0, byte(n >> 8), byte(n)}).String()
		if status := c.post(from); status == http.StatusTooManyRequests {
			t.Fatalf("request %d is refused", n+1)
		}
	}
	if !c.refuses("198.51.100.1", requestsOfAll.N/10) {
		t.Error("more are taken")
	}
}

func TestOneSenderIsAnIPv6NetworkOf48Bits(t *testing.T) {
	c := silentCollector(t)
	for n := range requestsOfOne.N {
		from := netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 6: byte(n >> 8), 7: byte(n)}).String()
		if status := c.post(from); status == http.StatusTooManyRequests {
			t.Fatalf("request %d is refused", n+1)
		}
	}
	if !c.refuses("2001:db8:0:ffff::1", requestsOfOne.N/10) {
		t.Error("more are taken")
	}
	if status := c.post("2001:db8:1::1"); status == http.StatusTooManyRequests {
		t.Error("another network is refused")
	}
}

func TestTheLogSaysOnceAMinuteThatReportsAreLost(t *testing.T) {
	core, logs := observer.New(zapcore.WarnLevel)
	synctest.Test(t, func(t *testing.T) {
		c := silentCollector(t)
		c.logger = zap.New(core)
		go c.sweep()
		c.refuse(0, refusedRate, 3)
		c.refuse(0, refusedCrowded, 4)
		c.refuse(0, refusedForeign, 5) // Whose reports those are is no loss.
		time.Sleep(3*complainEvery + time.Second)
		close(c.stop)
		synctest.Wait()
	})
	if logs.Len() != 1 || logs.All()[0].ContextMap()["lost"] != int64(7) {
		t.Errorf("logged %v", logs.All())
	}
}
