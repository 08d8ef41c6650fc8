package stdout_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moat-gateway/moat/internal/audit/follow"
	"github.com/moat-gateway/moat/internal/audit/sinks/stdout"
	"github.com/moat-gateway/moat/internal/audit/sinktest"
)

// terminal is a writer that misbehaves on request.
type terminal struct {
	mu    sync.Mutex
	fault sinktest.Fault
	heal  chan struct{}
	buf   bytes.Buffer
}

func newTerminal() *terminal { return &terminal{heal: make(chan struct{})} }

func (w *terminal) set(fault sinktest.Fault) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fault = fault
	close(w.heal)
	w.heal = make(chan struct{})
}

func (w *terminal) Write(p []byte) (int, error) {
	w.mu.Lock()
	fault, heal := w.fault, w.heal
	w.mu.Unlock()
	keep := len(p)
	var err error
	switch fault {
	case sinktest.Slow:
		<-time.After(time.Millisecond)
	case sinktest.Refuse:
		return 0, errors.New("broken pipe")
	case sinktest.HalfOpen:
		<-heal
	case sinktest.Malformed: // against the contract of io.Writer
		keep = min(keep, 7)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf.Write(p[:keep])
	return keep, err
}

// lines returns the whole events that were written.
func (w *terminal) lines() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var whole []string
	for line := range strings.Lines(w.buf.String()) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasSuffix(line, "}") && strings.HasPrefix(line, "{") {
			whole = append(whole, line)
		}
	}
	return whole
}

func TestSuite(t *testing.T) {
	sinktest.Run(t, func(*testing.T) sinktest.Harness {
		w := newTerminal()
		return sinktest.Harness{
			Open:     func(*testing.T) follow.Sink { return stdout.New(w) },
			Received: func(*testing.T) []string { return w.lines() },
			Fault:    w.set,
		}
	})
}

func TestLinesAreWrittenAsTheyStand(t *testing.T) {
	var out bytes.Buffer
	s := stdout.New(&out)
	if s.Name() != "stdout" {
		t.Errorf("Name = %q", s.Name())
	}
	lines := sinktest.Lines(1, 2)
	if err := s.Deliver(t.Context(), lines); err != nil {
		t.Fatal(err)
	}
	if want := string(lines[0].Raw) + "\n" + string(lines[1].Raw) + "\n"; out.String() != want {
		t.Errorf("wrote %q, want %q", out.String(), want)
	}
	if err := s.Deliver(t.Context(), nil); err != nil {
		t.Errorf("nothing to deliver: %v", err)
	}
}

// script is a writer with a prepared end for each write.
type script struct {
	bytes.Buffer
	keep []int
	err  error
}

func (s *script) Write(p []byte) (int, error) {
	if len(s.keep) == 0 {
		return s.Buffer.Write(p)
	}
	n := s.keep[0]
	s.keep = s.keep[1:]
	s.Buffer.Write(p[:n])
	return n, s.err
}

func TestATornLineDoesNotSpoilTheNext(t *testing.T) {
	lines := sinktest.Lines(1, 2)
	first := len(lines[0].Raw)
	for name, row := range map[string]struct {
		keep []int
		want string
	}{
		"nothing written":     {[]int{0}, ""},
		"within a line":       {[]int{5}, string(lines[0].Raw[:5]) + "\n"},
		"before a newline":    {[]int{first}, string(lines[0].Raw) + "\n"},
		"behind a newline":    {[]int{first + 1}, string(lines[0].Raw) + "\n"},
		"twice within a line": {[]int{5, 3}, string(lines[0].Raw[:5]) + "\n" + string(lines[0].Raw[:2]) + "\n"},
	} {
		t.Run(name, func(t *testing.T) {
			w := &script{keep: row.keep, err: io.ErrClosedPipe}
			s := stdout.New(w)
			for range row.keep {
				if err := s.Deliver(t.Context(), lines); !errors.Is(err, io.ErrClosedPipe) {
					t.Fatalf("Deliver = %v", err)
				}
			}
			if err := s.Deliver(t.Context(), lines); err != nil {
				t.Fatal(err)
			}
			if want := row.want + string(lines[0].Raw) + "\n" + string(lines[1].Raw) + "\n"; w.String() != want {
				t.Errorf("wrote %q, want %q", w.String(), want)
			}
		})
	}
}

func TestAShortWriteIsAFailure(t *testing.T) {
	w := &script{keep: []int{9}}
	if err := stdout.New(w).Deliver(t.Context(), sinktest.Lines(1, 1)); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("Deliver = %v", err)
	}
}

func TestABlockedWriterGetsOneWriteAtATimeAndNoDuplicate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTerminal()
		w.set(sinktest.HalfOpen)
		s := stdout.New(w)
		for range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if err := s.Deliver(ctx, sinktest.Lines(1, 2)); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Deliver = %v", err)
			}
			cancel()
		}
		w.set(sinktest.Healthy)
		synctest.Wait()
		for _, lines := range [][]follow.Line{sinktest.Lines(1, 2), sinktest.Lines(3, 3)} {
			if err := s.Deliver(t.Context(), lines); err != nil {
				t.Fatal(err)
			}
		}
		var want []string
		for _, line := range sinktest.Lines(1, 3) {
			want = append(want, string(line.Raw))
		}
		if got := w.lines(); !slices.Equal(got, want) {
			t.Errorf("wrote %q, want %q", got, want)
		}
		// The bubble ends only when no goroutine is left.
	})
}

func TestOtherLinesAfterABlockedWriteAreWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTerminal()
		w.set(sinktest.HalfOpen)
		s := stdout.New(w)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Deliver(ctx, sinktest.Lines(1, 1)); err == nil {
			t.Error("a blocked write succeeded")
		}
		w.set(sinktest.Healthy)
		if err := s.Deliver(t.Context(), sinktest.Lines(1, 2)); err != nil {
			t.Error(err)
		}
		if got := w.lines(); len(got) != 3 {
			t.Errorf("wrote %q", got)
		}
	})
}
