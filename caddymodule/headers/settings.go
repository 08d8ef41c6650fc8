package headers

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/moat-gateway/moat/caddymodule/internal/dispense"
	"github.com/moat-gateway/moat/internal/headers"
)

// Settings are the headers of a site or of a part of it.
type Settings struct {
	// Preset is "html" for pages or "api" for machine clients. Default: html.
	Preset string `json:"preset,omitempty"`
	// Set replaces the preset's value of single headers, or adds a header.
	Set []headers.Field `json:"set,omitempty"`
	// Keep names headers of which the upstream's value wins when it sends
	// exactly one that browsers obey.
	Keep []string `json:"keep,omitempty"`
	// Merge names headers that are sent beside the upstream's own:
	// Content-Security-Policy, of which browsers obey all.
	Merge []string `json:"merge,omitempty"`
	// Remove names answer headers to take off beside Server, X-Powered-By, Via
	// and the like, which always go.
	Remove []string `json:"remove,omitempty"`
	// Cookies hardens the cookies that answers set. Default: they stay as they are.
	Cookies *headers.Cookies `json:"cookies,omitempty"`
	// Cache is the Cache-Control of answers that name none: no-store, private or off.
	// With the preset html it is for answers to known callers. Default: no-store.
	Cache string `json:"cache,omitempty"`
	// HSTS changes Strict-Transport-Security. Default: two years, without subdomains
	// and preload.
	HSTS *HSTS `json:"hsts,omitempty"`
	// CSP replaces single directives of the preset's Content-Security-Policy.
	CSP []headers.Directive `json:"csp,omitempty"`
	// ReportOnly sends the policy as Content-Security-Policy-Report-Only.
	ReportOnly bool `json:"report_only,omitempty"`
	// InsecureUnsafeCSP allows sources that undo the policy, such as
	// 'unsafe-inline'. Default: such a source is an error.
	InsecureUnsafeCSP bool `json:"insecure_unsafe_csp,omitempty"`
}

// HSTS is what Strict-Transport-Security says.
type HSTS struct {
	// MaxAge is how long browsers insist on TLS, in whole seconds. Default: 730d.
	MaxAge caddy.Duration `json:"max_age,omitempty"`
	// Subdomains extends it to every subdomain, also those that are not served here.
	Subdomains bool `json:"subdomains,omitempty"`
	// Preload consents to the browsers' built-in list. It needs subdomains and a year.
	Preload bool `json:"preload,omitempty"`
}

// Path is a part of a site. What it does not say is as the site's settings say,
// unless it names a preset: then it begins with that preset alone.
type Path struct {
	// Pattern of the path, as in a rule. Of several that match, the most specific
	// counts.
	Pattern string `json:"pattern"`
	Settings
	// Place is where it stands, for error texts only.
	Place string `json:"place,omitempty"`
}

// on puts a part's settings on those of the site.
func (p *Path) on(site Settings) Settings {
	if p.Preset != "" {
		return p.Settings
	}
	s := p.Settings
	s.Preset = site.Preset
	s.CSP = overlay(site.CSP, s.CSP)
	// A header that the part treats in one way is not treated in another any more.
	own := slices.Concat(p.Keep, p.Merge, p.Remove)
	for _, f := range p.Set {
		own = append(own, f.Name)
	}
	set := slices.DeleteFunc(slices.Clone(site.Set), func(f headers.Field) bool { return names(own, f.Name) })
	s.Set = append(set, p.Set...)
	without := func(list []string) []string {
		return slices.DeleteFunc(slices.Clone(list), func(n string) bool { return names(own, n) })
	}
	s.Keep = append(without(site.Keep), p.Keep...)
	s.Merge = append(without(site.Merge), p.Merge...)
	s.Remove = append(without(site.Remove), p.Remove...)
	s.Cookies, s.HSTS, s.Cache = cmp.Or(s.Cookies, site.Cookies), cmp.Or(s.HSTS, site.HSTS), cmp.Or(s.Cache, site.Cache)
	s.ReportOnly = s.ReportOnly || site.ReportOnly
	s.InsecureUnsafeCSP = s.InsecureUnsafeCSP || site.InsecureUnsafeCSP
	return s
}

// names reports whether a header is in a list, in whatever spelling.
func names(list []string, header string) bool {
	return slices.ContainsFunc(list, func(n string) bool {
		return http.CanonicalHeaderKey(n) == http.CanonicalHeaderKey(header)
	})
}

// overlay returns a policy with the lines of another in the place of those of the
// same name; the others follow.
func overlay(base, top []headers.Directive) []headers.Directive {
	out := slices.Clone(base)
	for _, line := range top {
		if i := slices.IndexFunc(out, func(b headers.Directive) bool { return b.Name == line.Name }); i >= 0 {
			out[i] = line
			continue
		}
		out = append(out, line)
	}
	return out
}

// compile makes the policy of the settings.
func (s *Settings) compile() (*headers.Policy, error) {
	set, err := s.expand()
	if err != nil {
		return nil, err
	}
	config := headers.Config{
		Preset:        s.Preset,
		Set:           set,
		Keep:          s.Keep,
		Merge:         s.Merge,
		Remove:        s.Remove,
		Cache:         s.Cache,
		CSP:           s.CSP,
		CSPReportOnly: s.ReportOnly,
		InsecureCSP:   s.InsecureUnsafeCSP,
	}
	if s.Cookies != nil {
		config.Cookies = *s.Cookies
	}
	if s.HSTS != nil {
		config.HSTSMaxAge, config.HSTSSubdomains, config.HSTSPreload = time.Duration(s.HSTS.MaxAge), s.HSTS.Subdomains, s.HSTS.Preload
	}
	return headers.New(config)
}

// expand replaces placeholders in the values that are set.
func (s *Settings) expand() ([]headers.Field, error) {
	set := slices.Clone(s.Set)
	var errs []error
	for i, field := range set {
		value, err := dispense.Expand(fmt.Sprintf("headers: set %s at %s", field.Name, field.Place), field.Value)
		set[i].Value = value
		errs = append(errs, err)
	}
	return set, errors.Join(errs...)
}
