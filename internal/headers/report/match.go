package report

import (
	"slices"
	"strings"

	"github.com/moat-gateway/moat/internal/headers"
)

// expression is a source expression taken apart. Of a keyword, a hash and a
// nonce only the text is set.
type expression struct {
	text                     string
	scheme, host, port, path string
}

// expressionOf takes a source in normal form apart.
func expressionOf(text string) expression {
	e := expression{text: text}
	if text[0] == '\'' {
		return e
	}
	if name, ok := strings.CutSuffix(text, ":"); ok {
		e.scheme = name
		return e
	}
	rest := text
	if name, after, ok := strings.Cut(text, "://"); ok {
		e.scheme, rest = name, after
	}
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		rest, e.path = rest[:i], rest[i:]
	}
	e.host, e.port, _ = strings.Cut(rest, ":")
	if e.scheme != "" && e.port == defaultPorts[e.scheme] {
		e.port = ""
	}
	return e
}

// String returns the expression in the form in which equal ones are equal.
func (e expression) String() string {
	if e.host == "" {
		return e.text
	}
	return origin{e.scheme, e.host, e.port}.String() + e.path
}

// covers reports whether e allows everything that seen names (CSP Level 3
// section 6.7.2.8). Where that depends on the page and self, the page's origin,
// is not known, the answer is no.
//
// By the letter, ws: allows https: as well. Browsers do not do that, so a
// connection that needs both gets both.
func (e expression) covers(seen expression, own *origin) bool {
	switch {
	case e.text == seen.text:
		return true
	case seen.text == self:
		return own != nil && e.text != self && e.covers(expressionOf(own.String()), nil)
	case e.text == self:
		return own != nil && seen.host != "" && seen.originOf().isSelf(*own)
	case e.text[0] == '\'' || seen.text[0] == '\'':
		return false
	case e.text == "*":
		return defaultPorts[seen.scheme] != ""
	case e.host == "":
		return upgrades(e.scheme, seen.scheme)
	default:
		return seen.host != "" && e.coversScheme(seen, own) && coversHost(e.host, seen.host) &&
			e.coversPort(seen) && coversPath(e.path, seen.path)
	}
}

func (e expression) originOf() origin { return origin{e.scheme, e.host, e.port} }

func (e expression) coversScheme(seen expression, own *origin) bool {
	if e.scheme != "" {
		return upgrades(e.scheme, seen.scheme)
	}
	if own != nil {
		return upgrades(own.scheme, seen.scheme)
	}
	return seen.scheme == "https" // it is one or the upgrade of the other
}

// upgrades reports whether a source of one scheme allows another.
func upgrades(allowed, scheme string) bool {
	return allowed == scheme || allowed == "http" && scheme == "https" || allowed == "ws" && scheme == "wss"
}

func coversHost(allowed, host string) bool {
	if allowed == "*" {
		return true
	}
	if domain, ok := strings.CutPrefix(allowed, "*"); ok {
		return strings.HasSuffix(host, domain)
	}
	return allowed == host
}

func (e expression) coversPort(seen expression) bool {
	return e.port == "*" || e.port == seen.port || seen.port == "" && e.port == defaultPorts[seen.scheme]
}

func coversPath(allowed, path string) bool {
	switch {
	case allowed == "" || allowed == "/":
		return true
	case strings.HasSuffix(allowed, "/"):
		return strings.HasPrefix(path, allowed)
	default:
		return allowed == path
	}
}

// line returns the directive of that name, or nil.
func line(policy headers.CSP, name string) *headers.Directive {
	i := slices.IndexFunc(policy, func(d headers.Directive) bool { return d.Name == name })
	if i < 0 {
		return nil
	}
	return &policy[i]
}

// inForce returns the directive that a browser asks for what would be governed
// by name, or nil when nothing restricts it.
func inForce(policy headers.CSP, name string) *headers.Directive {
	if d := line(policy, name); d != nil {
		return d
	}
	for _, fallback := range chains[name] {
		if d := line(policy, fallback); d != nil {
			return d
		}
	}
	return nil
}

// head returns script-src and style-src for their two parts, else "".
func head(name string) string {
	for _, part := range []string{"-elem", "-attr"} {
		if whole, ok := strings.CutSuffix(name, part); ok {
			return whole
		}
	}
	return ""
}

// target returns the name of the directive that gets a source seen under name.
// That is the directive itself or the whole that it is a part of, where one of
// them stands in the policy. Any other fallback also governs things of another
// kind (child-src frames and workers, script-src scripts and workers, default-src
// everything), so a new directive is narrower.
func target(policy headers.CSP, name string) string {
	if whole := head(name); line(policy, name) == nil && whole != "" && line(policy, whole) != nil {
		return whole
	}
	return name
}
