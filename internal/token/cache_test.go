package token_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/identity"
	"github.com/moat-gateway/moat/internal/token"
)

// counting is a key source that counts how often it is asked, and from which
// keys can be withdrawn.
type counting struct {
	token.KeySource
	mu      sync.Mutex
	lookups int
	gone    bool
}

func (c *counting) Lookup(ctx context.Context, kid, alg string) ([]token.Key, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lookups++
	if c.gone {
		return nil, nil
	}
	return c.KeySource.Lookup(ctx, kid, alg)
}

func (c *counting) Holds(print [sha256.Size]byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.gone && c.KeySource.(token.Holder).Holds(print)
}

func (c *counting) asked() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lookups
}

// caching is a set of one issuer that remembers, and what its world is made of.
type caching struct {
	*token.Set
	keys    *counting
	cache   *token.Cache
	clock   time.Time
	rolesID byte
	revoked func(*identity.Principal, time.Time) bool
}

func newCaching(tb testing.TB, size int, change func(*token.Config)) *caching {
	tb.Helper()
	c := &caching{cache: token.NewCache(size), clock: now}
	v := verifier(tb, func(cfg *token.Config) {
		c.keys = &counting{KeySource: cfg.Keys}
		cfg.Keys = c.keys
		cfg.Now = func() time.Time { return c.clock }
		cfg.RolesID = func() [sha256.Size]byte { return [sha256.Size]byte{c.rolesID} }
		cfg.Revoked = func(p *identity.Principal, issued time.Time) bool { return c.revoked != nil && c.revoked(p, issued) }
		if change != nil {
			change(cfg)
		}
	})
	c.Set = newSet(tb, v)
	c.Remember(c.cache)
	return c
}

func TestATokenIsVerifiedOnceAndHitsAreTheSameCaller(t *testing.T) {
	c := newCaching(t, 0, nil)
	raw := with(t, nil)
	first := accepted(t, c, raw)
	for range 5 {
		if p := accepted(t, c, raw); p != first {
			t.Fatal("another caller")
		}
	}
	if c.keys.asked() != 1 || c.cache.Len() != 1 {
		t.Errorf("%d verifications, %d entries", c.keys.asked(), c.cache.Len())
	}
	// Any other spelling is another token.
	refused(t, c, raw+"\n", token.ReasonMalformed)
	refused(t, c, raw[:len(raw)-1], token.ReasonMalformed)
	if c.cache.Len() != 1 {
		t.Errorf("%d entries", c.cache.Len())
	}
}

func TestWhatChangesIsCheckedOnEveryHit(t *testing.T) {
	for name, row := range map[string]struct {
		change func(*caching)
		reason string // "" is accepted
		again  bool   // verified again
	}{
		"nothing":               {func(*caching) {}, "", false},
		"a second later":        {func(c *caching) { c.clock = c.clock.Add(time.Second) }, "", false},
		"over, within leeway":   {func(c *caching) { c.clock = now.Add(90*time.Second + 29*time.Second) }, "", false},
		"over":                  {func(c *caching) { c.clock = now.Add(90*time.Second + 30*time.Second) }, token.ReasonExpired, false},
		"remembered too long":   {func(c *caching) { c.clock = now.Add(5 * time.Minute) }, token.ReasonExpired, true},
		"the clock before nbf":  {func(c *caching) { c.clock = now.Add(-50 * time.Second) }, token.ReasonNotYetValid, true},
		"the key was withdrawn": {func(c *caching) { c.keys.gone = true }, token.ReasonUnknownKey, true},
		"other roles":           {func(c *caching) { c.rolesID++ }, "", true},
		"revoked":               {func(c *caching) { c.revoked = func(*identity.Principal, time.Time) bool { return true } }, token.ReasonRevoked, false},
		"others revoked":        {func(c *caching) { c.revoked = func(p *identity.Principal, _ time.Time) bool { return p.ID != "u-1" } }, "", false},
		"revoked before it was issued": {func(c *caching) {
			c.revoked = func(_ *identity.Principal, issued time.Time) bool { return issued.Before(now.Add(-time.Minute)) }
		}, "", false},
		"revoked after it was issued": {func(c *caching) {
			c.revoked = func(_ *identity.Principal, issued time.Time) bool { return issued.Before(now) }
		}, token.ReasonRevoked, false},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCaching(t, 0, nil)
			raw := with(t, map[string]any{"nbf": now.Unix() - 10, "exp": now.Unix() + 90, "iat": now.Unix() - 60})
			accepted(t, c, raw)
			row.change(c)
			if row.reason == "" {
				accepted(t, c, raw)
			} else {
				refusedAs(t, c, raw, row.reason)
			}
			if again := c.keys.asked() == 2; again != row.again {
				t.Errorf("verified %d times", c.keys.asked())
			}
		})
	}
}

// refusedAs is refused for the classes that only a set can give.
func refusedAs(t *testing.T, v judge, raw, reason string) {
	t.Helper()
	if reason != token.ReasonRevoked {
		refused(t, v, raw, reason)
		return
	}
	p, err := v.Verify(t.Context(), raw)
	var e *token.Error
	if p != nil || !errors.As(err, &e) || e.Reason != reason || e.Code != token.Revoked || e.Error() != "token: revoked" {
		t.Fatalf("%v %+v", p, err)
	}
}

func TestClocksThatAreSetBackAreNotTrusted(t *testing.T) {
	for name, row := range map[string]struct {
		claims map[string]any
		back   time.Duration
		reason string
	}{
		"a minute":          {map[string]any{"iat": nil}, time.Minute, ""},
		"before nbf":        {map[string]any{"iat": nil, "nbf": now.Unix() + 25}, 20 * time.Second, token.ReasonNotYetValid},
		"before iat":        {map[string]any{"iat": now.Unix() + 25}, 20 * time.Second, token.ReasonIatFuture},
		"within the leeway": {map[string]any{"iat": nil, "nbf": now.Unix() - 25}, 20 * time.Second, "kept"},
	} {
		c := newCaching(t, 0, nil)
		raw := with(t, row.claims)
		accepted(t, c, raw)
		c.clock = now.Add(-row.back)
		if row.reason == "" || row.reason == "kept" {
			accepted(t, c, raw)
		} else {
			refused(t, c, raw, row.reason)
		}
		if again := c.keys.asked() == 2; again == (row.reason == "kept") {
			t.Errorf("%s: verified %d times", name, c.keys.asked())
		}
	}
}

func TestARevokedTokenIsRefusedWithoutACacheToo(t *testing.T) {
	v := verifier(t, func(c *token.Config) {
		c.Revoked = func(p *identity.Principal, issued time.Time) bool {
			return p.Session == "s-1" && issued.Equal(now.Add(-time.Minute))
		}
	})
	refusedAs(t, v, with(t, nil), token.ReasonRevoked)
	accepted(t, v, with(t, map[string]any{"sid": "s-2"}))
	// Also of a token that is over besides: that it was taken back says more.
	refusedAs(t, v, with(t, map[string]any{"exp": now.Unix() - 3600}), token.ReasonRevoked)
}

func TestAVerdictCountsUnderItsOwnRulesOnly(t *testing.T) {
	raw := with(t, nil)
	first := newCaching(t, 0, nil)
	accepted(t, first, raw)
	for name, change := range map[string]func(*token.Config){
		"audience": func(c *token.Config) { c.Audience = []string{"another"} },
		"issuer":   func(c *token.Config) { c.Issuers = []string{"https://other.test"} },
		"type":     func(c *token.Config) { c.Types = []string{"at+jwt"} },
		"algorithms": func(c *token.Config) {
			c.Algorithms, c.Keys = []string{"RS256"}, static(t, nil, token.Key{Public: &ring().rsa.PublicKey})
		},
		"key": func(c *token.Config) {
			c.Keys = static(t, nil, token.Key{ID: "ec", Public: &ring().stranger.PublicKey})
		},
		"lifetime": func(c *token.Config) { c.MaxLifetime = time.Minute },
		"party":    func(c *token.Config) { c.AuthorizedParties = []string{"web"} },
		"id":       func(c *token.Config) { c.Claims.ID = [][]string{{"user_id"}} },
		"caps":     func(c *token.Config) { c.MaxToken = 64 },
	} {
		s := newSet(t, verifier(t, change))
		s.Remember(first.cache)
		if p, err := s.Verify(t.Context(), raw); err == nil {
			t.Errorf("another %s: accepted %+v", name, p)
		}
	}
	// What changes whom it names changes the verdict too.
	s := newSet(t, verifier(t, func(c *token.Config) { c.MayGrant = []string{"user"} }))
	s.Remember(first.cache)
	if p := accepted(t, s, raw); !slices.Equal(p.Roles, []string{"user"}) {
		t.Errorf("roles %q", p.Roles)
	}
	// The same rules, made anew as a reload does, find it.
	again := newCaching(t, 0, nil)
	again.Remember(first.cache)
	accepted(t, again, raw)
	if again.keys.asked() != 0 {
		t.Error("a reload verifies anew")
	}
}

func TestForgedTokensAreRememberedApartAndShortly(t *testing.T) {
	c := newCaching(t, 8, nil)
	forged := sealed(t, goodHeader, toJSON(t, goodClaims(nil)), ring().stranger)
	for range 3 {
		refused(t, c, forged, token.ReasonBadSignature)
	}
	if c.keys.asked() != 1 || c.cache.Len() != 0 {
		t.Errorf("%d verifications, %d entries", c.keys.asked(), c.cache.Len())
	}
	c.clock = now.Add(10 * time.Second)
	refused(t, c, forged, token.ReasonBadSignature)
	if c.keys.asked() != 2 {
		t.Error("a bad signature is remembered for more than ten seconds")
	}
	// A flood of forged tokens pushes out none of the good ones.
	raw := with(t, nil)
	accepted(t, c, raw)
	before := c.keys.asked()
	for i := range 3000 {
		at := len(forged) - 40 // Inside the signature.
		refused(t, c, fmt.Sprintf("%s%04d%s", forged[:at], i, forged[at+4:]), token.ReasonBadSignature)
	}
	asked := c.keys.asked()
	accepted(t, c, raw)
	if c.keys.asked() != asked || asked == before {
		t.Error("the good token was verified again")
	}
	if n := c.keys.asked(); n < 3000 {
		t.Errorf("%d of 3000 forged tokens were judged", n)
	}
	// Nothing but a bad signature is remembered: everything else is cheap, or
	// may be true a moment later.
	for _, other := range []string{with(t, map[string]any{"aud": "x"}), "x.y.z", with(t, map[string]any{"nbf": now.Unix() + 3600})} {
		for range 2 {
			if _, err := c.Verify(t.Context(), other); err == nil {
				t.Error("accepted")
			}
		}
	}
	if c.cache.Len() != 1 {
		t.Errorf("%d entries", c.cache.Len())
	}
}

func TestABadSignatureIsBadUnderTheKeysThatWereTriedOnly(t *testing.T) {
	c := newCaching(t, 0, nil)
	forged := sealed(t, goodHeader, toJSON(t, goodClaims(nil)), ring().stranger)
	refused(t, c, forged, token.ReasonBadSignature)
	// The issuer puts another key under the same ID.
	c.keys.KeySource = static(t, nil, token.Key{ID: "ec", Public: &ring().stranger.PublicKey})
	accepted(t, c, forged)
	// Whose it claims to be is told, so that nobody logs a neighbour out.
	for iss, ours := range map[string]bool{issuer: true, "https://other.test": false} {
		raw := sealed(t, goodHeader, toJSON(t, goodClaims(map[string]any{"iss": iss})), ring().ec)
		for range 2 {
			_, err := c.Verify(t.Context(), raw)
			var e *token.Error
			if !errors.As(err, &e) || e.Reason != token.ReasonBadSignature || e.OfIssuer != ours {
				t.Errorf("%s: %+v", iss, e)
			}
		}
	}
}

func TestTheCacheIsBoundedAndKeepsWhatIsUsed(t *testing.T) {
	const size = 64
	c := newCaching(t, size, nil)
	hot := with(t, map[string]any{"sub": "hot"})
	accepted(t, c, hot)
	for i := range 1000 {
		accepted(t, c, with(t, map[string]any{"sub": fmt.Sprint("u-", i)}))
		accepted(t, c, hot)
	}
	if n := c.cache.Len(); n > size || n < size/2 {
		t.Errorf("%d entries, at most %d", n, size)
	}
	if asked := c.keys.asked(); asked != 1001 {
		t.Errorf("the hot token was verified %d times", asked-1000)
	}
}

func TestASourceThatCannotTellIsNotRemembered(t *testing.T) {
	keys := []token.Key{{ID: "ec", Algorithm: "ES256", Public: &ring().ec.PublicKey}}
	s := newSet(t, verifier(t, func(c *token.Config) { c.Keys = source{keys: keys} }))
	cache := token.NewCache(0)
	s.Remember(cache)
	accepted(t, s, with(t, nil))
	if cache.Len() != 0 {
		t.Error("remembered")
	}
}

func TestSeveralIssuersShareACache(t *testing.T) {
	k := ring()
	s := newSet(t, issuerNamed(t, "a", "iss-a", k.ec, nil), issuerNamed(t, "b", "iss-b", k.stranger, nil))
	cache := token.NewCache(0)
	s.Remember(cache)
	for _, row := range []struct{ iss, name string }{{"iss-a", "a"}, {"iss-b", "b"}} {
		key := map[string]any{"iss-a": k.ec, "iss-b": k.stranger}[row.iss]
		raw := sealed(t, `{"alg":"ES256"}`, toJSON(t, goodClaims(map[string]any{"iss": row.iss})), key)
		for range 2 {
			if p := accepted(t, s, raw); p.Issuer != row.name {
				t.Errorf("issuer %q", p.Issuer)
			}
		}
	}
	if cache.Len() != 2 {
		t.Errorf("%d entries", cache.Len())
	}
	refused(t, s, strings.Repeat("a", 9000), token.ReasonTooLarge)
}

func TestOneCacheManyGoroutines(t *testing.T) {
	c := newCaching(t, 16, nil)
	tokens := make([]string, 40)
	for i := range tokens {
		tokens[i] = with(t, map[string]any{"sub": fmt.Sprint("u-", i)})
	}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 200 {
				n := (i*7 + g) % len(tokens)
				p, err := c.Verify(context.Background(), tokens[n])
				if err != nil || p.ID != fmt.Sprint("u-", n) {
					t.Errorf("token %d: %+v %v", n, p, err)
				}
			}
		})
	}
	wg.Wait()
}

func TestAHitAllocatesNextToNothing(t *testing.T) {
	c := newCaching(t, 0, nil)
	raw := with(t, nil)
	accepted(t, c, raw)
	if got := testing.AllocsPerRun(200, func() {
		if _, err := c.Verify(context.Background(), raw); err != nil {
			t.Error(err)
		}
	}); got > 2 {
		t.Errorf("%v allocations, at most 2", got)
	}
}

func TestTheClientATokenWasIssuedTo(t *testing.T) {
	v := verifier(t, func(c *token.Config) { c.AuthorizedParties = []string{"web", "app"} })
	for _, claims := range []map[string]any{{"azp": "web"}, {"azp": "app", "client_id": "other"}, {"client_id": "web"}} {
		accepted(t, v, with(t, claims))
	}
	for _, claims := range []map[string]any{
		nil, {"azp": "other"}, {"azp": "other", "client_id": "web"}, {"azp": ""}, {"azp": []string{"web"}},
		{"azp": 7}, {"client_id": "Web"}, {"client_id": true},
	} {
		refused(t, v, with(t, claims), token.ReasonAzpMismatch)
	}
	accepted(t, verifier(t, nil), with(t, map[string]any{"azp": "whoever"}))
	c := config(t)
	c.AuthorizedParties = []string{"web", "web", ""}
	if _, err := token.NewVerifier(c); err == nil || !strings.Contains(err.Error(), "azp") {
		t.Errorf("%v", err)
	}
}

func TestATypeIsFoldedInASCIIOnlyAndNamesSomething(t *testing.T) {
	v := verifier(t, nil)
	accepted(t, v, sealed(t, `{"alg":"ES256","typ":"Application/jwt","kid":"ec"}`, toJSON(t, goodClaims(nil)), ring().ec))
	refused(t, v, sealed(t, `{"alg":"ES256","typ":"appl\u0130cation/JWT","kid":"ec"}`, toJSON(t, goodClaims(nil)), ring().ec), token.ReasonTypMismatch)
	c := config(t)
	c.Types = []string{"JWT", "application/"}
	if _, err := token.NewVerifier(c); err == nil || !strings.Contains(err.Error(), "names no type") {
		t.Errorf("%v", err)
	}
}

func BenchmarkVerifyRemembered(b *testing.B) {
	for _, alg := range benchAlgorithms {
		v, raw := benchVerifier(b, alg)
		s := newSet(b, v)
		s.Remember(token.NewCache(0))
		b.Run(alg, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Verify(b.Context(), raw); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("parallel", func(b *testing.B) {
		v, raw := benchVerifier(b, "ES256")
		s := newSet(b, v)
		s.Remember(token.NewCache(0))
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := s.Verify(context.Background(), raw); err != nil {
					b.Error(err)
				}
			}
		})
	})
}
