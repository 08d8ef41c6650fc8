package inline

import "bytes"

// raw is an element whose content is not markup.
type raw struct {
	name   word
	end    int64 // where the '<' stands that may begin its end tag
	level  int   // of a script: 1 escaped, 2 double escaped
	dashes int
	high   bool // The last byte was not ASCII.
}

// enter chooses the state that an HTML start tag leads to. Browsers that run
// scripts read noscript as text.
func (r *Rewriter) enter(name word) {
	r.raw = raw{name: name}
	if !name.fits() {
		return
	}
	switch string(name.bytes()) {
	case "script":
		r.step = (*Rewriter).script
	case "style", "textarea", "title", "xmp", "iframe", "noembed", "noframes", "noscript":
		r.step = (*Rewriter).rawText
	case "plaintext":
		r.step = (*Rewriter).plaintext
	}
}

// plaintext ends with the page only.
func (*Rewriter) plaintext(b []byte, _ int) int { return len(b) }

// rawText is RAWTEXT and RCDATA, which end alike.
func (r *Rewriter) rawText(b []byte, i int) int {
	i = lessThan(b, i, '/')
	if i == len(b) {
		return i
	}
	r.raw.end = r.off + int64(i)
	r.step = (*Rewriter).rawOpen
	return i + 1
}

// lessThan returns where the next '<' stands that a slash or the other byte
// follows, or that ends the chunk; without one, the end of the chunk. Scripts
// are full of those that mean less than, so they are passed over here.
func lessThan(b []byte, i int, other byte) int {
	for {
		n := bytes.IndexByte(b[i:], '<')
		if n < 0 {
			return len(b)
		}
		i += n
		if i+1 == len(b) || b[i+1] == '/' || b[i+1] == other {
			return i
		}
		i++
	}
}

func (r *Rewriter) rawOpen(b []byte, i int) int {
	if b[i] != '/' {
		r.step = (*Rewriter).rawText
		return i
	}
	r.count, r.step = 0, (*Rewriter).rawEnd
	return i + 1
}

// rawEnd is what follows "</" in a raw element: its own name ends it.
func (r *Rewriter) rawEnd(b []byte, i int) int {
	name := r.raw.name.bytes()
	for ; i < len(b); i++ {
		c := b[i]
		switch {
		case r.count < len(name) && lower(c) == name[r.count]:
			r.count++
		case r.count == len(name) && (isSpace(c) || c == '/' || c == '>'):
			r.endContent(r.raw.end)
			r.tag = tag{start: r.raw.end, closing: true, attrs: r.tag.attrs[:0]}
			r.step = (*Rewriter).beforeAttr
			return i
		default:
			r.step = (*Rewriter).rawText
			if r.raw.name.is("script") {
				r.step = (*Rewriter).script
			}
			return i
		}
	}
	return i
}

// script follows sections 13.2.5.15 to 31: within "<!--", a "<script" hides one
// "</script>".
func (r *Rewriter) script(b []byte, i int) int {
	if r.raw.level == 0 {
		i = lessThan(b, i, '!')
		if i == len(b) {
			return i
		}
		return r.scriptMark(i)
	}
	for ; i < len(b); i++ {
		switch c := b[i]; {
		case c == '-':
			r.raw.dashes++
			continue
		case c == '<':
			return r.scriptMark(i)
		case c == '>' && r.raw.dashes >= 2:
			r.raw.level, r.raw.dashes = 0, 0
			return i + 1
		}
		r.raw.dashes = 0
	}
	return i
}

func (r *Rewriter) scriptMark(i int) int {
	r.raw.dashes = 0
	r.raw.end = r.off + int64(i)
	r.step = (*Rewriter).scriptOpen
	return i + 1
}

// scriptOpen is what follows a '<' in a script.
func (r *Rewriter) scriptOpen(b []byte, i int) int {
	r.count = 0
	switch c := b[i]; {
	case c == '/' && r.raw.level == 2:
		r.step = (*Rewriter).scriptWord
	case c == '/':
		r.step = (*Rewriter).rawEnd
	case c == '!' && r.raw.level == 0:
		r.step = (*Rewriter).scriptBang
	case isLetter(c) && r.raw.level == 1:
		r.step = (*Rewriter).scriptWord
		return i
	default:
		r.step = (*Rewriter).script
		return i
	}
	return i + 1
}

// scriptBang is what follows "<!" in a script: two dashes escape it.
func (r *Rewriter) scriptBang(b []byte, i int) int {
	if b[i] != '-' {
		r.step = (*Rewriter).script
		return i
	}
	if r.count++; r.count == 2 {
		r.raw.level, r.raw.dashes = 1, 2
		r.step = (*Rewriter).script
	}
	return i + 1
}

// scriptWord reads the name of a tag that turns escaped into double escaped,
// or back.
func (r *Rewriter) scriptWord(b []byte, i int) int {
	const name = "script"
	for ; i < len(b); i++ {
		switch c := b[i]; {
		case isLetter(c) && r.count < len(name) && lower(c) == name[r.count]:
			r.count++
		case isLetter(c):
			r.count = len(name) + 1
		case isSpace(c) || c == '/' || c == '>':
			if r.count == len(name) {
				r.raw.level = 3 - r.raw.level
			}
			r.step = (*Rewriter).script
			return i + 1
		default:
			r.step = (*Rewriter).script
			return i
		}
	}
	return i
}
