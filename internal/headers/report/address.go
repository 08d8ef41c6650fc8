package report

import (
	"net/url"
	"strings"
)

// Bounds of what is kept of an address.
const (
	maxAddress = 2048
	maxHost    = 253
	maxPath    = 256
)

// noise are schemes that no page can ask for: extensions, the browser's own
// pages, and programs on the machine that rewrite pages.
var noise = map[string]bool{
	"chrome-extension": true, "moz-extension": true, "safari-extension": true, "safari-web-extension": true,
	"ms-browser-extension": true, "webkit-masked-url": true, "user-script": true, "about": true,
	"chrome": true, "chrome-search": true, "chromenull": true, "chromeinvoke": true, "chromeinvokeimmediate": true,
	"edge": true, "resource": true, "jar": true, "mx": true, "mxaddon-pkg": true, "mbinit": true, "tmtbff": true,
	"symres": true, "webviewprogressproxy": true,
}

// injected are hosts whose code is put into pages on the way or on the
// machine: by virus scanners and by unwanted programs.
var injected = []string{
	"kaspersky-labs.com", "superfish.com", "metrext.com", "tlscdn.com", "image2play.com", "zilionfast.in", "datafastguru.info",
}

// schemes are those that a browser names without an address.
var schemes = map[string]Kind{
	"data": KindData, "blob": KindBlob, "filesystem": KindUnknown, "mediastream": KindUnknown, "file": KindUnknown,
	"http": KindUnknown, "https": KindUnknown, "ws": KindUnknown, "wss": KindUnknown, "javascript": KindUnknown,
}

// words are what a report says in place of an address.
var words = map[string]Kind{
	blockedInline: KindInline, blockedEval: KindEval, blockedWasm: KindEval,
	blockedSink: KindUnknown, blockedPolicy: KindUnknown,
}

// origin is a scheme, a host and a port; the port is empty when it is the
// scheme's own.
type origin struct{ scheme, host, port string }

func (o origin) String() string {
	if o.port == "" {
		return o.scheme + "://" + o.host
	}
	return o.scheme + "://" + o.host + ":" + o.port
}

var defaultPorts = map[string]string{"http": "80", "ws": "80", "https": "443", "wss": "443"}

// address reads an absolute address of the web that a policy can name.
func address(raw string) (o origin, u *url.URL, ok bool) {
	o, u, ok = anyAddress(raw)
	return o, u, ok && o.hasName()
}

// hasName reports whether a policy can name the origin. It knows no IPv6 address,
// and net/url takes it out of its brackets.
func (o origin) hasName() bool { return isHost(o.host) && isPort(o.port) }

// anyAddress reads an absolute address of the web. Its query is cut off before
// anything else looks at it.
func anyAddress(raw string) (o origin, u *url.URL, ok bool) {
	if i := strings.IndexAny(raw, "?#"); i >= 0 {
		raw = raw[:i]
	}
	if len(raw) > maxAddress {
		return o, nil, false
	}
	u, err := url.Parse(raw)
	if err != nil || defaultPorts[u.Scheme] == "" {
		return o, nil, false
	}
	o = origin{scheme: u.Scheme, host: strings.ToLower(u.Hostname()), port: u.Port()}
	if o.port == defaultPorts[o.scheme] {
		o.port = ""
	}
	return o, u, o.host != ""
}

// isHost reports whether a policy can name the host.
func isHost(s string) bool {
	if s == "" || len(s) > maxHost {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return false
		}
	}
	return true
}

func isPort(s string) bool {
	return len(s) <= 5 && strings.Trim(s, "0123456789") == "" && strings.TrimLeft(s, "0") == s &&
		(len(s) < 5 || s <= "65535")
}

// scheme returns the scheme that an address begins with, in lower case. A
// browser that does not want to tell an address sends the scheme alone, without
// its colon.
func scheme(raw string) string {
	name, _, _ := strings.Cut(raw, ":")
	if len(name) > 32 {
		return ""
	}
	return strings.ToLower(name)
}

// classify reduces what was blocked to what a policy could say about it.
func (s Site) classify(raw string, document origin) (blocked string, kind Kind) {
	if kind, ok := words[raw]; ok {
		return raw, kind
	}
	name := scheme(raw)
	if noise[name] {
		return name + ":", KindExtension
	}
	// The word "self" is not the own origin: it is what old browsers sent for
	// inline code and for eval alike.
	kind, known := schemes[name]
	if !known {
		return "", KindUnknown
	}
	if defaultPorts[name] == "" || len(raw) <= len(name)+1 {
		return name + ":", kind
	}
	o, u, ok := anyAddress(raw)
	switch {
	case ok && o.isSelf(document):
		return self, KindSelf
	case !ok || !o.hasName():
		return "", KindUnknown
	case isInjected(o.host):
		return o.String(), KindExtension
	case s.Paths:
		return o.String() + sourcePath(u), KindOrigin
	default:
		return o.String(), KindOrigin
	}
}

// isSelf reports whether 'self' in a policy of the document means o. A
// WebSocket on the same host does not count: a browser that follows the
// specification here does not report it.
func (o origin) isSelf(document origin) bool {
	upgraded := document.scheme == "http" && o.scheme == "https" && document.port == "" && o.port == ""
	return o == document || upgraded && o.host == document.host
}

func isInjected(host string) bool {
	for _, domain := range injected {
		if host == domain || strings.HasSuffix(host, "."+domain) {
			return true
		}
	}
	return false
}

// pathBytes may stand in a path of a source beside letters and digits.
const pathBytes = "/-._~%!$&'()*+=:@"

// sourcePath returns the path as a source names it, or nothing where it cannot.
// A shortened path would name something else.
func sourcePath(u *url.URL) string {
	p := u.EscapedPath()
	if len(p) > maxPath || !only(p, pathBytes) || !plainSegments(u.Path) {
		return ""
	}
	return p
}

// beginsSecret are the spellings of what ends a path. What follows a semicolon is a
// parameter, in which some servers carry the session; an escaped question mark is the
// query of an application that escapes once too often.
var beginsSecret = []string{";", "%3B", "%3b", "%3F", "%3f"}

// documentPath returns a path fit to be shown and counted.
func documentPath(u *url.URL) string {
	p := u.EscapedPath()
	for _, mark := range beginsSecret {
		p, _, _ = strings.Cut(p, mark)
	}
	if p == "" {
		return "/"
	}
	if !plainSegments(u.Path) {
		return ""
	}
	p = upperEscapes(p)
	if len(p) > maxPath {
		p = p[:strings.LastIndexByte(p[:maxPath], '/')+1]
	}
	return p
}

// plainSegments reports whether a path has no segment that is a step.
func plainSegments(decoded string) bool {
	for segment := range strings.SplitSeq(decoded, "/") {
		if segment == "." || segment == ".." {
			return false
		}
	}
	return true
}

// upperEscapes writes the hexadecimal digits of escapes in upper case (RFC 3986
// section 6.2.2.1).
func upperEscapes(p string) string {
	if !strings.Contains(p, "%") {
		return p
	}
	b := []byte(p)
	for i := 0; i+2 < len(b); i++ {
		if b[i] == '%' {
			b[i+1], b[i+2] = upper(b[i+1]), upper(b[i+2])
		}
	}
	return string(b)
}

func upper(c byte) byte {
	if c >= 'a' && c <= 'z' {
		return c - 'a' + 'A'
	}
	return c
}

// only reports whether s has no bytes but letters, digits and those of extra.
func only(s, extra string) bool {
	for i := range len(s) {
		c := s[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && strings.IndexByte(extra, c) < 0 {
			return false
		}
	}
	return true
}
