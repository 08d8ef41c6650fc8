package rbac

import (
	"errors"
	"fmt"
	"slices"
)

const (
	anyMethod  = "*"
	maxMethods = 32
	maxMethod  = 32

	methodGet  = "GET"
	methodHead = "HEAD"
)

// methodSet is which methods are listed. The zero set lists none.
type methodSet struct {
	any    bool
	listed []string
}

func newMethodSet(methods []string) (methodSet, []error) {
	switch {
	case len(methods) == 0:
		return methodSet{}, []error{errors.New("name a method, or * for any")}
	case len(methods) > maxMethods:
		return methodSet{}, []error{fmt.Errorf("%d methods: at most %d are allowed", len(methods), maxMethods)}
	case len(methods) == 1 && methods[0] == anyMethod:
		return methodSet{any: true}, nil
	}
	var errs []error
	for i, m := range methods {
		switch {
		case m == anyMethod:
			errs = append(errs, errors.New("method * stands alone"))
		case !isMethod(m):
			errs = append(errs, fmt.Errorf("method %q: a method is upper-case letters, digits, - and _, at most %d",
				m, maxMethod))
		case slices.Contains(methods[:i], m):
			errs = append(errs, fmt.Errorf("method %s stands twice", m))
		}
	}
	return methodSet{listed: slices.Clone(methods)}, errs
}

// isMethod is stricter than RFC 9110, where a method is any token: methods are
// compared with case, and a rule for "get" would never match anything.
func isMethod(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !('A' <= c && c <= 'Z' || i > 0 && ('0' <= c && c <= '9' || c == '-' || c == '_')) {
			return false
		}
	}
	return s != "" && len(s) <= maxMethod
}

// covers reports whether a request with that method is meant. GET covers HEAD.
func (s methodSet) covers(method string) bool {
	return method != "" && (s.any || slices.Contains(s.listed, method) ||
		method == methodHead && slices.Contains(s.listed, methodGet))
}
