package rbac_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/identity"
	"github.com/moat-gateway/moat/internal/rbac"
)

// bigPolicy has the shape of a generated table: many resources under one
// prefix, with parameters, tails and methods, and one rule that denies the rest.
func bigPolicy(t testing.TB, n int) *rbac.Policy {
	t.Helper()
	rules := []rbac.RuleConfig{{Methods: []string{"*"}, Pattern: "/**", Require: []string{"deny"}}}
	for i := range n - 1 {
		rules = append(rules, rbac.RuleConfig{
			Methods: []string{"GET", "PUT"}, Pattern: fmt.Sprintf("/api/v1/res%d/{uid}/files/**", i),
			Require: []string{"files.write"}, Owner: "uid",
		})
	}
	p, err := rbac.NewPolicy(rbac.PolicyConfig{Rules: rules}, testRoles(t))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var benchRequests = []struct {
	name, path string
	who        *identity.Principal
}{
	{"owner", "/api/v1/res3/u-1/files/a/b", user("u-1", "t", "guest", "user")},
	{"escaped", "/api/v1/res3/a%20b/files/a", user("a b", "t", "user")},
	{"permission", "/api/v1/res3/u-2/files/a/b", user("u-1", "t", "superadmin")},
	{"refused", "/api/v1/res3/u-2/files/a/b", user("u-1", "t", "guest", "user")},
	{"other", "/Nowhere/at/all", nil},
}

func BenchmarkDecide(b *testing.B) {
	for _, n := range []int{10, 1000, 10_000} {
		p := bigPolicy(b, n)
		for _, r := range benchRequests {
			b.Run(fmt.Sprintf("rules=%d/%s", n, r.name), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					p.Decide(p.Lookup("PUT", r.path), r.who, nil)
				}
			})
		}
	}
}

func BenchmarkNewPolicy(b *testing.B) {
	for _, n := range []int{10, 1000, 10_000} {
		b.Run(fmt.Sprintf("rules=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				bigPolicy(b, n)
			}
		})
	}
}

// One allocation is what decoding an escaped parameter takes; without one there
// must be none.
func TestADecisionHardlyAllocates(t *testing.T) {
	p := bigPolicy(t, 10_000)
	for _, r := range benchRequests {
		most := 0.0
		if r.name == "escaped" {
			most = 1
		}
		if got := testing.AllocsPerRun(200, func() { p.Decide(p.Lookup("PUT", r.path), r.who, nil) }); got > most {
			t.Errorf("%s: %v allocations, want at most %v", r.name, got, most)
		}
	}
	folding, err := rbac.NewPolicy(rbac.PolicyConfig{Rules: ruleConfigs(t, "* /Users/{id} public"), CaseInsensitive: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := testing.AllocsPerRun(200, func() { folding.Lookup("GET", "/USERS/%40ME") }); got > 1 {
		t.Errorf("folding: %v allocations", got)
	}
	on, err := rbac.CompileOn([]string{"GET"}, "/a/{id}")
	if err != nil {
		t.Fatal(err)
	}
	if got := testing.AllocsPerRun(200, func() { on.Match("GET", "/a/7"); on.Param("/a/7", "id") }); got > 0 {
		t.Errorf("on: %v allocations", got)
	}
}

// The cost must not grow with the number of rules. The bound is far above noise
// and far below what looking at every rule would take.
func TestCostIsFlatInTheNumberOfRules(t *testing.T) {
	cost := func(n int) time.Duration {
		p := bigPolicy(t, n)
		best := time.Hour
		for range 20 {
			start := time.Now()
			for range 500 {
				p.Decide(p.Lookup("PUT", "/api/v1/res3/u-1/files/a/b"), benchRequests[0].who, nil)
			}
			best = min(best, time.Since(start))
		}
		return best
	}
	if few, many := cost(10), cost(10_000); many > 20*few {
		t.Errorf("10 rules take %v, 10000 take %v", few, many)
	}
}
