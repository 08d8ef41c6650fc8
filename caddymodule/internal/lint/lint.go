// Package lint reads an adapted configuration and says what is weak in it. It
// knows the shape of Caddy's JSON and of Moat's modules as generic values; it
// opens nothing, dials nothing and changes nothing. What a policy file holds it
// is told by its caller.
package lint

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/moat-gateway/moat/internal/rbac"
)

// Severity says how much a finding weakens the gateway.
type Severity string

// The severities. High is a way around a check, or a check that cannot be what
// the operator believes it is. Medium weakens, or hides a mistake. Low is worth
// knowing.
const (
	High   Severity = "high"
	Medium Severity = "medium"
	Low    Severity = "low"
)

func (s Severity) rank() int { return slices.Index([]Severity{High, Medium, Low}, s) }

// Finding is one weakness at one place.
type Finding struct {
	// Code is the stable name of the kind of finding; docs/lint.md has a section
	// for each.
	Code     Code     `json:"code"`
	Severity Severity `json:"severity"`
	// Place is "file:line" where that is known, else the path in the adapted
	// JSON, for example apps/http/servers/srv0/routes/0.
	Place string `json:"place"`
	// Message names what is wrong and its value.
	Message string `json:"message"`
	// Hint says how to mend it.
	Hint string `json:"hint"`
}

// Summary counts findings.
type Summary struct {
	High   int `json:"high"`
	Medium int `json:"medium"`
	Low    int `json:"low"`
}

// Report is everything that was found, the gravest first.
type Report struct {
	Findings []Finding `json:"findings"`
	Summary  Summary   `json:"summary"`
}

// Options are what the package cannot find out by itself.
type Options struct {
	// Lines are the lines of the Caddyfile that the configuration was adapted
	// from. Without them findings that carry no place of their own are placed
	// in the JSON.
	Lines []Line
	// RolesFile and RulesFile read policy files. A file that cannot be read is a
	// finding; so is one when the hook is nil.
	RolesFile func(path string) ([]rbac.RoleConfig, error)
	RulesFile func(path string) ([]rbac.RuleConfig, error)
}

// Run lints an adapted configuration. The error says that it is no JSON object.
func Run(config []byte, opts Options) (*Report, error) {
	var root object
	if err := json.Unmarshal(config, &root); err != nil {
		return nil, fmt.Errorf("the configuration is not a JSON object: %w", err)
	}
	if root == nil {
		return nil, errors.New("the configuration is not a JSON object")
	}
	if err := checkKeys(root); err != nil {
		return nil, err
	}
	l := &linter{root: root, opts: opts, lines: newLines(opts.Lines)}
	// The walk comes first: it finds the gates and sites that others judge, and
	// policies comes before sites, which it tells of rules in shadow.
	for _, check := range []func(){
		l.walk, l.admin, l.servers, l.roles, l.policies, l.sites, l.insecure, l.trail, l.store,
	} {
		check()
	}
	if l.tooMany {
		return nil, errors.New("the routes call each other in more ways than can be followed")
	}
	return l.report(), nil
}

// linter is one run.
type linter struct {
	root     object
	opts     Options
	lines    lines
	findings []Finding

	// tooMany says that the walk over the routes did not come to its end.
	tooMany bool
	// What the walk over the routes has seen.
	gates []*policy
	seen  []*site
	// What the roles grant, once they are read.
	holders []holder
	// unread says that some roles are not known, so that nothing can be said
	// about what no role grants.
	unread bool
}

// add reports a finding.
func (l *linter) add(code Code, severity Severity, place, format string, args ...any) {
	l.findings = append(l.findings, Finding{
		Code: code, Severity: severity, Place: place, Message: fmt.Sprintf(format, args...), Hint: hints[code],
	})
}

func (l *linter) report() *Report {
	slices.SortFunc(l.findings, func(a, b Finding) int {
		return cmp.Or(
			cmp.Compare(a.Severity.rank(), b.Severity.rank()),
			natural(a.Place, b.Place),
			strings.Compare(string(a.Code), string(b.Code)),
			strings.Compare(a.Message, b.Message),
		)
	})
	// One line of a Caddyfile may stand in several handlers.
	r := &Report{Findings: slices.Compact(l.findings)}
	if r.Findings == nil {
		r.Findings = []Finding{}
	}
	for _, f := range r.Findings {
		switch f.Severity {
		case High:
			r.Summary.High++
		case Medium:
			r.Summary.Medium++
		case Low:
			r.Summary.Low++
		}
	}
	return r
}
