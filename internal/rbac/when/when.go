// Package when compiles the conditions of rules: what stands behind `when`,
// written in the Common Expression Language. It knows what a condition may ask
// about and what it may cost; which rule it belongs to, and what a refusal
// means, is the rbac package's.
package when

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	// A condition about the time of day means the same on a machine that has no
	// table of time zones.
	_ "time/tzdata"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/ext"

	"github.com/moat-gateway/moat/internal/rbac"
)

// MaxCost bounds one evaluation, in the units of the language's own cost model:
// about one for each step, one for each ten bytes of a text that is looked
// through. It is well below a millisecond of work, patterns aside, which have a
// bound of their own. What costs more is an error, and so a refusal.
const MaxCost = 10_000

// maxNesting bounds how deep exists, all, filter and map may stand in each
// other.
const maxNesting = 2

// The names that a condition may use, beside params.NAME for each parameter of
// the rule's pattern.
const (
	nameKnown   = "identity.known"
	nameID      = "identity.id"
	nameTenant  = "identity.tenant"
	nameRoles   = "identity.roles"
	nameSession = "identity.session"
	nameIssuer  = "identity.issuer"
	nameClaims  = "identity.claims"
	nameMethod  = "method"
	nameHost    = "host"
	namePath    = "path"
	nameQuery   = "query"
	nameAddress = "address"
	nameNow     = "now"

	paramPrefix = "params."
)

// base is the language without parameters, made once: it is the dear part.
var base = sync.OnceValues(func() (*cel.Env, error) {
	text, texts := cel.StringType, cel.ListType(cel.StringType)
	return cel.NewEnv(
		cel.DefaultUTCTimeZone(true),
		cel.CrossTypeNumericComparisons(true),
		cel.ParserRecursionLimit(50),
		ext.Network(),
		cel.Variable(nameKnown, cel.BoolType),
		cel.Variable(nameID, text),
		cel.Variable(nameTenant, text),
		cel.Variable(nameRoles, texts),
		cel.Variable(nameSession, text),
		cel.Variable(nameIssuer, text),
		cel.Variable(nameClaims, cel.MapType(text, cel.DynType)),
		cel.Variable(nameMethod, text),
		cel.Variable(nameHost, text),
		cel.Variable(namePath, text),
		cel.Variable(nameQuery, cel.MapType(text, texts)),
		cel.Variable(nameAddress, text),
		cel.Variable(nameNow, cel.TimestampType),
		cel.ASTValidators(
			cel.ValidateTimestampLiterals(),
			cel.ValidateDurationLiterals(),
			cel.ValidateComprehensionNestingLimit(maxNesting),
			literals{},
		),
	)
})

// Condition is a compiled condition.
type Condition struct {
	program cel.Program
}

// Compile compiles a condition. It may ask about what docs/rbac.md lists, and
// about the named parameters of its rule's pattern as params.NAME. The error
// names every fault with its column; a condition that is not about true or
// false is one.
func Compile(text string, params []string) (c rbac.Condition, err error) {
	defer func() {
		// A text from a file that changes while requests are served must never
		// end the process, whatever the library makes of it.
		if r := recover(); r != nil {
			c, err = nil, fmt.Errorf("cannot be compiled: %v", r)
		}
	}()
	return compile(text, params)
}

func compile(text string, params []string) (*Condition, error) {
	env, err := base()
	if err != nil {
		return nil, err
	}
	if len(params) > 0 {
		variables := make([]cel.EnvOption, len(params))
		for i, name := range params {
			variables[i] = cel.Variable(paramPrefix+name, cel.StringType)
		}
		if env, err = env.Extend(variables...); err != nil {
			return nil, err
		}
	}
	ast, issues := env.Compile(text)
	if err := faults(issues); err != nil {
		return nil, err
	}
	// A claim has any type until a request comes; Holds looks then.
	if t := ast.OutputType(); t != cel.BoolType && t != cel.DynType {
		return nil, fmt.Errorf("comes to a value of type %s; a condition is true or false", ast.OutputType())
	}
	if cost, err := env.EstimateCost(ast, unknownSizes{}); err != nil || cost.Min > MaxCost {
		return nil, fmt.Errorf("costs at least %d to evaluate; at most %d are allowed", cost.Min, MaxCost)
	}
	program, err := env.Program(ast, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(MaxCost))
	if err != nil {
		return nil, err
	}
	return &Condition{program}, nil
}

// faults returns all that is wrong with a text, each with its column.
func faults(issues *cel.Issues) error {
	if issues == nil || issues.Err() == nil {
		return nil
	}
	var texts []string
	for _, e := range issues.Errors() {
		texts = append(texts, fmt.Sprintf("column %d: %s", e.Location.Column()+1, e.Message))
	}
	return errors.New(strings.Join(texts, "; "))
}

// Holds evaluates the condition.
func (c *Condition) Holds(about *rbac.Circumstances) (bool, error) {
	f := facts{about: about}
	value, _, err := c.program.Eval(&f)
	if f.err != nil {
		return false, f.err
	}
	if err != nil {
		return false, fmt.Errorf("when: %w", err)
	}
	holds, ok := value.Value().(bool)
	if !ok {
		// A claim has any type until it is looked at.
		return false, fmt.Errorf("when: comes to a %T; a condition is true or false", value.Value())
	}
	return holds, nil
}

var _ rbac.Condition = (*Condition)(nil)
