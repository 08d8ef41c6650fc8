// Package canon knows the one form in which a request target is judged and
// forwarded. It turns a request into that form or refuses it; it knows nothing
// of rules, callers or answers.
//
// Gateways are walked around where they read a target differently from the
// application behind them (CWE-22, CWE-41, CWE-436). So nothing is repaired
// here: apart from two rewrites that RFC 3986 section 6.2.2 calls equivalent
// under every scheme (an escaped unreserved character becomes the character, the
// hexadecimal digits of an escape become upper case), what is not canonical is
// refused, and the bytes that rules match are the bytes that go upstream.
package canon

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

const (
	defaultMax = 8192
	// The largest limit that can be set: beyond it a server's header limit is
	// what counts.
	ceilingMax = 1 << 20
	maxMethods = 64
	maxMethod  = 32
)

// Config is what a site may change about the canonical form. The zero Config is
// the strict one.
type Config struct {
	// Methods are the allowed methods, compared exactly; write them in upper
	// case. Default: the list DefaultMethods returns. An empty list that is not
	// nil is an error. CONNECT and TRACE cannot be allowed: the first asks for a
	// tunnel, the second echoes the headers the gateway added.
	Methods []string
	// AllowEncodedSlash keeps %2F inside one segment. It weakens: an upstream
	// that decodes before it routes sees two segments where rules see one. Dot
	// and empty segments are refused on either side of a %2F all the same.
	// Default: %2F is refused.
	AllowEncodedSlash bool
	// AllowEmptySegments lets "//" pass. It weakens: many upstreams merge
	// slashes, and then serve "//admin" as "/admin". Default: refused.
	AllowEmptySegments bool
	// RefuseParameters refuses a raw ";" in the path. Set it for upstreams that
	// cut segment parameters off before they route (servlet containers), where
	// "/admin;x" is "/admin" to the upstream and another segment to the rules.
	// Default: ";" is a character like others, except behind dots.
	RefuseParameters bool
	// CaseInsensitive says that the upstream ignores the case of paths, so that
	// rules must, too; see Target.Match. Such upstreams often stand on file
	// systems that also ignore dots and spaces at the end of a name, so segments
	// that end in them are refused. Letters outside ASCII pass in their folded
	// (lower) case only. Default: case counts.
	CaseInsensitive bool
	// MaxPath and MaxQuery are the longest escaped path and the longest query,
	// in bytes. Longer ones are answered 414. Default: 8192 each. At most 1 MiB.
	MaxPath, MaxQuery int
}

// Policy turns requests into targets. It is immutable and safe for concurrent
// use. The nil and the zero Policy allow no method and so refuse every request.
type Policy struct {
	methods            []string
	allow              string
	allowEncodedSlash  bool
	allowEmptySegments bool
	refuseParameters   bool
	caseInsensitive    bool
	maxPath, maxQuery  int
}

// DefaultMethods returns the methods that are allowed when Config.Methods is nil.
func DefaultMethods() []string {
	return []string{
		http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut,
		http.MethodPatch, http.MethodDelete, http.MethodOptions,
	}
}

// New checks c and returns its Policy. The error joins every mistake in c.
func New(c Config) (*Policy, error) {
	methods := slices.Clone(c.Methods)
	if c.Methods == nil {
		methods = DefaultMethods()
	}
	maxPath, pathErr := limit("max_path", c.MaxPath)
	maxQuery, queryErr := limit("max_query", c.MaxQuery)
	if err := errors.Join(checkMethods(methods), pathErr, queryErr); err != nil {
		return nil, err
	}
	return &Policy{
		methods:            methods,
		allow:              strings.Join(methods, ", "),
		allowEncodedSlash:  c.AllowEncodedSlash,
		allowEmptySegments: c.AllowEmptySegments,
		refuseParameters:   c.RefuseParameters,
		caseInsensitive:    c.CaseInsensitive,
		maxPath:            maxPath,
		maxQuery:           maxQuery,
	}, nil
}

func limit(place string, n int) (int, error) {
	if n < 0 || n > ceilingMax {
		return 0, fmt.Errorf("%s %d: must be from 1 to %d bytes, or 0 for %d", place, n, ceilingMax, defaultMax)
	}
	if n == 0 {
		return defaultMax, nil
	}
	return n, nil
}

func checkMethods(methods []string) error {
	if len(methods) == 0 {
		return errors.New("methods: an empty list would refuse every request; leave it out for the default")
	}
	if len(methods) > maxMethods {
		return fmt.Errorf("methods: %d of them: at most %d", len(methods), maxMethods)
	}
	var errs []error
	for i, m := range methods {
		switch {
		case !isMethod(m):
			errs = append(errs, fmt.Errorf("methods: %q: must be 1 to %d upper-case letters, digits, '-' or '_'", m, maxMethod))
		case m == http.MethodConnect:
			errs = append(errs, fmt.Errorf("methods: %q: asks for a tunnel and cannot be allowed", m))
		case m == http.MethodTrace:
			errs = append(errs, fmt.Errorf("methods: %q: echoes headers back to the client and cannot be allowed", m))
		case slices.Contains(methods[:i], m):
			errs = append(errs, fmt.Errorf("methods: %q: listed twice", m))
		}
	}
	return errors.Join(errs...)
}

func isMethod(m string) bool {
	if m == "" || len(m) > maxMethod {
		return false
	}
	for i := range len(m) {
		c := m[i]
		if !('A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return true
}

// Allow returns the value of the Allow header of a 405 answer (RFC 9110
// section 10.2.1).
func (p *Policy) Allow() string {
	if p == nil {
		return ""
	}
	return p.allow
}

// Target returns the canonical target of r, or a *Refusal. It reads the method,
// the host, the URL and the request URI of r and changes nothing; Target.Apply
// does. It does not allocate for a target that is already canonical.
//
// The path it judges is what net/http's transport would send for r.URL. A path
// that a handler before rewrote is judged as rewritten.
func (p *Policy) Target(r *http.Request) (Target, error) {
	if p == nil || !slices.Contains(p.methods, r.Method) {
		return Target{}, refuse(MethodNotAllowed, ReasonMethod)
	}
	if r.URL == nil {
		return Target{}, refuse(BadRequest, ReasonNoTarget)
	}
	if reason := checkForm(r.URL); reason != "" {
		return Target{}, refuse(BadRequest, reason)
	}
	host, reason := authority(r.URL, r.Host)
	if reason != "" {
		return Target{}, refuse(BadRequest, reason)
	}
	path, err := p.canonical(escapedPath(r))
	if err != nil {
		return Target{}, err
	}
	if len(r.URL.RawQuery) > p.maxQuery {
		return Target{}, refuse(URITooLong, ReasonQueryTooLong)
	}
	if reason := checkQuery(r.URL.RawQuery); reason != "" {
		return Target{}, refuse(BadRequest, reason)
	}
	t := Target{
		Method:     r.Method,
		Host:       host,
		Path:       path,
		Match:      path,
		Query:      r.URL.RawQuery,
		EmptyQuery: r.URL.ForceQuery && r.URL.RawQuery == "",
	}
	if p.caseInsensitive {
		t.Match = strings.ToLower(path)
	}
	return t, nil
}

// checkForm refuses the forms of RFC 9112 section 3.2 and of net/url that do not
// name a resource of this site by a path.
func checkForm(u *url.URL) string {
	switch {
	case u.Opaque != "":
		return ReasonOpaque
	case u.Path == "*":
		return ReasonAsterisk
	case u.Fragment != "" || u.RawFragment != "":
		return ReasonFragment
	case u.User != nil:
		return ReasonUserinfo
	}
	return ""
}

// escapedPath returns the escaped path of r.URL without decoding it into new
// memory where that can be helped. It is what URL.EscapedPath returns, with two
// exceptions. The case of hexadecimal digits may differ. A RawPath with bytes
// that have no place in a path is returned as it is: EscapedPath would escape
// them and hide that they were raw on the wire.
func escapedPath(r *http.Request) string {
	u := r.URL
	if decodesTo(u.RawPath, u.Path) {
		return u.RawPath
	}
	if wire, _, _ := strings.Cut(r.RequestURI, "?"); isDefaultEncoding(wire) && decodesTo(wire, u.Path) {
		return wire
	}
	return u.EscapedPath()
}

// Path returns the canonical form of an escaped path under the default policy,
// or a *Refusal. It is for paths in a configuration, which have to meet those of
// requests.
func Path(raw string) (string, error) {
	p := Policy{maxPath: defaultMax}
	return p.canonical(raw)
}
