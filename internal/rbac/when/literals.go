package when

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"regexp/syntax"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/checker"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
)

// maxPattern bounds the program that a pattern of matches becomes, in
// instructions. Time to match is the product of this and the text's length,
// whatever the language's cost model says of it.
const maxPattern = 100

// literals finds constants that the language would stumble over only when a
// request comes: addresses, prefixes, time zones and patterns.
type literals struct{}

// Name returns the name of the check.
func (literals) Name() string { return "moat.literals" }

// Validate reports every bad constant.
func (literals) Validate(_ *cel.Env, _ cel.ValidatorConfig, a *ast.AST, issues *cel.Issues) {
	for _, e := range ast.MatchDescendants(ast.NavigateAST(a), isCall) {
		call := e.AsCall()
		if args := call.Args(); call.FunctionName() == "matches" && len(args) > 0 {
			if err := checkPattern(args[len(args)-1]); err != nil {
				issues.ReportErrorAtID(e.ID(), "%s", err.Error())
			}
		}
		for _, arg := range call.Args() {
			if err := checkLiteral(call.FunctionName(), arg); err != nil {
				issues.ReportErrorAtID(arg.ID(), "%s", err.Error())
			}
		}
	}
}

func isCall(e ast.NavigableExpr) bool { return e.Kind() == ast.CallKind }

func checkLiteral(function string, arg ast.Expr) error {
	if arg.Kind() != ast.LiteralKind {
		return nil
	}
	literal, ok := arg.AsLiteral().(types.String)
	if !ok {
		return nil
	}
	text := string(literal)
	switch {
	case function == "cidr" || function == "containsCIDR":
		if _, err := netip.ParsePrefix(text); err != nil {
			return fmt.Errorf("%q is not a prefix such as 10.0.0.0/8", text)
		}
	case function == "ip" || function == "containsIP":
		if _, err := netip.ParseAddr(text); err != nil {
			return fmt.Errorf("%q is not an address", text)
		}
	case isClock(function) && !isZone(text):
		return fmt.Errorf("%q is not a time zone such as Europe/Berlin or +01:00", text)
	}
	return nil
}

var offset = regexp.MustCompile(`^[+-]?([01][0-9]|2[0-3]):[0-5][0-9]$`)

func isZone(text string) bool {
	if strings.Contains(text, ":") {
		return offset.MatchString(text)
	}
	_, err := time.LoadLocation(text)
	return err == nil
}

// checkPattern checks the pattern of a call of matches. It must be a constant:
// one that a request brings would be compiled for every request, at a price
// that the request sets.
func checkPattern(arg ast.Expr) error {
	if arg.Kind() != ast.LiteralKind {
		return errors.New("the pattern of matches must be a text that stands there, in quotes")
	}
	literal, _ := arg.AsLiteral().(types.String)
	parsed, err := syntax.Parse(string(literal), syntax.Perl)
	if err != nil {
		return fmt.Errorf("%q is not a pattern: %w", string(literal), err)
	}
	// Not simplified, counted repetitions have no program.
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return fmt.Errorf("%q is not a pattern: %w", string(literal), err)
	}
	if n := len(program.Inst); n > maxPattern {
		return fmt.Errorf("%q becomes a program of %d instructions; at most %d are allowed", string(literal), n, maxPattern)
	}
	return nil
}

// isClock reports whether a function reads a part of a time in a time zone.
func isClock(function string) bool {
	switch function {
	case "getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear", "getFullYear", "getHours",
		"getMilliseconds", "getMinutes", "getMonth", "getSeconds":
		return true
	}
	return false
}

// unknownSizes has no guess at how long a caller's texts are: what is estimated
// ahead is the least that a condition costs.
type unknownSizes struct{}

// EstimateSize has no estimate.
func (unknownSizes) EstimateSize(checker.AstNode) *checker.SizeEstimate {
	return &checker.SizeEstimate{Min: 0, Max: MaxCost}
}

// EstimateCallCost has no estimate.
func (unknownSizes) EstimateCallCost(string, string, *checker.AstNode, []checker.AstNode) *checker.CallEstimate {
	return nil
}
