package command

import (
	"context"
	"fmt"
	"io"

	"github.com/moat-gateway/moat/caddymodule/internal/explanation"
	"github.com/moat-gateway/moat/internal/rbac"
)

// caseReport is what became of all cases.
type caseReport struct {
	Cases   []caseResult `json:"cases"`
	Passed  int          `json:"passed"`
	Failed  int          `json:"failed"`
	Unknown int          `json:"unknown"` // of the failed: nothing could be told
	// Rules is how many rules the sites have.
	Rules     int         `json:"rules"`
	Uncovered []uncovered `json:"uncovered"`
}

type caseResult struct {
	Place  string `json:"place"`
	Name   string `json:"name,omitempty"`
	Method string `json:"method"`
	URL    string `json:"url"`
	Passed bool   `json:"passed"`
	Expect string `json:"expect"`
	Reason string `json:"expectReason,omitempty"`

	Verdict verdict `json:"verdict"`
}

// uncovered is a rule that decided on no case.
type uncovered struct {
	Rule  string `json:"rule"`
	Place string `json:"place"`
	Site  string `json:"site,omitempty"`
}

// coverage is which rules of the sites decided on a case. A rule is told by its
// gate, its text and its place: provisioned twice it is two of Go's, and from a
// snippet it stands in several sites.
type coverage struct {
	order   []ruleAt
	named   map[ruleAt]uncovered
	covered map[ruleAt]bool
}

type ruleAt struct {
	gate        int
	text, place string
}

func ruleOf(gate int, rule *rbac.Rule) ruleAt {
	return ruleAt{gate, explanation.RuleText(rule), rule.Place}
}

func newCoverage(gates []gatePolicy) *coverage {
	c := &coverage{named: map[ruleAt]uncovered{}, covered: map[ruleAt]bool{}}
	for i, gate := range gates {
		for _, rule := range gate.policy.Rules() {
			at := ruleOf(i, rule)
			c.order = append(c.order, at)
			c.named[at] = uncovered{Rule: at.text, Place: at.place, Site: gate.site}
		}
	}
	return c
}

func (c *coverage) add(gate int, match rbac.Match) {
	if rule := match.Rule(); rule != nil {
		c.covered[ruleOf(gate, rule)] = true
	}
}

func (c *coverage) uncovered() []uncovered {
	list := []uncovered{}
	for _, rule := range c.order {
		if !c.covered[rule] {
			list = append(list, c.named[rule])
		}
	}
	return list
}

// runCases answers every case and prints those that come out otherwise.
func runCases(ctx context.Context, g *gateways, list []testCase, out io.Writer, asJSON bool) (int, error) {
	r := &caseReport{}
	seen := newCoverage(g.open[false].gates)
	for i := range list {
		a, err := g.ask(ctx, list[i].request)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", list[i].place, err)
		}
		r.add(&list[i], a.Verdict)
		if ex := a.walk.Exchange; ex != nil && ex.LookedUp {
			seen.add(a.gate, ex.Match)
		}
	}
	r.Rules, r.Uncovered = len(seen.order), seen.uncovered()
	if err := r.print(out, asJSON); err != nil {
		return 0, err
	}
	return r.exit(), nil
}

func (r *caseReport) add(c *testCase, v verdict) {
	passed := c.matches(v)
	switch {
	case passed:
		r.Passed++
	case v.Result == resultUnknown:
		r.Unknown++
		r.Failed++
	default:
		r.Failed++
	}
	r.Cases = append(r.Cases, caseResult{
		Place: c.place, Name: c.name, Method: c.request.method, URL: c.request.target.url,
		Passed: passed, Expect: c.expect, Reason: c.reason, Verdict: v,
	})
}

// exit is the exit code: a case of which nothing can be told is no failure of
// the policy.
func (r *caseReport) exit() int {
	switch {
	case r.Unknown > 0:
		return exitUnknown
	case r.Failed > 0:
		return exitRefused
	}
	return exitAllowed
}

func (r *caseReport) print(out io.Writer, asJSON bool) error {
	if asJSON {
		return explainJSON(out, r)
	}
	p := &answerPrinter{out: out}
	for i := range r.Cases {
		if !r.Cases[i].Passed {
			p.failure(&r.Cases[i])
		}
	}
	if len(r.Uncovered) > 0 {
		p.line("rules that no case covers:")
		for _, rule := range r.Uncovered {
			p.line("  %s  (%s%s)", rule.Rule, rule.Place, in(rule.Site))
		}
		p.line("")
	}
	p.line("%d cases: %d passed, %d failed; %d of %d rules covered",
		len(r.Cases), r.Passed, r.Failed, r.Rules-len(r.Uncovered), r.Rules)
	return p.err
}

func in(site string) string {
	if site == "" {
		return ""
	}
	return ", " + site
}

func (p *answerPrinter) failure(c *caseResult) {
	p.line("FAIL %s %s", c.Place, printable(c.Name))
	p.field("request", c.Method+" "+c.URL)
	expected := c.Expect
	if c.Reason != "" {
		expected += ", " + c.Reason
	}
	p.field("expected", expected)
	v := c.Verdict
	switch v.Result {
	case resultUnknown:
		p.field("got", "cannot tell: "+v.Says)
	case resultRefused:
		p.field("got", fmt.Sprintf("%d %s, %s: %s", v.Status, v.Code, v.Reason, v.Says))
	default:
		p.field("got", "allowed, "+v.Reason+": "+v.Says)
	}
	if v.Rule != "" {
		p.field("rule", v.Rule+"  ("+v.Place+")")
	}
	p.line("")
}
