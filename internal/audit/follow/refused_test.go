package follow_test

import (
	"context"
	"fmt"
	"math/rand/v2"
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

// refusing is a server that refuses deliveries with one of these lines in them.
func refusing(bad func(seq uint64) bool) *memory {
	return &memory{script: func(_ context.Context, lines []follow.Line) error {
		for _, line := range lines {
			if bad(line.Seq) {
				return fmt.Errorf("server: answered 400: %w", follow.ErrRefused)
			}
		}
		return nil
	}}
}

func except(lines []string, seqs ...int) []string {
	var out []string
	for i, line := range lines {
		if !slices.Contains(seqs, i+1) {
			out = append(out, line)
		}
	}
	return out
}

// wantOnce is want without regard to repetitions: where nothing else is left, a line
// that the server has got shows again that it takes any.
func wantOnce(t *testing.T, sink *memory, want []string) {
	t.Helper()
	seen, once := make(map[string]bool), &memory{}
	for _, line := range sink.got() {
		if !seen[line] {
			seen[line] = true
			once.lines = append(once.lines, line)
		}
	}
	once.want(t, want)
}

func TestALineThatAServerRefusesIsFoundAndSetAside(t *testing.T) {
	for name, bad := range map[string][]int{
		"one in the middle": {7}, "the first": {1}, "three in a row": {4, 5, 6}, "the last but one": {19}, "scattered": {2, 9, 17},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				j := newJournal(t)
				j.append(segment(1), events(1, 20)...)
				sink := refusing(func(seq uint64) bool { return slices.Contains(bad, int(seq)) }) //nolint:gosec // small
				cursor := filepath.Join(t.TempDir(), "c")
				f := j.start(t, sink, func(c *follow.Config) { c.Cursor = cursor })
				time.Sleep(time.Minute)
				synctest.Wait()
				wantOnce(t, sink, except(events(1, 20), bad...))
				if s := f.State(); s.SetAside != uint64(len(bad)) || s.Position != 20 || s.Failures != 0 {
					t.Errorf("state = %+v", s)
				}
				raw, err := os.ReadFile(cursor + ".rejected")
				if err != nil || strings.Count(string(raw), "answered 400") != len(bad) {
					t.Errorf("rejected file: %.300q, %v", raw, err)
				}
			})
		})
	}
}

// TestAServerThatRefusesEverythingIsAFailureAndLosesNothing: a wrong path, a
// revoked key or a bug at the other end must not empty the trail.
func TestAServerThatRefusesEverythingIsAFailureAndLosesNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := newJournal(t)
		j.append(segment(1), events(1, 500)...)
		var mended atomic.Bool
		sink := refusing(func(uint64) bool { return !mended.Load() })
		f := j.start(t, sink, nil)
		time.Sleep(time.Hour)
		synctest.Wait()
		if s := f.State(); s.Position != 0 || s.SetAside != 0 || s.Failures < 100 || s.LastError == "" {
			t.Fatalf("state = %+v", s)
		}
		if calls := sink.deliveries(); calls > 60_000 {
			t.Errorf("%d requests in an hour", calls)
		}
		mended.Store(true)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		sink.want(t, events(1, 500))
		if s := f.State(); s.SetAside != 0 || s.Failures != 0 {
			t.Errorf("state = %+v", s)
		}
	})
}

// TestARefusedLineAtTheEndWaitsForAnotherOne: nothing behind it can show whose
// fault it is until something comes.
func TestARefusedLineAtTheEndWaitsForAnotherOne(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := newJournal(t)
		j.append(segment(1), events(1, 3)...)
		sink := refusing(func(seq uint64) bool { return seq == 3 })
		f := j.start(t, sink, nil)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if s := f.State(); s.Position != 2 || s.SetAside != 0 || s.Failures == 0 {
			t.Fatalf("state = %+v", s)
		}
		j.append(segment(1), events(4, 6)...)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		wantOnce(t, sink, except(events(1, 6), 3))
		if s := f.State(); s.Position != 6 || s.SetAside != 1 || s.Failures != 0 {
			t.Errorf("state = %+v", s)
		}
	})
}

// TestAServerThatRecoversBetweenTwoLinesGetsBoth: that it takes the second does
// not condemn the first.
func TestAServerThatRecoversBetweenTwoLinesGetsBoth(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := newJournal(t)
		j.append(segment(1), events(1, 2)...)
		calls := 0
		sink := refusing(func(uint64) bool { calls++; return calls <= 2 }) // both lines, then the first alone
		f := j.start(t, sink, nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		sink.want(t, []string{event(2), event(1)})
		if s := f.State(); s.Position != 2 || s.SetAside != 0 {
			t.Errorf("state = %+v", s)
		}
	})
}

func TestALineBehindARefusedOneHasItsOwnFaults(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := newJournal(t)
		j.append(segment(1), events(1, 5)...)
		sink := &memory{script: func(_ context.Context, lines []follow.Line) error {
			for i, line := range lines {
				switch line.Seq {
				case 2:
					return follow.ErrRefused
				case 3:
					return &follow.Poison{Index: i, Err: errDown}
				case 4:
					return follow.ErrTooLarge
				}
			}
			return nil
		}}
		f := j.start(t, sink, nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		wantOnce(t, sink, except(events(1, 5), 2, 3, 4))
		if s := f.State(); s.Position != 5 || s.SetAside != 3 || s.Failures != 0 {
			t.Errorf("state = %+v", s)
		}
	})
}

func TestAnOutageWhileARefusalIsLookedIntoLosesNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := newJournal(t)
		j.append(segment(1), events(1, 6)...)
		calls := 0
		sink := &memory{script: func(_ context.Context, lines []follow.Line) error {
			calls++
			if calls%4 == 0 {
				return errDown
			}
			for _, line := range lines {
				if line.Seq == 3 {
					return follow.ErrRefused
				}
			}
			return nil
		}}
		f := j.start(t, sink, func(c *follow.Config) {
			c.Filter = follow.Filter{Action: []string{"http.request"}} // and with lines between that are not for it
		})
		j.append(segment(1), begin(7, "x"))
		j.append(segment(1), events(8, 12)...)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		want := except(events(1, 12), 3, 7)
		got := sink.got()
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(slices.Compact(got), want) {
			t.Errorf("delivered %q", got)
		}
		if s := f.State(); s.Position != 12 || s.SetAside != 1 || s.Failures != 0 {
			t.Errorf("state = %+v", s)
		}
	})
}

// TestRefusedLinesAtTheEndOfABatchBlockNothing: what shows whose fault it is stands
// behind the batch, and perhaps behind much that is not for the sink.
func TestRefusedLinesAtTheEndOfABatchBlockNothing(t *testing.T) {
	for name, row := range map[string]struct {
		first, last int // bad
		skipped     int // MiB of lines that are not for the sink behind them
	}{
		"two at once":                 {2, 3, 0},
		"at the end of a batch":       {255, 256, 0},
		"one before much that is not": {3, 3, 6},
		"forty":                       {10, 49, 0},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				j := newJournal(t)
				j.append(segment(1), events(1, row.last)...)
				next := row.last + 1
				sink := refusing(func(seq uint64) bool { return int(seq) >= row.first && int(seq) <= row.last }) //nolint:gosec // small
				f := j.start(t, sink, func(c *follow.Config) { c.Filter = follow.Filter{Class: []string{"access"}} })
				time.Sleep(time.Minute)
				synctest.Wait()
				padding := strings.Repeat("x", 60<<10)
				for range row.skipped * 17 {
					j.append(segment(1), fmt.Sprintf(`{"class":"admin","pad":%q,"seq":%d,"instance":%q}`, padding, next, testInstance))
					next++
				}
				j.append(segment(1), events(next, next+100)...)
				time.Sleep(10 * time.Minute)
				synctest.Wait()
				if s := f.State(); s.Position != uint64(next+100) || s.SetAside != uint64(row.last-row.first+1) || s.Failures != 0 {
					t.Errorf("state = %+v", s)
				}
			})
		})
	}
}

// TestAServerThatIsHalfBrokenLosesNextToNothing refuses every other request at random,
// as one of two replicas would.
func TestAServerThatIsHalfBrokenLosesNextToNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := newJournal(t)
		j.append(segment(1), events(1, 300)...)
		dice := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same each time
		sink := refusing(func(uint64) bool { return false })
		sink.script = func(context.Context, []follow.Line) error {
			if dice.IntN(2) == 0 {
				return follow.ErrRefused
			}
			return nil
		}
		f := j.start(t, sink, nil)
		time.Sleep(time.Hour)
		synctest.Wait()
		if s := f.State(); s.Position != 300 || s.SetAside > 2 {
			t.Errorf("state = %+v", s)
		}
	})
}

func TestAPoisonWithoutAReasonIsSetAside(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := newJournal(t)
		j.append(segment(1), events(1, 3)...)
		sink := &memory{script: func(_ context.Context, lines []follow.Line) error {
			for i, line := range lines {
				if line.Seq == 2 {
					return &follow.Poison{Index: i}
				}
			}
			return nil
		}}
		f := j.start(t, sink, nil)
		f.settle()
		sink.want(t, except(events(1, 3), 2))
		if sink.deliveries() != 2 || f.State().SetAside != 1 {
			t.Errorf("%d deliveries, state %+v", sink.deliveries(), f.State())
		}
	})
}
