// Package policyfile reads roles and rules from files of their own, JSON or
// YAML, in the words of the configuration. It knows the files' form; whether
// the roles and rules make sense together is the rbac package's to say.
package policyfile

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/moat-gateway/moat/internal/rbac"
)

const (
	// MaxSize is the largest file that is read, in bytes.
	MaxSize = 16 << 20
	// maxItems is the most roles or rules of one file.
	maxItems = 100_000
	// maxFaults bounds how many faults of a file are named.
	maxFaults = 50
)

// Roles reads a roles file. The file is a list of roles, or an object whose
// only member is roles; the roles are a list, or an object by their names. A
// role has the words name, scope, permissions and inherit; under its name it
// may also be just its permissions:
//
//	roles:
//	  admin: [users.*, documents.*]
//	  superadmin:
//	    scope: global
//	    permissions: "*"
//
// Name is the file's name, for places. Every fault is reported at once.
func Roles(name string, data []byte) ([]rbac.RoleConfig, error) {
	r := &reader{file: name}
	top := r.top(data, "roles")
	var roles []rbac.RoleConfig
	if top != nil {
		for i, item := range top.items {
			role := rbac.RoleConfig{Place: r.place(item)}
			if top.kind == object {
				role.Name, role.Place = top.names[i].text, r.place(top.names[i])
			}
			r.role(item, &role, top.kind == object)
			roles = append(roles, role)
		}
	}
	return roles, r.err()
}

// Rules reads a rules file: a list of rules, or an object whose only member is
// rules. A rule is its line as text, or an object with the words methods,
// pattern, require, owner, tenant and those of a rule's block; its line may
// stand there as rule:
//
//	rules:
//	  - GET /documents/{id} documents.read
//	  - rule: PUT /documents/{id} documents.write
//	    when: now.getHours("Europe/Berlin") < 20
//
// Name is the file's name, for places. Every fault is reported at once.
func Rules(name string, data []byte) ([]rbac.RuleConfig, error) {
	r := &reader{file: name}
	top := r.top(data, "rules")
	if top != nil && top.kind != list {
		r.fail(top, "rules are a list")
		top = nil
	}
	var rules []rbac.RuleConfig
	if top != nil {
		for _, item := range top.items {
			rule := r.rule(item)
			rule.Place = r.place(item)
			rules = append(rules, rule)
		}
	}
	return rules, r.err()
}

// reader reads one file and collects what is wrong with it.
type reader struct {
	file string
	errs []error
	more int // faults that are not named
}

func (r *reader) err() error {
	if r.more > 0 {
		r.errs = append(r.errs, fmt.Errorf("%s: and %d faults more", r.file, r.more))
	}
	return errors.Join(r.errs...)
}

func (r *reader) place(n *node) string { return r.file + ":" + strconv.Itoa(n.line) }

func (r *reader) fail(n *node, reason string) {
	if len(r.errs) >= maxFaults {
		r.more++
		return
	}
	r.errs = append(r.errs, errors.New(r.place(n)+": "+reason))
}

// top returns the file's list or object, below word when the file has it.
func (r *reader) top(data []byte, word string) *node {
	if len(data) > MaxSize {
		r.errs = append(r.errs, fmt.Errorf("%s: is larger than %d MiB", r.file, MaxSize>>20))
		return nil
	}
	top, err := parse(data)
	if err != nil {
		r.errs = append(r.errs, fmt.Errorf("%s: %w", r.file, err))
		return nil
	}
	if top.kind == object && len(top.names) == 1 && top.names[0].text == word && top.items[0].kind != scalar {
		top = top.items[0]
	}
	switch {
	case top.kind == scalar:
		r.fail(top, "the file is a list or an object of "+word)
		return nil
	case len(top.items) == 0:
		r.fail(top, "has no "+word)
		return nil
	case len(top.items) > maxItems:
		r.fail(top, fmt.Sprintf("has %d %s; at most %d are allowed", len(top.items), word, maxItems))
		return nil
	}
	return top
}

func (r *reader) role(n *node, role *rbac.RoleConfig, named bool) {
	if named && n.kind != object {
		role.Permissions = r.texts(n, "permissions")
		return
	}
	words := map[string]func(*node){
		"scope":       func(v *node) { role.Scope = r.text(v, "scope") },
		"permissions": func(v *node) { role.Permissions = r.texts(v, "permissions") },
		"inherit":     func(v *node) { role.Inherit = r.texts(v, "inherit") },
	}
	if !named {
		words["name"] = func(v *node) { role.Name = r.text(v, "name") }
	}
	r.object(n, "a role", words)
}

func (r *reader) rule(n *node) (rule rbac.RuleConfig) {
	if n.kind == scalar {
		return r.line(n)
	}
	if i := slices.IndexFunc(n.names, func(name *node) bool { return name.text == "rule" }); i >= 0 {
		rule = r.line(n.items[i])
	}
	methods := func(v *node) {
		for _, text := range r.texts(v, "methods") {
			rule.Methods = append(rule.Methods, strings.Split(text, ",")...)
		}
	}
	words := map[string]func(*node){
		"when":          func(v *node) { rule.When = r.text(v, "when") },
		"shadow":        func(v *node) { rule.Shadow = r.flag(v, "shadow") },
		"rewrite_ok":    func(v *node) { rule.RewriteOK = r.flag(v, "rewrite_ok") },
		"trailers":      func(v *node) { rule.Trailers = r.flag(v, "trailers") },
		"encoded_slash": func(v *node) { rule.EncodedSlash = r.flag(v, "encoded_slash") },
		"strip_prefix":  func(v *node) { rule.StripPrefix = r.text(v, "strip_prefix") },
		"action":        func(v *node) { rule.Action = r.text(v, "action") },
	}
	if rule.Pattern != "" || len(rule.Methods) > 0 {
		words["rule"] = func(*node) {}
	} else {
		words["methods"] = methods
		words["pattern"] = func(v *node) { rule.Pattern = r.text(v, "pattern") }
		words["require"] = func(v *node) { rule.Require = r.texts(v, "require") }
		words["owner"] = func(v *node) { rule.Owner = bare(r.text(v, "owner")) }
		words["tenant"] = func(v *node) { rule.Tenant = bare(r.text(v, "tenant")) }
	}
	r.object(n, "a rule", words)
	if len(rule.Methods) == 0 || rule.Pattern == "" || len(rule.Require) == 0 {
		r.fail(n, "a rule needs its line as rule, or methods, pattern and require")
	}
	return rule
}

// bare takes the braces off a parameter's name: a rule's line has them, its
// JSON has not.
func bare(name string) string {
	if inner, ok := strings.CutPrefix(name, "{"); ok && strings.HasSuffix(inner, "}") {
		return strings.TrimSuffix(inner, "}")
	}
	return name
}

// line reads a rule's line.
func (r *reader) line(n *node) rbac.RuleConfig {
	blank := func(c rune) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }
	rule, err := rbac.ParseRule(strings.FieldsFunc(r.text(n, "a rule's line"), blank))
	if err != nil {
		r.fail(n, err.Error())
	}
	return rule
}

// object gives every member of an object to its word's function.
func (r *reader) object(n *node, what string, words map[string]func(*node)) {
	if n.kind != object {
		r.fail(n, what+" is an object here")
		return
	}
	for i, name := range n.names {
		read := words[name.text]
		if read == nil {
			known := make([]string, 0, len(words))
			for word := range words {
				known = append(known, word)
			}
			slices.Sort(known)
			r.fail(name, fmt.Sprintf("%s has no word %q here; known are: %s", what, name.text, strings.Join(known, ", ")))
			continue
		}
		read(n.items[i])
	}
}

// text reads a value that is one text.
func (r *reader) text(n *node, word string) string {
	if n.kind != scalar || n.isNil || n.text == "" {
		r.fail(n, word+" is one text, and not empty")
		return ""
	}
	return n.text
}

// texts reads a value that is one text or a list of them.
func (r *reader) texts(n *node, word string) []string {
	switch n.kind {
	case scalar:
		return []string{r.text(n, word)}
	case object:
		r.fail(n, word+" is a text or a list of texts")
		return nil
	}
	out := make([]string, 0, len(n.items))
	for _, item := range n.items {
		out = append(out, r.text(item, word))
	}
	return out
}

func (r *reader) flag(n *node, word string) bool {
	if n.kind != scalar || n.text != "true" && n.text != "false" {
		r.fail(n, word+" is true or false")
		return false
	}
	return n.text == "true"
}
