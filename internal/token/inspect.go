package token

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/moat-gateway/moat/internal/identity"
)

// Outcome is what a check said about a token.
type Outcome string

// The outcomes of a check.
const (
	Passed Outcome = "ok"
	Failed Outcome = "failed"
	// NotReached is a check behind the one that failed.
	NotReached Outcome = "not reached"
	// NotChecked is a check that was switched off, or that needs keys that were
	// not there. It is no word for the token.
	NotChecked Outcome = "not checked"
)

// Check is one check and its outcome.
type Check struct {
	Name    string
	Outcome Outcome
	// Reason is one of the Reason constants when the check failed.
	Reason string
	// Accepts is what would have passed, where that is a list or a bound.
	Accepts []string
}

// Moment is a date in a token.
type Moment struct {
	Claim string
	At    time.Time
}

// Inspection is what a verifier has to say about a token.
type Inspection struct {
	// Header and Claims are nil when the token is not well-formed. Nothing in them
	// is verified unless Caller is set and Unsigned is not.
	Header, Claims map[string]any
	// Moments are the dates that can be read.
	Moments []Moment
	// Checks are all checks in the order in which a verifier makes them.
	Checks []Check
	// Reason is that of the check that failed; empty when none did.
	Reason string
	// Unsigned says that no key was there to check the signature with. All other
	// checks are as if it held.
	Unsigned bool
	// Caller is whom the token vouches for; nil when a check failed.
	Caller *identity.Principal
}

// checks are the checks in the order of Verifier.judge, each with its reasons.
// A token that fails two of them is refused for the first.
var checks = []struct {
	name    string
	reasons []string
}{
	{"form", []string{ReasonTooLarge, ReasonMalformed, ReasonHeaderDuplicate, ReasonClaimDuplicate}},
	{"header", []string{ReasonCrit, ReasonHeaderMember, ReasonTypMismatch}},
	{"alg", []string{ReasonAlgMismatch}},
	{checkKey, []string{ReasonKeysUnavailable, ReasonUnknownKey, ReasonKidMissing}},
	{checkSigned, []string{ReasonBadSignature}},
	{"purpose", []string{ReasonEventToken, ReasonIDToken}},
	{checkIss, []string{ReasonIssMismatch}},
	{checkAud, []string{ReasonAudMismatch}},
	{checkAzp, []string{ReasonAzpMismatch}},
	{"exp", []string{ReasonExpMissing}},
	{"dates", []string{ReasonBadDate}},
	{"nbf", []string{ReasonNotYetValid}},
	{"iat", []string{ReasonIatFuture}},
	{"lifetime", []string{ReasonLifetime}},
	{"caller", []string{ReasonBadClaim}},
	{checkRevoked, []string{ReasonRevoked}},
	{"expiry", []string{ReasonExpired}},
}

// The checks that can be off.
const (
	checkKey     = "key"
	checkSigned  = "signature"
	checkIss     = "iss"
	checkAud     = "aud"
	checkAzp     = "azp"
	checkRevoked = "revoked"
)

// noKeys is a KeySource that has none, for tokens that are to be read and not
// accepted.
type noKeys struct{}

func (noKeys) Lookup(context.Context, string, string) ([]Key, error) {
	return nil, ErrKeysUnavailable
}

func (noKeys) Ready() bool { return false }

// NewReader returns a verifier for Inspect that has no keys: it takes every
// algorithm there is, and accepts no token.
func NewReader(c Config) (*Verifier, error) {
	secret, err := GenerateKey("HS512", 0)
	if err != nil {
		return nil, err
	}
	if c.Keys, err = NewStaticKeys([]Key{{Public: secret}}, nil); err != nil {
		return nil, err
	}
	c.Algorithms = nil
	v, err := NewVerifier(c)
	if err != nil {
		return nil, err
	}
	for _, a := range algorithmTable {
		v.algorithms[a.name] = a
	}
	return v.withoutKeys(), nil
}

func (v *Verifier) withoutKeys() *Verifier {
	w := *v
	w.keys = noKeys{}
	return &w
}

// Inspect says what Verify makes of a token at a given time, check by check. It
// runs Verify itself. Offline, the verifier's keys are not asked for, because
// that could go over a network. Whether the token was revoked is not asked.
func (v *Verifier) Inspect(ctx context.Context, raw string, at time.Time, offline bool) (*Inspection, error) {
	if v == nil || v.keys == nil {
		return nil, errors.New("token: inspect: the verifier is not configured")
	}
	w := *v
	if offline {
		w = *v.withoutKeys()
	}
	w.now, w.revoked = func() time.Time { return at }, nil
	seen := new(Inspection)
	if c, reason := parse(raw, w.maxToken); reason == "" {
		seen.read(c)
	}
	who, err := w.Verify(ctx, raw)
	if reasonOf(err) == ReasonKeysUnavailable {
		seen.Unsigned = true
		if who, err = w.verifyUnsigned(ctx, raw); err != nil && reasonOf(err) == "" {
			return nil, err
		}
	}
	seen.Caller, seen.Reason = who, reasonOf(err)
	seen.Checks = w.outcomes(seen)
	return seen, nil
}

// reasonOf returns the reason of a refusal, and "" for every other error.
func reasonOf(err error) string {
	var refused *Error
	if errors.As(err, &refused) {
		return refused.Reason
	}
	return ""
}

func (i *Inspection) read(c *compact) {
	i.Header, i.Claims = c.header, c.claims
	for _, name := range []string{"iat", "nbf", "exp", "auth_time"} {
		if at, present, ok := date(c.claims, name); present && ok {
			i.Moments = append(i.Moments, Moment{Claim: name, At: at})
		}
	}
}

// verifyUnsigned verifies the token's header and claims, to the byte, under a
// signature by a key made for this one call. That shows what Verify would say
// behind the signature, and no verifier has to exist that skips it.
func (v *Verifier) verifyUnsigned(ctx context.Context, raw string) (*identity.Principal, error) {
	c, reason := parse(raw, v.maxToken)
	if reason != "" {
		return nil, refuse(v.name, reason)
	}
	alg, _, reason := v.readHeader(c.header)
	if reason != "" {
		return nil, refuse(v.name, reason)
	}
	key, err := GenerateKey(alg.name, 0)
	if err != nil {
		return nil, err
	}
	signature, err := alg.method.Sign(c.signed, key)
	if err != nil {
		return nil, fmt.Errorf("token: inspect: %w", err)
	}
	w := *v
	if w.keys, err = NewStaticKeys([]Key{{Algorithm: alg.name, Public: publicOf(key)}}, nil); err != nil {
		return nil, err
	}
	return w.Verify(ctx, c.signed+"."+base64.RawURLEncoding.EncodeToString(signature))
}

// outcomes spreads the one reason over the checks.
func (v *Verifier) outcomes(seen *Inspection) []Check {
	off := map[string]bool{
		checkKey: seen.Unsigned, checkSigned: seen.Unsigned,
		checkIss: v.anyIssuer, checkAud: v.anyAudience, checkAzp: len(v.parties) == 0,
		checkRevoked: true,
	}
	var out []Check
	outcome := Passed
	for _, check := range checks {
		c := Check{Name: check.name, Outcome: outcome}
		switch {
		case outcome == NotReached:
		case slices.Contains(check.reasons, seen.Reason):
			c.Outcome, c.Reason, c.Accepts = Failed, seen.Reason, v.accepts(seen.Reason)
			outcome = NotReached
		case off[check.name]:
			c.Outcome = NotChecked
		}
		out = append(out, c)
	}
	return out
}

// accepts returns what a token that was refused for the reason could have said
// instead.
func (v *Verifier) accepts(reason string) []string {
	switch reason {
	case ReasonTypMismatch:
		return slices.Sorted(maps.Keys(v.types))
	case ReasonAlgMismatch:
		return slices.Sorted(maps.Keys(v.algorithms))
	case ReasonIssMismatch:
		return slices.Sorted(maps.Keys(v.issuers))
	case ReasonAudMismatch:
		return slices.Sorted(maps.Keys(v.audience))
	case ReasonAzpMismatch:
		return slices.Sorted(maps.Keys(v.parties))
	case ReasonLifetime:
		return []string{v.maxLifetime.String()}
	}
	return nil
}

// Verifier returns the set's verifier of that name, or nil.
func (s *Set) Verifier(name string) *Verifier {
	if s == nil {
		return nil
	}
	return s.named(name)
}

// Algorithms returns the names of all algorithms, those of one kind of key next
// to each other with the default of the kind first.
func Algorithms() []string {
	names := make([]string, 0, len(algorithmTable))
	for _, a := range algorithmTable {
		names = append(names, a.name)
	}
	return names
}

// GenerateKey returns a new key for an algorithm, as Sign takes it. Bits is the
// length of an RSA key, 2048 to 8192, and zero, for 2048, for all others.
func GenerateKey(alg string, bits int) (any, error) {
	a, ok := findAlgorithm(alg)
	if !ok {
		return nil, fmt.Errorf("token: generate: algorithm %q: is none of %q", alg, Algorithms())
	}
	if bits != 0 && a.family != familyRSA {
		return nil, fmt.Errorf("token: generate: %d bits: only RSA keys have a choice of length", bits)
	}
	if bits == 0 {
		bits = leastRSABits
	}
	if bits < leastRSABits || bits > mostRSABits {
		return nil, fmt.Errorf("token: generate: RSA key of %d bits: must have %d to %d", bits, leastRSABits, mostRSABits)
	}
	switch a.family {
	case familyRSA:
		return rsa.GenerateKey(rand.Reader, bits)
	case familyEC:
		return ecdsa.GenerateKey(a.curve, rand.Reader)
	case familyEd:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}
	secret := make([]byte, a.secret)
	_, _ = rand.Read(secret) // It never fails.
	return secret, nil
}

// publicOf returns what a verifier checks with of a key that Sign takes.
func publicOf(key any) any {
	if private, ok := key.(crypto.Signer); ok {
		return private.Public()
	}
	return key
}
