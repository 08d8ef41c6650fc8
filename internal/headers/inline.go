package headers

import (
	"slices"
	"strings"
)

// Code are the sources by which an answer's own inline code is allowed, as they stand
// in a policy: nonces or hashes.
type Code struct {
	// Scripts are added to script-src and script-src-elem.
	Scripts []string
	// Styles are added to style-src and style-src-elem.
	Styles []string
}

// point is a place in a policy's text where sources of an answer are added.
type point struct {
	before string // the text up to it, or up to 'none' where the list allows nothing
	none   bool   // the list is 'none', which goes when something is added
	styles bool
}

// pointed is a policy with the places where an answer's sources go.
type pointed struct {
	points []point
	rest   string
}

const none = "'none'"

// codeLists are the directives that an answer's sources are added to, and those that
// browsers fall back to where they are missing.
var codeLists = []struct {
	name   string
	styles bool
}{{"script-src", false}, {"script-src-elem", false}, {"style-src", true}, {"style-src-elem", true}}

// withLists gives a policy the lists that inline code needs, as copies of what browsers
// fall back to: a new list no longer inherits.
func (c CSP) withLists() CSP {
	for _, name := range []string{"script-src", "style-src"} {
		fallback := c.find("default-src")
		if c.find(name) == nil && fallback != nil {
			c = append(slices.Clone(c), Directive{Name: name, Sources: slices.Clone(fallback.Sources)})
		}
	}
	return c
}

// pointed finds the places. A list with 'unsafe-inline' gets nothing: a nonce beside it
// would take it back (CSP Level 3, section 6.7.3.2).
func (c CSP) pointed(tail string) pointed {
	var p pointed
	var text strings.Builder
	for i, d := range c {
		if i > 0 {
			text.WriteString("; ")
		}
		list := slices.IndexFunc(codeLists, func(l struct {
			name   string
			styles bool
		}) bool {
			return l.name == d.Name
		})
		if list < 0 || slices.Contains(d.Sources, "'unsafe-inline'") {
			text.WriteString(CSP{d}.String())
			continue
		}
		at := point{styles: codeLists[list].styles, none: slices.Equal(d.Sources, []string{none})}
		text.WriteString(d.Name)
		if !at.none {
			for _, s := range d.Sources {
				text.WriteString(" " + s)
			}
		}
		at.before = text.String()
		text.Reset()
		p.points = append(p.points, at)
	}
	p.rest = text.String() + tail
	return p
}

// with returns the policy's text with an answer's sources.
func (p *pointed) with(code Code) string {
	var b strings.Builder
	for _, at := range p.points {
		b.WriteString(at.before)
		sources := code.Scripts
		if at.styles {
			sources = code.Styles
		}
		if len(sources) == 0 && at.none {
			b.WriteString(" " + none)
		}
		for _, s := range sources {
			b.WriteByte(' ')
			b.WriteString(s)
		}
	}
	b.WriteString(p.rest)
	return b.String()
}
