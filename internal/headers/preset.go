package headers

import "time"

// Canonical names of the headers that the presets speak about.
const (
	nameCSP         = "Content-Security-Policy"
	nameCSPReport   = "Content-Security-Policy-Report-Only"
	nameHSTS        = "Strict-Transport-Security"
	nameNoSniff     = "X-Content-Type-Options"
	nameFrame       = "X-Frame-Options"
	nameReferrer    = "Referrer-Policy"
	namePermissions = "Permissions-Policy"
	nameCOOP        = "Cross-Origin-Opener-Policy"
	nameCOEP        = "Cross-Origin-Embedder-Policy"
	nameCORP        = "Cross-Origin-Resource-Policy"
	nameOAC         = "Origin-Agent-Cluster"
	nameXPCDP       = "X-Permitted-Cross-Domain-Policies"
	nameCache       = "Cache-Control"
	nameEndpoints   = "Reporting-Endpoints"
)

// defaultHSTS is two years, what the preload list recommends.
const defaultHSTS = 2 * 365 * 24 * time.Hour

// preset is a named starting point; the caller owns its slices.
type preset struct {
	csp CSP
	// upgrade adds upgrade-insecure-requests over TLS.
	upgrade bool
	// fields follow the CSP and HSTS in this order.
	fields []Field
	// cache is the Cache-Control filled in where the upstream sets none, and
	// callers limits that to answers for known callers.
	cache   string
	callers bool
}

// presets returns a preset by its name; the empty name is html.
//
// X-XSS-Protection is in none of them: the filter it steered is gone from
// browsers and could itself be used to leak pages.
func presets(name string) (preset, bool) {
	switch name {
	case "", "html":
		return html(), true
	case "api":
		return api(), true
	default:
		return preset{}, false
	}
}

// html is for applications that serve pages to browsers.
//
//   - CSP: everything from the own origin. default-src is no fallback for
//     base-uri, frame-ancestors and form-action, so these are named. Plug-ins
//     are off. data: is allowed for images, where it can run nothing and style
//     sheets ship their icons that way. Over TLS http: addresses are upgraded:
//     applications behind a gateway often write their own links as http:. Over
//     a plain connection that would point every resource to a port where
//     nobody listens.
//   - X-Frame-Options says to old browsers what frame-ancestors says to others.
//   - Referrer-Policy: full address to oneself, origin to others, nothing when
//     the transport gets weaker.
//   - Permissions-Policy: off for the page and its frames is what can watch,
//     locate or reach hardware. Left at the browser's default are features
//     that ordinary pages use: autoplay, fullscreen, clipboard, passkeys.
//   - COOP, CORP and Origin-Agent-Cluster keep windows, resources and memory of
//     other origins apart. COEP is missing: it breaks embedded third parties.
//   - X-Permitted-Cross-Domain-Policies: no policy files for PDF readers.
//   - Cache-Control: answers for known callers that name no cache rule of their
//     own are stored nowhere: not by a cache on the way, which would hand one
//     caller's page to another, and not in a browser that others use next.
func html() preset {
	return preset{
		csp: CSP{
			{Name: "default-src", Sources: []string{"'self'"}},
			{Name: "base-uri", Sources: []string{"'self'"}},
			{Name: "object-src", Sources: []string{"'none'"}},
			{Name: "frame-ancestors", Sources: []string{"'self'"}},
			{Name: "form-action", Sources: []string{"'self'"}},
			{Name: "img-src", Sources: []string{"'self'", "data:"}},
		},
		upgrade: true,
		fields: []Field{
			{Name: nameNoSniff, Value: "nosniff"},
			{Name: nameFrame, Value: "SAMEORIGIN"},
			{Name: nameReferrer, Value: "strict-origin-when-cross-origin"},
			{Name: namePermissions, Value: "accelerometer=(), bluetooth=(), browsing-topics=(), camera=(), " +
				"display-capture=(), geolocation=(), gyroscope=(), hid=(), idle-detection=(), local-fonts=(), " +
				"magnetometer=(), microphone=(), midi=(), payment=(), serial=(), usb=(), window-management=(), " +
				"xr-spatial-tracking=()"},
			{Name: nameCOOP, Value: "same-origin"},
			{Name: nameCORP, Value: "same-origin"},
			{Name: nameOAC, Value: "?1"},
			{Name: nameXPCDP, Value: "none"},
		},
		cache:   "no-store",
		callers: true,
	}
}

// api is for services that machines call. Nothing they answer is a page, so
// nothing may be loaded, framed or referred to, and no answer is stored unless
// the service says so itself.
func api() preset {
	return preset{
		csp: CSP{
			{Name: "default-src", Sources: []string{"'none'"}},
			{Name: "frame-ancestors", Sources: []string{"'none'"}},
		},
		fields: []Field{
			{Name: nameNoSniff, Value: "nosniff"},
			{Name: nameFrame, Value: "DENY"},
			{Name: nameReferrer, Value: "no-referrer"},
			{Name: nameCORP, Value: "same-origin"},
		},
		cache: "no-store",
	}
}
