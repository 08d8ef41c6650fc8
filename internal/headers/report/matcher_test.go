package report_test

import (
	"net/url"
	"slices"
	"strings"

	"github.com/moat-gateway/moat/internal/headers"
)

// The little browser of the property tests: CSP Level 3 sections 6.7.2 and 6.8
// written down a second time, on addresses and not on sources. It shares no
// code with the package.

// asked are the directives that a browser asks, nearest first.
func asked(effective string) []string {
	switch effective {
	case "script-src-elem", "script-src-attr":
		return []string{effective, "script-src", "default-src"}
	case "style-src-elem", "style-src-attr":
		return []string{effective, "style-src", "default-src"}
	case "worker-src":
		return []string{"worker-src", "child-src", "script-src", "default-src"}
	case "frame-src":
		return []string{"frame-src", "child-src", "default-src"}
	case "fenced-frame-src":
		return []string{"fenced-frame-src", "frame-src", "child-src", "default-src"}
	case "default-src", "base-uri", "form-action", "frame-ancestors":
		return []string{effective}
	default:
		return []string{effective, "default-src"}
	}
}

// allows reports whether a page at own may use the address under the directive.
func allows(policy headers.CSP, own, effective, address string) bool {
	for _, name := range asked(effective) {
		for _, d := range policy {
			if d.Name != name {
				continue
			}
			script := strings.HasPrefix(effective, "script-src") || effective == "worker-src" && name == "script-src"
			return listAllows(d.Sources, own, address, script)
		}
	}
	return true
}

func listAllows(sources []string, own, address string, script bool) bool {
	if script && slices.Contains(sources, "'strict-dynamic'") {
		return false // no nonce is ever on the tag that is asked about
	}
	u, err := url.Parse(address)
	if err != nil {
		return false
	}
	self, err := url.Parse(own)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(sources, func(s string) bool { return sourceAllows(s, self, u) })
}

func sourceAllows(source string, self, u *url.URL) bool {
	switch {
	case source == "*":
		return slices.Contains([]string{"http", "https", "ws", "wss"}, u.Scheme)
	case source == "'self'":
		same := u.Scheme == self.Scheme && portOf(u) == portOf(self)
		upgraded := self.Scheme == "http" && u.Scheme == "https" && portOf(self) == "80" && portOf(u) == "443"
		return u.Hostname() == self.Hostname() && (same || upgraded)
	case source[0] == '\'':
		return false
	case strings.HasSuffix(source, ":"):
		return schemeAllows(strings.TrimSuffix(source, ":"), u.Scheme)
	default:
		return hostAllows(source, self, u)
	}
}

// schemeAllows leaves out that ws allows http and https and wss allows https:
// no browser does that.
func schemeAllows(a, b string) bool {
	return a == b || a == "http" && b == "https" || a == "ws" && b == "wss"
}

func hostAllows(source string, self, u *url.URL) bool {
	scheme, rest, found := strings.Cut(source, "://")
	if !found {
		scheme, rest = self.Scheme, source
	}
	authority, path := rest, ""
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		authority, path = rest[:i], rest[i:]
	}
	name, port, hasPort := strings.Cut(authority, ":")
	if !schemeAllows(scheme, u.Scheme) || u.Hostname() == "" {
		return false
	}
	if tail, wild := strings.CutPrefix(name, "*"); wild && !strings.HasSuffix(u.Hostname(), tail) || !wild && name != u.Hostname() {
		return false
	}
	if hasPort && port != "*" && port != portOf(u) || !hasPort && u.Port() != "" {
		return false
	}
	switch {
	case path == "" || path == "/":
		return true
	case strings.HasSuffix(path, "/"):
		return strings.HasPrefix(u.EscapedPath(), path)
	default:
		return u.EscapedPath() == path
	}
}

func portOf(u *url.URL) string {
	if p := u.Port(); p != "" {
		return p
	}
	return map[string]string{"http": "80", "ws": "80", "https": "443", "wss": "443"}[u.Scheme]
}
