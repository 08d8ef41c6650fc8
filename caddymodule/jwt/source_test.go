package jwt

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func handlerFor(sources ...Source) *Handler {
	h := &Handler{From: sources, origins: map[string]bool{"https://app.example.com": true}}
	if err := h.provisionSources(); err != nil {
		panic(err)
	}
	return h
}

func TestTwoTokensInOneSourceAreNeverResolvedByTakingOne(t *testing.T) {
	header := handlerFor(Source{In: inHeader}).From[0]
	cookie := Source{In: inCookie, Name: "access_token"}
	for name, row := range map[string]struct {
		source Source
		header http.Header
		want   int
	}{
		"none":                       {header, http.Header{}, 0},
		"one":                        {header, http.Header{"Authorization": {"Bearer a"}}, 1},
		"lower case":                 {header, http.Header{"Authorization": {"bearer a"}}, 1},
		"two Bearer":                 {header, http.Header{"Authorization": {"Bearer a", "Bearer b"}}, 2},
		"Bearer beside Basic":        {header, http.Header{"Authorization": {"Basic x", "Bearer b"}}, 2},
		"Basic alone":                {header, http.Header{"Authorization": {"Basic x"}}, 0},
		"another scheme":             {header, http.Header{"Authorization": {"BearerX a"}}, 0},
		"an empty Bearer":            {header, http.Header{"Authorization": {"Bearer"}}, 1},
		"one cookie":                 {cookie, http.Header{"Cookie": {"a=1; access_token=t; b=2"}}, 1},
		"two cookies of the name":    {cookie, http.Header{"Cookie": {"access_token=t; access_token=u"}}, 2},
		"two Cookie lines":           {cookie, http.Header{"Cookie": {"access_token=t", "access_token=u"}}, 2},
		"a name that only ends so":   {cookie, http.Header{"Cookie": {"x_access_token=t"}}, 0},
		"a tab before the name":      {cookie, http.Header{"Cookie": {"a=1;\taccess_token=t"}}, 1},
		"a cookie without a value":   {cookie, http.Header{"Cookie": {"access_token"}}, 1},
		"a value with an = in it":    {cookie, http.Header{"Cookie": {"access_token=a=b"}}, 1},
		"a twin that PHP reads so":   {cookie, http.Header{"Cookie": {"access.token=u; access_token=t"}}, 2},
		"a twin behind a hard space": {cookie, http.Header{"Cookie": {"access_token=t; \xa0access_token=u"}}, 2},
		"a twin in another case":     {cookie, http.Header{"Cookie": {"access_token=t", "Access[token=u"}}, 2},
		"only a twin":                {cookie, http.Header{"Cookie": {"access.token=u"}}, 0},
		"a hard space for a space":   {header, http.Header{"Authorization": {"Bearer\xa0a"}}, 1},
		"a cookie inside a quote":    {cookie, http.Header{"Cookie": {`q="x; access_token=t"`}}, 1},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header = row.header
		if _, got := row.source.find(r); got != row.want {
			t.Errorf("%s: %d tokens, want %d", name, got, row.want)
		}
	}
}

func TestWhatWasNotVerifiedIsTakenOff(t *testing.T) {
	h := handlerFor(Source{In: inCookie, Name: "access_token"}, Source{In: inHeader}, Source{In: inHeader, Name: "x-api-token"})
	full := func() *http.Request {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header = http.Header{
			"Authorization": {"Bearer t"},
			"X-Api-Token":   {"t"},
			"Cookie":        {"a=1; access_token=t; b=2", "Access_Token=u", "access.token=v", "\xa0access_token=w", "c=3"},
		}
		return r
	}
	for name, row := range map[string]struct {
		keep                         Source
		authorization, token, cookie string
	}{
		"nobody":     {Source{}, "", "", "a=1; b=2|c=3"},
		"the header": {h.From[1], "Bearer t", "", "a=1; b=2|c=3"},
		"the cookie": {h.From[0], "", "", "a=1; access_token=t; b=2|Access_Token=u|access.token=v|\xa0access_token=w|c=3"},
		"the other":  {h.From[2], "", "t", "a=1; b=2|c=3"},
	} {
		r := full()
		h.dropTokens(r, row.keep)
		if got := r.Header.Get("Authorization"); got != row.authorization {
			t.Errorf("%s: Authorization %q", name, got)
		}
		if got := r.Header.Get("X-Api-Token"); got != row.token {
			t.Errorf("%s: X-Api-Token %q", name, got)
		}
		if got := strings.Join(r.Header["Cookie"], "|"); got != row.cookie {
			t.Errorf("%s: Cookie %q, want %q", name, got, row.cookie)
		}
	}
	r := full()
	r.Header["Authorization"] = []string{"Basic x"}
	h.dropTokens(r, Source{})
	if r.Header.Get("Authorization") != "Basic x" {
		t.Error("the application's own Basic credentials were taken off")
	}
}

func TestACookieAuthenticatesNoUnsafeRequestFromElsewhere(t *testing.T) {
	h := handlerFor(Source{In: inCookie, Name: "t"})
	for name, row := range map[string]struct {
		method                string
		site, origin, upgrade string
		plain                 bool
		want                  bool
	}{
		"a safe method from anywhere":       {method: "GET", site: "cross-site", origin: "https://evil.example", want: true},
		"same origin":                       {method: "POST", site: "same-origin", want: true},
		"typed by hand":                     {method: "POST", site: "none", want: true},
		"Origin is the host":                {method: "POST", origin: "https://site.example", want: true},
		"a trusted origin":                  {method: "POST", site: "cross-site", origin: "https://app.example.com", want: true},
		"plain HTTP throughout":             {method: "POST", origin: "http://site.example", plain: true, want: true},
		"no word on where it comes from":    {method: "POST"},
		"another site":                      {method: "POST", site: "cross-site", origin: "https://evil.example"},
		"a sister site":                     {method: "POST", site: "same-site", origin: "https://other.site.example"},
		"another site without metadata":     {method: "POST", origin: "https://evil.example"},
		"an opaque origin":                  {method: "POST", origin: "null"},
		"the host as a prefix":              {method: "POST", origin: "https://site.example.evil.example"},
		"another port":                      {method: "POST", origin: "https://site.example:8443"},
		"a page without TLS":                {method: "POST", origin: "http://site.example"},
		"metadata says no, Origin lies":     {method: "POST", site: "cross-site", origin: "https://site.example"},
		"DELETE":                            {method: "DELETE", site: "cross-site"},
		"a WebSocket from another site":     {method: "GET", site: "cross-site", origin: "https://evil.example", upgrade: "websocket"},
		"a WebSocket with only an Origin":   {method: "GET", origin: "https://evil.example", upgrade: "websocket"},
		"a metadata value nobody has heard": {method: "POST", site: "new-value"},
	} {
		r := httptest.NewRequest(row.method, "https://site.example/", nil)
		r.TLS = &tls.ConnectionState{}
		if row.plain {
			r.TLS = nil
		}
		for header, value := range map[string]string{"Sec-Fetch-Site": row.site, "Origin": row.origin, "Upgrade": row.upgrade} {
			if value != "" {
				r.Header.Set(header, value)
			}
		}
		if got := h.sameOrigin(r); got != row.want {
			t.Errorf("%s: %v, want %v", name, got, row.want)
		}
	}
}
