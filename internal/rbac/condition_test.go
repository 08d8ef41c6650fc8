package rbac_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/internal/identity"
	"github.com/moat-gateway/moat/internal/rbac"
)

// said is a condition that answers as it is told and notes what it was asked.
type said struct {
	holds bool
	err   error
	asked []*rbac.Circumstances
}

func (s *said) Holds(c *rbac.Circumstances) (bool, error) {
	s.asked = append(s.asked, c)
	return s.holds, s.err
}

func conditional(t *testing.T, s *said, require ...string) *rbac.Policy {
	t.Helper()
	p, err := rbac.NewPolicy(rbac.PolicyConfig{
		Rules: []rbac.RuleConfig{{
			Methods: []string{"GET"}, Pattern: "/users/{uid}/{rest...}", Require: require, When: "the text",
		}},
		Conditions: func(text string, params []string) (rbac.Condition, error) {
			if text != "the text" || !reflect.DeepEqual(params, []string{"uid", "rest"}) {
				t.Errorf("compiled %q with %q", text, params)
			}
			return s, nil
		},
	}, testRoles(t))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestAConditionIsAskedLastAndOnlyNarrows(t *testing.T) {
	failed := errors.New("no such claim")
	for _, row := range []struct {
		name    string
		said    said
		require string
		who     *identity.Principal
		reason  string
		asked   int
	}{
		{"holds", said{holds: true}, "documents.read", user("u", "", "guest"), rbac.ReasonPermission, 1},
		{"does not hold", said{}, "documents.read", user("u", "", "guest"), rbac.ReasonCondition, 1},
		{"fails", said{err: failed}, "documents.read", user("u", "", "guest"), rbac.ReasonConditionError, 1},
		{"holds and fails", said{holds: true, err: failed}, "documents.read", user("u", "", "guest"), rbac.ReasonConditionError, 1},
		{"opens nothing", said{holds: true}, "documents.read", user("u", "", "reader"), rbac.ReasonNoPermission, 0},
		{"opens nothing to nobody", said{holds: true}, "authenticated", nil, rbac.ReasonNoIdentity, 0},
		{"public, holds", said{holds: true}, "public", nil, rbac.ReasonPublic, 1},
		{"public, does not hold", said{}, "public", nil, rbac.ReasonCondition, 1},
	} {
		p := conditional(t, &row.said, row.require)
		req := rbac.Request{Method: "GET", Host: "h"}
		d := p.Decide(p.Lookup("GET", "/users/a%20b/c/d"), row.who, &req)
		allowed := strings.HasSuffix(row.name, "holds") && !strings.Contains(row.name, "not")
		if d.Reason != row.reason || d.Allowed() != allowed || len(row.said.asked) != row.asked {
			t.Errorf("%s: %+v, asked %d times", row.name, d, len(row.said.asked))
		}
		if !errors.Is(d.Err, row.said.err) && row.asked > 0 {
			t.Errorf("%s: error %v", row.name, d.Err)
		}
		if !allowed && (d.Role != "" || d.Permission != "" || d.Anonymous == row.who.Known()) {
			t.Errorf("%s: %+v", row.name, d)
		}
		for _, c := range row.said.asked {
			uid, _ := c.Param("uid")
			rest, _ := c.Param("rest")
			_, other := c.Param("other")
			if uid != "a b" || rest != "c/d" || other || c.Path != "/users/a%20b/c/d" || c.Request != req || c.Caller != row.who {
				t.Errorf("%s: asked about %+v", row.name, c)
			}
		}
	}
}

func TestAConditionThatCannotBeAskedRefuses(t *testing.T) {
	s := said{holds: true}
	p := conditional(t, &s, "public")
	if d := p.Decide(p.Lookup("GET", "/users/u"), nil, nil); d.Allowed() || d.Reason != rbac.ReasonConditionError || d.Err == nil || len(s.asked) != 0 {
		t.Errorf("%+v", d)
	}
}

func TestFaultsOfConditionsAreTold(t *testing.T) {
	fails := func(string, []string) (rbac.Condition, error) { return nil, errors.New("column 3: wrong") }
	for name, row := range map[string]struct {
		rule    rbac.RuleConfig
		compile rbac.ConditionCompiler
		want    string
	}{
		"does not compile": {rbac.RuleConfig{Require: []string{"public"}, When: "a b"}, fails, `f:1: rule: "when a b": column 3: wrong`},
		"no compiler":      {rbac.RuleConfig{Require: []string{"public"}, When: "a b"}, nil, "not available"},
		"on deny":          {rbac.RuleConfig{Require: []string{"deny"}, When: "a b"}, fails, "no effect on deny"},
		"too long":         {rbac.RuleConfig{Require: []string{"public"}, When: strings.Repeat("x", 4097)}, fails, "at most 4096 bytes"},
	} {
		row.rule.Methods, row.rule.Pattern, row.rule.Place = []string{"GET"}, "/", "f:1"
		_, err := rbac.NewPolicy(rbac.PolicyConfig{Rules: []rbac.RuleConfig{row.rule}, Conditions: row.compile}, nil)
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: error %v lacks %q", name, err, row.want)
		}
	}
}
