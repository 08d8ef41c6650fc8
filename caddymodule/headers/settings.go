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
	// Enforce enforces the policy of a part of a site whose own is on trial.
	Enforce bool `json:"enforce,omitempty"`
	// Inline brings inline code of pages from the upstream under the policy: "nonce"
	// gives each script and style of a page a nonce of the answer, "hash" puts their
	// hashes into the policy (for static pages), "pin" gives the nonce to those only
	// that stand in a file of hashes. It needs the transport moat. Default: inline code
	// does not run.
	Inline string `json:"inline,omitempty"`
	// Pins is the file of hashes for pin.
	Pins string `json:"pins,omitempty"`
	// PinsSum is the SHA-256 of the file when the configuration was made from a
	// Caddyfile, in hex. Nothing is checked against it: it makes another configuration
	// of a changed file, so that a reload is none of nothing.
	PinsSum string `json:"pins_sum,omitempty"`
	// Learn gives everything the nonce and adds its hash to the file: for a while in
	// which the application is known to be as it should. Default: false.
	Learn bool `json:"learn,omitempty"`
	// MaxInline is the longest inline script or style in bytes that can be pinned, and
	// the longest page that can be hashed. Default: 262144 for pin, 4194304 for hash; at
	// most 4194304.
	MaxInline int64 `json:"max_inline,omitempty"`
	// Report opens a collector at this path, which needs no token and is limited, and
	// asks browsers to report violations to it. Default: nothing is reported.
	Report string `json:"report,omitempty"`
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
	s := p.Settings
	// Browsers keep one value for a host, whatever the path: the last they have seen.
	s.HSTS = site.HSTS
	if p.Preset != "" {
		for _, f := range site.Set {
			if names([]string{nameHSTS}, f.Name) {
				s.Set = append(slices.Clone(s.Set), f)
			}
		}
		return s
	}
	s.Preset = site.Preset
	s.CSP = overlay(site.CSP, s.CSP)
	// A header that the part treats in one way is not treated in another any more; what
	// is kept or merged still has the site's value as ours.
	own := slices.Clone(p.Remove)
	for _, f := range p.Set {
		own = append(own, f.Name)
	}
	set := slices.DeleteFunc(slices.Clone(site.Set), func(f headers.Field) bool { return names(own, f.Name) })
	s.Set = append(set, p.Set...)
	if names(own, "Content-Security-Policy") {
		s.CSP = p.CSP // the whole policy stands in the place of the site's lines
	}
	own = slices.Concat(own, p.Keep, p.Merge)
	without := func(list []string) []string {
		return slices.DeleteFunc(slices.Clone(list), func(n string) bool { return names(own, n) })
	}
	s.Keep = append(without(site.Keep), p.Keep...)
	s.Merge = append(without(site.Merge), p.Merge...)
	s.Remove = append(without(site.Remove), p.Remove...)
	s.Cookies, s.Cache = cmp.Or(s.Cookies, site.Cookies), cmp.Or(s.Cache, site.Cache)
	s.Report = cmp.Or(s.Report, site.Report)
	if s.Inline == "" {
		s.Inline, s.Pins, s.PinsSum, s.Learn, s.MaxInline = site.Inline, site.Pins, site.PinsSum, site.Learn, site.MaxInline
	}
	s.ReportOnly = s.ReportOnly || site.ReportOnly && !s.Enforce
	s.InsecureUnsafeCSP = s.InsecureUnsafeCSP || site.InsecureUnsafeCSP
	return s
}

const nameHSTS = "Strict-Transport-Security"

// check refuses what a part may not say, and dangerous sources of its own: that the
// site's policy may have some says nothing of others.
func (p *Path) check() error {
	var errs []error
	said := slices.Concat(p.Keep, p.Remove)
	for _, f := range p.Set {
		said = append(said, f.Name)
	}
	if p.HSTS != nil || names(said, nameHSTS) {
		errs = append(errs, fmt.Errorf("headers: %s is the site's: browsers keep one value for a host, whatever the path", nameHSTS))
	}
	if len(p.CSP) > 0 && !p.InsecureUnsafeCSP {
		_, err := headers.New(headers.Config{Preset: p.Preset, CSP: p.CSP, CSPReportOnly: true})
		errs = append(errs, err)
	}
	return errors.Join(errs...)
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
		Report:        s.Report,
		InlineCode:    s.Inline != "",
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
