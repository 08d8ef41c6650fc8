package lint

import (
	"slices"
	"strings"
)

// shadow is a part that refuses nothing, until it is known whether its site says
// so as a whole.
type shadow struct{ place, message string }

// mild are the words that give up one check of many; all others that begin with
// insecure_ are ways in.
var mild = []string{
	"insecure_allow_encoded_slash", "insecure_allow_empty_segments", "insecure_allow_tls12", "insecure_unsafe_csp",
}

// insecure reports every setting whose name says that it weakens.
func (l *linter) insecure() {
	visit("", l.root, func(path, key string, parent object, value any) {
		// The second half of a gate repeats what the first half says.
		if !strings.HasPrefix(key, "insecure_") || !set(value) || text(parent["stage"]) == "decide" {
			return
		}
		severity := High
		if slices.Contains(mild, key) {
			severity = Medium
		}
		place, ok := l.lines.find(key)
		if !ok {
			place = l.at(path, "tls_"+key) // As Caddy's own directives call it.
		}
		l.add(InsecureSetting, severity, place, "%s is in use", key)
	})
}

// trail judges whether anything keeps what happened.
func (l *linter) trail() {
	audit := asObject(dig(l.root, "apps", "moat", "audit"))
	if text(audit["on_full"]) == "open" {
		l.add(OnFullOpen, Medium, l.at("apps/moat/audit/on_full", "on_full", "open"),
			"on_full open: requests pass unrecorded while the trail cannot take an event")
	}
	if len(l.gates) > 0 && dig(l.root, "apps", "moat", "audit") == nil {
		l.add(NoAudit, Medium, "apps/moat", "there is no audit block: events go to the log moat.audit only, and nothing shows a quiet change")
	}
}

// store judges what holds while the shared store is away.
func (l *linter) store() {
	if text(dig(l.root, "apps", "moat", "redis", "on_error")) == "open" {
		l.add(OnErrorOpen, Medium, l.at("apps/moat/redis/on_error", "on_error", "open"),
			"redis: on_error open: nothing is limited while the store is away")
	}
}
