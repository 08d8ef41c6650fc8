package rbac

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
)

// Live is the table of roles in force, which may be replaced while requests are
// served. The zero Live holds no role.
type Live struct {
	current atomic.Pointer[Roles]

	mu         sync.Mutex
	dependents []func(*Roles) (commit func(), err error)
}

// Roles returns the roles in force now.
func (l *Live) Roles() *Roles { return l.current.Load() }

// Depend names somebody who built something from the roles. Before they are
// replaced, prepare is asked with the new ones: it returns an error if they will
// not do, and else what to call once everybody agreed.
func (l *Live) Depend(prepare func(*Roles) (commit func(), err error)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dependents = append(l.dependents, prepare)
}

// Replace puts next in force, if all who depend on the roles agree. Otherwise
// it changes nothing and returns every objection.
func (l *Live) Replace(next *Roles) error {
	commit, err := l.Prepare(next)
	if err != nil {
		return err
	}
	commit()
	return nil
}

// Prepare asks all who depend on the roles. It returns every objection, or what
// puts next in force.
func (l *Live) Prepare(next *Roles) (commit func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	commits := make([]func(), 0, len(l.dependents))
	for _, prepare := range l.dependents {
		commit, err := prepare(next)
		errs = append(errs, err)
		commits = append(commits, commit)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return func() {
		l.current.Store(next)
		for _, commit := range commits {
			if commit != nil {
				commit()
			}
		}
	}, nil
}

// maxFaults bounds how many faults one error names.
const maxFaults = 100

// joined is errors.Join with an end: a file of nothing but faults must not
// become a log line of megabytes.
func joined(errs []error) error {
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	if n := len(errs) - maxFaults; n > 0 {
		errs = append(errs[:maxFaults], fmt.Errorf("and %d faults more", n))
	}
	return errors.Join(errs...)
}

// Changes is what a new version of roles or rules changed, by name.
type Changes struct {
	Added, Removed, Changed []string
}

// None reports whether nothing changed.
func (c Changes) None() bool { return len(c.Added)+len(c.Removed)+len(c.Changed) == 0 }

// DiffRoles compares two versions by the roles' names.
func DiffRoles(before, after []RoleConfig) Changes {
	return diff(before, after,
		func(r RoleConfig) string { return r.Name },
		func(r *RoleConfig) { r.Place = "" })
}

// DiffRules compares two versions by the rules' methods and patterns.
func DiffRules(before, after []RuleConfig) Changes {
	return diff(before, after,
		func(r RuleConfig) string { return (&Rule{Methods: r.Methods, Pattern: r.Pattern}).String() },
		func(r *RuleConfig) { r.Place = "" })
}

// diff compares by name; unplace forgets where an entry stands, so that a line
// more at the top of a file is no change to all below.
func diff[T any](before, after []T, name func(T) string, unplace func(*T)) (c Changes) {
	index := func(list []T) map[string]T {
		m := make(map[string]T, len(list))
		for _, entry := range list {
			unplace(&entry)
			m[name(entry)] = entry
		}
		return m
	}
	old, now := index(before), index(after)
	for key, entry := range now {
		was, there := old[key]
		switch {
		case !there:
			c.Added = append(c.Added, key)
		case !reflect.DeepEqual(was, entry):
			c.Changed = append(c.Changed, key)
		}
	}
	for key := range old {
		if _, there := now[key]; !there {
			c.Removed = append(c.Removed, key)
		}
	}
	slices.Sort(c.Added)
	slices.Sort(c.Removed)
	slices.Sort(c.Changed)
	return c
}
