package app

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/zap"

	"github.com/moat-gateway/moat/internal/token"
	"github.com/moat-gateway/moat/internal/token/jwks"
)

// freshSet is a key set with one new key of the given ID.
func freshSet(t *testing.T, id string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	enc := base64.RawURLEncoding.EncodeToString
	return fmt.Sprintf(`{"keys":[{"kty":"EC","crv":"P-256","kid":%q,"x":%q,"y":%q}]}`, id, enc(point[1:33]), enc(point[33:]))
}

func replaceFile(t *testing.T, path, content string) {
	t.Helper()
	if err := errors.Join(os.WriteFile(path+".new", []byte(content), 0o600), os.Rename(path+".new", path)); err != nil {
		t.Fatal(err)
	}
}

func withKeys(jwks string) *App {
	return &App{Issuers: []*Issuer{{
		Name: "main", Iss: []string{"https://id.test"}, Audience: []string{"a"}, JWKS: jwks, InsecureHTTPJWKS: true,
	}}}
}

func knows(t *testing.T, a *App, kid string) bool {
	t.Helper()
	keys, err := a.keys["main"].source.Lookup(t.Context(), kid, "ES256")
	return err == nil && len(keys) == 1
}

func TestAKeySetFileIsWatchedByTheLiveAppOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	replaceFile(t, path, freshSet(t, "one"))
	first, heirApp := withKeys(path), withKeys(path)
	logs := start(t, first)
	heirLogs := start(t, heirApp)
	if !knows(t, first, "one") || !first.keys["main"].source.Ready() {
		t.Fatal("the file was not read at load")
	}
	if _, ok := first.keys["main"].source.(token.Holder); !ok {
		t.Error("the source cannot tell which keys it holds, so no token is remembered")
	}
	replaceFile(t, path, freshSet(t, "two"))
	await(t, "the new key", func() bool { return knows(t, first, "two") })
	if knows(t, first, "one") {
		t.Error("the withdrawn key still counts")
	}
	await(t, "the event", func() bool { return written(logs, `"keys.changed"`) == 1 })
	if n := logs.FilterMessage("the key set in force").FilterField(zap.String("file", path)).Len(); n != 1 {
		t.Errorf("%d lines in the log, want 1", n)
	}
	replaceFile(t, path, "{}")
	await(t, "the second event", func() bool { return written(logs, `"keys.changed"`) == 2 })
	if n := logs.FilterMessage("a changed key set file was refused; the old keys stay in force").FilterLevelExact(zap.ErrorLevel).Len(); n != 1 || !knows(t, first, "two") {
		t.Errorf("%d lines in the log, want 1; or the old keys did not stay", n)
	}
	if knows(t, heirApp, "two") || written(heirLogs, `"keys.changed"`) != 0 {
		t.Error("an app that may still fail looked at the file")
	}
	// What changed before it became the live one is made up for.
	end(t, first)
	replaceFile(t, path, freshSet(t, "three"))
	await(t, "the next app to look", func() bool { return knows(t, heirApp, "three") })
	await(t, "its event", func() bool { return written(heirLogs, `"keys.changed"`) >= 1 })
	end(t, heirApp)
	if knows(t, first, "three") {
		t.Error("an app that has ended looked at the file")
	}
}

func TestABadKeySetFileFailsTheLoadWithItsPlace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	replaceFile(t, path, "{}")
	a := withKeys(path)
	err := provision(t, a)
	end(t, a)
	if err == nil || !strings.Contains(err.Error(), `issuer "main": jwks: `+path) {
		t.Errorf("error %v", err)
	}
}

func TestAReloadFetchesNothing(t *testing.T) {
	var hits atomic.Int64
	set := freshSet(t, "one")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		hits.Add(1)
		_, _ = w.Write([]byte(set))
	}))
	t.Cleanup(server.Close)
	last := withKeys(server.URL)
	start(t, last)
	await(t, "the first set", last.keys["main"].source.Ready)
	server.Close() // The issuer may be down at that moment.
	for range 3 {
		next := withKeys(server.URL)
		start(t, next)
		end(t, last)
		if !knows(t, next, "one") {
			t.Fatal("the keys did not survive the reload")
		}
		last = next
	}
	if n := hits.Load(); n != 1 {
		t.Errorf("%d fetches, want 1", n)
	}
}

func TestLoadingDoesNotWaitForKeys(t *testing.T) {
	block := make(chan struct{})
	var hits atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		hits.Add(1)
		<-block
	}))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(block) }) // First.
	a := withKeys(server.URL)
	if err := provision(t, a); err != nil {
		t.Fatal(err)
	}
	end(t, a)
	if n := hits.Load(); n != 0 {
		t.Errorf("loading fetched %d times", n)
	}
	b := withKeys(server.URL)
	start(t, b) // It would hang here.
	if b.keys["main"].source.Ready() {
		t.Error("ready without keys")
	}
}

func TestTroubleWithKeysIsLogged(t *testing.T) {
	// An issuer of its own: a fetch of another test may end only now.
	a := new(App)
	logs := start(t, a)
	keysChanged("troubled", jwks.Event{Keys: 2, Added: []string{"one", "two"}})
	keysChanged("troubled", jwks.Event{Keys: 2, Err: errors.New("status 500")})
	keysChanged("troubled", jwks.Event{Err: errors.New("status 500")})
	for level, text := range map[string]string{
		"info": "the key set in force", "warn": "the last good set goes on serving", "error": "tokens of the issuer get 503",
	} {
		found := 0
		for _, entry := range logs.All() {
			if entry.Level.String() == level && strings.Contains(entry.Message, text) && entry.ContextMap()["issuer"] == "troubled" {
				found++
			}
		}
		if found != 1 {
			t.Errorf("%d lines %q at level %s, want 1", found, text, level)
		}
	}
	if n := written(logs, `"keys.changed","resource":"troubled"`); n != 3 {
		t.Errorf("%d events, want 3", n)
	}
}
