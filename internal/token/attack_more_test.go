package token_test

import (
	"crypto"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/identity"
	"github.com/moat-gateway/moat/internal/token"
)

// longToken returns a good token of so many bytes. What a part of base64url can
// not be long, two parts together can.
func longToken(t *testing.T, size int) string {
	t.Helper()
	for spaces := range 3 {
		header := goodHeader + strings.Repeat(" ", spaces)
		build := func(n int) string {
			return sealed(t, header, toJSON(t, goodClaims(map[string]any{"x": strings.Repeat("x", n)})), ring().ec)
		}
		for n := (size-len(build(0)))*3/4 - 2; len(build(n)) <= size; n++ {
			if raw := build(n); len(raw) == size {
				return raw
			}
		}
	}
	t.Fatalf("no token has %d bytes", size)
	return ""
}

// What is just inside a bound is accepted and what is just outside is not, so
// that no bound can move unseen.
func TestBoundsAreExact(t *testing.T) {
	nameless := func(c *token.Config) {
		c.Keys = static(t, nil, token.Key{Public: &ring().ec.PublicKey})
		c.IgnoredHeaders = []string{"x"}
	}
	good := toJSON(t, goodClaims(nil))
	header := func(members string) string { return sealed(t, `{"alg":"ES256",`+members+"}", good, ring().ec) }
	padded := func(size int) string {
		s := `{"alg":"ES256"`
		return sealed(t, s+strings.Repeat(" ", size-len(s)-1)+"}", good, ring().ec)
	}
	payload := func(members string) string {
		return sealed(t, `{"alg":"ES256"}`, good[:len(good)-1]+","+members+"}", ring().ec)
	}
	nest := func(depth int) string { return `"x":` + strings.Repeat("[", depth-1) + strings.Repeat("]", depth-1) }
	ones := func(n int) string { return `"x":[` + strings.Repeat("1,", n-1) + "1]" }
	members := len(goodClaims(nil)) + 3 + 1 // three roles, and x
	for _, tc := range []struct{ name, inside, outside, reason string }{
		{"token bytes", longToken(t, 8192), longToken(t, 8193), token.ReasonTooLarge},
		{"header bytes", padded(1024), padded(1025), token.ReasonTooLarge},
		{"header depth", header(nest(16)), header(nest(17)), token.ReasonTooLarge},
		{"claim depth", payload(nest(16)), payload(nest(17)), token.ReasonTooLarge},
		{"header members", header(ones(62)), header(ones(63)), token.ReasonTooLarge},
		{"claim members", payload(ones(512 - members)), payload(ones(513 - members)), token.ReasonTooLarge},
		{"digits", payload(`"x":` + strings.Repeat("1", 64)), payload(`"x":` + strings.Repeat("1", 65)), token.ReasonTooLarge},
		{"kid bytes", header(`"kid":"` + strings.Repeat("k", 256) + `"`), header(`"kid":"` + strings.Repeat("k", 257) + `"`), token.ReasonHeaderMember},
		{"id bytes", payloadWith(t, "sub", strings.Repeat("u", 256)), payloadWith(t, "sub", strings.Repeat("u", 257)), token.ReasonBadClaim},
		{"nbf", payloadWith(t, "nbf", now.Unix()+30), payloadWith(t, "nbf", now.Unix()+31), token.ReasonNotYetValid},
		{"iat", payloadWith(t, "iat", now.Unix()+30), payloadWith(t, "iat", now.Unix()+31), token.ReasonIatFuture},
		{"exp", payloadWith(t, "exp", now.Unix()-29), payloadWith(t, "exp", now.Unix()-30), token.ReasonExpired},
		{"lifetime from iat", payloadWith(t, "exp", now.Unix()-60+24*3600), payloadWith(t, "exp", now.Unix()-59+24*3600), token.ReasonLifetime},
		{
			"lifetime from now", with(t, map[string]any{"iat": nil, "exp": now.Unix() + 24*3600 + 30}),
			with(t, map[string]any{"iat": nil, "exp": now.Unix() + 24*3600 + 31}), token.ReasonLifetime,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v := verifier(t, nameless)
			accepted(t, v, tc.inside)
			refused(t, v, tc.outside, tc.reason)
		})
	}
}

func payloadWith(t *testing.T, claim string, value any) string {
	t.Helper()
	return with(t, map[string]any{claim: value})
}

// The decoder hands out what it has read before it stumbles. That must not
// count, even when it is all there is.
func TestNothingFollowsAWholePart(t *testing.T) {
	secret := ring().secret
	v := verifier(t, func(c *token.Config) { c.Keys = static(t, []string{"HS384"}, token.Key{Public: secret}) })
	sign := func(header, payload, behind string) string {
		mac := hmac.New(sha512.New384, secret)
		mac.Write([]byte(header + "." + payload))
		return header + "." + payload + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil)) + behind
	}
	whole := func(s string) string { return b64(s + strings.Repeat(" ", 2-(len(s)+2)%3)) }
	header, payload := whole(`{"alg":"HS384"}`), whole(toJSON(t, goodClaims(nil)))
	accepted(t, v, sign(header, payload, ""))
	for _, junk := range []string{"\r", "\n", "*", "A", "=", "====", "+AAA", "/", "é", "\x00", " ", "AAA="} {
		t.Run(junk, func(t *testing.T) {
			refused(t, v, sign(header+junk, payload, ""), token.ReasonMalformed)
			refused(t, v, sign(header, payload+junk, ""), token.ReasonMalformed)
			refused(t, v, sign(header, payload, junk), token.ReasonMalformed)
		})
	}
}

func TestMoreAttackTokensAreRefusedForTheRightReason(t *testing.T) {
	good := toJSON(t, goodClaims(nil))
	var attacks []attack
	for _, name := range []string{"iss", "aud", "sub", "exp"} {
		reason := map[string]string{
			"iss": token.ReasonIssMismatch, "aud": token.ReasonAudMismatch, "sub": token.ReasonBadClaim, "exp": token.ReasonExpMissing,
		}[name]
		for _, other := range []string{strings.ToUpper(name), strings.ToUpper(name[:1]) + name[1:], name + " ", name + `\u0000`} {
			s := strings.Replace(good, fmt.Sprintf("%q:", name), fmt.Sprintf(`"%s":`, other), 1)
			attacks = append(attacks, attack{"name/" + other, sealed(t, goodHeader, s, ring().ec), reason})
		}
	}
	for _, space := range []string{"\v", "\f", "\u00a0", "\u0085", "\u2028", "\ufeff"} {
		attacks = append(attacks,
			attack{fmt.Sprintf("space/%q in the header", space), sealed(t, `{"alg":"ES256",`+space+`"kid":"ec"}`, good, ring().ec), token.ReasonMalformed},
			attack{fmt.Sprintf("space/%q behind the claims", space), sealed(t, goodHeader, good+space, ring().ec), token.ReasonMalformed})
	}
	for _, value := range []string{"truex", "nulll", "falsee", "tru", "--1", "1e5.5", "1_000", "0b1", "-01", "-", "undefined", "[1}", `{"a"}`, `"\u{41}"`, `"\u+123"`} {
		attacks = append(attacks, attack{"value/" + value, sealed(t, goodHeader, good[:len(good)-1]+`,"x":`+value+"}", ring().ec), token.ReasonMalformed})
	}
	for _, first := range []string{"", "x", "(", `"`, "{{", "["} {
		attacks = append(attacks,
			attack{"brace/" + first + " in the header", sealed(t, first+goodHeader[1:], good, ring().ec), token.ReasonMalformed},
			attack{"brace/" + first + " in the claims", sealed(t, goodHeader, first+good[1:], ring().ec), token.ReasonMalformed})
	}
	for _, member := range []string{`'x":1`, `xx":1`, `1":1`, ` `, `"x" 1`, `"x",1`, `"x"::1`, `"x":1:1`, `"x":`} {
		attacks = append(attacks, attack{"member/" + member, sealed(t, goodHeader, good[:len(good)-1]+","+member+"}", ring().ec), token.ReasonMalformed})
	}
	attacks = append(attacks, slices.Concat(
		claimAttacks(t, "sub", token.ReasonBadClaim, `1E3`, `1E+3`, `1e-0`, `0.0`, `-0.0`, `"u\u00a0"`, `"u\u3000"`, `"\u2003u"`, `"anonymou\u017f"`, `"aNoNyMoUs"`),
		claimAttacks(t, "aud", token.ReasonAudMismatch, `["orders-api",["orders-api"]]`, `["orders-api",{}]`, `["orders-api",true]`),
		claimAttacks(t, "exp", token.ReasonBadDate, `99999999999.9999999`, `1e11`, `[1800000600,1800000600]`),
		claimAttacks(t, "roles", token.ReasonBadClaim, `["admin",""]`, `["admin",null]`, `["admin",{}]`, `{"admin":true}`, `false`),
	)...)
	v := verifier(t, nil)
	for _, a := range attacks {
		t.Run(a.name, func(t *testing.T) { refused(t, v, a.token, a.reason) })
	}
	// Near the names of nobody and of claims, but none of them.
	accepted(t, v, payloadWith(t, "sub", "anonymous-1"))
	if p := accepted(t, v, with(t, map[string]any{"roles": nil, "Roles": []string{"admin"}, "ROLE": "admin"})); len(p.Roles) > 0 {
		t.Errorf("roles %q", p.Roles)
	}
}

// The salt is as long as the hash for each of the hashes.
func TestPSSSaltMustBeAsLongAsItsOwnHash(t *testing.T) {
	k := ring()
	for _, tc := range []struct {
		alg  string
		hash crypto.Hash
	}{{"PS256", crypto.SHA256}, {"PS384", crypto.SHA384}, {"PS512", crypto.SHA512}} {
		v := verifier(t, func(c *token.Config) { c.Keys = static(t, []string{tc.alg}, token.Key{Public: &k.rsa.PublicKey}) })
		signed := b64(`{"alg":"`+tc.alg+`"}`) + "." + b64(toJSON(t, goodClaims(nil)))
		h := tc.hash.New()
		h.Write([]byte(signed))
		for _, salt := range []int{tc.hash.Size(), tc.hash.Size() - 1, tc.hash.Size() + 1, 20, rsa.PSSSaltLengthAuto} {
			t.Run(fmt.Sprint(tc.alg, salt), func(t *testing.T) {
				sig, err := rsa.SignPSS(rand.Reader, k.rsa, tc.hash, h.Sum(nil), &rsa.PSSOptions{SaltLength: salt})
				if err != nil {
					t.Fatal(err)
				}
				raw := signed + "." + base64.RawURLEncoding.EncodeToString(sig)
				if salt == tc.hash.Size() {
					accepted(t, v, raw)
					return
				}
				refused(t, v, raw, token.ReasonBadSignature)
			})
		}
	}
}

func TestKeysAtTheirBounds(t *testing.T) {
	for _, bits := range []int{2048, 8192} {
		static(t, nil, token.Key{Public: weakRSA(bits, 65537)})
	}
	static(t, nil, token.Key{Public: weakRSA(2048, 1<<31-1)})
	static(t, nil, token.Key{Public: make([]byte, 32)})
	static(t, []string{"HS384"}, token.Key{Public: make([]byte, 48)})
	nameless := token.Key{Public: &ring().ec.PublicKey}
	static(t, nil, nameless, nameless, nameless, nameless)
	point, err := ring().ec.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	for _, y := range [][]byte{point[34:], append([]byte{0}, point[33:]...), {}} {
		if keys, err := token.ParseJWKS(jwks(t, edJWK(nil), ecJWK(t, "P-256", &ring().ec.PublicKey, map[string]any{"y": raw64(y)}))); err == nil {
			t.Errorf("y of %d bytes: %v", len(y), keys)
		}
	}
	negative := weakRSA(2048, 65537)
	negative.N = new(big.Int).Neg(negative.N)
	for name, public := range map[string]any{
		"negative modulus": negative, "zero modulus": &rsa.PublicKey{N: new(big.Int), E: 65537},
		"negative exponent": weakRSA(2048, -65537), "long Ed25519": ed25519.PublicKey(make([]byte, 33)), "nil Ed25519": ed25519.PublicKey(nil),
	} {
		if _, err := token.NewStaticKeys([]token.Key{{Public: public}}, nil); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for _, point := range smallOrderKeys(t) {
		other := edJWK(map[string]any{"kid": "weak", "x": raw64(point)})
		keys, err := token.ParseJWKS(jwks(t, edJWK(nil), other))
		if err != nil || len(keys) != 1 || keys[0].ID == "weak" {
			t.Errorf("%x: %v, %v", point, keys, err)
		}
	}
}

func TestEverySecretMemberOfAKeySetIsFound(t *testing.T) {
	for _, name := range []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"} {
		_, err := token.ParseJWKS(jwks(t, edJWK(nil), rsaJWK(map[string]any{"kid": "a", name: "AA"})))
		lacks(t, err, fmt.Sprintf("secret member %q", name))
	}
	_, err := token.ParseJWKS([]byte(`{"keys":[{"kty":"OKP","kty":"RSA"}]}`))
	lacks(t, err, "twice in one object")
	_, err = token.ParseJWKS([]byte(`{"keys":[` + strings.Repeat("1,", 20_000) + `1]}`))
	lacks(t, err, "too many members")
	keys, err := token.ParseJWKS(jwks(t, edJWK(map[string]any{"kid": strings.Repeat("k", 256)})))
	if err != nil || len(keys) != 1 {
		t.Errorf("a kid of 256 bytes: %v", err)
	}
	_, err = token.ParseJWKS(jwks(t, edJWK(map[string]any{"kid": strings.Repeat("k", 257)})))
	lacks(t, err, "kid: must be")
}

// Nothing that is read, or that changes which key or bytes count, can be waved
// through.
func TestJudgedHeadersCanNotBeIgnored(t *testing.T) {
	for _, name := range []string{"alg", "kid", "typ", "cty", "crit", "b64", "jku", "x5u", "jwk", "x5c", "enc", "zip"} {
		for _, spelled := range []string{name, strings.ToUpper(name)} {
			c := config(t)
			c.IgnoredHeaders = []string{"x5t", spelled}
			_, err := token.NewVerifier(c)
			lacks(t, err, fmt.Sprintf("%q: must not", spelled))
		}
	}
	verifier(t, func(c *token.Config) { c.Leeway = time.Minute })
}

// What one issuer may grant, share or call its tokens is no other's business.
func TestIssuersDoNotLendEachOtherTheirRules(t *testing.T) {
	k := ring()
	s := newSet(t,
		issuerNamed(t, "a", "iss-a", k.ec, func(c *token.Config) { c.SharesIDs, c.Types = true, []string{"at+jwt"} }),
		issuerNamed(t, "b", "iss-b", k.stranger, func(c *token.Config) {
			c.MayGrant, c.Types, c.AcceptIDTokens = []string{"user"}, []string{"JWT"}, true
			c.RoleMap = map[string][]string{"g": {"user"}}
		}))
	sign := func(typ string, claims map[string]any) string {
		key := k.ec
		if claims["iss"] == "iss-b" {
			key = k.stranger
		}
		return sealed(t, `{"alg":"ES256","typ":"`+typ+`"}`, toJSON(t, goodClaims(claims)), key)
	}
	p := accepted(t, s, sign("at+jwt", map[string]any{"iss": "iss-a", "roles": []string{"admin", "g"}}))
	if !p.SharesIDs || !slices.Equal(p.Roles, []string{"admin"}) {
		t.Errorf("a: %+v", p)
	}
	p = accepted(t, s, sign("JWT", map[string]any{"iss": "iss-b", "roles": []string{"admin", "g"}, "nonce": "n"}))
	if p.SharesIDs || !slices.Equal(p.Roles, []string{"user"}) {
		t.Errorf("b: %+v", p)
	}
	refused(t, s, sign("JWT", map[string]any{"iss": "iss-a"}), token.ReasonTypMismatch)
	refused(t, s, sign("at+jwt", map[string]any{"iss": "iss-b"}), token.ReasonTypMismatch)
	refused(t, s, sign("at+jwt", map[string]any{"iss": "iss-a", "nonce": "n"}), token.ReasonIDToken)
}

// A remembered token does not lend its verdict to what begins with it.
func TestALongerTokenIsNotTheRememberedOne(t *testing.T) {
	s := newSet(t, verifier(t, func(c *token.Config) { c.MaxToken = 16384 }))
	s.Remember(token.NewCache(0))
	raw := longToken(t, 16384)
	for range 2 {
		accepted(t, s, raw)
	}
	refused(t, s, raw+"A", token.ReasonTooLarge)
	refused(t, s, raw+strings.Repeat("A", 16384), token.ReasonTooLarge)
}

// changing is a source whose keys are exchanged whole, as after a fetch.
type changing struct{ *token.KeySet }

// A remembered token counts only while the key that vouched for it is there
// under the same ID and for the same algorithm.
func TestARememberedTokenNeedsItsKeyAsItWas(t *testing.T) {
	k := ring()
	bound := func(id, alg string, public any) *token.KeySet {
		set, err := token.NewKeySet([]token.Key{{ID: id, Algorithm: alg, Public: public}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return set
	}
	raw := sealed(t, `{"alg":"RS256","kid":"a"}`, toJSON(t, goodClaims(nil)), k.rsa)
	for _, tc := range []struct {
		name, reason string
		then         *token.KeySet
	}{
		{"as it was", "", bound("a", "RS256", &k.rsa.PublicKey)},
		{"another ID", token.ReasonUnknownKey, bound("b", "RS256", &k.rsa.PublicKey)},
		{"another algorithm", token.ReasonAlgMismatch, bound("a", "PS256", &k.rsa.PublicKey)},
		{"another key", token.ReasonAlgMismatch, bound("a", "ES256", &k.ec.PublicKey)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			keys := &changing{bound("a", "RS256", &k.rsa.PublicKey)}
			s := newSet(t, verifier(t, func(c *token.Config) { c.Keys = keys }))
			s.Remember(token.NewCache(0))
			accepted(t, s, raw)
			keys.KeySet = tc.then
			if tc.reason == "" {
				accepted(t, s, raw)
				return
			}
			refused(t, s, raw, tc.reason)
		})
	}
}

// A clock that is set back makes a remembered token early again.
func TestARememberedTokenIsNotValidEarlier(t *testing.T) {
	for claim, reason := range map[string]string{"nbf": token.ReasonNotYetValid, "iat": token.ReasonIatFuture} {
		clock := now
		s := newSet(t, verifier(t, func(c *token.Config) { c.Now = func() time.Time { return clock } }))
		s.Remember(token.NewCache(0))
		raw := payloadWith(t, claim, now.Unix()+30)
		accepted(t, s, raw)
		clock = now.Add(-time.Second)
		refused(t, s, raw, reason)
	}
}

// What is of the wrong kind is not as if it were missing.
func TestNothingIsPassedOverBecauseItIsWrong(t *testing.T) {
	party := func(c *token.Config) { c.AuthorizedParties = []string{"web"} }
	for _, azp := range []string{"null", `""`, "1", `["web"]`} {
		s := toJSON(t, goodClaims(map[string]any{"client_id": "web"}))
		refused(t, verifier(t, party), sealed(t, goodHeader, s[:len(s)-1]+`,"azp":`+azp+"}", ring().ec), token.ReasonAzpMismatch)
	}
	accepted(t, verifier(t, party), payloadWith(t, "client_id", "web"))
	nested := func(c *token.Config) {
		c.Claims = token.ClaimPaths{
			Tenant: [][]string{{"org", "id"}, {"tenant_id"}}, Roles: [][]string{{"realm", "roles"}, {"roles"}}, Session: [][]string{{"login", "id"}, {"sid"}},
		}
	}
	accepted(t, verifier(t, nested), with(t, nil))
	for _, claim := range []string{"org", "realm", "login"} {
		refused(t, verifier(t, nested), payloadWith(t, claim, "x"), token.ReasonBadClaim)
		refused(t, verifier(t, nested), payloadWith(t, claim, []string{"id"}), token.ReasonBadClaim)
	}
	nilKey := source{keys: []token.Key{{Algorithm: "RS256", Public: (*rsa.PublicKey)(nil)}}}
	refused(t, verifier(t, func(c *token.Config) { c.Keys = nilKey }), sealed(t, `{"alg":"RS256"}`, toJSON(t, goodClaims(nil)), ring().rsa), token.ReasonAlgMismatch)
	refused(t, verifier(t, nil), sealed(t, `{"alg":"ES256","typ":1}`, toJSON(t, goodClaims(nil)), ring().ec), token.ReasonTypMismatch)
}

// oneOfEach returns a token for every reason, and who refuses it.
func oneOfEach(t *testing.T) map[string]func() error {
	verify := func(raw string, change func(*token.Config)) func() error {
		return func() error {
			_, err := verifier(t, change).Verify(t.Context(), raw)
			return err
		}
	}
	good := toJSON(t, goodClaims(nil))
	header := func(members string) func() error {
		return verify(sealed(t, `{"alg":"ES256",`+members+"}", good, ring().ec), nil)
	}
	claim := func(name string, value any) func() error { return verify(with(t, map[string]any{name: value}), nil) }
	many := slices.Repeat([]token.Key{{Algorithm: "ES256", Public: &ring().ec.PublicKey}}, 5)
	return map[string]func() error{
		token.ReasonMalformed:       verify("x", nil),
		token.ReasonTooLarge:        verify(strings.Repeat("x", 8193), nil),
		token.ReasonHeaderDuplicate: header(`"alg":"none"`),
		token.ReasonClaimDuplicate:  verify(sealed(t, goodHeader, `{"sub":"a","sub":"b"}`, ring().ec), nil),
		token.ReasonHeaderMember:    header(`"jku":"x"`),
		token.ReasonCrit:            header(`"crit":[]`),
		token.ReasonTypMismatch:     header(`"typ":"x"`),
		token.ReasonAlgMismatch:     verify(sealed(t, `{"alg":"none"}`, good, ring().ec), nil),
		token.ReasonUnknownKey:      header(`"kid":"x"`),
		token.ReasonKidMissing:      verify(with(t, nil), func(c *token.Config) { c.Keys = source{keys: many} }),
		token.ReasonBadSignature:    verify(sealed(t, goodHeader, good, ring().stranger), nil),
		token.ReasonKeysUnavailable: verify(with(t, nil), func(c *token.Config) { c.Keys = source{err: errors.New("dial tcp 10.0.0.1:443")} }),
		token.ReasonIDToken:         claim("nonce", "n"),
		token.ReasonEventToken:      claim("events", 1),
		token.ReasonIssMismatch:     claim("iss", "x"),
		token.ReasonAudMismatch:     claim("aud", "x"),
		token.ReasonAzpMismatch:     verify(with(t, nil), func(c *token.Config) { c.AuthorizedParties = []string{"web"} }),
		token.ReasonRevoked: verify(with(t, nil), func(c *token.Config) {
			c.Revoked = func(*identity.Principal, time.Time) bool { return true }
		}),
		token.ReasonExpMissing:  claim("exp", nil),
		token.ReasonBadDate:     claim("exp", "x"),
		token.ReasonExpired:     claim("exp", now.Unix()-31),
		token.ReasonNotYetValid: claim("nbf", now.Unix()+31),
		token.ReasonIatFuture:   claim("iat", now.Unix()+31),
		token.ReasonLifetime:    claim("exp", now.Unix()+48*3600),
		token.ReasonBadClaim:    claim("sub", nil),
	}
}

// A client learns the class of a refusal and no more: the text is the same
// whatever failed inside, and Expired and Revoked are said only of tokens that
// were good. All reasons but three share one text.
func TestOneTextPerClassWhateverFailed(t *testing.T) {
	classes := map[string]string{
		token.ReasonExpired: "token: expired", token.ReasonRevoked: "token: revoked", token.ReasonKeysUnavailable: "token: unavailable",
	}
	all := oneOfEach(t)
	for _, reason := range token.Reasons() {
		t.Run(reason, func(t *testing.T) {
			check, ok := all[reason]
			if !ok {
				t.Fatal("no token is refused for it here")
			}
			err := check()
			var refusal *token.Error
			if !errors.As(err, &refusal) || refusal.Reason != reason {
				t.Fatalf("refused with %+v", refusal)
			}
			want, ok := classes[reason]
			if !ok {
				want = "token: invalid"
			}
			for _, text := range []string{err.Error(), fmt.Sprint(err), fmt.Sprintf("%s", err)} {
				if text != want {
					t.Errorf("text %q, want %q", text, want)
				}
			}
			if errors.Unwrap(err) != nil {
				t.Error("the error wraps another, which could be printed")
			}
		})
	}
}
