package inline

import (
	"bytes"
	"slices"
	"strings"
)

// element is a script or style that is held back until its content is known.
type element struct {
	name  word
	edit  edit
	size  int   // of the start tag
	begin int64 // of the start tag
	// plain: its content may only be characters that mean themselves, because
	// it may be read as markup. It ends at the first '<'.
	plain bool
	// strict: its content must be as plain, but it is read as raw text.
	strict bool
}

// overdue reports whether so many held bytes are more than may be. The end of
// a script is known some bytes behind its content only.
func (r *Rewriter) overdue(held int) bool {
	const slack = 16
	if r.element.size == 0 {
		return held > maxTag
	}
	return held > r.element.size+r.cfg.MaxContent+slack
}

// giveUp lets go of what is too long to be held.
func (r *Rewriter) giveUp() {
	if r.element.size > 0 {
		r.refuse(ContentTooLong)
		return
	}
	r.report(r.finding(TagTooLong))
	r.release()
}

func (r *Rewriter) finding(k Kind) Finding {
	return Finding{Kind: k, Offset: r.tag.start, Element: r.tag.name.printable()}
}

// refuse lets the held element go without a nonce, and says why. What is only
// learned keeps working.
func (r *Rewriter) refuse(k Kind) {
	f := r.finding(k)
	if e := &r.element; e.size > 0 {
		f.Offset, f.Element = e.begin, e.name.printable()
	}
	r.report(f)
	r.conclude(false)
}

// conclude lets the held element go.
func (r *Rewriter) conclude(ok bool) {
	if (ok || r.cfg.Learn) && r.element.size > 0 {
		r.edit(r.element.edit)
		return
	}
	r.release()
}

// decide is at the end of a script or style start tag: chunk[i] is behind it.
func (r *Rewriter) decide(i int, s space) {
	b := r.region(i)
	t := &r.tag
	if len(b) > maxTag || t.full {
		r.giveUp()
		return
	}
	if repeated(b, t.attrs) || swallowed(b) {
		r.report(r.finding(Unnonceable))
	}
	e := element{name: t.name, edit: r.place(b), size: len(b), begin: t.start}
	if r.cfg.Pins == nil {
		r.edit(e.edit)
		return
	}
	r.element = e
	if r.switched(r.off + int64(i)) {
		r.refuse(Ambiguous)
		return
	}
	r.decidePinned(b, s)
}

// place returns where the nonce goes. An attribute of the upstream is given
// our value where it stands: browsers ignore the nonce of a script that has two.
func (r *Rewriter) place(b []byte) edit {
	for i := range r.tag.attrs {
		a := &r.tag.attrs[i]
		switch {
		case !a.name.is("nonce"):
		case a.valued:
			return edit{a.from, a.to, r.value[1:]}
		default:
			return edit{a.end, a.end, r.value}
		}
	}
	at := 1 + int(r.tag.name.n)
	return edit{at, at, r.insert}
}

// repeated reports whether an attribute stands twice.
func repeated(b []byte, attrs []attr) bool {
	for i := range attrs {
		for j := range i {
			if bytes.EqualFold(b[attrs[i].begin:attrs[i].end], b[attrs[j].begin:attrs[j].end]) {
				return true
			}
		}
	}
	return false
}

// swallowed reports whether an attribute holds what may be the beginning of
// another script or style tag.
func swallowed(b []byte) bool {
	for rest := b[1:]; ; {
		n := bytes.IndexByte(rest, '<')
		if n < 0 {
			return false
		}
		rest = rest[n+1:]
		if len(rest) >= 6 && equalLower(rest[:6], "script") || len(rest) >= 5 && equalLower(rest[:5], "style") {
			return true
		}
	}
}

// decidePinned decides about a script with a source at once; the others are
// held on until their content is known.
func (r *Rewriter) decidePinned(b []byte, s space) {
	t := &r.tag
	script := t.name.is("script")
	sources, runs := r.sources(b, s)
	switch {
	case script && !runs:
		// A block of data needs no nonce.
		r.conclude(false)
	case script && len(sources) > 0 && (r.tree.unsure || slices.ContainsFunc(sources, r.obscure)):
		// Which attribute counts depends on where the script stands, and what it
		// names on the charset.
		r.refuse(Ambiguous)
	case script && len(sources) > 0:
		r.verdict(hashSources(sources)...)
	case t.self && r.tree.unsure:
		r.refuse(Ambiguous)
	case t.self && s == other:
		r.conclude(false)
	default:
		r.element.plain = s == other
		r.element.strict = r.tree.unsure
	}
}

func hashSources(values [][]byte) []Hash {
	hashes := make([]Hash, len(values))
	for i, value := range values {
		hashes[i] = HashSource(value)
	}
	return hashes
}

// sources returns the values of the attributes that name where the script
// comes from, and whether its type is one that browsers run. If the tree is
// not sure, every such attribute counts.
func (r *Rewriter) sources(b []byte, s space) (values [][]byte, runs bool) {
	runs = true
	typed := false
	for i := range r.tag.attrs {
		a := &r.tag.attrs[i]
		value := a.unquoted(b)
		switch {
		case a.name.is("type") && !typed:
			typed, runs = true, running(value)
		case a.name.is("src") && (s == html || r.tree.unsure),
			a.name.is("href") && (s == other || r.tree.unsure),
			a.name.is("xlink:href") && (s == other || r.tree.unsure):
			values = append(values, value)
		}
	}
	return values, runs
}

// unquoted returns the value as it stands in the page.
func (a *attr) unquoted(b []byte) []byte {
	v := b[a.from:a.to]
	if !a.valued {
		return nil
	}
	if len(v) >= 2 && (v[0] == '"' || v[0] == '\'') {
		return v[1 : len(v)-1]
	}
	return v
}

// running reports whether a type may be one that browsers run. To take data
// for a script only costs a finding.
func running(kind []byte) bool {
	k := strings.ToLower(strings.TrimSpace(string(kind)))
	switch k {
	case "", "module", "importmap", "speculationrules":
		return true
	}
	return strings.Contains(k, "script")
}

// endContent is at the end of an element, whose end tag begins at end.
func (r *Rewriter) endContent(end int64) {
	e := &r.element
	if e.size == 0 {
		return
	}
	stop := int(end - e.begin)
	b := r.upTo(stop)
	content := b[e.size:stop]
	switch {
	case len(content) > r.cfg.MaxContent:
		r.refuse(ContentTooLong)
	case (e.plain || e.strict) && bytes.ContainsAny(content, "<&"), r.switched(end), r.obscure(content):
		r.refuse(Ambiguous)
	case e.name.is("script"):
		r.verdict(HashScript(content))
	default:
		r.verdict(HashStyle(content))
	}
}

// upTo returns the held region in one piece, at least its first n bytes. The
// end of a script may stand in an earlier chunk than what proves it.
func (r *Rewriter) upTo(n int) []byte {
	return r.region(max(r.mark, r.mark+n-len(r.held)))
}

// verdict gives the held element its nonce if all hashes are pinned.
func (r *Rewriter) verdict(hashes ...Hash) {
	e := &r.element
	ok := true
	for _, h := range hashes {
		if r.collect != nil {
			r.collect(h)
		}
		kind := Unpinned
		if r.cfg.Learn {
			kind = PinsFull
		}
		if r.cfg.Learn && !r.cfg.Pins.Learn(h) || !r.cfg.Learn && !r.cfg.Pins.Has(h) {
			ok = false
			r.report(Finding{Kind: kind, Offset: e.begin, Element: e.name.printable(), Hash: h})
		}
	}
	r.conclude(ok)
}
