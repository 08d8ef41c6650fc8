package canon

import (
	"net/http"
	"net/url"
	"strings"
)

// Target is a request target in its canonical form. Only a Target that
// Policy.Target returned without an error is canonical.
type Target struct {
	// Method is the request's method, one of the allow-list.
	Method string
	// Host is the host the request is for: a name in lower case without port
	// and final dot, or an IP address in its usual text form without brackets.
	Host string
	// Path is the canonical escaped path: what rules match, and byte for byte
	// what goes upstream.
	Path string
	// Match is what the literals of rules are compared with. It equals Path,
	// unless Config.CaseInsensitive is set: then it is Path with every ASCII
	// letter in lower case, those in escapes included, and literals have to be
	// folded the same way.
	//
	// It cannot widen what a caller may do, because all accepted spellings of a
	// path that differ in case alone have the same Match, and so the same rule,
	// and the upstream was said to take them for the same resource. Values are
	// another matter: an upstream that ignores the case of "/Users" may well
	// tell user "a" from user "A". A parameter's value has to be taken from
	// Path; byte i of Match stands for byte i of Path.
	Match string
	// Query is the raw query, untouched. Whoever reads it calls Query first.
	Query string
	// EmptyQuery says that the target ended in a "?" with nothing behind it. It
	// is kept, since an upstream can tell it from no query.
	EmptyQuery bool
}

// HasEncodedSlash reports whether a segment holds a %2F. Such a target exists
// only under Config.AllowEncodedSlash; where only some rules allow it, the
// others have to refuse it by this.
func (t Target) HasEncodedSlash() bool { return strings.Contains(t.Path, "%2F") }

// URI returns the target in origin form (RFC 9112 section 3.2.1), as it stands
// in the request line that the upstream receives.
func (t Target) URI() string {
	if t.hasQuery() {
		return t.Path + "?" + t.Query
	}
	return t.Path
}

func (t Target) hasQuery() bool { return t.Query != "" || t.EmptyQuery }

// isURI reports whether s is what URI returns.
func (t Target) isURI(s string) bool {
	rest, ok := strings.CutPrefix(s, t.Path)
	if ok && t.hasQuery() {
		rest, ok = strings.CutPrefix(rest, "?")
	}
	return ok && rest == t.Query
}

// Apply makes r carry exactly t, so that r.URL.RequestURI and r.RequestURI are
// t.URI: an absolute form becomes the origin form, and the escaped path is kept
// in URL.RawPath where net/url would spell it otherwise. The Host of r stays as
// it is, with its port. Apply does not allocate when r is canonical already.
func (t Target) Apply(r *http.Request) {
	if r.URL == nil {
		r.URL = new(url.URL)
	}
	// Whatever is not named below must not survive: Opaque would replace the
	// path on the wire, Host and Scheme would make the form absolute.
	u := url.URL{Path: r.URL.Path, RawQuery: t.Query, ForceQuery: t.EmptyQuery}
	if !decodesTo(t.Path, u.Path) {
		u.Path = decode(t.Path)
	}
	if !isDefaultEncoding(t.Path) {
		u.RawPath = t.Path
	}
	*r.URL = u
	r.Method = t.Method
	if !t.isURI(r.RequestURI) {
		r.RequestURI = t.URI()
	}
}

// decode decodes a canonical path. What is not one stays as it is.
func decode(path string) string {
	decoded, err := url.PathUnescape(path)
	if err != nil {
		return path
	}
	return decoded
}
