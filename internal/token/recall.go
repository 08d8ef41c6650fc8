package token

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	"github.com/moat-gateway/moat/internal/identity"
)

// verdict is what a verifier found out about a token it accepts.
type verdict struct {
	who            *identity.Principal
	print          [sha256.Size]byte   // of the key that vouched
	tried          [][sha256.Size]byte // of the keys that did not, where none did
	begins, issued time.Time           // zero where the token does not say
}

// Remember makes the set remember verdicts in c. It must be called before the
// set is used. Nil remembers nothing.
func (s *Set) Remember(c *Cache) {
	s.cache = c
	sum := sha256.New()
	for _, v := range s.all {
		sum.Write(v.id[:])
	}
	s.id = [sha256.Size]byte(sum.Sum(nil))
}

// remembered answers from the cache. It is not ok when the token has to be
// judged: nothing is remembered, or something has changed since.
func (s *Set) remembered(key *[sha256.Size]byte) (p *identity.Principal, err error, ok bool) { //nolint:revive // ok is about both.
	if e := s.cache.good.get(key); e != nil {
		if v := s.named(e.verifier); v != nil {
			return v.again(e)
		}
	}
	if e := s.cache.bad.get(key); e != nil {
		if v := s.named(e.verifier); v != nil && v.stillBad(e) {
			refusal := refuse(e.verifier, e.reason)
			refusal.OfIssuer = e.ofIssuer
			return nil, refusal, true
		}
	}
	return nil, nil, false
}

// stillBad reports whether a signature is bad under the keys of now: those that
// were tried must still be the ones in use.
func (v *Verifier) stillBad(e *entry) bool {
	for _, print := range e.tried {
		if !v.holds(print) {
			return false
		}
	}
	now := v.now()
	return now.Before(e.until) && !now.Before(e.made)
}

func (s *Set) named(name string) *Verifier {
	for _, v := range s.all {
		if v.name == name {
			return v
		}
	}
	return nil
}

// again is what of a verdict can change without the token: time, the keys, the
// configured roles, and whether the caller's credential was revoked.
func (v *Verifier) again(e *entry) (p *identity.Principal, err error, ok bool) { //nolint:revive // ok is about both.
	now := v.now()
	switch {
	case now.Before(e.made.Add(-v.leeway)), !now.Before(e.until):
		return nil, nil, false // Clocks are set back, too.
	case now.Add(v.leeway).Before(e.begins), now.Add(v.leeway).Before(e.issued):
		return nil, nil, false
	case !v.holds(e.print), v.rolesID() != e.rolesID:
		return nil, nil, false
	case v.revoked != nil && v.revoked(e.who, e.issued):
		return nil, refuse(v.name, ReasonRevoked), true
	case !now.Before(e.who.Expires.Add(v.leeway)):
		return nil, refuse(v.name, ReasonExpired), true
	}
	return e.who, nil, true
}

func (v *Verifier) holds(print [sha256.Size]byte) bool {
	holder, ok := v.keys.(Holder)
	return ok && holder.Holds(print)
}

// holdsAll reports whether keys were tried and all of them can be asked for again.
func (v *Verifier) holdsAll(tried [][sha256.Size]byte) bool {
	for _, print := range tried {
		if !v.holds(print) {
			return false
		}
	}
	return len(tried) > 0
}

func (v *Verifier) rolesID() [sha256.Size]byte {
	if v.roles256 == nil {
		return [sha256.Size]byte{}
	}
	return v.roles256()
}

// judged verifies a token and remembers the verdict, if it may.
func (s *Set) judged(ctx context.Context, v *Verifier, c *compact, key *[sha256.Size]byte) (*identity.Principal, error) {
	// Before: roles that change meanwhile must not pass for the ones that
	// counted.
	rolesID := v.rolesID()
	found, refusal := v.judge(ctx, c)
	now := v.now()
	if refusal != nil {
		if v.holdsAll(found.tried) {
			s.cache.bad.put(key, &entry{
				made: now, until: now.Add(refusedFor), reason: refusal.Reason, verifier: v.name,
				tried: found.tried, ofIssuer: refusal.OfIssuer,
			})
		}
		return nil, refusal
	}
	if v.holds(found.print) {
		s.cache.good.put(key, &entry{
			made: now, until: now.Add(rememberedFor), who: found.who, print: found.print, rolesID: rolesID,
			begins: found.begins, issued: found.issued, verifier: v.name,
		})
	}
	return found.who, nil
}

// identify returns a hash of everything that decides what the verifier accepts
// and whom it names, except what is asked for on every hit: roles and remote
// keys. Keys that were written down are in it, so that a refusal under wrong
// ones does not outlive them.
func (c Config) identify() [sha256.Size]byte {
	accepted := c.accepted()
	var prints []string
	if keys, ok := c.Keys.(*KeySet); ok {
		for print := range keys.prints {
			prints = append(prints, string(print[:]))
		}
		slices.Sort(prints)
	}
	c.KnownRole, c.RolesID, c.Revoked, c.Keys, c.Now = nil, nil, nil, nil, nil
	// In Go's own syntax every field stands by its name, nil is not empty, and
	// maps are sorted.
	return sha256.Sum256(fmt.Appendf(nil, "%#v %q %q", c, accepted, prints))
}
