package audit

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// Kinds of values that Pseudonyms can replace.
const (
	KindIP   = "ip"
	KindUser = "user"
)

// MinPseudonymKey is the shortest key of Pseudonyms, in bytes.
const MinPseudonymKey = 32

// pseudonymMark begins every pseudonym, so that a reader sees what it is.
const pseudonymMark = "p:"

// Pseudonyms replaces values that say who somebody is by keyed hashes: one value
// always has the same pseudonym, so what belongs together stays together, and
// without the key nobody gets from one to the other. Who destroys the key makes
// the trail anonymous. The nil Pseudonyms replaces nothing. Safe for concurrent
// use.
type Pseudonyms struct {
	kinds []string
	macs  sync.Pool
}

// NewPseudonyms replaces values of the given kinds, KindIP or KindUser.
func NewPseudonyms(key []byte, kinds ...string) (*Pseudonyms, error) {
	if len(key) < MinPseudonymKey {
		return nil, fmt.Errorf("the key has %d bytes; it must have at least %d", len(key), MinPseudonymKey)
	}
	for _, kind := range kinds {
		if kind != KindIP && kind != KindUser {
			return nil, fmt.Errorf("kind %.32q: must be %s or %s", kind, KindIP, KindUser)
		}
	}
	key = bytes.Clone(key)
	p := &Pseudonyms{kinds: slices.Clone(kinds)}
	p.macs.New = func() any { return hmac.New(sha256.New, key) }
	return p, nil
}

// Of returns what stands in the trail for a value of a kind: the value itself
// when it is empty or the kind is not replaced, else "p:" and the first 32 hex
// digits of HMAC-SHA256(key, kind, NUL, value).
func (p *Pseudonyms) Of(kind, value string) string {
	if p == nil || value == "" || !slices.Contains(p.kinds, kind) {
		return value
	}
	return p.hash(kind, value)
}

func (p *Pseudonyms) hash(kind, value string) string {
	mac, _ := p.macs.Get().(hash.Hash)
	defer p.macs.Put(mac)
	mac.Reset()
	var room [320]byte
	message := append(append(append(room[:0], kind...), 0), value...)
	_, _ = mac.Write(message) // A hash takes everything.
	var sum [sha256.Size]byte
	mac.Sum(sum[:0])
	var text [len(pseudonymMark) + sha256.Size]byte
	copy(text[:], pseudonymMark)
	hex.Encode(text[len(pseudonymMark):], sum[:sha256.Size/2])
	return string(text[:])
}

// Veil returns e as it is to be written: with pseudonyms in place of its address
// and its user. E itself stays as it is, and a flood of refusals is still told by
// the address. Veil on nil returns e.
func (p *Pseudonyms) Veil(e *Event) *Event {
	if p == nil {
		return e
	}
	veiled := *e
	veiled.veil = p
	return &veiled
}

// ParsePseudonymKey reads the content of a key file: hex or base64 of at least 32
// bytes, or else at least 32 bytes as they are. White space around it is no part of
// a text.
func ParsePseudonymKey(data []byte) ([]byte, error) {
	text := string(bytes.TrimSpace(data))
	for _, decode := range []func(string) ([]byte, error){
		hex.DecodeString, base64.StdEncoding.DecodeString, base64.RawURLEncoding.DecodeString,
	} {
		if key, err := decode(text); err == nil && len(key) >= MinPseudonymKey {
			return key, nil
		}
	}
	if len(data) < MinPseudonymKey {
		return nil, fmt.Errorf("has %d bytes; a key is at least %d bytes, raw, base64 or hex", len(data), MinPseudonymKey)
	}
	return data, nil
}

// ReadPseudonymKey reads a key file.
func ReadPseudonymKey(file string) ([]byte, error) {
	data, err := os.ReadFile(file) //nolint:gosec // The operator names it.
	if err != nil {
		return nil, err
	}
	key, err := ParsePseudonymKey(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return key, nil
}

// EnsurePseudonymKey reads a key file, which it first creates with mode 0600 and a
// random key when there is none.
func EnsurePseudonymKey(file string) ([]byte, error) {
	key, err := ReadPseudonymKey(file)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if err := createPseudonymKey(file); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return ReadPseudonymKey(file)
}

// createPseudonymKey makes the file appear with its whole content, so that another
// gateway that starts at the same time never reads half a key.
func createPseudonymKey(file string) error {
	var key [MinPseudonymKey]byte
	_, _ = rand.Read(key[:]) // It never fails: without randomness the runtime ends the process.
	f, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() //nolint:gosec // The name is of CreateTemp.
	_, err = f.WriteString(base64.StdEncoding.EncodeToString(key[:]) + "\n")
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Link(f.Name(), file)
}
