package rbac

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxRoles       = 1024
	maxPermissions = 1024
	maxRoleName    = 128

	scopeGlobal = "global"
)

// RoleConfig describes one role.
type RoleConfig struct {
	// Name of the role, at most 128 bytes. It may contain spaces inside, but no
	// comma: role names travel to the upstream as a comma-separated list, and a
	// name with a comma would read as two roles there.
	Name string `json:"name"`
	// Scope is empty or "global". A global role is not bound to the caller's
	// tenant on routes with tenant=; every other role is.
	Scope string `json:"scope,omitempty"`
	// Permissions the role grants: dotted words ("documents.read", ":" reads as
	// "."), "users.*" for everything below users, "*" for everything. With
	// "documents.own" the role has every permission below documents on a route
	// whose owner= parameter equals the caller's identifier. At most 1024.
	Permissions []string `json:"permissions,omitempty"`
	// Inherit names roles whose permissions this role grants too. They count
	// with this role's scope, not with theirs. Together with Permissions at
	// least one entry is required.
	Inherit []string `json:"inherit,omitempty"`
	// Place is where the role stands, as "file:line", for error messages and
	// findings.
	Place string `json:"place,omitempty"`
}

// RoleError is one fault in one role.
type RoleError struct {
	// Place is where the role stands; empty when that is not known.
	Place string
	// Role is the name of the role.
	Role string
	// Value is what is wrong; empty when something is missing.
	Value string
	// Reason says what the value must be.
	Reason string
}

// Error names place, role, value and rule.
func (e *RoleError) Error() string {
	return located(e.Place, "role", e.Role, e.Value, e.Reason)
}

func located(place, what, name, value, reason string) string {
	var b strings.Builder
	if place != "" {
		b.WriteString(place + ": ")
	}
	b.WriteString(what + " " + strconv.Quote(name) + ": ")
	if value != "" && value != name {
		b.WriteString(strconv.Quote(value) + ": ")
	}
	b.WriteString(reason)
	return b.String()
}

// Roles is an immutable table of roles. The nil and the zero table hold none.
type Roles struct {
	byName map[string]*role
	id     [sha256.Size]byte
}

type role struct {
	name   string
	global bool
	grants grants
}

// NewRoles checks and compiles roles. It returns every fault at once, each a
// *RoleError, and then no table.
func NewRoles(configs []RoleConfig) (*Roles, error) {
	if len(configs) > maxRoles {
		return nil, fmt.Errorf("%d roles: at most %d are allowed", len(configs), maxRoles)
	}
	b := roleBuilder{
		configs: make(map[string]*RoleConfig, len(configs)),
		done:    make(map[string]*role, len(configs)),
	}
	for i := range configs {
		b.declare(&configs[i])
	}
	for i := range configs {
		b.check(&configs[i])
	}
	for i := range configs {
		b.resolve(configs[i].Name, nil)
	}
	if len(b.errs) > 0 {
		return nil, joined(b.errs)
	}
	r := &Roles{byName: b.done}
	r.id = sha256.Sum256(fmt.Appendf(nil, "%q", r.Names()))
	return r, nil
}

// ID identifies the set of names: two tables with the same names have the same.
func (r *Roles) ID() [sha256.Size]byte {
	if r == nil {
		return [sha256.Size]byte{}
	}
	return r.id
}

// Has reports whether a role of that name is configured.
func (r *Roles) Has(name string) bool { return r.get(name) != nil }

// Names returns the names of all roles, sorted.
func (r *Roles) Names() []string {
	if r == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(r.byName))
}

func (r *Roles) get(name string) *role {
	if r == nil {
		return nil
	}
	return r.byName[name]
}

type roleBuilder struct {
	configs map[string]*RoleConfig
	done    map[string]*role
	errs    []error
}

func (b *roleBuilder) fail(c *RoleConfig, value, reason string) {
	b.errs = append(b.errs, &RoleError{Place: c.Place, Role: c.Name, Value: value, Reason: reason})
}

func (b *roleBuilder) declare(c *RoleConfig) {
	if first, ok := b.configs[c.Name]; ok {
		b.fail(c, "", "stands twice"+also(first.Place))
		return
	}
	b.configs[c.Name] = c
}

func also(place string) string {
	if place == "" {
		return ""
	}
	return ", also at " + place
}

func (b *roleBuilder) check(c *RoleConfig) {
	if reason := badRoleName(c.Name); reason != "" {
		b.fail(c, "", reason)
	}
	if c.Scope != "" && c.Scope != scopeGlobal {
		b.fail(c, c.Scope, "a scope is global or left out")
	}
	if len(c.Permissions) == 0 && len(c.Inherit) == 0 {
		b.fail(c, "", "grants nothing: name a permission or a role to inherit")
	}
	if n := len(c.Permissions); n > maxPermissions {
		b.fail(c, "", fmt.Sprintf("%d permissions: at most %d are allowed", n, maxPermissions))
	}
	for _, p := range c.Permissions {
		if _, err := parsePermission(p); err != nil {
			b.fail(c, p, err.Error())
		}
	}
	seen := make(map[string]bool, len(c.Inherit))
	for _, name := range c.Inherit {
		if b.configs[name] == nil {
			b.fail(c, name, "no such role to inherit")
		}
		if seen[name] {
			b.fail(c, name, "is inherited twice")
		}
		seen[name] = true
	}
}

func badRoleName(name string) string {
	switch {
	case name == "":
		return "a role needs a name"
	case len(name) > maxRoleName:
		return fmt.Sprintf("a role name has at most %d bytes", maxRoleName)
	case !utf8.ValidString(name):
		return "a role name must be valid UTF-8"
	case strings.TrimSpace(name) != name:
		return "a role name must not begin or end with a space"
	case strings.ContainsFunc(name, func(r rune) bool { return r == ',' || !unicode.IsPrint(r) }):
		return "a role name must not contain commas or control characters"
	}
	return ""
}

// resolve compiles a role after those it inherits. path holds the names being
// resolved, outermost first.
func (b *roleBuilder) resolve(name string, path []string) *role {
	if r := b.done[name]; r != nil {
		return r
	}
	c := b.configs[name]
	if c == nil {
		return nil
	}
	r := &role{name: name, global: c.Scope == scopeGlobal}
	if i := slices.Index(path, name); i >= 0 {
		b.fail(c, "", "inherits itself: "+strings.Join(append(path[i:], name), " → "))
		// The table is discarded; keep the walk from meeting this cycle again.
		b.done[name] = r
		return r
	}
	for _, p := range c.Permissions {
		if dotted, err := parsePermission(p); err == nil {
			r.grants.add(dotted)
		}
	}
	for _, parent := range c.Inherit {
		if from := b.resolve(parent, append(path, name)); from != nil {
			r.grants.addAll(&from.grants)
		}
	}
	b.done[name] = r
	return r
}
