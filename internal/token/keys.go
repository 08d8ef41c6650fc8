package token

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Key is one key and the one algorithm it may be used with. It prints and
// marshals as its ID and algorithm only.
type Key struct {
	// ID is what a token's kid must equal. Empty when the key has no name.
	ID string
	// Algorithm is the value of alg the key is bound to. Empty: the default of
	// the key's type, RS256, ES256, ES384, ES512, EdDSA or HS256.
	Algorithm string
	// Public is an *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey, or the
	// []byte of a shared secret.
	Public any

	// pinned says that Algorithm was stated by whoever published the key, so
	// that a list of algorithms may drop the key but not rebind it.
	pinned bool
	// print identifies the key together with its ID and algorithm.
	print [sha256.Size]byte
}

// Format writes the ID and the algorithm whatever the verb, so that a secret
// does not leak through a log line.
func (k Key) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, fmt.Sprintf("key %q (%s)", k.ID, k.Algorithm))
}

// MarshalJSON writes the ID and the algorithm, never the key.
func (k Key) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string]string{"kid": k.ID, "alg": k.Algorithm})
}

// KeySource offers the keys of one issuer. It is used by many goroutines.
type KeySource interface {
	// Lookup returns the keys a token with this kid and alg may be signed with:
	// those of that ID, or with an empty kid those bound to alg. It may return
	// keys of other algorithms, which are not tried. No key and no error means
	// that there is none; an error, best ErrKeysUnavailable, that nobody can
	// tell. It must return when ctx ends, and offer only keys that ParsePEM,
	// ParseJWKS or a KeySet has checked.
	Lookup(ctx context.Context, kid, alg string) ([]Key, error)
	// Ready reports whether keys have been loaded.
	Ready() bool
}

// maxTries is how many keys are tried for one token. More would let a token
// without kid buy any amount of arithmetic.
const maxTries = 4

// KeySet is a fixed set of checked keys. It is a KeySource that never fails.
// The zero KeySet has no keys.
type KeySet struct {
	byID   map[string][]Key
	all    []Key
	prints map[[sha256.Size]byte]bool
	local  bool
}

// NewStaticKeys returns a source of keys the operator wrote down. Each key must
// be strong enough, IDs must be unique, and secrets and public keys do not mix.
//
// Without algorithms each key serves its own one. With algorithms, a key that
// has only the default of its type is bound to each listed algorithm that fits
// the type, as if it stood there once for each, while one that states another,
// or whose JWK states any, keeps it. A key that serves none of the algorithms,
// and an algorithm that no key serves, is an error.
//
// Keys without ID are candidates whatever a token's kid says, at most four for
// one algorithm.
func NewStaticKeys(keys []Key, algorithms []string) (KeySource, error) {
	set, err := bind(keys, algorithms, true)
	if err != nil {
		return nil, err
	}
	return set, nil
}

// NewKeySet returns the keys of a remote issuer, as ParseJWKS reads them, bound
// as NewStaticKeys does, except that keys that fit none of the algorithms are
// left out and secrets are refused. No key left is an error. Keys without ID
// are candidates for tokens without kid only.
func NewKeySet(keys []Key, algorithms []string) (*KeySet, error) {
	return bind(keys, algorithms, false)
}

func bind(keys []Key, algorithms []string, local bool) (*KeySet, error) {
	errs := []error{checkAlgorithms(algorithms)}
	set := &KeySet{byID: map[string][]Key{}, local: local}
	seen := map[string]bool{}
	for i, key := range keys {
		bound, err := key.bind(algorithms)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("key %d: %w", i+1, err))
		case key.ID != "" && seen[key.ID]:
			errs = append(errs, fmt.Errorf("key %d: ID %q stands twice", i+1, key.ID))
		case local && len(bound) == 0:
			errs = append(errs, fmt.Errorf("key %d: serves none of the algorithms %q", i+1, algorithms))
		}
		seen[key.ID] = true
		set.all = append(set.all, bound...)
	}
	if len(set.all) == 0 {
		errs = append(errs, errors.New("no usable key"))
	}
	set.prints = make(map[[sha256.Size]byte]bool, len(set.all))
	for i := range set.all {
		key := &set.all[i]
		key.print = key.thumbprint()
		set.prints[key.print] = true
		set.byID[key.ID] = append(set.byID[key.ID], *key)
	}
	errs = append(errs, set.check(algorithms))
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("token: keys: %w", err)
	}
	return set, nil
}

// bind returns the key once for each algorithm it shall serve.
func (k Key) bind(algorithms []string) ([]Key, error) {
	if secret, ok := k.Public.([]byte); ok {
		k.Public = bytes.Clone(secret)
	}
	if err := checkStrength(k.Public); err != nil {
		return nil, err
	}
	fitting := possible(k.Public)
	if k.Algorithm == "" {
		k.Algorithm = fitting[0]
	}
	if !slices.Contains(fitting, k.Algorithm) {
		return nil, fmt.Errorf("algorithm %q: the key fits %q only", k.Algorithm, fitting)
	}
	if len(algorithms) == 0 {
		return []Key{k}, nil
	}
	if k.pinned || k.Algorithm != fitting[0] {
		fitting = []string{k.Algorithm}
	}
	var bound []Key
	for _, name := range fitting {
		if slices.Contains(algorithms, name) {
			k.Algorithm = name
			bound = append(bound, k)
		}
	}
	return bound, nil
}

// check looks at the set as a whole.
func (s *KeySet) check(algorithms []string) error {
	var errs []error
	served := s.algorithms()
	if err := checkAlgorithms(served); err != nil {
		errs = append(errs, errors.New("secrets must not stand beside public keys"))
	}
	if !s.local {
		if slices.ContainsFunc(served, isSecretAlgorithm) {
			errs = append(errs, errors.New("a secret must not come from a key server"))
		}
		return errors.Join(errs...)
	}
	for _, name := range algorithms {
		if len(s.all) > 0 && !slices.Contains(served, name) {
			errs = append(errs, fmt.Errorf("algorithm %q: no key serves it", name))
		}
	}
	for _, name := range served {
		if n := len(serving(s.byID[""], name)); n > maxTries {
			errs = append(errs, fmt.Errorf("%d keys without ID for algorithm %q: at most %d are tried", n, name, maxTries))
		}
	}
	return errors.Join(errs...)
}

func isSecretAlgorithm(name string) bool {
	a, ok := findAlgorithm(name)
	return ok && a.family == familySecret
}

// algorithms returns the distinct algorithms of the keys.
func (s *KeySet) algorithms() []string {
	var names []string
	for _, key := range s.all {
		if !slices.Contains(names, key.Algorithm) {
			names = append(names, key.Algorithm)
		}
	}
	return names
}

func serving(keys []Key, algorithm string) []Key {
	var out []Key
	for _, key := range keys {
		if key.Algorithm == algorithm {
			out = append(out, key)
		}
	}
	return out
}

// Lookup implements KeySource. Callers must not change what it returns.
func (s *KeySet) Lookup(_ context.Context, kid, alg string) ([]Key, error) {
	if kid == "" {
		return serving(s.all, alg), nil
	}
	if keys := s.byID[kid]; len(keys) > 0 {
		return keys, nil
	}
	if s.local {
		return s.byID[""], nil
	}
	return nil, nil
}

// Ready implements KeySource.
func (s *KeySet) Ready() bool { return len(s.all) > 0 }

// Holds implements Holder.
func (s *KeySet) Holds(print [sha256.Size]byte) bool { return s.prints[print] }

// thumbprint identifies a checked key together with its ID and algorithm.
func (k Key) thumbprint() [sha256.Size]byte {
	material, secret := k.Public.([]byte)
	if !secret {
		var err error
		if material, err = x509.MarshalPKIXPublicKey(k.Public); err != nil {
			panic("token: a checked key has an encoding: " + err.Error())
		}
	}
	sum := sha256.New()
	_, _ = fmt.Fprintf(sum, "%q %q %t ", k.ID, k.Algorithm, secret)
	sum.Write(material)
	return [sha256.Size]byte(sum.Sum(nil))
}

// Len returns the number of keys, a key counted once for each algorithm.
func (s *KeySet) Len() int { return len(s.all) }

// Format writes the number of keys whatever the verb, so that a secret does not
// leak through a log line.
func (s *KeySet) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, fmt.Sprintf("%d keys", len(s.all)))
}

// NewSecret returns a key for one of the HS algorithms; an empty alg means
// HS256. The secret must be at least as long as the hash: 32, 48 or 64 bytes
// (RFC 7518 section 3.2).
func NewSecret(secret []byte, alg string) (Key, error) {
	if alg == "" {
		alg = "HS256"
	}
	a, ok := findAlgorithm(alg)
	if !ok || a.family != familySecret {
		return Key{}, fmt.Errorf("token: secret: algorithm %q: must be HS256, HS384 or HS512", alg)
	}
	if len(secret) < a.secret {
		return Key{}, fmt.Errorf("token: secret of %d bytes: %s needs at least %d", len(secret), alg, a.secret)
	}
	if bytes.Contains(secret, []byte("-----BEGIN ")) {
		return Key{}, errors.New("token: secret: is a PEM file; name it as a key instead, a public key is no secret")
	}
	return Key{Algorithm: alg, Public: bytes.Clone(secret)}, nil
}
