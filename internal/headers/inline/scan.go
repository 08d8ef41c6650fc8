package inline

import "bytes"

// step is a state of the WHATWG tokenizer (section 13.2.5), or a few that need
// not be told apart. It takes some of b from i on and returns where the next
// step begins; every state can stop after any byte.
type step func(r *Rewriter, b []byte, i int) int

// scanner is where the tokenizer is.
type scanner struct {
	step step
	tree tree
	tag  tag
	raw  raw
	// count is how far a state of several bytes is: dashes of a comment,
	// brackets of a section, letters of a word.
	count int
}

// text is the data state, and that of RCDATA's surroundings.
func (r *Rewriter) text(b []byte, i int) int {
	n := bytes.IndexByte(b[i:], '<')
	if n < 0 {
		return len(b)
	}
	i += n
	r.tag = tag{start: r.off + int64(i), attrs: r.tag.attrs[:0]}
	r.hold(i)
	r.step = (*Rewriter).open
	return i + 1
}

// open is what follows a '<'.
func (r *Rewriter) open(b []byte, i int) int {
	switch c := b[i]; {
	case isLetter(c):
		r.step = (*Rewriter).tagName
		return i
	case c == '/':
		r.tag.closing = true
		if !r.element.plain {
			r.release()
		}
		r.step = (*Rewriter).closeOpen
	case c == '!':
		r.settle()
		r.count = 0
		r.step = (*Rewriter).markup
	case c == '?':
		r.settle()
		r.step = (*Rewriter).bogus
	default:
		r.settle()
		r.step = (*Rewriter).text
		return i
	}
	return i + 1
}

// closeOpen is what follows "</".
func (r *Rewriter) closeOpen(b []byte, i int) int {
	switch c := b[i]; {
	case isLetter(c):
		r.step = (*Rewriter).tagName
		return i
	case c == '>':
		r.settle()
		r.step = (*Rewriter).text
		return i + 1
	default:
		r.settle()
		r.step = (*Rewriter).bogus
		return i
	}
}

// settle ends the hold at something that is neither a script or style tag nor
// the end of what is held.
func (r *Rewriter) settle() {
	if r.element.plain {
		r.refuse(Ambiguous)
		return
	}
	r.release()
}

// section begins a text that only "]]>" ends, where the current element is not
// one of HTML.
const section = "[CDATA["

// markup is what follows "<!". A document type ends like a bogus comment.
func (r *Rewriter) markup(b []byte, i int) int {
	c := b[i]
	switch {
	case r.count == 0 && c == '-':
		r.count = -1
		return i + 1
	case r.count == -1 && c == '-':
		r.count, r.step = startOfComment, (*Rewriter).comment
		return i + 1
	case r.count >= 0 && r.tree.foreign() && c == section[r.count]:
		r.count++
		if r.count == len(section) {
			r.count, r.step = 0, (*Rewriter).cdata
			r.raw.high = false
		}
		return i + 1
	}
	r.step = (*Rewriter).bogus
	return i
}

// bogus is everything that only a '>' ends.
func (r *Rewriter) bogus(b []byte, i int) int {
	n := bytes.IndexByte(b[i:], '>')
	if n < 0 {
		return len(b)
	}
	r.step = (*Rewriter).text
	return i + n + 1
}

// How far a comment is. Up to two, it is the number of dashes seen.
const (
	inComment      = 0
	endOfComment   = 2
	bangOfComment  = 3 // after "--!"
	startOfComment = 4 // after "<!--"
	dashOfComment  = 5 // after "<!---"
)

// comment follows sections 13.2.5.43 to 52. The states after a '<' within a
// comment only report an error, so they are left out.
func (r *Rewriter) comment(b []byte, i int) int {
	if r.count == inComment {
		n := bytes.IndexByte(b[i:], '-')
		if n < 0 {
			return len(b)
		}
		r.count = 1
		return i + n + 1
	}
	switch c := b[i]; {
	case c == '>' && r.count >= endOfComment:
		r.step = (*Rewriter).text
	case c == '-':
		r.count = dashed[r.count]
	case c == '!' && r.count == endOfComment:
		r.count = bangOfComment
	default:
		r.count = inComment
	}
	return i + 1
}

// dashed is where a dash leads from each state of a comment.
var dashed = [...]int{
	inComment: 1, 1: endOfComment, endOfComment: endOfComment,
	bangOfComment: 1, startOfComment: dashOfComment, dashOfComment: endOfComment,
}

// cdata is a CDATA section. In Chinese, Japanese and Korean encodings a bracket
// may be half of a character, and then the section does not end where its
// bytes say so.
func (r *Rewriter) cdata(b []byte, i int) int {
	for ; i < len(b); i++ {
		switch c := b[i]; {
		case c == ']' && r.raw.high:
			r.tree.doubt()
			r.count++
		case c == ']':
			r.count++
		case c == '>' && r.count >= 2:
			r.step = (*Rewriter).text
			return i + 1
		default:
			r.count = 0
		}
		r.raw.high = b[i] >= 0x80
	}
	return i
}
