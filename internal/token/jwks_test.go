package token_test

import (
	"crypto/ecdsa"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"maps"
	"math/big"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/internal/token"
)

func raw64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func ecJWK(t *testing.T, crv string, key *ecdsa.PublicKey, change map[string]any) map[string]any {
	t.Helper()
	point, err := key.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	half := len(point) / 2
	return changed(map[string]any{"kty": "EC", "crv": crv, "x": raw64(point[1 : 1+half]), "y": raw64(point[1+half:])}, change)
}

func rsaJWK(change map[string]any) map[string]any {
	k := ring().rsa
	return changed(map[string]any{"kty": "RSA", "n": raw64(k.N.Bytes()), "e": "AQAB"}, change)
}

func edJWK(change map[string]any) map[string]any {
	return changed(map[string]any{"kty": "OKP", "crv": "Ed25519", "x": raw64(ring().ed[32:])}, change)
}

func changed(jwk, change map[string]any) map[string]any {
	maps.Copy(jwk, change)
	maps.DeleteFunc(jwk, func(_ string, v any) bool { return v == nil })
	return jwk
}

func jwks(t *testing.T, keys ...any) []byte {
	t.Helper()
	return []byte(toJSON(t, map[string]any{"keys": keys, "unknown": 1}))
}

func TestKeySetsAreRead(t *testing.T) {
	k := ring()
	unused := map[string]map[string]any{
		"encryption": {"use": "enc"}, "no use": {"use": 1}, "sign only": {"key_ops": []string{"sign"}},
		"unknown type": {"kty": "AKP", "x": nil}, "secp256k1": {"crv": "secp256k1"}, "other alg": {"alg": "ECDH-ES"},
	}
	entries := []any{
		ecJWK(t, "P-256", &k.ec.PublicKey, map[string]any{"kid": "ec", "use": "sig", "x5c": []string{"MIIB+/=="}, "x5t": "AA"}),
		ecJWK(t, "P-384", &k.ec384.PublicKey, map[string]any{"kid": "ec384", "key_ops": []string{"verify"}}),
		ecJWK(t, "P-521", &k.ec521.PublicKey, map[string]any{"kid": "ec521"}),
		rsaJWK(map[string]any{"kid": "rsa"}),
		rsaJWK(map[string]any{"kid": "ps", "alg": "PS512"}),
		edJWK(map[string]any{"kid": "ed", "alg": "EdDSA"}),
		edJWK(nil), edJWK(nil),
		rsaJWK(map[string]any{"kid": "weak exponent", "e": "Aw"}),
		rsaJWK(map[string]any{"kid": "huge exponent", "e": "AQAAAAAB"}),
		rsaJWK(map[string]any{"kid": "exponent of 2^64 and more", "e": raw64([]byte{1, 0, 0, 0, 0, 0, 1, 0, 1})}),
		rsaJWK(map[string]any{"kid": "weak modulus", "n": raw64(weakRSA(1024, 65537).N.Bytes())}),
		edJWK(map[string]any{"kid": "x", "crv": "X25519"}),
		edJWK(map[string]any{"kid": "small order", "x": raw64(append([]byte{1}, make([]byte, 31)...))}),
	}
	for name, change := range unused {
		change["kid"] = name
		entries = append(entries, ecJWK(t, "P-256", &k.ec.PublicKey, change))
	}
	keys, err := token.ParseJWKS(jwks(t, entries...))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, key := range keys {
		got = append(got, key.ID+"="+key.Algorithm)
	}
	if want := "ec=ES256 ec384=ES384 ec521=ES512 rsa=RS256 ps=PS512 ed=EdDSA =EdDSA =EdDSA"; strings.Join(got, " ") != want {
		t.Errorf("keys %s, want %s", got, want)
	}
	set, err := token.NewKeySet(keys, []string{"PS256", "PS512", "RS256"})
	if err != nil {
		t.Fatal(err)
	}
	if got := algorithmsOf(t, set, "ps"); strings.Join(got, " ") != "PS512" {
		t.Errorf("a JWK's own alg did not stay: %s", got)
	}
	if got := algorithmsOf(t, set, "rsa"); strings.Join(got, " ") != "RS256 PS256 PS512" {
		t.Errorf("a JWK without alg serves %s", got)
	}
	v := verifier(t, func(c *token.Config) {
		if c.Keys, err = token.NewKeySet(keys, nil); err != nil {
			t.Fatal(err)
		}
	})
	accepted(t, v, with(t, nil))
}

func TestOwnAlgorithmOfAJWKIsNotReplaced(t *testing.T) {
	keys, err := token.ParseJWKS(jwks(t, rsaJWK(map[string]any{"kid": "a", "alg": "RS256"})))
	if err != nil {
		t.Fatal(err)
	}
	_, err = token.NewKeySet(keys, []string{"PS256"})
	lacks(t, err, "no usable key")
}

func TestKeySetsWithAnythingWrongAreRefusedWhole(t *testing.T) {
	k := ring()
	good := ecJWK(t, "P-256", &k.ec.PublicKey, map[string]any{"kid": "good"})
	ec := func(change map[string]any) []byte {
		return jwks(t, good, ecJWK(t, "P-256", &k.ec.PublicKey, change))
	}
	point, err := k.ec.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	short := new(big.Int).SetBytes(point[2:33]).Bytes()
	var many []any
	for i := range 101 {
		many = append(many, ecJWK(t, "P-256", &k.ec.PublicKey, map[string]any{"kid": fmt.Sprint(i)}))
	}
	for _, tc := range []struct {
		name, says string
		data       []byte
	}{
		{"empty", "strict JSON", nil},
		{"array", "strict JSON", []byte(`[]`)},
		{"no keys", "no array named keys", []byte(`{}`)},
		{"keys in capitals", "no array named keys", []byte(`{"Keys":[]}`)},
		{"keys no array", "no array named keys", []byte(`{"keys":{}}`)},
		{"empty set", "no usable key", []byte(`{"keys":[]}`)},
		{"member twice", "twice in one object", []byte(`{"keys":[],"keys":[]}`)},
		{"trailing data", "strict JSON", append(jwks(t, good), '{', '}')},
		{"web page", "strict JSON", []byte("<html>")},
		{"too deep", "too deep", []byte(`{"keys":` + strings.Repeat("[", 20) + strings.Repeat("]", 20) + `}`)},
		{"over 1 MiB", "at most 1048576", append(jwks(t, good), []byte(strings.Repeat(" ", 1<<20))...)},
		{"101 keys", "at most 100", jwks(t, many...)},
		{"key no object", "is no object", jwks(t, good, "x")},
		{"kid twice", `kid "good": stands twice`, ec(map[string]any{"kid": "good"})},
		{"kid no string", "kid: must be", ec(map[string]any{"kid": 1})},
		{"kid empty", "kid: must be", ec(map[string]any{"kid": ""})},
		{"private EC", `secret member "d"`, ec(map[string]any{"d": "AA"})},
		{"private EC for encryption", `secret member "d"`, ec(map[string]any{"d": "AA", "use": "enc"})},
		{"private of unknown type", `secret member "priv"`, ec(map[string]any{"kty": "AKP", "priv": "AA"})},
		{"private RSA prime", `secret member "p"`, jwks(t, good, rsaJWK(map[string]any{"p": "AA"}))},
		{"shared secret", `secret member "k"`, jwks(t, good, map[string]any{"kty": "oct", "k": raw64(k.secret)})},
		{"shared secret without value", "shared secret", jwks(t, good, map[string]any{"kty": "oct"})},
		{"no kty", "kty", ec(map[string]any{"kty": nil})},
		{"kty no string", "kty", ec(map[string]any{"kty": 1})},
		{"key_ops no array", "key_ops", ec(map[string]any{"key_ops": "verify"})},
		{"alg no string", "alg: must be a string", ec(map[string]any{"alg": 1})},
		{"alg of another type", `alg "RS256": does not fit`, ec(map[string]any{"alg": "RS256"})},
		{"alg of another curve", `alg "ES384": does not fit`, ec(map[string]any{"alg": "ES384"})},
		{"alg of a secret", `alg "HS256": does not fit`, ec(map[string]any{"alg": "HS256"})},
		{"x missing", "x: must be base64url", ec(map[string]any{"x": nil})},
		{"x padded", "x: must be base64url", ec(map[string]any{"x": raw64(point[1:33]) + "="})},
		{"x short", "must have 32 bytes", ec(map[string]any{"x": raw64(short)})},
		{"x long", "must have 32 bytes", ec(map[string]any{"x": raw64(append([]byte{0}, point[1:33]...))})},
		{"off the curve", "no point", ec(map[string]any{"x": raw64(make([]byte, 32))})},
		{"another curve's point", "must have 48 bytes", ec(map[string]any{"crv": "P-384"})},
		{"n missing", "n: must be base64url", jwks(t, good, rsaJWK(map[string]any{"n": nil}))},
		{"e missing", "e: must be base64url", jwks(t, good, rsaJWK(map[string]any{"e": 65537}))},
		{"Ed25519 x missing", "x: must be base64url", jwks(t, good, edJWK(map[string]any{"x": nil}))},
		{"Ed25519 x short", "x: must have 32 bytes", jwks(t, good, edJWK(map[string]any{"x": raw64(make([]byte, 31))}))},
		{"only weak keys", "exponent 3", jwks(t, rsaJWK(map[string]any{"e": "Aw"}))},
		{"only foreign keys", "use is not sig", jwks(t, rsaJWK(map[string]any{"use": "enc"}))},
	} {
		t.Run(tc.name, func(t *testing.T) {
			keys, err := token.ParseJWKS(tc.data)
			lacks(t, err, tc.says)
			if keys != nil {
				t.Error("keys beside an error")
			}
			if strings.Contains(err.Error(), raw64(k.secret)) || strings.Contains(err.Error(), hex.EncodeToString(k.secret)) {
				t.Error("the error quotes a secret")
			}
		})
	}
}
