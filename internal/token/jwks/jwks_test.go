package jwks_test

import (
	"compress/gzip"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
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

// key is a key pair and its public half as a JWK.
type key struct {
	id, jwk string
	private *ecdsa.PrivateKey
}

func newKey(t *testing.T, id string) key {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := private.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	enc := base64.RawURLEncoding.EncodeToString
	name := ""
	if id != "" {
		name = fmt.Sprintf(`"kid":%q,`, id)
	}
	return key{id, fmt.Sprintf(`{%s"kty":"EC","crv":"P-256","x":%q,"y":%q}`, name, enc(point[1:33]), enc(point[33:])), private}
}

func setOf(keys ...key) string {
	var members []string
	for _, k := range keys {
		members = append(members, k.jwk)
	}
	return `{"keys":[` + strings.Join(members, ",") + `]}`
}

// keySet answers with fresh P-256 keys of the given IDs.
func keySet(t *testing.T, ids ...string) http.HandlerFunc {
	t.Helper()
	var keys []key
	for _, id := range ids {
		keys = append(keys, newKey(t, id))
	}
	return text(setOf(keys...))
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
	good := keySet(t, "a")
	other := newServer(t, good)
	for name, answer := range map[string]http.HandlerFunc{
		"500":              func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500); good(w, r) },
		"404":              func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(404); good(w, r) },
		"201":              func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(201); good(w, r) },
		"an HTML page":     text("<html></html>"),
		"keys as HTML":     typed("text/html; charset=utf-8", good),
		"no JSON":          text("keys"),
		"empty":            text(""),
		"no keys":          text(`{"keys":[]}`),
		"101 keys":         keySet(t, names(101)...),
		"duplicate kids":   keySet(t, "a", "a"),
		"a shared key":     text(`{"keys":[{"kty":"oct","kid":"a","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}]}`),
		"only unknown kty": text(`{"keys":[{"kty":"AKP","kid":"a"}]}`),
		"another host":     redirect(http.StatusFound, func(*http.Request) string { return other.URL + "/keys" }),
		"round in circles": redirect(http.StatusTemporaryRedirect, func(*http.Request) string { return "/keys" }),
		"cut off": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write([]byte(`{"keys":[]}`))
		},
	} {
		t.Run(name, func(t *testing.T) {
			events := make(chan jwks.Event, 2)
			server := newServer(t, answer)
			source, _ := open(t, server, func(c *jwks.Config) {
				c.OnEvent = func(e jwks.Event) { events <- e }
			})
			if found, err := lookup(t, source, "a"); found || !errors.Is(err, token.ErrKeysUnavailable) {
				t.Errorf("found %v, %v; want unavailable", found, err)
			}
			if e := <-events; e.Err == nil || e.Keys != 0 || strings.Contains(e.Err.Error(), "127.0.0.1") {
				t.Errorf("told %+v", e)
			}
			if n := server.hits.Load(); n > 4 {
				t.Errorf("%d requests", n)
			}
		})
	}
	if n := other.hits.Load(); n != 0 {
		t.Errorf("another host was asked %d times", n)
	}
}

func typed(kind string, answer http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { answer(headed{w, kind}, r) }
}

// headed keeps its Content-Type.
type headed struct {
	http.ResponseWriter
	kind string
}

func (h headed) Write(p []byte) (int, error) {
	h.Header().Set("Content-Type", h.kind)
	return h.ResponseWriter.Write(p)
}

func redirect(code int, to func(*http.Request) string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to(r), code) }
}

func names(n int) []string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprint("key ", i))
	}
	return all
}

func TestWhatIsNotForSignaturesIsPassedOver(t *testing.T) {
	good := newKey(t, "a")
	with := func(change string) string { return strings.Replace(newKey(t, "b").jwk, "{", "{"+change+",", 1) }
	for name, other := range map[string]string{
		"an unknown kty":    `{"kty":"AKP","kid":"b"}`,
		"use enc":           with(`"use":"enc"`),
		"key_ops of others": with(`"key_ops":["deriveKey"]`),
		"an unknown alg":    with(`"alg":"ECDH-ES"`),
		"an unknown curve":  `{"kty":"EC","crv":"secp256k1","kid":"b","x":"AA","y":"AA"}`,
	} {
		source, _ := open(t, newServer(t, text(`{"keys":[`+other+","+good.jwk+`]}`)), nil)
		if found, err := lookup(t, source, "a"); !found || err != nil {
			t.Errorf("%s: the good key: %v, %v", name, found, err)
		}
		if found, err := lookup(t, source, "b"); found || err != nil {
			t.Errorf("%s: %v, %v; want no such key", name, found, err)
		}
	}
	source, _ := open(t, newServer(t, keySet(t, names(100)...)), nil)
	if found, err := lookup(t, source, "key 99"); !found || err != nil {
		t.Errorf("100 keys: %v, %v", found, err)
	}
}

func TestRedirectsWithinTheHostAreFollowed(t *testing.T) {
	good := keySet(t, "a")
	s := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/new" {
			good(w, r)
			return
		}
		http.Redirect(w, r, "/new", http.StatusMovedPermanently)
	})
	source, _ := open(t, s, nil)
	if found, err := lookup(t, source, "a"); !found || err != nil {
		t.Errorf("found %v, %v", found, err)
	}
}

// TestNoMoreIsReadThanTheCaps has servers that send on as long as anybody reads,
// plain and packed.
func TestNoMoreIsReadThanTheCaps(t *testing.T) {
	const all, most = 256 << 20, 32 << 20 // The cap is 1 MiB; sockets hold some more.
	piece := []byte(strings.Repeat(" ", 64<<10))
	for name, write := range map[string]func(http.ResponseWriter) io.Writer{
		"plain": func(w http.ResponseWriter) io.Writer { return w },
		"packed": func(w http.ResponseWriter) io.Writer {
			w.Header().Set("Content-Encoding", "gzip")
			return gzip.NewWriter(w)
		},
	} {
		t.Run(name, func(t *testing.T) {
			sent := make(chan int, 1)
			s := newServer(t, func(w http.ResponseWriter, _ *http.Request) {
				body, n := write(w), 0
				for n < all {
					if _, err := body.Write(piece); err != nil {
						break
					}
					n += len(piece)
				}
				sent <- n
			})
			source, _ := open(t, s, func(c *jwks.Config) { c.Timeout = 20 * time.Second })
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := source.Lookup(t.Context(), "a", "ES256")
			if !errors.Is(err, token.ErrKeysUnavailable) {
				t.Errorf("error %v", err)
			}
			runtime.ReadMemStats(&after)
			if n := after.TotalAlloc - before.TotalAlloc; n > most {
				t.Errorf("%d bytes were allocated", n)
			}
			if n := <-sent; name == "plain" && n > most {
				t.Errorf("%d bytes were taken", n)
			}
		})
	}
	t.Run("headers", func(t *testing.T) {
		good := keySet(t, "a")
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Long", strings.Repeat("x", 100<<10))
			good(w, r)
		}))
		t.Cleanup(s.Close)
		// The client that a Source makes for itself.
		source, err := jwks.New(jwks.Config{Name: "main", URL: s.URL, InsecureHTTP: true})
		if err != nil {
			t.Fatal(err)
		}
		if found, err := lookup(t, source, "a"); found || !errors.Is(err, token.ErrKeysUnavailable) {
			t.Errorf("found %v, %v; want unavailable", found, err)
		}
	})
}

// TestNoErrorShowsWhatIsSecret has a password in the query of the URL, as some
// key servers want it, and a server whose answer is one.
func TestNoErrorShowsWhatIsSecret(t *testing.T) {
	raw := func(answer string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte(answer))
			_ = conn.Close()
		}
	}
	for name, answer := range map[string]http.HandlerFunc{
		"a bad redirect": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "://hunter2")
			w.WriteHeader(http.StatusFound)
		},
		"another host": redirect(http.StatusFound, func(*http.Request) string { return "https://hunter2.test/?hunter2" }),
		"no HTTP":      raw("hunter2\r\n\r\n"),
		"a bad length": raw("HTTP/1.1 200 OK\r\nContent-Length: hunter2\r\n\r\n"),
		"no answer":    raw(""),
		"a bad key":    text(`{"keys":[{"kty":"EC","crv":"P-256","x":"hunter2","y":"hunter2"}]}`),
		"no JSON":      text("hunter2"),
		"500":          func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "hunter2", 500) },
	} {
		t.Run(name, func(t *testing.T) {
			events := make(chan jwks.Event, 1)
			s := newServer(t, answer)
			source, _ := open(t, s, func(c *jwks.Config) {
				c.URL += "?password=hunter2"
				c.OnEvent = func(e jwks.Event) { events <- e }
			})
			_, err := lookup(t, source, "a")
			if e := <-events; err == nil || e.Err == nil || strings.Contains(e.Err.Error()+err.Error(), "hunter2") {
				t.Errorf("%v, told %v", err, e.Err)
			}
		})
	}
	gone := newServer(t, text(""))
	gone.Close()
	events := make(chan jwks.Event, 1)
	source, _ := open(t, gone, func(c *jwks.Config) {
		c.URL += "?password=hunter2"
		c.OnEvent = func(e jwks.Event) { events <- e }
	})
	_, _ = lookup(t, source, "a")
	if e := <-events; !strings.Contains(e.Err.Error(), "connection refused") || strings.Contains(e.Err.Error(), "hunter2") {
		t.Errorf("told %v, want why, without the password", e.Err)
	}
}

func TestDiscoveryBelievesOnlyItsOwnIssuer(t *testing.T) {
	keys := keySet(t, "a")
	plain := httptest.NewServer(keys)
	t.Cleanup(plain.Close)
	for name, row := range map[string]struct {
		document func(base string) string
		want     bool
	}{
		"its own":        {func(b string) string { return `{"issuer":"` + b + `","jwks_uri":"` + b + `/keys"}` }, true},
		"another issuer": {func(b string) string { return `{"issuer":"https://other.example","jwks_uri":"` + b + `/keys"}` }, false},
		"a slash more":   {func(b string) string { return `{"issuer":"` + b + `/","jwks_uri":"` + b + `/keys"}` }, false},
		"no key set":     {func(b string) string { return `{"issuer":"` + b + `"}` }, false},
		"plain HTTP":     {func(b string) string { return `{"issuer":"` + b + `","jwks_uri":"` + plain.URL + `/keys"}` }, false},
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

func TestAKeyThatIsReplacedUnderItsIDIsAChange(t *testing.T) {
	s := newServer(t, keySet(t, "a", "b", ""))
	events := make(chan jwks.Event, 4)
	source, clock := open(t, s, func(c *jwks.Config) { c.OnEvent = func(e jwks.Event) { events <- e } })
	_, _ = lookup(t, source, "x")
	if e := <-events; len(e.Added) != 3 || e.Added[0] != "a" || !strings.HasPrefix(e.Added[2], "sha256:") || len(e.Removed) != 0 || e.Keys != 3 {
		t.Errorf("told %+v", e)
	}
	s.now(keySet(t, "a"))
	clock.advance(31 * time.Second)
	_, _ = lookup(t, source, "x")
	if e := <-events; fmt.Sprint(e.Added) != "[a]" || len(e.Removed) != 3 || e.Removed[0] != "a" || e.Keys != 1 {
		t.Errorf("told %+v", e)
	}
}

func TestBackgroundFetchingEndsWithClose(t *testing.T) {
	inBubble(t, keySet(t, "a"), nil, func(t *testing.T, s *timed) {
		s.Start()
		s.Start()
		s.until(time.Hour)
		n := len(s.requests())
		if n < 12 || n > 15 {
			t.Errorf("%d fetches in an hour", n)
		}
		if err := errors.Join(s.Close(), s.Close()); err != nil {
			t.Error(err)
		}
		s.until(3 * time.Hour)
		if got := len(s.requests()); got != n {
			t.Errorf("%d fetches after Close", got-n)
		}
		if found, err := lookup(t, s.Source, "a"); !found || err != nil {
			t.Errorf("after Close: %v, %v", found, err)
		}
	})
}

func TestOnlySafeURLsAreAccepted(t *testing.T) {
	for name, c := range map[string]jwks.Config{
		"neither":          {},
		"both":             {URL: "https://a.example/k", Issuer: "https://a.example"},
		"http":             {URL: "http://a.example/k"},
		"a secret query":   {URL: "http://a.example/k?u:p"},
		"a file":           {URL: "file:///k", InsecureHTTP: true},
		"credentials":      {URL: "https://u:p@a.example/k"},
		"no host":          {URL: "https:///k"},
		"an opaque URL":    {URL: "https:u:p@a.example"},
		"a bad URL":        {URL: "https://u:p@a.example/%zz"},
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
