package gate

import (
	"errors"
	"slices"

	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
)

// check holds the parts of the block against each other.
func (b *block) check(h httpcaddyfile.Helper) error {
	rules := list(b.rbac, "rules")
	if _, inFile := b.rbac["rules_file"]; len(rules) == 0 && !inFile {
		return h.Errf("moat: needs an rbac block with at least one rule, because nothing passes that no rule allows; " +
			"`* /** authenticated` opens everything to authenticated callers, `* /** public` to everybody")
	}
	if b.jwt != nil {
		return nil
	}
	var errs []error
	for _, rule := range rules {
		if needs := needsSomebody(rule); needs != "" {
			errs = append(errs, h.Errf("moat: the rule at %v requires %q, but without a jwt line nobody can be known", rule["place"], needs))
		}
	}
	for _, l := range b.limits {
		if byIdentity(l) {
			errs = append(errs, h.Errf("moat: the limit by %v needs a jwt line, because without one nobody can be known", l.(map[string]any)["by"]))
		}
	}
	return errors.Join(errs...)
}

// needsSomebody returns the requirement of a rule that an unknown caller can
// never meet, or "".
func needsSomebody(rule map[string]any) string {
	words, _ := rule["require"].([]any)
	for _, word := range words {
		if text, _ := word.(string); text != "public" && text != "deny" {
			return text
		}
	}
	return ""
}

func byIdentity(limit any) bool {
	fields, _ := limit.(map[string]any)
	by, _ := fields["by"].([]any)
	return slices.ContainsFunc(by, func(key any) bool {
		return key == "user" || key == "tenant" || key == "session"
	})
}

// list returns the objects under key.
func list(settings map[string]any, key string) []map[string]any {
	items, _ := settings[key].([]any)
	out := make([]map[string]any, 0, len(items))
	for _, item := range items {
		if fields, ok := item.(map[string]any); ok {
			out = append(out, fields)
		}
	}
	return out
}

// texts returns one field of each object under key.
func texts(settings map[string]any, key, field string) []string {
	var out []string
	for _, item := range list(settings, key) {
		if text, ok := item[field].(string); ok {
			out = append(out, text)
		}
	}
	return out
}
