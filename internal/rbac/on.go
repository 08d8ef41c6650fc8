package rbac

import "errors"

// On is a pattern with the methods it is meant for, as in a limit's "on POST
// /auth/login". The nil On matches nothing.
type On struct {
	pattern Pattern
	methods methodSet
	fold    bool // pattern is folded
}

// CompileOn reads methods ("*" alone for any; GET covers HEAD) and a pattern.
// It returns every fault at once.
func CompileOn(methods []string, pattern string) (*On, error) {
	set, errs := newMethodSet(methods)
	p, err := ParsePattern(pattern)
	if err := errors.Join(append(errs, err)...); err != nil {
		return nil, err
	}
	return &On{pattern: p, methods: set}, nil
}

// CaseInsensitive returns a copy that matches literals without regard to ASCII
// case, for sites whose upstream does.
func (o *On) CaseInsensitive() *On {
	if o == nil {
		return nil
	}
	return &On{pattern: o.pattern.folded(), methods: o.methods, fold: true}
}

// Match reports whether a method and a canonical escaped path are meant.
func (o *On) Match(method, path string) bool {
	return o != nil && o.methods.covers(method) && o.pattern.match(key(path, o.fold))
}

// Param returns the decoded value of a parameter of the pattern. It is false
// when the pattern has no such parameter or does not match the path.
func (o *On) Param(path, name string) (string, bool) {
	if o == nil || !o.pattern.match(key(path, o.fold)) {
		return "", false
	}
	return o.pattern.value(path, o.pattern.index(name))
}
