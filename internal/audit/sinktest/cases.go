package sinktest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/audit/follow"
)

func inOrder(t *testing.T, s *suite) {
	s.write(Lines(1, 100)...)
	run := s.start(10 * time.Second)
	s.delivered(run)
	s.write(Lines(101, 130)...)
	s.delivered(run)
	if got := s.h.Received(t); len(got) != len(s.want) {
		t.Errorf("without any fault the server holds %d lines, want %d", len(got), len(s.want))
	}
	s.check()
}

// formatted delivers without a follower: what gives lines a text stands between.
func formatted(t *testing.T, s *suite) {
	lines := Lines(1, 20)
	for i := range lines {
		lines[i].Text = fmt.Appendf(nil, `{"format":"other","n":%d}`, lines[i].Seq)
		want := lines[i].Content()
		if s.h.RawOnly {
			want = lines[i].Raw
		}
		s.want = append(s.want, string(want))
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	sink := s.h.Open(t)
	if err := sink.Deliver(ctx, lines); err != nil {
		t.Fatal(err)
	}
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
	s.check()
}

func resume(t *testing.T, s *suite) {
	s.write(Lines(1, 20)...)
	run := s.start(10 * time.Second)
	s.delivered(run)
	run.stop()
	s.write(Lines(21, 40)...)
	s.delivered(s.start(10 * time.Second))
	if got := s.h.Received(t); len(got) != len(s.want) {
		t.Errorf("after a clean stop the server holds %d lines, want %d", len(got), len(s.want))
	}
	s.check()
}

func duplicate(t *testing.T, s *suite) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, lines := range [][]follow.Line{
		Lines(1, 10), // delivered, and the answer was lost
		Lines(1, 10),
		Lines(8, 14), // cut differently after a restart
		Lines(3, 5),
	} {
		sink := s.h.Open(t)
		for range 2 {
			if err := sink.Deliver(ctx, lines); err != nil {
				t.Fatal(err)
			}
		}
		if err := sink.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for _, line := range Lines(1, 14) {
		s.want = append(s.want, string(line.Raw))
	}
	s.check()
}

func slow(_ *testing.T, s *suite) {
	s.h.Fault(Slow)
	s.write(Lines(1, 50)...)
	s.delivered(s.start(20 * time.Second))
	s.h.Fault(Healthy)
	s.check()
}

// recovers breaks the way to the server before the first delivery and again
// while the sink holds a connection.
func recovers(fault Fault) func(t *testing.T, s *suite) {
	return func(t *testing.T, s *suite) {
		s.h.Fault(fault)
		s.write(Lines(1, 30)...)
		run := s.start(time.Second)
		s.until("a reported failure", func() bool { return run.State().Failures >= 2 })
		if run.Position() != 0 {
			t.Fatalf("%s: went on to line %d", fault, run.Position())
		}
		s.h.Fault(Healthy)
		s.delivered(run)

		s.h.Fault(fault)
		s.write(Lines(31, 60)...)
		s.until("another reported failure", func() bool { return run.State().Failures >= 1 })
		s.h.Fault(Healthy)
		s.delivered(run)
		s.until("recovery", func() bool { return run.State().Failures == 0 })
		s.check()
	}
}

func large(_ *testing.T, s *suite) {
	s.write(Line(1, 0), Line(2, 256<<10), Line(3, 0), Line(4, 256<<10), Line(5, 256<<10), Line(6, 0))
	s.delivered(s.start(20 * time.Second))
	s.check()
}

func shutdown(t *testing.T, s *suite) {
	s.write(Lines(1, 20)...)
	run := s.start(time.Minute)
	s.delivered(run)
	s.h.Fault(HalfOpen)
	s.write(Lines(21, 40)...)
	s.until("a delivery under way", run.busy.Load)
	if took := run.stop(); took > 5*time.Second {
		t.Errorf("stopping took %s", took)
	}
	s.h.Fault(Healthy)
	s.delivered(s.start(10 * time.Second))
	s.check()
}

func closed(t *testing.T, s *suite) {
	sink := s.h.Open(t)
	if sink.Name() == "" {
		t.Error("the sink has no name")
	}
	for range 2 {
		if err := sink.Close(); err != nil {
			t.Errorf("Close = %v", err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err := sink.Deliver(ctx, Lines(1, 1))
	if err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Deliver after Close = %v", err)
	}
	if got := s.h.Received(t); len(got) != 0 {
		t.Errorf("a closed sink delivered %q", got)
	}
}
