// Package explanation is what `moat explain` and the handlers of a gate know
// together: the question, and what each step said to it. It decides nothing:
// every step runs the very functions that it runs when it serves.
package explanation

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/moat-gateway/moat/caddymodule/internal/exchange"
	"github.com/moat-gateway/moat/internal/headers"
	"github.com/moat-gateway/moat/internal/identity"
	"github.com/moat-gateway/moat/internal/rbac"
)

// Explainer is a handler of the gate that can say what it does to a request.
type Explainer interface {
	// Explain does to the request what ServeHTTP does, short of what anybody
	// else would notice: it charges no limit, records no event and asks no other
	// server but a key server. It writes down its steps and returns what
	// ServeHTTP would.
	Explain(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, t *Trace) error
}

// PolicyHolder is a handler with rules of its own.
type PolicyHolder interface {
	// Policy returns the rules in force, or nil for a handler that has none.
	Policy() *rbac.Policy
}

// ContentPolicyHolder is a handler with content security policies.
type ContentPolicyHolder interface {
	// ContentPolicies returns that of the site and those of its parts, as the
	// handler is configured; it need not be provisioned.
	ContentPolicies() ([]ContentPolicy, error)
}

// ContentPolicy is the content security policy of a site or of a part of it.
type ContentPolicy struct {
	// Part is the pattern of its paths; empty for the site.
	Part string
	// CSP is the policy without what is added when it is sent.
	CSP headers.CSP
	// Words are the lines of its csp block that are no directives.
	Words []string
	// Whole says that it is given as the value of one header.
	Whole bool
}

// Caller is who asks, as told instead of proved by a token.
type Caller struct {
	ID, Tenant string
	Roles      []string
	// Issuer is the configured name of the issuer; empty for the site's first.
	Issuer string
	// Claims are what conditions can ask for.
	Claims map[string]any
}

// Issuers is what the moat app knows of issuers.
type Issuers interface {
	// Vouch returns a caller as the issuer could name it. First says that the
	// issuer is the first one of the site. A role that is not configured, or that
	// the issuer cannot give, is an error.
	Vouch(issuer string, first bool, who *Caller) (*identity.Principal, error)
	// FetchKeys loads the remote key sets of issuers, as far as they can be had.
	FetchKeys(ctx context.Context, issuers []string)
}

// Source is where a site looks for a token first.
type Source struct {
	// Cookie says that Name is a cookie and not a header.
	Cookie bool
	Name   string
}

// Outcome is what became of the request in one step.
type Outcome string

// The outcomes of a step.
const (
	Passes  Outcome = "passes"
	Refuses Outcome = "refuses"
	// WouldRefuse is a refusal that shadow mode does not carry out.
	WouldRefuse Outcome = "would refuse"
	// Notes is for what was not run, or is only said.
	Notes Outcome = "notes"
)

// Step is what one step said.
type Step struct {
	// Name of the step, such as guard or rule.
	Name string `json:"step"`
	// Outcome is passes, refuses, would refuse or notes.
	Outcome Outcome `json:"outcome"`
	// Says is one sentence or less.
	Says string `json:"says"`
	// More are further lines.
	More []string `json:"more,omitempty"`
	// Reason is the code of a refusal or a decision.
	Reason string `json:"reason,omitempty"`
	// Place is where what decided stands, as "file:line".
	Place string `json:"place,omitempty"`
}

// Trace is one question on its way through the handlers, and the answers.
type Trace struct {
	// Caller is who asks; nil when nobody was told, or when a token says it.
	Caller *Caller
	// At is the time of the request.
	At time.Time
	// Issuers is the moat app.
	Issuers Issuers
	// HasKeys says that the issuers have their own keys. Without them tokens are
	// not judged.
	HasKeys bool

	// Steps in the order in which they ran.
	Steps []Step
	// Exchange is what the gate found out; nil when no gate was reached.
	Exchange *exchange.Exchange
	// Source is the site's first source of tokens; nil when no jwt was reached.
	Source *Source
	// NeedsKeys says that the request carries a token and no keys were there to
	// judge it.
	NeedsKeys bool
	// Err is why the question cannot be answered.
	Err error
}

type contextKey struct{}

// With returns a context that carries the trace.
func With(ctx context.Context, t *Trace) context.Context {
	return context.WithValue(ctx, contextKey{}, t)
}

// From returns the trace that With put into the context, or nil.
func From(ctx context.Context) *Trace {
	t, _ := ctx.Value(contextKey{}).(*Trace)
	return t
}

// Open returns the request's exchange, opened at the time of the question.
func (t *Trace) Open(w http.ResponseWriter, r *http.Request) *exchange.Exchange {
	if t.Exchange == nil {
		t.Exchange = exchange.Ensure(w, r)
		t.Exchange.Start = t.At
	}
	return t.Exchange
}

// Add writes a step down.
func (t *Trace) Add(s Step) { t.Steps = append(t.Steps, s) }

// Note writes down what is only said.
func (t *Trace) Note(name, says string) { t.Add(Step{Name: name, Outcome: Notes, Says: says}) }

// Pass writes down that a step let the request pass.
func (t *Trace) Pass(name, says string) { t.Add(Step{Name: name, Outcome: Passes, Says: says}) }

// Refused writes down the refusal that the exchange records, if it does.
func (t *Trace) Refused(name string) {
	if ex := t.Exchange; ex != nil && ex.Refusal != nil {
		t.Add(Step{Name: name, Outcome: Refuses, Says: Sentence(ex.Refusal.Reason), Reason: ex.Refusal.Reason})
	}
}

// Shadowed writes down the refusals that shadow mode did not carry out, of
// those after the first seen ones.
func (t *Trace) Shadowed(name string, seen int) {
	for _, reason := range slices.Clone(t.Exchange.Shadowed[seen:]) {
		t.Add(Step{Name: name, Outcome: WouldRefuse, Says: Sentence(reason), Reason: reason})
	}
}

// Fail ends the question without an answer. The first reason stays.
func (t *Trace) Fail(err error) {
	if t.Err == nil {
		t.Err = err
	}
}
