package explanation

import (
	"strings"

	"github.com/moat-gateway/moat/internal/rbac"
)

// RuleText is a rule as on its line.
func RuleText(rule *rbac.Rule) string {
	words := append([]string{rule.String()}, rule.Require...)
	if rule.Owner != "" {
		words = append(words, "owner={"+rule.Owner+"}")
	}
	if rule.Tenant != "" {
		words = append(words, "tenant={"+rule.Tenant+"}")
	}
	return strings.Join(words, " ")
}

// RuleSettings are what stands in a rule's block, one line each.
func RuleSettings(rule *rbac.Rule) []string {
	var lines []string
	if rule.When != "" {
		lines = append(lines, "when "+rule.When)
	}
	for _, flag := range []struct {
		on   bool
		word string
	}{
		{rule.Shadow, "shadow"}, {rule.RewriteOK, "rewrite_ok"},
		{rule.Trailers, "trailers"}, {rule.EncodedSlash, "encoded_slash"},
	} {
		if flag.on {
			lines = append(lines, flag.word)
		}
	}
	if rule.StripPrefix != "" {
		lines = append(lines, "strip_prefix "+rule.StripPrefix)
	}
	if rule.Action != "" {
		lines = append(lines, "action "+rule.Action)
	}
	return lines
}
