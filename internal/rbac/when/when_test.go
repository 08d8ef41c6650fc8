package when_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/identity"
	"github.com/moat-gateway/moat/internal/rbac"
	"github.com/moat-gateway/moat/internal/rbac/when"
)

// noon is a Wednesday, 12:00 in UTC and 13:00 in Berlin.
var noon = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

var agent = identity.Authenticated(identity.Principal{
	ID: "u-1", Tenant: "acme", Session: "s-9", Issuer: "main", Roles: []string{"Agent", "Read Only"},
	Claims: map[string]any{
		"plan": "gold", "level": json.Number("7"), "admin": true, "groups": []any{"a", "b"},
		"nested": map[string]any{"x": "y"}, "https://example.com/role": "lead",
	},
})

var ordinary = rbac.Request{
	Method: "GET", Host: "orders.example.com", Query: "page=2&tag=a&tag=b&e=%20",
	Address: netip.MustParseAddr("203.0.113.7"), Time: noon,
}

// decide asks a policy with one rule that everybody who is known may use.
func decide(t *testing.T, condition, path string, who *identity.Principal, req *rbac.Request) rbac.Decision {
	t.Helper()
	p, err := policy(condition, "authenticated")
	if err != nil {
		t.Fatalf("%s: %v", condition, err)
	}
	return p.Decide(p.Lookup("GET", path), who, req)
}

func policy(condition, require string) (*rbac.Policy, error) {
	return rbac.NewPolicy(rbac.PolicyConfig{
		Rules: []rbac.RuleConfig{{
			Methods: []string{"*"}, Pattern: "/orgs/{org}/{rest...}", Require: []string{require},
			When: condition, Place: "Caddyfile:7",
		}},
		Conditions: when.Compile,
	}, nil)
}

func TestAConditionNarrowsARule(t *testing.T) {
	const holds, fails, breaks = rbac.ReasonAuthenticated, rbac.ReasonCondition, rbac.ReasonConditionError
	for condition, want := range map[string]string{
		`identity.tenant == params.org`:                                    holds,
		`identity.tenant != params.org`:                                    fails,
		`identity.id == "u-1" && identity.known`:                           holds,
		`identity.id == "U-1"`:                                             fails,
		`identity.session == "s-9" && identity.issuer == "main"`:           holds,
		`"Read Only" in identity.roles`:                                    holds,
		`"Read" in identity.roles`:                                         fails,
		`identity.roles.exists(r, r.startsWith("Admin"))`:                  fails,
		`identity.claims.plan == "gold"`:                                   holds,
		`identity.claims.level >= 7`:                                       holds,
		`identity.claims.level > 7.5`:                                      fails,
		`identity.claims.admin`:                                            holds,
		`identity.claims.plan`:                                             breaks,
		`identity.claims.missing == "x"`:                                   breaks,
		`has(identity.claims.missing) && identity.claims.missing`:          fails,
		`identity.claims.groups[0] == "a"`:                                 holds,
		`identity.claims.groups[9] == "a"`:                                 breaks,
		`identity.claims.nested.x == "y"`:                                  holds,
		`identity.claims["https://example.com/role"] == "lead"`:            holds,
		`params.rest == "files/a b"`:                                       holds,
		`method == "GET" && host == "orders.example.com"`:                  holds,
		`path == "/orgs/acme/files/a%20b"`:                                 holds,
		`query.page == ["2"]`:                                              holds,
		`query.tag.all(v, v in ["a", "b"])`:                                holds,
		`query.tag == ["a"]`:                                               fails,
		`"missing" in query`:                                               fails,
		`query.missing == ["x"]`:                                           breaks,
		`cidr("203.0.113.0/24").containsIP(address)`:                       holds,
		`cidr("10.0.0.0/8").containsIP(address)`:                           fails,
		`address == "203.0.113.7"`:                                         holds,
		`now.getHours() == 12`:                                             holds,
		`now.getHours("Europe/Berlin") == 13`:                              holds,
		`now.getHours("+05:30") == 17`:                                     holds,
		`now.getDayOfWeek() in [1, 2, 3, 4, 5]`:                            holds,
		`now < timestamp("2026-01-01T00:00:00Z")`:                          fails,
		`params.org.matches("^[a-z]+$")`:                                   holds,
		`params.org.matches("^[a-z]{4}$")`:                                 holds,
		`params.org.matches("^[a-z]{5,}$") || params.org.matches("x{0}y")`: fails,
		`query.page[0].matches("[0-9]") && matches(params.org, "a")`:       holds,
		`1 / size(identity.roles.filter(r, false)) == 1`:                   breaks,
		`identity.roles.map(r, size(r)) == [5, 9]`:                         holds,
		`identity.id == "u-1" || identity.claims.missing == "x"`:           holds,
		`identity.claims.missing == "x" || identity.id == "nobody"`:        breaks,
		`!(identity.claims.missing == "x")`:                                breaks,
		`identity.claims.missing == "x" ? true : true`:                     breaks,
		`identity.claims.level in [6, 7, 8] && size(params.org) < 9`:       holds,
	} {
		d := decide(t, condition, "/orgs/acme/files/a%20b", agent, &ordinary)
		if d.Reason != want || d.Allowed() != (want == holds) {
			t.Errorf("%s: %v %s (%v), want %s", condition, d.Allowed(), d.Reason, d.Err, want)
		}
		if (d.Err != nil) != (want == breaks) {
			t.Errorf("%s: error %v", condition, d.Err)
		}
	}
}

func TestWhatConditionsCannotKnowRefuses(t *testing.T) {
	for name, row := range map[string]struct {
		condition string
		change    func(*rbac.Request)
	}{
		"no address":           {`address != "10.0.0.1"`, func(r *rbac.Request) { r.Address = netip.Addr{} }},
		"a query in two ways":  {`!("admin" in query)`, func(r *rbac.Request) { r.Query = "a=1;admin=1" }},
		"a broken escape":      {`!("admin" in query)`, func(r *rbac.Request) { r.Query = "a=%zz&admin=1" }},
		"a query not in UTF-8": {`query.page != ["x"]`, func(r *rbac.Request) { r.Query = "page=%ff" }},
		"too dear":             {`query.tag.all(x, x != "never")`, func(r *rbac.Request) { r.Query = strings.Repeat("tag=b&", 4000) + "c=1" }},
		"dear patterns":        {`!query.tag[0].matches("(a*)*b")`, func(r *rbac.Request) { r.Query = "tag=" + strings.Repeat("a", 200_000) }},
		"no time":              {`now > timestamp("2000-01-01T00:00:00Z")`, func(r *rbac.Request) { r.Time = time.Time{} }},
	} {
		req := ordinary
		if d := decide(t, row.condition, "/orgs/acme/x", agent, &req); d.Reason == rbac.ReasonConditionError {
			t.Errorf("%s: broken before the change: %v", name, d.Err)
		}
		row.change(&req)
		d := decide(t, row.condition, "/orgs/acme/x", agent, &req)
		if d.Allowed() || d.Reason != rbac.ReasonConditionError || d.Err == nil {
			t.Errorf("%s: %v %s %v", name, d.Allowed(), d.Reason, d.Err)
		}
	}
	if d := decide(t, `true`, "/orgs/acme/x", agent, nil); d.Allowed() || d.Reason != rbac.ReasonConditionError {
		t.Errorf("no request at all: %+v", d)
	}
}

func TestWhatIsNotKnownOfTheCallerEqualsNothing(t *testing.T) {
	for _, who := range []*identity.Principal{nil, identity.Anonymous(), identity.Anonymous("guest")} {
		p, err := policy(`(!identity.known || identity.id == "u") && size(identity.claims) == 0 && !("x" in identity.roles)`, "public")
		if err != nil {
			t.Fatal(err)
		}
		if d := p.Decide(p.Lookup("GET", "/orgs/a/b"), who, &ordinary); !d.Allowed() {
			t.Errorf("%+v: %+v", who, d)
		}
		for _, name := range []string{"id", "tenant", "session", "issuer"} {
			for _, condition := range []string{"%s == query.empty[0]", "%s == params.rest", "%s != \"x\"", "%s == \"x\" || true", "%s == \"\""} {
				condition = fmt.Sprintf(condition, "identity."+name)
				if p, err = policy(condition, "public"); err != nil {
					t.Fatal(err)
				}
				req := ordinary
				req.Query = "empty="
				if d := p.Decide(p.Lookup("GET", "/orgs/a"), who, &req); d.Allowed() || d.Reason != rbac.ReasonConditionError {
					t.Errorf("%s: %+v", condition, d)
				}
			}
		}
		if p, err = policy(`identity.known`, "public"); err != nil {
			t.Fatal(err)
		}
		if d := p.Decide(p.Lookup("GET", "/orgs/a/b"), who, &ordinary); d.Allowed() || !d.Anonymous || d.Reason != rbac.ReasonCondition {
			t.Errorf("%+v: %+v", who, d)
		}
	}
}

func TestABadConditionIsAFaultOfItsRule(t *testing.T) {
	for condition, want := range map[string]string{
		`identity.tenant = params.org`:                                       `column 17`,
		`params.nowhere == "x"`:                                              `undeclared reference to 'params'`,
		`identity.name == "x"`:                                               `undeclared reference to 'identity'`,
		`user == "x"`:                                                        `undeclared reference to 'user'`,
		`identity.id`:                                                        `type string; a condition is true or false`,
		`identity.id == 5`:                                                   `no matching overload`,
		`cidr("10.0.0.0/40").containsIP(address)`:                            `"10.0.0.0/40" is not a prefix`,
		`cidr("10.0.0.0/8").containsIP("here")`:                              `"here" is not an address`,
		`now.getHours("Europe/Nowhere") > 5`:                                 `"Europe/Nowhere" is not a time zone`,
		`params.org.matches("(")`:                                            `"(" is not a pattern`,
		`params.org.matches(identity.id)`:                                    `must be a text that stands there`,
		`matches(params.org, query.a[0])`:                                    `must be a text that stands there`,
		`params.org.matches("(a?){200}")`:                                    `at most 100 are allowed`,
		`now.getHours("25:99") > 5`:                                          `"25:99" is not a time zone`,
		`now.getHours("ab:cd") > 5`:                                          `"ab:cd" is not a time zone`,
		`now > timestamp("yesterday")`:                                       `invalid timestamp argument`,
		`[1].all(a, [1].all(b, [1].all(c, a == b && b == c)))`:               `comprehension`,
		`[` + strings.Repeat("now.getHours() == 1,", 90) + `true].all(x, x)`: "",
		strings.Repeat("(", 60) + "true" + strings.Repeat(")", 60):           `recursion`,
		strings.Repeat(" ", 4096) + "true":                                   `at most 4096 bytes`,
	} {
		_, err := policy(condition, "authenticated")
		if want == "" {
			if err != nil {
				t.Errorf("%.60s: %v", condition, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "Caddyfile:7") {
			t.Errorf("%.60s: error %v lacks %q", condition, err, want)
		}
	}
	if _, err := policy(`true`, "deny"); err == nil || !strings.Contains(err.Error(), "no effect on deny") {
		t.Errorf("on deny: %v", err)
	}
	dear := `size([` + strings.TrimSuffix(strings.Repeat(`"x",`, 900), ",") + `]`
	if _, err := policy(dear+`.map(a, ["a","b","c"].map(b, a + b))) == 0`, "authenticated"); err == nil || !strings.Contains(err.Error(), "costs at least") {
		t.Errorf("a condition that always costs too much: %v", err)
	}
	if _, err := rbac.NewPolicy(rbac.PolicyConfig{Rules: []rbac.RuleConfig{
		{Methods: []string{"GET"}, Pattern: "/", Require: []string{"public"}, When: "true"},
	}}, nil); err == nil || !strings.Contains(err.Error(), "not available") {
		t.Errorf("without a compiler: %v", err)
	}
}

func TestShadowCoversConditions(t *testing.T) {
	p, err := rbac.NewPolicy(rbac.PolicyConfig{
		Rules: []rbac.RuleConfig{{
			Methods: []string{"GET"}, Pattern: "/", Require: []string{"authenticated"}, When: `method == "POST"`, Shadow: true,
		}},
		Conditions: when.Compile,
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if d := p.Decide(p.Lookup("GET", "/"), agent, &ordinary); !d.Allowed() || !d.Shadowed || d.Reason != rbac.ReasonCondition {
		t.Errorf("%+v", d)
	}
}

func BenchmarkDecideWithACondition(b *testing.B) {
	for name, condition := range map[string]string{
		"tenant": `identity.tenant == params.org`,
		"office": `now.getHours() >= 8 && now.getHours() < 20 && cidr("203.0.113.0/24").containsIP(address)`,
	} {
		p, err := policy(condition, "authenticated")
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !p.Decide(p.Lookup("GET", "/orgs/acme/files/a"), agent, &ordinary).Allowed() {
					b.Fatal("refused")
				}
			}
		})
	}
}
