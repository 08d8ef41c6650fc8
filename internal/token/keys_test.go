package token_test

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/token"
)

// smallOrderKeys returns the points of order 1, 2, 4 and 8, with both signs of
// x and with y not reduced.
func smallOrderKeys(t *testing.T) [][]byte {
	t.Helper()
	var keys [][]byte
	for _, s := range []string{
		"0100000000000000000000000000000000000000000000000000000000000000",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"0000000000000000000000000000000000000000000000000000000000000000",
		"0000000000000000000000000000000000000000000000000000000000000080",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	} {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, b)
	}
	return keys
}

func lacks(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("accepted")
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("error %q does not say %q", err, word)
		}
	}
}

func weakRSA(bits, exponent int) *rsa.PublicKey {
	n := new(big.Int).Lsh(big.NewInt(1), uint(bits-1))
	return &rsa.PublicKey{N: n.SetBit(n, 0, 1), E: exponent}
}

// rocaRSA returns a modulus as CVE-2017-15361 leaves them: a power of 65537
// modulo the product of all small primes.
func rocaRSA() *rsa.PublicKey {
	product := big.NewInt(2)
	for p := int64(3); p <= 167; p += 2 {
		if big.NewInt(p).ProbablyPrime(0) {
			product.Mul(product, big.NewInt(p))
		}
	}
	n := new(big.Int).Exp(big.NewInt(65537), big.NewInt(123456789), product)
	high := new(big.Int).Div(new(big.Int).Lsh(big.NewInt(3), 2046), product)
	return &rsa.PublicKey{N: n.Add(n, high.Mul(high, product)), E: 65537}
}

func TestWeakKeysAreRefused(t *testing.T) {
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	even := weakRSA(2048, 65537)
	even.N.SetBit(even.N, 0, 0)
	unreduced := ed25519.PublicKey(strings.Repeat("\xff", 31) + "\x7f")
	for _, tc := range []struct {
		name, says string
		public     any
	}{
		{"nothing", "must be RSA", nil},
		{"string", "must be RSA", "secret"},
		{"private key", "must be RSA", ring().ec},
		{"RSA nil", "no modulus", (*rsa.PublicKey)(nil)},
		{"RSA empty", "no modulus", &rsa.PublicKey{}},
		{"RSA 1024", "1024 bits", weakRSA(1024, 65537)},
		{"RSA 2047", "2047 bits", weakRSA(2047, 65537)},
		{"RSA 8193", "8193 bits", weakRSA(8193, 65537)},
		{"RSA even modulus", "even", even},
		{"RSA exponent 1", "exponent 1", weakRSA(2048, 1)},
		{"RSA exponent 3", "exponent 3", weakRSA(2048, 3)},
		{"RSA exponent 65536", "exponent 65536", weakRSA(2048, 65536)},
		{"RSA exponent even", "exponent 65538", weakRSA(2048, 65538)},
		{"RSA exponent huge", "below 2^31", weakRSA(2048, 1<<31+1)},
		{"RSA of a broken generator", "CVE-2017-15361", rocaRSA()},
		{"EC nil", "curve", (*ecdsa.PublicKey)(nil)},
		{"EC empty", "curve", &ecdsa.PublicKey{}},
		{"EC P-224", "curve", &p224.PublicKey},
		{"EC off the curve", "not on its curve", &ecdsa.PublicKey{Curve: elliptic.P256(), X: big.NewInt(1), Y: big.NewInt(1)}}, //nolint:staticcheck // No constructor makes a point off the curve.
		{"Ed25519 short", "31 bytes", ed25519.PublicKey(make([]byte, 31))},
		{"Ed25519 empty", "0 bytes", ed25519.PublicKey{}},
		{"Ed25519 unreduced", "canonical", unreduced},
		{"secret empty", "0 bytes", []byte{}},
		{"secret of 31 bytes", "31 bytes", make([]byte, 31)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := token.NewStaticKeys([]token.Key{{Public: tc.public}}, nil)
			lacks(t, err, "key 1", tc.says)
		})
	}
}

// The top bit of an Ed25519 key is a sign and no part of the number.
func TestEd25519KeysOfBothSignsAreAccepted(t *testing.T) {
	seen := map[byte]bool{}
	for seed := byte(0); len(seen) < 2; seed++ {
		key := ed25519.NewKeyFromSeed([]byte(strings.Repeat(string(rune(seed&0x7f)), 32))).Public().(ed25519.PublicKey)
		seen[key[31]>>7] = true
		static(t, nil, token.Key{Public: key})
	}
}

func TestKeysAndAlgorithmsMustAgree(t *testing.T) {
	k := ring()
	ec, rsaKey, secret := &k.ec.PublicKey, &k.rsa.PublicKey, k.secret[:32]
	for _, tc := range []struct {
		name, says string
		keys       []token.Key
		algorithms []string
	}{
		{"no key", "no usable key", nil, nil},
		{"alg of another family", "fits", []token.Key{{Algorithm: "RS256", Public: ec}}, nil},
		{"alg of another curve", "fits", []token.Key{{Algorithm: "ES384", Public: ec}}, nil},
		{"public key as secret", "fits", []token.Key{{Algorithm: "HS256", Public: rsaKey}}, nil},
		{"none", "fits", []token.Key{{Algorithm: "none", Public: rsaKey}}, nil},
		{"secret too short for HS512", "fits", []token.Key{{Algorithm: "HS512", Public: secret}}, nil},
		{"none listed", `algorithm "none"`, []token.Key{{Public: ec}}, []string{"ES256", "none"}},
		{"unknown listed", `algorithm "ES257"`, []token.Key{{Public: ec}}, []string{"ES257"}},
		{"twice listed", "stands twice", []token.Key{{Public: ec}}, []string{"ES256", "ES256"}},
		{"secrets beside public keys", "beside", []token.Key{{Public: ec}, {Public: secret}}, nil},
		{"HS listed beside ES", "beside", []token.Key{{Public: ec}}, []string{"ES256", "HS256"}},
		{"algorithm without key", `"EdDSA": no key`, []token.Key{{Public: ec}}, []string{"ES256", "EdDSA"}},
		{"key without algorithm", "serves none", []token.Key{{Public: ec}, {Public: rsaKey}}, []string{"ES256"}},
		{"stated algorithm is kept", "serves none", []token.Key{{Algorithm: "PS256", Public: rsaKey}}, []string{"RS256"}},
		{"ID twice", "stands twice", []token.Key{{ID: "a", Public: ec}, {ID: "a", Public: rsaKey}}, nil},
		{"five without ID", "at most 4", []token.Key{{Public: ec}, {Public: ec}, {Public: ec}, {Public: ec}, {Public: ec}}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := token.NewStaticKeys(tc.keys, tc.algorithms)
			lacks(t, err, tc.says)
		})
	}
}

func algorithmsOf(t *testing.T, source token.KeySource, kid string) []string {
	t.Helper()
	var out []string
	for _, alg := range []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "EdDSA", "HS256", "HS384", "HS512"} {
		keys, err := source.Lookup(t.Context(), kid, alg)
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range keys {
			if key.Algorithm == alg {
				out = append(out, alg)
			}
		}
	}
	return out
}

func TestAKeyServesItsDefaultOrWhatIsListed(t *testing.T) {
	k := ring()
	for _, tc := range []struct {
		name       string
		key        token.Key
		algorithms []string
		want       string
	}{
		{"RSA default", token.Key{Public: &k.rsa.PublicKey}, nil, "RS256"},
		{"RSA listed", token.Key{Public: &k.rsa.PublicKey}, []string{"PS256"}, "PS256"},
		{"RSA several listed", token.Key{Public: &k.rsa.PublicKey}, []string{"PS512", "RS256"}, "RS256 PS512"},
		{"RSA stated", token.Key{Public: &k.rsa.PublicKey, Algorithm: "PS384"}, nil, "PS384"},
		{"EC default", token.Key{Public: &k.ec.PublicKey}, nil, "ES256"},
		{"Ed25519 default", token.Key{Public: k.ed.Public()}, nil, "EdDSA"},
		{"secret default", token.Key{Public: k.secret}, nil, "HS256"},
		{"secret listed", token.Key{Public: k.secret}, []string{"HS512"}, "HS512"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := strings.Join(algorithmsOf(t, static(t, tc.algorithms, tc.key), ""), " "); got != tc.want {
				t.Errorf("serves %s, want %s", got, tc.want)
			}
		})
	}
}

func TestKidPicksTheKey(t *testing.T) {
	k := ring()
	good := toJSON(t, goodClaims(nil))
	a := token.Key{ID: "a", Public: &k.ec.PublicKey}
	b := token.Key{ID: "b", Public: &k.stranger.PublicKey}
	nameless := token.Key{Public: &k.ec.PublicKey}
	remote := func(keys ...token.Key) token.KeySource {
		set, err := token.NewKeySet(keys, nil)
		if err != nil {
			t.Fatal(err)
		}
		return set
	}
	for _, tc := range []struct {
		name, header, reason string
		keys                 token.KeySource
	}{
		{"its own", `{"alg":"ES256","kid":"a"}`, "", static(t, nil, a, b)},
		{"another's", `{"alg":"ES256","kid":"b"}`, token.ReasonBadSignature, static(t, nil, a, b)},
		{"nobody's", `{"alg":"ES256","kid":"c"}`, token.ReasonUnknownKey, static(t, nil, a, b)},
		{"none", `{"alg":"ES256"}`, "", static(t, nil, b, a)},
		{"any, written down without ID", `{"alg":"ES256","kid":"c"}`, "", static(t, nil, nameless)},
		{"another's beside one without ID", `{"alg":"ES256","kid":"b"}`, token.ReasonBadSignature, static(t, nil, nameless, b)},
		{"any, remote without ID", `{"alg":"ES256","kid":"c"}`, token.ReasonUnknownKey, remote(nameless)},
		{"none, remote without ID", `{"alg":"ES256"}`, "", remote(nameless)},
		{"remote", `{"alg":"ES256","kid":"a"}`, "", remote(a, b)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v := verifier(t, func(c *token.Config) { c.Keys = tc.keys })
			raw := sealed(t, tc.header, good, k.ec)
			if tc.reason == "" {
				accepted(t, v, raw)
				return
			}
			refused(t, v, raw, tc.reason)
		})
	}
}

func TestTokenWithoutKidDoesNotBuyManyTries(t *testing.T) {
	var keys []token.Key
	for i := range 5 {
		keys = append(keys, token.Key{ID: fmt.Sprint(i), Public: &ring().ec.PublicKey})
	}
	v := verifier(t, func(c *token.Config) { c.Keys = static(t, nil, keys...) })
	good := toJSON(t, goodClaims(nil))
	refused(t, v, sealed(t, `{"alg":"ES256"}`, good, ring().ec), token.ReasonKidMissing)
	accepted(t, v, sealed(t, `{"alg":"ES256","kid":"4"}`, good, ring().ec))
}

func TestRemoteSetsLeaveOutWhatIsNotAccepted(t *testing.T) {
	k := ring()
	keys := []token.Key{{ID: "ec", Public: &k.ec.PublicKey}, {ID: "rsa", Public: &k.rsa.PublicKey}}
	set, err := token.NewKeySet(keys, []string{"ES256", "EdDSA"})
	if err != nil || set.Len() != 1 || !set.Ready() {
		t.Fatalf("NewKeySet = %v, %v", set, err)
	}
	_, err = token.NewKeySet(keys, []string{"EdDSA"})
	lacks(t, err, "no usable key")
	_, err = token.NewKeySet([]token.Key{{Public: k.secret}}, nil)
	lacks(t, err, "secret must not come")
}

func TestSecretsMustBeLongAndSecret(t *testing.T) {
	for _, tc := range []struct {
		name, alg, says string
		secret          []byte
	}{
		{"empty", "HS256", "0 bytes", nil},
		{"31 bytes", "", "31 bytes", make([]byte, 31)},
		{"HS384 of 47", "HS384", "47 bytes", make([]byte, 47)},
		{"HS512 of 63", "HS512", "63 bytes", make([]byte, 63)},
		{"none", "none", "must be HS256", make([]byte, 64)},
		{"RS256", "RS256", "must be HS256", make([]byte, 64)},
		{"a PEM file", "HS256", "PEM", []byte("-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := token.NewSecret(tc.secret, tc.alg)
			lacks(t, err, tc.says)
		})
	}
	secret := []byte(strings.Repeat("s", 32))
	key, err := token.NewSecret(secret, "")
	if err != nil || key.Algorithm != "HS256" {
		t.Fatalf("NewSecret = %v, %v", key, err)
	}
	clear(secret)
	source := static(t, nil, key)
	clear(key.Public.([]byte))
	v := verifier(t, func(c *token.Config) { c.Keys = source })
	accepted(t, v, sealed(t, `{"alg":"HS256"}`, toJSON(t, goodClaims(nil)), []byte(strings.Repeat("s", 32))))
	refused(t, v, sealed(t, `{"alg":"HS256"}`, toJSON(t, goodClaims(nil)), make([]byte, 32)), token.ReasonBadSignature)
}

func TestTwoSecretsRotate(t *testing.T) {
	first, second := []byte(strings.Repeat("1", 32)), []byte(strings.Repeat("2", 32))
	v := verifier(t, func(c *token.Config) { c.Keys = static(t, nil, token.Key{Public: first}, token.Key{Public: second}) })
	good := toJSON(t, goodClaims(nil))
	accepted(t, v, sealed(t, `{"alg":"HS256"}`, good, first))
	accepted(t, v, sealed(t, `{"alg":"HS256","kid":"x"}`, good, second))
	refused(t, v, sealed(t, `{"alg":"HS256"}`, good, []byte(strings.Repeat("3", 32))), token.ReasonBadSignature)
}

func TestKeysDoNotPrintThemselves(t *testing.T) {
	planted := strings.Repeat("planted-secret", 3)
	key, err := token.NewSecret([]byte(planted), "")
	if err != nil {
		t.Fatal(err)
	}
	source := static(t, nil, key)
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q", "%d"} {
		fmt.Fprintf(&out, verb+verb+verb, key, &key, source)
	}
	marshalled, err := json.Marshal(key)
	if err != nil {
		t.Fatal(err)
	}
	out.Write(marshalled)
	for _, leak := range []string{planted, hex.EncodeToString([]byte(planted)), "112 108 97", base64.StdEncoding.EncodeToString([]byte(planted))[:20]} {
		if strings.Contains(out.String(), leak) {
			t.Errorf("%q leaks", leak)
		}
	}
}

func block(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func pkix1(t *testing.T, public any) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return block("PUBLIC KEY", der)
}

func certificate(t *testing.T) string {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}, NotAfter: now.Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &ring().ec.PublicKey, ring().ec)
	if err != nil {
		t.Fatal(err)
	}
	return block("CERTIFICATE", der)
}

func TestPEMKeysAreRead(t *testing.T) {
	k := ring()
	for _, tc := range []struct{ name, text, algorithms string }{
		{"RSA", pkix1(t, &k.rsa.PublicKey), "RS256"},
		{"RSA PKCS 1", block("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&k.rsa.PublicKey)), "RS256"},
		{"EC", pkix1(t, &k.ec.PublicKey), "ES256"},
		{"EC P-384", pkix1(t, &k.ec384.PublicKey), "ES384"},
		{"EC P-521", pkix1(t, &k.ec521.PublicKey), "ES512"},
		{"Ed25519", pkix1(t, k.ed.Public()), "EdDSA"},
		{"certificate", certificate(t), "ES256"},
		{"several with text between", "a key\n" + pkix1(t, k.ed.Public()) + "\nanother\n" + pkix1(t, &k.rsa.PublicKey) + "\n", "EdDSA RS256"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			keys, err := token.ParsePEM([]byte(tc.text))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, key := range keys {
				got = append(got, key.Algorithm)
			}
			if strings.Join(got, " ") != tc.algorithms {
				t.Errorf("algorithms %q, want %s", got, tc.algorithms)
			}
		})
	}
}

func TestPEMFilesWithAnythingWrongAreRefused(t *testing.T) {
	k := ring()
	pkcs8, err := x509.MarshalPKCS8PrivateKey(k.ec)
	if err != nil {
		t.Fatal(err)
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	x25519, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := pkix1(t, &k.ec.PublicKey)
	for _, tc := range []struct{ name, text, says string }{
		{"empty", "", "no key"},
		{"text", "hello", "no key"},
		{"private key", block("PRIVATE KEY", pkcs8), "is a private key"},
		{"RSA private key", block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(k.rsa)), "is a private key"},
		{"encrypted private key", block("ENCRYPTED PRIVATE KEY", []byte{1}), "is a private key"},
		{"private key after a public one", good + block("EC PRIVATE KEY", pkcs8), "block 2: is a private key"},
		{"unknown block", block("PGP PUBLIC KEY BLOCK", []byte{1}), "must be PUBLIC KEY"},
		{"damaged key", block("PUBLIC KEY", []byte{1, 2, 3}), "PUBLIC KEY: is damaged"},
		{"damaged PKCS 1", block("RSA PUBLIC KEY", []byte{1, 2, 3}), "RSA PUBLIC KEY: is damaged"},
		{"damaged certificate", block("CERTIFICATE", []byte{1, 2, 3}), "CERTIFICATE: is damaged"},
		{"damaged block", good + strings.Replace(good, "-----END", "-----FIN", 1), "1 of 2 blocks"},
		{"weak RSA", pkix1(t, weakRSA(1024, 65537)), "1024 bits"},
		{"P-224", pkix1(t, &p224.PublicKey), "curve"},
		{"X25519", pkix1(t, x25519.PublicKey()), "must be RSA"},
		{"101 keys", strings.Repeat(good, 101), "at most 100"},
		{"over 1 MiB", strings.Repeat(" ", 1<<20) + good, "at most 1048576"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			keys, err := token.ParsePEM([]byte(tc.text))
			lacks(t, err, tc.says)
			if keys != nil {
				t.Error("keys beside an error")
			}
			if strings.Contains(err.Error(), strings.Split(good, "\n")[1]) {
				t.Error("the error quotes the file")
			}
		})
	}
}
