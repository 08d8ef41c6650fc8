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
)

var keySetLimits = jsonLimits{depth: 16, nodes: 10_000}

// errSkip marks a key that is not for us: of another use, type or strength.
var errSkip = errors.New("not usable")

// ParseJWKS reads a key set (RFC 7517 section 5) and returns the keys signatures
// can be checked with. A key's own alg stays; without one it has the default of
// its type.
//
// Keys of an unknown type, curve or algorithm, keys not meant for signatures
// and keys too weak to trust are left out. The whole set is refused when it is
// over 1 MiB or 100 keys, is not strict JSON, has a damaged key, a kid twice, a
// private or a shared key, or no key that is left.
func ParseJWKS(data []byte) ([]Key, error) {
	if len(data) > maxKeyFile {
		return nil, fmt.Errorf("token: key set of %d bytes: at most %d", len(data), maxKeyFile)
	}
	object, err := decodeObject(string(data), keySetLimits)
	if err != nil {
		return nil, fmt.Errorf("token: key set: %w", err)
	}
	entries, ok := object["keys"].([]any)
	if !ok {
		return nil, errors.New("token: key set: has no array named keys")
	}
	if len(entries) > maxKeys {
		return nil, fmt.Errorf("token: key set: %d keys, at most %d", len(entries), maxKeys)
	}
	var keys []Key
	var errs, skipped []error
	for i, entry := range entries {
		key, err := jwkKey(entry)
		switch {
		case err == nil:
			keys = append(keys, key)
		case errors.Is(err, errSkip):
			skipped = append(skipped, fmt.Errorf("key %d: %w", i+1, err))
		default:
			errs = append(errs, fmt.Errorf("key %d: %w", i+1, err))
		}
	}
	errs = append(errs, checkUnique(keys))
	if len(keys) == 0 {
		errs = append(errs, errors.New("no usable key"))
		errs = append(errs, skipped...)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("token: key set: %w", err)
	}
	return keys, nil
}

func checkUnique(keys []Key) error {
	seen := map[string]bool{}
	for _, key := range keys {
		if key.ID != "" && seen[key.ID] {
			return fmt.Errorf("kid %q: stands twice", key.ID)
		}
		seen[key.ID] = true
	}
	return nil
}

// privateMembers of RFC 7518 sections 6.2 to 6.4 and of later key types.
var privateMembers = []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"}

func jwkKey(entry any) (Key, error) {
	jwk, ok := entry.(map[string]any)
	if !ok {
		return Key{}, errors.New("is no object")
	}
	for _, name := range privateMembers {
		if _, ok := jwk[name]; ok {
			return Key{}, fmt.Errorf("has the secret member %q: whoever can read this set can sign", name)
		}
	}
	if err := checkPurpose(jwk); err != nil {
		return Key{}, err
	}
	var key Key
	if value, ok := jwk["kid"]; ok {
		if key.ID, _ = value.(string); !printable(key.ID, 256) {
			return Key{}, errors.New("kid: must be a string of 1 to 256 printable bytes")
		}
	}
	var err error
	if key.Public, err = jwkPublic(jwk); err != nil {
		return Key{}, err
	}
	if err := checkStrength(key.Public); err != nil {
		return Key{}, fmt.Errorf("%w: %w", errSkip, err)
	}
	return key.withOwnAlgorithm(jwk)
}

// checkPurpose skips keys that are not meant for checking signatures.
func checkPurpose(jwk map[string]any) error {
	if use, ok := jwk["use"]; ok && use != "sig" {
		return fmt.Errorf("%w: use is not sig", errSkip)
	}
	value, ok := jwk["key_ops"]
	if !ok {
		return nil
	}
	ops, ok := value.([]any)
	if !ok {
		return errors.New("key_ops: must be an array")
	}
	if !slices.Contains(ops, any("verify")) {
		return fmt.Errorf("%w: key_ops lacks verify", errSkip)
	}
	return nil
}

func (k Key) withOwnAlgorithm(jwk map[string]any) (Key, error) {
	fitting := possible(k.Public)
	k.Algorithm = fitting[0]
	value, ok := jwk["alg"]
	if !ok {
		return k, nil
	}
	alg, ok := value.(string)
	if !ok {
		return Key{}, errors.New("alg: must be a string")
	}
	if _, known := findAlgorithm(alg); !known {
		return Key{}, fmt.Errorf("%w: alg is not known", errSkip)
	}
	if !slices.Contains(fitting, alg) {
		return Key{}, fmt.Errorf("alg %q: does not fit the key", alg)
	}
	k.Algorithm, k.pinned = alg, true
	return k, nil
}

func jwkPublic(jwk map[string]any) (any, error) {
	switch jwk["kty"] {
	case "RSA":
		return jwkRSA(jwk)
	case "EC":
		return jwkEC(jwk)
	case "OKP":
		return jwkOKP(jwk)
	case "oct":
		return nil, errors.New("is a shared secret, which has no place in a key set")
	}
	if _, ok := jwk["kty"].(string); !ok {
		return nil, errors.New("kty: must be a string")
	}
	return nil, fmt.Errorf("%w: kty is not known", errSkip)
}

// member decodes a base64url member (RFC 7518 section 2).
func member(jwk map[string]any, name string) ([]byte, error) {
	s, _ := jwk[name].(string)
	b, ok := decodePart(s)
	if !ok {
		return nil, fmt.Errorf("%s: must be base64url", name)
	}
	return b, nil
}

func jwkRSA(jwk map[string]any) (any, error) {
	n, errN := member(jwk, "n")
	e, errE := member(jwk, "e")
	if err := errors.Join(errN, errE); err != nil {
		return nil, err
	}
	exponent := new(big.Int).SetBytes(e)
	if exponent.BitLen() > 31 {
		return nil, fmt.Errorf("%w: RSA exponent of %d bits", errSkip, exponent.BitLen())
	}
	return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(exponent.Int64())}, nil
}

func jwkEC(jwk map[string]any) (any, error) {
	var curve elliptic.Curve
	switch jwk["crv"] {
	case "P-256":
		curve = elliptic.P256()
	case "P-384":
		curve = elliptic.P384()
	case "P-521":
		curve = elliptic.P521()
	default:
		return nil, fmt.Errorf("%w: crv is not known", errSkip)
	}
	x, errX := member(jwk, "x")
	y, errY := member(jwk, "y")
	if err := errors.Join(errX, errY); err != nil {
		return nil, err
	}
	// RFC 7518 section 6.2.1.2: both in full length.
	if size := (curve.Params().BitSize + 7) / 8; len(x) != size || len(y) != size {
		return nil, fmt.Errorf("x and y: must have %d bytes", size)
	}
	public, err := ecdsa.ParseUncompressedPublicKey(curve, slices.Concat([]byte{4}, x, y))
	if err != nil {
		return nil, errors.New("x and y: are no point of the curve")
	}
	return public, nil
}

func jwkOKP(jwk map[string]any) (any, error) {
	if jwk["crv"] != "Ed25519" {
		return nil, fmt.Errorf("%w: crv is not known", errSkip)
	}
	x, err := member(jwk, "x")
	if err != nil {
		return nil, err
	}
	if len(x) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("x: must have %d bytes", ed25519.PublicKeySize)
	}
	return ed25519.PublicKey(x), nil
}
