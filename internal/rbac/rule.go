package rbac

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/moat-gateway/moat/internal/canon"
)

const (
	maxWords        = 64
	maxAlternatives = 64
	maxAction       = 128
)

// RuleConfig describes one rule: who may use some methods on some paths. The
// order of rules does not matter; the most specific one that matches decides.
type RuleConfig struct {
	// Methods the rule is for, in upper case, or "*" alone for any. GET covers
	// HEAD. At least one, at most 32.
	Methods []string `json:"methods"`
	// Pattern of the path: literal segments, "{name}" for one segment, and "**"
	// or "{name...}" at the end for zero or more.
	Pattern string `json:"pattern"`
	// Require is what the caller needs: "public", "authenticated" or "deny"
	// alone, or permissions, all of them; in a word like "a|b" either will do.
	// Different words may be met by different roles of the caller.
	Require []string `json:"require"`
	// Owner is the name, without braces, of the one-segment parameter that holds
	// the owner's identifier. With permissions, roles that hold "x.own" count
	// there as holding everything below x when the caller is the owner, and as
	// holding nothing by it when not; with authenticated, only the owner passes.
	Owner string `json:"owner,omitempty"`
	// Tenant is the name, without braces, of the one-segment parameter that
	// holds a tenant. The route is open only to that tenant's callers, except
	// by roles of scope global.
	Tenant string `json:"tenant,omitempty"`
	// When is a condition (CEL) that must hold beside the requirement. It can
	// only narrow a rule: where it does not hold, or fails, the request is
	// refused, and no other rule is asked. Default: none.
	When string `json:"when,omitempty"`
	// Shadow decides and records, and refuses nothing.
	Shadow bool `json:"shadow,omitempty"`
	// RewriteOK lets the site's own handlers change method, path and host after
	// the decision.
	RewriteOK bool `json:"rewrite_ok,omitempty"`
	// Trailers lets request trailers pass to the upstream.
	Trailers bool `json:"trailers,omitempty"`
	// EncodedSlash lets "%2F" pass inside a segment.
	EncodedSlash bool `json:"encoded_slash,omitempty"`
	// StripPrefix is a literal path that the site takes off the front of the
	// request's path after the decision.
	StripPrefix string `json:"strip_prefix,omitempty"`
	// Action names the request in audit events. Default: method and pattern. At
	// most 128 bytes.
	Action string `json:"action,omitempty"`
	// Place is where the rule stands, as "file:line", for error messages and
	// explanations.
	Place string `json:"place,omitempty"`
}

// RuleError is one fault in one rule.
type RuleError struct {
	// Place is where the rule stands; "rules[2]" when no file is known.
	Place string
	// Value is what is wrong, or the rule itself.
	Value string
	// Reason says what the value must be.
	Reason string
}

// Error names place, value and rule.
func (e *RuleError) Error() string {
	var b strings.Builder
	if e.Place != "" {
		b.WriteString(e.Place + ": ")
	}
	b.WriteString("rule: ")
	if e.Value != "" {
		b.WriteString(strconv.Quote(e.Value) + ": ")
	}
	b.WriteString(e.Reason)
	return b.String()
}

// ParseRule reads the words of a rule's line:
//
//	METHODS PATTERN REQUIREMENT... [owner={param}] [tenant={param}]
//
// It checks what only the line can show and leaves the rest to NewPolicy. On
// error it returns, beside every fault, what it could read.
func ParseRule(words []string) (RuleConfig, error) {
	if len(words) > maxWords {
		return RuleConfig{}, &RuleError{Reason: fmt.Sprintf("%d words: at most %d are allowed", len(words), maxWords)}
	}
	line := strings.Join(words, " ")
	var rule RuleConfig
	var errs []error
	fail := func(value, reason string) {
		errs = append(errs, &RuleError{Value: value, Reason: reason})
	}
	if len(words) > 0 {
		rule.Methods = strings.Split(words[0], ",")
	}
	if len(words) > 1 {
		rule.Pattern = words[1]
	}
	for _, word := range words[min(2, len(words)):] {
		option, value, isOption := strings.Cut(word, "=")
		switch {
		case word == "when":
			fail(word, "a condition stands in the rule's block, not on its line")
		case !isOption:
			rule.Require = append(rule.Require, word)
		case option == "owner":
			parseBinding(&rule.Owner, word, value, fail)
		case option == "tenant":
			parseBinding(&rule.Tenant, word, value, fail)
		default:
			fail(word, "the options of a line are owner={param} and tenant={param}")
		}
	}
	if len(rule.Require) == 0 && len(errs) == 0 {
		fail(line, "a rule is METHODS PATTERN REQUIREMENT...; "+
			"the requirement is public, authenticated, deny or permissions")
	}
	return rule, errors.Join(errs...)
}

func parseBinding(dst *string, word, value string, fail func(value, reason string)) {
	name, opened := strings.CutPrefix(value, "{")
	name, closed := strings.CutSuffix(name, "}")
	switch {
	case !opened || !closed || !isParameterName(name):
		fail(word, "name a parameter of the pattern, in braces")
	case *dst != "":
		fail(word, "stands twice")
	default:
		*dst = name
	}
}

// need is what a rule asks for. The zero need lets nobody pass.
type need uint8

const (
	needNobody need = iota
	needNothing
	needSomebody
	needPermissions
)

// Rule is a compiled rule. Readers must not change it.
type Rule struct {
	// Methods, Pattern, Require, Owner, Tenant and Place are as configured;
	// Place is "rules[2]" when no file is known.
	Methods []string
	Pattern string
	Require []string
	Owner   string
	Tenant  string
	Place   string
	// The settings of RuleConfig. StripPrefix is in canonical form, without a
	// final slash.
	Shadow, RewriteOK, Trailers, EncodedSlash bool
	StripPrefix, Action, When                 string

	need    need
	words   [][]string // dotted; of each word one alternative must be granted
	pattern Pattern
	methods methodSet
	owner   int // segment index, -1 without
	tenant  int
	when    Condition // nil without
}

// String returns the rule's methods and pattern, as on its line.
func (r *Rule) String() string { return strings.Join(r.Methods, ",") + " " + r.Pattern }

// NeedsIdentity reports whether the rule can be met only by somebody who is
// known or holds a role.
func (r *Rule) NeedsIdentity() bool { return r.need != needNothing && r.need != needNobody }

// compiler turns one RuleConfig into a Rule and collects what is wrong with it.
type compiler struct {
	rule *Rule
	errs []error
}

func (c *compiler) fail(value, reason string) {
	c.errs = append(c.errs, &RuleError{Place: c.rule.Place, Value: value, Reason: reason})
}

func compileRule(cfg *RuleConfig, index int, compile ConditionCompiler) (*Rule, []error) {
	c := compiler{rule: &Rule{
		Methods: slices.Clone(cfg.Methods), Pattern: cfg.Pattern, Require: slices.Clone(cfg.Require),
		Owner: cfg.Owner, Tenant: cfg.Tenant, Place: cfg.Place,
		Shadow: cfg.Shadow, RewriteOK: cfg.RewriteOK, Trailers: cfg.Trailers, EncodedSlash: cfg.EncodedSlash,
		Action: cfg.Action, When: cfg.When,
		owner: -1, tenant: -1,
	}}
	if cfg.Place == "" {
		c.rule.Place = fmt.Sprintf("rules[%d]", index)
	}
	set, errs := newMethodSet(cfg.Methods)
	for _, err := range errs {
		c.fail(c.rule.String(), err.Error())
	}
	c.rule.methods = set
	c.requirement(cfg.Require)
	pattern, err := ParsePattern(cfg.Pattern)
	if err != nil {
		c.fail(cfg.Pattern, err.Error())
	} else {
		c.rule.pattern = pattern
		c.rule.owner = c.binding("owner", cfg.Owner)
		c.rule.tenant = c.binding("tenant", cfg.Tenant)
		c.stripPrefix(cfg.StripPrefix)
		c.condition(compile)
	}
	if len(cfg.Action) > maxAction || strings.ContainsFunc(cfg.Action, func(r rune) bool { return !unicode.IsPrint(r) }) {
		c.fail(cfg.Action, fmt.Sprintf("an action is at most %d bytes of printable text", maxAction))
	}
	return c.rule, c.errs
}

func (c *compiler) requirement(words []string) {
	switch {
	case len(words) == 0:
		c.fail(c.rule.String(), "names no requirement: public, authenticated, deny or permissions")
		return
	case len(words) > maxWords:
		c.fail(c.rule.String(), fmt.Sprintf("%d requirements: at most %d are allowed", len(words), maxWords))
		return
	case len(words) == 1 && reserved(words[0]):
		c.rule.need = map[string]need{
			wordPublic: needNothing, wordAuthenticated: needSomebody, wordDeny: needNobody,
		}[words[0]]
		return
	}
	c.rule.need = needPermissions
	for _, word := range words {
		if reserved(word) {
			c.fail(word, "stands alone: the only requirement of its rule")
			continue
		}
		c.rule.words = append(c.rule.words, c.alternatives(word))
	}
}

func (c *compiler) alternatives(word string) []string {
	alternatives := strings.Split(word, "|")
	if len(alternatives) > maxAlternatives {
		c.fail(c.rule.String(), fmt.Sprintf("%d alternatives: at most %d are allowed", len(alternatives), maxAlternatives))
		return nil
	}
	for i, a := range alternatives {
		dotted, err := parsePermission(a)
		if err != nil {
			c.fail(word, err.Error())
		}
		alternatives[i] = dotted
	}
	return alternatives
}

// binding returns the index of the segment that owner= or tenant= names.
func (c *compiler) binding(option, name string) int {
	if name == "" {
		return -1
	}
	i := c.rule.pattern.index(name)
	switch {
	case strings.ContainsAny(name, "{}"):
		c.fail(name, option+" names a parameter without its braces here")
	case c.rule.need == needNothing || c.rule.need == needNobody:
		c.fail(option+"={"+name+"}", "has no effect on public and deny")
	case i < 0:
		c.fail(option+"={"+name+"}", "the pattern "+c.rule.Pattern+" has no such parameter")
	case c.rule.pattern.segments[i].kind == tail:
		// "a/b" would then be one identifier and two segments at once.
		c.fail(option+"={"+name+"}", "must be a parameter of one segment")
	}
	return i
}

func (c *compiler) stripPrefix(prefix string) {
	if prefix == "" {
		return
	}
	p, err := ParsePattern(prefix)
	switch {
	case err != nil:
		c.fail(prefix, "strip_prefix: "+err.Error())
		return
	case len(p.segments) == 0:
		c.fail(prefix, "strip_prefix takes nothing off")
		return
	}
	for i, s := range p.segments {
		if s.kind != literal {
			c.fail(prefix, "strip_prefix is literal")
			return
		}
		if !c.rule.pattern.allows(i, s.text) {
			c.fail(prefix, "strip_prefix: no path of "+c.rule.Pattern+" begins with it")
			return
		}
	}
	canonical, err := canon.Path(escapeUTF8(prefix))
	if err != nil {
		c.fail(prefix, "strip_prefix: "+err.Error())
	}
	c.rule.StripPrefix = strings.TrimSuffix(canonical, "/")
}
