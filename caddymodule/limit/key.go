package limit

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/moat-gateway/moat/caddymodule/internal/exchange"
)

// applies reports whether the limit applies to the request, to whom it is
// charged and what it grants.
func (l *Limit) applies(r *http.Request, ex *exchange.Exchange) (subject string, grants []grant, ok bool) {
	if l.identity && !ex.Caller.Known() {
		return "", nil, false
	}
	path, bare := ex.Target.Path, ex.BarePath()
	if !ex.Canonical {
		path = r.URL.EscapedPath()
		bare = path
	}
	// Either reading of a path with parameters counts: `/auth/login;x` is the
	// login to a servlet container.
	if len(l.on) > 0 && !l.matches(r.Method, path) && !l.matches(r.Method, bare) {
		return "", nil, false
	}
	for _, prefix := range l.except {
		if ex.Client.IsValid() && prefix.Contains(ex.Client) {
			return "", nil, false
		}
	}
	return l.subject(r, ex, l.plain(bare)), l.granted(ex), true
}

// plain is the spelling of a path that all spellings of it share.
func (l *Limit) plain(path string) string {
	if l.fold {
		path = strings.ToLower(path)
	}
	if trimmed := strings.TrimRight(path, "/"); trimmed != "" {
		return trimmed // A final slash matches the same rule.
	}
	return path
}

// granted is what the caller's roles grant: of several tiers the highest.
func (l *Limit) granted(ex *exchange.Exchange) []grant {
	if len(l.tiers) == 0 {
		return l.grants
	}
	best, grants, name := 0.0, l.grants, ""
	for role, tier := range l.tiers {
		if height := tier[0].height(); (height > best || height == best && role < name) && slices.Contains(ex.Caller.Roles, role) {
			grants, best, name = tier, height, role // Of equals always the same.
		}
	}
	return grants
}

// height orders grants: places, or units a second of the first rate.
func (g *grant) height() float64 {
	if g.slots > 0 {
		return float64(g.slots)
	}
	return float64(g.rate.N) / g.rate.Window.Seconds()
}

func (l *Limit) matches(method, path string) bool {
	for _, on := range l.on {
		if on.Match(method, path) {
			return true
		}
	}
	return false
}

// subject is whom the limit is charged to. A part that cannot be computed is
// replaced by the address: it must never collapse into one shared bucket. Every
// part carries its kind, so that a header value cannot pose as a user.
func (l *Limit) subject(r *http.Request, ex *exchange.Exchange, path string) string {
	if len(l.keys) == 1 {
		return l.part(l.keys[0], r, ex, path)
	}
	var b strings.Builder
	for i, k := range l.keys {
		if i > 0 {
			b.WriteByte(0)
		}
		b.WriteString(l.part(k, r, ex, path))
	}
	return b.String()
}

func (l *Limit) part(k key, r *http.Request, ex *exchange.Exchange, path string) string {
	value := ""
	switch k.kind {
	case "all":
		return "all"
	case "path":
		return "path:" + path
	case "user":
		value = qualified(ex, func() string { return ex.Caller.ID })
	case "tenant":
		value = qualified(ex, func() string { return ex.Caller.Tenant })
	case "session":
		value = qualified(ex, func() string { return ex.Caller.Session })
	case "header":
		// Of several values an application takes one, and not the one that a
		// caller varies.
		if values := r.Header[k.name]; len(values) == 1 {
			value = values[0]
		}
	case "cookie":
		if cookies := r.CookiesNamed(k.name); len(cookies) == 1 {
			value = cookies[0].Value
		}
	case "param":
		for _, on := range l.on {
			if v, ok := on.Param(path, k.name); ok {
				value = v
				break
			}
		}
	}
	if value == "" {
		return "ip:" + l.address(ex, r)
	}
	return k.kind + ":" + value
}

// qualified puts the issuer before an identifier: two issuers may hand out the
// same one.
func qualified(ex *exchange.Exchange, value func() string) string {
	if !ex.Caller.Known() {
		return ""
	}
	v := value()
	if v == "" {
		return ""
	}
	return ex.Caller.Issuer + "\x00" + v
}

// address is the caller's address; of IPv6 the network, because one subscriber
// gets that many addresses.
func (l *Limit) address(ex *exchange.Exchange, r *http.Request) string {
	if ex.Client.IsValid() {
		return l.network(ex.Client)
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return "local" // A Unix socket: the peer is on this machine.
	}
	return host
}

func (l *Limit) network(addr netip.Addr) string {
	if !addr.Is6() {
		return addr.String()
	}
	bits := l.IPv6Prefix
	if bits == 0 {
		bits = 64
	}
	return netip.PrefixFrom(addr, bits).Masked().String()
}
