package inline

// maxDepth is how many elements of svg or math may be open in one another.
const maxDepth = 128

// space says how the content of a start tag is read.
type space int

const (
	html  space = iota
	other       // svg or math: script and style are ordinary markup there
)

// tree knows as much of the document's tree as the tokenizer depends on: which
// elements of svg and math are open. A browser builds the whole tree, so what
// it makes of malformed nesting is not followed; the tree then stops being
// sure, for the rest of the page. While it is sure, it is right.
type tree struct {
	unsure    bool
	open      []word
	templates int
	selects   bool
}

func (t *tree) doubt() { t.unsure = true }

// foreign reports whether the current element is one of svg or math.
func (t *tree) foreign() bool { return len(t.open) > 0 }

// integrates reports whether the current element of svg or math holds HTML.
func (t *tree) integrates() bool {
	return integration[string(t.open[len(t.open)-1].bytes())]
}

// start counts a start tag and says how its content is read.
func (t *tree) start(tag *tag) space {
	if !tag.name.fits() {
		return t.unknown(tag)
	}
	name := string(tag.name.bytes())
	if t.foreign() {
		if !t.integrates() {
			if !breakout[name] && (name != "font" || !tag.font) {
				t.push(tag)
				return other
			}
			t.open = t.open[:0]
		}
		t.doubt()
	}
	t.startHTML(name)
	if name == "svg" || name == "math" {
		t.push(tag)
		return other
	}
	return html
}

// unknown counts a start tag with a name that is too long to be told from
// others.
func (t *tree) unknown(tag *tag) space {
	if t.selects {
		t.doubt()
	}
	if !t.foreign() {
		return html
	}
	if !tag.self || t.integrates() {
		t.doubt()
	}
	return other
}

// startHTML counts what changes how later tags are read. In a select element,
// browsers have changed what they ignore; where a tag is ignored, its content
// is read as markup.
func (t *tree) startHTML(name string) {
	if t.selects {
		switch name {
		case "option", "optgroup", "hr", "script":
		default:
			t.doubt()
		}
	}
	switch name {
	case "select":
		t.selects = true
	case "template":
		t.templates++
	case "col":
		// Directly in a template, it makes browsers ignore what follows.
		if t.templates > 0 {
			t.doubt()
		}
	case "frameset":
		t.doubt()
	}
}

func (t *tree) push(tag *tag) {
	switch {
	case tag.self:
	case len(t.open) == maxDepth:
		t.doubt()
	default:
		t.open = append(t.open, tag.name)
	}
}

// end counts an end tag.
func (t *tree) end(name word) {
	if !t.foreign() {
		t.endHTML(name)
		return
	}
	last := len(t.open) - 1
	if t.open[last] == name && name.fits() {
		t.open = t.open[:last]
		return
	}
	t.doubt()
	for i := last; i >= 0; i-- {
		if t.open[i] == name {
			t.open = t.open[:i]
			return
		}
	}
}

func (t *tree) endHTML(name word) {
	switch {
	case name.is("select"):
		t.selects = false
	case name.n == 0, name.is("option"), name.is("optgroup"):
		// Without a name it is the end of raw text.
	case t.selects:
		t.doubt()
	case name.is("template") && t.templates > 0:
		t.templates--
	}
}

// integration are the elements of svg and math that hold HTML.
var integration = set("foreignobject", "desc", "title", "mi", "mo", "mn", "ms", "mtext", "annotation-xml")

// breakout are the start tags that end svg and math (section 13.2.6.5).
var breakout = set("b", "big", "blockquote", "body", "br", "center", "code", "dd", "div", "dl", "dt",
	"em", "embed", "h1", "h2", "h3", "h4", "h5", "h6", "head", "hr", "i", "img", "li", "listing",
	"menu", "meta", "nobr", "ol", "p", "pre", "ruby", "s", "small", "span", "strong", "strike",
	"sub", "sup", "table", "tt", "u", "ul", "var")

func set(names ...string) map[string]bool {
	m := make(map[string]bool, len(names))
	for _, name := range names {
		m[name] = true
	}
	return m
}
