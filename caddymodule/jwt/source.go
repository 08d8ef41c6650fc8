package jwt

import (
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/moat-gateway/moat/internal/canon"
)

const (
	inHeader = "header"
	inCookie = "cookie"

	authorization = "Authorization"
)

// find returns the token of this source and how many values the source holds:
// more than one is never resolved by taking the first, because the application
// behind might take the last.
func (s Source) find(r *http.Request) (raw string, count int) {
	if s.In == inCookie {
		return findCookie(r.Header["Cookie"], s.Name)
	}
	values := r.Header[s.Name]
	if s.Name != authorization {
		if len(values) > 0 {
			raw = strings.TrimSpace(values[0])
			if rest, ok := cutBearer(raw); ok {
				raw = rest
			}
		}
		return raw, len(values)
	}
	for _, value := range values {
		if rest, ok := cutBearer(value); ok {
			raw = rest
			count++
		}
	}
	if count > 0 {
		count = len(values) // A Bearer beside any other scheme is two credentials.
	}
	return raw, count
}

// cutBearer takes the scheme off, compared without case (RFC 9110 section 11.1).
func cutBearer(value string) (string, bool) {
	const scheme = "bearer"
	value = strings.TrimLeft(value, " \t")
	if len(value) < len(scheme) || !strings.EqualFold(value[:len(scheme)], scheme) {
		return "", false
	}
	rest := value[len(scheme):]
	// Applications split at more than spaces, so every byte that is none of a
	// scheme's ends it (RFC 9110 section 5.6.2).
	if rest != "" && httpguts.IsTokenRune(rune(rest[0])) {
		return "", false
	}
	return strings.Trim(rest, " \t"), true
}

func findCookie(lines []string, name string) (raw string, count int) {
	twins := 0
	for _, line := range lines {
		for pair := range strings.SplitSeq(line, ";") {
			key, value, _ := strings.Cut(pair, "=")
			switch {
			case strings.Trim(key, " \t") == name:
				raw = strings.Trim(value, " \t")
				count++
			case cookieName(key) == cookieName(name):
				twins++
			}
		}
	}
	if count > 0 {
		count += twins
	}
	return raw, count
}

// cookieName folds what applications take for one name: letter case, bytes
// around it that some trim, and characters that PHP turns into underscores.
func cookieName(key string) string {
	key = strings.TrimFunc(strings.ToValidUTF8(key, " "), func(r rune) bool { return r <= ' ' || r >= 0x7f })
	return strings.NewReplacer(" ", "-", "[", "-").Replace(canon.FoldHeader(key))
}

// dropTokens takes every token off that is not the deciding one: what was not
// verified must not reach an application that might believe it.
func (h *Handler) dropTokens(r *http.Request, keep Source) {
	if h.InsecureForwardUnverified {
		return
	}
	if keep.Name != authorization || keep.In != inHeader {
		dropBearer(r.Header)
	}
	for _, source := range h.From {
		if source == keep {
			continue
		}
		switch {
		case source.In == inCookie:
			dropCookie(r.Header, source.Name)
		case source.Name != authorization:
			canon.NewHeaderSet(source.Name).StripFrom(r.Header)
		}
	}
}

func dropBearer(h http.Header) {
	values := h[authorization]
	for _, value := range values {
		if _, ok := cutBearer(value); ok {
			delete(h, authorization)
			return
		}
	}
}

// dropCookie removes a cookie from all Cookie lines, without touching the bytes
// of the others.
func dropCookie(h http.Header, name string) {
	lines, ok := h["Cookie"]
	if !ok {
		return
	}
	kept := make([]string, 0, len(lines))
	for _, line := range lines {
		var pairs []string
		for pair := range strings.SplitSeq(line, ";") {
			key, _, _ := strings.Cut(pair, "=")
			if cookieName(key) != cookieName(name) {
				pairs = append(pairs, pair)
			}
		}
		if rest := strings.Trim(strings.Join(pairs, ";"), " \t"); rest != "" {
			kept = append(kept, rest)
		}
	}
	if len(kept) == 0 {
		delete(h, "Cookie")
		return
	}
	h["Cookie"] = kept
}

// sameOrigin reports whether a request that a browser authenticates by cookie
// comes from the site's own pages. Safe methods pass, except WebSocket
// upgrades, which no same-origin policy protects. Where neither Sec-Fetch-Site
// nor Origin says where a request comes from, it does not: old browsers send
// neither, and a client that is no browser can use a header for its token.
func (h *Handler) sameOrigin(r *http.Request) bool {
	upgrade := r.Header.Get("Upgrade") != ""
	if !upgrade && (r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == http.MethodOptions) {
		return true
	}
	origin := r.Header.Get("Origin")
	if origin != "" && h.origins[strings.ToLower(origin)] {
		return true
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "same-origin", "none":
		return true
	case "":
	default:
		return false
	}
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" || !strings.EqualFold(u.Host, r.Host) {
		return false
	}
	// Where TLS ends here the scheme is known: a page that came without TLS was
	// open to whoever was on the way.
	return r.TLS == nil || u.Scheme == "https"
}
