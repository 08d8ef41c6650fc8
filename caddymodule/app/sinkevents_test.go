package app

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moat-gateway/moat/internal/audit"
	"github.com/moat-gateway/moat/internal/audit/follow"
)

// eventsOf runs a teller on states that come at moments and returns its events.
func eventsOf(t *testing.T, states map[time.Duration]follow.State) []string {
	t.Helper()
	var out []string
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		tells := newTeller(identified{"webhook", "", digest("x")})
		tells.event = func(action string, outcome audit.Outcome, set func(*audit.Details)) {
			var d audit.Details
			set(&d)
			events, _ := d.Get("events")
			out = append(out, fmt.Sprintf("%s %s %s %v", time.Since(begin), action, outcome, events))
		}
		var moments []time.Duration
		for at := range states {
			moments = append(moments, at)
		}
		slices.Sort(moments)
		for _, at := range moments {
			time.Sleep(time.Until(begin.Add(at)))
			tells.hear(states[at])
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		tells.stop()
	})
	return out
}

func TestASinkIsFailingFromTheThirdFailureOn(t *testing.T) {
	got := eventsOf(t, map[time.Duration]follow.State{
		1 * time.Second: {Failures: 1}, 2 * time.Second: {Failures: 2}, 3 * time.Second: {Failures: 3},
		4 * time.Second: {Failures: 4}, 9 * time.Second: {}, 10 * time.Second: {Failures: 1}, 11 * time.Second: {},
	})
	want := []string{"3s sink.failing error <nil>", "9s sink.recovered allow <nil>"}
	if !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
}

func TestASinkThatAReloadMendsHasRecovered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var events []string
		for _, states := range [][]follow.State{
			{{Failures: 3}, {Failures: 4}}, // ends while it fails
			{{Failures: 0, LastSuccess: time.Now()}},
		} {
			tells := newTeller(identified{"webhook", "", digest("mended")})
			tells.event = func(action string, _ audit.Outcome, _ func(*audit.Details)) { events = append(events, action) }
			for _, s := range states {
				tells.hear(s)
			}
			tells.stop()
		}
		if !slices.Equal(events, []string{"sink.failing", "sink.recovered"}) {
			t.Errorf("told %q", events)
		}
	})
}

func TestASinkThatFlutters(t *testing.T) {
	states := make(map[time.Duration]follow.State)
	for s := range 300 {
		states[time.Duration(s)*time.Second] = follow.State{Failures: uint64(s % 5)} //nolint:gosec // small
	}
	if got := eventsOf(t, states); len(got) < 8 || len(got) > 12 {
		t.Errorf("%d events in five minutes, want two a minute: %q", len(got), got)
	}
}

func TestLossesAreSummedUpAndNoneIsForgotten(t *testing.T) {
	got := eventsOf(t, map[time.Duration]follow.State{
		1 * time.Second:  {SetAside: 1},
		2 * time.Second:  {SetAside: 2},
		3 * time.Second:  {SetAside: 5, Lost: 7},
		70 * time.Second: {SetAside: 5, Lost: 7},
		80 * time.Second: {SetAside: 6, Lost: 7},
	})
	want := []string{
		"1s sink.set-aside error 1",
		"1m1s sink.lost error 7", "1m1s sink.set-aside error 4",
		"2m1s sink.set-aside error 1",
	}
	if !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
}

func TestAStoppedTellerIsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		events := 0
		tells := newTeller(identified{"webhook", "", digest("x")})
		tells.event = func(string, audit.Outcome, func(*audit.Details)) { events++ }
		tells.hear(follow.State{Lost: 1})
		tells.hear(follow.State{Lost: 2})
		tells.stop()
		if events != 2 {
			t.Errorf("%d events, want the second loss at the end", events)
		}
		tells.hear(follow.State{Lost: 3})
		time.Sleep(time.Hour)
		synctest.Wait()
		if events != 2 {
			t.Errorf("%d events after the end", events)
		}
	})
}
