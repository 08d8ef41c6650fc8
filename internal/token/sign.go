package token

import (
	"crypto"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
)

// Sign makes a token. It is there for demonstrations, development and tests: a
// gateway issues no credentials.
//
// The key is an *rsa.PrivateKey, *ecdsa.PrivateKey or ed25519.PrivateKey, or
// the []byte of a secret, and must be one that a Verifier would accept for alg.
// The header gets alg and, unless it has one, the typ JWT; a typ of nil leaves
// it out.
func Sign(claims map[string]any, header map[string]any, key any, alg string) (string, error) {
	a, ok := findAlgorithm(alg)
	if !ok {
		return "", fmt.Errorf("token: sign: algorithm %q: is not known", alg)
	}
	if own, ok := header["alg"]; ok && own != alg {
		return "", errors.New("token: sign: the header states another alg")
	}
	public := key
	if private, ok := key.(crypto.Signer); ok {
		public = private.Public()
	}
	if err := checkStrength(public); err != nil {
		return "", fmt.Errorf("token: sign: %w", err)
	}
	if !a.fits(public) {
		return "", fmt.Errorf("token: sign: the key does not fit %s", alg)
	}
	full := map[string]any{"typ": "JWT"}
	maps.Copy(full, header)
	full["alg"] = alg
	if full["typ"] == nil {
		delete(full, "typ")
	}
	if claims == nil {
		claims = map[string]any{}
	}
	h, errHeader := json.Marshal(full)
	c, errClaims := json.Marshal(claims)
	if err := errors.Join(errHeader, errClaims); err != nil {
		return "", fmt.Errorf("token: sign: %w", err)
	}
	signed := base64.RawURLEncoding.EncodeToString(h) + "." + base64.RawURLEncoding.EncodeToString(c)
	signature, err := a.method.Sign(signed, key)
	if err != nil {
		return "", fmt.Errorf("token: sign: %w", err)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature), nil
}
