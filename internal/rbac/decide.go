// Package rbac decides who may do what on which route: it knows roles, the
// permissions they grant, and rules that say what a method on a path pattern
// needs. It knows a caller as an identity.Principal and a request as a method
// and a canonical path; it must not know tokens, HTTP messages or files.
//
// Everything that was not said is refused: the zero Decision, a path without a
// rule, a role that is not configured, an empty identifier or tenant.
package rbac

import "github.com/moat-gateway/moat/internal/identity"

// Effect is what a decision comes to.
type Effect int

// Deny is the zero Effect.
const (
	Deny Effect = iota
	Allow
)

// Reasons of an allowed request.
const (
	// ReasonPublic says that the rule is public.
	ReasonPublic = "rbac.public"
	// ReasonAuthenticated says that the rule needs a known caller and nothing
	// else.
	ReasonAuthenticated = "rbac.authenticated"
	// ReasonPermission says that the caller's roles grant what the rule needs.
	ReasonPermission = "rbac.permission"
	// ReasonOwner says that the caller passes because the route is its own.
	ReasonOwner = "rbac.owner"
)

// Reasons of a refused request.
const (
	// ReasonNoRule says that no rule matches.
	ReasonNoRule = "rbac.no-rule"
	// ReasonDenyRule says that the rule lets nobody pass.
	ReasonDenyRule = "rbac.deny-rule"
	// ReasonNoIdentity says that the rule needs somebody and nobody is known.
	ReasonNoIdentity = "rbac.no-identity"
	// ReasonNoPermission says that no role of the caller grants a permission
	// that the rule needs.
	ReasonNoPermission = "rbac.no-permission"
	// ReasonNotOwner says that the caller would pass on a route of its own.
	ReasonNotOwner = "rbac.not-owner"
	// ReasonWrongTenant says that the caller would pass on a route of its own
	// tenant, or with a role of scope global.
	ReasonWrongTenant = "rbac.wrong-tenant"
	// ReasonForeignIssuer says that the rule compares identifiers or tenants,
	// and that those of the caller's issuer are not comparable.
	ReasonForeignIssuer = "rbac.foreign-issuer"
	// ReasonCondition says that the rule's condition does not hold.
	ReasonCondition = "rbac.condition"
	// ReasonConditionError says that the rule's condition could not be evaluated:
	// it asks for something that is not there, or costs too much.
	ReasonConditionError = "rbac.condition-error"
)

// Decision is what the rules say to one request. The zero Decision refuses.
type Decision struct {
	// Effect is Allow for a refusal that the rule's shadow mode does not carry
	// out.
	Effect Effect
	// Reason is one of the Reason constants.
	Reason string
	// Anonymous says that the caller was refused by a rule and that nobody knows
	// who it is: the answer is 401, not 403.
	Anonymous bool
	// Shadowed says that the decision is a refusal, whose reason Reason is, and
	// that the rule is in shadow mode.
	Shadowed bool
	// Role is the role that granted Permission, both of the requirement's first
	// word, or of the first that the caller met as the owner. Empty where no
	// permission was needed or none granted.
	Role       string
	Permission string
	// Err says why a condition could not be evaluated. It may quote claims of
	// the caller: it is for the operator who asks, not for clients or events.
	Err error
}

// Allowed reports whether the request may pass.
func (d Decision) Allowed() bool { return d.Effect == Allow }

// Decide judges a caller by the rule of m. It is a function of its arguments
// alone. A nil caller is nobody. The request is what the rule's condition may
// ask about; a rule without one does not look at it, and a rule with one refuses
// when it is nil.
//
// Each role of the caller is judged alone: one and the same role must grant the
// permission and meet owner, tenant and scope. Each word of a requirement is
// judged alone, too, so that different words may be met by different roles.
func (p *Policy) Decide(m Match, who *identity.Principal, req *Request) Decision {
	if p == nil || m.rule == nil {
		return Decision{Reason: ReasonNoRule}
	}
	d := p.judge(m, who)
	if d.Effect == Allow && m.rule.when != nil {
		d = m.conditional(d, who, req)
	}
	if d.Effect == Allow {
		return d
	}
	d.Anonymous = !who.Known()
	if m.rule.Shadow {
		d.Effect, d.Shadowed = Allow, true
	}
	return d
}

func (p *Policy) judge(m Match, who *identity.Principal) Decision {
	switch m.rule.need {
	case needNothing:
		return Decision{Effect: Allow, Reason: ReasonPublic}
	case needSomebody:
		h := p.hear(m, who)
		return h.authenticated()
	case needPermissions:
		h := p.hear(m, who)
		return h.permissions()
	default:
		return Decision{Reason: ReasonDenyRule}
	}
}

// Holds reports whether a caller's roles grant a permission on any route,
// whoever owns it.
func (p *Policy) Holds(who *identity.Principal, permission string) bool {
	dotted, err := parsePermission(permission)
	if p == nil || who == nil || err != nil {
		return false
	}
	for _, name := range who.Roles {
		if r := p.roles.get(name); r != nil && (r.grants.has(dotted) || r.grants.hasOwn(dotted)) {
			return true
		}
	}
	return false
}

// hearing is one request before its rule: everything that is compared, compared
// once.
type hearing struct {
	roles *Roles
	rule  *Rule
	who   *identity.Principal
	names []string // the caller's roles
	// isOwner and inTenant are the comparisons that the rule asks for; inTenant
	// is true when it asks for none, isOwner is false then.
	isOwner, inTenant bool
}

func (p *Policy) hear(m Match, who *identity.Principal) hearing {
	h := hearing{roles: p.roles, rule: m.rule, who: who}
	if who == nil {
		return h
	}
	h.names = who.Roles
	shared := who.Known() && who.SharesIDs
	h.isOwner = shared && m.equals(m.rule.owner, who.ID)
	h.inTenant = m.rule.tenant < 0 || shared && m.equals(m.rule.tenant, who.Tenant)
	return h
}

// equals reports whether the value at a segment is exactly want. Nothing equals
// an empty want: who has no tenant is in none.
func (m Match) equals(index int, want string) bool {
	if index < 0 || want == "" {
		return false
	}
	value, ok := m.rule.pattern.value(m.path, index)
	return ok && value == want
}

func (h *hearing) authenticated() Decision {
	switch {
	case !h.who.Known():
		return Decision{Reason: ReasonNoIdentity}
	case !h.inTenant && !h.holdsGlobalRole():
		return Decision{Reason: h.mismatch(ReasonWrongTenant)}
	case h.rule.owner < 0:
		return Decision{Effect: Allow, Reason: ReasonAuthenticated}
	case !h.isOwner:
		return Decision{Reason: h.mismatch(ReasonNotOwner)}
	}
	return Decision{Effect: Allow, Reason: ReasonOwner}
}

func (h *hearing) holdsGlobalRole() bool {
	for _, name := range h.names {
		if r := h.roles.get(name); r != nil && r.global {
			return true
		}
	}
	return false
}

// mismatch returns the reason of a comparison that failed.
func (h *hearing) mismatch(reason string) string {
	if h.who.Known() && !h.who.SharesIDs {
		return ReasonForeignIssuer
	}
	return reason
}

func (h *hearing) permissions() Decision {
	var d Decision
	for _, word := range h.rule.words {
		g := h.grant(word)
		if g.Effect != Allow {
			return g
		}
		if d.Effect != Allow || g.Reason == ReasonOwner && d.Reason != ReasonOwner {
			d = g
		}
	}
	return d
}

// grant looks for a role that grants one of the alternatives, a role that does
// so on any route before one that does so as the owner's.
func (h *hearing) grant(alternatives []string) Decision {
	refusal := ReasonNoPermission
	if !h.who.Known() && len(h.names) == 0 {
		refusal = ReasonNoIdentity
	}
	best := Decision{Reason: refusal}
	for _, name := range h.names {
		r := h.roles.get(name)
		if r == nil {
			continue
		}
		for _, permission := range alternatives {
			d := h.try(r, permission)
			if d.Reason == ReasonPermission {
				return d
			}
			if rank(d.Reason) > rank(best.Reason) {
				best = d
			}
		}
	}
	return best
}

// try asks one role for one permission. The zero Decision says that the role has
// nothing to do with it.
func (h *hearing) try(r *role, permission string) Decision {
	reason := ReasonPermission
	switch {
	case r.grants.has(permission):
	// A rule may ask for documents.own as for any other permission. Where it
	// names the owner as well, it means the owner.
	case h.rule.owner < 0 && r.grants.hasOwn(permission):
	case h.rule.owner < 0 || !r.grants.owns(permission):
		return Decision{}
	case !h.isOwner:
		return Decision{Reason: h.mismatch(ReasonNotOwner)}
	default:
		reason = ReasonOwner
	}
	if !h.inTenant && !r.global {
		return Decision{Reason: h.mismatch(ReasonWrongTenant)}
	}
	return Decision{Effect: Allow, Reason: reason, Role: r.name, Permission: permission}
}

// rank orders the outcomes of one role by how close they come to passing: the
// closest is the one worth telling the operator.
func rank(reason string) int {
	switch reason {
	case ReasonNotOwner:
		return 1
	case ReasonForeignIssuer:
		return 2
	case ReasonWrongTenant:
		return 3
	case ReasonOwner:
		return 4
	default:
		return 0
	}
}
