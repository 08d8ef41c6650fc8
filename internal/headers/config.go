package headers

import (
	"errors"
	"fmt"
	"time"
)

// maxNames bounds each of Set, Keep, Merge and Remove, and the cookies left alone.
const maxNames = 64

// Field is one header and its value.
type Field struct {
	// Name is the header's name, in any case.
	Name string `json:"name"`
	// Value is the whole value. It must not be empty.
	Value string `json:"value"`
	// Place is where the setting stands, for error texts only.
	Place string `json:"place,omitempty"`
}

// Config describes a header policy. The zero Config is the whole html preset.
type Config struct {
	// Preset is "html" for applications that serve pages or "api" for
	// services that machines call. Default: html.
	Preset string
	// Set replaces the preset's value of single headers, or adds headers that
	// every answer has. A value that browsers would ignore is an error.
	//
	// X-Frame-Options and frame-ancestors say the same to old and new browsers:
	// when one is set, the preset's other follows it. When both are set and
	// contradict each other, that is an error.
	Set []Field
	// Keep names headers of the policy for which the upstream's value wins
	// when there is exactly one and browsers would obey it; otherwise the
	// policy's is sent. Default: none, the policy's value always wins.
	Keep []string
	// Merge names headers of the policy that are sent beside the upstream's own values,
	// each in a line of its own: Content-Security-Policy, of which browsers obey all.
	// A page then has to satisfy both policies. Default: none.
	Merge []string
	// Cookies hardens the cookies that the answer sets. Default: they are left as they
	// are.
	Cookies Cookies
	// Cache is the Cache-Control of answers that name none themselves: "no-store",
	// "private" (the browser may store them, caches on the way may not) or "off". The
	// html preset gives it to known callers only. Default: no-store.
	Cache string
	// Remove names more headers to take off every answer. Server, X-Powered-By,
	// Via, X-AspNet-Version and X-AspNetMvc-Version always go, unless Set
	// gives one of them a value.
	Remove []string
	// CSP replaces the preset's directives of the same names and adds others.
	CSP []Directive
	// CSPReportOnly sends the policy as Content-Security-Policy-Report-Only, so
	// that browsers report and block nothing. A policy that the upstream
	// enforces then stays as it is. Default: false, the policy is enforced.
	CSPReportOnly bool
	// InsecureCSP allows sources that undo the policy, such as 'unsafe-inline',
	// 'unsafe-eval' or * for scripts. Default: such a source is an error. In a
	// Caddyfile its name is insecure_unsafe_csp.
	InsecureCSP bool
	// InlineCode makes the policy one for inline code: script-src and style-src stand
	// in it, and each answer adds nonces or hashes of its own (Conn.Code). Default:
	// false.
	InlineCode bool
	// Report is the path to which browsers report violations: report-uri is added to the
	// policy, and over TLS report-to and the header Reporting-Endpoints. Default: none.
	Report string
	// HSTSMaxAge is how long browsers insist on TLS, in whole seconds, from one
	// second to ten years. Default: two years (63072000 s).
	HSTSMaxAge time.Duration
	// HSTSSubdomains extends Strict-Transport-Security to every subdomain,
	// including those that this gateway does not serve. Default: false.
	HSTSSubdomains bool
	// HSTSPreload consents to the browsers' built-in list, from which it takes
	// months to be removed. It needs HSTSSubdomains and at least one year.
	// Default: false.
	HSTSPreload bool
}

// alwaysRemoved tell an attacker what to look up. Via is what Caddy's own proxy
// adds to each answer.
var alwaysRemoved = []string{"Server", "X-Powered-By", "Via", "X-AspNet-Version", "X-AspNetMvc-Version"}

// ownWords are headers whose value belongs to the single answer, so that one
// fixed value would be wrong; those that are true frame the message and cannot
// be removed either.
var ownWords = map[string]bool{
	"Connection": true, "Keep-Alive": true, "Proxy-Connection": true, "Te": true, "Trailer": true,
	"Transfer-Encoding": true, "Upgrade": true, "Content-Length": true, "Content-Encoding": true,
	"Content-Range": true, "Content-Type": true, "Location": true, "Www-Authenticate": true,
	"Proxy-Authenticate": true, "Allow": true, "Retry-After": true, "Sec-Websocket-Accept": true,
	"Sec-Websocket-Extensions": true, "Sec-Websocket-Protocol": true, "X-Request-Id": true,
	"Vary": true, "Date": false, "Etag": false, "Last-Modified": false, "Accept-Ranges": false, "Age": false,
	"Expires": false, "Set-Cookie": false, "Ratelimit": false, "Ratelimit-Policy": false,
}

// New compiles a policy. It returns every error of the configuration at once.
func New(cfg Config) (*Policy, error) {
	b := builder{cfg: cfg, set: make(map[string]Field)}
	var ok bool
	if b.preset, ok = presets(cfg.Preset); !ok {
		b.failf("preset %q: must be html or api", clip(cfg.Preset))
		b.preset = html() // the rest of the configuration is still checked
	}
	b.readSet()
	b.buildCSP()
	b.agreeOnFrames()
	p := b.policy()
	if err := errors.Join(b.errs...); err != nil {
		return nil, fmt.Errorf("headers: %w", err)
	}
	return p, nil
}
