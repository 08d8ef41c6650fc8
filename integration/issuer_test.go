//go:build linux

package integration

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	issuerURL = "https://id.test"
	audience  = "orders-api"
)

// issuer signs tokens as an identity provider would, with a key whose public
// half lies in a PEM file for the gateway.
type issuer struct {
	KeyFile     string
	PrivateFile string
	key         *ecdsa.PrivateKey
}

func newIssuer(t testing.TB) *issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	dir := privateDir(t)
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	i := &issuer{
		key:         key,
		KeyFile:     filepath.Join(dir, "issuer.pem"),
		PrivateFile: filepath.Join(dir, "private.pem"),
	}
	writePEM(t, i.KeyFile, "PUBLIC KEY", public)
	writePEM(t, i.PrivateFile, "PRIVATE KEY", private)
	return i
}

func writePEM(t testing.TB, path, kind string, der []byte) {
	t.Helper()
	data := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// claims are those of caller u-1 with the role user. The given ones replace or,
// when nil, remove single members.
func claims(change map[string]any) jwt.MapClaims {
	now := time.Now()
	c := jwt.MapClaims{
		"iss": issuerURL, "aud": audience, "sub": "u-1", "tenant_id": "t-1",
		"roles": []string{"user"}, "sid": "s-1",
		"iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	}
	maps.Copy(c, change)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

// token returns an ES256 token.
func (i *issuer) token(t testing.TB, change map[string]any) string {
	t.Helper()
	return sign(t, jwt.SigningMethodES256, i.key, claims(change))
}

// as returns a token of the caller with the given roles; none is an empty list.
func (i *issuer) as(t testing.TB, id string, roles ...string) string {
	t.Helper()
	return i.token(t, map[string]any{"sub": id, "roles": append([]string{}, roles...)})
}

func sign(t testing.TB, method jwt.SigningMethod, key any, c jwt.MapClaims) string {
	t.Helper()
	token, err := jwt.NewWithClaims(method, c).SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func bearer(token string) string { return "Authorization: Bearer " + token }
