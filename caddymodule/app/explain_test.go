package app

import (
	"strings"
	"testing"

	"github.com/moat-gateway/moat/caddymodule/internal/explanation"
	"github.com/moat-gateway/moat/internal/rbac"
	"github.com/moat-gateway/moat/internal/token"
)

func TestVouchGivesWhatTheIssuerCould(t *testing.T) {
	roles, err := rbac.NewRoles([]rbac.RoleConfig{
		{Name: "user", Permissions: []string{"a"}}, {Name: "admin", Permissions: []string{"b"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	a := &App{
		Issuers: []*Issuer{{Name: "main"}, {Name: "partner"}, {Name: "twin"}},
		keys: map[string]*issuerKeys{
			"main":    {config: token.Config{}},
			"partner": {config: token.Config{MayGrant: []string{"user"}}},
			"twin":    {config: token.Config{SharesIDs: true}},
		},
	}
	if err := a.roles.Replace(roles); err != nil {
		t.Fatal(err)
	}
	who := &explanation.Caller{ID: "u-1", Tenant: "t-1", Roles: []string{"user"}}
	for _, c := range []struct {
		issuer        string
		first, shares bool
	}{{"main", true, true}, {"main", false, false}, {"partner", false, false}, {"twin", false, true}} {
		p, err := a.Vouch(c.issuer, c.first, who)
		if err != nil {
			t.Fatal(err)
		}
		if !p.Known() || p.ID != "u-1" || p.Tenant != "t-1" || p.Issuer != c.issuer || p.SharesIDs != c.shares {
			t.Errorf("%+v: %+v", c, p)
		}
	}
	for _, c := range []struct {
		issuer, want string
		who          explanation.Caller
	}{
		{"other", `issuer "other" is not configured; configured are: main, partner, twin`, *who},
		{"main", `role "root" is not configured; configured are: admin, user`, explanation.Caller{ID: "u", Roles: []string{"root"}}},
		{"partner", `role "admin": the issuer "partner" may not grant it`, explanation.Caller{ID: "u", Roles: []string{"admin"}}},
		{"main", "needs an id", explanation.Caller{}},
	} {
		if p, err := a.Vouch(c.issuer, true, &c.who); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %+v, %v; want %q", c.issuer, p, err, c.want)
		}
	}
}
