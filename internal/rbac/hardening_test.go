package rbac

import "testing"

// No path that matches has an empty parameter today. A caller without an
// identifier or a tenant must not depend on that.
func TestAnEmptyParameterEqualsNobody(t *testing.T) {
	p, err := NewPolicy(PolicyConfig{Rules: []RuleConfig{{
		Methods: []string{"*"}, Pattern: "/u/{id}", Require: []string{"authenticated"}, Owner: "id",
	}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	m := p.Lookup("GET", "/u/x")
	m.path = "/u/"
	if value, ok := m.Param("id"); value != "" || !ok {
		t.Fatalf("Param = %q, %v: the test tests nothing", value, ok)
	}
	if m.equals(m.rule.owner, "") {
		t.Error("nobody owns it")
	}
}
