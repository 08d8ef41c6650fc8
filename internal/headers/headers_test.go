package headers_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/internal/headers"
)

var (
	overTLS = headers.Conn{TLS: true}
	plain   = headers.Conn{}
	caller  = headers.Conn{TLS: true, Authenticated: true}
)

const (
	htmlPlainCSP = "default-src 'self'; base-uri 'self'; object-src 'none'; frame-ancestors 'self'; " +
		"form-action 'self'; img-src 'self' data:"
	htmlCSP = htmlPlainCSP + "; upgrade-insecure-requests"
	apiCSP  = "default-src 'none'; frame-ancestors 'none'"
)

// promised are the values of the presets, written out a second time so that no
// change of one goes unseen.
var promised = map[string]map[string]string{
	"html": {
		"Content-Security-Policy":   htmlCSP,
		"Strict-Transport-Security": "max-age=63072000",
		"X-Content-Type-Options":    "nosniff",
		"X-Frame-Options":           "SAMEORIGIN",
		"Referrer-Policy":           "strict-origin-when-cross-origin",
		"Permissions-Policy": "accelerometer=(), bluetooth=(), browsing-topics=(), camera=(), display-capture=(), " +
			"geolocation=(), gyroscope=(), hid=(), idle-detection=(), local-fonts=(), magnetometer=(), microphone=(), " +
			"midi=(), payment=(), serial=(), usb=(), window-management=(), xr-spatial-tracking=()",
		"Cross-Origin-Opener-Policy":        "same-origin",
		"Cross-Origin-Resource-Policy":      "same-origin",
		"Origin-Agent-Cluster":              "?1",
		"X-Permitted-Cross-Domain-Policies": "none",
	},
	"api": {
		"Content-Security-Policy":      apiCSP,
		"Strict-Transport-Security":    "max-age=63072000",
		"X-Content-Type-Options":       "nosniff",
		"X-Frame-Options":              "DENY",
		"Referrer-Policy":              "no-referrer",
		"Cross-Origin-Resource-Policy": "same-origin",
		"Cache-Control":                "no-store",
	},
}

// upstreams are ways in which an application treats a header; each gets the
// value of the policy.
var upstreams = map[string]func(h http.Header, name, ours string){
	"silent":           func(http.Header, string, string) {},
	"adds the same":    func(h http.Header, name, ours string) { h.Add(name, ours) },
	"adds another":     func(h http.Header, name, _ string) { h.Add(name, "other") },
	"adds two":         func(h http.Header, name, _ string) { h.Add(name, "other"); h.Add(name, "more") },
	"adds twice":       func(h http.Header, name, ours string) { h.Add(name, ours); h.Add(name, ours) },
	"sets another":     func(h http.Header, name, _ string) { h.Set(name, "other") },
	"sets two":         func(h http.Header, name, _ string) { h[name] = []string{"other", "more"} },
	"adds an empty":    func(h http.Header, name, _ string) { h.Add(name, "") },
	"sets an empty":    func(h http.Header, name, _ string) { h.Set(name, " ") },
	"sets none":        func(h http.Header, name, _ string) { h[name] = nil },
	"deletes":          func(h http.Header, name, _ string) { h.Del(name) },
	"adds control":     func(h http.Header, name, _ string) { h.Add(name, "a\x01b") },
	"another spelling": func(h http.Header, name, _ string) { h[strings.ToLower(name)] = []string{"other"} },
	"writes in place": func(h http.Header, name, _ string) {
		if values := h[name]; len(values) > 0 {
			values[0] = "other"
		}
	},
}

func policy(t testing.TB, cfg headers.Config) *headers.Policy {
	t.Helper()
	p, err := headers.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// answer runs one answer through a policy.
func answer(p *headers.Policy, status int, c headers.Conn, upstream func(http.Header)) http.Header {
	h := http.Header{"Server": {"Caddy"}}
	p.Apply(h, headers.Conn{TLS: c.TLS})
	upstream(h)
	p.Settle(h, status, c)
	return h
}

func silent(http.Header) {}

func TestEveryAnswerHasExactlyOneValueOfEachHeader(t *testing.T) {
	for preset, values := range promised {
		p := policy(t, headers.Config{Preset: preset})
		for name, want := range values {
			for behaviour, upstream := range upstreams {
				for _, status := range []int{101, 200, 204, 206, 301, 304, 400, 401, 403, 404, 429, 500, 502, 503, 599} {
					t.Run(fmt.Sprint(preset, "/", name, "/", behaviour, "/", status), func(t *testing.T) {
						h := answer(p, status, overTLS, func(h http.Header) { upstream(h, name, want) })
						if name == "Cache-Control" {
							fillsOnlyWhatIsMissing(t, behaviour, h)
							return
						}
						if got := h[name]; !slices.Equal(got, []string{want}) {
							t.Errorf("got %q, want %q alone", got, want)
						}
						if _, other := h[strings.ToLower(name)]; other {
							t.Error("another spelling of the header is left")
						}
						before := h.Clone()
						p.Settle(h, status, overTLS)
						for k := range before {
							if !slices.Equal(before[k], h[k]) {
								t.Errorf("%s: settled twice it is %q", k, h[k])
							}
						}
					})
				}
			}
		}
	}
}

// fillsOnlyWhatIsMissing is what holds for Cache-Control in place of one value
// of ours: lines of one list are joined.
func fillsOnlyWhatIsMissing(t *testing.T, behaviour string, h http.Header) {
	t.Helper()
	want := map[string]string{
		"adds another": "other", "adds two": "other, more", "adds twice": "no-store, no-store",
		"sets another": "other", "sets two": "other, more", "adds control": "a\x01b", "another spelling": "other",
	}[behaviour]
	if want == "" {
		want = "no-store"
	}
	if got := h["Cache-Control"]; !slices.Equal(got, []string{want}) {
		t.Errorf("Cache-Control is %q, want %q alone", got, want)
	}
}

func TestPresetsCarryNoOtherHeader(t *testing.T) {
	for preset, values := range promised {
		p := policy(t, headers.Config{Preset: preset})
		h := answer(p, 200, overTLS, silent)
		for name := range h {
			if _, ok := values[name]; !ok {
				t.Errorf("%s: unexpected %s: %q", preset, name, h[name])
			}
		}
		if got, want := len(p.Names()), len(values); got != want {
			t.Errorf("%s: Names has %d, want %d: %q", preset, got, want, p.Names())
		}
		for _, name := range p.Names() {
			if len(h[name]) != 1 {
				t.Errorf("%s: %s: %q", preset, name, h[name])
			}
		}
		if p.CSP() != values["Content-Security-Policy"] {
			t.Errorf("%s: CSP is %q", preset, p.CSP())
		}
	}
}

func TestTheDefaultPresetIsHTML(t *testing.T) {
	zero, html := policy(t, headers.Config{}), policy(t, headers.Config{Preset: "html"})
	if !slices.Equal(zero.Names(), html.Names()) || zero.CSP() != html.CSP() {
		t.Error("the zero configuration is not the html preset")
	}
}

func TestRefusalsThatAreNeverSettledCarryTheHeaders(t *testing.T) {
	for preset, values := range promised {
		h := http.Header{"Server": {"Caddy"}}
		policy(t, headers.Config{Preset: preset, Keep: []string{"X-Frame-Options"}}).Apply(h, overTLS)
		for name, want := range values {
			if name == "Cache-Control" {
				want = "" // whoever writes the refusal decides
			}
			if h.Get(name) != want {
				t.Errorf("%s: %s is %q, want %q", preset, name, h.Get(name), want)
			}
		}
		if h.Get("Server") != "" {
			t.Errorf("%s: Server is left", preset)
		}
	}
}

func TestInformationalAnswersAreLeftAlone(t *testing.T) {
	p := policy(t, headers.Config{})
	for _, status := range []int{100, 102, 103, 199} {
		h := http.Header{"X-Frame-Options": {"a", "b"}, "Server": {"x"}, "Link": {"</a>"}}
		p.Settle(h, status, overTLS)
		if len(h) != 3 || len(h["X-Frame-Options"]) != 2 {
			t.Errorf("status %d changed the header: %v", status, h)
		}
	}
	h := http.Header{}
	p.Settle(h, http.StatusSwitchingProtocols, overTLS)
	if h.Get("X-Content-Type-Options") != "nosniff" {
		t.Error("101 is final and has no headers")
	}
}

func TestHSTSIsSentOverTLSOnly(t *testing.T) {
	const name = "Strict-Transport-Security"
	set := headers.Config{Set: []headers.Field{{Name: name, Value: "max-age=600"}}}
	for _, cfg := range []headers.Config{{}, {Preset: "api"}, set} {
		p := policy(t, cfg)
		if h := answer(p, 200, plain, silent); h[name] != nil {
			t.Errorf("over a plain connection: %q", h[name])
		}
		h := http.Header{}
		p.Apply(h, plain)
		if h[name] != nil {
			t.Errorf("set at once over a plain connection: %q", h[name])
		}
	}
	if h := answer(policy(t, set), 200, overTLS, silent); h.Get(name) != "max-age=600" {
		t.Errorf("over TLS: %q", h[name])
	}
}

func TestOverPlainConnectionsTheUpstreamsHSTSIsOneOrNone(t *testing.T) {
	const name = "Strict-Transport-Security"
	p := policy(t, headers.Config{})
	for _, row := range []struct {
		sent []string
		want string
	}{
		{[]string{"max-age=1"}, "max-age=1"},
		{[]string{"max-age=1", "max-age=2"}, ""},
		{[]string{"max-age=1", "max-age=1"}, ""},
		{[]string{"max-age=x"}, ""},
		{[]string{"includeSubDomains"}, ""},
		{[]string{""}, ""},
	} {
		h := answer(p, 200, plain, func(h http.Header) { h[name] = row.sent })
		if h.Get(name) != row.want || len(h[name]) > 1 {
			t.Errorf("%q became %q", row.sent, h[name])
		}
	}
}

func TestPlainConnectionsAreNotUpgraded(t *testing.T) {
	h := answer(policy(t, headers.Config{}), 200, plain, silent)
	if got := h.Get("Content-Security-Policy"); got != htmlPlainCSP {
		t.Errorf("CSP is %q", got)
	}
	asked := policy(t, headers.Config{CSP: []headers.Directive{{Name: "upgrade-insecure-requests"}}})
	h = answer(asked, 200, plain, silent)
	if got := h.Get("Content-Security-Policy"); got != htmlCSP {
		t.Errorf("asked for, CSP is %q", got)
	}
	if h = answer(asked, 200, overTLS, silent); h.Get("Content-Security-Policy") != htmlCSP {
		t.Errorf("asked for, over TLS: %q", h.Get("Content-Security-Policy"))
	}
}

func TestWhatTheAnswerWasMadeWithIsRemoved(t *testing.T) {
	p := policy(t, headers.Config{Remove: []string{"x-runtime", "Server", "ETag"}})
	h := answer(p, 200, overTLS, func(h http.Header) {
		for _, name := range []string{"Server", "X-Powered-By", "Via", "X-AspNet-Version", "X-AspNetMvc-Version", "X-Runtime", "Etag"} {
			h.Add(name, "1.1 Caddy")
			h[strings.ToLower(name)] = []string{"again"}
		}
		h.Set("Content-Type", "text/html")
		h["x-other"] = []string{"1"}
	})
	for name := range h {
		switch name {
		case "Content-Type", "x-other":
		default:
			if _, ours := promised["html"][name]; !ours {
				t.Errorf("%s: %q is left", name, h[name])
			}
		}
	}
	if h.Get("Content-Type") != "text/html" || len(other(h)) == 0 {
		t.Error("a header that is not the policy's went too")
	}
}

// other is the header that stands in the map under a name that is not canonical.
func other(h http.Header) []string {
	const name = "x-other"
	return map[string][]string(h)[name]
}

func TestTrailersAreNotDisturbed(t *testing.T) {
	p := policy(t, headers.Config{Remove: []string{"X-Checksum", "X-Runtime"}})
	h := answer(p, 200, overTLS, func(h http.Header) {
		h.Add("Trailer", "X-Other")
		h.Add("Trailer", "x-checksum , X-Frame-Options")
		h.Set("X-Checksum", "abc")
		h.Set("X-Runtime", "1")
		h[http.TrailerPrefix+"X-Frame-Options"] = []string{"a", "b"}
		h[http.TrailerPrefix+"x-runtime"] = []string{"c"}
	})
	if h.Get("X-Checksum") != "" || len(h["Trailer"]) != 2 ||
		len(h[http.TrailerPrefix+"X-Frame-Options"]) != 2 || h[http.TrailerPrefix+"x-runtime"] == nil {
		t.Errorf("a trailer was disturbed: %v", h)
	}
	if h.Get("X-Runtime") != "" {
		t.Error("a header that is no trailer was not removed")
	}
	if !slices.Equal(h["X-Frame-Options"], []string{"SAMEORIGIN"}) {
		t.Errorf("an announced header of the policy is %q", h["X-Frame-Options"])
	}
}

func TestChangesNamesWhatWouldChange(t *testing.T) {
	p := policy(t, headers.Config{Preset: "api"})
	settled := answer(p, 200, overTLS, silent)
	if got := p.Changes(settled, 200, overTLS); got != nil {
		t.Errorf("a settled answer would change: %q", got)
	}
	settled.Set("X-Frame-Options", "SAMEORIGIN")
	settled.Set("Server", "x")
	settled.Del("Cache-Control")
	want := []string{"Cache-Control", "Server", "X-Frame-Options"}
	if got := p.Changes(settled, 200, overTLS); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if settled.Get("Server") != "x" {
		t.Error("Changes changed the header")
	}
	if got := p.Changes(nil, 200, overTLS); len(got) != 7 {
		t.Errorf("an empty answer would change in %q", got)
	}
	if got := p.Changes(nil, 103, overTLS); got != nil {
		t.Errorf("an informational answer would change in %q", got)
	}
}

func TestNamesBelongToTheCaller(t *testing.T) {
	p := policy(t, headers.Config{})
	p.Names()[0] = "spoiled"
	if p.Names()[0] != "Content-Security-Policy" {
		t.Error("a caller changed the policy")
	}
}
