package token

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"fmt"
	"math/big"
	"slices"

	"github.com/golang-jwt/jwt/v5"
)

// algorithm is one signature algorithm of RFC 7518 section 3.1 or RFC 8037 and
// what a key must be to serve it.
type algorithm struct {
	name   string
	method jwt.SigningMethod
	family family
	curve  elliptic.Curve // exact, for familyEC
	secret int            // least length in bytes, for familySecret
}

type family uint8

const (
	familyRSA family = iota + 1
	familyEC
	familyEd
	familySecret
)

// algorithmTable is every algorithm there is; "none" is not among them. The
// order is that in which a key's possible algorithms are listed, default first.
var algorithmTable = []algorithm{
	{name: "RS256", method: jwt.SigningMethodRS256, family: familyRSA},
	{name: "RS384", method: jwt.SigningMethodRS384, family: familyRSA},
	{name: "RS512", method: jwt.SigningMethodRS512, family: familyRSA},
	{name: "PS256", method: pss(jwt.SigningMethodPS256), family: familyRSA},
	{name: "PS384", method: pss(jwt.SigningMethodPS384), family: familyRSA},
	{name: "PS512", method: pss(jwt.SigningMethodPS512), family: familyRSA},
	{name: "ES256", method: jwt.SigningMethodES256, family: familyEC, curve: elliptic.P256()},
	{name: "ES384", method: jwt.SigningMethodES384, family: familyEC, curve: elliptic.P384()},
	{name: "ES512", method: jwt.SigningMethodES512, family: familyEC, curve: elliptic.P521()},
	{name: "EdDSA", method: jwt.SigningMethodEdDSA, family: familyEd},
	// RFC 7518 section 3.2: the secret is at least as long as the hash.
	{name: "HS256", method: jwt.SigningMethodHS256, family: familySecret, secret: 32},
	{name: "HS384", method: jwt.SigningMethodHS384, family: familySecret, secret: 48},
	{name: "HS512", method: jwt.SigningMethodHS512, family: familySecret, secret: 64},
}

// pss returns the method without the library's leniency: RFC 7518 section 3.5
// wants a salt as long as the hash, the library takes any length.
func pss(m *jwt.SigningMethodRSAPSS) jwt.SigningMethod {
	return &jwt.SigningMethodRSAPSS{SigningMethodRSA: m.SigningMethodRSA, Options: m.Options}
}

func findAlgorithm(name string) (algorithm, bool) {
	for _, a := range algorithmTable {
		if a.name == name {
			return a, true
		}
	}
	return algorithm{}, false
}

// fits reports whether the key is of the type and curve the algorithm needs.
func (a algorithm) fits(public any) bool {
	switch key := public.(type) {
	case *rsa.PublicKey:
		return a.family == familyRSA && key != nil
	case *ecdsa.PublicKey:
		return a.family == familyEC && key != nil && key.Curve == a.curve
	case ed25519.PublicKey:
		return a.family == familyEd
	case []byte:
		return a.family == familySecret && len(key) >= a.secret
	}
	return false
}

// possible returns the names of the algorithms a key can serve, its default
// first.
func possible(public any) []string {
	var names []string
	for _, a := range algorithmTable {
		if a.fits(public) {
			names = append(names, a.name)
		}
	}
	return names
}

// checkAlgorithms refuses names that are unknown or stand twice, and secrets
// beside public keys: with both, a public key could be tried as a secret
// (RFC 8725 section 2.1).
func checkAlgorithms(names []string) error {
	var errs []error
	var secret, public bool
	for i, name := range names {
		a, ok := findAlgorithm(name)
		switch {
		case !ok:
			errs = append(errs, fmt.Errorf("algorithm %q: is none of RS256…RS512, PS256…PS512, ES256…ES512, EdDSA, HS256…HS512", name))
		case slices.Contains(names[:i], name):
			errs = append(errs, fmt.Errorf("algorithm %q: stands twice", name))
		case a.family == familySecret:
			secret = true
		default:
			public = true
		}
	}
	if secret && public {
		errs = append(errs, errors.New("algorithms: HS… must not stand beside those of public keys"))
	}
	return errors.Join(errs...)
}

const (
	leastRSABits     = 2048
	mostRSABits      = 8192 // verification time grows with the square
	leastRSAExponent = 65537
)

// checkStrength refuses keys that are of a known type but too weak to trust.
func checkStrength(public any) error {
	switch key := public.(type) {
	case *rsa.PublicKey:
		return checkRSA(key)
	case *ecdsa.PublicKey:
		if key == nil || key.Curve == nil || len(possible(key)) == 0 {
			return errors.New("EC key: the curve must be P-256, P-384 or P-521")
		}
		if _, err := key.ECDH(); err != nil {
			return errors.New("EC key: the point is not on its curve")
		}
		return nil
	case ed25519.PublicKey:
		return checkEd25519(key)
	case []byte:
		if len(possible(key)) == 0 {
			return fmt.Errorf("secret of %d bytes: must have at least 32", len(key))
		}
		return nil
	}
	return fmt.Errorf("key of type %T: must be RSA, EC, Ed25519 or a secret", public)
}

func checkRSA(key *rsa.PublicKey) error {
	if key == nil || key.N == nil || key.N.Sign() <= 0 {
		return errors.New("RSA key: has no modulus")
	}
	if bits := key.N.BitLen(); bits < leastRSABits || bits > mostRSABits {
		return fmt.Errorf("RSA key of %d bits: must have %d to %d", bits, leastRSABits, mostRSABits)
	}
	if key.N.Bit(0) == 0 {
		return errors.New("RSA key: the modulus is even")
	}
	if key.E < leastRSAExponent || key.E&1 == 0 || key.E > 1<<31-1 {
		return fmt.Errorf("RSA key: exponent %d: must be odd, at least %d and below 2^31", key.E, leastRSAExponent)
	}
	if hasROCAPrint(key.N) {
		return errors.New("RSA key: made by a generator whose keys can be factored (CVE-2017-15361)")
	}
	return nil
}

// hasROCAPrint reports whether the modulus is a power of 65537 modulo every
// small prime. All moduli of the broken generator are, since its primes are;
// of others one in a hundred million.
func hasROCAPrint(n *big.Int) bool {
	for p := int64(3); p <= 167; p += 2 {
		if !big.NewInt(p).ProbablyPrime(0) {
			continue
		}
		rest := new(big.Int).Mod(n, big.NewInt(p)).Int64()
		power := int64(1)
		for power != rest {
			if power = power * 65537 % p; power == 1 {
				return false
			}
		}
	}
	return true
}

// smallOrder is the y coordinates of the points of order 2, 4 and 8 besides 0
// and 1. Under such a key one signature holds for many messages, and anybody
// can make it.
var smallOrder = [...]string{
	"7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffec",
	"05fc536d880238b13933c6d305acdfd5f098eff289f4c345b027b2c28f95e826",
	"7a03ac9277fdc74ec6cc392cfa53202a0f67100d760b3cba4fd84d3d706a17c7",
}

func checkEd25519(key ed25519.PublicKey) error {
	if len(key) != ed25519.PublicKeySize {
		return fmt.Errorf("Ed25519 key of %d bytes: must have %d", len(key), ed25519.PublicKeySize)
	}
	bigEndian := slices.Clone(key)
	slices.Reverse(bigEndian)
	bigEndian[0] &= 0x7f // the top bit is the sign of x
	y := new(big.Int).SetBytes(bigEndian)
	prime := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(19))
	if y.Cmp(prime) >= 0 {
		return errors.New("Ed25519 key: not in canonical form")
	}
	if y.BitLen() <= 1 || slices.Contains(smallOrder[:], fmt.Sprintf("%064x", y)) {
		return errors.New("Ed25519 key: a point of small order")
	}
	return nil
}
