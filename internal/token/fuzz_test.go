package token_test

import (
	"context"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/internal/token"
)

// Whoever has no key gets no caller: every token that is accepted is, byte for
// byte up to its signature, one that was signed; and every refusal is an Error
// with a listed reason.
func FuzzOnlySignedTokensAreAccepted(f *testing.F) {
	v := verifier(f, nil)
	good := with(f, nil)
	signed := good[:strings.LastIndexByte(good, '.')]
	f.Add(good)
	f.Add(good + "\n")
	f.Add(good[1:])
	f.Add(strings.Replace(good, ".", "..", 1))
	f.Add(sealed(f, `{"alg":"none"}`, toJSON(f, goodClaims(nil)), ring().stranger))
	f.Add(sealed(f, goodHeader, `{"iss":"a","iss":"b"}`, ring().stranger))
	f.Add(sealed(f, `{"alg":"HS256","crit":["b64"],"b64":false}`, "{}", ring().secret))
	f.Fuzz(func(t *testing.T, raw string) {
		p, err := v.Verify(context.Background(), raw)
		if err == nil {
			if raw[:strings.LastIndexByte(raw, '.')] != signed || !p.Known() {
				t.Fatalf("accepted %q", raw)
			}
			return
		}
		var refusal *token.Error
		if p != nil || !errors.As(err, &refusal) || !slices.Contains(token.Reasons(), refusal.Reason) {
			t.Fatalf("%v, %#v", p, err)
		}
		if iss, ok := token.PeekIssuer(raw, 0); ok && refusal.Reason == token.ReasonMalformed {
			t.Fatalf("a malformed token has the iss %q", iss)
		}
	})
}

// A signed claims set that is accepted names its caller as its claims say.
func FuzzAcceptedClaimsAreExact(f *testing.F) {
	v := verifier(f, nil)
	f.Add("sub", `"u-1"`)
	f.Add("exp", `1e9`)
	f.Add("aud", `["orders-api","x"]`)
	f.Add("roles", `["admin","root"]`)
	f.Add("tenant_id", `17`)
	f.Fuzz(func(t *testing.T, claim, value string) {
		claims := goodClaims(nil)
		delete(claims, claim)
		payload := toJSON(t, claims)
		payload = payload[:len(payload)-1] + "," + toJSON(t, claim) + ":" + value + "}"
		p, err := v.Verify(context.Background(), sealed(t, goodHeader, payload, ring().ec))
		if err != nil {
			return
		}
		if p.ID == "" || strings.TrimSpace(p.ID) != p.ID || strings.ContainsAny(p.ID+p.Tenant+p.Session, "\r\n\x00") {
			t.Fatalf("caller %q of %q in %q", p.ID, p.Tenant, p.Session)
		}
		for _, role := range p.Roles {
			if !knownRole(role) {
				t.Fatalf("role %q", role)
			}
		}
		if !p.Expires.After(now.Add(-31e9)) || p.Expires.After(now.Add(24*3601e9)) {
			t.Fatalf("expires %v", p.Expires)
		}
	})
}

func FuzzClaimPathRoundTrip(f *testing.F) {
	for _, seed := range []string{"sub", "a.b", `"a.b".c`, `a."`, `""`, "a..b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		path, err := token.ParseClaimPath(s)
		if err != nil {
			return
		}
		again, err := token.ParseClaimPath(`"` + strings.Join(path, `"."`) + `"`)
		if err != nil || !slices.Equal(path, again) {
			t.Fatalf("%q is %q, written out %q, %v", s, path, again, err)
		}
	})
}

func FuzzKeyFiles(f *testing.F) {
	f.Add([]byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","x":"` + base64.RawURLEncoding.EncodeToString(ring().ed[32:]) + `"}]}`))
	f.Add([]byte("-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for name, parse := range map[string]func([]byte) ([]token.Key, error){"PEM": token.ParsePEM, "JWKS": token.ParseJWKS} {
			keys, err := parse(data)
			if (err == nil) != (len(keys) > 0) {
				t.Fatalf("%s: %d keys, %v", name, len(keys), err)
			}
			// Whatever is read is strong enough to be used.
			if err == nil && len(keys) <= 4 {
				if _, err := token.NewStaticKeys(keys, nil); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
			}
		}
	})
}
