package denial

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/moat-gateway/moat/caddymodule/internal/exchange"
)

// maxNext bounds what is taken along to the login page.
const maxNext = 2048

// loginFor returns where a person is sent to log in, or "" when the refusal is
// to be told as it is: to scripts, which would take a page for an answer, and
// for whatever a login does not help against.
func loginFor(r *http.Request, ex *exchange.Exchange, refusal *Refusal) string {
	if ex.LoginURL == "" || !ex.Canonical || refusal.Code.Status != http.StatusUnauthorized ||
		r.Method != http.MethodGet || !PrefersHTML(r) {
		return ""
	}
	path, _, hasQuery := strings.Cut(ex.LoginURL, "?")
	if strings.TrimSuffix(path, "/") == strings.TrimSuffix(ex.Target.Path, "/") {
		return "" // Round and round, if its rule is not public after all.
	}
	next := ex.Target.URI()
	if len(next) > maxNext || elsewhere(next) {
		return ex.LoginURL
	}
	separator := "?"
	if hasQuery {
		separator = "&"
	}
	return ex.LoginURL + separator + "next=" + url.QueryEscape(next)
}

// elsewhere reports whether a browser would take a path for another host. A
// canonical one begins with one slash, unless the guard lets empty segments pass.
func elsewhere(path string) bool {
	return len(path) > 1 && (path[1] == '/' || path[1] == '\\')
}

// redirect answers a refusal with the way to the login page.
func redirect(w http.ResponseWriter, ex *exchange.Exchange, refusal *Refusal, location string) error {
	_ = record(ex, refusal)
	ex.Refusal.Status = http.StatusSeeOther
	h := w.Header()
	h.Del("Www-Authenticate")
	h["Location"] = []string{location}
	h["Cache-Control"] = []string{"no-store"}
	w.WriteHeader(http.StatusSeeOther)
	return nil
}
