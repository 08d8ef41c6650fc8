package rbac_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/internal/rbac"
)

func TestNewRolesCountOnlyWhenEverybodyAgrees(t *testing.T) {
	var live rbac.Live
	if live.Roles().Has("reader") {
		t.Error("the zero table holds a role")
	}
	roles := func(names ...string) *rbac.Roles {
		var configs []rbac.RoleConfig
		for _, name := range names {
			configs = append(configs, rbac.RoleConfig{Name: name, Permissions: []string{"x"}})
		}
		r, err := rbac.NewRoles(configs)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if err := live.Replace(roles("reader", "guest")); err != nil {
		t.Fatal(err)
	}
	var committed []string
	for _, name := range []string{"reader", "guest"} {
		live.Depend(func(next *rbac.Roles) (func(), error) {
			if !next.Has(name) {
				return nil, fmt.Errorf("needs %s", name)
			}
			return func() { committed = append(committed, name) }, nil
		})
	}
	live.Depend(func(*rbac.Roles) (func(), error) { return nil, nil })
	err := live.Replace(roles("reader"))
	if err == nil || !strings.Contains(err.Error(), "needs guest") || len(committed) != 0 || !live.Roles().Has("guest") {
		t.Errorf("error %v, committed %v", err, committed)
	}
	if err = live.Replace(roles("admin")); err == nil || !strings.Contains(err.Error(), "needs reader\nneeds guest") {
		t.Errorf("not every objection: %v", err)
	}
	if err := live.Replace(roles("guest", "admin", "reader")); err != nil || len(committed) != 2 || !live.Roles().Has("admin") {
		t.Errorf("error %v, committed %v", err, committed)
	}
}

func TestAPolicyKeepsTheRolesItWasMadeWith(t *testing.T) {
	roles, err := rbac.NewRoles([]rbac.RoleConfig{{Name: "reader", Permissions: []string{"x.read"}}})
	if err != nil {
		t.Fatal(err)
	}
	p, err := rbac.NewPolicy(rbac.PolicyConfig{Rules: []rbac.RuleConfig{
		{Methods: []string{"GET"}, Pattern: "/", Require: []string{"x.read"}},
	}}, roles)
	if err != nil {
		t.Fatal(err)
	}
	who := user("u", "", "reader", "ghost")
	for permission, want := range map[string]bool{
		"x.read": true, "x:read": true, "x.write": false, "*": false, "": false, "public": false,
	} {
		if p.Holds(who, permission) != want {
			t.Errorf("holds %q: %v", permission, !want)
		}
	}
	var none *rbac.Policy
	if none.Holds(who, "x.read") || p.Holds(nil, "x.read") || p.Holds(user("u", ""), "x.read") {
		t.Error("nobody holds something")
	}
}

func TestDiffNamesWhatChanged(t *testing.T) {
	before := []rbac.RuleConfig{
		{Methods: []string{"GET"}, Pattern: "/same", Require: []string{"public"}, Place: "f:1"},
		{Methods: []string{"GET"}, Pattern: "/gone", Require: []string{"public"}},
		{Methods: []string{"GET", "PUT"}, Pattern: "/other", Require: []string{"public"}},
	}
	after := []rbac.RuleConfig{
		{Methods: []string{"GET"}, Pattern: "/same", Require: []string{"public"}, Place: "f:9"},
		{Methods: []string{"GET", "PUT"}, Pattern: "/other", Require: []string{"deny"}},
		{Methods: []string{"*"}, Pattern: "/new", Require: []string{"public"}},
	}
	want := rbac.Changes{Added: []string{"* /new"}, Removed: []string{"GET /gone"}, Changed: []string{"GET,PUT /other"}}
	if got := rbac.DiffRules(before, after); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
	if before[0].Place != "f:1" {
		t.Error("the comparison changed what it compared")
	}
	if !rbac.DiffRules(before, before).None() || rbac.DiffRules(before, after).None() {
		t.Error("None")
	}
	roles := rbac.DiffRoles(
		[]rbac.RoleConfig{{Name: "a", Permissions: []string{"x"}}, {Name: "b"}},
		[]rbac.RoleConfig{{Name: "a", Permissions: []string{"y"}, Place: "f:3"}})
	if !reflect.DeepEqual(roles, rbac.Changes{Removed: []string{"b"}, Changed: []string{"a"}}) {
		t.Errorf("%+v", roles)
	}
	if rbac.CheckPermission("x.read") != nil || rbac.CheckPermission("x..y") == nil {
		t.Error("CheckPermission")
	}
}
