package canon

import (
	"net/netip"
	"net/url"
	"strings"
)

// maxHost is the longest host with its port: a DNS name has at most 253 bytes
// and a final dot (RFC 1035 section 2.3.4).
const maxHost = 254 + len(":65535")

// authority returns the host a request is for. An absolute target has to be for
// the same host and port as the request itself: over HTTP/2 both arrive, and
// whoever routes by one must not forward the other.
func authority(u *url.URL, hostport string) (host, reason string) {
	host, port, ok := splitHost(hostport)
	if !ok {
		return "", ReasonBadHost
	}
	defaultPort := 0
	switch u.Scheme {
	case "http":
		defaultPort = 80
	case "https":
		defaultPort = 443
	case "":
		if u.Host == "" {
			return host, ""
		}
	default:
		return "", ReasonScheme
	}
	named, namedPort, ok := splitHost(u.Host)
	if !ok {
		return "", ReasonBadHost
	}
	if port < 0 {
		port = defaultPort
	}
	if namedPort < 0 {
		namedPort = defaultPort
	}
	if named != host || namedPort != port {
		return "", ReasonForeignHost
	}
	return host, ""
}

// splitHost returns the canonical host and the port of an authority without
// userinfo; the port is -1 when there is none.
func splitHost(s string) (host string, port int, ok bool) {
	if len(s) > maxHost {
		return "", 0, false
	}
	if rest, literal := strings.CutPrefix(s, "["); literal {
		address, after, closed := strings.Cut(rest, "]")
		if !closed || after != "" && after[0] != ':' {
			return "", 0, false
		}
		if host, ok = ipv6(address); !ok {
			return "", 0, false
		}
		port, ok = splitPort(after)
		return host, port, ok
	}
	name, rest := s, ""
	if i := strings.IndexByte(s, ':'); i >= 0 {
		name, rest = s[:i], s[i:]
	}
	name = strings.TrimSuffix(name, ".")
	if !isHostName(name) {
		return "", 0, false
	}
	port, ok = splitPort(rest)
	return strings.ToLower(name), port, ok
}

// ipv6 returns the canonical text of an IPv6 address. Zones are refused: they
// mean something on the sender's machine only (RFC 6874 section 4).
func ipv6(s string) (string, bool) {
	addr, err := netip.ParseAddr(s)
	if err != nil || !addr.Is6() || addr.Zone() != "" {
		return "", false
	}
	var buf [64]byte
	if text := addr.AppendTo(buf[:0]); string(text) != s {
		return string(text), true
	}
	return s, true
}

// splitPort reads what follows a host: nothing, or a colon and perhaps a port.
func splitPort(s string) (int, bool) {
	if s == "" || s == ":" {
		return -1, true
	}
	port := 0
	for i := 1; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		if port = 10*port + int(s[i]-'0'); port > 65535 {
			return 0, false
		}
	}
	return port, true
}

// isHostName reports whether s consists of labels of letters, digits, "-" and
// "_". Names outside ASCII come as A-labels (RFC 5890).
func isHostName(s string) bool {
	label := 0
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_':
			label++
		case c == '.' && label > 0:
			label = 0
		default:
			return false
		}
	}
	return label > 0
}
