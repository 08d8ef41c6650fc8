package when

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/checker"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
)

// literals finds constants that the language would stumble over only when a
// request comes: addresses, prefixes and time zones.
type literals struct{}

// Name returns the name of the check.
func (literals) Name() string { return "moat.literals" }

// Validate reports every bad constant.
func (literals) Validate(_ *cel.Env, _ cel.ValidatorConfig, a *ast.AST, issues *cel.Issues) {
	for _, e := range ast.MatchDescendants(ast.NavigateAST(a), isCall) {
		call := e.AsCall()
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
	case isClock(function) && !strings.Contains(text, ":"):
		if _, err := time.LoadLocation(text); err != nil {
			return fmt.Errorf("%q is not a time zone such as Europe/Berlin or +01:00", text)
		}
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
