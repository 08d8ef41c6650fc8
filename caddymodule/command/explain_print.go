package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/moat-gateway/moat/caddymodule/internal/explanation"
)

// document is an answer as JSON.
type document struct {
	Method  string             `json:"method"`
	URL     string             `json:"url"`
	Address string             `json:"address"`
	Time    time.Time          `json:"time"`
	Server  string             `json:"server,omitempty"`
	Caller  *shownCaller       `json:"caller,omitempty"`
	Steps   []explanation.Step `json:"steps"`
	Verdict verdict            `json:"verdict"`
}

// shownCaller is who the gate took the caller for.
type shownCaller struct {
	Known  bool     `json:"known"`
	ID     string   `json:"id,omitempty"`
	Tenant string   `json:"tenant,omitempty"`
	Roles  []string `json:"roles,omitempty"`
	Issuer string   `json:"issuer,omitempty"`
}

func (a *answer) document() document {
	d := document{
		Method: a.request.method, URL: a.request.target.url, Address: a.request.remote, Time: a.request.at,
		Server: a.Server, Steps: a.walk.Steps, Verdict: a.Verdict,
	}
	if d.Steps == nil {
		d.Steps = []explanation.Step{}
	}
	if ex := a.walk.Exchange; ex != nil && ex.Caller != nil {
		who := ex.Caller
		d.Caller = &shownCaller{Known: who.Known(), ID: who.ID, Tenant: who.Tenant, Roles: who.Roles, Issuer: who.Issuer}
	}
	return d
}

// print writes the answer. Without JSON an answer that cannot be given is an
// error, after what was found on the way.
func (a *answer) print(out io.Writer, asJSON bool) error {
	if asJSON {
		return explainJSON(out, a.document())
	}
	p := &answerPrinter{out: out}
	p.line("%s %s\n", a.request.method, printable(a.request.target.url))
	for _, s := range a.walk.Steps {
		p.step(s)
	}
	if a.Verdict.Result == resultUnknown {
		return errors.Join(p.err, fmt.Errorf("cannot tell: %s", a.Verdict.Says))
	}
	p.verdict(a.Verdict)
	return p.err
}

func explainJSON(out io.Writer, value any) error {
	e := json.NewEncoder(out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(value)
}

// answerPrinter writes lines and remembers the first that could not be written.
type answerPrinter struct {
	out io.Writer
	err error
}

func (p *answerPrinter) line(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.out, format+"\n", args...)
	}
}

// nameWidth is the width of the column of names.
const nameWidth = 9

func (p *answerPrinter) field(name, text string) {
	p.line("  %-*s %s", nameWidth, name, printable(text))
}

func (p *answerPrinter) step(s explanation.Step) {
	text := s.Says
	switch s.Outcome {
	case explanation.Refuses, explanation.WouldRefuse:
		text = string(s.Outcome) + ": " + s.Reason + ", " + s.Says
	case explanation.Passes:
		if s.Reason != "" {
			text = "passes: " + s.Reason + ", " + s.Says
		}
	case explanation.Notes:
	}
	if s.Place != "" {
		text += "  (" + s.Place + ")"
	}
	p.field(s.Name, text)
	for _, more := range s.More {
		p.field("", more)
	}
}

func (p *answerPrinter) verdict(v verdict) {
	p.line("")
	switch {
	case v.Result == resultRefused:
		p.line("%s", strings.TrimRight(fmt.Sprintf("refused: %d %s", v.Status, v.Code), " "))
	case len(v.WouldRefuse) > 0:
		p.line("allowed, because of shadow; it would be refused: %s", strings.Join(v.WouldRefuse, ", "))
	default:
		p.line("allowed")
	}
	p.field("reason", v.Reason+": "+v.Says)
	if v.Rule != "" {
		p.field("rule", v.Rule+"  ("+v.Place+")")
	}
	if v.Role != "" {
		p.field("grant", "role "+v.Role+", permission "+v.Permission)
	}
	if v.Condition != "" {
		p.field("when", v.Condition)
	}
	if v.ConditionError != "" {
		p.field("", v.ConditionError)
	}
	if v.Next != "" {
		p.field("next", v.Next)
	}
}

// printable keeps what came from a request or a token from steering a terminal.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '\uFFFD'
		}
		return r
	}, text)
}
