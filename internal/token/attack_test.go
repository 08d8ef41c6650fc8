package token_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/internal/token"
)

// attack is a token that must be refused, and why.
type attack struct {
	name, token, reason string
}

// TestAttackTokensAreRefusedForTheRightReason runs every generator. All of the
// tokens are near a good one: what is not under attack in them is as it should
// be, so that it is the one check that refuses.
func TestAttackTokensAreRefusedForTheRightReason(t *testing.T) {
	v := verifier(t, nil)
	accepted(t, v, with(t, nil))
	attacks := slices.Concat(
		spellingAttacks(t), shapeAttacks(t), jsonAttacks(t), headerAttacks(t), algorithmAttacks(t),
		signatureAttacks(t), addressAttacks(t), dateAttacks(t), purposeAttacks(t), propertyAttacks(t))
	if len(attacks) < 200 {
		t.Errorf("%d attacks", len(attacks))
	}
	names := map[string]bool{}
	for _, a := range attacks {
		if names[a.name] {
			t.Errorf("%s stands twice", a.name)
		}
		names[a.name] = true
		t.Run(a.name, func(t *testing.T) { refused(t, v, a.token, a.reason) })
	}
}

// spellingAttacks write foreign bytes into every part at every kind of place.
func spellingAttacks(t *testing.T) []attack {
	var out []attack
	good := with(t, nil)
	for part := range 3 {
		for _, bad := range []string{" ", "\n", "\r\n", "\t", "=", "==", "+", "/", "\x00", "é", "%2e", ",", "\u200b"} {
			for _, place := range []string{"start", "middle", "end"} {
				parts := strings.Split(good, ".")
				at := map[string]int{"start": 0, "middle": len(parts[part]) / 2, "end": len(parts[part])}[place]
				parts[part] = parts[part][:at] + bad + parts[part][at:]
				out = append(out, attack{
					fmt.Sprintf("spelling/%q at the %s of part %d", bad, place, part), strings.Join(parts, "."), token.ReasonMalformed,
				})
			}
		}
	}
	return out
}

func shapeAttacks(t *testing.T) []attack {
	good := with(t, nil)
	h, p, s := cut3(good)
	dirty := func(part string) string { // the same bytes in another spelling
		for _, c := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_" {
			other := part[:len(part)-1] + string(c)
			a, _ := base64.RawURLEncoding.DecodeString(part)
			b, err := base64.RawURLEncoding.DecodeString(other)
			if err == nil && other != part && string(a) == string(b) {
				return other
			}
		}
		t.Fatalf("%q has no second spelling", part)
		return ""
	}
	spare := func(s string) string { // with white space until bits are left over
		for len(s)%3 == 0 {
			s += " "
		}
		return dirty(b64(s))
	}
	cases := map[string]string{
		"empty": "", "a dot": ".", "two dots": "..", "three dots": "...", "one part": h, "two parts": h + "." + p,
		"no header": "." + p + "." + s, "no payload": h + ".." + s, "no signature": h + "." + p + ".",
		"four parts": good + ".", "five parts": good + "." + s + "." + s, "a part in front": "." + good,
		"scheme": "Bearer " + good, "quoted": `"` + good + `"`, "two tokens": good + "," + good,
		"JSON serialization": `{"payload":"` + p + `"}`, "one letter each": "a.a.a",
		"header with spare bits":    signedOver(t, spare(goodHeader)+"."+p, ring().ec),
		"payload with spare bits":   signedOver(t, h+"."+spare(toJSON(t, goodClaims(nil))), ring().ec),
		"signature with spare bits": h + "." + p + "." + dirty(s),
	}
	out := named("shape/", cases, token.ReasonMalformed)
	large := map[string]string{
		"token":  sealed(t, goodHeader, toJSON(t, goodClaims(map[string]any{"x": strings.Repeat("x", 8192)})), ring().ec),
		"header": sealed(t, `{"alg":"ES256","kid":"`+strings.Repeat("k", 1024)+`"}`, toJSON(t, goodClaims(nil)), ring().ec),
		"dots":   strings.Repeat(".", 8193), "letters": strings.Repeat("A", 1<<20),
	}
	return append(out, named("too large/", large, token.ReasonTooLarge)...)
}

func cut3(raw string) (header, payload, signature string) {
	parts := strings.Split(raw, ".")
	return parts[0], parts[1], parts[2]
}

func named(prefix string, cases map[string]string, reason string) []attack {
	var out []attack
	for _, name := range slices.Sorted(maps.Keys(cases)) {
		out = append(out, attack{prefix + name, cases[name], reason})
	}
	return out
}

// jsonAttacks break the header's and the payload's JSON in the same ways.
func jsonAttacks(t *testing.T) []attack {
	good := toJSON(t, goodClaims(nil))
	open := func(object string) string { return object[:len(object)-1] }
	breaks := map[string]func(string) string{
		"array":                func(s string) string { return "[" + s + "]" },
		"string":               func(string) string { return `"x"` },
		"number":               func(string) string { return "1" },
		"null":                 func(string) string { return "null" },
		"trailing object":      func(s string) string { return s + "{}" },
		"trailing byte":        func(s string) string { return s + "x" },
		"trailing NUL":         func(s string) string { return s + "\x00" },
		"byte order mark":      func(s string) string { return "\ufeff" + s },
		"comment":              func(s string) string { return s + "//" },
		"trailing comma":       func(s string) string { return open(s) + ",}" },
		"not closed":           open,
		"bare name":            func(s string) string { return open(s) + ",x:1}" },
		"single quotes":        func(s string) string { return open(s) + ",'x':1}" },
		"broken UTF-8":         func(s string) string { return open(s) + ",\"x\":\"\xff\"}" },
		"overlong UTF-8":       func(s string) string { return open(s) + ",\"x\":\"\xc0\xae\"}" },
		"half a surrogate":     func(s string) string { return open(s) + `,"x":"\ud800"}` },
		"wrong surrogate":      func(s string) string { return open(s) + `,"x":"\ud800\u0041"}` },
		"low surrogate first":  func(s string) string { return open(s) + `,"x":"\udc00\ud800"}` },
		"unknown escape":       func(s string) string { return open(s) + `,"x":"\x41"}` },
		"raw control byte":     func(s string) string { return open(s) + ",\"x\":\"\n\"}" },
		"control after escape": func(s string) string { return open(s) + ",\"x\":\"\\n\n\"}" },
		"leading zero":         func(s string) string { return open(s) + `,"x":01}` },
		"plus":                 func(s string) string { return open(s) + `,"x":+1}` },
		"bare point":           func(s string) string { return open(s) + `,"x":1.}` },
		"hexadecimal":          func(s string) string { return open(s) + `,"x":0x10}` },
		"not a number":         func(s string) string { return open(s) + `,"x":NaN}` },
		"infinity":             func(s string) string { return open(s) + `,"x":-Infinity}` },
		"capital literal":      func(s string) string { return open(s) + `,"x":True}` },
	}
	duplicates := map[string]func(string) string{
		"top":           func(s string) string { return open(s) + `,"x":1,"x":1}` },
		"by escape":     func(s string) string { return open(s) + `,"x":1,"\u0078":2}` },
		"nested":        func(s string) string { return open(s) + `,"x":{"y":1,"y":1}}` },
		"nested arrays": func(s string) string { return open(s) + `,"x":[[{"y":1,"y":1}]]}` },
	}
	deep := func(s string) string {
		return open(s) + `,"x":` + strings.Repeat("[", 16) + strings.Repeat("]", 16) + "}"
	}
	var out []attack
	for _, part := range []string{"header", "payload"} {
		build := func(change func(string) string) string {
			if part == "header" {
				return sealed(t, change(goodHeader), good, ring().ec)
			}
			return sealed(t, goodHeader, change(good), ring().ec)
		}
		for _, name := range slices.Sorted(maps.Keys(breaks)) {
			out = append(out, attack{"json/" + part + "/" + name, build(breaks[name]), token.ReasonMalformed})
		}
		reason := map[string]string{"header": token.ReasonHeaderDuplicate, "payload": token.ReasonClaimDuplicate}[part]
		for _, name := range slices.Sorted(maps.Keys(duplicates)) {
			out = append(out, attack{"json/" + part + "/duplicate " + name, build(duplicates[name]), reason})
		}
		out = append(out, attack{"json/" + part + "/too deep", build(deep), token.ReasonTooLarge})
	}
	members := strings.Repeat(`1,`, 100)
	return append(out,
		attack{"json/duplicate alg", sealed(t, `{"alg":"ES256","alg":"none"}`, good, ring().ec), token.ReasonHeaderDuplicate},
		attack{"json/duplicate sub", sealed(t, goodHeader, good[:len(good)-1]+`,"sub":"root"}`, ring().ec), token.ReasonClaimDuplicate},
		attack{"json/many header values", sealed(t, `{"alg":"ES256","x":[`+members+`1]}`, good, ring().ec), token.ReasonTooLarge},
		attack{"json/many claims", sealed(t, goodHeader, good[:len(good)-1]+`,"x":[`+strings.Repeat("1,", 512)+`1]}`, ring().ec), token.ReasonTooLarge},
		attack{"json/long number", sealed(t, goodHeader, good[:len(good)-1]+`,"x":`+strings.Repeat("1", 65)+`}`, ring().ec), token.ReasonTooLarge},
	)
}

func headerAttacks(t *testing.T) []attack {
	good := toJSON(t, goodClaims(nil))
	build := func(members ...string) string {
		return sealed(t, `{"alg":"ES256",`+strings.Join(members, ",")+"}", good, ring().ec)
	}
	var out []attack
	add := func(reason string, members ...string) {
		for _, m := range members {
			out = append(out, attack{"header/" + m, build(m), reason})
		}
	}
	add(token.ReasonCrit, `"crit":["exp"]`, `"crit":[]`, `"crit":null`, `"crit":["b64"],"b64":false`, `"crit":"b64"`)
	add(token.ReasonHeaderMember,
		`"b64":false`, `"b64":true`, `"jku":"https://evil.example/keys"`, `"jwk":{"kty":"EC"}`, `"x5u":"https://evil.example/c"`,
		`"x5c":["MIIB"]`, `"x5t":"AA"`, `"x5t#S256":"AA"`, `"enc":"A128GCM"`, `"zip":"DEF"`, `"p2c":1000000000`, `"epk":{}`,
		`"Alg":"none"`, `"ALG":"none"`, `"Kid":"ec"`, `"CRIT":["exp"]`, `"iss":"x"`, `"":1`, `"x":1`,
		`"kid":null`, `"kid":1`, `"kid":""`, `"kid":["ec"]`, `"kid":{"a":1}`, `"kid":"ec\u0000"`, `"kid":"ec\n"`,
		`"kid":"`+strings.Repeat("k", 257)+`"`,
		`"cty":null`, `"cty":"json"`, `"cty":1`, `"cty":""`)
	add(token.ReasonTypMismatch,
		`"typ":null`, `"typ":""`, `"typ":1`, `"typ":["JWT"]`, `"typ":"JWS"`, `"typ":"JOSE"`, `"typ":"JWT "`, `"typ":"logout+jwt"`,
		`"typ":"secevent+jwt"`, `"typ":"dpop+jwt"`, `"typ":"application/application/JWT"`, `"typ":"text/JWT"`, `"typ":"ID"`)
	add(token.ReasonUnknownKey, `"kid":"EC"`, `"kid":"ec "`, `"kid":"../../dev/null"`, `"kid":"' OR 1=1 --"`, `"kid":"é"`)
	return out
}

// algorithmAttacks change alg, and sign in the way alg then says.
func algorithmAttacks(t *testing.T) []attack {
	k := ring()
	good := toJSON(t, goodClaims(nil))
	der, err := x509.MarshalPKIXPublicKey(&k.ec.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	var out []attack
	for _, alg := range []string{
		`"none"`, `"None"`, `"NONE"`, `"nOnE"`, `"none\u0000"`, `" none"`, `""`, `null`, `1`, `true`, `["ES256"]`, `{"a":"ES256"}`,
		`"es256"`, `"ES256 "`, `"ES256\u0000"`, `"ES256K"`, `"ES384"`, `"ES512"`, `"EdDSA"`, `"RS256"`, `"PS256"`, `"RS1"`, `"HS256"`,
		`"HS384"`, `"HS512"`, `"HS1"`, `"A128KW"`, `"RSA-OAEP"`, `"dir"`,
	} {
		out = append(out, attack{"alg/" + alg, sealed(t, `{"alg":`+alg+`,"kid":"ec"}`, good, k.ec), token.ReasonAlgMismatch})
	}
	for name, secret := range map[string][]byte{"PEM": text, "DER": der, "trimmed PEM": []byte(strings.TrimSpace(string(text))), "empty": {}} {
		out = append(out, attack{
			"alg/HS256 with the public key as secret, " + name, sealed(t, `{"alg":"HS256","kid":"ec"}`, good, secret), token.ReasonAlgMismatch,
		})
	}
	return append(out,
		attack{"alg/missing", sealed(t, `{"kid":"ec"}`, good, k.ec), token.ReasonAlgMismatch},
		attack{"alg/empty header", sealed(t, `{}`, good, k.ec), token.ReasonAlgMismatch},
		attack{"alg/RSA", sealed(t, `{"alg":"RS256","kid":"ec"}`, good, k.rsa), token.ReasonAlgMismatch},
		attack{"alg/Ed25519", sealed(t, `{"alg":"EdDSA","kid":"ec"}`, good, k.ed), token.ReasonAlgMismatch},
	)
}

func signatureAttacks(t *testing.T) []attack {
	k := ring()
	good := with(t, nil)
	h, p, s := cut3(good)
	raw, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string]string{
		"stranger's key":          sealed(t, goodHeader, toJSON(t, goodClaims(nil)), k.stranger),
		"stranger's, no kid":      sealed(t, `{"alg":"ES256"}`, toJSON(t, goodClaims(nil)), k.stranger),
		"of other claims":         h + "." + b64(toJSON(t, goodClaims(map[string]any{"sub": "root"}))) + "." + s,
		"of other header":         b64(`{"alg":"ES256","kid":"ec"}`) + "." + p + "." + s,
		"of another token":        h + "." + p + "." + last(with(t, map[string]any{"x": 1})),
		"P-384 signature":         sealed(t, goodHeader, toJSON(t, goodClaims(nil)), k.ec384),
		"RSA signature":           sealed(t, goodHeader, toJSON(t, goodClaims(nil)), k.rsa),
		"wrong and expired":       sealed(t, goodHeader, toJSON(t, goodClaims(map[string]any{"exp": 1})), k.stranger),
		"wrong and foreign iss":   sealed(t, goodHeader, toJSON(t, goodClaims(map[string]any{"iss": "x"})), k.stranger),
		"wrong and without claim": sealed(t, goodHeader, "{}", k.stranger),
	}
	order := elliptic.P256().Params().N.Bytes()
	zero, one := make([]byte, 32), append(make([]byte, 31), 1)
	der, err := ecdsa.SignASN1(rand.Reader, k.ec, digestOf(h+"."+p))
	if err != nil {
		t.Fatal(err)
	}
	for name, sig := range map[string][]byte{
		"zeros": append(zero, zero...), "r zero": slices.Concat(zero, raw[32:]), "s zero": slices.Concat(raw[:32], zero),
		"r order": slices.Concat(order, raw[32:]), "s order": slices.Concat(raw[:32], order), "ones": slices.Concat(one, one),
		"orders": slices.Concat(order, order), "DER": der, "truncated": raw[:63], "extended": append(slices.Clone(raw), 0),
		"in front": append([]byte{0}, raw...), "halves swapped": slices.Concat(raw[32:], raw[:32]), "one byte": {0}, "doubled": slices.Concat(raw, raw),
	} {
		cases[name] = h + "." + p + "." + base64.RawURLEncoding.EncodeToString(sig)
	}
	for _, i := range []int{0, 1, 31, 32, 33, 63} {
		flipped := slices.Clone(raw)
		flipped[i] ^= 1
		cases[fmt.Sprintf("byte %d changed", i)] = h + "." + p + "." + base64.RawURLEncoding.EncodeToString(flipped)
	}
	return named("signature/", cases, token.ReasonBadSignature)
}

func last(raw string) string {
	_, _, s := cut3(raw)
	return s
}

func digestOf(s string) []byte {
	digest := sha256.Sum256([]byte(s))
	return digest[:]
}

// claimAttacks returns one well signed token for each value of a claim.
func claimAttacks(t *testing.T, claim, reason string, values ...string) []attack {
	var out []attack
	for _, value := range values {
		claims := goodClaims(nil)
		delete(claims, claim)
		s := toJSON(t, claims)
		if value != "" {
			s = s[:len(s)-1] + fmt.Sprintf(",%q:%s}", claim, value)
		}
		out = append(out, attack{"claim/" + claim + "/" + value + " " + reason, sealed(t, goodHeader, s, ring().ec), reason})
	}
	return out
}

func addressAttacks(t *testing.T) []attack {
	return slices.Concat(
		claimAttacks(t, "iss", token.ReasonIssMismatch, "", `null`, `""`, `1`, `["https://id.example.com"]`, `{"a":1}`,
			`"https://id.example.com/"`, `"https://ID.example.com"`, `"http://id.example.com"`, `"https://id.example.com "`,
			`"https://id.example.com\u0000"`, `"https://id.example.com.evil.example"`, `"https://id.example.co"`),
		claimAttacks(t, "aud", token.ReasonAudMismatch, "", `null`, `""`, `1`, `true`, `[]`, `[""]`, `[null]`, `{"orders-api":1}`,
			`"orders-ap"`, `"orders-api "`, `"Orders-API"`, `"other orders-api"`, `["other"]`, `["orders-api",1]`, `[1,"orders-api"]`,
			`["orders-api",null]`, `[["orders-api"]]`),
	)
}

func dateAttacks(t *testing.T) []attack {
	odd := []string{
		`null`, `"1800000600"`, `true`, `[1800000600]`, `{"a":1}`, `0`, `-1`, `-0`, `1e300`, `1e999`, `-1e999`, `1e-400`,
		`100000000000`, `9223372036854775808`, `18446744073709551616`, `""`,
	}
	out := slices.Concat(
		claimAttacks(t, "exp", token.ReasonExpMissing, ""),
		claimAttacks(t, "exp", token.ReasonBadDate, odd...),
		claimAttacks(t, "nbf", token.ReasonBadDate, odd...),
		claimAttacks(t, "iat", token.ReasonBadDate, odd...),
		claimAttacks(t, "exp", token.ReasonExpired, `1799999970`, `1799999969.999999`, `1799999960`, `17.9999996e8`),
		claimAttacks(t, "exp", token.ReasonLifetime, `1800086341`, `9999999999`, `99999999999`),
		claimAttacks(t, "nbf", token.ReasonNotYetValid, `1800000030.5`, `1800000031`, `99999999999`),
		claimAttacks(t, "iat", token.ReasonIatFuture, `1800000030.5`, `1800000031`, `99999999999`),
		claimAttacks(t, "iat", token.ReasonLifetime, `1799914199`, `1`),
	)
	without := goodClaims(map[string]any{"iat": nil, "exp": now.Unix() + 24*3600 + 31})
	out = append(out, attack{"claim/exp/too far without iat", sealed(t, goodHeader, toJSON(t, without), ring().ec), token.ReasonLifetime})
	// An expired token with a second fault is not just expired.
	for name, change := range map[string]map[string]any{
		"iss": {"iss": "x"}, "aud": {"aud": "x"}, "sub": {"sub": nil}, "nonce": {"nonce": "n"}, "roles": {"roles": 1},
	} {
		reason := map[string]string{
			"iss": token.ReasonIssMismatch, "aud": token.ReasonAudMismatch, "sub": token.ReasonBadClaim,
			"nonce": token.ReasonIDToken, "roles": token.ReasonBadClaim,
		}[name]
		change["exp"] = now.Unix() - 3600
		change["iat"] = now.Unix() - 7200
		out = append(out, attack{"claim/expired and wrong " + name, with(t, change), reason})
	}
	return out
}

func purposeAttacks(t *testing.T) []attack {
	return slices.Concat(
		claimAttacks(t, "nonce", token.ReasonIDToken, `"n"`, `null`),
		claimAttacks(t, "at_hash", token.ReasonIDToken, `"n"`),
		claimAttacks(t, "c_hash", token.ReasonIDToken, `"n"`),
		claimAttacks(t, "s_hash", token.ReasonIDToken, `"n"`),
		claimAttacks(t, "token_use", token.ReasonIDToken, `"id"`),
		claimAttacks(t, "typ", token.ReasonIDToken, `"ID"`),
		claimAttacks(t, "events", token.ReasonEventToken, `{"http://schemas.openid.net/event/backchannel-logout":{}}`, `{}`, `null`),
	)
}

func propertyAttacks(t *testing.T) []attack {
	odd := []string{
		`null`, `""`, `true`, `[]`, `["u-1"]`, `{}`, `1.5`, `1.0`, `1e3`, `-0`, `" u-1"`, `"u-1 "`, `" "`, `"u\u0000"`, `"u\n1"`,
		`"u\r\nX-Admin: 1"`, `"u\u007f"`, `"u\u0085"`, `"u\u2028x"`, `"u\u2029x"`, `"\u00a0u"`, `"` + strings.Repeat("u", 257) + `"`,
	}
	return slices.Concat(
		claimAttacks(t, "sub", token.ReasonBadClaim, "", `"anonymous"`, `"Anonymous"`, `"ANONYMOUS"`),
		claimAttacks(t, "sub", token.ReasonBadClaim, odd...),
		claimAttacks(t, "tenant_id", token.ReasonBadClaim, odd...),
		claimAttacks(t, "sid", token.ReasonBadClaim, odd...),
		claimAttacks(t, "roles", token.ReasonBadClaim, `null`, `""`, `1`, `true`, `{}`, `[1]`, `[null]`, `[""]`, `["admin",1]`, `[["admin"]]`),
	)
}

// The library takes a PSS signature with a salt of any length; RFC 7518 section
// 3.5 wants one as long as the hash.
func TestPSSSaltMustBeAsLongAsTheHash(t *testing.T) {
	k := ring()
	v := verifier(t, func(c *token.Config) {
		c.Algorithms = []string{"PS256"}
		c.Keys = static(t, c.Algorithms, token.Key{Public: &k.rsa.PublicKey})
	})
	signed := b64(`{"alg":"PS256"}`) + "." + b64(toJSON(t, goodClaims(nil)))
	for salt, ok := range map[int]bool{32: true, 1: false, 20: false, 31: false, 33: false, 64: false, rsa.PSSSaltLengthAuto: false} {
		t.Run(fmt.Sprint(salt), func(t *testing.T) {
			sig, err := rsa.SignPSS(rand.Reader, k.rsa, crypto.SHA256, digestOf(signed), &rsa.PSSOptions{SaltLength: salt})
			if err != nil {
				t.Fatal(err)
			}
			raw := signed + "." + base64.RawURLEncoding.EncodeToString(sig)
			if ok {
				accepted(t, v, raw)
				return
			}
			refused(t, v, raw, token.ReasonBadSignature)
		})
	}
}

// RS256 and PS256 signatures of the same key do not stand for each other.
func TestRSAPaddingIsBoundToTheAlgorithm(t *testing.T) {
	k := ring()
	v := verifier(t, func(c *token.Config) {
		c.Algorithms = []string{"PS256"}
		c.Keys = static(t, c.Algorithms, token.Key{Public: &k.rsa.PublicKey})
	})
	good := toJSON(t, goodClaims(nil))
	refused(t, v, sealed(t, `{"alg":"RS256"}`, good, k.rsa), token.ReasonAlgMismatch)
	refused(t, v, sealed(t, `{"alg":"PS256"}`, good, k.rsa), token.ReasonBadSignature)
}

func TestRSAKeyIsNoSecret(t *testing.T) {
	k := ring()
	v := verifier(t, func(c *token.Config) { c.Keys = static(t, nil, token.Key{Public: &k.rsa.PublicKey}) })
	der := x509.MarshalPKCS1PublicKey(&k.rsa.PublicKey)
	for name, secret := range map[string][]byte{
		"DER": der, "PEM": pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: der}), "modulus": k.rsa.N.Bytes(),
	} {
		t.Run(name, func(t *testing.T) {
			refused(t, v, sealed(t, `{"alg":"HS256"}`, toJSON(t, goodClaims(nil)), secret), token.ReasonAlgMismatch)
		})
	}
}

// Under a key of small order anybody can make a signature that holds.
func TestSmallOrderKeysAreRefused(t *testing.T) {
	identityPoint := append([]byte{1}, make([]byte, 31)...)
	forged := append(slices.Clone(identityPoint), make([]byte, 32)...) // R neutral, S zero
	holds := 0
	for _, hexKey := range smallOrderKeys(t) {
		key := ed25519.PublicKey(hexKey)
		for i := range 64 {
			if ed25519.Verify(key, []byte{byte(i)}, forged) {
				holds++
				break
			}
		}
		if _, err := token.NewStaticKeys([]token.Key{{Public: key}}, nil); err == nil {
			t.Errorf("%x was accepted", hexKey)
		}
	}
	if holds < 8 {
		t.Errorf("only %d of the keys are weak: the test tests nothing", holds)
	}
}
