package token_test

import (
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"github.com/moat-gateway/moat/internal/token"
)

var benchAlgorithms = []string{"RS256", "PS256", "ES256", "ES384", "EdDSA", "HS256"}

func benchKey(alg string) (private, public any) {
	k := ring()
	switch alg {
	case "ES256":
		return k.ec, &k.ec.PublicKey
	case "ES384":
		return k.ec384, &k.ec384.PublicKey
	case "EdDSA":
		return k.ed, k.ed.Public()
	case "HS256":
		return k.secret, k.secret
	}
	return k.rsa, &k.rsa.PublicKey
}

func benchVerifier(tb testing.TB, alg string) (*token.Verifier, string) {
	tb.Helper()
	private, public := benchKey(alg)
	v := verifier(tb, func(c *token.Config) {
		c.Algorithms = []string{alg}
		c.Keys = static(tb, c.Algorithms, token.Key{ID: "k", Public: public})
	})
	raw, err := token.Sign(goodClaims(nil), map[string]any{"kid": "k"}, private, alg)
	if err != nil {
		tb.Fatal(err)
	}
	return v, raw
}

func BenchmarkVerify(b *testing.B) {
	for _, alg := range benchAlgorithms {
		v, raw := benchVerifier(b, alg)
		b.Run(alg, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.Verify(b.Context(), raw); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkLibrary is the same tokens through golang-jwt alone, with the checks
// it offers.
func BenchmarkLibrary(b *testing.B) {
	for _, alg := range benchAlgorithms {
		_, raw := benchVerifier(b, alg)
		_, public := benchKey(alg)
		parser := jwt.NewParser(jwt.WithValidMethods([]string{alg}), jwt.WithIssuer(issuer), jwt.WithAudience(audience),
			jwt.WithExpirationRequired(), jwt.WithTimeFunc(config(b).Now))
		b.Run(alg, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := parser.Parse(raw, func(*jwt.Token) (any, error) { return public, nil }); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkRefuse(b *testing.B) {
	v, raw := benchVerifier(b, "ES256")
	_, payload, signature := cut3(raw)
	for name, raw := range map[string]string{
		"malformed":   raw + "\n",
		"too large":   strings.Repeat("A", 1<<20),
		"alg none":    b64(`{"alg":"none"}`) + "." + payload + "." + signature,
		"unknown":     b64(`{"alg":"ES256","kid":"x"}`) + "." + payload + "." + signature,
		"bad":         b64(`{"alg":"ES256"}`) + "." + payload + "." + signature,
		"many values": raw[:strings.IndexByte(raw, '.')] + "." + b64(`{"a":[`+strings.Repeat("1,", 510)+`1]}`) + "." + signature,
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.Verify(b.Context(), raw); err == nil {
					b.Fatal("accepted")
				}
			}
		})
	}
}

// Garbage must be cheaper than a token: what is refused at the front allocates
// next to nothing.
func TestRefusalAtTheFrontAllocatesLittle(t *testing.T) {
	v, raw := benchVerifier(t, "ES256")
	for name, tc := range map[string]struct {
		raw  string
		most float64
	}{
		"too large":  {strings.Repeat("A", 1<<20), 1},
		"no dots":    {"Bearer", 1},
		"white room": {" " + raw, 4},
		"good":       {raw, 60},
	} {
		got := testing.AllocsPerRun(100, func() { _, _ = v.Verify(t.Context(), tc.raw) })
		if got > tc.most {
			t.Errorf("%s: %v allocations, at most %v", name, got, tc.most)
		}
	}
}
