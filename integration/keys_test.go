//go:build linux

package integration

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// signer is a key of an issuer with a name.
type signer struct {
	kid string
	key *ecdsa.PrivateKey
}

func newSigner(t *testing.T, kid string) signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return signer{kid, key}
}

// header is an Authorization header with a token of the issuer iss.
func (s signer) header(t *testing.T, iss string) string {
	t.Helper()
	token := jwt.NewWithClaims(jwt.SigningMethodES256, claims(map[string]any{"iss": iss}))
	token.Header["kid"] = s.kid
	text, err := token.SignedString(s.key)
	if err != nil {
		t.Fatal(err)
	}
	return bearer(text)
}

// keySetOf is a key set with the public halves.
func keySetOf(t *testing.T, signers ...signer) string {
	t.Helper()
	enc := base64.RawURLEncoding.EncodeToString
	var members []string
	for _, s := range signers {
		point, err := s.key.PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		members = append(members, fmt.Sprintf(`{"kty":"EC","crv":"P-256","kid":%q,"x":%q,"y":%q}`, s.kid, enc(point[1:33]), enc(point[33:])))
	}
	return `{"keys":[` + strings.Join(members, ",") + `]}`
}

// keyServer is a key server that can rotate, fail and hang.
type keyServer struct {
	url string

	mu   sync.Mutex
	body string
	code int
	hang bool
	hits []time.Time
}

func startKeyServer(t *testing.T, signers ...signer) *keyServer {
	t.Helper()
	s := &keyServer{body: keySetOf(t, signers...), code: 200}
	s.url = "http://" + serveHere(t, false, s.serve) + "/keys"
	return s
}

func (s *keyServer) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.hits = append(s.hits, time.Now())
	body, code, hang := s.body, s.code, s.hang
	s.mu.Unlock()
	if hang {
		<-r.Context().Done()
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write([]byte(body))
}

// set changes what the server does.
func (s *keyServer) set(change func(*keyServer)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}

// asked returns when the server was asked.
func (s *keyServer) asked() []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]time.Time(nil), s.hits...)
}

const otherIssuer = "https://other.test"

// keysSite is a site that takes tokens of the issuer other, whose block has the
// given iss and lines, beside those of main.
func keysSite(t *testing.T, iss, lines string) *site {
	t.Helper()
	return startEdited(t, siteConfig{Port: freePort(t), Metrics: freePort(t), Global: fmt.Sprintf(`
		issuer other {
			iss %s
			audience %s
			insecure_http_jwks
			%s
		}`, iss, audience, lines)}, func(text string) string {
		return strings.Replace(text, "jwt main {", "jwt main other {", 1)
	})
}

// keyEvents waits for n events about keys.
func keyEvents(t *testing.T, s *site, n int) []event {
	t.Helper()
	var got []event
	await(t, settle, fmt.Sprintf("%d events about keys", n), func() bool {
		got = filterEvents(readJournal(t, s.journal()), func(e event) bool { return e.Action == "keys.changed" })
		return len(got) >= n
	})
	return got
}

// ready waits until tokens of other are accepted.
func (s *site) ready(t *testing.T, token string) {
	t.Helper()
	await(t, settle, "the first keys", func() bool { return s.get(t, "/me", token).Status == 200 })
}

func TestKeysOfAnIssuerThatIsDownHarmNobodyElse(t *testing.T) {
	t.Parallel()
	one := newSigner(t, "one")
	down := fmt.Sprintf("127.0.0.1:%d", freePort(t)) // Nobody listens there.
	for name, row := range map[string][2]string{
		"a key set": {otherIssuer, "jwks http://" + down + "/keys"},
		"discovery": {"https://" + down, "discovery"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			iss := row[0]
			s := keysSite(t, iss, row[1])
			for range 2 {
				a := s.get(t, "/me", one.header(t, iss))
				wantProblem(t, a, 503, "unavailable")
				if a.Header.Get("Retry-After") == "" {
					t.Error("no Retry-After")
				}
			}
			wantProblem(t, s.get(t, "/me"), 401, "token-missing")
			wantProblem(t, s.get(t, "/me", bearer("nonsense")), 401, "token-invalid")
			if a := s.get(t, "/healthz", one.header(t, iss)); a.Status != 200 {
				t.Errorf("a public route: status %d", a.Status)
			}
			began := time.Now()
			if a := s.get(t, "/me", bearer(s.Issuer.as(t, "u-1", "user"))); a.Status != 200 || time.Since(began) > time.Second {
				t.Errorf("the other issuer: status %d after %s", a.Status, time.Since(began))
			}
			if e := keyEvents(t, s, 1)[0]; e.Outcome != "error" || e.Resource != "other" || e.Class != "security" {
				t.Errorf("event %s", e.Line)
			}
		})
	}
}

func TestKeysAreFetchedOnceTheServerIsBack(t *testing.T) {
	t.Parallel()
	one := newSigner(t, "one")
	keys := startKeyServer(t, one)
	keys.set(func(k *keyServer) { k.code = 500 })
	s := keysSite(t, otherIssuer, "jwks "+keys.url)
	wantProblem(t, s.get(t, "/me", one.header(t, otherIssuer)), 503, "unavailable")
	keys.set(func(k *keyServer) { k.code = 200 })
	s.ready(t, one.header(t, otherIssuer)) // Without any request asking: it is within 30s.
	if age := s.counter(t, "moat_jwks_age_seconds", `issuer="other"`); age <= 0 || age > 30 {
		t.Errorf("moat_jwks_age_seconds %v", age)
	}
	got := keyEvents(t, s, 2)
	if got[0].Outcome != "error" || got[1].Outcome != "allow" || fmt.Sprint(got[1].Details["added"]) != "[one]" {
		t.Errorf("events %s %s", got[0].Line, got[1].Line)
	}
}

// TestKeysThatRotateCountWithinOneRequest waits out the half minute in which
// unknown keys cause no second fetch, while five hundred of them are tried.
func TestKeysThatRotateCountWithinOneRequest(t *testing.T) {
	t.Parallel()
	one, two := newSigner(t, "one"), newSigner(t, "two")
	keys := startKeyServer(t, one)
	s := keysSite(t, otherIssuer, "jwks "+keys.url)
	s.ready(t, one.header(t, otherIssuer))
	keys.set(func(k *keyServer) { k.body = keySetOf(t, two) })
	var wg sync.WaitGroup
	for worker := range 10 {
		wg.Go(func() {
			for i := range 50 {
				stranger := signer{fmt.Sprintf("random-%d-%d", worker, i), two.key}
				if a := s.get(t, "/me", stranger.header(t, otherIssuer)); a.Status != 401 && a.Status != 429 {
					t.Errorf("an unknown key: status %d", a.Status)
				}
			}
		})
	}
	wg.Wait()
	first := keys.asked()
	if len(first) != 1 {
		t.Fatalf("%d fetches, want 1", len(first))
	}
	wantProblem(t, s.get(t, "/me", two.header(t, otherIssuer)), 401, "token-invalid") // Too early to ask again.
	await(t, time.Minute, "half a minute to pass", func() bool { return time.Since(first[0]) > 30*time.Second+500*time.Millisecond })
	if a := s.get(t, "/me", two.header(t, otherIssuer)); a.Status != 200 {
		t.Errorf("the new key: status %d, want 200 for the first request", a.Status)
	}
	// Also a token that was accepted and is remembered.
	wantProblem(t, s.get(t, "/me", one.header(t, otherIssuer)), 401, "token-invalid")
	if n := len(keys.asked()); n != 2 {
		t.Errorf("%d fetches, want 2", n)
	}
	if e := keyEvents(t, s, 2)[1]; fmt.Sprint(e.Details["added"], e.Details["removed"]) != "[two] [one]" {
		t.Errorf("event %s", e.Line)
	}
}

func TestKeysSurviveAReloadWithoutAFetch(t *testing.T) {
	t.Parallel()
	one := newSigner(t, "one")
	keys := startKeyServer(t, one)
	s := keysSite(t, otherIssuer, "jwks "+keys.url)
	s.ready(t, one.header(t, otherIssuer))
	before := len(keys.asked())
	keys.set(func(k *keyServer) { k.code = 500 })
	for _, headers := range []string{"headers api", "headers html", "headers api"} {
		text := strings.Replace(s.Config.render(s.Issuer), "jwt main {", "jwt main other {", 1)
		text = strings.Replace(text, "headers html", headers, 1)
		if out, exit := s.Reload(t, text); exit != 0 {
			t.Fatalf("reload: exit %d\n%s", exit, out)
		}
		s.web.CloseIdleConnections()
		if a := s.get(t, "/me", one.header(t, otherIssuer)); a.Status != 200 {
			t.Errorf("after a reload: status %d", a.Status)
		}
	}
	if n := len(keys.asked()); n != before {
		t.Errorf("%d fetches by reloads", n-before)
	}
}

func TestKeysInAFileAreWatched(t *testing.T) {
	t.Parallel()
	one, two := newSigner(t, "one"), newSigner(t, "two")
	path := filepath.Join(privateDir(t), "keys.json")
	put(t, path, keySetOf(t, one))
	s := keysSite(t, otherIssuer, "jwks "+path)
	if a := s.get(t, "/me", one.header(t, otherIssuer)); a.Status != 200 {
		t.Fatalf("status %d", a.Status)
	}
	put(t, path, keySetOf(t, two))
	await(t, settle, "the new key", func() bool { return s.get(t, "/me", two.header(t, otherIssuer)).Status == 200 })
	wantProblem(t, s.get(t, "/me", one.header(t, otherIssuer)), 401, "token-invalid")
	if e := keyEvents(t, s, 1)[0]; e.Outcome != "allow" || fmt.Sprint(e.Details["added"], e.Details["removed"]) != "[two] [one]" {
		t.Errorf("event %s", e.Line)
	}
	put(t, path, keySetOf(t, one, one))
	if e := keyEvents(t, s, 2)[1]; e.Outcome != "error" || e.Resource != "other" {
		t.Errorf("event %s", e.Line)
	}
	if a := s.get(t, "/me", two.header(t, otherIssuer)); a.Status != 200 {
		t.Errorf("a bad file took the good keys away: status %d", a.Status)
	}
	if !strings.Contains(s.Log(), "a changed key set file was refused") || !strings.Contains(s.Log(), "stands twice") {
		t.Error("the log does not say why the file was refused")
	}
	checkTrail(t, readJournal(t, s.journal()))
}

func TestKeysOfAServerThatHangsCostNobodyMoreThanTwoSeconds(t *testing.T) {
	t.Parallel()
	one := newSigner(t, "one")
	keys := startKeyServer(t, one)
	keys.set(func(k *keyServer) { k.hang = true })
	s := keysSite(t, otherIssuer, "jwks "+keys.url+"\n\t\t\ttimeout 30s")
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			began := time.Now()
			wantStatus(t, s.get(t, "/me", one.header(t, otherIssuer)), 503)
			if took := time.Since(began); took > 3*time.Second || took < time.Second {
				t.Errorf("waited %s, want 2s", took)
			}
		})
	}
	began := time.Now()
	wantStatus(t, s.get(t, "/me"), 401)
	wantStatus(t, s.get(t, "/healthz"), 200)
	wantStatus(t, s.get(t, "/me", bearer(s.Issuer.as(t, "u-1", "user"))), 200)
	if took := time.Since(began); took > time.Second {
		t.Errorf("the others waited %s", took)
	}
	wg.Wait()
	if n := len(keys.asked()); n != 1 {
		t.Errorf("%d fetches, want 1", n)
	}
}

func wantStatus(t *testing.T, a answer, status int) {
	t.Helper()
	if a.Status != status {
		t.Errorf("status %d, want %d\n%s", a.Status, status, a.Body)
	}
}

func TestKeysTooOldAreUsedNoMore(t *testing.T) {
	t.Parallel()
	one := newSigner(t, "one")
	keys := startKeyServer(t, one)
	s := keysSite(t, otherIssuer, "jwks "+keys.url+"\n\t\t\tmax_stale 8s")
	token := one.header(t, otherIssuer)
	s.ready(t, token)
	keys.set(func(k *keyServer) { k.code = 500 })
	failed := keyEvents(t, s, 2)[1]
	if failed.Outcome != "error" || fmt.Sprint(failed.Details["keys"]) != "1" {
		t.Errorf("event %s", failed.Line)
	}
	wantStatus(t, s.get(t, "/me", token), 200) // The last good set.
	await(t, 20*time.Second, "the set to lapse", func() bool { return s.get(t, "/me", token).Status == 503 })
	wantProblem(t, s.get(t, "/me", token), 503, "unavailable")
	wantProblem(t, s.get(t, "/me"), 401, "token-missing")
	wantStatus(t, s.get(t, "/healthz"), 200)
	if e := keyEvents(t, s, 3)[2]; e.Outcome != "error" || fmt.Sprint(e.Details["keys"]) != "0" {
		t.Errorf("event %s", e.Line)
	}
	keys.set(func(k *keyServer) { k.code = 200 })
	s.ready(t, token)
}
