package rbac

import "fmt"

const maxRules = 100_000

// PolicyConfig describes what is allowed on one site.
type PolicyConfig struct {
	// Rules in any order. At least one, at most 100,000.
	Rules []RuleConfig
	// PreflightUpstream lets CORS preflights pass without identity where a rule
	// other than deny is for the method they ask for. Default: they are
	// requests like others.
	PreflightUpstream bool
	// CaseInsensitive compares literals without regard to ASCII case, for sites
	// whose upstream does. Values of parameters keep their case.
	CaseInsensitive bool
	// Conditions compiles what rules say after when. Without it such a rule is a
	// fault.
	Conditions ConditionCompiler
}

// Policy is an immutable set of rules, safe for concurrent use. The nil and the
// zero Policy have no rule and so allow nothing.
type Policy struct {
	roles     *Roles
	rules     []*Rule
	root      node
	preflight bool
	fold      bool
}

// NewPolicy checks and compiles rules. Roles may be nil when none are
// configured; rules that need permissions then let nobody pass. It returns
// every fault at once, each a *RuleError, and then no policy.
//
// One rule decides on a path, whatever the order of rules. Of two patterns
// that match it, the one that is nowhere less specific wins, position by
// position: literal before {x} before **. The end of a pattern and a ** that
// matches nothing count as equal there; only between patterns that are equal
// everywhere ("/a" and "/a/**" at "/a") the one that ends wins. Of rules with
// the same pattern, those that name the method come before "*", and HEAD before
// the HEAD that a GET covers. Two patterns that are each the more specific
// somewhere are a fault, for the methods that both have rules for, unless a
// third pattern with a rule for these is exactly what both match. So is a
// second rule for the same method and pattern, whatever its parameters are
// called.
func NewPolicy(cfg PolicyConfig, roles *Roles) (*Policy, error) {
	switch n := len(cfg.Rules); {
	case n == 0:
		return nil, &RuleError{Reason: "there is none, so nobody would pass; " +
			"begin with `* /** authenticated`, or with `* /** public` to let everybody pass"}
	case n > maxRules:
		return nil, &RuleError{Reason: fmt.Sprintf("%d rules: at most %d are allowed", n, maxRules)}
	}
	p := &Policy{roles: roles, preflight: cfg.PreflightUpstream, fold: cfg.CaseInsensitive}
	var errs []error
	var terminals []*terminal
	for i := range cfg.Rules {
		rule, faults := compileRule(&cfg.Rules[i], i, cfg.Conditions)
		if len(faults) > 0 {
			errs = append(errs, faults...)
			continue
		}
		t, err := p.enter(rule)
		if err != nil {
			errs = append(errs, err)
		}
		if t != nil {
			terminals = append(terminals, t)
		}
	}
	errs = append(errs, conflicts(&p.root, terminals)...)
	if len(errs) > 0 {
		return nil, joined(errs)
	}
	return p, nil
}

// enter puts a rule into the trie. It returns the pattern's terminal when this
// is its first rule.
func (p *Policy) enter(rule *Rule) (*terminal, error) {
	pattern := rule.pattern
	if p.fold {
		pattern = pattern.folded()
	}
	t := p.root.at(pattern.segments, true)
	first := t.any == nil && len(t.named) == 0
	if earlier := t.add(rule); earlier != nil {
		return nil, &RuleError{
			Place:  rule.Place,
			Value:  rule.String(),
			Reason: fmt.Sprintf("is the same rule as %q at %s", earlier, earlier.Place),
		}
	}
	p.rules = append(p.rules, rule)
	if !first {
		return nil, nil
	}
	return t, nil
}

// Rules returns the rules in the order of the configuration.
func (p *Policy) Rules() []*Rule {
	if p == nil {
		return nil
	}
	return append([]*Rule(nil), p.rules...)
}

// NeedsIdentity reports whether a rule can be met only by somebody who is known
// or holds a role: whether one is neither public nor deny.
func (p *Policy) NeedsIdentity() bool {
	if p == nil {
		return false
	}
	for _, r := range p.rules {
		if r.NeedsIdentity() {
			return true
		}
	}
	return false
}

// Preflight reports whether a CORS preflight for a path may pass without
// identity. It may when the policy lets preflights pass and the rule for the
// method that is asked for, as Access-Control-Request-Method has it, is not
// deny. It says nothing of the request that the browser sends afterwards.
func (p *Policy) Preflight(path, method string) bool {
	if p == nil || !p.preflight || !isMethod(method) {
		return false
	}
	m := p.Lookup(method, path)
	return m.Found() && !m.Deny()
}

// Lookup returns the rule for a method and a canonical escaped path. It reads
// the path as it goes to the upstream, also where case does not count: values
// of parameters are taken from it.
func (p *Policy) Lookup(method, path string) Match {
	if p == nil || method == "" {
		return Match{}
	}
	rest, more, ok := open(key(path, p.fold))
	if !ok {
		return Match{}
	}
	rule := p.root.find(rest, more, method)
	if rule == nil {
		return Match{}
	}
	return Match{rule: rule, path: path}
}

// Match is the rule for one request. The zero Match is none.
type Match struct {
	rule *Rule
	path string
}

// Rule returns the rule, or nil when there is none.
func (m Match) Rule() *Rule { return m.rule }

// Found reports whether there is a rule.
func (m Match) Found() bool { return m.rule != nil }

// Public reports whether the rule lets everybody pass.
func (m Match) Public() bool { return m.rule != nil && m.rule.need == needNothing }

// Deny reports whether the rule lets nobody pass. Without a rule it is false,
// though nobody passes then either.
func (m Match) Deny() bool { return m.rule != nil && m.rule.need == needNobody }

// Route returns the pattern that matched, as it was written, or "".
func (m Match) Route() string {
	if m.rule == nil {
		return ""
	}
	return m.rule.Pattern
}

// Param returns the decoded value of a parameter of the pattern.
func (m Match) Param(name string) (value string, ok bool) {
	if m.rule == nil {
		return "", false
	}
	return m.rule.pattern.value(m.path, m.rule.pattern.index(name))
}
