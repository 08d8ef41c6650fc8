package follow_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/audit/follow"
)

func TestEveryConfigErrorIsReportedAtOnce(t *testing.T) {
	_, err := follow.New(follow.Config{Batch: -1, Poll: -1, Timeout: 2 * time.Hour, BackoffMin: time.Minute, BackoffMax: time.Second})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"dir:", "cursor:", "sink:", "batch -1", "poll -1ns", "timeout 2h0m0s", "backoff_min 1m0s: must not exceed"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q:\n%v", want, err)
		}
	}
	if _, err := follow.New(follow.Config{}); err == nil {
		t.Error("the zero config was accepted")
	}
	if _, err := follow.New(follow.Config{Dir: "d", Cursor: "d/000000000001.jsonl", Sink: &memory{}}); err == nil {
		t.Error("a cursor on a segment's name was accepted")
	}
	if _, err := follow.New(follow.Config{Dir: "d", Cursor: "c", Sink: nameless{}}); err == nil {
		t.Error("a sink without a name was accepted")
	}
}

type nameless struct{}

func (nameless) Name() string                                 { return "" }
func (nameless) Close() error                                 { return nil }
func (nameless) Deliver(context.Context, []follow.Line) error { return nil }

func TestNewTouchesNoFile(t *testing.T) {
	dir := t.TempDir()
	if _, err := follow.New(follow.Config{Dir: filepath.Join(dir, "j"), Cursor: filepath.Join(dir, "c", "x"), Sink: &memory{}}); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 0 {
		t.Fatalf("left %v, %v", left, err)
	}
}

func TestLinesArriveInOrderAcrossSegments(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j, sink := newJournal(t), &memory{}
		f := j.start(t, sink, nil)
		f.settle() // the directory is not there yet
		j.append(segment(1), events(1, 600)...)
		f.settle()
		j.append(segment(1), events(601, 700)...)
		j.append(segment(701), events(701, 900)...)
		f.settle()
		j.append(segment(901), events(901, 901)...)
		f.settle()
		sink.want(t, events(1, 901))
		if f.Position() != 901 {
			t.Errorf("Position = %d", f.Position())
		}
		if n := slices.Max(sink.calls); n > 256 {
			t.Errorf("a batch of %d lines", n)
		}
	})
}

func TestSegmentsAreOrderedByNumberPastTwelveDigits(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j, sink := newJournal(t), &memory{}
		j.append("1000000000000.jsonl", event(1_000_000_000_000))
		j.append("999999999999.jsonl", event(999_999_999_999))
		j.append("99.jsonl", event(99))
		j.append("HEAD", "no segment")
		j.append("00000000000x.jsonl", "no segment")
		j.start(t, sink, nil).settle()
		sink.want(t, []string{event(999_999_999_999), event(1_000_000_000_000)})
	})
}

func TestATornTailIsNotDeliveredUntilItIsWhole(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j, sink := newJournal(t), &memory{}
		j.append(segment(1), event(1))
		j.write(segment(1), event(2)[:20])
		f := j.start(t, sink, nil)
		f.settle()
		sink.want(t, events(1, 1))
		j.write(segment(1), event(2)[20:]) // whole, but for its newline
		f.settle()
		sink.want(t, events(1, 1))
		j.write(segment(1), "\n")
		f.settle()
		sink.want(t, events(1, 2))
	})
}

func TestATornTailBehindWhichANewSegmentBeganIsPassedOver(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j, sink := newJournal(t), &memory{}
		j.append(segment(1), event(1))
		j.write(segment(1), `{"seq":2,"inst`)
		j.append(segment(2), event(2))
		j.start(t, sink, nil).settle()
		sink.want(t, events(1, 2))
	})
}

func TestARestartGoesOnWhereItStopped(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := newJournal(t)
		j.append(segment(1), events(1, 10)...)
		first := &memory{}
		f := j.start(t, first, nil)
		f.settle()
		f.stop()
		first.want(t, events(1, 10))

		j.append(segment(1), events(11, 12)...)
		j.append(segment(13), events(13, 14)...)
		second := &memory{}
		f = j.start(t, second, nil)
		f.settle()
		second.want(t, events(11, 14))
		if f.State().Lost != 0 || f.Position() != 14 {
			t.Errorf("state = %+v", f.State())
		}
	})
}

func TestACrashRepeatsLinesButLosesNone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := newJournal(t)
		j.append(segment(1), events(1, 10)...)
		cursor := filepath.Join(t.TempDir(), "c")
		use := func(c *follow.Config) { c.Cursor = cursor }
		f := j.start(t, &memory{}, use)
		f.settle()
		f.stop()
		old, err := os.ReadFile(cursor)
		if err != nil {
			t.Fatal(err)
		}
		j.append(segment(1), events(11, 20)...)
		f = j.start(t, &memory{}, use)
		f.settle()
		f.stop()
		if err := os.WriteFile(cursor, old, 0o600); err != nil { // never got to disk
			t.Fatal(err)
		}
		again := &memory{}
		j.start(t, again, use).settle()
		again.want(t, events(11, 20))
	})
}

func TestTheCursorIsPrivateAndLeavesNoTemporaryFile(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := newJournal(t)
		j.append(segment(1), event(1))
		f := j.start(t, &memory{}, nil)
		f.settle()
		f.stop()
		path := filepath.Join(filepath.Dir(j.dir), "cursors", "memory")
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Fatalf("cursor: %v, %v", info, err)
		}
		entries, err := os.ReadDir(filepath.Dir(path))
		if err != nil || len(entries) != 1 {
			t.Fatalf("beside the cursor: %v, %v", entries, err)
		}
	})
}

func TestACursorNobodyCanReadIsReportedAndReadingStartsAnew(t *testing.T) {
	for name, content := range map[string]string{
		"empty":              "",
		"no JSON":            "\x00\x00\x00",
		"a path for a name":  `{"sink":"memory","segment":"../../etc/passwd","offset":1,"seq":9,"head":"x"}`,
		"a negative offset":  `{"sink":"memory","segment":"000000000001.jsonl","offset":-1,"seq":9,"head":"x"}`,
		"no sink":            `{"segment":"000000000001.jsonl","offset":1,"seq":9,"head":"x"}`,
		"longer than a page": strings.Repeat(" ", 5<<10) + `{"sink":"memory","segment":"000000000001.jsonl"}`,
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				j, sink, told := newJournal(t), &memory{}, &states{}
				j.append(segment(1), events(1, 3)...)
				cursor := filepath.Join(t.TempDir(), "c")
				if err := os.WriteFile(cursor, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
				f := j.start(t, sink, func(c *follow.Config) { c.Cursor, c.OnState = cursor, told.add })
				f.settle()
				sink.want(t, events(1, 3))
				list := told.list()
				if len(list) != 2 || list[0].CursorError == "" || list[1].CursorError != "" {
					t.Errorf("told %+v", list)
				}
			})
		})
	}
}

func TestTheCursorOfAnotherSinkIsRefused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := newJournal(t)
		j.append(segment(1), event(1))
		cursor := filepath.Join(t.TempDir(), "c")
		f := j.start(t, &memory{name: "webhook"}, func(c *follow.Config) { c.Cursor = cursor })
		f.settle()
		f.stop()
		other := &memory{name: "postgres"}
		g, err := follow.New(follow.Config{Dir: j.dir, Cursor: cursor, Sink: other})
		if err != nil {
			t.Fatal(err)
		}
		if err := g.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "another sink") {
			t.Fatalf("Run = %v", err)
		}
		other.want(t, nil)
		if s := g.State(); s.Failures != 1 || s.LastError == "" || s.Lag != 1 {
			t.Errorf("state = %+v, want a failure and a lag", s)
		}
	})
}

func TestRunIsRefusedWhileItRuns(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newJournal(t).start(t, &memory{}, nil)
		f.settle()
		if err := f.Run(t.Context()); !errors.Is(err, follow.ErrRunning) {
			t.Fatalf("Run = %v", err)
		}
	})
}

func TestWakeShortensAnIdleWait(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j, sink := newJournal(t), &memory{}
		f := j.start(t, sink, func(c *follow.Config) { c.Poll = time.Hour })
		f.settle()
		j.append(segment(1), event(1))
		f.settle()
		sink.want(t, nil)
		for range 3 { // more than once is harmless and does not block
			f.Wake()
		}
		f.settle()
		sink.want(t, events(1, 1))
	})
}

func TestEpochComesFromTheLineOrFromItsSegment(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j, sink := newJournal(t), &memory{}
		j.append(segment(1), begin(1, "boot-1"), event(2))
		j.append(segment(3), begin(3, "boot-2"), event(4),
			fmt.Sprintf(`{"seq":5,"instance":%q,"epoch":"own"}`, testInstance))
		j.append(segment(6), event(6))
		f := j.start(t, sink, nil)
		f.settle()
		f.stop()
		if want := []string{"boot-1", "boot-1", "boot-2", "boot-2", "own", ""}; !slices.Equal(sink.epochs, want) {
			t.Errorf("epochs = %q, want %q", sink.epochs, want)
		}
		j.append(segment(7), begin(7, "boot-3"))
		f = j.start(t, &memory{}, nil)
		f.settle()
		f.stop()
		j.append(segment(7), event(8))
		resumed := &memory{}
		j.start(t, resumed, nil).settle()
		if want := []string{"boot-3"}; !slices.Equal(resumed.epochs, want) {
			t.Errorf("after a restart: %q, want %q", resumed.epochs, want)
		}
	})
}

func TestADeliveryUnderWayIsCancelledAtTheEndAndComesAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := newJournal(t)
		j.append(segment(1), events(1, 3)...)
		stuck := &memory{script: func(ctx context.Context, _ []follow.Line) error {
			<-ctx.Done()
			return ctx.Err()
		}}
		f := j.start(t, stuck, func(c *follow.Config) { c.Timeout = time.Hour })
		f.settle()
		f.stop()
		if s := f.State(); s.Failures != 0 || s.Position != 0 {
			t.Errorf("stopping counted as a failure: %+v", s)
		}
		sink := &memory{}
		j.start(t, sink, nil).settle()
		sink.want(t, events(1, 3))
	})
}
