package jwt

import (
	"cmp"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/moat-gateway/moat/caddymodule/internal/exchange"
)

const (
	// maxClears bounds the domains and the folders that are tried.
	maxClears = 8
	// maxClearBytes bounds all lines together: an answer's header must still pass
	// the proxies in front.
	maxClearBytes = 2048
)

// clear asks the browser to forget a token that can never be good again. Which
// cookie of a name is meant the browser tells by its domain and path, and a
// request does not say them.
//
// Where a name stands twice, in whatever spelling an application takes for the
// same, somebody has put a cookie beside the application's, from another host of
// the domain or under a longer path (cookie tossing). All that this request can
// come from are cleared as far as there is room, or the caller would be locked
// out.
func (s Source) clear(h http.Header, r *http.Request, twice bool) {
	names, domains, paths := []string{s.Name}, []string{""}, []string{cmp.Or(s.Path, "/")}
	if s.Domain != "" {
		domains = append(domains, s.Domain)
	}
	if twice {
		names = append(names, spellings(r.Header["Cookie"], s.Name)...)
		domains = append(domains, parents(r)...)
		paths = append(paths, folders(r.URL.EscapedPath())...)
	}
	names, domains, paths = distinct(names), distinct(domains), distinct(paths)
	room := maxClearBytes
	for _, path := range paths {
		for _, domain := range domains {
			for _, name := range names {
				line := cleared(name, domain, path)
				if room -= len(line); room >= 0 {
					h["Set-Cookie"] = append(h["Set-Cookie"], line)
				}
			}
		}
	}
}

func cleared(name, domain, path string) string {
	line := name + "=; Path=" + path
	if domain != "" {
		line += "; Domain=" + domain
	}
	return line + "; Max-Age=0; Secure; HttpOnly; SameSite=Lax"
}

// distinct returns each text once, in the order of their first.
func distinct(texts []string) []string {
	var out []string
	for _, text := range texts {
		if !slices.Contains(out, text) {
			out = append(out, text)
		}
	}
	return out
}

// spellings returns the names under which cookies stand that count as name.
func spellings(lines []string, name string) []string {
	var out []string
	for _, line := range lines {
		for pair := range strings.SplitSeq(line, ";") {
			key, _, _ := strings.Cut(pair, "=")
			key = strings.Trim(key, " \t")
			if cookieName(key) == cookieName(name) && httpguts.ValidHeaderFieldName(key) && len(out) < maxClears {
				out = append(out, key)
			}
		}
	}
	return out
}

// parents returns the host and the domains above it for which it may set
// cookies, a name of one label left out. The host is that of the canonical
// target: a raw one can say anything.
func parents(r *http.Request) []string {
	ex := exchange.From(r.Context())
	if ex == nil || !ex.Canonical {
		return nil
	}
	host := ex.Target.Host
	if _, err := netip.ParseAddr(host); err == nil {
		return nil // An address has no domain.
	}
	var out []string
	for strings.Contains(host, ".") && len(out) < maxClears {
		out = append(out, host)
		_, host, _ = strings.Cut(host, ".")
	}
	return out
}

// folders returns the paths above and at a canonical path, shortest first, each
// as a cookie may have it, with and without a final slash.
func folders(path string) []string {
	out := []string{"/"}
	for i := 1; i <= len(path) && len(out) < 2*maxClears; i++ {
		if (i == len(path) || path[i] == '/') && i > 1 && !strings.ContainsAny(path[:i], ";,") {
			folder := strings.TrimSuffix(path[:i], "/")
			out = append(out, folder, folder+"/")
		}
	}
	return out
}
