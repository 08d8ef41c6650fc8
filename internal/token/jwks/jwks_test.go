package jwks_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/token"
	"github.com/moat-gateway/moat/internal/token/jwks"
)

// server is a real key server whose answer can be changed.
type server struct {
	*httptest.Server
	hits   atomic.Int64
	mu     sync.Mutex
	answer http.HandlerFunc
}

func newServer(t *testing.T, answer http.HandlerFunc) *server {
	t.Helper()
	s := &server{answer: answer}
	s.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.hits.Add(1)
		s.mu.Lock()
		answer := s.answer
		s.mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	return s
}

func (s *server) now(answer http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

// keySet answers with fresh P-256 keys of the given IDs.
func keySet(t *testing.T, ids ...string) http.HandlerFunc {
	t.Helper()
	var members []string
	for _, id := range ids {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		point, err := key.PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		enc := base64.RawURLEncoding.EncodeToString
		members = append(members, fmt.Sprintf(`{"kty":"EC","crv":"P-256","kid":%q,"x":%q,"y":%q}`, id, enc(point[1:33]), enc(point[33:])))
	}
	return text(`{"keys":[` + strings.Join(members, ",") + `]}`)
}

func text(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(body))
	}
}

// clock can be set forward.
type clock struct{ offset atomic.Int64 }

func (c *clock) Now() time.Time          { return time.Now().Add(time.Duration(c.offset.Load())) }
func (c *clock) advance(d time.Duration) { c.offset.Add(int64(d)) }

func open(t *testing.T, s *server, edit func(*jwks.Config)) (*jwks.Source, *clock) {
	t.Helper()
	c := &clock{}
	cfg := jwks.Config{Name: "main", URL: s.URL + "/keys", Client: s.Client(), Now: c.Now}
	if edit != nil {
		edit(&cfg)
	}
	source, err := jwks.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = source.Close() })
	return source, c
}

func lookup(t *testing.T, s *jwks.Source, kid string) (found bool, err error) {
	t.Helper()
	keys, err := s.Lookup(t.Context(), kid, "ES256")
	return len(keys) == 1, err
}

func TestTheFirstTokenFetchesTheSet(t *testing.T) {
	s := newServer(t, keySet(t, "a"))
	source, _ := open(t, s, nil)
	if source.Ready() {
		t.Error("ready before anything was fetched")
	}
	if _, ok := source.Age(); ok {
		t.Error("an age before anything was fetched")
	}
	if found, err := lookup(t, source, "a"); !found || err != nil {
		t.Errorf("found %v, %v", found, err)
	}
	if !source.Ready() {
		t.Error("not ready")
	}
}

func TestFiveHundredUnknownKeysCauseOneFetch(t *testing.T) {
	s := newServer(t, keySet(t, "a"))
	source, clock := open(t, s, nil)
	if found, _ := lookup(t, source, "a"); !found {
		t.Fatal("not found")
	}
	clock.advance(31 * time.Second)
	before := s.hits.Load()
	var wg sync.WaitGroup
	for i := range 500 {
		wg.Go(func() {
			if found, err := lookup(t, source, fmt.Sprintf("random-%d", i)); found || err != nil {
				t.Errorf("found %v, %v", found, err)
			}
		})
	}
	wg.Wait()
	if got := s.hits.Load() - before; got != 1 {
		t.Errorf("%d fetches, want 1", got)
	}
}

func TestARotationIsHonouredWithinOneRequest(t *testing.T) {
	s := newServer(t, keySet(t, "old"))
	source, clock := open(t, s, nil)
	if found, _ := lookup(t, source, "old"); !found {
		t.Fatal("not found")
	}
	s.now(keySet(t, "new"))
	clock.advance(31 * time.Second)
	if found, err := lookup(t, source, "new"); !found || err != nil {
		t.Errorf("the new key: %v, %v", found, err)
	}
	if found, _ := lookup(t, source, "old"); found {
		t.Error("the withdrawn key still counts")
	}
}

func TestTheLastGoodSetServesUntilItIsTooOld(t *testing.T) {
	s := newServer(t, keySet(t, "a"))
	source, clock := open(t, s, nil)
	if found, _ := lookup(t, source, "a"); !found {
		t.Fatal("not found")
	}
	s.now(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	clock.advance(23 * time.Hour)
	if found, err := lookup(t, source, "a"); !found || err != nil {
		t.Errorf("after 23h: %v, %v", found, err)
	}
	if found, err := lookup(t, source, "b"); found || err != nil {
		t.Errorf("an unknown key while the server is away: %v, %v", found, err)
	}
	clock.advance(2 * time.Hour)
	if _, err := lookup(t, source, "a"); !errors.Is(err, token.ErrKeysUnavailable) {
		t.Errorf("after 25h: %v, want unavailable", err)
	}
	if source.Ready() {
		t.Error("ready with a set that is too old")
	}
}

func TestNoAnswerOfAKeyServerIsBelievedBlindly(t *testing.T) {
	other := newServer(t, keySet(t, "a"))
	var redirect http.HandlerFunc = func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL+"/keys", http.StatusFound)
	}
	for name, answer := range map[string]http.HandlerFunc{
		"500":            func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) },
		"404 with keys":  func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(404); keySet(t, "a")(w, r) },
		"HTML":           func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html></html>")) },
		"no JSON":        text("keys"),
		"empty":          text(""),
		"2 MiB":          text(`{"keys":[],"x":"` + strings.Repeat("a", 2<<20) + `"}`),
		"duplicate kids": keySet(t, "a", "a"),
		"a shared key":   text(`{"keys":[{"kty":"oct","kid":"a","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}]}`),
		"another host":   redirect,
	} {
		t.Run(name, func(t *testing.T) {
			var events []jwks.Event
			source, _ := open(t, newServer(t, answer), func(c *jwks.Config) {
				c.OnEvent = func(e jwks.Event) { events = append(events, e) }
			})
			if found, err := lookup(t, source, "a"); found || !errors.Is(err, token.ErrKeysUnavailable) {
				t.Errorf("found %v, %v; want unavailable", found, err)
			}
		})
	}
}

func TestAHangingServerCostsARequestItsBudgetAtMost(t *testing.T) {
	block := make(chan struct{})
	s := newServer(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-block:
		case <-r.Context().Done():
		}
	})
	t.Cleanup(func() { close(block) })
	source, _ := open(t, s, func(c *jwks.Config) { c.Timeout = 200 * time.Millisecond })
	began := time.Now()
	if _, err := lookup(t, source, "a"); !errors.Is(err, token.ErrKeysUnavailable) {
		t.Errorf("%v, want unavailable", err)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("waited %s", took)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := source.Lookup(ctx, "a", "ES256"); err == nil {
		t.Error("a caller that is gone got an answer")
	}
}

func TestDiscoveryBelievesOnlyItsOwnIssuer(t *testing.T) {
	keys := keySet(t, "a")
	for name, row := range map[string]struct {
		document func(base string) string
		want     bool
	}{
		"its own":        {func(b string) string { return `{"issuer":"` + b + `","jwks_uri":"` + b + `/keys"}` }, true},
		"another issuer": {func(b string) string { return `{"issuer":"https://other.example","jwks_uri":"` + b + `/keys"}` }, false},
		"a slash more":   {func(b string) string { return `{"issuer":"` + b + `/","jwks_uri":"` + b + `/keys"}` }, false},
		"no key set":     {func(b string) string { return `{"issuer":"` + b + `"}` }, false},
		"plain HTTP":     {func(b string) string { return `{"issuer":"` + b + `","jwks_uri":"http://127.0.0.1:1/keys"}` }, false},
		"a file":         {func(b string) string { return `{"issuer":"` + b + `","jwks_uri":"file:///etc/passwd"}` }, false},
	} {
		t.Run(name, func(t *testing.T) {
			var base string
			s := newServer(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/keys" {
					keys(w, r)
					return
				}
				text(row.document(base))(w, r)
			})
			base = s.URL
			source, _ := open(t, s, func(c *jwks.Config) { c.URL, c.Issuer = "", base })
			if found, err := lookup(t, source, "a"); found != row.want || (err == nil) != row.want {
				t.Errorf("found %v, %v; want %v", found, err, row.want)
			}
		})
	}
}

func TestEventsTellOfChangesOnce(t *testing.T) {
	s := newServer(t, keySet(t, "a"))
	events := make(chan jwks.Event, 16)
	source, clock := open(t, s, func(c *jwks.Config) { c.OnEvent = func(e jwks.Event) { events <- e } })
	next := func() jwks.Event {
		t.Helper()
		select {
		case e := <-events:
			return e
		case <-time.After(5 * time.Second):
			t.Fatal("no event")
			return jwks.Event{}
		}
	}
	ask := func(kid string) {
		t.Helper()
		clock.advance(31 * time.Second)
		_, _ = lookup(t, source, kid)
	}
	ask("a")
	if e := next(); e.Err != nil || len(e.Added) != 1 || e.Added[0] != "a" {
		t.Errorf("first: %+v", e)
	}
	s.now(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
	ask("x")
	if e := next(); e.Err == nil {
		t.Errorf("failing: %+v", e)
	}
	ask("y")
	s.now(keySet(t, "b"))
	ask("b")
	if e := next(); e.Err != nil || len(e.Removed) != 1 || e.Removed[0] != "a" {
		t.Errorf("rotated: %+v", e)
	}
}

func TestBackgroundFetchingEndsWithClose(t *testing.T) {
	s := newServer(t, keySet(t, "a"))
	source, _ := open(t, s, nil)
	source.Start()
	source.Start()
	for deadline := time.Now().Add(5 * time.Second); !source.Ready(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("never ready")
		}
	}
	if err := errors.Join(source.Close(), source.Close()); err != nil {
		t.Error(err)
	}
	if found, err := lookup(t, source, "a"); !found || err != nil {
		t.Errorf("after Close: %v, %v", found, err)
	}
}

func TestOnlySafeURLsAreAccepted(t *testing.T) {
	for name, c := range map[string]jwks.Config{
		"neither":          {},
		"both":             {URL: "https://a.example/k", Issuer: "https://a.example"},
		"http":             {URL: "http://a.example/k"},
		"a file":           {URL: "file:///k", InsecureHTTP: true},
		"credentials":      {URL: "https://u:p@a.example/k"},
		"no host":          {URL: "https:///k"},
		"an opaque URL":    {URL: "https:a"},
		"a query":          {Issuer: "https://a.example?x"},
		"a negative stale": {URL: "https://a.example/k", MaxStale: -1},
		"a long timeout":   {URL: "https://a.example/k", Timeout: time.Hour},
	} {
		if _, err := jwks.New(c); err == nil {
			t.Errorf("%s: accepted", name)
		} else if strings.Contains(err.Error(), "u:p") {
			t.Errorf("%s: the error shows credentials", name)
		}
	}
	if _, err := jwks.New(jwks.Config{URL: "http://a.example/k", InsecureHTTP: true}); err != nil {
		t.Error(err)
	}
}

func TestTheKeyTellsConfigurationsApart(t *testing.T) {
	base := jwks.Config{Name: "a", URL: "https://a.example/k"}
	other := base
	other.Algorithms = []string{"ES256"}
	same := base
	if base.Key() != same.Key() || base.Key() == other.Key() {
		t.Error("keys do not follow the configuration")
	}
}
