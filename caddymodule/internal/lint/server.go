package lint

import (
	"maps"
	"net"
	"slices"
	"strings"
)

// admin judges the endpoint that changes the configuration.
func (l *linter) admin() {
	admin := asObject(l.root["admin"])
	if set(admin["disabled"]) {
		return
	}
	listen := text(admin["listen"])
	if isSocket(listen) {
		return
	}
	if listen == "" {
		l.add(AdminOnTCP, Medium, "admin", "the admin endpoint is not set, so it listens on localhost:2019, "+
			"where every program of this machine may change the configuration")
		return
	}
	severity := High
	if loopback(listen) {
		severity = Medium
	}
	l.add(AdminOnTCP, severity, l.at("admin/listen", "admin"),
		"the admin endpoint listens on %s and asks for no credentials", listen)
}

// servers judges what connections are accepted.
func (l *linter) servers() {
	http := asObject(dig(l.root, "apps", "http"))
	servers := asObject(http["servers"])
	if len(servers) > 0 && !set(http["grace_period"]) {
		l.add(NoGracePeriod, Low, "apps/http", "there is no grace_period: a stop or reload waits for open connections "+
			"for ever, and they go on under the old rules")
	}
	for _, name := range slices.Sorted(maps.Keys(servers)) {
		l.server(join("apps/http/servers", name), http, asObject(servers[name]))
	}
}

func (l *linter) server(path string, http, srv object) {
	listen := strings.Join(texts(srv["listen"]), ", ")
	if set(srv["trusted_proxies"]) && !set(srv["trusted_proxies_strict"]) {
		l.add(TrustedProxiesNotStrict, High, l.at(path+"/trusted_proxies", "trusted_proxies"),
			"the server on %s trusts proxies and takes the leftmost X-Forwarded-For, which the caller writes: "+
				"limits and events are about an address of the caller's choice", listen)
	}
	if !servesTLS(http, srv) {
		if holdsGuard(srv) && !loopbackOnly(srv) {
			l.add(GateWithoutTLS, Low, path, "the server on %s is guarded and served without TLS: there is no HSTS and no TLS floor", listen)
		}
		return
	}
	l.policiesOf(path, srv, listen)
	if strict, _ := srv["strict_sni_host"].(bool); !strict && (srv["strict_sni_host"] != nil || !asksForCertificates(srv)) {
		l.add(StrictSNIHostOff, Medium, l.at(path, "strict_sni_host"),
			"strict_sni_host is off on %s: a connection for one host may carry requests for another", listen)
	}
	if early, given := srv["allow_0rtt"].(bool); (early || !given) && speaksHTTP3(srv) {
		l.add(EarlyDataOn, Medium, path, "0-RTT is on on %s: early data can be replayed by whoever saw it", listen)
	}
}

// policiesOf judges the TLS policies of a server.
func (l *linter) policiesOf(path string, srv object, listen string) {
	policies := objects(srv["tls_connection_policies"])
	if len(policies) == 0 {
		l.add(TLSBelow13, High, path, "the server on %s has no TLS policy and so Caddy's default, which allows TLS 1.2", listen)
	}
	for i, policy := range policies {
		if text(policy["protocol_min"]) == "tls1.3" || set(policy["drop"]) {
			continue
		}
		whose, place := "the catch-all TLS policy", join(path+"/tls_connection_policies", i)
		if names := texts(dig(policy, "match", "sni")); len(names) > 0 {
			whose, place = "the TLS policy for "+strings.Join(names, ", "), l.at(place, names[0])
		} else if len(asObject(policy["match"])) > 0 {
			whose = "a TLS policy"
		}
		l.add(TLSBelow13, High, place, "%s on %s allows TLS 1.2", whose, listen)
	}
}

// asksForCertificates reports whether a policy wants client certificates, which
// switches strict_sni_host on by itself.
func asksForCertificates(srv object) bool {
	return slices.ContainsFunc(objects(srv["tls_connection_policies"]), func(policy object) bool {
		return set(policy["client_authentication"])
	})
}

// speaksHTTP3 reports whether one of the listeners does. Each may have protocols
// of its own.
func speaksHTTP3(srv object) bool {
	general := texts(srv["protocols"])
	own, _ := srv["listen_protocols"].([]any)
	for i := range max(1, len(texts(srv["listen"]))) {
		protocols := general
		if i < len(own) && len(texts(own[i])) > 0 {
			protocols = texts(own[i])
		}
		if len(protocols) == 0 || slices.Contains(protocols, "h3") {
			return true
		}
	}
	return false
}

// isSocket reports whether an address is a file's or an inherited socket's: not
// one that a name can begin like.
func isSocket(address string) bool {
	network, _, found := strings.Cut(address, "/")
	if !found {
		return false
	}
	switch network {
	case "unix", "unixgram", "unixpacket", "unix+h2c", "fd", "fdgram":
		return true
	}
	return false
}

// servesTLS reports whether a server will speak TLS, as Caddy's automatic HTTPS
// finds out at start.
func servesTLS(http, srv object) bool {
	auto := asObject(srv["automatic_https"])
	switch {
	case len(objects(srv["tls_connection_policies"])) > 0:
		return true
	case set(auto["disable"]), onlyPort(srv, portOr(http["http_port"], "80")):
		return false
	case onlyPort(srv, portOr(http["https_port"], "443")):
		return true
	}
	for _, route := range objects(srv["routes"]) {
		for _, matchers := range objects(route["match"]) {
			for _, host := range texts(matchers["host"]) {
				if !slices.Contains(texts(auto["skip"]), host) {
					return true
				}
			}
		}
	}
	return false
}

func portOr(v any, otherwise string) string {
	if port := text(v); port != "" {
		return port
	}
	return otherwise
}

func onlyPort(srv object, port string) bool {
	for _, address := range texts(srv["listen"]) {
		if _, p := split(address); p != port {
			return false
		}
	}
	return true
}

// loopbackOnly reports whether only this machine can connect.
func loopbackOnly(srv object) bool {
	addresses := texts(srv["listen"])
	return len(addresses) > 0 && !slices.ContainsFunc(addresses, func(a string) bool { return !loopback(a) })
}

func loopback(address string) bool {
	if isSocket(address) {
		return true
	}
	host, _ := split(address)
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// split takes the network off an address such as tcp/127.0.0.1:80 and parts
// host and port.
func split(address string) (host, port string) {
	if _, rest, ok := strings.Cut(address, "/"); ok {
		address = rest
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return strings.Trim(address, "[]"), ""
	}
	return host, port
}
