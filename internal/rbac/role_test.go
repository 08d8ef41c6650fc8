package rbac_test

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/internal/rbac"
)

func roles(t testing.TB, configs ...rbac.RoleConfig) *rbac.Roles {
	t.Helper()
	r, err := rbac.NewRoles(configs)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func role(name string, permissions ...string) rbac.RoleConfig {
	return rbac.RoleConfig{Name: name, Permissions: permissions}
}

func TestRolesAreKnownByTheirExactName(t *testing.T) {
	r := roles(t, role("user", "a"), role("Organization Admin", "b"), role("admin", "*"))
	if got, want := r.Names(), []string{"Organization Admin", "admin", "user"}; !reflect.DeepEqual(got, want) {
		t.Errorf("Names() = %q, want %q", got, want)
	}
	for name, want := range map[string]bool{
		"user": true, "Organization Admin": true,
		"": false, "User": false, "Organization": false, " user": false, "*": false,
	} {
		if r.Has(name) != want {
			t.Errorf("Has(%q) = %v", name, !want)
		}
	}
}

func TestNoTableHoldsNoRole(t *testing.T) {
	var none *rbac.Roles
	if none.Has("") || none.Has("admin") || len(none.Names()) != 0 {
		t.Error("the nil table holds a role")
	}
	empty := roles(t)
	if empty.Has("") || len(empty.Names()) != 0 {
		t.Error("the empty table holds a role")
	}
}

func TestFaultsInRolesAreAllNamedWithTheirPlace(t *testing.T) {
	many := make([]string, 1025)
	for i := range many {
		many[i] = fmt.Sprintf("p%d", i)
	}
	for name, c := range map[string]struct {
		roles []rbac.RoleConfig
		want  []string
	}{
		"no name":          {[]rbac.RoleConfig{role("", "a")}, []string{`role "": a role needs a name`}},
		"comma":            {[]rbac.RoleConfig{role("a,b", "x")}, []string{`role "a,b": a role name must not contain commas`}},
		"control":          {[]rbac.RoleConfig{role("a\x00b", "x")}, []string{"control"}},
		"newline":          {[]rbac.RoleConfig{role("a\nb", "x")}, []string{"control"}},
		"outer space":      {[]rbac.RoleConfig{role(" a", "x"), role("b ", "x")}, []string{`" a": a role name must not begin`, `"b "`}},
		"bad UTF-8":        {[]rbac.RoleConfig{role("a\xff", "x")}, []string{"UTF-8"}},
		"long name":        {[]rbac.RoleConfig{role(strings.Repeat("a", 129), "x")}, []string{"128 bytes"}},
		"grants nothing":   {[]rbac.RoleConfig{role("a")}, []string{`role "a": grants nothing`}},
		"scope":            {[]rbac.RoleConfig{{Name: "a", Scope: "Global", Permissions: []string{"x"}}}, []string{`role "a": "Global": a scope is global`}},
		"permission":       {[]rbac.RoleConfig{role("a", "x y", "", "public", "a.*.b")}, []string{`"x y": a permission is`, `must not be empty`, `public is a requirement`, `"a.*.b"`}},
		"long permission":  {[]rbac.RoleConfig{role("a", strings.Repeat("x", 257))}, []string{"256 bytes"}},
		"many permissions": {[]rbac.RoleConfig{role("a", many...)}, []string{"1025 permissions: at most 1024"}},
		"twice": {[]rbac.RoleConfig{
			{Name: "a", Permissions: []string{"x"}, Place: "Caddyfile:3"},
			{Name: "a", Permissions: []string{"y"}, Place: "Caddyfile:9"},
		}, []string{`Caddyfile:9: role "a": stands twice, also at Caddyfile:3`}},
		"twice nowhere":   {[]rbac.RoleConfig{role("a", "x"), role("a", "x")}, []string{`role "a": stands twice`}},
		"unknown inherit": {[]rbac.RoleConfig{{Name: "a", Inherit: []string{"b", ""}}}, []string{`role "a": "b": no such role`, `role "a": no such role`}},
		"inherit twice":   {[]rbac.RoleConfig{role("b", "x"), {Name: "a", Inherit: []string{"b", "b"}}}, []string{`"b": is inherited twice`}},
		"itself":          {[]rbac.RoleConfig{{Name: "a", Inherit: []string{"a"}}}, []string{"inherits itself: a → a"}},
		"cycle": {[]rbac.RoleConfig{
			{Name: "top", Inherit: []string{"a"}},
			{Name: "a", Inherit: []string{"b"}}, {Name: "b", Inherit: []string{"c"}}, {Name: "c", Inherit: []string{"a"}, Permissions: []string{"x"}},
		}, []string{"inherits itself: a → b → c → a"}},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := rbac.NewRoles(c.roles)
			if err == nil || r != nil {
				t.Fatalf("NewRoles = %v, %v", r, err)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q lacks %q", err, want)
				}
			}
			var typed *rbac.RoleError
			if !errors.As(err, &typed) {
				t.Errorf("%T holds no *RoleError", err)
			}
			if n := strings.Count(err.Error(), "inherits itself"); n > 1 {
				t.Errorf("one cycle is reported %d times", n)
			}
		})
	}
}

func TestRolesAreBounded(t *testing.T) {
	many := make([]rbac.RoleConfig, 1025)
	for i := range many {
		many[i] = role(fmt.Sprintf("r%d", i), "x")
	}
	if _, err := rbac.NewRoles(many); err == nil {
		t.Error("1025 roles are taken")
	}
	if _, err := rbac.NewRoles(many[:1024]); err != nil {
		t.Error(err)
	}
}

func TestInheritanceIsNotACycleWhenRolesMeetAgain(t *testing.T) {
	r := roles(t,
		rbac.RoleConfig{Name: "top", Inherit: []string{"left", "right"}},
		rbac.RoleConfig{Name: "left", Inherit: []string{"base"}},
		rbac.RoleConfig{Name: "right", Inherit: []string{"base"}, Permissions: []string{"right.*"}},
		role("base", "base.read"),
	)
	p := policy(t, r, "GET /base base.read", "GET /right right.read", "GET /other other.read")
	for path, want := range map[string]bool{"/base": true, "/right": true, "/other": false} {
		if got := p.Decide(p.Lookup("GET", path), user("u", "t", "top"), nil); got.Allowed() != want {
			t.Errorf("%s: %+v", path, got)
		}
	}
	if got := p.Decide(p.Lookup("GET", "/right"), user("u", "t", "left"), nil); got.Allowed() {
		t.Errorf("a role has what its sibling holds: %+v", got)
	}
}
