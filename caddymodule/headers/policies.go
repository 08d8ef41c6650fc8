package headers

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/moat-gateway/moat/caddymodule/internal/explanation"
	"github.com/moat-gateway/moat/internal/headers"
)

// ContentPolicies implements explanation.ContentPolicyHolder.
func (h *Handler) ContentPolicies() ([]explanation.ContentPolicy, error) {
	site, err := h.contentPolicy()
	if err != nil {
		return nil, err
	}
	all := []explanation.ContentPolicy{site}
	for _, p := range h.Paths {
		settings := p.on(h.Settings)
		part, err := settings.contentPolicy()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.Pattern, err)
		}
		part.Part = p.Pattern
		all = append(all, part)
	}
	return all, nil
}

// contentPolicy is the policy without what is added when it is sent.
func (s *Settings) contentPolicy() (explanation.ContentPolicy, error) {
	plain := *s
	plain.Report, plain.Inline = "", ""
	plain.Keep, plain.Merge = nil, nil
	policy, err := plain.compile()
	if err != nil {
		return explanation.ContentPolicy{}, err
	}
	csp, err := headers.ParseCSP(policy.CSP())
	if err != nil {
		return explanation.ContentPolicy{}, err
	}
	_, whole := s.whole()
	const upgrade = "upgrade-insecure-requests"
	if own := func(d headers.Directive) bool { return d.Name == upgrade }; !whole && !slices.ContainsFunc(s.CSP, own) {
		// The preset sends it over TLS only, which a line of one's own would not.
		csp = slices.DeleteFunc(csp, own)
	}
	return explanation.ContentPolicy{CSP: csp, Words: s.cspWords(), Whole: whole}, nil
}

// whole is the policy that is given as one value.
func (s *Settings) whole() (headers.Field, bool) {
	i := slices.IndexFunc(s.Set, func(f headers.Field) bool { return names([]string{"Content-Security-Policy"}, f.Name) })
	if i < 0 {
		return headers.Field{}, false
	}
	return s.Set[i], true
}

// cspWords are the lines of the csp block that are no directives, but for
// insecure_unsafe_csp, which depends on the directives.
func (s *Settings) cspWords() []string {
	var words []string
	if s.ReportOnly {
		words = append(words, "report_only")
	}
	if s.Enforce {
		words = append(words, "enforce")
	}
	if s.Report != "" {
		words = append(words, "report "+s.Report)
	}
	if s.Inline == "" {
		return words
	}
	inline := s.Inline
	if s.Pins != "" {
		inline += " " + word(s.Pins)
	}
	if s.Learn {
		inline += " learn"
	}
	if s.MaxInline != 0 {
		inline += fmt.Sprintf(" %dB", s.MaxInline)
	}
	return append(words, inline)
}

// word writes a path as a Caddyfile reads it as one.
func word(s string) string {
	switch {
	case !strings.ContainsAny(s, "\"`#") && !strings.ContainsFunc(s, unicode.IsSpace):
		return s
	case !strings.Contains(s, "`"):
		return "`" + s + "`"
	}
	return `"` + strings.ReplaceAll(s, `"`, `\"`) + `"`
}

var _ explanation.ContentPolicyHolder = (*Handler)(nil)
