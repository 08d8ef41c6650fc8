package headers_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/internal/headers"
)

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

func TestOnlyAnswersForKnownCallersAreNotStored(t *testing.T) {
	p := policy(t, headers.Config{})
	for _, row := range []struct {
		conn   headers.Conn
		theirs []string
		want   []string
	}{
		{overTLS, nil, nil},
		{plain, nil, nil},
		{overTLS, []string{"a", "b"}, []string{"a", "b"}},
		{caller, nil, []string{"no-store"}},
		{headers.Conn{Authenticated: true}, nil, []string{"no-store"}},
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

func TestValuesThatBrowsersIgnoreAreNoValues(t *testing.T) {
	for name, value := range map[string]string{
		"Permissions-Policy":         "camera=('self')",
		"Strict-Transport-Security":  `max-age="1`,
		"Cross-Origin-Opener-Policy": "same-origin; =",
	} {
		if _, err := headers.New(headers.Config{Set: set(name, value)}); err == nil {
			t.Errorf("set %s %s is accepted", name, value)
		}
		h := answer(policy(t, headers.Config{Keep: []string{name}}), 200, overTLS, func(h http.Header) { h.Set(name, value) })
		if h.Get(name) == value {
			t.Errorf("%s: the upstream's %s is kept", name, value)
		}
	}
	if _, err := headers.New(headers.Config{Set: set("Cross-Origin-Opener-Policy", `same-origin; report-to="coop"`)}); err != nil {
		t.Error(err)
	}
}
