package headers

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/moat-gateway/moat/caddymodule/internal/exchange"
	"github.com/moat-gateway/moat/internal/headers"
	"github.com/moat-gateway/moat/internal/headers/inline"
	"github.com/moat-gateway/moat/internal/identity"
)

const twoScripts = "<script>a()</script><script src=/app.js></script>"

// upstreamAnswer is what an upstream sends, and what has become of it.
type upstreamAnswer struct {
	status int
	header []string // "Name: value"; the last Content-Type counts
	body   string

	got  *http.Request
	code *headers.Code
	logs *observer.ObservedLogs
}

// ask sends a request through an inliner of the mode and returns the answer.
func (u *upstreamAnswer) ask(t *testing.T, in *inliner, known bool, method string, header ...string) (http.Header, string) {
	t.Helper()
	core, logs := observer.New(zapcore.InfoLevel)
	u.logs, in.findings = logs, newFindings(in.mode, zap.New(core))
	ex := &exchange.Exchange{Caller: identity.Anonymous()}
	if known {
		ex.Caller = identity.Authenticated(identity.Principal{ID: "u"})
	}
	policy := new(headers.Policy)
	s := &settler{handler: &Handler{policy: policy, inliners: map[*headers.Policy]*inliner{policy: in}}, exchange: ex}
	req := httptest.NewRequestWithContext(t.Context(), method, "/", nil)
	set(req.Header, header)
	resp, err := s.send(req, u.roundTrip)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	u.code = s.code
	return resp.Header, string(body)
}

// logged counts the lines about a kind of finding.
func (u *upstreamAnswer) logged(kind string) int {
	return u.logs.Filter(func(e observer.LoggedEntry) bool { return e.ContextMap()["kind"] == kind }).Len()
}

func (u *upstreamAnswer) roundTrip(req *http.Request) (*http.Response, error) {
	u.got = req
	h := http.Header{"Content-Type": {"text/html; charset=utf-8"}}
	set(h, u.header)
	status := u.status
	if status == 0 {
		status = http.StatusOK
	}
	return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(u.body)), Request: req}, nil
}

// set adds lines to a header; one without a value takes the header away.
func set(h http.Header, lines []string) {
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ":")
		if value = strings.TrimSpace(value); value == "" || name == "Content-Type" {
			h.Del(name)
		}
		if value != "" {
			h.Add(name, value)
		}
	}
}

func nonces() *inliner { return &inliner{mode: modeNonce, unstored: true} }
func hashes() *inliner { return &inliner{mode: modeHash, max: maxHashed} }

// pinning is an inliner that has the scripts of a page in its file.
func pinning(t *testing.T, page string) *inliner {
	t.Helper()
	set := inline.NewPins(0)
	r, err := inline.New(strings.NewReader(page), inline.Config{Nonce: inline.NewNonce(), Pins: set, Learn: true, Charset: inline.UTF8})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, r); err != nil {
		t.Fatal(err)
	}
	return &inliner{mode: modePin, unstored: true, pins: &pinFile{set: set}}
}

const forPage = "Sec-Fetch-Dest: document"

// Chromium reads the script as ISO-2022-JP, where its source is data: and not what is
// pinned. What names the charset is out of sight where the guess is made.
func TestAnInjectedScriptIsNotPinnedByACharsetThatBrowsersGuess(t *testing.T) {
	injected := "<script x=\"\x1b$B\"src=\"/app.js\"yy='\x1b(B\"src=data:,document.title=`PWNED` '></script>"
	for name, before := range map[string]string{
		"nothing":             strings.Repeat(" ", 4096),
		"a late meta tag":     "<head><!--" + strings.Repeat("z", 4096) + "--><meta charset=iso-2022-jp>",
		"a hidden meta tag":   `<meta charset="&#105;so-2022-jp">` + strings.Repeat(" ", 4096),
		"in the second piece": "<meta charset=iso-2022-jp>",
	} {
		for contentType, want := range map[string]int{"text/html": 2, "text/html; charset=utf-8": 3} {
			in := pinning(t, twoScripts)
			u := &upstreamAnswer{header: []string{"Content-Type: " + contentType}, body: twoScripts + strings.Repeat(" ", 4096) + before + injected}
			_, body := u.ask(t, in, false, http.MethodGet, forPage)
			if n := strings.Count(body, " nonce="); n != want {
				t.Errorf("%s, %s: %d scripts have the nonce, want %d", name, contentType, n, want)
			}
			if n := u.logged("ambiguous"); (n == 1) != (want == 2) {
				t.Errorf("%s, %s: %d findings: %v", name, contentType, n, u.logs.All())
			}
		}
	}
}

func TestTwoContentTypesAreNoCertainCharset(t *testing.T) {
	u := &upstreamAnswer{body: twoScripts}
	in := nonces()
	in.findings = newFindings(in.mode, zap.NewNop())
	resp, _ := u.roundTrip(httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
	resp.Header.Add("Content-Type", "text/html; charset=iso-2022-jp")
	if code, why := (&page{inliner: in, resp: resp}).bring(); code != nil || why == nil {
		t.Errorf("got %v, %v", code, why)
	}
}

func TestAPageIsRewrittenWhateverTheMethod(t *testing.T) {
	conditions := []string{forPage, `If-None-Match: "v1"`, "If-Modified-Since: Wed, 21 Oct 2025 07:28:00 GMT"}
	for method, left := range map[string]int{"GET": 0, "HEAD": 0, "POST": 2, "PUT": 2, "DELETE": 2} {
		u := &upstreamAnswer{body: twoScripts, header: []string{`ETag: "v1"`}}
		if method == http.MethodHead {
			u.body = ""
		}
		h, body := u.ask(t, nonces(), false, method, conditions...)
		if n := strings.Count(body, " nonce="); method != http.MethodHead && n != 2 || u.code == nil || h.Get("Etag") != "" {
			t.Errorf("%s: %d nonces, %v, %v", method, n, u.code, h)
		}
		if n := len(u.got.Header["If-None-Match"]) + len(u.got.Header["If-Modified-Since"]); n != left {
			t.Errorf("%s: %d conditions reached the upstream", method, n)
		}
	}
	u := &upstreamAnswer{body: twoScripts}
	u.ask(t, hashes(), false, http.MethodGet, conditions...)
	if u.got.Header.Get("If-None-Match") == "" {
		t.Error("a page with hashes can be fresh, and was asked for again")
	}
}

func TestAPartOfAnAnswerPassesUntouched(t *testing.T) {
	for _, in := range []*inliner{nonces(), hashes(), pinning(t, twoScripts)} {
		u := &upstreamAnswer{status: http.StatusPartialContent, body: twoScripts, header: []string{`ETag: "v1"`, "Content-Range: bytes 0-9/99", "Cache-Control: public"}}
		h, body := u.ask(t, in, false, http.MethodGet, forPage, "Range: bytes=0-9", `If-Range: "v1"`)
		if body != twoScripts || u.code != nil || h.Get("Etag") == "" || h.Get("Cache-Control") != "public" {
			t.Errorf("%s: %q, %v, %v", in.mode, body, u.code, h)
		}
		if u.got.Header.Get("Range") == "" || u.got.Header.Get("If-Range") == "" {
			t.Errorf("%s: the upstream got %v", in.mode, u.got.Header)
		}
	}
}

func TestHeadOfAPageThatIsCodedSaysWhatGetWouldSay(t *testing.T) {
	for coding, kept := range map[string]bool{"gzip": false, "br": false, "rot13": true, "": true} {
		u := &upstreamAnswer{header: []string{"Content-Encoding: " + coding, "Content-Length: 99", `ETag: "v1"`}}
		h, _ := u.ask(t, hashes(), false, http.MethodHead, forPage)
		if (h.Get("Content-Length") != "") != kept || (h.Get("Content-Encoding") != "") != (kept && coding != "") || (h.Get("Etag") == `"v1"`) != kept {
			t.Errorf("%q: %v", coding, h)
		}
	}
}

func TestAPageWithTooManyHashesHasNoneAndTheLogSaysSo(t *testing.T) {
	var page strings.Builder
	for i := range 101 {
		page.WriteString("<style>" + strings.Repeat("x", i) + "</style>")
	}
	u := &upstreamAnswer{body: page.String()}
	if _, body := u.ask(t, hashes(), false, http.MethodGet, forPage); body != page.String() || len(u.code.Styles)+len(u.code.Scripts) != 0 {
		t.Errorf("%d bytes of %d, %v", len(body), page.Len(), u.code)
	}
	if u.logged("too_many_hashes") != 1 {
		t.Errorf("logged %v", u.logs.All())
	}
}

func TestAHashOfAnotherCharsetIsNamedAndNotSent(t *testing.T) {
	u := &upstreamAnswer{header: []string{"Content-Type: text/html; charset=iso-8859-1"}, body: "<script>a('é')</script><script>b()</script>"}
	u.ask(t, hashes(), false, http.MethodGet, forPage)
	if len(u.code.Scripts) != 1 || u.code.Scripts[0] != inline.HashScript([]byte("b()")).Source() || u.logged("ambiguous") != 1 {
		t.Errorf("%v, %v", u.code, u.logs.All())
	}
}
