package when

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"cel.dev/cel-go/cel"

	"github.com/moat-gateway/moat/internal/canon"
	"github.com/moat-gateway/moat/internal/identity"
	"github.com/moat-gateway/moat/internal/rbac"
)

// facts answers for the names of a condition, each only when it is asked for.
type facts struct {
	about *rbac.Circumstances
	query map[string][]string
	// err is why a name that is there could not be answered for. It is kept
	// here because the language would say that there is no such name.
	err error
}

var nobody = new(identity.Principal)

// ResolveName returns the value of a name. To ask for what is not known of the
// caller is an error: an empty id must equal nothing, and to the language ""
// equals "".
func (f *facts) ResolveName(name string) (any, bool) {
	if param, ok := strings.CutPrefix(name, paramPrefix); ok {
		return f.param(param)
	}
	who := f.about.Caller
	if who == nil {
		who = nobody
	}
	switch name {
	case nameKnown:
		return who.Known(), true
	case nameID:
		return f.text(name, who.ID)
	case nameTenant:
		return f.text(name, who.Tenant)
	case nameRoles:
		return who.Roles, true
	case nameSession:
		return f.text(name, who.Session)
	case nameIssuer:
		return f.text(name, who.Issuer)
	case nameClaims:
		return who.Claims, true
	}
	return f.request(name)
}

func (f *facts) request(name string) (any, bool) {
	switch name {
	case nameMethod:
		return f.about.Method, true
	case nameHost:
		return f.about.Host, true
	case namePath:
		return f.about.Path, true
	case nameQuery:
		return f.values()
	case nameAddress:
		return f.address()
	case nameNow:
		return f.now()
	}
	return nil, false
}

func (f *facts) text(name, value string) (any, bool) {
	if value == "" {
		return f.fail(fmt.Errorf("when: %s: is not known of this caller", name))
	}
	return value, true
}

func (f *facts) now() (any, bool) {
	if f.about.Time.IsZero() {
		return f.fail(errors.New("when: now: the time is not known"))
	}
	return f.about.Time, true
}

func (f *facts) param(name string) (any, bool) {
	value, ok := f.about.Param(name)
	if !ok {
		return f.fail(fmt.Errorf("when: params.%s: is not valid UTF-8 or not there", name))
	}
	return value, true
}

// values reads the query. One that parsers read differently is an error: the
// application might see other values than the condition.
func (f *facts) values() (any, bool) {
	if f.query != nil {
		return f.query, true
	}
	if err := canon.Query(f.about.Query); err != nil {
		return f.fail(fmt.Errorf("when: query: %w", err))
	}
	query, err := url.ParseQuery(f.about.Query)
	if err != nil {
		return f.fail(fmt.Errorf("when: query: %w", err))
	}
	f.query = query
	return f.query, true
}

func (f *facts) address() (any, bool) {
	if !f.about.Address.IsValid() {
		return f.fail(errors.New("when: address: the caller's address is not known"))
	}
	return f.about.Address.String(), true
}

func (f *facts) fail(err error) (any, bool) {
	if f.err == nil {
		f.err = err
	}
	return nil, false
}

// Parent is nil: there are no names beside these.
func (*facts) Parent() cel.Activation { return nil }

var _ cel.Activation = (*facts)(nil)
