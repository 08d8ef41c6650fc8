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

func TestKeepTakesOnlyWhatBrowsersObey(t *testing.T) {
	rows := []struct{ name, theirs, want string }{
		{"X-Frame-Options", "DENY", "DENY"},
		{"X-Frame-Options", "sameorigin", "sameorigin"},
		{"X-Frame-Options", "ALLOWALL", "SAMEORIGIN"},
		{"X-Frame-Options", "DENY, DENY", "SAMEORIGIN"},
		{"X-Frame-Options", "ALLOW-FROM https://a.example", "SAMEORIGIN"},
		{"X-Frame-Options", "", "SAMEORIGIN"},
		{"X-Frame-Options", "DENY\x00", "SAMEORIGIN"},
		{"X-Content-Type-Options", "none", "nosniff"},
		{"Referrer-Policy", "no-referrer, strict-origin", "no-referrer, strict-origin"},
		{"Referrer-Policy", "nothing", "strict-origin-when-cross-origin"},
		{"Cross-Origin-Opener-Policy", `unsafe-none; report-to="x"`, `unsafe-none; report-to="x"`},
		{"Cross-Origin-Opener-Policy", "Unsafe-None", "same-origin"},
		{"Origin-Agent-Cluster", "1", "?1"},
		{"Permissions-Policy", `camera=(self "https://a.example"), midi=*`, `camera=(self "https://a.example"), midi=*`},
		{"Permissions-Policy", "camera 'none'", promised["html"]["Permissions-Policy"]},
		{"Content-Security-Policy", "Default-Src 'none'", "Default-Src 'none'"},
		{"Content-Security-Policy", "default-src 'none', img-src *", htmlCSP},
		{"Content-Security-Policy", "everything 'self';;", htmlCSP},
		{"Content-Security-Policy", strings.Repeat("default-src 'none'; ", 500), htmlCSP},
		{"Strict-Transport-Security", `max-age="31536000"; includeSubDomains; preload;`, `max-age="31536000"; includeSubDomains; preload;`},
		{"Strict-Transport-Security", "max-age=1; preload", "max-age=1; preload"},
		{"Strict-Transport-Security", "max-age=1; max-age=2", "max-age=63072000"},
		{"Strict-Transport-Security", "max-age=-1", "max-age=63072000"},
		{"Strict-Transport-Security", "max-age=1; forever", "max-age=63072000"},
	}
	writers := map[string]func(h http.Header, name, v string){
		"added": http.Header.Add,
		"set":   http.Header.Set,
	}
	for _, row := range rows {
		p := policy(t, headers.Config{Keep: []string{strings.ToLower(row.name)}})
		for how, write := range writers {
			h := answer(p, 200, overTLS, func(h http.Header) { write(h, row.name, row.theirs) })
			if got := h[row.name]; !slices.Equal(got, []string{row.want}) {
				t.Errorf("%s %s %q: got %q, want %q", row.name, how, row.theirs, got, row.want)
			}
		}
		twice := answer(p, 200, overTLS, func(h http.Header) { h[row.name] = []string{"DENY", "other"} })
		if got := twice[row.name]; !slices.Equal(got, []string{promised["html"][row.name]}) {
			t.Errorf("%s sent twice: got %q", row.name, got)
		}
		if got := answer(p, 200, overTLS, silent)[row.name]; !slices.Equal(got, []string{promised["html"][row.name]}) {
			t.Errorf("%s not sent: got %q", row.name, got)
		}
	}
}

func TestKeepCoversWhatSetAdds(t *testing.T) {
	p := policy(t, headers.Config{Preset: "api", Set: set("Server", "moat"), Keep: []string{"Server", "Cache-Control"}})
	h := http.Header{"Server": {"theirs"}, "Cache-Control": {"private", "max-age=1"}}
	p.Settle(h, 200, overTLS)
	if h.Get("Server") != "theirs" {
		t.Errorf("the kept header is %q", h["Server"])
	}
	if got := h["Cache-Control"]; !slices.Equal(got, []string{"private, max-age=1"}) {
		t.Errorf("naming a header that is only filled in changed it: %q", got)
	}
}

func TestOnlyPagesOfKnownCallersAreMarkedPrivate(t *testing.T) {
	p := policy(t, headers.Config{})
	for _, row := range []struct {
		conn   headers.Conn
		theirs []string
		want   []string
	}{
		{overTLS, nil, nil},
		{plain, nil, nil},
		{overTLS, []string{"a", "b"}, []string{"a", "b"}},
		{caller, nil, []string{"private"}},
		{headers.Conn{Authenticated: true}, nil, []string{"private"}},
		{caller, []string{"public"}, []string{"public"}},
		{caller, []string{"public", "", "max-age=1"}, []string{"public, max-age=1"}},
	} {
		h := answer(p, 200, row.conn, func(h http.Header) {
			if row.theirs != nil {
				h["Cache-Control"] = row.theirs
			}
		})
		if got := h["Cache-Control"]; !slices.Equal(got, row.want) {
			t.Errorf("%+v %q: got %q, want %q", row.conn, row.theirs, got, row.want)
		}
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
	if h.Get("Content-Type") != "text/html" || h["x-other"] == nil {
		t.Error("a header that is not the policy's went too")
	}
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
	if h.Get("X-Checksum") != "abc" || len(h["Trailer"]) != 2 ||
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

// A handler that rewrites values in place, as Caddy's own header directive
// does, must not change another answer, and the policy must not write into
// slices that belong to somebody else.
func TestAnswersShareNoMemory(t *testing.T) {
	p := policy(t, headers.Config{})
	spoiled := http.Header{}
	p.Apply(spoiled, overTLS)
	for name := range spoiled {
		spoiled[name][0] = "spoiled"
		spoiled[name] = append(spoiled[name], "appended")
	}
	h := answer(p, 200, overTLS, silent)
	for name, want := range promised["html"] {
		if h.Get(name) != want {
			t.Errorf("%s: %q came over from another answer", name, h.Get(name))
		}
	}
	roomy := make([]string, 1, 4)
	roomy[0] = "same-origin"
	h = answer(policy(t, headers.Config{Preset: "api"}), 200, overTLS, func(h http.Header) {
		h["Cross-Origin-Resource-Policy"] = roomy
	})
	if got := h["Cache-Control"]; !slices.Equal(got, []string{"no-store"}) || roomy[:2][1] != "" {
		t.Errorf("a foreign slice lent a value: %q, left with %q", got, roomy[:2])
	}
	shared := []string{"theirs", "too"}
	spelled := make([]string, 1, 4)
	spelled[0] = "kept"
	answer(p, 200, overTLS, func(h http.Header) {
		h["X-Frame-Options"] = shared
		h["Referrer-Policy"] = spelled
		h["referrer-policy"] = []string{"x"}
	})
	if !slices.Equal(shared, []string{"theirs", "too"}) || spelled[0] != "kept" || spelled[:2][1] != "" {
		t.Errorf("the policy wrote into a foreign slice: %q %q", shared, spelled[:2])
	}
}

// Handlers add trailers and the like after the header has left; what they add
// to one header must not show in another.
func TestAppendsReachNoOtherHeader(t *testing.T) {
	p := policy(t, headers.Config{Preset: "api", Set: set("X-Last", "1")})
	want := map[string]string{"X-Last": "1"}
	for name, value := range promised["api"] {
		want[name] = value
	}
	for _, apply := range []bool{true, false} {
		h := http.Header{}
		if apply {
			p.Apply(h, overTLS)
		}
		p.Settle(h, 200, overTLS)
		for name := range h {
			h.Add(name, "appended")
		}
		for name, value := range want {
			if got := h[name]; !slices.Equal(got, []string{value, "appended"}) {
				t.Errorf("applied %v: %s: got %q", apply, name, got)
			}
		}
	}
	for name, value := range want {
		h := http.Header{}
		p.Apply(h, overTLS)
		for other := range h {
			if other != name {
				h.Add(other, "appended")
			}
		}
		p.Settle(h, 200, overTLS)
		if got := h[name]; !slices.Equal(got, []string{value}) {
			t.Errorf("%s: got %q", name, got)
		}
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

func TestOnePolicyServesManyAnswersAtOnce(t *testing.T) {
	p := policy(t, headers.Config{Keep: []string{"X-Frame-Options"}})
	done := make(chan http.Header)
	const answers = 32
	for range answers {
		go func() {
			done <- answer(p, 200, caller, func(h http.Header) {
				h.Add("X-Frame-Options", "DENY")
				h["Referrer-Policy"][0] = "in place"
			})
		}()
	}
	for range answers {
		if h := <-done; h.Get("X-Frame-Options") != "DENY" || h.Get("Referrer-Policy") != "strict-origin-when-cross-origin" {
			t.Errorf("got %v", h)
		}
	}
}
