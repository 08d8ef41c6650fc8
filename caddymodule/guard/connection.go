package guard

import (
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/moat-gateway/moat/caddymodule/internal/denial"
)

// connection judges what the request came in on.
func (h *Handler) connection(r *http.Request) *denial.Refusal {
	if r.TLS == nil {
		return nil
	}
	if r.TLS.Version < minTLS && !h.InsecureAllowTLS12 {
		return &denial.Refusal{Code: denial.Misdirected, Reason: "guard.tls-version"}
	}
	if !allowed(r.TLS.ServerName, r.Host) {
		return &denial.Refusal{Code: denial.Misdirected, Reason: "guard.host-mismatch"}
	}
	// Early data can be replayed by whoever saw it (RFC 8470 section 3).
	if !r.TLS.HandshakeComplete && (!safe(r.Method) || r.Header["Authorization"] != nil || r.Header["Cookie"] != nil) {
		return &denial.Refusal{Code: denial.TooEarly, Reason: "guard.early-data"}
	}
	return nil
}

func safe(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions
}

// allowed reports whether a connection for one server name may carry a request
// for another host. It may not: the policies of the connection, such as client
// certificates, were chosen by the name. Without a name the host must be an
// address, for which clients send none (RFC 6066 section 3).
func allowed(serverName, hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = hostport
	}
	host = strings.TrimSuffix(host, ".")
	if serverName == "" {
		_, err := netip.ParseAddr(strings.Trim(host, "[]"))
		return err == nil
	}
	return strings.EqualFold(strings.TrimSuffix(serverName, "."), host)
}

// hosts refuses a Host header that contradicts :authority, which HTTP/2 and
// HTTP/3 let stand beside it; what is left of it goes.
func (h *Handler) hosts(r *http.Request) *denial.Refusal {
	for _, host := range r.Header["Host"] {
		if !strings.EqualFold(host, r.Host) {
			return &denial.Refusal{Code: denial.BadRequest, Reason: "guard.two-hosts"}
		}
	}
	delete(r.Header, "Host")
	return nil
}
