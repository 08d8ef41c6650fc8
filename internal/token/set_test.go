package token_test

import (
	"crypto/ecdsa"
	"errors"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/internal/token"
)

func issuerNamed(tb testing.TB, name, iss string, key *ecdsa.PrivateKey, change func(*token.Config)) *token.Verifier {
	tb.Helper()
	return verifier(tb, func(c *token.Config) {
		c.Name, c.Issuers = name, []string{iss}
		c.Keys = static(tb, nil, token.Key{ID: name, Public: &key.PublicKey})
		if change != nil {
			change(c)
		}
	})
}

func newSet(tb testing.TB, verifiers ...*token.Verifier) *token.Set {
	tb.Helper()
	s, err := token.NewSet(verifiers...)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func TestIssPicksTheOnlyKeysThatCount(t *testing.T) {
	k := ring()
	s := newSet(t, issuerNamed(t, "a", "iss-a", k.ec, nil), issuerNamed(t, "b", "iss-b", k.stranger, nil))
	sign := func(iss any, key *ecdsa.PrivateKey) string {
		return sealed(t, `{"alg":"ES256"}`, toJSON(t, goodClaims(map[string]any{"iss": iss})), key)
	}
	if p := accepted(t, s, sign("iss-a", k.ec)); p.Issuer != "a" {
		t.Errorf("issuer %q", p.Issuer)
	}
	if p := accepted(t, s, sign("iss-b", k.stranger)); p.Issuer != "b" {
		t.Errorf("issuer %q", p.Issuer)
	}
	for _, tc := range []struct{ name, raw, reason, issuer string }{
		{"a's key for b", sign("iss-b", k.ec), token.ReasonBadSignature, "b"},
		{"b's key for a", sign("iss-a", k.stranger), token.ReasonBadSignature, "a"},
		{"nobody's iss", sign("iss-c", k.ec), token.ReasonIssMismatch, ""},
		{"no iss", sign(nil, k.ec), token.ReasonIssMismatch, ""},
		{"two of them", sign([]string{"iss-a", "iss-b"}, k.ec), token.ReasonIssMismatch, ""},
		{"name for iss", sign("a", k.ec), token.ReasonIssMismatch, ""},
		{"malformed", "x", token.ReasonMalformed, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			refused(t, s, tc.raw, tc.reason)
			_, err := s.Verify(t.Context(), tc.raw)
			var refusal *token.Error
			if errors.As(err, &refusal); refusal.Issuer != tc.issuer {
				t.Errorf("issuer %q, want %q", refusal.Issuer, tc.issuer)
			}
		})
	}
}

func TestEachIssuerKeepsItsOwnBounds(t *testing.T) {
	k := ring()
	s := newSet(t,
		issuerNamed(t, "a", "iss-a", k.ec, func(c *token.Config) { c.MaxToken, c.MaxHeader = 400, 20 }),
		issuerNamed(t, "b", "iss-b", k.ec, nil))
	long := strings.Repeat("x", 100)
	for _, tc := range []struct {
		name, header string
		claims       map[string]any
		reason       string
	}{
		{"token", `{"alg":"ES256"}`, map[string]any{"iss": "iss-a", "x": long}, token.ReasonTooLarge},
		{"header", `{"alg":"ES256"}         `, map[string]any{"iss": "iss-a", "sid": nil, "tenant_id": nil, "roles": nil}, token.ReasonTooLarge},
		{"token of the other", `{"alg":"ES256"}         `, map[string]any{"iss": "iss-b", "x": long}, ""},
		{"small", `{"alg":"ES256"}`, map[string]any{"iss": "iss-a", "sid": nil, "tenant_id": nil, "roles": nil}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			raw := sealed(t, tc.header, toJSON(t, goodClaims(tc.claims)), k.ec)
			if tc.reason == "" {
				accepted(t, s, raw)
				return
			}
			refused(t, s, raw, tc.reason)
		})
	}
}

func TestSetOfOneKeepsItsIssuersRules(t *testing.T) {
	s := newSet(t, verifier(t, func(c *token.Config) { c.AnyIssuer, c.Issuers = true, nil }))
	accepted(t, s, with(t, map[string]any{"iss": "whoever"}))
	s = newSet(t, verifier(t, nil))
	accepted(t, s, with(t, nil))
	refused(t, s, with(t, map[string]any{"iss": "whoever"}), token.ReasonIssMismatch)
}

func TestSetsThatCanNotTellIssuersApartAreErrors(t *testing.T) {
	k := ring()
	a := issuerNamed(t, "a", "iss-a", k.ec, nil)
	anyIssuer := issuerNamed(t, "any", "", k.ec, func(c *token.Config) { c.AnyIssuer, c.Issuers = true, nil })
	for _, tc := range []struct {
		name, says string
		verifiers  []*token.Verifier
	}{
		{"none", "no issuer", nil},
		{"nil", "issuer 2: is not configured", []*token.Verifier{a, nil}},
		{"zero", "issuer 1: is not configured", []*token.Verifier{{}}},
		{"name twice", `issuer "a": stands twice`, []*token.Verifier{a, issuerNamed(t, "a", "iss-b", k.ec, nil)}},
		{"iss twice", `iss "iss-a": claimed by issuers "a" and "b"`, []*token.Verifier{a, issuerNamed(t, "b", "iss-a", k.stranger, nil)}},
		{"any iss beside one", "must be alone", []*token.Verifier{a, anyIssuer}},
		{"any iss before one", "must be alone", []*token.Verifier{anyIssuer, a}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := token.NewSet(tc.verifiers...)
			lacks(t, err, tc.says)
		})
	}
}

func TestSetIsReadyWhenEveryIssuerIs(t *testing.T) {
	a := verifier(t, nil)
	b := verifier(t, func(c *token.Config) {
		c.Name, c.Issuers, c.Keys = "b", []string{"iss-b"}, source{err: token.ErrKeysUnavailable}
	})
	if !newSet(t, a).Ready() || newSet(t, a, b).Ready() {
		t.Error("Ready is wrong")
	}
	// One issuer's outage does not touch the other.
	accepted(t, newSet(t, a, b), with(t, nil))
	refused(t, newSet(t, a, b), with(t, map[string]any{"iss": "iss-b"}), token.ReasonKeysUnavailable)
}
