package token_test

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/identity"
	"github.com/moat-gateway/moat/internal/token"
)

// strict is an issuer that checks everything there is to check.
func strict(t *testing.T) *token.Verifier {
	t.Helper()
	return verifier(t, func(c *token.Config) { c.AuthorizedParties = []string{"web"} })
}

func inspected(t *testing.T, v *token.Verifier, raw string, offline bool) *token.Inspection {
	t.Helper()
	seen, err := v.Inspect(t.Context(), raw, now, offline)
	if err != nil {
		t.Fatal(err)
	}
	return seen
}

func names(checks []token.Check, outcome token.Outcome) string {
	var out []string
	for _, c := range checks {
		if c.Outcome == outcome {
			out = append(out, c.Name)
		}
	}
	return strings.Join(out, " ")
}

const allChecks = "form header alg key signature purpose iss aud azp exp dates nbf iat lifetime caller revoked expiry"

// TestChecksAreListedInTheOrderInWhichTheyAreMade gives each token the fault of
// one check and of one behind it: the verifier must name the first.
func TestChecksAreListedInTheOrderInWhichTheyAreMade(t *testing.T) {
	past, future := now.Unix()-7200, now.Unix()+600
	far := now.Unix() + 200_000
	rows := []struct {
		check, reason string
		header        string
		claims        map[string]any
		stranger      bool
		cut           bool
	}{
		{check: "form", reason: token.ReasonMalformed, header: `{"alg":"ES256","typ":"x"}`, cut: true},
		{check: "header", reason: token.ReasonCrit, header: `{"alg":"RS256","crit":["x"]}`},
		{check: "header", reason: token.ReasonTypMismatch, header: `{"alg":"RS256","typ":"x"}`},
		{check: "alg", reason: token.ReasonAlgMismatch, header: `{"alg":"RS256","kid":"nobody"}`},
		{check: "key", reason: token.ReasonUnknownKey, header: `{"alg":"ES256","kid":"nobody"}`, stranger: true},
		{check: "signature", reason: token.ReasonBadSignature, claims: map[string]any{"events": 1}, stranger: true},
		{check: "purpose", reason: token.ReasonEventToken, claims: map[string]any{"events": 1, "iss": "x"}},
		{check: "iss", reason: token.ReasonIssMismatch, claims: map[string]any{"iss": "x", "aud": "x"}},
		{check: "aud", reason: token.ReasonAudMismatch, claims: map[string]any{"aud": "x", "azp": "x"}},
		{check: "azp", reason: token.ReasonAzpMismatch, claims: map[string]any{"azp": "x", "exp": nil}},
		{check: "exp", reason: token.ReasonExpMissing, claims: map[string]any{"exp": nil, "nbf": "x"}},
		{check: "dates", reason: token.ReasonBadDate, claims: map[string]any{"iat": "x", "nbf": future}},
		{check: "nbf", reason: token.ReasonNotYetValid, claims: map[string]any{"nbf": future, "iat": future}},
		{check: "iat", reason: token.ReasonIatFuture, claims: map[string]any{"iat": future, "exp": far}},
		{check: "lifetime", reason: token.ReasonLifetime, claims: map[string]any{"exp": far, "sub": 1.5}},
		{check: "caller", reason: token.ReasonBadClaim, claims: map[string]any{"sub": 1.5, "exp": past}},
		{check: "expiry", reason: token.ReasonExpired, claims: map[string]any{"exp": past}},
	}
	for _, row := range rows {
		t.Run(row.reason, func(t *testing.T) {
			change := map[string]any{"azp": "web"}
			maps.Copy(change, row.claims)
			claims := goodClaims(change)
			header, key := goodHeader, ring().ec
			if row.header != "" {
				header = row.header
			}
			if row.stranger {
				key = ring().stranger
			}
			raw := sealed(t, header, toJSON(t, claims), key)
			if row.cut {
				raw += "="
			}
			seen := inspected(t, strict(t), raw, false)
			if seen.Reason != row.reason || seen.Caller != nil {
				t.Fatalf("reason %q, caller %v", seen.Reason, seen.Caller)
			}
			order := strings.Fields(allChecks)
			i := slices.Index(order, row.check)
			before := strings.Replace(strings.Join(order[:i], " "), " revoked", "", 1)
			after := strings.Join(order[i+1:], " ")
			if got := names(seen.Checks, token.Passed); got != before {
				t.Errorf("passed %q, want %q", got, before)
			}
			if got := names(seen.Checks, token.Failed); got != row.check {
				t.Errorf("failed %q, want %q", got, row.check)
			}
			if got := names(seen.Checks, token.NotReached); got != after {
				t.Errorf("not reached %q, want %q", got, after)
			}
		})
	}
}

// TestWhatIsRefusedFailsOneCheckForTheSameReason runs every attack. A reason that
// no check has shows as a token that is refused although no check fails.
func TestWhatIsRefusedFailsOneCheckForTheSameReason(t *testing.T) {
	attacks := slices.Concat(
		spellingAttacks(t), shapeAttacks(t), jsonAttacks(t), headerAttacks(t), algorithmAttacks(t),
		signatureAttacks(t), addressAttacks(t), dateAttacks(t), purposeAttacks(t), propertyAttacks(t))
	v := verifier(t, nil)
	met := map[string]bool{}
	for _, a := range attacks {
		seen := inspected(t, v, a.token, false)
		i := slices.IndexFunc(seen.Checks, func(c token.Check) bool { return c.Outcome == token.Failed })
		if i < 0 || seen.Checks[i].Reason != a.reason || seen.Reason != a.reason || seen.Caller != nil {
			t.Errorf("%s: want %s, got %+v", a.name, a.reason, seen)
		}
		met[a.reason] = true
	}
	// The first two are tested on their own; without keys nothing fails, and
	// whether a token was revoked is not asked.
	for _, reason := range []string{token.ReasonAzpMismatch, token.ReasonKidMissing, token.ReasonKeysUnavailable, token.ReasonRevoked} {
		met[reason] = true
	}
	for _, reason := range token.Reasons() {
		if !met[reason] {
			t.Errorf("no token is refused for %s; place it among the checks, in the order of judge", reason)
		}
	}
}

func TestATokenThatNamesNoneOfManyKeys(t *testing.T) {
	var keys []token.Key
	for _, id := range []string{"a", "b", "c", "d", "e"} {
		keys = append(keys, token.Key{ID: id, Public: &ring().ec.PublicKey})
	}
	v := verifier(t, func(c *token.Config) { c.Keys = static(t, nil, keys...) })
	seen := inspected(t, v, sealed(t, `{"alg":"ES256"}`, toJSON(t, goodClaims(nil)), ring().ec), false)
	if seen.Reason != token.ReasonKidMissing || names(seen.Checks, token.Failed) != "key" {
		t.Errorf("%+v", seen)
	}
}

func TestAnAcceptedTokenPassesEveryCheck(t *testing.T) {
	seen := inspected(t, strict(t), with(t, map[string]any{"azp": "web"}), false)
	if seen.Reason != "" || seen.Unsigned || seen.Caller == nil || seen.Caller.ID != "u-1" {
		t.Fatalf("%+v", seen)
	}
	if got := names(seen.Checks, token.NotChecked); got != "revoked" {
		t.Errorf("not checked %q", got)
	}
	if names(seen.Checks, token.Failed)+names(seen.Checks, token.NotReached) != "" {
		t.Errorf("checks %+v", seen.Checks)
	}
	if seen.Header["alg"] != "ES256" || seen.Claims["sub"] != "u-1" {
		t.Errorf("header %v, claims %v", seen.Header, seen.Claims)
	}
	if len(seen.Moments) != 2 || seen.Moments[0].Claim != "iat" || seen.Moments[1].At.Unix() != now.Unix()+600 {
		t.Errorf("moments %v", seen.Moments)
	}
}

func TestOnlyDatesThatCanBeReadAreShown(t *testing.T) {
	seen := inspected(t, strict(t), with(t, map[string]any{"azp": "web", "nbf": "soon", "auth_time": 1e300}), false)
	for _, m := range seen.Moments {
		if m.Claim != "iat" && m.Claim != "exp" {
			t.Errorf("%s is %s", m.Claim, m.At)
		}
	}
}

func TestTheTimeOfAnInspectionIsTheOneGiven(t *testing.T) {
	raw := with(t, map[string]any{"azp": "web"})
	seen, err := strict(t).Inspect(t.Context(), raw, now.Add(time.Hour), false)
	if err != nil || seen.Reason != token.ReasonExpired || seen.Caller != nil {
		t.Errorf("%+v, %v", seen, err)
	}
}

// asked is a source of keys that must not be asked.
type asked struct{ t *testing.T }

func (a asked) Lookup(context.Context, string, string) ([]token.Key, error) {
	a.t.Error("keys were looked up")
	return nil, token.ErrKeysUnavailable
}

func (asked) Ready() bool { return true }

// TestOfflineNothingButTheSignatureIsLeftOut signs every token with a key that
// the issuer does not know.
func TestOfflineNothingButTheSignatureIsLeftOut(t *testing.T) {
	v := verifier(t, func(c *token.Config) { c.Keys = asked{t} })
	for name, row := range map[string]struct {
		header string
		claims map[string]any
		reason string
	}{
		"good":       {goodHeader, nil, ""},
		"other kid":  {`{"alg":"ES256","kid":"other"}`, nil, ""},
		"header":     {`{"alg":"ES256","typ":"x"}`, nil, token.ReasonTypMismatch},
		"secret alg": {`{"alg":"HS256"}`, nil, token.ReasonAlgMismatch},
		"aud":        {goodHeader, map[string]any{"aud": "x"}, token.ReasonAudMismatch},
		"caller":     {goodHeader, map[string]any{"sub": nil}, token.ReasonBadClaim},
		"expired":    {goodHeader, map[string]any{"exp": now.Unix() - 300}, token.ReasonExpired},
	} {
		t.Run(name, func(t *testing.T) {
			seen := inspected(t, v, sealed(t, row.header, toJSON(t, goodClaims(row.claims)), ring().stranger), true)
			if seen.Reason != row.reason || (seen.Caller == nil) != (row.reason != "") {
				t.Fatalf("reason %q, want %q; caller %v", seen.Reason, row.reason, seen.Caller)
			}
			before := row.reason == token.ReasonTypMismatch || row.reason == token.ReasonAlgMismatch
			if seen.Unsigned == before {
				t.Errorf("unsigned is %v", seen.Unsigned)
			}
			if got := names(seen.Checks, token.Passed); strings.Contains(got, "key") || strings.Contains(got, "signature") {
				t.Errorf("passed %q", got)
			}
		})
	}
}

// TestAReaderAcceptsNoToken holds whatever the algorithm.
func TestAReaderAcceptsNoToken(t *testing.T) {
	v, err := token.NewReader(token.Config{Name: "reader", AnyIssuer: true, AnyAudience: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, alg := range token.Algorithms() {
		t.Run(alg, func(t *testing.T) {
			key, err := token.GenerateKey(alg, 0)
			if err != nil {
				t.Fatal(err)
			}
			raw, err := token.Sign(goodClaims(nil), map[string]any{"kid": "x"}, key, alg)
			if err != nil {
				t.Fatal(err)
			}
			seen := inspected(t, v, raw, false)
			if seen.Reason != "" || !seen.Unsigned || seen.Caller == nil {
				t.Errorf("%+v", seen)
			}
			if got := names(seen.Checks, token.NotChecked); got != "key signature iss aud azp revoked" {
				t.Errorf("not checked %q", got)
			}
			if who, err := v.Verify(t.Context(), raw); who != nil || err == nil {
				t.Error("the reader accepts a token")
			}
		})
	}
}

func TestRevocationIsNotAskedFor(t *testing.T) {
	v := verifier(t, func(c *token.Config) {
		c.Revoked = func(*identity.Principal, time.Time) bool {
			t.Error("asked")
			return true
		}
	})
	if seen := inspected(t, v, with(t, nil), false); seen.Reason != "" {
		t.Errorf("reason %q", seen.Reason)
	}
}

func TestWhatWouldHavePassedIsSaid(t *testing.T) {
	for reason, row := range map[string]struct {
		raw  string
		want []string
	}{
		token.ReasonTypMismatch: {sealed(t, `{"alg":"ES256","typ":"x"}`, "{}", ring().ec), []string{"at+jwt", "jwt"}},
		token.ReasonAlgMismatch: {sealed(t, `{"alg":"RS256"}`, "{}", ring().ec), []string{"ES256"}},
		token.ReasonIssMismatch: {with(t, map[string]any{"iss": "x"}), []string{issuer}},
		token.ReasonAudMismatch: {with(t, map[string]any{"aud": "x"}), []string{audience}},
		token.ReasonAzpMismatch: {with(t, nil), []string{"web"}},
		token.ReasonLifetime:    {with(t, map[string]any{"azp": "web", "exp": now.Unix() + 200_000}), []string{"24h0m0s"}},
		token.ReasonBadClaim:    {with(t, map[string]any{"azp": "web", "sub": nil}), nil},
	} {
		seen := inspected(t, strict(t), row.raw, false)
		i := slices.IndexFunc(seen.Checks, func(c token.Check) bool { return c.Outcome == token.Failed })
		if seen.Reason != reason || i < 0 || !slices.Equal(seen.Checks[i].Accepts, row.want) {
			t.Errorf("%s: reason %q, checks %+v", reason, seen.Reason, seen.Checks)
		}
	}
}

func TestAnEmptyVerifierInspectsNothing(t *testing.T) {
	for _, v := range []*token.Verifier{nil, new(token.Verifier)} {
		if seen, err := v.Inspect(t.Context(), with(t, nil), now, true); err == nil {
			t.Errorf("%+v, want an error", seen)
		}
	}
	if new(token.Set).Verifier("main") != nil || (*token.Set)(nil).Verifier("main") != nil {
		t.Error("an empty set has a verifier")
	}
}

func TestKeysThatAreNotGenerated(t *testing.T) {
	for name, row := range map[string]struct {
		alg  string
		bits int
	}{
		"none": {"none", 0}, "no name": {"", 0}, "weak": {"RS256", 1024}, "slow": {"PS512", 16384},
		"negative": {"RS256", -1}, "an EC key of a length": {"ES256", 2048},
	} {
		if key, err := token.GenerateKey(row.alg, row.bits); key != nil || err == nil {
			t.Errorf("%s: %T, %v", name, key, err)
		}
	}
}
