package command

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/moat-gateway/moat/caddymodule/internal/explanation"
	"github.com/moat-gateway/moat/internal/token"
)

// The results of an inspection.
const (
	resultAccepted   = "accepted"
	resultWellFormed = "well-formed"
)

// tokenReport is what moat token inspect says, as JSON.
type tokenReport struct {
	// Result is accepted, refused, unknown or well-formed.
	Result string `json:"result"`
	// Reason is that of the first check that failed, as in the audit event.
	Reason string `json:"reason,omitempty"`
	// Says is the result as a sentence.
	Says   string         `json:"says"`
	Issuer string         `json:"issuer,omitempty"`
	At     time.Time      `json:"at"`
	Header map[string]any `json:"header,omitempty"`
	Claims map[string]any `json:"claims,omitempty"`
	Dates  []tokenDate    `json:"dates,omitempty"`
	Checks []tokenCheck   `json:"checks"`
	// Caller is whom the token vouches for; when its signature is not checked,
	// whom it would.
	Caller *shownCaller `json:"caller,omitempty"`
}

type tokenDate struct {
	Claim string    `json:"claim"`
	Time  time.Time `json:"time"`
	Says  string    `json:"says"`
}

type tokenCheck struct {
	Check   string        `json:"check"`
	Outcome token.Outcome `json:"outcome"`
	Reason  string        `json:"reason,omitempty"`
	Says    string        `json:"says,omitempty"`
	Accepts []string      `json:"accepts,omitempty"`
}

func newTokenReport(judge *tokenJudge, seen *token.Inspection, at time.Time) *tokenReport {
	r := &tokenReport{
		Reason: seen.Reason, Issuer: judge.issuer, At: at.UTC().Truncate(time.Second),
		Header: seen.Header, Claims: seen.Claims,
	}
	for _, m := range seen.Moments {
		r.Dates = append(r.Dates, tokenDate{Claim: m.Claim, Time: m.At.UTC(), Says: dateSays(m, at)})
	}
	for _, c := range seen.Checks {
		shown := tokenCheck{Check: c.Name, Outcome: c.Outcome, Reason: c.Reason, Accepts: c.Accepts}
		if c.Reason != "" {
			shown.Says = explanation.Sentence(c.Reason)
		}
		r.Checks = append(r.Checks, shown)
	}
	if who := seen.Caller; who != nil {
		r.Caller = &shownCaller{Known: judge.kind == judgedFully, ID: who.ID, Tenant: who.Tenant, Roles: who.Roles, Issuer: judge.issuer}
	}
	r.conclude(judge, seen)
	return r
}

// conclude draws the result. Rules without keys can refuse a token, but not
// accept one.
func (r *tokenReport) conclude(judge *tokenJudge, seen *token.Inspection) {
	refused := seen.Reason != ""
	switch {
	case judge.kind == judgedNothing && seen.Claims != nil:
		r.Result = resultWellFormed
		r.Says = "there is nothing to verify with: name an issuer with --config, or keys with --key, --jwks, --secret-file or --secret-env"
		if refused {
			r.Says = "an issuer without settings would refuse it, because " + explanation.Sentence(seen.Reason) + "; " + r.Says
		}
	case refused:
		r.Result, r.Says = resultRefused, explanation.Sentence(seen.Reason)
		if seen.Unsigned {
			r.Says += "; its signature was not checked"
		}
	case seen.Unsigned:
		r.Result = resultUnknown
		r.Says = fmt.Sprintf("the keys of the issuer %s are at a key server, and nothing is fetched over a network: "+
			"fetch the key set and name it with --jwks; nothing else is wrong with the token", judge.issuer)
	default:
		r.Result, r.Says = resultAccepted, "every check passes"
		if open := r.unchecked(); judge.issuer == "" && len(open) > 0 {
			r.Says += fmt.Sprintf(", but any %s would do: a gateway wants a certain one, as --iss and --aud do", strings.Join(open, " and any "))
		}
	}
}

// unchecked returns which of iss and aud were not checked.
func (r *tokenReport) unchecked() []string {
	var names []string
	for _, c := range r.Checks {
		if c.Outcome == token.NotChecked && (c.Check == "iss" || c.Check == "aud") {
			names = append(names, c.Check)
		}
	}
	return names
}

// exit is the exit code.
func (r *tokenReport) exit() int {
	switch r.Result {
	case resultAccepted, resultWellFormed:
		return exitAllowed
	case resultRefused:
		return exitRefused
	}
	return exitUnknown
}

// print writes the report for people.
func (r *tokenReport) print(out io.Writer) error {
	p := &answerPrinter{out: out}
	p.object("header", r.Header)
	p.object("claims", r.Claims)
	if len(r.Dates) > 0 {
		p.line("dates")
		for _, d := range r.Dates {
			p.field(d.Claim, d.Time.Format(time.RFC3339)+"  "+d.Says)
		}
		p.line("")
	}
	p.line("checks")
	for _, c := range r.Checks {
		p.tokenCheck(c)
	}
	p.line("")
	p.line("%s", strings.TrimSpace(r.Result+" "+r.Reason))
	p.field("", r.Says)
	if c := r.Caller; c != nil {
		p.caller(c)
	}
	return p.err
}

func (p *answerPrinter) tokenCheck(c tokenCheck) {
	text := string(c.Outcome)
	if c.Reason != "" {
		text += ": " + c.Reason + ", " + c.Says
	}
	p.field(c.Check, text)
	if len(c.Accepts) > 0 {
		p.field("", "accepted: "+strings.Join(c.Accepts, ", "))
	}
}

func (p *answerPrinter) caller(c *shownCaller) {
	word := "caller"
	if !c.Known {
		word = "would be"
	}
	text := c.ID
	if c.Tenant != "" {
		text += ", tenant " + c.Tenant
	}
	switch len(c.Roles) {
	case 0:
		text += ", no role"
	case 1:
		text += ", role " + c.Roles[0]
	default:
		text += ", roles " + strings.Join(c.Roles, ", ")
	}
	p.field(word, text)
}

// object writes JSON, indented. What came from a token cannot steer a terminal.
func (p *answerPrinter) object(name string, object map[string]any) {
	if object == nil {
		return
	}
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	e.SetIndent("  ", "  ")
	if err := e.Encode(object); err != nil {
		p.err = errors.Join(p.err, err)
		return
	}
	p.line("%s", name)
	for line := range strings.Lines("  " + text.String()) {
		p.line("%s", printable(strings.TrimRight(line, "\n")))
	}
	p.line("")
}

// dateSays puts a date into words, seen from another.
func dateSays(m token.Moment, at time.Time) string {
	past := !m.At.After(at)
	words := map[string][2]string{
		"exp":       {"expired", "expires"},
		"nbf":       {"became valid", "becomes valid"},
		"iat":       {"issued", "issued in the future,"},
		"auth_time": {"logged in", "logged in in the future,"},
	}[m.Claim]
	if !past {
		return words[1] + " in " + spanSays(m.At.Sub(at))
	}
	return words[0] + " " + spanSays(at.Sub(m.At)) + " ago"
}

// spanSays rounds a time down to its largest unit; days begin after two of them.
func spanSays(d time.Duration) string {
	count, unit := int64(d/time.Second), "second"
	switch {
	case d >= 48*time.Hour:
		count, unit = int64(d/(24*time.Hour)), "day"
	case d >= time.Hour:
		count, unit = int64(d/time.Hour), "hour"
	case d >= time.Minute:
		count, unit = int64(d/time.Minute), "minute"
	}
	if count == 1 {
		return "1 " + unit
	}
	return fmt.Sprintf("%d %ss", count, unit)
}
