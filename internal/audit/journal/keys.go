package journal

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// maxKeyFile bounds a key file, in bytes.
const maxKeyFile = 64 << 10

// PublicSuffix is appended to a key file's name for the file with the public key
// of the current one.
const PublicSuffix = ".pub"

// KeyID names a public key: the first half of its SHA-256, in hex.
func KeyID(key ed25519.PublicKey) string {
	sum := sha256.Sum256(key)
	return hex.EncodeToString(sum[:16])
}

// signer holds the keys of a journal: the one that signs, and earlier ones, which
// vouch for it when the trail still goes by one of them.
type signer struct {
	current ed25519.PrivateKey
	earlier []ed25519.PrivateKey
}

func (s *signer) public() ed25519.PublicKey { return s.current.Public().(ed25519.PublicKey) }

// find returns the private key of a public one, if it is among the earlier ones.
func (s *signer) find(key ed25519.PublicKey) ed25519.PrivateKey {
	for _, k := range s.earlier {
		if key.Equal(k.Public()) {
			return k
		}
	}
	return nil
}

// openKeys reads a key file, or makes one. Beside it lies the public key, for
// whoever verifies.
func openKeys(path string) (*signer, error) {
	keys, err := readKeys(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err = createKey(path); err == nil {
			keys, err = readKeys(path)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("journal: key file %q: %w", path, err)
	}
	s := &signer{current: keys[0], earlier: keys[1:]}
	if err := exportKey(path+PublicSuffix, s.public()); err != nil {
		return nil, fmt.Errorf("journal: key file %q: %w", path, err)
	}
	return s, nil
}

func readKeys(path string) ([]ed25519.PrivateKey, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("mode %04o: must be readable by its owner only, as by chmod 600", info.Mode().Perm())
	}
	if info.Size() > maxKeyFile {
		return nil, fmt.Errorf("%d bytes: must be at most %d", info.Size(), maxKeyFile)
	}
	data, err := os.ReadFile(path) // #nosec G304 -- the configured file
	if err != nil {
		return nil, err
	}
	var keys []ed25519.PrivateKey
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		key, ok := parsed.(ed25519.PrivateKey)
		if err != nil || !ok {
			return nil, errors.New("must hold Ed25519 keys only, PEM-encoded PKCS #8")
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, errors.New("holds no key: must be PEM-encoded PKCS #8")
	}
	return keys, nil
}

// createKey never replaces a file: what is signed already would lose its key.
func createKey(path string) error {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) // #nosec G304 -- as above
	if err != nil {
		return err
	}
	err = pem.Encode(f, &pem.Block{Type: "PRIVATE KEY", Bytes: der})
	// Lost in a crash it would leave signatures that nobody can add to.
	return errors.Join(err, f.Sync(), f.Close(), osFiles{}.SyncDir(filepath.Dir(path)))
}

func exportKey(path string, key ed25519.PublicKey) error {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	if old, err := os.ReadFile(path); err == nil && string(old) == string(text) { // #nosec G304 -- as above
		return nil
	}
	return os.WriteFile(path, text, 0o644) // #nosec G306 -- a public key
}

// ReadPublicKey reads a PEM file with an Ed25519 public key, such as the one
// beside a journal's key file.
func ReadPublicKey(path string) (ed25519.PublicKey, error) {
	data, err := os.ReadFile(path) // #nosec G304 -- given by the operator
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("%s: must hold a PEM-encoded public key", path)
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	key, ok := parsed.(ed25519.PublicKey)
	if err != nil || !ok {
		return nil, fmt.Errorf("%s: must hold an Ed25519 public key", path)
	}
	return key, nil
}

func encodeKey(key ed25519.PublicKey) string { return base64.StdEncoding.EncodeToString(key) }

// decodeKey is nil for what is no key.
func decodeKey(text string) ed25519.PublicKey {
	key, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(key) != ed25519.PublicKeySize {
		return nil
	}
	return key
}
