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

var errNoReader = errors.New("nothing here reads policy files")

// policy is the rules of one gate.
type policy struct {
	path    string
	handler object
	guard   object
	site    *site
}

// holder is a role with everything it grants, inherited permissions included.
type holder struct {
	name        string
	permissions []string
}

// decode turns generic values into a configuration.
func decode[T any](v any) (T, error) {
	var out T
	data, err := json.Marshal(v)
	if err != nil {
		return out, err
	}
	return out, json.Unmarshal(data, &out)
}

// misfit says which value of a list is of the wrong kind.
func misfit(err error) string {
	var wrong *json.UnmarshalTypeError
	if !errors.As(err, &wrong) {
		return err.Error()
	}
	if wrong.Field == "" {
		return "a JSON " + wrong.Value + " stands where a list belongs"
	}
	return fmt.Sprintf("%s: a JSON %s is of the wrong kind", wrong.Field, wrong.Value)
}

// roles reads the roles and judges each for itself.
func (l *linter) roles() {
	app := asObject(dig(l.root, "apps", "moat"))
	roles, err := decode[[]rbac.RoleConfig](app["role"])
	if err != nil {
		l.add(PolicyDoesNotLoad, High, "apps/moat/role", "the roles cannot be read: %s", misfit(err))
		l.unread = true
		return
	}
	for i, o := range objects(app["role"]) {
		roles[i].Place = cmp.Or(text(o["place"]), l.at(join("apps/moat/role", i), "role", roles[i].Name))
	}
	if name := text(app["roles_file"]); name != "" {
		more, err := l.rolesFile(name)
		if err != nil {
			l.add(PolicyFileUnreadable, High, l.at("apps/moat/roles_file", "roles_file", name), "roles_file %s: %v", name, err)
			l.unread = true
		}
		roles = append(roles, more...)
	}
	l.resolve(roles)
}

func (l *linter) rolesFile(name string) ([]rbac.RoleConfig, error) {
	if l.opts.RolesFile == nil {
		return nil, errNoReader
	}
	return l.opts.RolesFile(name)
}

// resolve finds out what each role grants, and reports roles that grant
// nothing.
func (l *linter) resolve(roles []rbac.RoleConfig) {
	byName := make(map[string]*rbac.RoleConfig, len(roles))
	for i := range roles {
		byName[roles[i].Name] = &roles[i]
	}
	for i := range roles {
		h := holder{name: roles[i].Name}
		collect(byName, roles[i].Name, make(map[string]bool), &h.permissions)
		if len(h.permissions) == 0 {
			l.add(RoleWithoutPermissions, Medium, cmp.Or(roles[i].Place, "apps/moat/role"), "role %q grants nothing", h.name)
		}
		l.holders = append(l.holders, h)
	}
}

// collect gathers the permissions of a role and of those it inherits.
func collect(roles map[string]*rbac.RoleConfig, name string, visited map[string]bool, into *[]string) {
	role := roles[name]
	if role == nil || visited[name] {
		return
	}
	visited[name] = true
	*into = append(*into, role.Permissions...)
	for _, parent := range role.Inherit {
		collect(roles, parent, visited, into)
	}
}

// policies judges the rules of every gate.
func (l *linter) policies() {
	for _, p := range l.gates {
		rules, ok := l.rules(p)
		if !ok {
			continue
		}
		for i := range rules {
			l.permissions(&rules[i])
			if rules[i].Shadow {
				p.site.shadows = append(p.site.shadows, shadow{rules[i].Place, "the rule " + line(&rules[i]) + " is in shadow: it refuses nothing"})
			}
		}
		l.reach(p, rules)
	}
}

// rules reads the rules of a gate. It is false when some of them are unknown.
func (l *linter) rules(p *policy) (rules []rbac.RuleConfig, ok bool) {
	rules, err := decode[[]rbac.RuleConfig](p.handler["rules"])
	if err != nil {
		l.add(PolicyDoesNotLoad, High, p.path+"/rules", "the rules of site %s cannot be read: %s", p.site.name, misfit(err))
		return nil, false
	}
	for i := range rules {
		rules[i].Place = cmp.Or(rules[i].Place, join(p.path+"/rules", i))
	}
	name := text(p.handler["rules_file"])
	if name == "" {
		return rules, true
	}
	more, err := l.rulesFile(name)
	if err != nil {
		l.add(PolicyFileUnreadable, High, l.at(p.path+"/rules_file", "rules_file", name), "rules_file %s: %v", name, err)
		return nil, false
	}
	for i := range more {
		more[i].Place = cmp.Or(more[i].Place, fmt.Sprintf("%s[%d]", name, i))
	}
	return append(rules, more...), true
}

func (l *linter) rulesFile(name string) ([]rbac.RuleConfig, error) {
	if l.opts.RulesFile == nil {
		return nil, errNoReader
	}
	return l.opts.RulesFile(name)
}

// permissions holds what a rule asks for against what roles grant.
func (l *linter) permissions(rule *rbac.RuleConfig) {
	if l.unread {
		return
	}
	owner := rule.Owner != ""
	own, all := false, []string(nil)
	for _, word := range rule.Require {
		if word == "public" || word == "authenticated" || word == "deny" {
			return
		}
		alternatives := strings.Split(word, "|")
		ungranted := slices.DeleteFunc(slices.Clone(alternatives), func(p string) bool { return l.granted(p, owner) })
		for _, p := range ungranted {
			if len(ungranted) == len(alternatives) {
				l.add(PermissionWithoutRole, Medium, rule.Place, "no role grants %s, so nobody passes the rule %s", p, line(rule))
				continue
			}
			l.add(PermissionWithoutRole, Low, rule.Place, "no role grants %s, one of the alternatives of the rule %s", p, line(rule))
		}
		own = own || slices.ContainsFunc(alternatives, l.owned)
		if len(ungranted) < len(alternatives) {
			all = append(all, alternatives...)
		}
	}
	if owner && !own && len(all) > 0 {
		l.ownerless(rule, all)
	}
}

// ownerless reports an owner= that no role answers to. It is grave where a role
// was given the permission itself: its holders reach what is everybody's.
func (l *linter) ownerless(rule *rbac.RuleConfig, permissions []string) {
	var wide []string
	for _, h := range l.holders {
		if slices.ContainsFunc(permissions, func(p string) bool { return grantsNarrowly(h, p) }) {
			wide = append(wide, h.name)
		}
	}
	asked := strings.Join(permissions, ", ")
	if len(wide) > 0 {
		l.add(OwnerWithoutOwn, High, rule.Place,
			"owner={%s} keeps nobody out: no role holds %s as .own, and %s may use the rule %s whoever the owner is",
			rule.Owner, asked, strings.Join(wide, ", "), line(rule))
		return
	}
	l.add(OwnerWithoutOwn, Medium, rule.Place, "owner={%s} lets nobody in: no role holds %s as .own in the rule %s", rule.Owner, asked, line(rule))
}

// granted reports whether some role grants a permission, to an owner at least.
func (l *linter) granted(permission string, owner bool) bool {
	return slices.ContainsFunc(l.holders, func(h holder) bool {
		return slices.ContainsFunc(h.permissions, func(held string) bool { return rbac.Grants(held, permission) })
	}) || owner && l.owned(permission)
}

// owned reports whether some role grants a permission to the owner.
func (l *linter) owned(permission string) bool {
	return slices.ContainsFunc(l.holders, func(h holder) bool {
		return slices.ContainsFunc(h.permissions, func(held string) bool {
			below, own := strings.CutSuffix(strings.ReplaceAll(held, ":", "."), ".own")
			return own && rbac.Grants(below+".*", permission)
		})
	})
}

// grantsNarrowly reports whether a role grants a permission otherwise than by
// granting everything, as an administrator's does.
func grantsNarrowly(h holder, permission string) bool {
	return !slices.Contains(h.permissions, "*") &&
		slices.ContainsFunc(h.permissions, func(held string) bool { return rbac.Grants(held, permission) })
}

// line names a rule by its methods and pattern.
func line(rule *rbac.RuleConfig) string {
	return "`" + strings.Join(rule.Methods, ",") + " " + rule.Pattern + "`"
}
