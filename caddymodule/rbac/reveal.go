package rbac

import (
	"io"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/moat-gateway/moat/caddymodule/internal/denial"
	"github.com/moat-gateway/moat/caddymodule/internal/exchange"
	"github.com/moat-gateway/moat/internal/rbac"
)

// decisionHeader tells those who may know what was decided and why, as a
// structured field dictionary (RFC 9651):
//
//	Moat-Decision: decision=deny, reason="rbac.no-permission", rule="GET /documents/{id}", place="Caddyfile:12"
const decisionHeader = "Moat-Decision"

// revealed is the header's value for a caller whose roles grant the configured
// permission. Nobody else learns even that there is such a header.
func (h *Handler) revealed(ex *exchange.Exchange, d rbac.Decision) string {
	if h.RevealTo == "" || !ex.Caller.Known() || !ex.Policy.Holds(ex.Caller, h.RevealTo) {
		return ""
	}
	verdict := strings.ReplaceAll(verdict(d, h.InsecureShadow), "_", "-")
	value := "decision=" + verdict + ", reason=" + fieldString(d.Reason)
	if rule := ex.Match.Rule(); rule != nil {
		value += ", rule=" + fieldString(rule.String()) + ", place=" + fieldString(rule.Place)
	}
	return value
}

// settled is a writer whose answer carries the header exactly as given, or not
// at all: an upstream that sends one of its own must not be taken for us. What
// only one caller may know no cache may keep.
func settled(w http.ResponseWriter, value string) http.ResponseWriter {
	return &settler{ResponseWriterWrapper: caddyhttp.ResponseWriterWrapper{ResponseWriter: w}, value: value}
}

type settler struct {
	caddyhttp.ResponseWriterWrapper
	value string
	wrote bool
}

// WriteHeader settles the header.
func (s *settler) WriteHeader(status int) {
	h := s.Header()
	h.Del(decisionHeader)
	if s.value != "" {
		h[decisionHeader] = []string{s.value}
		h["Cache-Control"] = []string{"private, no-store"}
	}
	s.wrote = s.wrote || status >= http.StatusOK
	s.ResponseWriterWrapper.WriteHeader(status)
}

// Write settles the header of an answer without one of its own.
func (s *settler) Write(p []byte) (int, error) {
	s.implicit()
	return s.ResponseWriterWrapper.Write(p)
}

// ReadFrom settles the header of an answer without one of its own.
func (s *settler) ReadFrom(src io.Reader) (int64, error) {
	s.implicit()
	return s.ResponseWriterWrapper.ReadFrom(src)
}

// FlushError settles the header of an answer without one of its own.
func (s *settler) FlushError() error {
	s.implicit()
	return http.NewResponseController(s.ResponseWriter).Flush() //nolint:bodyclose // no body here
}

// implicit is what a write without WriteHeader means.
func (s *settler) implicit() {
	if !s.wrote {
		s.WriteHeader(http.StatusOK)
	}
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
