package follow_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moat-gateway/moat/internal/audit/follow"
)

var errDown = errors.New("server: is down")

func TestARefusedBatchComesAgainUntilItIsTaken(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j, told := newJournal(t), &states{}
		j.append(segment(1), events(1, 3)...)
		refusals := 4
		sink := &memory{}
		sink.script = func(context.Context, []follow.Line) error {
			if len(sink.calls) == 2 {
				j.append(segment(1), events(4, 5)...) // does not join the batch that is retried
			}
			if refusals--; refusals >= 0 {
				return errDown
			}
			return nil
		}
		f := j.start(t, sink, func(c *follow.Config) { c.OnState = told.add })
		time.Sleep(time.Minute)
		synctest.Wait()
		sink.want(t, events(1, 5))
		if want := []int{3, 3, 3, 3, 3, 2}; !slices.Equal(sink.calls, want) {
			t.Errorf("deliveries of %v lines, want %v", sink.calls, want)
		}
		list := told.list()
		if len(list) != 5 || list[3].Failures != 4 || list[3].LastError != "server: is down" || list[4].Failures != 0 || list[4].LastError != "" {
			t.Errorf("told %+v", list)
		}
		if told.arrivals != 1 {
			t.Errorf("told of %d first deliveries", told.arrivals)
		}
		if s := f.State(); s.LastSuccess.IsZero() || s.Sink != "memory" {
			t.Errorf("state = %+v", s)
		}
	})
}

// attempts returns when the deliveries happened, as waits between them.
func attempts(t *testing.T, n int, fail error, edit func(*follow.Config)) []time.Duration {
	t.Helper()
	j := newJournal(t)
	j.append(segment(1), event(1))
	var at []time.Time
	sink := &memory{script: func(context.Context, []follow.Line) error {
		at = append(at, time.Now())
		return fail
	}}
	f := j.start(t, sink, edit)
	time.Sleep(time.Hour)
	f.stop()
	if len(at) < n {
		t.Fatalf("%d attempts in an hour, want %d", len(at), n)
	}
	var waits []time.Duration
	for i := 1; i < n; i++ {
		waits = append(waits, at[i].Sub(at[i-1]))
	}
	return waits
}

func TestBackoffDoublesSpreadsAndIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		waits := attempts(t, 20, errDown, nil)
		spread := false
		for i, wait := range waits {
			full := min(250*time.Millisecond<<min(i, 20), 30*time.Second)
			if wait < full/2 || wait > full {
				t.Errorf("wait %d = %s, want between %s and %s", i, wait, full/2, full)
			}
			spread = spread || (i > 8 && wait != waits[8])
		}
		if !spread {
			t.Errorf("no spread: %v", waits)
		}
	})
}

func TestTheServersWaitIsHonouredWithinTheLongestBackoff(t *testing.T) {
	for name, row := range map[string]struct{ after, least, most time.Duration }{
		"longer than ours": {5 * time.Second, 5 * time.Second, 5 * time.Second},
		"beyond the bound": {time.Hour, 10 * time.Second, 10 * time.Second},
		"negative":         {-time.Hour, 100 * time.Millisecond, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				err := &follow.RetryAfter{After: row.after, Err: errDown}
				waits := attempts(t, 2, err, func(c *follow.Config) { c.BackoffMax = 10 * time.Second })
				if waits[0] < row.least || waits[0] > row.most {
					t.Errorf("wait = %s, want between %s and %s", waits[0], row.least, row.most)
				}
				if !errors.Is(err, errDown) || err.Error() != errDown.Error() {
					t.Errorf("the cause is lost: %v", err)
				}
			})
		})
	}
}

func TestADeliveryHasABudget(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := newJournal(t)
		j.append(segment(1), event(1))
		var budget time.Duration
		sink := &memory{script: func(ctx context.Context, _ []follow.Line) error {
			start := time.Now()
			<-ctx.Done()
			budget = time.Since(start)
			return ctx.Err()
		}}
		f := j.start(t, sink, nil)
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if budget != 10*time.Second || f.State().Failures == 0 {
			t.Errorf("budget = %s, state = %+v", budget, f.State())
		}
	})
}

func TestAPoisonousLineIsSetAsideAndTheOthersArrive(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := newJournal(t)
		j.append(segment(1), events(1, 6)...)
		sink := &memory{script: func(_ context.Context, lines []follow.Line) error {
			for i, line := range lines {
				if line.Seq == 3 || line.Seq == 6 {
					return &follow.Poison{Index: i, Err: errors.New("not for me")}
				}
			}
			return nil
		}}
		cursor := filepath.Join(t.TempDir(), "c")
		start := time.Now()
		f := j.start(t, sink, func(c *follow.Config) { c.Cursor = cursor })
		synctest.Wait()
		if wait := time.Since(start); wait != 0 {
			t.Errorf("waited %s for a line that is never taken", wait)
		}
		sink.want(t, []string{event(1), event(2), event(4), event(5)})
		if s := f.State(); s.SetAside != 2 || s.Position != 6 || s.Failures != 0 {
			t.Errorf("state = %+v", s)
		}
		raw, err := os.ReadFile(cursor + ".rejected")
		if err != nil || strings.Count(string(raw), "not for me") != 2 {
			t.Errorf("rejected file: %q, %v", raw, err)
		}
	})
}

func TestAPoisonOutsideTheBatchIsAnOrdinaryFailure(t *testing.T) {
	for name, index := range map[string]int{"before": -1, "behind": 1} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				waits := attempts(t, 3, &follow.Poison{Index: index, Err: errDown}, nil)
				if waits[0] < 100*time.Millisecond {
					t.Errorf("waits = %v", waits)
				}
			})
		})
	}
}

func TestALineThatCannotBeSetAsideIsKept(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := newJournal(t)
		j.append(segment(1), event(1), "no event", event(3))
		cursor := filepath.Join(t.TempDir(), "c")
		if err := os.Mkdir(cursor+".rejected", 0o700); err != nil {
			t.Fatal(err)
		}
		sink := &memory{}
		f := j.start(t, sink, func(c *follow.Config) { c.Cursor = cursor })
		f.settle()
		if s := f.State(); s.Failures == 0 || s.Position != 0 || s.SetAside != 0 {
			t.Errorf("state = %+v", s)
		}
		if err := os.Remove(cursor + ".rejected"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		sink.want(t, []string{event(1), event(3)})
		if s := f.State(); s.Failures != 0 || s.SetAside != 1 {
			t.Errorf("state = %+v", s)
		}
	})
}

func TestABatchThatIsTooLargeIsHalvedAndGrowsBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := newJournal(t)
		j.append(segment(1), events(1, 64)...)
		var most atomic.Int64
		most.Store(3)
		sink := &memory{script: func(_ context.Context, lines []follow.Line) error {
			if len(lines) > int(most.Load()) {
				return follow.ErrTooLarge
			}
			return nil
		}}
		start := time.Now()
		f := j.start(t, sink, func(c *follow.Config) { c.Batch = 16 })
		synctest.Wait()
		if wait := time.Since(start); wait != 0 {
			t.Errorf("halving waited %s", wait)
		}
		sink.want(t, events(1, 64))
		if want := []int{16, 8, 4, 2, 2, 2}; !slices.Equal(sink.calls[:6], want) {
			t.Errorf("deliveries of %v lines, want %v first", sink.calls, want)
		}
		if len(sink.calls) > 64 {
			t.Errorf("%d deliveries: grows back too eagerly", len(sink.calls))
		}
		most.Store(16)
		j.append(segment(1), events(65, 2000)...)
		f.settle()
		if last := sink.calls[len(sink.calls)-1]; last != 16 {
			t.Errorf("still %d lines at a time", last)
		}
	})
}

func TestASingleLineThatIsTooLargeIsSetAside(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := newJournal(t)
		j.append(segment(1), events(1, 5)...)
		sink := &memory{script: func(_ context.Context, lines []follow.Line) error {
			for _, line := range lines {
				if line.Seq == 4 {
					return follow.ErrTooLarge
				}
			}
			return nil
		}}
		f := j.start(t, sink, nil)
		f.settle()
		sink.want(t, []string{event(1), event(2), event(3), event(5)})
		if f.State().SetAside != 1 {
			t.Errorf("state = %+v", f.State())
		}
	})
}

func TestTheLastErrorIsOneShortPrintableLine(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := newJournal(t)
		j.append(segment(1), event(1))
		nasty := errors.New("a\nb\x1b[31m\x00\xff" + strings.Repeat("x", 5000))
		f := j.start(t, &memory{script: func(context.Context, []follow.Line) error { return nasty }}, nil)
		f.settle()
		text := f.State().LastError
		if len(text) > 520 || !strings.HasPrefix(text, "a; b[31mxx") {
			t.Errorf("LastError = %q", text)
		}
	})
}

func TestLagGrowsWhileTheSinkIsDownAndFallsBackToZero(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := newJournal(t)
		j.append(segment(1), events(1, 10)...)
		var up atomic.Bool
		sink := &memory{script: func(context.Context, []follow.Line) error {
			if up.Load() {
				return nil
			}
			return errDown
		}}
		f := j.start(t, sink, nil)
		// The follower may have looked at the journal already.
		if n, since := f.Lag(); n != 0 && n != 10 || since != 0 {
			t.Errorf("Lag before anything = %d, %s", n, since)
		}
		time.Sleep(time.Minute)
		j.append(segment(11), events(11, 25)...)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if n, since := f.Lag(); n != 25 || since < time.Minute || since > 66*time.Second {
			t.Errorf("Lag = %d, %s", n, since)
		}
		up.Store(true)
		time.Sleep(time.Minute)
		synctest.Wait()
		if n, since := f.Lag(); n != 0 || since != 0 {
			t.Errorf("Lag afterwards = %d, %s", n, since)
		}
	})
}

// TestTheTimeBehindIsThatOfTheOldestLine: under steady load a sink that keeps up is
// behind by a moment, though it is never level.
func TestTheTimeBehindIsThatOfTheOldestLine(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := newJournal(t)
		sink := &memory{script: func(context.Context, []follow.Line) error { time.Sleep(100 * time.Millisecond); return nil }}
		f := j.start(t, sink, nil)
		longest := time.Duration(0)
		for seq := 1; seq <= 6000; seq++ {
			j.append(segment(1), event(seq))
			time.Sleep(7 * time.Millisecond)
			_, since := f.Lag()
			longest = max(longest, since)
		}
		if longest > 3*time.Second {
			t.Errorf("behind by %s", longest)
		}
	})
}

// TestARetainingJournalAsksForWhatIsStored: a crash goes on at the stored place.
func TestARetainingJournalAsksForWhatIsStored(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := newJournal(t)
		j.append(segment(100), events(100, 105)...)
		down := false
		sink := &memory{script: func(context.Context, []follow.Line) error {
			if down {
				return errDown
			}
			return nil
		}}
		cursor := filepath.Join(t.TempDir(), "c")
		f := j.start(t, sink, func(c *follow.Config) { c.Cursor = cursor })
		if f.Stored() != 0 {
			t.Errorf("stored %d before anything", f.Stored())
		}
		f.settle()
		if f.Position() != 105 || f.Stored() != 105 {
			t.Errorf("position %d, stored %d", f.Position(), f.Stored())
		}
		f.stop()
		// Another journal, of which the sink gets nothing.
		down = true
		j.remove(segment(100))
		j.append(segment(1), events(1, 30)...)
		f = j.start(t, sink, func(c *follow.Config) { c.Cursor = cursor })
		f.settle()
		if n, _ := f.Lag(); f.Position() != 0 || f.Stored() != 0 || n == 0 {
			t.Errorf("position %d, stored %d, lag %d", f.Position(), f.Stored(), n)
		}
	})
}

func TestAnUnwritableCursorIsReportedOnceAndDeliveryGoesOn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j, sink, told := newJournal(t), &memory{}, &states{}
		dir := t.TempDir()
		cursor := filepath.Join(dir, "c")
		if err := os.Mkdir(cursor+".tmp", 0o700); err != nil { // nothing can be written there
			t.Fatal(err)
		}
		f := j.start(t, sink, func(c *follow.Config) { c.Cursor, c.OnState = cursor, told.add })
		for seq := 1; seq <= 5; seq++ {
			j.append(segment(1), event(seq))
			f.settle()
		}
		sink.want(t, events(1, 5))
		if list := told.list(); len(list) != 1 || list[0].CursorError == "" || list[0].Failures != 0 {
			t.Errorf("told %+v", list)
		}
		if err := os.Remove(cursor + ".tmp"); err != nil {
			t.Fatal(err)
		}
		f.settle()
		if s := f.State(); s.CursorError != "" {
			t.Errorf("state = %+v", s)
		}
	})
}

func TestAnUnreadableJournalIsAFailureThatPasses(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j, sink := newJournal(t), &memory{}
		if err := os.WriteFile(j.dir, []byte("a file, no directory"), 0o600); err != nil {
			t.Fatal(err)
		}
		f := j.start(t, sink, nil)
		f.settle()
		if s := f.State(); s.Failures == 0 || s.LastError == "" {
			t.Errorf("state = %+v", s)
		}
		if err := os.Remove(j.dir); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if s := f.State(); s.Failures != 0 || s.LastError != "" {
			t.Errorf("state = %+v", s)
		}
		j.append(segment(1), event(1))
		f.settle()
		sink.want(t, events(1, 1))
	})
}
