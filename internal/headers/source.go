package headers

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// keywords are the quoted words of a source list.
var keywords = map[string]bool{
	"'self'":                       true,
	"'none'":                       true,
	"'unsafe-inline'":              true,
	"'unsafe-eval'":                true,
	"'unsafe-hashes'":              true,
	"'wasm-unsafe-eval'":           true,
	"'trusted-types-eval'":         true,
	"'strict-dynamic'":             true,
	"'report-sample'":              true,
	"'report-sha256'":              true,
	"'report-sha384'":              true,
	"'report-sha512'":              true,
	"'inline-speculation-rules'":   true,
	"'unsafe-webtransport-hashes'": true,
}

// hashes are the digests of a hash source and their lengths in bytes.
var hashes = map[string]int{"sha256": 32, "sha384": 48, "sha512": 64}

// source reads one source expression (CSP Level 3 section 2.3.1) and returns
// it with all that is compared without case in lower case.
func source(s string) (string, error) {
	if s[0] == '\'' {
		return quoted(s)
	}
	bare := strings.ToLower(s)
	if keywords["'"+bare+"'"] || looksLikeDigest(bare) {
		// Unquoted, `self` is a host of that name.
		return "", fmt.Errorf("a keyword stands in single quotes: write '%s'", s)
	}
	if scheme, ok := strings.CutSuffix(bare, ":"); ok && isScheme(scheme) {
		return bare, nil
	}
	return hostSource(s)
}

// ancestor reads one source of frame-ancestors, which knows no inline code.
func ancestor(s string) (string, error) {
	if s[0] == '\'' {
		if s = strings.ToLower(s); s != "'self'" && s != "'none'" {
			return "", errors.New("only 'self' and 'none' are keywords of frame-ancestors")
		}
		return s, nil
	}
	return source(s)
}

func looksLikeDigest(bare string) bool {
	kind, _, ok := strings.Cut(bare, "-")
	return ok && (kind == "nonce" || hashes[kind] > 0) && !strings.Contains(bare, ".")
}

// quoted reads a keyword, a nonce or a hash.
func quoted(s string) (string, error) {
	inner, ok := strings.CutSuffix(s[1:], "'")
	if !ok {
		return "", errors.New("the closing quote is missing")
	}
	if word := strings.ToLower(s); keywords[word] {
		return word, nil
	}
	kind, value, _ := strings.Cut(inner, "-")
	kind = strings.ToLower(kind)
	size, isHash := hashes[kind]
	if !isHash && kind != "nonce" {
		return "", fmt.Errorf("is no keyword, nonce or hash%s", didYouMean(strings.ToLower(s), keywords))
	}
	raw, err := decodeBase64(value)
	switch {
	case err != nil || value == "":
		return "", errors.New("is not base64 after the dash")
	case isHash && len(raw) != size:
		return "", fmt.Errorf("has %d bytes after the dash, decoded: %s has %d", len(raw), kind, size)
	}
	return "'" + kind + "-" + value + "'", nil
}

// decodeBase64 reads either alphabet, padded or not, as the grammar does.
func decodeBase64(s string) ([]byte, error) {
	s = strings.NewReplacer("-", "+", "_", "/").Replace(s)
	if strings.HasSuffix(s, "=") {
		return base64.StdEncoding.DecodeString(s)
	}
	return base64.RawStdEncoding.DecodeString(s)
}

// hostSource reads [scheme "://"] host [":" port] [path].
func hostSource(s string) (string, error) {
	scheme, rest, found := strings.Cut(s, "://")
	if !found {
		scheme, rest = "", s
	} else if !isScheme(scheme) {
		return "", fmt.Errorf("%q is no scheme", scheme)
	}
	authority, path := rest, ""
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		authority, path = rest[:i], rest[i:]
	}
	host, port, hasPort := strings.Cut(authority, ":")
	if hasPort && !isPort(port) {
		return "", errors.New("the port is a number from 1 to 65535 or *; an IPv6 address cannot stand in a policy")
	}
	if !isHost(host) {
		return "", errors.New("is no source: expected a quoted keyword, a scheme like data:, or a host like https://cdn.example.com")
	}
	if i := strings.IndexAny(path, "?#\"<>\\^`{|}"); i >= 0 {
		return "", fmt.Errorf("%q cannot stand in the path of a source", path[i])
	}
	if found {
		scheme += "://"
	}
	return strings.ToLower(scheme+authority) + path, nil
}

// isHost reports whether s is * or a name, perhaps after "*.".
func isHost(s string) bool {
	if s == "*" {
		return true
	}
	for label := range strings.SplitSeq(strings.TrimPrefix(s, "*."), ".") {
		if !only(label, "-") {
			return false
		}
	}
	return true
}

func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return s == "*" || err == nil && n > 0
}

// isScheme follows RFC 3986 section 3.1.
func isScheme(s string) bool {
	return s != "" && isAlpha(s[0]) && only(s, "+-.")
}

// scriptLists are the directives that decide which code runs. Workers are not
// among them: a browser starts them only from the page's own origin.
var scriptLists = map[string]bool{
	"default-src": true, "script-src": true, "script-src-elem": true, "script-src-attr": true, "object-src": true,
}

// danger says why a source undoes its directive; empty means that it does not.
// The source is in normal form.
func danger(directive, s string) string {
	switch {
	case strings.HasPrefix(s, "'nonce-"):
		return "a nonce in the configuration is the same on every answer, so anybody can use it"
	case scriptLists[directive]:
		return scriptDanger(s)
	case directive == "frame-ancestors" && anyHost(s):
		return "lets any site frame the page"
	case directive == "base-uri" && anyHost(s):
		return "lets injected markup move every relative address of the page"
	default:
		return ""
	}
}

func scriptDanger(s string) string {
	switch {
	case s == "'unsafe-inline'", s == "'unsafe-eval'", s == "'unsafe-hashes'":
		return "lets injected markup run as code"
	case anyHost(s):
		return "lets code come from anywhere"
	case strings.HasPrefix(s, "http://"):
		return "lets code come over a connection that anybody on the way can change"
	default:
		return ""
	}
}

// anyHost reports whether a source is a scheme alone or the host *.
func anyHost(s string) bool {
	if strings.HasSuffix(s, ":") {
		return true
	}
	if _, rest, ok := strings.Cut(s, "://"); ok {
		s = rest
	}
	return s == "*" || strings.HasPrefix(s, "*:") || strings.HasPrefix(s, "*/")
}
