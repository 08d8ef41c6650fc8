package command

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/moat-gateway/moat/caddymodule/internal/denial"
	"github.com/moat-gateway/moat/caddymodule/internal/exchange"
	"github.com/moat-gateway/moat/caddymodule/internal/explanation"
	"github.com/moat-gateway/moat/internal/token"
)

// The results of a verdict.
const (
	resultAllowed = "allowed"
	resultRefused = "refused"
	resultUnknown = "unknown"
)

// verdict is what all steps come to.
type verdict struct {
	// Result is allowed, refused or unknown.
	Result string `json:"result"`
	// Status and Code are those of a refusal.
	Status int    `json:"status,omitempty"`
	Code   string `json:"code,omitempty"`
	// Reason is the fine reason, as in the audit event.
	Reason string `json:"reason,omitempty"`
	// Says is the reason as a sentence.
	Says string `json:"says"`
	// WouldRefuse are the reasons that shadow mode does not carry out.
	WouldRefuse []string `json:"wouldRefuse,omitempty"`
	// Rule and Place are the rule that matched and where it stands.
	Rule  string `json:"rule,omitempty"`
	Place string `json:"place,omitempty"`
	// Role granted Permission.
	Role       string `json:"role,omitempty"`
	Permission string `json:"permission,omitempty"`
	// Condition is the rule's; ConditionError is why it could not be evaluated.
	Condition      string `json:"condition,omitempty"`
	ConditionError string `json:"conditionError,omitempty"`
	// Next is what answers a request that is allowed.
	Next string `json:"next,omitempty"`
}

// answer is what one server does to a request.
type answer struct {
	request *request
	walk    *walk
	// Server is the name of the server in the adapted configuration.
	Server string
	// reached says that the request got as far as the routes.
	reached  bool
	gate     int // which one judged, of the gateway's
	status   int // of the answer, when something in front of the gate gave one
	location string

	Verdict verdict
}

// exit is the exit code.
func (a *answer) exit() int {
	switch a.Verdict.Result {
	case resultAllowed:
		return exitAllowed
	case resultRefused:
		return exitRefused
	}
	return exitUnknown
}

// conclude draws the verdict from what the steps found.
func (a *answer) conclude() {
	ex := a.walk.Exchange
	switch {
	case a.walk.Err != nil:
		a.unknown(a.walk.Err)
	case ex != nil && ex.Refusal != nil:
		a.refused(ex.Refusal)
	case a.walk.seal != "":
		a.refused(&exchange.Refusal{Code: denial.Forbidden.Name, Status: denial.Forbidden.Status, Reason: a.walk.seal})
	case ex != nil && ex.Decided:
		a.allowed(ex)
	case ex != nil && ex.Collected:
		a.Verdict = verdict{Result: resultAllowed, Reason: "csp.collected", Says: explanation.Sentence("csp.collected"), Next: "moat_headers"}
	default:
		a.undecided()
	}
	if ex != nil && ex.LookedUp {
		a.Verdict.about(ex)
	}
}

func (a *answer) unknown(err error) {
	a.Verdict = verdict{Result: resultUnknown, Says: err.Error()}
}

func (a *answer) refused(r *exchange.Refusal) {
	if r.Reason == token.ReasonKeysUnavailable {
		a.unknown(errors.New(explanation.Sentence(r.Reason)))
		return
	}
	a.Verdict = verdict{
		Result: resultRefused, Status: r.Status, Code: r.Code, Reason: r.Reason, Says: explanation.Sentence(r.Reason),
	}
}

func (a *answer) allowed(ex *exchange.Exchange) {
	a.Verdict = verdict{
		Result: resultAllowed, Reason: ex.Decision.Reason, Says: explanation.Sentence(ex.Decision.Reason), Next: a.walk.answerer,
	}
}

// undecided is a request that no gate decided on.
func (a *answer) undecided() {
	switch {
	case !a.reached || a.status >= http.StatusBadRequest && a.status < http.StatusInternalServerError:
		// net/http and Caddy refuse what is no HTTP, whatever the sites are.
		a.Verdict = verdict{
			Result: resultRefused, Status: a.status, Reason: "server",
			Says: "the HTTP server itself refuses it, before any site and gate",
		}
	case a.walk.answerer != "":
		a.unknown(fmt.Errorf("%s answers, and no gate decides before it", a.walk.answerer))
	case a.location != "":
		a.unknown(fmt.Errorf("no gate is on its route: it is redirected to %s", a.location))
	case a.walk.Exchange != nil:
		a.unknown(errors.New("no rbac decides on its route"))
	case a.status >= http.StatusInternalServerError:
		a.unknown(fmt.Errorf("the routes of server %s answer %d before any gate", a.Server, a.status))
	default:
		a.unknown(fmt.Errorf("no site for %s: no route of server %s is for it", a.request.host(), a.Server))
	}
}

// about fills in what was looked up and decided.
func (v *verdict) about(ex *exchange.Exchange) {
	v.WouldRefuse = ex.Shadowed
	d := ex.Decision
	v.Role, v.Permission = d.Role, d.Permission
	if d.Err != nil {
		v.ConditionError = d.Err.Error()
	}
	rule := ex.Match.Rule()
	if rule == nil {
		return
	}
	v.Rule, v.Place, v.Condition = explanation.RuleText(rule), rule.Place, rule.When
}
