package rbac

import (
	"errors"
	"net/netip"
	"time"

	"github.com/moat-gateway/moat/internal/identity"
)

// maxCondition bounds the text of one condition.
const maxCondition = 4096

// Request is what a condition may ask about beside the caller and the
// parameters of the path. Everything is as it goes to the upstream.
type Request struct {
	Method string
	// Host is in lower case, without the port.
	Host string
	// Query is the raw query, without the question mark.
	Query string
	// Address is the caller's; the zero Addr when it is not known.
	Address netip.Addr
	// Time is when the request came.
	Time time.Time
}

// Circumstances are all that a condition can see.
type Circumstances struct {
	Request
	// Path is the canonical escaped path.
	Path string
	// Caller is nil when nobody is known.
	Caller *identity.Principal

	match Match
}

// Param returns the decoded value of a parameter of the rule's pattern.
func (c *Circumstances) Param(name string) (string, bool) { return c.match.Param(name) }

// Condition is a compiled condition of a rule, safe for concurrent use.
type Condition interface {
	// Holds reports whether the condition is met. An error means that this
	// could not be found out, for example because a claim is missing; the
	// request is then refused.
	Holds(c *Circumstances) (bool, error)
}

// ConditionCompiler compiles the text of a condition. It is given the names of
// the parameters that the rule's pattern has.
type ConditionCompiler func(text string, params []string) (Condition, error)

// condition compiles the rule's condition.
func (c *compiler) condition(compile ConditionCompiler) {
	text := c.rule.When
	if text == "" {
		return
	}
	switch {
	case c.rule.need == needNobody:
		c.fail("when "+text, "has no effect on deny: nobody passes there, and no other rule is asked")
		return
	case len(text) > maxCondition:
		c.fail("when "+text[:64]+"…", "a condition has at most 4096 bytes")
		return
	case compile == nil:
		c.fail("when "+text, "conditions are not available here")
		return
	}
	condition, err := compile(text, c.rule.pattern.parameters())
	if err != nil {
		c.fail("when "+text, err.Error())
		return
	}
	c.rule.when = condition
}

// conditional adds the rule's condition to what the requirement came to. It is
// asked last: it costs the most, and whoever lacks the permission learns
// nothing from it.
func (m Match) conditional(d Decision, who *identity.Principal, req *Request) Decision {
	if req == nil {
		return Decision{Reason: ReasonConditionError, Err: errNoRequest}
	}
	holds, err := m.rule.when.Holds(&Circumstances{Request: *req, Path: m.path, Caller: who, match: m})
	switch {
	case err != nil:
		return Decision{Reason: ReasonConditionError, Err: err}
	case !holds:
		return Decision{Reason: ReasonCondition}
	}
	return d
}

var errNoRequest = errors.New("the condition was asked without a request")
