package report_test

import (
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/headers/report"
)

// clock is a hand-set clock and a record of what was emitted.
type clock struct {
	now   time.Time
	calls []string
	last  report.Reported
	sum   int64
}

var (
	here  = netip.MustParseAddr("192.0.2.1")
	there = netip.MustParseAddr("2001:db8::1")
)

func (c *clock) collector(cfg report.CollectorConfig) *report.Collector {
	c.now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	cfg.Now = func() time.Time { return c.now }
	cfg.Emit = func(r report.Reported) {
		c.calls = append(c.calls, fmt.Sprintf("%s %d", r.Blocked, r.Count))
		c.last, c.sum = r, c.sum+r.Count
	}
	return report.NewCollector(cfg)
}

// expect checks what was emitted since the last time.
func (c *clock) expect(t *testing.T, want ...string) {
	t.Helper()
	if fmt.Sprint(c.calls) != fmt.Sprint(want) {
		t.Errorf("emitted %q, want %q", c.calls, want)
	}
	c.calls = nil
}

func image(blocked string) report.Violation {
	return report.Violation{Directive: "img-src", Blocked: blocked, Kind: report.KindOrigin, Document: "/"}
}

func TestTheFirstIsToldAtOnceAndTheRestOnceAnInterval(t *testing.T) {
	var c clock
	col := c.collector(report.CollectorConfig{})
	for range 5 {
		col.Add(image("a"), here)
	}
	c.expect(t, "a 1")
	c.now = c.now.Add(59 * time.Second)
	col.Sweep()
	c.expect(t)
	c.now = c.now.Add(time.Second)
	col.Sweep()
	c.expect(t, "a 4")
	col.Add(image("a"), here)
	c.now = c.now.Add(59 * time.Second)
	col.Add(image("a"), here)
	c.expect(t)
	c.now = c.now.Add(time.Second)
	col.Add(image("a"), here)
	c.expect(t, "a 3")
	col.Add(image("a"), here)
	col.Close()
	c.expect(t, "a 1")
	if c.sum != 9 {
		t.Errorf("the counts make %d, want 9", c.sum)
	}
}

func TestASilentKeyIsForgotten(t *testing.T) {
	var c clock
	col := c.collector(report.CollectorConfig{Interval: time.Second})
	col.Add(image("a"), here)
	c.now = c.now.Add(time.Second)
	col.Sweep()
	if col.Len() != 0 {
		t.Errorf("%d keys are remembered", col.Len())
	}
	col.Add(image("a"), here)
	c.expect(t, "a 1", "a 1")
}

func TestEachPartOfAKeyMakesAnotherKey(t *testing.T) {
	var c clock
	col := c.collector(report.CollectorConfig{})
	v := image("a")
	same := v
	same.Line, same.Source = 7, "/x.js"
	directive, document, disposition, noise := v, v, v, v
	directive.Directive, document.Document, disposition.Disposition, noise.Noise = "font-src", "/x", "enforce", true
	for _, v := range []report.Violation{v, same, directive, document, disposition, noise} {
		col.Add(v, here)
	}
	c.expect(t, "a 1", "a 1", "a 1", "a 1", "a 1")
}

func TestAFullCollectorTakesNoFurtherKeysUntilOneWasSilent(t *testing.T) {
	var c clock
	col := c.collector(report.CollectorConfig{MaxKeys: 2})
	for blocked, want := range map[string]bool{"a": true, "b": true} {
		if col.Add(image(blocked), here) != want {
			t.Errorf("%s: not %v", blocked, want)
		}
	}
	c.calls = nil
	if col.Add(image("c"), here) || col.Add(image("d"), here) || !col.Add(image("a"), here) || col.Len() != 2 {
		t.Errorf("%d keys", col.Len())
	}
	c.expect(t)
	c.now = c.now.Add(time.Minute)
	if !col.Add(image("c"), here) { // b was silent and makes room
		t.Error("no room for c")
	}
	c.expect(t, "a 1", "c 1")
	if col.Add(image("d"), here) || col.Len() != 2 {
		t.Errorf("%d keys", col.Len())
	}
	c.expect(t)
}

func TestOneNetworkCannotTakeThePlaceOfAll(t *testing.T) {
	var c clock
	col := c.collector(report.CollectorConfig{})
	for i := range 500 {
		from := netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 7: byte(i), 15: byte(i)})
		if ok := col.Add(image(fmt.Sprint(i)), from); ok != (i < 200) {
			t.Fatalf("key %d of one network of 48 bits: %v", i, ok)
		}
	}
	if !col.Add(image("of another"), here) || !col.Add(image("0"), there) {
		t.Error("no room for others")
	}
	// What became silent is no longer counted.
	c.now = c.now.Add(time.Minute)
	col.Sweep()
	c.now = c.now.Add(time.Minute)
	col.Sweep()
	if col.Len() != 0 || !col.Add(image("again"), there) {
		t.Errorf("%d keys", col.Len())
	}
}

func TestWhoReportsIsCountedByNetwork(t *testing.T) {
	var c clock
	col := c.collector(report.CollectorConfig{})
	col.Add(image("a"), here)
	if c.last.From != here || c.last.Networks != 1 {
		t.Errorf("first: %+v", c.last)
	}
	for range 3 {
		for _, from := range []string{"2001:db8::1", "2001:db8::2", "2001:db8:0:1::1", "2001:db8:1::1", "192.0.2.9", "::ffff:192.0.2.9"} {
			col.Add(image("a"), netip.MustParseAddr(from))
		}
	}
	col.Close()
	if c.last.From != there || c.last.Networks != 3 || c.last.Count != 18 {
		t.Errorf("then: %+v", c.last)
	}
}

// A flood of keys must not make every report walk the whole table.
func TestAFullCollectorLooksForRoomOnceAnInterval(t *testing.T) {
	var c clock
	col := c.collector(report.CollectorConfig{MaxKeys: 1})
	col.Add(image("a"), here)
	c.now = c.now.Add(30 * time.Second)
	col.Sweep()
	c.now = c.now.Add(30 * time.Second)
	col.Add(image("b"), here)
	c.expect(t, "a 1")
	c.now = c.now.Add(30 * time.Second)
	col.Add(image("b"), here)
	c.expect(t, "b 1")
}

func TestTheDefaultIsTwoThousandKeys(t *testing.T) {
	var c clock
	col := c.collector(report.CollectorConfig{})
	for i := range 2500 {
		col.Add(image(fmt.Sprint(i)), netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}))
	}
	if col.Len() != 2000 {
		t.Errorf("%d keys", col.Len())
	}
}

func TestAClockThatGoesBackHoldsNothingBackForever(t *testing.T) {
	var c clock
	col := c.collector(report.CollectorConfig{})
	col.Add(image("a"), here)
	col.Add(image("a"), here)
	c.now = c.now.Add(-time.Hour)
	col.Sweep()
	c.expect(t, "a 1", "a 1")
}

func TestNothingIsToldAfterClose(t *testing.T) {
	var c clock
	col := c.collector(report.CollectorConfig{})
	col.Close()
	col.Close()
	if col.Add(image("a"), here) || col.Len() != 0 {
		t.Errorf("%d keys", col.Len())
	}
	col.Sweep()
	c.expect(t)
}

// Emit may use the collector, which would not return if it held its lock.
func TestEmitRunsOutsideTheLock(t *testing.T) {
	var col *report.Collector
	calls := 0
	col = report.NewCollector(report.CollectorConfig{Emit: func(report.Reported) { calls += col.Len() }})
	col.Add(image("a"), here)
	col.Add(image("a"), here)
	col.Close()
	if calls != 1 { // after Close nothing is remembered
		t.Errorf("got %d", calls)
	}
}

func TestNoCountIsLostAmongGoroutines(t *testing.T) {
	var told, lost atomic.Int64
	col := report.NewCollector(report.CollectorConfig{
		MaxKeys: 8, Interval: time.Nanosecond,
		Emit: func(r report.Reported) { told.Add(r.Count) },
	})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 2000 {
				if !col.Add(image(fmt.Sprint((g+i)%12)), here) {
					lost.Add(1)
				}
				if i%100 == 0 {
					col.Sweep()
				}
			}
		})
	}
	wg.Wait()
	col.Close()
	if got := told.Load() + lost.Load(); got != 16000 {
		t.Errorf("%d of 16000 are accounted for", got)
	}
}

func TestARepetitionCostsNoAllocation(t *testing.T) {
	col := report.NewCollector(report.CollectorConfig{Emit: func(report.Reported) {}})
	v := image("https://cdn.example.net")
	col.Add(v, here)
	if n := testing.AllocsPerRun(1000, func() { col.Add(v, here) }); n > 0 {
		t.Errorf("%.1f allocations, want none", n)
	}
}
