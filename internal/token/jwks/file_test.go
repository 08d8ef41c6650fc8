package jwks_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/token"
	"github.com/moat-gateway/moat/internal/token/jwks"
)

// kept is a file with a key set that is looked at by hand.
type kept struct {
	*jwks.File
	path   string
	clock  time.Time
	events []jwks.Event
}

func keep(t *testing.T, content string, algorithms ...string) *kept {
	t.Helper()
	k := &kept{path: filepath.Join(t.TempDir(), "keys.json"), clock: time.Now()}
	k.write(t, content)
	var err error
	k.File, err = jwks.OpenFile(jwks.FileConfig{
		Path: k.path, Algorithms: algorithms, OnEvent: func(e jwks.Event) { k.events = append(k.events, e) },
	})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (k *kept) write(t *testing.T, content string) {
	t.Helper()
	k.clock = k.clock.Add(time.Second)
	if err := errors.Join(os.WriteFile(k.path, []byte(content), 0o600), os.Chtimes(k.path, k.clock, k.clock)); err != nil {
		t.Fatal(err)
	}
}

// told looks at the file often enough and returns what was told.
func (k *kept) told() []jwks.Event {
	k.events = nil
	for range 4 {
		k.Check()
	}
	return k.events
}

func (k *kept) has(t *testing.T, kid string) bool {
	t.Helper()
	keys, err := k.Lookup(t.Context(), kid, "ES256")
	if err != nil || !k.Ready() {
		t.Errorf("%s: %v, ready %v", kid, err, k.Ready())
	}
	return len(keys) == 1
}

func TestANewKeySetFileReplacesTheSetAsAWhole(t *testing.T) {
	a, b, c := newKey(t, "a"), newKey(t, "b"), newKey(t, "c")
	k := keep(t, setOf(a, b))
	if e := k.told(); len(e) != 0 || !k.has(t, "a") || !k.has(t, "b") {
		t.Fatalf("the file at load: told %+v", e)
	}
	k.write(t, setOf(b, c))
	if e := k.told(); len(e) != 1 || e[0].Err != nil || e[0].Keys != 2 || fmt.Sprint(e[0].Added, e[0].Removed) != "[c] [a]" {
		t.Errorf("told %+v", e)
	}
	if k.has(t, "a") || !k.has(t, "b") || !k.has(t, "c") {
		t.Error("the set was not replaced as a whole")
	}
	k.write(t, " "+setOf(b, c))
	if e := k.told(); len(e) != 0 {
		t.Errorf("the same keys otherwise written: told %+v", e)
	}
}

func TestABadKeySetFileLeavesTheOldKeys(t *testing.T) {
	a := newKey(t, "a")
	for name, content := range map[string]string{
		"empty":          "",
		"half":           setOf(a)[:20],
		"no keys":        `{"keys":[]}`,
		"duplicate kids": setOf(a, newKey(t, "a")),
		"a secret":       `{"keys":[{"kty":"oct","k":"hunter2"}]}`,
		"a private key":  strings.Replace(setOf(newKey(t, "b")), `"kty"`, `"d":"hunter2","kty"`, 1),
		"2 MiB":          setOf(a) + strings.Repeat(" ", 2<<20),
		"no ES256 key":   strings.Replace(setOf(newKey(t, "b")), `"kty"`, `"use":"enc","kty"`, 1),
	} {
		t.Run(name, func(t *testing.T) {
			k := keep(t, setOf(a), "ES256")
			k.write(t, content)
			if e := k.told(); len(e) != 1 || e[0].Err == nil || e[0].Keys != 1 || strings.Contains(e[0].Err.Error(), "hunter2") {
				t.Errorf("told %+v", e)
			}
			if e := k.told(); len(e) != 0 || !k.has(t, "a") || k.has(t, "b") {
				t.Errorf("told again %+v, or not the old keys", e)
			}
		})
	}
	k := keep(t, setOf(a))
	if err := os.Remove(k.path); err != nil {
		t.Fatal(err)
	}
	if e := k.told(); len(e) != 1 || !errors.Is(e[0].Err, os.ErrNotExist) || !k.has(t, "a") {
		t.Errorf("a file that is gone: told %+v", e)
	}
	k.write(t, setOf(newKey(t, "b")))
	if e := k.told(); len(e) != 1 || e[0].Err != nil || k.has(t, "a") || !k.has(t, "b") {
		t.Errorf("a file that is back: told %+v", e)
	}
}

func TestABadFileIsAnErrorAtLoad(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{"bad.json": "{}", "large.json": setOf(newKey(t, "a")) + strings.Repeat(" ", 2<<20)} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := jwks.OpenFile(jwks.FileConfig{Path: path}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, path := range []string{filepath.Join(dir, "none.json"), dir} {
		if _, err := jwks.OpenFile(jwks.FileConfig{Path: path}); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
	path := filepath.Join(dir, "algorithms.json")
	if err := os.WriteFile(path, []byte(setOf(newKey(t, "a"))), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := jwks.OpenFile(jwks.FileConfig{Path: path, Algorithms: []string{"RS256"}}); err == nil {
		t.Error("a set without a key for the algorithms was accepted")
	}
}

// asked notes the prints that a verifier asks for.
type asked struct {
	token.KeySource
	prints [][sha256.Size]byte
}

func (a *asked) Holds(print [sha256.Size]byte) bool {
	a.prints = append(a.prints, print)
	return a.KeySource.(token.Holder).Holds(print)
}

// printOf is the print of the key under which the source accepts a token.
func printOf(t *testing.T, source token.KeySource, k key) [sha256.Size]byte {
	t.Helper()
	spy := &asked{KeySource: source}
	v, err := token.NewVerifier(token.Config{
		Name: "main", Issuers: []string{"https://id.test"}, Audience: []string{"api"}, Keys: spy,
		KnownRole: func(string) bool { return true },
	})
	if err != nil {
		t.Fatal(err)
	}
	set, err := token.NewSet(v)
	if err != nil {
		t.Fatal(err)
	}
	set.Remember(token.NewCache(0))
	now := time.Now()
	raw, err := token.Sign(map[string]any{
		"iss": "https://id.test", "aud": "api", "sub": "u-1", "tenant_id": "t-1", "roles": []string{"user"},
		"iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	}, map[string]any{"kid": k.id}, k.private, "ES256")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := set.Verify(t.Context(), raw); err != nil {
			t.Fatal(err)
		}
	}
	if len(spy.prints) == 0 {
		t.Fatal("nobody asked for the key's print")
	}
	return spy.prints[0]
}

func TestASetHoldsItsOwnKeysOnly(t *testing.T) {
	a, b := newKey(t, "a"), newKey(t, "b")
	s := newServer(t, text(setOf(a)))
	source, clock := open(t, s, func(c *jwks.Config) { c.MaxStale = time.Hour })
	file := keep(t, setOf(a))
	print := printOf(t, file, a)
	if source.Holds(print) {
		t.Error("a set that was never fetched holds a key")
	}
	if got := printOf(t, source, a); got != print || !source.Holds(print) || !file.Holds(print) {
		t.Error("a key of the set is not held")
	}
	if source.Holds([sha256.Size]byte{}) || file.Holds([sha256.Size]byte{}) {
		t.Error("a key that is not in the set is held")
	}
	clock.advance(time.Hour + time.Second)
	if source.Holds(print) {
		t.Error("a set that is too old holds a key")
	}
	_, _ = lookup(t, source, "a")
	if !source.Holds(print) {
		t.Error("the key is not held after the set was fetched again")
	}
	s.now(text(setOf(b)))
	clock.advance(31 * time.Second)
	_, _ = lookup(t, source, "b")
	file.write(t, setOf(b))
	file.told()
	if source.Holds(print) || file.Holds(print) {
		t.Error("a withdrawn key is held")
	}
}
