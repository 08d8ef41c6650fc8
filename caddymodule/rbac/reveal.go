package rbac

import (
	"net/http"
	"strings"

	"github.com/moat-gateway/moat/caddymodule/internal/denial"
	"github.com/moat-gateway/moat/caddymodule/internal/exchange"
	"github.com/moat-gateway/moat/internal/rbac"
)

// decisionHeader tells those who may know what was decided and why, as a
// structured field dictionary (RFC 9651):
//
//	Moat-Decision: decision=deny, reason="rbac.no-permission", rule="GET /documents/{id}", place="Caddyfile:12"
const decisionHeader = "Moat-Decision"

// reveal sets the header for a caller whose roles grant the configured
// permission. Nobody else learns even that there is such a header.
func (h *Handler) reveal(header http.Header, ex *exchange.Exchange, d rbac.Decision) {
	if h.RevealTo == "" || !ex.Caller.Known() || !ex.Policy.Holds(ex.Caller, h.RevealTo) {
		return
	}
	verdict := strings.ReplaceAll(verdict(d, h.InsecureShadow), "_", "-")
	value := "decision=" + verdict + ", reason=" + fieldString(d.Reason)
	if rule := ex.Match.Rule(); rule != nil {
		value += ", rule=" + fieldString(rule.String()) + ", place=" + fieldString(rule.Place)
	}
	header[decisionHeader] = []string{value}
}

// fieldString is a string of a structured field: printable ASCII in quotes.
func fieldString(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < ' ' || c > '~':
			b.WriteByte('?')
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// forbidden is the refusal of a rule.
func (h *Handler) forbidden(code denial.Code, ex *exchange.Exchange, d rbac.Decision) *denial.Refusal {
	refusal := &denial.Refusal{Code: code, Reason: d.Reason}
	if rule := ex.Match.Rule(); h.InsecureRevealReasons && rule != nil {
		refusal.Revealed, refusal.Requires = true, rule.Require
	}
	return refusal
}
