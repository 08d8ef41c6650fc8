package rbac

import (
	"errors"
	"fmt"
	"strings"
)

// The words that stand for a whole requirement. No permission may be called
// so: a rule could not ask for it.
const (
	wordPublic        = "public"
	wordAuthenticated = "authenticated"
	wordDeny          = "deny"
)

const (
	everything    = "*"
	below         = ".*"
	ownSuffix     = ".own"
	maxPermission = 256
)

// Grants reports whether a role that holds the permission held may do what
// needs wanted. Both are dotted words, ":" reads as ".", and case counts. "*"
// grants everything; "users.*" grants everything below users, at any depth, and
// not users itself; every other permission grants only itself. A wanted
// "users.*" is granted by "users.*" and "*" alone. What is not a permission
// grants nothing and is granted by nothing.
//
// Grants says nothing of ownership: what "documents.own" opens depends on the
// route and the caller, and only Decide knows those.
func Grants(held, wanted string) bool {
	h, err := parsePermission(held)
	if err != nil {
		return false
	}
	w, err := parsePermission(wanted)
	if err != nil {
		return false
	}
	var set grants
	set.add(h)
	return set.has(w) || set.hasOwn(w)
}

// CheckPermission returns what is wrong with a permission.
func CheckPermission(s string) error {
	_, err := parsePermission(s)
	return err
}

// parsePermission returns the dotted form of s.
func parsePermission(s string) (string, error) {
	switch {
	case s == "":
		return "", errors.New("a permission must not be empty")
	case len(s) > maxPermission:
		return "", fmt.Errorf("a permission has at most %d bytes", maxPermission)
	case reserved(s):
		return "", fmt.Errorf("%s is a requirement of its own, not a permission", s)
	case s == everything:
		return s, nil
	}
	dotted := strings.ReplaceAll(s, ":", ".")
	// The wildcard is only ever the last word, and below something.
	for word := range strings.SplitSeq(strings.TrimSuffix(dotted, below), ".") {
		if !isPermissionWord(word) {
			return "", errors.New("a permission is words of letters, digits, _ and - joined by . or :, " +
				"at most its last word being *")
		}
	}
	return dotted, nil
}

func reserved(s string) bool {
	return s == wordPublic || s == wordAuthenticated || s == wordDeny
}

func isPermissionWord(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '-') {
			return false
		}
	}
	return s != ""
}

// grants is a set of held permissions, sorted by how they grant, so that asking
// costs as many look-ups as the asked permission has words, however many are
// held. The zero value grants nothing.
type grants struct {
	all   bool
	exact map[string]struct{} // documents.read
	below map[string]struct{} // documents, for documents.*
	own   map[string]struct{} // documents, for documents.own
}

// add takes a permission that parsePermission returned.
func (g *grants) add(permission string) {
	if permission == everything {
		g.all = true
		return
	}
	if prefix, ok := strings.CutSuffix(permission, below); ok {
		put(&g.below, prefix)
		return
	}
	if prefix, ok := strings.CutSuffix(permission, ownSuffix); ok {
		put(&g.own, prefix)
		return
	}
	put(&g.exact, permission)
}

func (g *grants) addAll(other *grants) {
	g.all = g.all || other.all
	for _, sets := range []struct{ to, from *map[string]struct{} }{
		{&g.exact, &other.exact}, {&g.below, &other.below}, {&g.own, &other.own},
	} {
		for key := range *sets.from {
			put(sets.to, key)
		}
	}
}

func put(set *map[string]struct{}, key string) {
	if *set == nil {
		*set = make(map[string]struct{})
	}
	(*set)[key] = struct{}{}
}

// has reports whether the set grants wanted on any route, whoever owns it.
func (g *grants) has(wanted string) bool {
	if g.all {
		return true
	}
	if _, ok := g.exact[wanted]; ok {
		return true
	}
	return under(g.below, wanted)
}

// hasOwn reports whether wanted is a permission like documents.own, and in the
// set as such.
func (g *grants) hasOwn(wanted string) bool {
	prefix, ok := strings.CutSuffix(wanted, ownSuffix)
	if !ok {
		return false
	}
	_, ok = g.own[prefix]
	return ok
}

// owns reports whether the set grants wanted on a route that is the caller's
// own.
func (g *grants) owns(wanted string) bool { return under(g.own, wanted) }

// under reports whether wanted lies below a word of the set.
func under(set map[string]struct{}, wanted string) bool {
	if len(set) == 0 {
		return false
	}
	for i := range len(wanted) {
		if wanted[i] != '.' {
			continue
		}
		if _, ok := set[wanted[:i]]; ok {
			return true
		}
	}
	return false
}
