package token_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/internal/token"
)

func path(t *testing.T, paths ...string) [][]string {
	t.Helper()
	var out [][]string
	for _, p := range paths {
		parsed, err := token.ParseClaimPath(p)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, parsed)
	}
	return out
}

func TestFirstClaimPresentNamesTheCaller(t *testing.T) {
	v := verifier(t, func(c *token.Config) {
		c.Claims.ID = path(t, "user_id", "ext.user.id", "sub")
	})
	for _, tc := range []struct {
		name   string
		claims map[string]any
		want   string // empty: refused
	}{
		{"first", map[string]any{"user_id": "a", "sub": "b"}, "a"},
		{"nested", map[string]any{"ext": map[string]any{"user": map[string]any{"id": "n"}}}, "n"},
		{"last", map[string]any{"sub": "b"}, "b"},
		{"nested is not there", map[string]any{"ext": map[string]any{"user": map[string]any{}}, "sub": "b"}, "b"},
		{"integer", map[string]any{"user_id": 42}, "42"},
		{"negative integer", map[string]any{"user_id": -42}, "-42"},
		{"integer beyond 2^53", map[string]any{"user_id": uint64(18446744073709551615)}, "18446744073709551615"},
		{"not ASCII", map[string]any{"user_id": "Žofie Ω"}, "Žofie Ω"},
		{"256 bytes", map[string]any{"user_id": strings.Repeat("u", 256)}, strings.Repeat("u", 256)},
		{"first is empty", map[string]any{"user_id": "", "sub": "b"}, ""},
		{"first is null", map[string]any{"user_id": struct{}{}, "sub": "b"}, ""},
		{"first is an array", map[string]any{"user_id": []string{"a"}, "sub": "b"}, ""},
		{"first is a fraction", map[string]any{"user_id": 1.5, "sub": "b"}, ""},
		{"path through a string", map[string]any{"ext": "x", "sub": "b"}, ""},
		{"path through a number", map[string]any{"ext": map[string]any{"user": 1}, "sub": "b"}, ""},
		{"other case", map[string]any{"User_ID": "a", "Sub": "b", "sub": nil}, ""},
		{"none", map[string]any{"sub": nil}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			raw := with(t, tc.claims)
			if tc.want == "" {
				refused(t, v, raw, token.ReasonBadClaim)
				return
			}
			if p := accepted(t, v, raw); p.ID != tc.want {
				t.Errorf("ID %q, want %q", p.ID, tc.want)
			}
		})
	}
}

func TestTenantAndSessionMayBeMissingButNotWrong(t *testing.T) {
	v := verifier(t, nil)
	p := accepted(t, v, with(t, map[string]any{"tenant_id": nil, "sid": nil}))
	if p.Tenant != "" || p.Session != "" {
		t.Errorf("tenant %q, session %q", p.Tenant, p.Session)
	}
	p = accepted(t, v, with(t, map[string]any{"tenant_id": 7, "sid": nil, "jti": "j-1"}))
	if p.Tenant != "7" || p.Session != "j-1" {
		t.Errorf("tenant %q, session %q", p.Tenant, p.Session)
	}
	refused(t, v, with(t, map[string]any{"sid": "", "jti": "j-1"}), token.ReasonBadClaim)
}

func TestTokenGrantsConfiguredRolesOnly(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*token.Config)
		claims map[string]any
		want   string
	}{
		{"array", nil, map[string]any{"roles": []string{"admin", "user"}}, "admin user"},
		{"unknown", nil, map[string]any{"roles": []string{"root", "Admin", " admin", "admin ", "*"}}, ""},
		{"twice", nil, map[string]any{"roles": []string{"user", "user"}}, "user"},
		{"empty array", nil, map[string]any{"roles": []string{}, "role": "admin"}, ""},
		{"missing", nil, map[string]any{"roles": nil}, ""},
		{"string", nil, map[string]any{"roles": "admin"}, "admin"},
		{"second claim", nil, map[string]any{"roles": nil, "role": "user"}, "user"},
		{"second claim does not count", nil, map[string]any{"roles": []string{"user"}, "role": "admin"}, "user"},
		{"string is not split", nil, map[string]any{"roles": "user admin"}, ""},
		{"string with comma is not split", nil, map[string]any{"roles": "user,admin"}, ""},
		{"split", func(c *token.Config) { c.SplitRoles = " " }, map[string]any{"roles": " user  openid admin "}, "user admin"},
		{"split at comma", func(c *token.Config) { c.SplitRoles = "," }, map[string]any{"roles": "user, admin"}, "user"},
		{"array is not split", func(c *token.Config) { c.SplitRoles = " " }, map[string]any{"roles": []string{"user admin"}}, ""},
		{
			"nested", func(c *token.Config) { c.Claims.Roles = path(t, "realm_access.roles") },
			map[string]any{"roles": []string{"admin"}, "realm_access": map[string]any{"roles": []string{"user"}}}, "user",
		},
		{
			"quoted", func(c *token.Config) { c.Claims.Roles = path(t, `"https://example.com/roles"`) },
			map[string]any{"https://example.com/roles": []string{"user"}}, "user",
		},
		{
			"translated", func(c *token.Config) { c.RoleMap = map[string][]string{"g-1": {"admin", "user"}} },
			map[string]any{"roles": []string{"g-1", "g-2"}}, "admin user",
		},
		{
			"translated away", func(c *token.Config) { c.RoleMap = map[string][]string{"admin": {"guest"}} },
			map[string]any{"roles": []string{"admin"}}, "guest",
		},
		{
			"bounded", func(c *token.Config) { c.MayGrant = []string{"user"} },
			map[string]any{"roles": []string{"admin", "user"}}, "user",
		},
		{
			"bounded after translation",
			func(c *token.Config) { c.MayGrant = []string{"user"}; c.RoleMap = map[string][]string{"g": {"admin"}} },
			map[string]any{"roles": []string{"g"}}, "",
		},
		{"bounded to nothing", func(c *token.Config) { c.MayGrant = []string{} }, map[string]any{"roles": []string{"admin"}}, ""},
		{"no role is known", func(c *token.Config) { c.KnownRole = nil }, map[string]any{"roles": []string{"admin"}}, ""},
		{
			"everything is known but the empty role", func(c *token.Config) {
				c.KnownRole, c.SplitRoles = func(string) bool { return true }, " "
			}, map[string]any{"roles": "  a  "}, "a",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := accepted(t, verifier(t, tc.change), with(t, tc.claims))
			if got := strings.Join(p.Roles, " "); got != tc.want {
				t.Errorf("roles %q, want %q", got, tc.want)
			}
			if slices.Contains(p.Roles, "") {
				t.Error("an empty role")
			}
		})
	}
	refused(t, verifier(t, func(c *token.Config) { c.SplitRoles = " " }), with(t, map[string]any{"roles": ""}), token.ReasonBadClaim)
}
