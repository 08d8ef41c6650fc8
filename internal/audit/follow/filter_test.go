package follow_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/internal/audit/follow"
)

// kind returns a line of a class, an outcome, a severity and an action.
func kind(seq int, class, outcome, severity, action string) string {
	return fmt.Sprintf(`{"action":%q,"class":%q,"outcome":%q,"severity":%q,"seq":%d,"instance":%q}`,
		action, class, outcome, severity, seq, testInstance)
}

func TestAFilterPassesWhatFitsEveryList(t *testing.T) {
	lines := []string{
		kind(1, "access", "allow", "low", "http.request"),
		kind(2, "security", "deny", "medium", "http.request"),
		kind(3, "security", "deny", "low", "http.request"),
		kind(4, "security", "error", "high", "store.degraded"),
		kind(5, "admin", "allow", "medium", "limit.reset"),
		kind(6, "admin", "allow", "medium", "limit"),
		kind(7, "access", "aborted", "low", "GET /orders/{id}"),
	}
	for _, row := range []struct {
		name   string
		filter follow.Filter
		want   []int
	}{
		{"none", follow.Filter{}, []int{1, 2, 3, 4, 5, 6, 7}},
		{"one class", follow.Filter{Class: []string{"security"}}, []int{2, 3, 4}},
		{"two classes", follow.Filter{Class: []string{"security", "admin"}}, []int{2, 3, 4, 5, 6}},
		{"all but a class", follow.Filter{Class: []string{"!access"}}, []int{2, 3, 4, 5, 6}},
		{"all but two outcomes", follow.Filter{Outcome: []string{"!allow", "!deny"}}, []int{4, 7}},
		{"outcome", follow.Filter{Outcome: []string{"aborted"}}, []int{7}},
		{"severities", follow.Filter{Severity: []string{"medium", "high"}}, []int{2, 4, 5, 6}},
		{"class and severity", follow.Filter{Class: []string{"security"}, Severity: []string{"!low"}}, []int{2, 4}},
		{"an action", follow.Filter{Action: []string{"limit"}}, []int{6}},
		{"actions that begin so", follow.Filter{Action: []string{"limit.*", "store.*"}}, []int{4, 5}},
		{"all but actions that begin so", follow.Filter{Action: []string{"!http.*"}}, []int{4, 5, 6, 7}},
		{"requests of a kind", follow.Filter{Action: []string{"GET *"}}, []int{7}},
		{"one route", follow.Filter{Action: []string{"GET /orders/{id}"}}, []int{7}},
		{"nothing fits", follow.Filter{Class: []string{"access"}, Outcome: []string{"deny"}}, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				j, sink := newJournal(t), &memory{}
				j.append(segment(1), lines...)
				f := j.start(t, sink, func(c *follow.Config) { c.Filter = row.filter })
				f.settle()
				var want []string
				for _, seq := range row.want {
					want = append(want, lines[seq-1])
				}
				sink.want(t, want)
				if s := f.State(); s.Position != 7 || s.Lag != 0 || s.Lost != 0 || s.SetAside != 0 {
					t.Errorf("state = %+v", s)
				}
			})
		})
	}
}

func TestAnEventWithoutAFieldFitsNoValueOfIt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j, sink := newJournal(t), &memory{}
		j.append(segment(1), fmt.Sprintf(`{"seq":1,"instance":%q}`, testInstance), fmt.Sprintf(`{"seq":2,"class":7,"instance":%q}`, testInstance),
			kind(3, "admin", "", "", ""))
		j.start(t, sink, func(c *follow.Config) { c.Filter = follow.Filter{Class: []string{"admin"}} }).settle()
		sink.want(t, []string{kind(3, "admin", "", "", "")})
	})
}

// TestWhatIsFilteredOutDoesNotComeAgain restarts behind lines of which the sink
// got none, and fills batches with what is left.
func TestWhatIsFilteredOutDoesNotComeAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j, sink := newJournal(t), &memory{}
		var want []string
		for seq := 1; seq <= 3000; seq++ {
			class := "access"
			if seq%300 == 0 {
				class = "security"
				want = append(want, kind(seq, class, "", "", ""))
			}
			j.append(segment(1), kind(seq, class, "", "", ""))
		}
		j.append(segment(1), kind(3001, "access", "", "", ""))
		only := func(c *follow.Config) { c.Filter, c.Batch = follow.Filter{Class: []string{"security"}}, 5 }
		f := j.start(t, sink, only)
		f.settle()
		f.stop()
		sink.want(t, want)
		if sink.deliveries() != 2 {
			t.Errorf("deliveries of %v lines, want two of five", sink.calls)
		}
		before := sink.deliveries()
		again := j.start(t, sink, only)
		again.settle()
		if sink.deliveries() != before || again.Position() != 3001 {
			t.Errorf("after a restart %d deliveries and position %d", sink.deliveries()-before, again.Position())
		}
	})
}

func TestLinesThatAreGoneCountAsLostBesideAFilter(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j, sink := newJournal(t), &memory{}
		j.append(segment(1), kind(1, "security", "", "", ""), kind(5, "access", "", "", ""), kind(9, "access", "", "", ""))
		f := j.start(t, sink, func(c *follow.Config) { c.Filter = follow.Filter{Class: []string{"security"}} })
		f.settle()
		if s := f.State(); s.Lost != 6 || s.Position != 9 {
			t.Errorf("state = %+v, want 6 lost: nobody knows what they were", s)
		}
	})
}

func TestEveryWrongFilterWordIsNamed(t *testing.T) {
	err := follow.Filter{
		Class: []string{"acess"}, Outcome: []string{"!denied"}, Severity: []string{"low", "!high"},
		Action: []string{"", "*", "a\nb", "ok.*", "GET /orders/{id}", "POST *"},
	}.Validate()
	for _, want := range []string{
		`class "acess": must be access, security, admin`, `outcome "!denied": must be allow, deny, error, aborted`,
		"severity: some values have a !", `action "": must be like`, `action "*"`, `action "a\nb"`,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in: %v", want, err)
		}
	}
	for _, fine := range []string{"ok.*", "orders", "POST"} {
		if strings.Contains(strings.ReplaceAll(err.Error(), `or "GET /orders/{id}"`, ""), fine) {
			t.Errorf("refuses %s: %v", fine, err)
		}
	}
	if err := (follow.Filter{Class: make([]string, 65)}).Validate(); err == nil {
		t.Error("65 values are accepted")
	}
}

func TestAnotherFormatIsDeliveredBesideTheLine(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := newJournal(t)
		j.append(segment(1), events(1, 3)...)
		var got []string
		sink := &memory{script: func(_ context.Context, lines []follow.Line) error {
			for _, l := range lines {
				got = append(got, string(l.Content())+" "+string(l.Raw[:12]))
			}
			return nil
		}}
		cursor := filepath.Join(t.TempDir(), "c")
		f := j.start(t, sink, func(c *follow.Config) {
			c.Cursor = cursor
			c.Format = func(dst, line []byte) ([]byte, error) {
				if strings.Contains(string(line), `"seq":2,`) {
					return nil, errors.New("has no such format")
				}
				return fmt.Appendf(dst, "<%d>", len(line)), nil
			}
		})
		f.settle()
		want := fmt.Sprintf("[<%d> {\"timestamp\" <%d> {\"timestamp\"]", len(event(1)), len(event(3)))
		if fmt.Sprint(got) != want {
			t.Errorf("delivered %v, want %v", got, want)
		}
		if s := f.State(); s.SetAside != 1 || s.Position != 3 {
			t.Errorf("state = %+v", s)
		}
		rejected, err := os.ReadFile(cursor + ".rejected")
		if err != nil || !strings.Contains(string(rejected), "has no such format") {
			t.Errorf("rejected file %q, %v", rejected, err)
		}
	})
}
