package token_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/token"
)

func TestForgottenSettingsAreErrorsAllAtOnce(t *testing.T) {
	_, err := token.NewVerifier(token.Config{})
	lacks(t, err, "name", "iss: is required", "insecure_any_issuer", "audience: is required", "insecure_any_audience", "keys:")
}

func TestWrongSettingsAreErrors(t *testing.T) {
	remote := func(c *token.Config) { c.Keys = source{} }
	for _, tc := range []struct {
		name   string
		change func(*token.Config)
		says   string
	}{
		{"no name", func(c *token.Config) { c.Name = "" }, `name ""`},
		{"name with a space", func(c *token.Config) { c.Name = "a b" }, `name "a b"`},
		{"name with a line end", func(c *token.Config) { c.Name = "a\n" }, "name"},
		{"long name", func(c *token.Config) { c.Name = strings.Repeat("n", 65) }, "name"},
		{"empty iss", func(c *token.Config) { c.Issuers = []string{""} }, `iss ""`},
		{"iss twice", func(c *token.Config) { c.Issuers = []string{"a", "a"} }, `iss "a": stands twice`},
		{"any iss and one", func(c *token.Config) { c.AnyIssuer = true }, "beside insecure_any_issuer"},
		{"any audience and one", func(c *token.Config) { c.AnyAudience = true }, "beside insecure_any_audience"},
		{"any iss with a key server", func(c *token.Config) { remote(c); c.AnyIssuer, c.Issuers = true, nil }, "written down"},
		{"any audience with a key server", func(c *token.Config) { remote(c); c.AnyAudience, c.Audience = true, nil }, "written down"},
		{"empty audience", func(c *token.Config) { c.Audience = []string{"a", ""} }, `audience ""`},
		{"too many audiences", func(c *token.Config) { c.Audience = strings.Split(strings.Repeat("a ", 64), " ") }, "at most 64"},
		{"no keys", func(c *token.Config) { c.Keys = nil }, "keys:"},
		{"nil key set", func(c *token.Config) { c.Keys = (*token.KeySet)(nil) }, "keys:"},
		{"alg none", func(c *token.Config) { c.Algorithms = []string{"none"} }, `algorithm "none"`},
		{"alg unknown", func(c *token.Config) { c.Algorithms = []string{"es256"} }, `algorithm "es256"`},
		{"alg that no key serves", func(c *token.Config) { c.Algorithms = []string{"RS256"} }, "no key serves it"},
		{"HS with a key server", func(c *token.Config) { remote(c); c.Algorithms = []string{"HS256"} }, "not a key server"},
		{"HS beside ES", func(c *token.Config) { remote(c); c.Algorithms = []string{"HS256", "ES256"} }, "beside"},
		{"no typ", func(c *token.Config) { c.Types = []string{} }, "accepts no token"},
		{"empty typ", func(c *token.Config) { c.Types = []string{""} }, `typ ""`},
		{"logout token", func(c *token.Config) { c.Types = []string{"application/Logout+JWT"} }, "no credential"},
		{"security event", func(c *token.Config) { c.Types = []string{"secevent+jwt"} }, "no credential"},
		{"ignored crit", func(c *token.Config) { c.IgnoredHeaders = []string{"crit"} }, `"crit": must not`},
		{"ignored jku", func(c *token.Config) { c.IgnoredHeaders = []string{"JKU"} }, `"JKU": must not`},
		{"ignored b64", func(c *token.Config) { c.IgnoredHeaders = []string{"b64"} }, `"b64": must not`},
		{"ignored alg", func(c *token.Config) { c.IgnoredHeaders = []string{"Alg"} }, `"Alg": must not`},
		{"negative leeway", func(c *token.Config) { c.Leeway = -1 }, "leeway -1ns"},
		{"large leeway", func(c *token.Config) { c.Leeway = 61 * time.Second }, "leeway 1m1s"},
		{"negative lifetime", func(c *token.Config) { c.MaxLifetime = -time.Hour }, "max_lifetime -1h"},
		{"negative size", func(c *token.Config) { c.MaxToken = -1 }, "largest token -1"},
		{"large size", func(c *token.Config) { c.MaxToken = 16385 }, "largest token 16385"},
		{"negative header", func(c *token.Config) { c.MaxHeader = -1 }, "largest header -1"},
		{"header over token", func(c *token.Config) { c.MaxToken, c.MaxHeader = 100, 101 }, "largest header 101"},
		{"no id claim", func(c *token.Config) { c.Claims.ID = [][]string{} }, "claims id"},
		{"empty path", func(c *token.Config) { c.Claims.Tenant = [][]string{{}} }, "claims tenant"},
		{"empty claim", func(c *token.Config) { c.Claims.Roles = [][]string{{"a", ""}} }, "claims roles"},
		{"deep path", func(c *token.Config) { c.Claims.Session = [][]string{strings.Split("abcdefghi", "")} }, "claims session"},
		{"many claims", func(c *token.Config) { c.Claims.ID = slices.Repeat([][]string{{"a"}}, 9) }, "claims id"},
		{"map to no role", func(c *token.Config) { c.RoleMap = map[string][]string{"g": {"root"}} }, `role_map "g": "root"`},
		{"map to nothing", func(c *token.Config) { c.RoleMap = map[string][]string{"g": nil} }, `role_map "g"`},
		{"map of nothing", func(c *token.Config) { c.RoleMap = map[string][]string{"": {"admin"}} }, `role_map ""`},
		{"map without roles", func(c *token.Config) { c.RoleMap, c.KnownRole = map[string][]string{"g": {"admin"}}, nil }, "is no role"},
		{"grant of no role", func(c *token.Config) { c.MayGrant = []string{"root"} }, `may_grant: "root"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := config(t)
			tc.change(&c)
			_, err := token.NewVerifier(c)
			lacks(t, err, "token: issuer", tc.says)
		})
	}
}

func TestVerifierDoesNotFollowLaterChangesOfItsConfig(t *testing.T) {
	c := config(t)
	c.RoleMap = map[string][]string{"staff": {"guest"}}
	c.MayGrant = []string{"guest"}
	c.Claims.ID = [][]string{{"sub"}}
	v, err := token.NewVerifier(c)
	if err != nil {
		t.Fatal(err)
	}
	c.RoleMap["staff"][0], c.RoleMap["user"] = "admin", []string{"admin"}
	c.MayGrant[0], c.Issuers[0], c.Audience[0], c.Claims.ID[0][0] = "admin", "x", "x", "tenant_id"
	p := accepted(t, v, with(t, map[string]any{"roles": []string{"staff", "user"}}))
	if p.ID != "u-1" || !slices.Equal(p.Roles, []string{"guest"}) {
		t.Errorf("caller %q with roles %q", p.ID, p.Roles)
	}
	if v.Name() != "main" || !v.Ready() {
		t.Errorf("name %q, ready %v", v.Name(), v.Ready())
	}
}

func TestWaivedChecksAreWaivedAloneAndOnlyThose(t *testing.T) {
	anyIssuer := verifier(t, func(c *token.Config) { c.AnyIssuer, c.Issuers = true, nil })
	accepted(t, anyIssuer, with(t, map[string]any{"iss": nil}))
	refused(t, anyIssuer, with(t, map[string]any{"aud": "x"}), token.ReasonAudMismatch)
	anyAudience := verifier(t, func(c *token.Config) { c.AnyAudience, c.Audience = true, nil })
	accepted(t, anyAudience, with(t, map[string]any{"aud": nil}))
	refused(t, anyAudience, with(t, map[string]any{"iss": "x"}), token.ReasonIssMismatch)
	idTokens := verifier(t, func(c *token.Config) { c.AcceptIDTokens = true })
	accepted(t, idTokens, with(t, map[string]any{"nonce": "n", "at_hash": "h", "token_use": "id"}))
	refused(t, idTokens, with(t, map[string]any{"events": map[string]any{}}), token.ReasonEventToken)
}

func TestIgnoredHeadersAreIgnoredByExactName(t *testing.T) {
	v := verifier(t, func(c *token.Config) { c.IgnoredHeaders = []string{"x5t", "pi.atm"} })
	good := toJSON(t, goodClaims(nil))
	accepted(t, v, sealed(t, `{"alg":"ES256","x5t":{"any":["thing"]},"pi.atm":"1"}`, good, ring().ec))
	refused(t, v, sealed(t, `{"alg":"ES256","X5t":"AA"}`, good, ring().ec), token.ReasonHeaderMember)
	refused(t, v, sealed(t, `{"alg":"ES256","x5t":"AA","jku":"x"}`, good, ring().ec), token.ReasonHeaderMember)
}

func TestTypesAreComparedAsMediaTypes(t *testing.T) {
	good := toJSON(t, goodClaims(nil))
	for _, tc := range []struct {
		name, header string
		types        []string
		ok           bool
	}{
		{"default JWT", `,"typ":"JWT"`, nil, true},
		{"default at+jwt", `,"typ":"at+jwt"`, nil, true},
		{"other case", `,"typ":"At+JWT"`, nil, true},
		{"long form", `,"typ":"application/at+jwt"`, nil, true},
		{"long form, other case", `,"typ":"Application/JWT"`, nil, true},
		{"configured in long form", `,"typ":"at+jwt"`, []string{"application/AT+jwt"}, true},
		{"absent", ``, nil, true},
		{"absent, only at+jwt listed", ``, []string{"at+jwt"}, false},
		{"absent, only another listed", ``, []string{"x+jwt"}, false},
		{"JWT, only at+jwt listed", `,"typ":"JWT"`, []string{"at+jwt"}, false},
		{"nested in cty", `,"cty":"JWT"`, nil, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v := verifier(t, func(c *token.Config) { c.Types = tc.types })
			raw := sealed(t, `{"alg":"ES256"`+tc.header+`}`, good, ring().ec)
			if tc.ok {
				accepted(t, v, raw)
				return
			}
			refused(t, v, raw, token.ReasonTypMismatch)
		})
	}
}

func TestSizesAreKeptToTheByte(t *testing.T) {
	raw := with(t, nil)
	accepted(t, verifier(t, func(c *token.Config) { c.MaxToken = len(raw) }), raw)
	refused(t, verifier(t, func(c *token.Config) { c.MaxToken = len(raw) - 1 }), raw, token.ReasonTooLarge)
	accepted(t, verifier(t, func(c *token.Config) { c.MaxHeader = len(goodHeader) }), raw)
	refused(t, verifier(t, func(c *token.Config) { c.MaxHeader = len(goodHeader) - 1 }), raw, token.ReasonTooLarge)
}

func TestDatesAreKeptToTheSecond(t *testing.T) {
	v := verifier(t, nil)
	t0 := now.Unix()
	for name, change := range map[string]map[string]any{
		"exp one second inside the leeway": {"exp": t0 - 29},
		"exp with a fraction":              {"exp": float64(t0) - 29.5},
		"nbf at the leeway":                {"nbf": t0 + 30},
		"iat at the leeway":                {"iat": t0 + 30},
		"longest life":                     {"iat": t0, "exp": t0 + 86400},
		"longest life without iat":         {"iat": nil, "exp": t0 + 86430},
	} {
		t.Run(name, func(t *testing.T) { accepted(t, v, with(t, change)) })
	}
	short := verifier(t, func(c *token.Config) { c.Leeway, c.MaxLifetime = time.Nanosecond, time.Hour })
	accepted(t, short, with(t, map[string]any{"iat": t0, "exp": t0 + 3600}))
	accepted(t, short, sealed(t, goodHeader, strings.Replace(toJSON(t, goodClaims(nil)), "1800000600", "18.000006e+8", 1), ring().ec))
	refused(t, short, with(t, map[string]any{"exp": t0 - 1}), token.ReasonExpired)
	refused(t, short, with(t, map[string]any{"iat": t0 - 1, "exp": t0 + 3600}), token.ReasonLifetime)
	refused(t, short, with(t, map[string]any{"nbf": t0 + 1}), token.ReasonNotYetValid)
	refused(t, short, with(t, map[string]any{"iat": t0 + 1}), token.ReasonIatFuture)
}

func TestAudienceIsAnyOf(t *testing.T) {
	v := verifier(t, func(c *token.Config) { c.Audience = []string{"a", "b"}; c.Issuers = []string{"x", issuer} })
	for _, aud := range []any{"a", "b", []string{"b"}, []string{"other", "a"}, []string{"a", "b"}} {
		accepted(t, v, with(t, map[string]any{"aud": aud}))
	}
	for _, aud := range []any{"other", []string{"other"}, "a b", []string{"a b"}} {
		refused(t, v, with(t, map[string]any{"aud": aud}), token.ReasonAudMismatch)
	}
	accepted(t, v, with(t, map[string]any{"aud": "a", "iss": "x"}))
}

func TestClaimPaths(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want []string
	}{
		{"sub", []string{"sub"}},
		{"realm_access.roles", []string{"realm_access", "roles"}},
		{`"https://example.com/roles"`, []string{"https://example.com/roles"}},
		{`a."b.c".d`, []string{"a", "b.c", "d"}},
		{`"a b"`, []string{"a b"}},
		{"https://example", []string{"https://example"}},
	} {
		if got, err := token.ParseClaimPath(tc.in); err != nil || !slices.Equal(got, tc.want) {
			t.Errorf("ParseClaimPath(%s) = %q, %v", tc.in, got, err)
		}
	}
	for _, in := range []string{
		"", ".", "a.", ".a", "a..b", `"`, `"a`, `""`, `a.""`, `"a"b`, `"a" .b`, `a"b"`, `a"`, "a b", "a\tb", "a\nb", "\"a\nb\"", "\xff",
		"a.b.c.d.e.f.g.h.i", strings.Repeat("a", 257),
	} {
		if got, err := token.ParseClaimPath(in); err == nil {
			t.Errorf("ParseClaimPath(%q) = %q", in, got)
		}
	}
}
