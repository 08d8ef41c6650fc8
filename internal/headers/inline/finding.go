package inline

import "bytes"

// Kind is what a page has that a nonce or a hash does not cover.
type Kind uint8

// Kinds of findings.
const (
	// EventHandler: an attribute such as onclick holds a script.
	EventHandler Kind = iota
	// JavaScriptURL: a link, frame or form has a URL that is a script.
	JavaScriptURL
	// StyleAttribute: an attribute holds a style.
	StyleAttribute
	// Srcdoc: a frame has its document in an attribute. It obeys the page's
	// policy and is not rewritten.
	Srcdoc
	// Unnonceable: a script or style tag with an attribute that stands twice,
	// or that holds "<script" or "<style". Browsers ignore its nonce (CSP Level
	// 3 section 6.7.2.1), for an injection may have swallowed it.
	Unnonceable
	// TagTooLong: a script or style tag of more than 64 KiB or 64 attributes
	// was passed as it came.
	TagTooLong
	// ContentTooLong: an inline script or style is longer than may be held
	// back, so it cannot be pinned.
	ContentTooLong
	// Unpinned: a script or style is not among the pins.
	Unpinned
	// Ambiguous: a script or style cannot be pinned, because browsers may read
	// its content in another way: within svg or math, or behind markup that is
	// nested wrongly, it holds a '<' or an '&'; or what it holds depends on a
	// charset: it is not ASCII and the page not surely in UTF-8, or it stands
	// behind an escape character and the charset is guessed.
	Ambiguous
	// PinsFull: a hash was not learned, because the pins are full.
	PinsFull
	// TooManyHashes: the page has more inline scripts and styles than a policy
	// can list, so that none is.
	TooManyHashes
	kinds
)

var kindNames = [kinds]string{
	"event_handler", "javascript_url", "style_attribute", "srcdoc", "unnonceable",
	"tag_too_long", "content_too_long", "unpinned", "ambiguous", "pins_full", "too_many_hashes",
}

// String returns the kind as it stands in a report.
func (k Kind) String() string {
	if k < kinds {
		return kindNames[k]
	}
	return "unknown"
}

// Finding is the first place of its kind in a page. It never holds a value.
type Finding struct {
	Kind Kind
	// Offset is where the tag begins, in bytes from the beginning of the page.
	Offset int64
	// Element and Attribute are names in lower case, at most 24 characters,
	// with anything but letters, digits and ":-_." as a question mark.
	Element   string
	Attribute string
	// Hash is what the pins lack. Only Unpinned and PinsFull have one.
	Hash Hash
}

// report hands on the first finding of each kind.
func (r *Rewriter) report(f Finding) {
	if r.cfg.OnFinding == nil || r.reported&(1<<f.Kind) != 0 {
		return
	}
	r.reported |= 1 << f.Kind
	r.cfg.OnFinding(f)
}

// printable cuts what an upstream calls a name to what a log may hold.
func (w *word) printable() string {
	return string(bytes.Map(func(c rune) rune {
		if 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == ':' || c == '-' || c == '_' || c == '.' {
			return c
		}
		return '?'
	}, w.bytes()))
}

// judge reports an attribute that holds code.
func (r *Rewriter) judge(a *attr) {
	n := a.name.bytes()
	kind := kinds
	switch {
	case len(n) > 2 && n[0] == 'o' && n[1] == 'n' && isLetter(n[2]):
		kind = EventHandler
	case a.scheme == len(scheme):
		switch string(n) {
		case "href", "xlink:href", "src", "action", "formaction", "data":
			kind = JavaScriptURL
		}
	case a.name.is("style"):
		kind = StyleAttribute
	case a.name.is("srcdoc") && r.tag.name.is("iframe"):
		kind = Srcdoc
	}
	if kind == kinds || r.reported&(1<<kind) != 0 {
		return
	}
	r.report(Finding{Kind: kind, Offset: r.tag.start, Element: r.tag.name.printable(), Attribute: a.name.printable()})
}

const scheme = "javascript:"

// probe looks for the scheme at the beginning of a value, as the URL standard
// reads it: control characters and spaces in front, and tabs and line breaks
// anywhere, do not count. Character references are not resolved.
func (a *attr) probe(value []byte) {
	for _, c := range value {
		switch {
		case a.scheme < 0 || a.scheme == len(scheme):
			return
		case c == '\t' || c == '\n' || c == '\r', a.scheme == 0 && c <= ' ':
		case lower(c) == scheme[a.scheme]:
			a.scheme++
		default:
			a.scheme = -1
		}
	}
}
