package follow_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/audit/follow"
)

func TestLinesRemovedAheadAreCountedAsLost(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j, told := newJournal(t), &states{}
		j.append(segment(1), events(1, 10)...)
		f := j.start(t, &memory{}, nil)
		f.settle()
		f.stop()
		j.append(segment(1), events(11, 20)...)
		j.append(segment(21), events(21, 30)...)
		j.append(segment(31), events(31, 33)...)
		j.remove(segment(1))
		j.remove(segment(21))
		refusals := 2 // what is lost is lost once, however often the batch comes
		sink := &memory{script: func(context.Context, []follow.Line) error {
			if refusals--; refusals >= 0 {
				return errDown
			}
			return nil
		}}
		f = j.start(t, sink, func(c *follow.Config) { c.OnState = told.add })
		time.Sleep(time.Minute)
		f.settle()
		sink.want(t, events(31, 33))
		if got := f.State().Lost; got != 20 {
			t.Errorf("Lost = %d, want 20", got)
		}
		if list := told.list(); len(list) != 4 || list[0].Lost != 20 || list[0].Failures != 0 {
			t.Errorf("told %+v", list)
		}
	})
}

func TestATrailThatBeginsLateIsNoLoss(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j, sink := newJournal(t), &memory{}
		j.append(segment(500), events(500, 501)...)
		f := j.start(t, sink, nil)
		f.settle()
		sink.want(t, events(500, 501))
		if f.State().Lost != 0 {
			t.Errorf("Lost = %d", f.State().Lost)
		}
	})
}

func TestARemovedSegmentIsReadToItsEndWhenItIsOpen(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j, sink := newJournal(t), &memory{}
		j.append(segment(1), events(1, 5)...)
		f := j.start(t, sink, nil)
		f.settle()
		j.append(segment(1), events(6, 9)...)
		j.append(segment(10), events(10, 11)...)
		j.remove(segment(1))
		f.settle()
		sink.want(t, events(1, 11))
		if f.State().Lost != 0 {
			t.Errorf("Lost = %d", f.State().Lost)
		}
	})
}

func TestAfterAPowerLossTheSinkGoesOnWithTheNewBoot(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := newJournal(t)
		j.append(segment(1), begin(1, "boot-1"), event(2), event(3), event(4))
		f := j.start(t, &memory{}, nil)
		f.settle()
		f.stop()
		// The machine forgot line 4 and half of 3, and the next boot numbers on.
		kept := begin(1, "boot-1") + "\n" + event(2) + "\n"
		if err := os.Truncate(j.path(segment(1)), int64(len(kept))); err != nil {
			t.Fatal(err)
		}
		j.append(segment(3), begin(3, "boot-2"), event(4))
		sink := &memory{}
		j.start(t, sink, nil).settle()
		sink.want(t, []string{begin(3, "boot-2"), event(4)})
	})
}

func TestASegmentReplacedUnderItsNameIsReadFromItsStart(t *testing.T) {
	replace := func(t *testing.T, j *journal) {
		t.Helper()
		j.remove(segment(1))
		j.append(segment(1), begin(1, "boot-2"), event(2), event(3), event(4))
	}
	want := []string{begin(1, "boot-2"), event(2), event(3), event(4)}
	t.Run("while it is down", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			j := newJournal(t)
			j.append(segment(1), begin(1, "boot-1"), event(2))
			f := j.start(t, &memory{}, nil)
			f.settle()
			f.stop()
			replace(t, j)
			sink := &memory{}
			j.start(t, sink, nil).settle()
			sink.want(t, want)
		})
	})
	t.Run("while it runs", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			j, sink := newJournal(t), &memory{}
			j.append(segment(1), begin(1, "boot-1"), event(2))
			f := j.start(t, sink, nil)
			f.settle()
			replace(t, j)
			f.settle()
			sink.want(t, append([]string{begin(1, "boot-1"), event(2)}, want...))
		})
	})
}

func TestAJournalThatStartsOverIsReadFromItsStart(t *testing.T) {
	prepare := func(j *journal) { j.append(segment(100), events(100, 105)...) }
	wipe := func(j *journal) {
		j.remove(segment(100))
		j.append(segment(1), events(1, 3)...)
	}
	t.Run("while it is down", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			j := newJournal(t)
			prepare(j)
			f := j.start(t, &memory{}, nil)
			f.settle()
			f.stop()
			wipe(j)
			sink := &memory{}
			f = j.start(t, sink, nil)
			f.settle()
			sink.want(t, events(1, 3))
			if s := f.State(); s.Position != 3 || s.Lost != 0 || s.Lag != 0 {
				t.Errorf("state = %+v", s)
			}
		})
	})
	t.Run("while it runs", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			j, sink := newJournal(t), &memory{}
			prepare(j)
			f := j.start(t, sink, nil)
			f.settle()
			wipe(j)
			f.settle()
			sink.want(t, append(events(100, 105), events(1, 3)...))
		})
	})
}

func TestASegmentCutWhileItIsOpenIsReadAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j, sink := newJournal(t), &memory{}
		j.append(segment(1), events(1, 3)...)
		f := j.start(t, sink, nil)
		f.settle()
		if err := os.Truncate(j.path(segment(1)), int64(len(event(1))+1)); err != nil {
			t.Fatal(err)
		}
		f.settle()
		j.append(segment(1), strings.Replace(event(2), "u-1", "u-2", 1))
		f.settle()
		got := sink.got()
		if last := got[len(got)-1]; !strings.Contains(last, "u-2") {
			t.Errorf("the new line 2 never came: %q", got)
		}
	})
}

func TestASegmentCutAndGrownAgainBetweenTwoLooksIsReadAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j, sink := newJournal(t), &memory{}
		j.append(segment(1), events(1, 3)...)
		f := j.start(t, sink, nil)
		f.settle()
		if err := os.Truncate(j.path(segment(1)), int64(len(event(1))+1)); err != nil {
			t.Fatal(err)
		}
		long := strings.Replace(event(2), "u-1", strings.Repeat("u", 1000), 1)
		j.append(segment(1), long, event(3))
		f.settle()
		sink.want(t, append(events(1, 3), event(1), long, event(3)))
		if f.State().SetAside != 0 {
			t.Errorf("state = %+v", f.State())
		}
	})
}

func TestLinesThatComeRightBeforeARotationAreNotPassedOver(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j, sink := newJournal(t), &memory{}
		j.append(segment(1), event(1))
		var armed atomic.Bool
		f := j.start(t, sink, func(c *follow.Config) {
			// The clock is read between the look at the segment and the look at
			// the directory.
			c.Now = func() time.Time {
				if armed.CompareAndSwap(true, false) {
					j.append(segment(1), event(2))
					j.append(segment(3), event(3))
				}
				return time.Now()
			}
		})
		f.settle()
		armed.Store(true)
		f.settle()
		sink.want(t, events(1, 3))
		if f.State().Lost != 0 {
			t.Errorf("state = %+v", f.State())
		}
	})
}

func TestWhatIsNoEventIsSetAsideAndTheRestGoesOn(t *testing.T) {
	long := `{"seq":2,"instance":"gw-a","details":"` + strings.Repeat("x", follow.MaxLine) + `"}`
	for name, bad := range map[string]string{
		"no JSON":               `{"seq":2,"instance":"gw-a"`,
		"an empty line":         "",
		"an array":              `[2]`,
		"two objects":           `{"seq":2,"instance":"gw-a"}{}`,
		"invalid UTF-8":         "{\"seq\":2,\"instance\":\"gw-a\",\"path\":\"\xff\"}",
		"no number":             `{"instance":"gw-a"}`,
		"a number in quotes":    `{"seq":"2","instance":"gw-a"}`,
		"number zero":           `{"seq":0,"instance":"gw-a"}`,
		"a negative number":     `{"seq":-2,"instance":"gw-a"}`,
		"a fraction":            `{"seq":2.0,"instance":"gw-a"}`,
		"an exponent":           `{"seq":2e0,"instance":"gw-a"}`,
		"a number out of range": `{"seq":99999999999999999999,"instance":"gw-a"}`,
		"no instance":           `{"seq":2}`,
		"an empty instance":     `{"seq":2,"instance":""}`,
		"a huge instance":       `{"seq":2,"instance":"` + strings.Repeat("x", 300) + `"}`,
		"seq only inside":       `{"instance":"gw-a","details":{"seq":2}}`,
		"over one MiB":          long,
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				j, sink, told := newJournal(t), &memory{}, &states{}
				j.append(segment(1), event(1), bad, event(3))
				cursor := filepath.Join(t.TempDir(), "c")
				f := j.start(t, sink, func(c *follow.Config) { c.Cursor, c.OnState = cursor, told.add })
				f.settle()
				sink.want(t, []string{event(1), event(3)})
				if s := f.State(); s.SetAside != 1 || s.Lost != 0 || s.Position != 3 {
					t.Errorf("state = %+v", s)
				}
				if list := told.list(); len(list) != 1 || list[0].SetAside != 1 {
					t.Errorf("told %+v", list)
				}
				raw, err := os.ReadFile(cursor + ".rejected")
				if err != nil || strings.Count(string(raw), "\n") != 1 || !strings.Contains(string(raw), `"seq":2,"segment":"000000000001.jsonl"`) {
					t.Errorf("rejected file: %.300q, %v", raw, err)
				}
				if len(raw) > 16<<10 {
					t.Errorf("the rejected file got %d bytes", len(raw))
				}
			})
		})
	}
}

func TestTheLongestLineIsDelivered(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j, sink := newJournal(t), &memory{}
		frame := `{"seq":2,"instance":"gw-a","details":""}`
		long := strings.Replace(frame, `""`, `"`+strings.Repeat("x", follow.MaxLine-len(frame))+`"`, 1)
		j.append(segment(1), event(1), long, event(3))
		j.start(t, sink, nil).settle()
		sink.want(t, []string{event(1), long, event(3)})
	})
}

func TestTheRejectedFileStopsGrowing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j, sink := newJournal(t), &memory{}
		cursor := filepath.Join(t.TempDir(), "c")
		full := make([]byte, 16<<20)
		if err := os.WriteFile(cursor+".rejected", full, 0o600); err != nil {
			t.Fatal(err)
		}
		j.append(segment(1), "no event", event(2))
		f := j.start(t, sink, func(c *follow.Config) { c.Cursor = cursor })
		f.settle()
		sink.want(t, []string{event(2)})
		info, err := os.Stat(cursor + ".rejected")
		if err != nil || info.Size() != int64(len(full)) || f.State().SetAside != 1 {
			t.Errorf("%v, %v, %+v", info.Size(), err, f.State())
		}
	})
}
