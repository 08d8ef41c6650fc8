package jwks

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"slices"

	"github.com/moat-gateway/moat/internal/token"
)

// Event is a change of the set or of whether it can be had.
type Event struct {
	// Err is why a set was refused or could not be fetched; nil when the set in
	// force is the newest. It holds no credentials of a URL, and of an answer at
	// most IDs and algorithms of keys.
	Err error
	// Keys is the number of keys in force, zero when there are none that may be
	// used.
	Keys int
	// Added and Removed are the IDs of keys that came and went, sorted. A key
	// that another one replaced under its ID is in both. A key without ID is
	// named by its hash.
	Added, Removed []string
}

// loaded is a set that was read, with what is needed to compare it.
type loaded struct {
	keys  *token.KeySet
	names map[string]string // by the hash of key and ID
	count int
}

// load reads a key set and binds its keys.
func load(data []byte, algorithms []string) (*loaded, error) {
	keys, err := token.ParseJWKS(data)
	if err != nil {
		return nil, err
	}
	set, err := token.NewKeySet(keys, algorithms)
	if err != nil {
		return nil, err
	}
	l := &loaded{keys: set, names: make(map[string]string, len(keys)), count: len(keys)}
	for _, k := range keys {
		der, err := x509.MarshalPKIXPublicKey(k.Public)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(der)
		hash := hex.EncodeToString(sum[:])
		name := k.ID
		if name == "" {
			name = "sha256:" + hash[:16]
		}
		l.names[k.ID+" "+k.Algorithm+" "+hash] = name
	}
	return l, nil
}

// changes tells which keys came and went; nil when none did.
func changes(before, after *loaded) *Event {
	if before == nil {
		before = &loaded{}
	}
	e := &Event{Keys: after.count, Added: missing(after, before), Removed: missing(before, after)}
	if len(e.Added)+len(e.Removed) == 0 {
		return nil
	}
	return e
}

// missing returns the names of the keys of one set that another lacks.
func missing(of, in *loaded) []string {
	var names []string
	for key, name := range of.names {
		if _, ok := in.names[key]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
