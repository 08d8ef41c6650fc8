package token

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/moat-gateway/moat/internal/identity"
)

// Set judges the tokens of several issuers. The unverified iss of a token picks
// one of them, and from then on only that one's keys and rules count. The zero
// Set refuses every token.
type Set struct {
	all      []*Verifier
	byIssuer map[string]*Verifier
	maxToken int // the largest of all

	cache *Cache
	id    [sha256.Size]byte // of what all were made from
}

// NewSet returns the set of the given issuers. Names and iss values must be
// unique; an issuer that accepts any iss must be alone.
func NewSet(verifiers ...*Verifier) (*Set, error) {
	s := &Set{byIssuer: map[string]*Verifier{}}
	var errs []error
	names := map[string]bool{}
	for i, v := range verifiers {
		if v == nil || v.keys == nil {
			errs = append(errs, fmt.Errorf("issuer %d: is not configured", i+1))
			continue
		}
		if names[v.name] {
			errs = append(errs, fmt.Errorf("issuer %q: stands twice", v.name))
			continue
		}
		names[v.name] = true
		if v.anyIssuer && len(verifiers) > 1 {
			errs = append(errs, fmt.Errorf("issuer %q: accepts any iss and must be alone", v.name))
		}
		for iss := range v.issuers {
			if other := s.byIssuer[iss]; other != nil {
				errs = append(errs, fmt.Errorf("iss %q: claimed by issuers %q and %q", iss, other.name, v.name))
				continue
			}
			s.byIssuer[iss] = v
		}
		s.all = append(s.all, v)
		s.maxToken = max(s.maxToken, v.maxToken)
	}
	if len(verifiers) == 0 {
		errs = append(errs, errors.New("no issuer"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("token: issuers: %w", err)
	}
	return s, nil
}

// Verify returns the caller a token vouches for, as Verifier.Verify does. A
// token whose iss none of several issuers claims is refused without asking for
// keys.
func (s *Set) Verify(ctx context.Context, raw string) (*identity.Principal, error) {
	if s == nil || len(s.all) == 0 {
		return nil, refuse("", ReasonUnknownKey)
	}
	if len(raw) > s.maxToken {
		return nil, refuse(s.alone(), ReasonTooLarge)
	}
	if s.cache == nil {
		v, c, err := s.pick(raw)
		if err != nil {
			return nil, err
		}
		found, refusal := v.judge(ctx, c)
		if refusal != nil {
			return nil, refusal
		}
		return found.who, nil
	}
	key := keyOf(&s.id, raw)
	if p, err, ok := s.remembered(&key); ok {
		return p, err
	}
	v, c, err := s.pick(raw)
	if err != nil {
		return nil, err
	}
	return s.judged(ctx, v, c, &key)
}

// pick takes a token apart and returns the one issuer that may judge it.
func (s *Set) pick(raw string) (*Verifier, *compact, error) {
	c, reason := parse(raw, s.maxToken)
	if reason != "" {
		return nil, nil, refuse(s.alone(), reason)
	}
	if len(s.all) == 1 {
		return s.all[0], c, nil
	}
	iss, _ := c.issuer()
	v := s.byIssuer[iss]
	if v == nil {
		return nil, nil, refuse("", ReasonIssMismatch)
	}
	return v, c, nil
}

// alone returns the name of the issuer when there is only one.
func (s *Set) alone() string {
	if len(s.all) == 1 {
		return s.all[0].name
	}
	return ""
}

// Ready reports whether the keys of every issuer have been loaded.
func (s *Set) Ready() bool {
	if s == nil || len(s.all) == 0 {
		return false
	}
	for _, v := range s.all {
		if !v.Ready() {
			return false
		}
	}
	return true
}
