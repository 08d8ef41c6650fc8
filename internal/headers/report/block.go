package report

import (
	"fmt"
	"slices"
	"strings"

	"github.com/moat-gateway/moat/internal/headers"
)

const (
	// maxWarnings bounds the sentences; everything stands in Added.
	maxWarnings = 50
	// crowd is how many hosts below one name are worth a hint.
	crowd = 5
)

// warnings says what the operator has to know about a proposal.
func (p *proposer) warnings(out Proposal) []string {
	var all []string
	alone := lonely(out.Added)
	if len(alone) == len(out.Added) && len(alone) > 1 {
		all, alone = append(all, "one network reported all of it, and nobody else"), nil
	}
	for _, a := range out.Added {
		if why := doubt(a); why != "" {
			all = append(all, fmt.Sprintf("%s %s: %s", a.Directive, a.Source, why))
		}
		if alone[placed{a.Directive, a.Source}] {
			all = append(all, fmt.Sprintf("%s %s: one network reported it, and nobody else", a.Directive, a.Source))
		}
	}
	all = append(all, crowds(out.Added)...)
	if p.insecure(out.CSP) {
		all = append(all, "the current policy has sources that undo it, so the block needs insecure_unsafe_csp")
	}
	if len(all) > maxWarnings {
		all = append(all[:maxWarnings:maxWarnings], fmt.Sprintf("%d more warnings are not shown", len(all)-maxWarnings))
	}
	return all
}

// Sentence is one line about what is not allowed and why, fit for a comment.
func (a Apart) Sentence() string {
	blocked := a.Blocked
	if blocked == "" {
		blocked = "(nothing named)"
	}
	return fmt.Sprintf("%s %s: %s (%s)", printable(a.Directive), printable(blocked), a.Why, a.words())
}

// lonely are the additions that a single network may have invented.
func lonely(added []Addition) map[placed]bool {
	few := make(map[placed]bool)
	for _, a := range added {
		if a.Networks == 1 {
			few[placed{a.Directive, a.Source}] = true
		}
	}
	return few
}

// doubt says what deserves a look in a source that was added.
func doubt(a Addition) string {
	switch {
	case a.Source == self, a.Source == "data:", a.Source == "blob:":
		return ""
	case strings.HasPrefix(a.Source, "http://"), strings.HasPrefix(a.Source, "ws://"):
		return "anybody on the way can read and change it; use TLS if the host has it"
	default:
		return doubtful[a.Directive]
	}
}

// doubtful says what a stranger can do whose address stands in a directive. A
// directive that is not here only lets things be fetched.
var doubtful = map[string]string{
	"default-src": "it governs everything that has no directive of its own, and browsers name it for what is fetched ahead only; " +
		"add it only if that site is trusted with all of that",
	"script-src":      "that site may run code in the pages; add it only if that is meant",
	"script-src-elem": "that site may run code in the pages; add it only if that is meant",
	"style-src":       "that site may change what the pages look like and say; add it only if that is meant",
	"style-src-elem":  "that site may change what the pages look like and say; add it only if that is meant",
	"worker-src":      "that site may run code in the pages' workers; add it only if that is meant",
	"child-src":       "that site may run code in the pages' workers; add it only if that is meant",
	"object-src":      "that site may run plug-ins in the pages; add it only if that is meant",
	"connect-src":     "scripts may send data there; add it only if that is meant",
	"frame-ancestors": "that site may frame the pages (clickjacking); add it only if that is meant",
	"form-action":     "that site may be sent what is typed into forms; add it only if that is meant",
	"base-uri":        "that site may become the base of every relative address; add it only if that is meant",
}

// crowds points at names below which many hosts were added.
func crowds(added []Addition) []string {
	hosts := make(map[placed]int)
	for _, a := range added {
		if _, parent, ok := strings.Cut(expressionOf(a.Source).host, "."); ok && strings.Contains(parent, ".") {
			hosts[placed{a.Directive, parent}]++
		}
	}
	var all []string
	for at, n := range hosts {
		if n >= crowd {
			all = append(all, fmt.Sprintf("%s: %d hosts below %s; if all of that name belongs to one owner, "+
				"propose with the wildcard %s", at.directive, n, at.source, at.source))
		}
	}
	slices.Sort(all)
	return all
}

// insecure reports whether New refuses the policy without InsecureCSP.
func (p *proposer) insecure(policy headers.CSP) bool {
	_, err := headers.New(headers.Config{CSP: policy, CSPReportOnly: true})
	return err != nil
}

// block writes the policy as it stands in a Caddyfile.
func (p *proposer) block(out Proposal) string {
	var b strings.Builder
	if p.o.Whole {
		for _, a := range out.Added {
			fmt.Fprintf(&b, "# %s %s: %s\n", a.Directive, a.Source, a.words())
		}
		fmt.Fprintf(&b, "set Content-Security-Policy \"%s\"\n", strings.ReplaceAll(out.CSP.String(), `"`, `\"`))
		return b.String()
	}
	b.WriteString("csp {\n")
	for _, word := range p.o.Words {
		if word == "report_only" {
			b.WriteString("\t# Take report_only off to enforce the policy.\n")
		}
		b.WriteString("\t" + word + "\n")
	}
	if p.insecure(out.CSP) {
		b.WriteString("\t# The policy before this one had sources that undo it.\n\tinsecure_unsafe_csp\n")
	}
	for _, d := range out.CSP {
		p.comment(&b, d.Name, out.Added)
		b.WriteString("\t" + d.Name)
		for _, s := range d.Sources {
			b.WriteString(" " + quoted(s))
		}
		b.WriteByte('\n')
	}
	b.WriteString("}\n")
	return b.String()
}

// comment writes what a directive got and why.
func (p *proposer) comment(b *strings.Builder, name string, added []Addition) {
	if line(p.current, name) == nil {
		fmt.Fprintf(b, "\t# New; it begins with the sources of %s, which it no longer inherits.\n", inForce(p.current, name).Name)
	}
	for _, a := range added {
		if a.Directive == name {
			fmt.Fprintf(b, "\t# %s: %s\n", a.Source, a.words())
		}
	}
}

// words puts the evidence into words.
func (s Seen) words() string {
	text := plural(s.Count, "report")
	if s.Documents > 0 {
		text += " on " + plural(int64(s.Documents), "page") + ", such as " + printable(s.Example)
	}
	if s.Networks > 0 {
		text += ", from " + plural(int64(s.Networks), "network")
	}
	if !s.First.IsZero() && !s.Last.IsZero() {
		text += ", " + s.First.UTC().Format("2006-01-02") + " to " + s.Last.UTC().Format("2006-01-02")
	}
	return text
}

func plural(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// printable makes a text fit for one line of a comment. Evidence may be made by
// others than Parse, and a line break would begin a line of the configuration.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' || r == '{' || r == '}' {
			return '?'
		}
		return r
	}, s)
	if len(s) > maxPath {
		s = s[:maxPath]
	}
	return s
}

// quoted writes a value so that a Caddyfile reads it as one word.
func quoted(s string) string {
	if strings.HasPrefix(s, "#") || strings.ContainsAny(s, "\"`\\") {
		return `"` + strings.ReplaceAll(s, `"`, `\"`) + `"`
	}
	return s
}
