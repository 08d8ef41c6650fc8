package audit_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/audit"
)

// flood is a Flood with a clock and a list of what it emitted.
type flood struct {
	*audit.Flood
	now     time.Time
	emitted []*audit.Event
}

func newFlood(cfg audit.FloodConfig) *flood {
	f := &flood{now: moment}
	cfg.Now = func() time.Time { return f.now }
	cfg.Emit = func(e *audit.Event) { f.emitted = append(f.emitted, e) }
	f.Flood = audit.NewFlood(cfg)
	return f
}

func (f *flood) send(n int, e *audit.Event) (passed int) {
	for range n {
		if f.Admit(e) {
			passed++
		}
	}
	return passed
}

func refusal(code, ip string) *audit.Event {
	return &audit.Event{
		Class: audit.Security, Outcome: audit.Deny, Action: "http.request", Reason: code, IP: ip,
		Host: "a.example", Status: 403, Path: "/secret", UserID: "u-1",
	}
}

func TestTheFirstRefusalsPassAndTheRestBecomeOneSummary(t *testing.T) {
	f := newFlood(audit.FloodConfig{})
	e := refusal("forbidden", "203.0.113.7")
	if got := f.send(100, e); got != 100 {
		t.Fatalf("%d of the first 100 passed", got)
	}
	f.now = f.now.Add(time.Second)
	f.send(1, e)
	f.now = f.now.Add(8 * time.Second)
	if got := f.send(899, e); got != 0 {
		t.Fatalf("%d more passed", got)
	}
	f.Sweep()
	if len(f.emitted) != 0 {
		t.Fatal("a summary before the window ended")
	}
	f.now = f.now.Add(time.Second)
	f.Sweep()
	f.Sweep()
	if len(f.emitted) != 1 {
		t.Fatalf("%d summaries", len(f.emitted))
	}
	checkSummary(t, f.emitted[0])
	if got := f.send(101, e); got != 100 {
		t.Errorf("%d passed in the next window", got)
	}
}

func checkSummary(t *testing.T, s *audit.Event) {
	t.Helper()
	if s.Action != audit.ActionSummary || s.Class != audit.Security || s.Outcome != audit.Deny ||
		s.Reason != "forbidden" || s.IP != "203.0.113.7" || s.Host != "a.example" || s.Status != 403 || len(s.ID) != 36 {
		t.Errorf("summary %+v", s)
	}
	if s.Path != "" || s.UserID != "" {
		t.Errorf("the summary speaks of one request: %+v", s)
	}
	for key, want := range map[string]any{
		"count": int64(900), "code": "forbidden", "action": "http.request",
		"from": "2026-11-22T03:05:07.007008Z", "to": "2026-11-22T03:05:15.007008Z",
	} {
		if got, _ := s.Details.Get(key); got != want {
			t.Errorf("%s = %v, want %v", key, got, want)
		}
	}
	if _, ok := s.Details.Get("network"); ok {
		t.Error("an IPv4 address has no network")
	}
}

func TestAWindowThatEndedIsSummarisedByTheNextRefusal(t *testing.T) {
	f := newFlood(audit.FloodConfig{Limit: 1})
	e := refusal("forbidden", "203.0.113.7")
	f.send(3, e)
	f.now = f.now.Add(10 * time.Second)
	if got := f.send(1, e); got != 1 || len(f.emitted) != 1 {
		t.Errorf("passed %d, summaries %d", got, len(f.emitted))
	}
}

func TestCloseEmitsWhatIsHeldBackAndLosesNothingAfter(t *testing.T) {
	f := newFlood(audit.FloodConfig{Limit: 2})
	e := refusal("forbidden", "203.0.113.7")
	f.send(7, e)
	f.Close()
	if n, _ := f.emitted[0].Details.Get("count"); len(f.emitted) != 1 || n != int64(5) {
		t.Errorf("%d summaries, the first of %v", len(f.emitted), n)
	}
	if got := f.send(9, e); got != 9 {
		t.Errorf("%d of 9 passed after Close", got)
	}
	f.Close()
	if len(f.emitted) != 1 {
		t.Error("a second Close emitted again")
	}
}

func TestOnlyRefusalsOfOneKindAreHeldBackTogether(t *testing.T) {
	f := newFlood(audit.FloodConfig{Limit: 1})
	f.send(5, refusal("forbidden", "203.0.113.7"))
	for name, e := range map[string]*audit.Event{
		"another code":    refusal("token-invalid", "203.0.113.7"),
		"another address": refusal("forbidden", "203.0.113.8"),
		"no address":      refusal("forbidden", ""),
		"no address, yet": refusal("forbidden", "unix"),
	} {
		if f.send(1, e) != 1 {
			t.Errorf("%s was held back", name)
		}
	}
	allowed := refusal("", "203.0.113.7")
	allowed.Outcome, allowed.Class = audit.Allow, audit.Access
	change := refusal("forbidden", "203.0.113.7")
	change.Class = audit.Admin
	failed := refusal("forbidden", "203.0.113.7")
	failed.Outcome = audit.Failure
	for name, e := range map[string]*audit.Event{"allowed": allowed, "admin": change, "failed": failed} {
		if f.send(50, e) != 50 {
			t.Errorf("%s: not all passed", name)
		}
	}
}

// A summary would not say what was blocked.
func TestReportsAboutAPolicyAreNeverSummarised(t *testing.T) {
	f := newFlood(audit.FloodConfig{})
	e := refusal("img-src", "203.0.113.7")
	e.Action = audit.ActionViolation
	if got := f.send(500, e); got != 500 {
		t.Errorf("%d of 500 passed", got)
	}
}

func TestTheCodeCountsNotTheFineReason(t *testing.T) {
	f := newFlood(audit.FloodConfig{Limit: 2})
	passed := 0
	for i := range 10 {
		e := refusal(fmt.Sprintf("jwt.reason-%d", i), "203.0.113.7")
		e.Host = fmt.Sprintf("%d.example", i)
		e.Details.Set("code", "token-invalid")
		passed += f.send(1, e)
	}
	f.Close()
	if passed != 2 || len(f.emitted) != 1 {
		t.Fatalf("passed %d, %d summaries", passed, len(f.emitted))
	}
	if s := f.emitted[0]; s.Reason != "token-invalid" || s.Host != "" {
		t.Errorf("reason %q, host %q of many", s.Reason, s.Host)
	}
}

func TestAClientCannotEscapeByChangingAddressInItsNetwork(t *testing.T) {
	for name, ips := range map[string][]string{
		"IPv6 /64":        {"2001:db8:0:1::1", "2001:db8:0:1:ffff::2", "2001:0db8:0000:0001::3"},
		"mapped IPv4":     {"203.0.113.7", "::ffff:203.0.113.7", "::ffff:cb00:7107"},
		"zones of a link": {"fe80::1%eth0", "fe80::1%eth1", "fe80::1"},
	} {
		f := newFlood(audit.FloodConfig{Limit: 1})
		passed := 0
		for _, ip := range ips {
			passed += f.send(1, refusal("forbidden", ip))
		}
		f.Close()
		if passed != 1 || len(f.emitted) != 1 {
			t.Errorf("%s: %d passed", name, passed)
		}
		if network, _ := f.emitted[0].Details.Get("network"); name == "IPv6 /64" && network != "2001:db8:0:1::/64" {
			t.Errorf("network = %v", network)
		}
	}
}

func TestMoreKindsThanFitShareOneCount(t *testing.T) {
	f := newFlood(audit.FloodConfig{Limit: 3, MaxKeys: 2})
	ip := func(i int) string { return fmt.Sprintf("203.0.113.%d", i) }
	passed := 0
	for i := range 50 {
		passed += f.send(1, refusal("forbidden", ip(i)))
	}
	if passed != 2+3 {
		t.Errorf("%d passed, want one each for two keys and three for the rest", passed)
	}
	f.Close()
	if len(f.emitted) != 1 {
		t.Fatalf("%d summaries", len(f.emitted))
	}
	s := f.emitted[0]
	if n, _ := s.Details.Get("count"); n != int64(45) || s.IP != "" || s.Reason != "" {
		t.Errorf("count %v, summary %+v", n, s)
	}
	if over, _ := s.Details.Get("overflow"); over != true {
		t.Error("the summary does not say that it stands for many")
	}
}

func TestEndedWindowsMakeRoomWithoutSweep(t *testing.T) {
	f := newFlood(audit.FloodConfig{Limit: 1, MaxKeys: 2})
	f.send(4, refusal("forbidden", "203.0.113.1"))
	f.send(1, refusal("forbidden", "203.0.113.2"))
	f.send(2, refusal("forbidden", "203.0.113.3"))
	f.now = f.now.Add(10 * time.Second)
	f.send(1, refusal("forbidden", "203.0.113.4"))
	if len(f.emitted) != 2 {
		t.Errorf("%d summaries, want one of the key and one of the shared count", len(f.emitted))
	}
	// There is room again, so the next key counts alone.
	if f.send(1, refusal("forbidden", "203.0.113.5")) != 1 {
		t.Error("the second key of the new window was held back")
	}
}

func TestTheSharedCountHasItsOwnWindow(t *testing.T) {
	f := newFlood(audit.FloodConfig{Limit: 1, MaxKeys: 1})
	f.now = f.now.Add(5 * time.Second)
	f.send(1, refusal("forbidden", "203.0.113.1"))
	f.send(2, refusal("forbidden", "203.0.113.2"))
	f.now = f.now.Add(10 * time.Second)
	f.send(1, refusal("forbidden", "203.0.113.1"))
	if got := f.send(1, refusal("forbidden", "203.0.113.3")); got != 1 || len(f.emitted) != 1 {
		t.Errorf("passed %d, summaries %d", got, len(f.emitted))
	}
}

func TestAClockThatGoesBackEndsTheWindow(t *testing.T) {
	f := newFlood(audit.FloodConfig{Limit: 1})
	f.send(2, refusal("forbidden", "203.0.113.1"))
	f.now = f.now.Add(-time.Hour)
	if f.send(1, refusal("forbidden", "203.0.113.1")) != 1 || len(f.emitted) != 1 {
		t.Error("refusals stay held back until the clock has caught up")
	}
}

func TestNothingIsHeldBackWhenNobodyTakesSummaries(t *testing.T) {
	f := audit.NewFlood(audit.FloodConfig{Limit: 1})
	for range 10 {
		if !f.Admit(refusal("forbidden", "203.0.113.1")) {
			t.Fatal("held back")
		}
	}
	f.Sweep()
	f.Close()
}

func TestFloodCountsEveryRefusalOnceUnderConcurrency(t *testing.T) {
	var mu sync.Mutex
	var summaries []int64
	f := audit.NewFlood(audit.FloodConfig{Limit: 10, Window: time.Millisecond, MaxKeys: 3, Emit: func(e *audit.Event) {
		mu.Lock()
		defer mu.Unlock()
		n, _ := e.Details.Get("count")
		summaries = append(summaries, n.(int64))
	}})
	var passed int64
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			n := int64(0)
			for i := range 2000 {
				if f.Admit(refusal("forbidden", fmt.Sprintf("203.0.113.%d", (g+i)%8))) {
					n++
				}
				if i%500 == 0 {
					f.Sweep()
				}
			}
			mu.Lock()
			passed += n
			mu.Unlock()
		})
	}
	wg.Wait()
	f.Close()
	total := passed
	for n := range slices.Values(summaries) {
		total += n
	}
	if total != 8000 {
		t.Errorf("%d of 8000 refusals are accounted for", total)
	}
}
