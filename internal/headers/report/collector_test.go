package report_test

import (
	"fmt"
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
	sum   int64
}

func (c *clock) collector(cfg report.CollectorConfig) *report.Collector {
	c.now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	cfg.Now = func() time.Time { return c.now }
	cfg.Emit = func(v report.Violation, count int64) {
		c.calls = append(c.calls, fmt.Sprintf("%s %d", v.Blocked, count))
		c.sum += count
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
		col.Add(image("a"))
	}
	c.expect(t, "a 1")
	c.now = c.now.Add(59 * time.Second)
	col.Sweep()
	c.expect(t)
	c.now = c.now.Add(time.Second)
	col.Sweep()
	c.expect(t, "a 4")
	col.Add(image("a"))
	c.now = c.now.Add(59 * time.Second)
	col.Add(image("a"))
	c.expect(t)
	c.now = c.now.Add(time.Second)
	col.Add(image("a"))
	c.expect(t, "a 3")
	col.Add(image("a"))
	col.Close()
	c.expect(t, "a 1")
	if c.sum != 9 {
		t.Errorf("the counts make %d, want 9", c.sum)
	}
}

func TestASilentKeyIsForgotten(t *testing.T) {
	var c clock
	col := c.collector(report.CollectorConfig{Interval: time.Second})
	col.Add(image("a"))
	c.now = c.now.Add(time.Second)
	col.Sweep()
	if col.Len() != 0 {
		t.Errorf("%d keys are remembered", col.Len())
	}
	col.Add(image("a"))
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
		col.Add(v)
	}
	c.expect(t, "a 1", "a 1", "a 1", "a 1", "a 1")
}

func TestAFullCollectorCountsFurtherKeysAndTakesThemLater(t *testing.T) {
	var c clock
	col := c.collector(report.CollectorConfig{MaxKeys: 2})
	for _, blocked := range []string{"a", "b", "c", "d", "a"} {
		col.Add(image(blocked))
	}
	c.expect(t, "a 1", "b 1")
	if col.Overflow() != 2 || col.Len() != 2 {
		t.Errorf("overflow %d, %d keys", col.Overflow(), col.Len())
	}
	c.now = c.now.Add(time.Minute)
	col.Add(image("c")) // b was silent and makes room
	c.expect(t, "a 1", "c 1")
	col.Add(image("d"))
	c.expect(t)
	if col.Overflow() != 3 || col.Len() != 2 {
		t.Errorf("overflow %d, %d keys", col.Overflow(), col.Len())
	}
}

// A flood of keys must not make every report walk the whole table.
func TestAFullCollectorLooksForRoomOnceAnInterval(t *testing.T) {
	var c clock
	col := c.collector(report.CollectorConfig{MaxKeys: 1})
	col.Add(image("a"))
	c.now = c.now.Add(30 * time.Second)
	col.Sweep()
	c.now = c.now.Add(30 * time.Second)
	col.Add(image("b"))
	c.expect(t, "a 1")
	c.now = c.now.Add(30 * time.Second)
	col.Add(image("b"))
	c.expect(t, "b 1")
}

func TestTheDefaultIsTwoThousandKeys(t *testing.T) {
	var c clock
	col := c.collector(report.CollectorConfig{})
	for i := range 2500 {
		col.Add(image(fmt.Sprint(i)))
	}
	if col.Len() != 2000 || col.Overflow() != 500 {
		t.Errorf("%d keys, overflow %d", col.Len(), col.Overflow())
	}
}

func TestAClockThatGoesBackHoldsNothingBackForever(t *testing.T) {
	var c clock
	col := c.collector(report.CollectorConfig{})
	col.Add(image("a"))
	col.Add(image("a"))
	c.now = c.now.Add(-time.Hour)
	col.Sweep()
	c.expect(t, "a 1", "a 1")
}

func TestNothingIsToldAfterClose(t *testing.T) {
	var c clock
	col := c.collector(report.CollectorConfig{})
	col.Close()
	col.Close()
	col.Add(image("a"))
	col.Sweep()
	c.expect(t)
	if col.Overflow() != 1 || col.Len() != 0 {
		t.Errorf("overflow %d, %d keys", col.Overflow(), col.Len())
	}
}

// Emit may use the collector, which would not return if it held its lock.
func TestEmitRunsOutsideTheLock(t *testing.T) {
	var col *report.Collector
	calls := 0
	col = report.NewCollector(report.CollectorConfig{Emit: func(report.Violation, int64) { calls += col.Len() }})
	col.Add(image("a"))
	col.Add(image("a"))
	col.Close()
	if calls != 1 { // after Close nothing is remembered
		t.Errorf("got %d", calls)
	}
}

func TestNoCountIsLostAmongGoroutines(t *testing.T) {
	var told atomic.Int64
	col := report.NewCollector(report.CollectorConfig{
		MaxKeys: 8, Interval: time.Nanosecond,
		Emit: func(_ report.Violation, count int64) { told.Add(count) },
	})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 2000 {
				col.Add(image(fmt.Sprint((g + i) % 12)))
				if i%100 == 0 {
					col.Sweep()
				}
			}
		})
	}
	wg.Wait()
	col.Close()
	if got := told.Load() + col.Overflow(); got != 16000 {
		t.Errorf("%d of 16000 are accounted for", got)
	}
}

func TestARepetitionCostsNoAllocation(t *testing.T) {
	col := report.NewCollector(report.CollectorConfig{Emit: func(report.Violation, int64) {}})
	v := image("https://cdn.example.net")
	col.Add(v)
	if n := testing.AllocsPerRun(1000, func() { col.Add(v) }); n > 0 {
		t.Errorf("%.1f allocations, want none", n)
	}
}
