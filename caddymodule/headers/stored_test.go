package headers

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/internal/headers"
)

func TestACacheDoesNotGiveAScriptsAnswerForAPage(t *testing.T) {
	for name, row := range map[string]struct {
		in     *inliner
		answer upstreamAnswer
		dest   string
		want   string
	}{
		"page":               {nonces(), upstreamAnswer{}, "document", "Accept, Sec-Fetch-Dest"},
		"page of hashes":     {hashes(), upstreamAnswer{}, "document", "Accept, Sec-Fetch-Dest"},
		"fetched":            {nonces(), upstreamAnswer{}, "empty", "Accept, Sec-Fetch-Dest"},
		"fetched, of hashes": {hashes(), upstreamAnswer{}, "empty", "Accept, Sec-Fetch-Dest"},
		"error page":         {nonces(), upstreamAnswer{status: 404}, "empty", "Accept, Sec-Fetch-Dest"},
		"XHTML":              {nonces(), upstreamAnswer{header: []string{"Content-Type: application/xhtml+xml"}}, "empty", "Accept, Sec-Fetch-Dest"},
		"part":               {nonces(), upstreamAnswer{status: 206}, "document", "Accept, Sec-Fetch-Dest"},
		"still fresh":        {hashes(), upstreamAnswer{status: 304, header: []string{"Content-Type:"}}, "empty", "Accept, Sec-Fetch-Dest"},
		"fresh image":        {hashes(), upstreamAnswer{status: 304, header: []string{"Content-Type: image/png"}}, "image", ""},
		"image":              {nonces(), upstreamAnswer{header: []string{"Content-Type: image/png"}}, "image", ""},
		"no type":            {nonces(), upstreamAnswer{header: []string{"Content-Type:"}}, "empty", ""},
		"says another":       {nonces(), upstreamAnswer{header: []string{"Vary: Origin"}}, "empty", "Origin | Accept, Sec-Fetch-Dest"},
		"says one":           {nonces(), upstreamAnswer{header: []string{"Vary: Cookie, accept"}}, "empty", "Cookie, accept | Sec-Fetch-Dest"},
		"says both":          {nonces(), upstreamAnswer{header: []string{"Vary: sec-fetch-dest", "Vary: ACCEPT"}}, "empty", "sec-fetch-dest | ACCEPT"},
		"says all":           {nonces(), upstreamAnswer{header: []string{"Vary: *"}}, "empty", "*"},
		"like another":       {nonces(), upstreamAnswer{header: []string{"Vary: Accept-Encoding"}}, "empty", "Accept-Encoding | Accept, Sec-Fetch-Dest"},
	} {
		h, _ := row.answer.ask(t, row.in, false, http.MethodGet, "Sec-Fetch-Dest: "+row.dest)
		if got := strings.Join(h.Values("Vary"), " | "); got != row.want {
			t.Errorf("%s: Vary %q, want %q", name, got, row.want)
		}
	}
}

func TestANonceIsStoredByNobody(t *testing.T) {
	for _, row := range []struct {
		cache    string // of the upstream
		known    bool
		unstored bool // by the policy, for known callers
		want     string
	}{
		{"", false, true, "private, no-cache"},
		{"", false, false, "private, no-cache"},
		{"", true, true, ""}, // The policy fills in no-store.
		{"", true, false, "private, no-cache"},
		{"public, max-age=60", false, true, "private, no-cache"},
		{"public, max-age=60", true, true, "private, no-cache"},
		{"max-age=60, No-Store", false, true, "max-age=60, No-Store"},
		{"max-age=60, x-no-store", false, true, "private, no-cache"},
	} {
		for _, method := range []string{"GET", "HEAD", "POST"} {
			for _, in := range []*inliner{nonces(), pinning(t, twoScripts)} {
				in.unstored = row.unstored
				u := upstreamAnswer{header: []string{"Cache-Control: " + row.cache}}
				h, _ := u.ask(t, in, row.known, method, forPage)
				if got := h.Get("Cache-Control"); got != row.want {
					t.Errorf("%s %s %+v: got %q", in.mode, method, row, got)
				}
			}
		}
	}
}

func TestNoOtherHeaderLetsACacheStoreANonce(t *testing.T) {
	lines := []string{
		"CDN-Cache-Control: max-age=600", "Surrogate-Control: max-age=600", "X-Accel-Expires: 600", "Edge-Control: max-age=600",
		"Cloudflare-CDN-Cache-Control: max-age=600", "Expires: Wed, 21 Oct 2065 07:28:00 GMT", "Age: 5", "Cache-Control: no-store",
	}
	u := upstreamAnswer{header: lines}
	h, _ := u.ask(t, nonces(), false, http.MethodGet, forPage)
	for _, line := range lines[:len(lines)-1] {
		name, _, _ := strings.Cut(line, ":")
		if h.Get(name) != "" {
			t.Errorf("%s: %s", name, h.Get(name))
		}
	}
	if h.Get("Cache-Control") != "no-store" {
		t.Errorf("Cache-Control: %q", h.Get("Cache-Control"))
	}
	if h, _ := u.ask(t, hashes(), false, http.MethodGet, forPage); h.Get("Cdn-Cache-Control") == "" || h.Get("Expires") == "" {
		t.Errorf("a page of hashes may be stored: %v", h)
	}
}

// What fills in no-store is the policy of the headers; another setting does not.
func TestThePolicyIsTrustedWithWhatItFillsIn(t *testing.T) {
	for cache, want := range map[string]bool{"": true, "no-store": true, "private": false, "off": false} {
		h := &Handler{Settings: Settings{Cache: cache, Inline: modeNonce}}
		if err := provisioned(t, h); err != nil {
			t.Fatal(err)
		}
		if got := h.inliners[h.policy].unstored; got != want {
			t.Errorf("cache %q: %v", cache, got)
		}
		if names := h.policy.Names(); slices.Contains(names, "Cache-Control") {
			t.Errorf("cache %q: everybody gets it: %v", cache, names)
		}
	}
}

func TestAPageWithANonceMayNotBeMadePublic(t *testing.T) {
	for text, want := range map[string]string{
		"Cache-Control: public, max-age=600": "must say no-store or private",
		"Cache-Control: no-cache":            "must say no-store or private",
		"cdn-cache-control: max-age=600":     "no cache may give it to others",
		"Surrogate-Control: max-age=600":     "no cache may give it to others",
		"Cache-Control: no-store":            "",
		"Cache-Control: PRIVATE, max-age=60": "",
		"X-Other: public":                    "",
	} {
		name, value, _ := strings.Cut(text, ": ")
		s := Settings{Inline: modeNonce, Set: []headers.Field{{Name: name, Value: value}}}
		if err := provisioned(t, &Handler{Settings: s}); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
		s.Inline = modeHash // It changes with the page only.
		if err := provisioned(t, &Handler{Settings: s}); err != nil {
			t.Errorf("%s beside hash: %v", text, err)
		}
	}
}

func TestAPageWithANonceKeepsItsCacheControl(t *testing.T) {
	s := Settings{Inline: modeNonce, Cache: "off", Remove: []string{"cache-control"}}
	if err := provisioned(t, &Handler{Settings: s}); err == nil || !strings.Contains(err.Error(), "remove Cache-Control") {
		t.Error(err)
	}
	s.Inline = modeHash
	if err := provisioned(t, &Handler{Settings: s}); err != nil {
		t.Error(err)
	}
}

func TestAFileToBeSavedKeepsItsBytes(t *testing.T) {
	for disposition, changed := range map[string]bool{"attachment": false, `ATTACHMENT; filename="a.html"`: false, "inline": true, "": true} {
		u := &upstreamAnswer{body: twoScripts, header: []string{"Content-Disposition: " + disposition}}
		if _, got := u.ask(t, nonces(), false, http.MethodGet, forPage); (got != twoScripts) != changed {
			t.Errorf("%q: %q", disposition, got)
		}
	}
}
