package token_test

import (
	"crypto/rand"
	"crypto/rsa"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/internal/token"
)

func TestSignMakesTokensThatAreAccepted(t *testing.T) {
	v := verifier(t, func(c *token.Config) { c.Types = []string{"at+jwt"} })
	raw, err := token.Sign(goodClaims(nil), map[string]any{"kid": "ec", "typ": "at+jwt"}, ring().ec, "ES256")
	if err != nil {
		t.Fatal(err)
	}
	accepted(t, v, raw)
	plain, err := token.Sign(goodClaims(nil), nil, ring().ec, "ES256")
	if err != nil {
		t.Fatal(err)
	}
	refused(t, v, plain, token.ReasonTypMismatch)
	bare, err := token.Sign(nil, map[string]any{"typ": nil}, ring().ec, "ES256")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(bare, b64(`{"alg":"ES256"}`)+"."+b64("{}")+".") {
		t.Errorf("token %s", bare)
	}
}

func TestSignRefusesWhatNoVerifierAccepts(t *testing.T) {
	k := ring()
	weak, err := rsa.GenerateKey(rand.Reader, 1024) //nolint:gosec // Weak on purpose.
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, says, alg string
		header, claims  map[string]any
		key             any
	}{
		{"none", "not known", "none", nil, nil, k.ec},
		{"no alg", "not known", "", nil, nil, k.ec},
		{"two algs", "another alg", "ES256", map[string]any{"alg": "none"}, nil, k.ec},
		{"another curve", "does not fit", "ES256", nil, nil, k.ec384},
		{"another type", "does not fit", "HS256", nil, nil, k.ec},
		{"public key", "no way to sign", "ES256", nil, nil, &k.ec.PublicKey},
		{"weak RSA", "1024 bits", "RS256", nil, nil, weak},
		{"short secret", "31 bytes", "HS256", nil, nil, make([]byte, 31)},
		{"short secret for HS512", "does not fit", "HS512", nil, nil, make([]byte, 32)},
		{"nothing", "must be RSA", "ES256", nil, nil, nil},
		{"header that is no JSON", "unsupported", "ES256", map[string]any{"kid": func() {}}, nil, k.ec},
		{"claims that are no JSON", "unsupported", "ES256", nil, map[string]any{"x": make(chan int)}, k.ec},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := token.Sign(tc.claims, tc.header, tc.key, tc.alg)
			if tc.name == "public key" {
				lacks(t, err, "token: sign:")
				return
			}
			lacks(t, err, tc.says)
		})
	}
}
