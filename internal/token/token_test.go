package token_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/identity"
	"github.com/moat-gateway/moat/internal/token"
)

// The one moment at which all tests but those of the default clock happen.
var now = time.Unix(1_800_000_000, 0)

const (
	issuer   = "https://id.example.com"
	audience = "orders-api"
)

// keyring is one key of each kind, made once.
type keyring struct {
	ec, stranger *ecdsa.PrivateKey
	ec384, ec521 *ecdsa.PrivateKey
	rsa          *rsa.PrivateKey
	ed           ed25519.PrivateKey
	secret       []byte
}

var ring = sync.OnceValue(func() keyring {
	must := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	var k keyring
	var err error
	k.ec, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	k.stranger, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	k.ec384, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	must(err)
	k.ec521, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	must(err)
	k.rsa, err = rsa.GenerateKey(rand.Reader, 2048)
	must(err)
	_, k.ed, err = ed25519.GenerateKey(rand.Reader)
	must(err)
	k.secret = make([]byte, 64)
	_, err = rand.Read(k.secret)
	must(err)
	return k
})

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

func toJSON(tb testing.TB, v any) string {
	tb.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		tb.Fatal(err)
	}
	return string(b)
}

// sealed signs header and payload as they are, whatever they say, with SHA-256.
func sealed(tb testing.TB, header, payload string, key any) string {
	tb.Helper()
	return signedOver(tb, b64(header)+"."+b64(payload), key)
}

func signedOver(tb testing.TB, signed string, key any) string {
	tb.Helper()
	digest := sha256.Sum256([]byte(signed))
	var signature []byte
	var err error
	switch key := key.(type) {
	case *ecdsa.PrivateKey:
		r, s, signErr := ecdsa.Sign(rand.Reader, key, digest[:])
		size := (key.Curve.Params().BitSize + 7) / 8
		signature, err = make([]byte, 2*size), signErr
		r.FillBytes(signature[:size])
		s.FillBytes(signature[size:])
	case *rsa.PrivateKey:
		signature, err = rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, digest[:])
	case ed25519.PrivateKey:
		signature = ed25519.Sign(key, []byte(signed))
	case []byte:
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(signed))
		signature = mac.Sum(nil)
	default:
		tb.Fatalf("no way to sign with %T", key)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}

const goodHeader = `{"alg":"ES256","typ":"JWT","kid":"ec"}`

// goodClaims returns the claims of a token that is accepted, changed: a nil
// value leaves a claim out.
func goodClaims(change map[string]any) map[string]any {
	claims := map[string]any{
		"iss": issuer, "aud": audience, "sub": "u-1", "tenant_id": "t-1",
		"iat": now.Unix() - 60, "exp": now.Unix() + 600,
		"roles": []string{"user", "stranger", "admin"}, "sid": "s-1",
	}
	maps.Copy(claims, change)
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
	return claims
}

// with returns a well signed token with changed claims.
func with(tb testing.TB, change map[string]any) string {
	tb.Helper()
	return sealed(tb, goodHeader, toJSON(tb, goodClaims(change)), ring().ec)
}

func static(tb testing.TB, algorithms []string, keys ...token.Key) token.KeySource {
	tb.Helper()
	source, err := token.NewStaticKeys(keys, algorithms)
	if err != nil {
		tb.Fatal(err)
	}
	return source
}

var roles = []string{"user", "admin", "guest"}

func knownRole(role string) bool { return slices.Contains(roles, role) }

// config returns the configuration most tests begin with: one EC key.
func config(tb testing.TB) token.Config {
	tb.Helper()
	return token.Config{
		Name: "main", Issuers: []string{issuer}, Audience: []string{audience},
		KnownRole: knownRole, Now: func() time.Time { return now },
		Keys: static(tb, nil, token.Key{ID: "ec", Public: &ring().ec.PublicKey}),
	}
}

func verifier(tb testing.TB, change func(*token.Config)) *token.Verifier {
	tb.Helper()
	c := config(tb)
	if change != nil {
		change(&c)
	}
	v, err := token.NewVerifier(c)
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

type judge interface {
	Verify(context.Context, string) (*identity.Principal, error)
}

// refused checks that raw is refused for the reason and that the error gives
// nothing away.
func refused(t *testing.T, v judge, raw, reason string) {
	t.Helper()
	p, err := v.Verify(t.Context(), raw)
	if p != nil || err == nil {
		t.Fatalf("accepted, want %s", reason)
	}
	var refusal *token.Error
	if !errors.As(err, &refusal) {
		t.Fatalf("error is a %T", err)
	}
	if refusal.Reason != reason {
		t.Fatalf("reason %s, want %s", refusal.Reason, reason)
	}
	want := token.Invalid
	switch reason {
	case token.ReasonExpired:
		want = token.Expired
	case token.ReasonKeysUnavailable:
		want = token.Unavailable
	}
	if refusal.Code != want {
		t.Fatalf("code %v, want %v", refusal.Code, want)
	}
	if err.Error() != "token: "+want.String() {
		t.Fatalf("error text %q", err)
	}
	if !slices.Contains(token.Reasons(), reason) {
		t.Fatalf("%s is not among Reasons", reason)
	}
}

func accepted(t *testing.T, v judge, raw string) *identity.Principal {
	t.Helper()
	p, err := v.Verify(t.Context(), raw)
	if err != nil {
		var refusal *token.Error
		errors.As(err, &refusal)
		t.Fatalf("refused: %+v", refusal)
	}
	if !p.Known() {
		t.Fatal("the caller is not authenticated")
	}
	return p
}

func TestGoodTokenNamesItsCaller(t *testing.T) {
	p := accepted(t, verifier(t, func(c *token.Config) { c.SharesIDs = true }), with(t, nil))
	if p.ID != "u-1" || p.Tenant != "t-1" || p.Session != "s-1" || p.Issuer != "main" || !p.SharesIDs {
		t.Errorf("caller %+v", p)
	}
	if !slices.Equal(p.Roles, []string{"user", "admin"}) {
		t.Errorf("roles %q", p.Roles)
	}
	if !p.Expires.Equal(now.Add(600 * time.Second)) {
		t.Errorf("expires %v", p.Expires)
	}
	if p.Claims["exp"] != json.Number("1800000600") {
		t.Errorf("exp %#v", p.Claims["exp"])
	}
}

func TestEveryAlgorithmIsAccepted(t *testing.T) {
	k := ring()
	for _, tc := range []struct {
		alg             string
		private, public any
	}{
		{"RS256", k.rsa, &k.rsa.PublicKey}, {"RS384", k.rsa, &k.rsa.PublicKey}, {"RS512", k.rsa, &k.rsa.PublicKey},
		{"PS256", k.rsa, &k.rsa.PublicKey}, {"PS384", k.rsa, &k.rsa.PublicKey}, {"PS512", k.rsa, &k.rsa.PublicKey},
		{"ES256", k.ec, &k.ec.PublicKey}, {"ES384", k.ec384, &k.ec384.PublicKey}, {"ES512", k.ec521, &k.ec521.PublicKey},
		{"EdDSA", k.ed, k.ed.Public()},
		{"HS256", k.secret, k.secret}, {"HS384", k.secret, k.secret}, {"HS512", k.secret, k.secret},
	} {
		t.Run(tc.alg, func(t *testing.T) {
			v := verifier(t, func(c *token.Config) {
				c.Algorithms = []string{tc.alg}
				c.Keys = static(t, c.Algorithms, token.Key{Public: tc.public})
			})
			raw, err := token.Sign(goodClaims(nil), map[string]any{"kid": "any"}, tc.private, tc.alg)
			if err != nil {
				t.Fatal(err)
			}
			accepted(t, v, raw)
			// The same key, but bound to nothing the header says.
			other, err := token.NewStaticKeys([]token.Key{{Public: tc.public}}, nil)
			if err != nil {
				t.Fatal(err)
			}
			if keys, _ := other.Lookup(t.Context(), "", tc.alg); len(keys) == 0 {
				refused(t, verifier(t, func(c *token.Config) { c.Keys = other }), raw, token.ReasonAlgMismatch)
			}
			tampered := raw[:strings.LastIndexByte(raw, '.')+1]
			refused(t, v, tampered+b64(strings.Repeat("\x01", 64)), token.ReasonBadSignature)
		})
	}
}

func TestZeroValuesRefuse(t *testing.T) {
	good := with(t, nil)
	for name, v := range map[string]judge{
		"nil verifier":  (*token.Verifier)(nil),
		"zero verifier": &token.Verifier{},
		"nil set":       (*token.Set)(nil),
		"zero set":      &token.Set{},
	} {
		t.Run(name, func(t *testing.T) { refused(t, v, good, token.ReasonUnknownKey) })
	}
	var e token.Error
	if e.Code != token.Invalid || e.Error() != "token: invalid" {
		t.Errorf("zero Error: %v", &e)
	}
	if (&token.Verifier{}).Ready() || (&token.Set{}).Ready() || (&token.KeySet{}).Ready() {
		t.Error("a zero value is ready")
	}
	if keys, err := (&token.KeySet{}).Lookup(t.Context(), "x", "ES256"); len(keys) > 0 || err != nil {
		t.Errorf("zero KeySet: %v, %v", keys, err)
	}
}

// source is a KeySource that fails or offers what a test says.
type source struct {
	keys []token.Key
	err  error
}

func (s source) Lookup(context.Context, string, string) ([]token.Key, error) { return s.keys, s.err }
func (s source) Ready() bool                                                 { return s.err == nil }

func TestKeysThatCanNotBeHadAreUnavailableAndNotInvalid(t *testing.T) {
	for name, err := range map[string]error{
		"not loaded": token.ErrKeysUnavailable,
		"timeout":    context.DeadlineExceeded,
		"other":      errors.New("connection refused"),
	} {
		t.Run(name, func(t *testing.T) {
			v := verifier(t, func(c *token.Config) { c.Keys = source{err: err} })
			refused(t, v, with(t, nil), token.ReasonKeysUnavailable)
			// What can be told without keys is told.
			refused(t, v, "x", token.ReasonMalformed)
			if v.Ready() {
				t.Error("ready")
			}
		})
	}
}

func TestVerifierChecksWhatASourceOffers(t *testing.T) {
	k := ring()
	ec := token.Key{ID: "ec", Algorithm: "ES256", Public: &k.ec.PublicKey}
	stranger := token.Key{Algorithm: "ES256", Public: &k.stranger.PublicKey}
	for _, tc := range []struct {
		name   string
		keys   []token.Key
		reason string
	}{
		{"nothing", nil, token.ReasonUnknownKey},
		{"another ID", []token.Key{{ID: "other", Algorithm: "ES256", Public: &k.ec.PublicKey}}, token.ReasonAlgMismatch},
		{"another algorithm", []token.Key{{ID: "ec", Algorithm: "ES384", Public: &k.ec.PublicKey}}, token.ReasonAlgMismatch},
		{"no algorithm", []token.Key{{ID: "ec", Public: &k.ec.PublicKey}}, token.ReasonAlgMismatch},
		{"another curve", []token.Key{{ID: "ec", Algorithm: "ES256", Public: &k.ec384.PublicKey}}, token.ReasonAlgMismatch},
		{"another type", []token.Key{{ID: "ec", Algorithm: "ES256", Public: &k.rsa.PublicKey}}, token.ReasonAlgMismatch},
		{"no key at all", []token.Key{{ID: "ec", Algorithm: "ES256", Public: "key"}}, token.ReasonAlgMismatch},
		{"a nil key", []token.Key{{ID: "ec", Algorithm: "ES256", Public: (*ecdsa.PublicKey)(nil)}}, token.ReasonAlgMismatch},
		{"too many", []token.Key{stranger, stranger, stranger, stranger, ec}, token.ReasonKidMissing},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v := verifier(t, func(c *token.Config) { c.Keys = source{keys: tc.keys} })
			refused(t, v, with(t, nil), tc.reason)
		})
	}
	v := verifier(t, func(c *token.Config) { c.Keys = source{keys: []token.Key{stranger, stranger, stranger, ec}} })
	accepted(t, v, with(t, nil))
}

func TestSecretFromAKeyServerIsNeverUsed(t *testing.T) {
	secret := ring().secret
	v := verifier(t, func(c *token.Config) {
		c.Keys = source{keys: []token.Key{{Algorithm: "HS256", Public: secret}}}
	})
	refused(t, v, sealed(t, `{"alg":"HS256"}`, toJSON(t, goodClaims(nil)), secret), token.ReasonAlgMismatch)
}

func TestClockDefaultsToTheRealOne(t *testing.T) {
	v := verifier(t, func(c *token.Config) { c.Now = nil })
	t0 := time.Now().Unix()
	accepted(t, v, with(t, map[string]any{"iat": t0, "exp": t0 + 60}))
	refused(t, v, with(t, map[string]any{"iat": t0 - 600, "exp": t0 - 60}), token.ReasonExpired)
}

func TestPeekIssuerUsesTheStrictFront(t *testing.T) {
	good := with(t, nil)
	if iss, ok := token.PeekIssuer(good, 0); !ok || iss != issuer {
		t.Errorf("PeekIssuer = %q, %v", iss, ok)
	}
	for name, raw := range map[string]string{
		"empty":      "",
		"line end":   good + "\n",
		"twice":      sealed(t, goodHeader, `{"iss":"a","iss":"b"}`, ring().ec),
		"missing":    with(t, map[string]any{"iss": nil}),
		"empty iss":  with(t, map[string]any{"iss": ""}),
		"array":      with(t, map[string]any{"iss": []string{issuer}}),
		"over limit": good + strings.Repeat("A", 8192),
	} {
		if iss, ok := token.PeekIssuer(raw, 0); ok || iss != "" {
			t.Errorf("%s: PeekIssuer = %q, %v", name, iss, ok)
		}
	}
	if _, ok := token.PeekIssuer(good, len(good)-1); ok {
		t.Error("the limit is not kept")
	}
}
