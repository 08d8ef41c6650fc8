package inline

import "bytes"

// word is a short name in lower case. One that does not fit equals no name.
type word struct {
	b [24]byte
	n uint8
}

func (w *word) add(c byte) {
	if int(w.n) < len(w.b) {
		w.b[w.n] = lower(c)
		w.n++
		return
	}
	w.n = uint8(len(w.b) + 1)
}

// fits reports whether the word is known in full.
func (w *word) fits() bool { return int(w.n) <= len(w.b) }

// bytes returns the word, or its beginning.
func (w *word) bytes() []byte { return w.b[:min(int(w.n), len(w.b))] }

func (w *word) is(name string) bool { return w.fits() && string(w.bytes()) == name }

// begins reports whether the word may become the name.
func (w *word) begins(name string) bool {
	return int(w.n) <= len(name) && string(w.bytes()) == name[:w.n]
}

// tag is the tag that is being read.
type tag struct {
	start   int64 // of its '<' in the page
	name    word
	closing bool
	self    bool // It ends in "/>".
	font    bool // It has an attribute that moves a font tag out of svg.
	full    bool // It has more than maxAttrs attributes.
	open    bool // attr is not counted yet.
	quote   byte
	attr    attr
	attrs   []attr // of a script or style tag
}

// attr is an attribute, in bytes from the tag's '<'.
type attr struct {
	name       word
	begin, end int // of the name
	valued     bool
	from, to   int // of the value with its quotes
	scheme     int // how much of "javascript:" the value begins with
}

// at is chunk[i] counted from the tag's '<'.
func (r *Rewriter) at(i int) int { return int(r.off + int64(i) - r.tag.start) }

func (r *Rewriter) tagName(b []byte, i int) int {
	t := &r.tag
	for ; i < len(b); i++ {
		c := b[i]
		if isSpace(c) || c == '/' || c == '>' {
			r.named()
			r.step = (*Rewriter).beforeAttr
			return i
		}
		t.name.add(c)
		if r.holding && !t.closing && !t.name.begins("script") && !t.name.begins("style") {
			r.settle()
		}
	}
	return i
}

// named decides at the end of a tag's name whether the tag is held further.
func (r *Rewriter) named() {
	t := &r.tag
	e := &r.element
	switch {
	case e.plain && t.closing && t.name == e.name:
		r.endContent(t.start)
	case e.plain:
		r.refuse(Ambiguous)
	case r.holding && !t.name.is("script") && !t.name.is("style"):
		r.release()
	}
}

// beforeAttr is the state before a name, and after a quoted value, where
// browsers go on in the same way.
func (r *Rewriter) beforeAttr(b []byte, i int) int {
	for ; i < len(b); i++ {
		switch c := b[i]; {
		case isSpace(c):
		case c == '>':
			return r.endTag(i + 1)
		case c == '/':
			r.step = (*Rewriter).slash
			return i + 1
		default:
			// An equals sign at the beginning is part of the name.
			r.endAttr()
			r.tag.open = true
			r.tag.attr = attr{begin: r.at(i)}
			r.tag.attr.name.add(c)
			r.step = (*Rewriter).attrName
			return i + 1
		}
	}
	return i
}

func (r *Rewriter) slash(b []byte, i int) int {
	if b[i] == '>' {
		r.tag.self = true
		return r.endTag(i + 1)
	}
	r.step = (*Rewriter).beforeAttr
	return i
}

func (r *Rewriter) attrName(b []byte, i int) int {
	a := &r.tag.attr
	for ; i < len(b); i++ {
		switch c := b[i]; {
		case isSpace(c), c == '/', c == '>':
			a.end = r.at(i)
			r.step = (*Rewriter).afterName
			return i
		case c == '=':
			a.end = r.at(i)
			r.step = (*Rewriter).beforeValue
			return i + 1
		default:
			a.name.add(c)
		}
	}
	return i
}

func (r *Rewriter) afterName(b []byte, i int) int {
	for ; i < len(b); i++ {
		c := b[i]
		if isSpace(c) {
			continue
		}
		if c == '=' {
			r.step = (*Rewriter).beforeValue
			return i + 1
		}
		r.step = (*Rewriter).beforeAttr
		return i
	}
	return i
}

func (r *Rewriter) beforeValue(b []byte, i int) int {
	for ; i < len(b); i++ {
		c := b[i]
		if isSpace(c) {
			continue
		}
		a := &r.tag.attr
		a.valued, a.from, a.to = true, r.at(i), r.at(i)
		switch c {
		case '"', '\'':
			r.tag.quote = c
			r.step = (*Rewriter).quoted
			return i + 1
		case '>':
			r.step = (*Rewriter).beforeAttr
		default:
			r.step = (*Rewriter).unquoted
		}
		return i
	}
	return i
}

func (r *Rewriter) quoted(b []byte, i int) int {
	n := bytes.IndexByte(b[i:], r.tag.quote)
	if n < 0 {
		r.tag.attr.probe(b[i:])
		return len(b)
	}
	r.tag.attr.probe(b[i : i+n])
	i += n + 1
	r.tag.attr.to = r.at(i)
	r.step = (*Rewriter).beforeAttr
	return i
}

func (r *Rewriter) unquoted(b []byte, i int) int {
	from := i
	for i < len(b) && !isSpace(b[i]) && b[i] != '>' {
		i++
	}
	r.tag.attr.probe(b[from:i])
	if i < len(b) {
		r.tag.attr.to = r.at(i)
		r.step = (*Rewriter).beforeAttr
	}
	return i
}

// endAttr counts the attribute that was read last.
func (r *Rewriter) endAttr() {
	t := &r.tag
	if !t.open || t.closing {
		return
	}
	t.open = false
	r.judge(&t.attr)
	if n := &t.attr.name; n.is("color") || n.is("face") || n.is("size") {
		t.font = true
	}
	if !r.holding {
		return
	}
	if len(t.attrs) == maxAttrs {
		t.full = true
		return
	}
	t.attrs = append(t.attrs, t.attr)
}

// endTag is at the byte behind a tag's '>'.
func (r *Rewriter) endTag(i int) int {
	r.endAttr()
	t := &r.tag
	r.step = (*Rewriter).text
	if t.closing {
		r.tree.end(t.name)
		return i
	}
	space := r.tree.start(t)
	if r.holding {
		r.decide(i, space)
	}
	if space != other {
		r.enter(t.name)
	}
	return i
}
