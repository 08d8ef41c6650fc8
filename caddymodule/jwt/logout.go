package jwt

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// clear asks the browser to forget a token that can never be good again. Which
// cookie of a name is meant the browser tells by its domain and path, and a
// request does not say them.
//
// Where a name stands twice, somebody has put a cookie beside the application's,
// from another host of the domain or under a longer path (cookie tossing). All
// that this request can come from are cleared, or the caller would be locked out.
func (s Source) clear(h http.Header, r *http.Request, twice bool) {
	path := s.Path
	if path == "" {
		path = "/"
	}
	domains, paths := []string{""}, []string{path}
	if s.Domain != "" {
		domains = append(domains, s.Domain)
	}
	if twice {
		domains = append(domains, parents(r.Host)...)
		paths = append(paths, folders(r.URL.EscapedPath())...)
	}
	slices.Sort(domains)
	slices.Sort(paths)
	domains, paths = slices.Compact(domains), slices.Compact(paths)
	for _, domain := range domains {
		for _, path := range paths {
			cookie := s.Name + "=; Path=" + path
			if domain != "" {
				cookie += "; Domain=" + domain
			}
			h["Set-Cookie"] = append(h["Set-Cookie"], cookie+"; Max-Age=0; Secure; HttpOnly; SameSite=Lax")
		}
	}
}

// maxClears bounds the domains and the paths that are tried.
const maxClears = 4

// parents returns the host and the domains above it for which it may set
// cookies, a name of one label left out.
func parents(hostport string) []string {
	host, _, found := strings.Cut(hostport, ":")
	if _, err := netip.ParseAddr(host); err == nil || found && strings.Contains(hostport[len(host)+1:], ":") {
		return nil // An address has no domain.
	}
	var out []string
	for host = strings.ToLower(strings.TrimSuffix(host, ".")); strings.Contains(host, ".") && len(out) < maxClears; {
		out = append(out, host)
		_, host, _ = strings.Cut(host, ".")
	}
	return out
}

// folders returns the paths above and at a canonical path.
func folders(path string) []string {
	out := []string{"/"}
	for i := 1; i <= len(path) && len(out) < maxClears; i++ {
		if (i == len(path) || path[i] == '/') && !strings.ContainsAny(path[:i], ";,") {
			out = append(out, path[:i])
		}
	}
	return out
}
