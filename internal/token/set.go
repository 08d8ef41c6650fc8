package token

import (
	"context"
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
	if len(s.all) == 1 {
		return s.all[0].Verify(ctx, raw)
	}
	c, reason := parse(raw, s.maxToken)
	if reason != "" {
		return nil, refuse("", reason)
	}
	iss, _ := c.issuer()
	v := s.byIssuer[iss]
	if v == nil {
		return nil, refuse("", ReasonIssMismatch)
	}
	return v.judge(ctx, c)
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
