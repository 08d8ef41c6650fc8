package gate

import (
	"errors"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
)

// check holds the parts of the block against each other.
func (b *block) check(h httpcaddyfile.Helper) error {
	rules := list(b.rbac, "rules")
	if _, inFile := b.rbac["rules_file"]; len(rules) == 0 && !inFile {
		return h.Errf("moat: needs an rbac block with at least one rule, because nothing passes that no rule allows; " +
			"`* /** authenticated` opens everything to authenticated callers, `* /** public` to everybody")
	}
	errs := b.checkReports(h, rules)
	if b.jwt != nil {
		return errors.Join(errs...)
	}
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

// checkReports refuses a collector in the place of something that the rules let
// through: what is posted to its path never reaches the application.
func (b *block) checkReports(h httpcaddyfile.Helper, rules []map[string]any) []error {
	var errs []error
	fold, _ := b.guard["case_insensitive"].(bool)
	for _, path := range b.reportPaths() {
		for _, rule := range rules {
			methods, _ := rule["methods"].([]any)
			pattern, _ := rule["pattern"].(string)
			if (pattern == path || fold && strings.EqualFold(pattern, path)) && (slices.Contains(methods, any("POST")) || slices.Contains(methods, any("*"))) {
				errs = append(errs, h.Errf("moat: report %s: the rule at %v names the same path, and what is posted there would be taken for reports; "+
					"choose a path that the application does not have, such as /-/csp", path, rule["place"]))
			}
		}
	}
	return errs
}

// reportPaths are where the headers of the site and of its parts ask browsers to report
// to.
func (b *block) reportPaths() []string {
	var paths []string
	for _, settings := range append([]map[string]any{b.headers}, list(map[string]any{"paths": b.paths}, "paths")...) {
		if path, _ := settings["report"].(string); path != "" && !slices.Contains(paths, path) {
			paths = append(paths, path)
		}
	}
	return paths
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
