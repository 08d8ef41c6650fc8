package report

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/moat-gateway/moat/internal/headers"
)

// DefaultMinCount is how often a violation must have been seen. A page that is
// really used is loaded more than twice while a policy is on trial.
const DefaultMinCount = 3

// Bounds of a policy that New accepts.
const (
	maxPolicy  = 8192
	maxSources = 256
)

// Evidence is a violation and how often it was seen. The same violation may
// stand in several.
type Evidence struct {
	Violation
	// Count is for how many reports it stands. Less than 1 stands for none.
	Count int64
	// From is a name of the network that the first of them came from, and Networks
	// is how many networks there were. Empty and 0 when unknown.
	From     string
	Networks int
	// First and Last are when it was seen.
	First, Last time.Time
}

// Options say what Propose may do.
type Options struct {
	// MinCount is the least number of reports for which a source is added.
	// Default: 3.
	MinCount int64
	// Origin is the origin of the pages, such as https://app.example.com. With
	// it sources that 'self' already covers are recognised. Default: unknown.
	Origin string
	// Paths adds single files where the evidence names them. Default: false, a
	// source ends with its host and port.
	Paths bool
	// Words are further lines of the csp block, such as "report_only" and
	// "report /-/csp", which the proposal keeps. Default: none.
	Words []string
	// Whole says that the current policy is given as the value of one header. The
	// proposal is then such a line, for a csp block would bring the preset's
	// directives back. Default: false.
	Whole bool
	// Wildcards are domains below which hosts are merged: with
	// cdn.example.com all of them become *.cdn.example.com. Default: none.
	// Nothing is merged by itself, for it takes more than two hosts to know that
	// all hosts of a domain belong to one owner.
	Wildcards []string
}

// Reason says why something that was seen is not allowed by a proposal.
type Reason string

// The reasons.
const (
	// ReasonNoise: no page asked for it.
	ReasonNoise Reason = "noise"
	// ReasonRare: it was seen fewer times than MinCount.
	ReasonRare Reason = "rare"
	// ReasonAllowed: the current policy allows it already.
	ReasonAllowed Reason = "allowed"
	// ReasonInline: it is inline code, which no address allows.
	ReasonInline Reason = "inline"
	// ReasonAttribute: it is an event handler or style attribute, which neither
	// a nonce nor a hash covers.
	ReasonAttribute Reason = "attribute"
	// ReasonEval: it is code made from text.
	ReasonEval Reason = "eval"
	// ReasonUnsafe: the source would undo the directive.
	ReasonUnsafe Reason = "unsafe"
	// ReasonUnnamed: the report does not name what a source could allow.
	ReasonUnnamed Reason = "unnamed"
	// ReasonIneffective: browsers would ignore the source in that directive.
	ReasonIneffective Reason = "ineffective"
	// ReasonFull: the policy has no room left.
	ReasonFull Reason = "full"
)

// Addition is a source that a proposal adds.
type Addition struct {
	// Directive is where the source was added.
	Directive string
	// Source is in normal form.
	Source string
	// Under are the effective directives of the reports.
	Under []string
	Seen
}

// Apart is something that was seen and that a proposal does not allow.
type Apart struct {
	Directive, Blocked string
	Reason             Reason
	// Why says in words what would have to be done to allow it.
	Why string
	Seen
}

// Proposal is a policy that allows what was seen and no more.
type Proposal struct {
	// CSP is the policy in normal form. It allows everything that the current
	// one allows.
	CSP headers.CSP
	// Block is the policy as a csp block of a Caddyfile, with the words of the
	// options and the evidence in comments; or, for a Whole one, as a set line.
	Block string
	// Added are the sources that the current policy does not have, in the order
	// of their directives.
	Added []Addition
	// Apart is what the policy does not allow, sorted by directive.
	Apart []Apart
	// Warnings are sentences about what in the policy deserves a look.
	Warnings []string
}

// Propose returns the tightest policy that allows what the current one allows
// and what was seen. It never adds 'unsafe-inline', 'unsafe-eval', * or
// whatever else New refuses without InsecureCSP. Everybody can post evidence,
// so a proposal is to be read before it is used. The error says what is wrong
// with the current policy or the options.
func Propose(evidence []Evidence, current headers.CSP, o Options) (Proposal, error) {
	p, err := newProposer(current, o)
	if err != nil {
		return Proposal{}, fmt.Errorf("report: %w", err)
	}
	p.gather(evidence)
	p.decide()
	p.accept()
	p.prune()
	return p.proposal()
}

// subject is what one decision is about.
type subject struct {
	directive, blocked string
	noise              bool
}

func (s subject) compare(t subject) int {
	return cmp.Or(strings.Compare(s.directive, t.directive), strings.Compare(s.blocked, t.blocked))
}

// placed is a source on its way into a directive.
type placed struct{ directive, source string }

func (p placed) compare(q placed) int {
	return cmp.Or(strings.Compare(p.directive, q.directive), cmp.Compare(rank(p.source), rank(q.source)),
		strings.Compare(p.source, q.source))
}

// rank puts 'self' before schemes and schemes before hosts.
func rank(source string) int {
	switch {
	case source == self:
		return 0
	case strings.HasSuffix(source, ":"):
		return 1
	default:
		return 2
	}
}

// proposer is a proposal in the making.
type proposer struct {
	o       Options
	own     *origin
	current headers.CSP
	policy  headers.CSP
	tallies map[subject]*tally
	wanted  map[placed]*tally
	added   map[placed]*tally
	apart   []Apart
}

func newProposer(current headers.CSP, o Options) (*proposer, error) {
	p := &proposer{
		o: o, tallies: make(map[subject]*tally), wanted: make(map[placed]*tally), added: make(map[placed]*tally),
	}
	if p.o.MinCount <= 0 {
		p.o.MinCount = DefaultMinCount
	}
	var errs []error
	var err error
	if p.current, err = headers.ParseCSP(current.String()); err != nil {
		errs = append(errs, fmt.Errorf("current policy: %w", err))
	}
	for _, d := range p.current {
		p.policy = append(p.policy, headers.Directive{Name: d.Name, Sources: slices.Clone(d.Sources)})
	}
	if o.Origin != "" {
		own, _, ok := address(o.Origin)
		if !ok || own.String() != strings.ToLower(o.Origin) {
			errs = append(errs, fmt.Errorf("origin %.100q: must be a scheme and a host, such as https://app.example.com", o.Origin))
		}
		p.own = &own
	}
	for _, domain := range o.Wildcards {
		if !isHost(domain) || !strings.Contains(domain, ".") {
			errs = append(errs, fmt.Errorf("wildcards: %.100q: must be a domain in lower case with at least one dot", domain))
		}
	}
	return p, errors.Join(errs...)
}

// gather sums the evidence by what is decided about.
func (p *proposer) gather(evidence []Evidence) {
	for _, e := range evidence {
		if e.Count < 1 {
			continue
		}
		s := subject{e.Directive, p.source(e.Blocked), e.Noise || e.Kind == KindExtension}
		if p.tallies[s] == nil {
			p.tallies[s] = newTally()
		}
		p.tallies[s].add(e)
	}
}

// source returns what would be added for something blocked.
func (p *proposer) source(blocked string) string {
	if !strings.Contains(blocked, "://") {
		return blocked
	}
	e := expressionOf(blocked)
	if p.own != nil && e.originOf() == *p.own {
		return self
	}
	if !p.o.Paths {
		e.path = ""
	}
	for _, domain := range p.o.Wildcards {
		if strings.HasSuffix(e.host, "."+domain) {
			e.host, e.path = "*."+domain, ""
		}
	}
	return e.String()
}

// decide sorts what was seen into what is wanted and what stands apart.
// Directives are taken in the order of their names, in which a whole comes
// before its parts: a source of a part goes into the whole if that is made here.
func (p *proposer) decide() {
	named := slices.Clone(p.current)
	for _, s := range slices.SortedFunc(maps.Keys(p.tallies), subject.compare) {
		t := p.tallies[s]
		if reason, why := p.judge(s, t); reason != "" {
			p.apart = append(p.apart, Apart{s.directive, s.blocked, reason, why, t.seen()})
			continue
		}
		at := placed{target(named, s.directive), s.blocked}
		if line(named, at.directive) == nil {
			named = append(named, headers.Directive{Name: at.directive})
		}
		p.want(at, t)
	}
}

func (p *proposer) want(at placed, t *tally) {
	if p.wanted[at] == nil {
		p.wanted[at] = newTally()
	}
	p.wanted[at].merge(t)
}

// accept puts what is wanted into the policy while there is room, first what most
// networks have seen, then what was seen most often.
func (p *proposer) accept() {
	order := slices.SortedFunc(maps.Keys(p.wanted), func(a, b placed) int {
		s, t := p.wanted[a], p.wanted[b]
		return cmp.Or(cmp.Compare(t.spread(), s.spread()), cmp.Compare(t.count, s.count), a.compare(b))
	})
	for _, at := range order {
		if t := p.wanted[at]; !p.put(at) {
			why := fmt.Sprintf("a policy ends at %d bytes and a directive at %d sources", maxPolicy, maxSources)
			p.apart = append(p.apart, Apart{at.directive, at.source, ReasonFull, why, t.seen()})
		} else {
			p.added[at] = t
		}
	}
}

// put adds a source to its directive, which it makes if need be: as a copy of
// what is in force now, because a directive of its own no longer inherits.
func (p *proposer) put(at placed) bool {
	d := line(p.policy, at.directive)
	if d == nil {
		copied := slices.Clone(inForce(p.current, at.directive).Sources)
		p.policy = append(p.policy, headers.Directive{Name: at.directive, Sources: copied})
		d = &p.policy[len(p.policy)-1]
	}
	before := d.Sources
	d.Sources = append(slices.DeleteFunc(slices.Clone(before), func(s string) bool { return s == "'none'" }), at.source)
	if len(d.Sources) > maxSources || len(p.policy.String()) > maxPolicy {
		d.Sources = before
		return false
	}
	return true
}

// prune takes out what another added source allows as well: https://a.example
// beside http://a.example, or a file beside its host. What was told about it
// counts for the other.
func (p *proposer) prune() {
	order := slices.SortedFunc(maps.Keys(p.added), placed.compare)
	for _, narrow := range order {
		for _, wide := range order {
			_, stays := p.added[wide]
			if wide == narrow || !stays || wide.directive != narrow.directive ||
				!expressionOf(wide.source).covers(expressionOf(narrow.source), p.own) {
				continue
			}
			p.added[wide].merge(p.added[narrow])
			delete(p.added, narrow)
			break
		}
	}
}

// proposal puts everything in order.
func (p *proposer) proposal() (Proposal, error) {
	out := Proposal{Apart: p.apart}
	slices.SortStableFunc(out.Apart, func(a, b Apart) int {
		return cmp.Or(strings.Compare(a.Directive, b.Directive), strings.Compare(a.Blocked, b.Blocked),
			strings.Compare(string(a.Reason), string(b.Reason)))
	})
	for _, at := range slices.SortedFunc(maps.Keys(p.added), placed.compare) {
		t := p.added[at]
		under := slices.Sorted(maps.Keys(t.under))
		out.Added = append(out.Added, Addition{at.directive, at.source, under, t.seen()})
	}
	var err error
	if out.CSP, err = headers.ParseCSP(p.ordered(out.Added).String()); err != nil {
		return Proposal{}, fmt.Errorf("report: the proposal: %w", err)
	}
	out.Warnings = p.warnings(out)
	out.Block = p.block(out)
	return out, nil
}

// ordered returns the current policy with the additions behind each directive's
// own sources, and new directives behind the others.
func (p *proposer) ordered(added []Addition) headers.CSP {
	var out headers.CSP
	for _, d := range p.current {
		out = append(out, headers.Directive{Name: d.Name, Sources: slices.Clone(d.Sources)})
	}
	for _, a := range added {
		d := line(out, a.Directive)
		if d == nil {
			out = append(out, headers.Directive{Name: a.Directive, Sources: slices.Clone(inForce(p.current, a.Directive).Sources)})
			d = &out[len(out)-1]
		}
		d.Sources = append(slices.DeleteFunc(d.Sources, func(s string) bool { return s == "'none'" }), a.Source)
	}
	return out
}
