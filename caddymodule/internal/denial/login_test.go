package denial

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/caddymodule/internal/exchange"
	"github.com/moat-gateway/moat/internal/canon"
)

func TestWhoIsSentToLogIn(t *testing.T) {
	const page = "text/html"
	missing := &Refusal{Code: TokenMissing}
	for name, row := range map[string]struct {
		login, method, accept, path string
		refusal                     *Refusal
		raw                         bool // no canonical target
		want                        string
	}{
		"a navigation":            {"/login", "GET", page, "/a", missing, false, "/login?next=%2Fa"},
		"with a query of its own": {"/login?x=1", "GET", page, "/a", missing, false, "/login?x=1&next=%2Fa"},
		"no login page":           {"", "GET", page, "/a", missing, false, ""},
		"not canonical":           {"/login", "GET", page, "/a", missing, true, ""},
		"forbidden":               {"/login", "GET", page, "/a", &Refusal{Code: Forbidden}, false, ""},
		"a post":                  {"/login", "POST", page, "/a", missing, false, ""},
		"a script":                {"/login", "GET", "application/json", "/a", missing, false, ""},
		"the login page itself":   {"/login", "GET", page, "/login", missing, false, ""},
		"and with a slash":        {"/login?x=1", "GET", page, "/login/", missing, false, ""},
		"another host":            {"/login", "GET", page, "//evil.test", missing, false, "/login"},
		"another, by a backslash": {"/login", "GET", page, `/\evil.test`, missing, false, "/login"},
		"a long one":              {"/login", "GET", page, "/" + strings.Repeat("a", maxNext), missing, false, "/login"},
	} {
		r := httptest.NewRequest(row.method, "/", nil)
		r.Header.Set("Accept", row.accept)
		ex := &exchange.Exchange{LoginURL: row.login, Canonical: !row.raw, Target: canon.Target{Method: row.method, Path: row.path}}
		if got := loginFor(r, ex, row.refusal); got != row.want {
			t.Errorf("%s: %q, want %q", name, got, row.want)
		}
	}
	w := httptest.NewRecorder()
	w.Header().Set("WWW-Authenticate", "Bearer")
	ex := new(exchange.Exchange)
	if err := redirect(w, ex, missing, "/login"); err != nil || w.Code != http.StatusSeeOther || w.Header().Get("WWW-Authenticate") != "" ||
		w.Header().Get("Cache-Control") != "no-store" || ex.Refusal.Code != "token-missing" || ex.Refusal.Status != http.StatusSeeOther {
		t.Errorf("%v %d %v %+v", err, w.Code, w.Header(), ex.Refusal)
	}
}
