package headers

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// builder turns a Config into a Policy and collects what is wrong with it.
type builder struct {
	cfg    Config
	preset preset
	set    map[string]Field // by canonical name
	order  []string         // canonical names of Set as written
	own    CSP              // the directives that the configuration gives
	csp    CSP              // the resolved policy
	rules  []rule
	errs   []error
	// endpoints is the value of Reporting-Endpoints, empty when nobody is to report.
	endpoints string
}

func (b *builder) failf(format string, args ...any) {
	b.errs = append(b.errs, fmt.Errorf(format, args...))
}

// canonical returns a name's canonical form, or why it is none.
func canonical(name string) (canonical, problem string) {
	switch {
	case name == "":
		return "", "is empty"
	case len(name) > 128:
		return "", "is longer than 128 bytes"
	case !only(name, "!#$%&'*+-.^_`|~"):
		return "", "is not a header name"
	default:
		return http.CanonicalHeaderKey(name), ""
	}
}

// readSet checks the values that the configuration sets.
func (b *builder) readSet() {
	if len(b.cfg.Set) > maxNames {
		b.failf("set: %d headers: at most %d are allowed", len(b.cfg.Set), maxNames)
		return
	}
	for _, f := range b.cfg.Set {
		what := fmt.Sprintf("%sset %q", before(f.Place), clip(f.Name))
		name, why := canonical(f.Name)
		if why != "" {
			b.failf("%s: the name %s", what, why)
			continue
		}
		if first, twice := b.set[name]; twice {
			b.failf("%s: is set twice%s", what, at(first.Place))
			continue
		}
		f.Name, f.Value = name, strings.TrimSpace(f.Value)
		b.set[name] = f
		b.order = append(b.order, name)
		b.checkSet(what, f)
	}
}

// checkSet checks one header's value. The two that hold a policy are read later.
func (b *builder) checkSet(what string, f Field) {
	if _, single := ownWords[f.Name]; single {
		b.failf("%s: each answer has a value of its own", what)
		return
	}
	if f.Name == nameCSP || f.Name == nameCSPReport {
		return
	}
	if why := problem(f.Name, f.Value); why != "" {
		b.failf("%s: value %q: %s", what, clip(f.Value), why)
		return
	}
	if f.Name == nameHSTS {
		b.checkPreload(what, f.Value)
	}
}

// policy puts the headers in order and applies Keep and Remove.
func (b *builder) policy() *Policy {
	csp := b.cspRule()
	b.rules = append(b.rules, csp, b.hstsRule())
	if b.endpoints != "" {
		b.rules = append(b.rules, rule{name: nameEndpoints, value: b.endpoints})
	}
	for _, f := range b.preset.fields {
		b.add(f)
	}
	b.cacheRule()
	for _, name := range b.order {
		if name != nameCSP && name != nameHSTS {
			b.add(b.set[name])
		}
	}
	b.keep()
	b.merge()
	b.checkCookies()
	b.checkInline()
	p := &Policy{rules: b.rules, csp: csp.value, cookies: b.cfg.Cookies, inline: b.cfg.InlineCode, owned: make(map[string]bool)}
	p.removed = b.remove()
	for _, r := range p.rules {
		p.owned[r.name] = true
	}
	for _, name := range p.removed {
		p.owned[name] = true
	}
	if p.cookies.active() {
		p.owned[nameCookie] = true
	}
	return p
}

// cacheRule fills in Cache-Control.
func (b *builder) cacheRule() {
	value := b.preset.cache
	switch b.cfg.Cache {
	case "":
	case "no-store", "private":
		value = b.cfg.Cache
	case "off":
		return
	default:
		b.failf("cache %q: must be no-store, private or off", clip(b.cfg.Cache))
	}
	b.rules = append(b.rules, rule{name: nameCache, value: value, plain: value, mode: fill, callers: b.preset.callers})
}

// add appends a header that always replaces, or replaces the rule of its name.
func (b *builder) add(f Field) {
	r := rule{name: f.Name, value: f.Value, plain: f.Value}
	if i := b.index(f.Name); i >= 0 {
		b.rules[i] = r
		return
	}
	b.rules = append(b.rules, r)
}

func (b *builder) index(name string) int {
	return slices.IndexFunc(b.rules, func(r rule) bool { return r.name == name })
}

// hstsRule makes Strict-Transport-Security, which has no plain value.
func (b *builder) hstsRule() rule {
	age, subdomains, preload := b.cfg.HSTSMaxAge, b.cfg.HSTSSubdomains, b.cfg.HSTSPreload
	if f, ok := b.set[nameHSTS]; ok {
		if age != 0 || subdomains || preload {
			b.failf("%sset %s: give the whole value here or the single HSTS settings, not both", before(f.Place), nameHSTS)
		}
		return rule{name: nameHSTS, value: f.Value}
	}
	if age == 0 {
		age = defaultHSTS
	}
	if age < time.Second || age > maxHSTS || age%time.Second != 0 {
		b.failf("hsts max age %s: must be whole seconds, from 1s to %s", age, maxHSTS)
	}
	value := fmt.Sprintf("max-age=%d", int64(age/time.Second))
	if subdomains {
		value += "; includeSubDomains"
	}
	if preload {
		value += "; preload"
	}
	if preload {
		b.checkPreload("hsts preload", value)
	}
	return rule{name: nameHSTS, value: value}
}

// checkPreload holds a value to the preload list's conditions. An upstream's
// value is not held to them, for browsers obey it all the same.
func (b *builder) checkPreload(what, value string) {
	h, why := parseHSTS(value)
	if why == "" && h.preload && (!h.subdomains || h.seconds < minPreload) {
		b.failf("%s: value %q: preload needs the subdomains and a max age of at least one year", what, clip(value))
	}
}

// keep marks the headers for which the upstream's value wins.
func (b *builder) keep() {
	if len(b.cfg.Keep) > maxNames {
		b.failf("keep: %d headers: at most %d are allowed", len(b.cfg.Keep), maxNames)
		return
	}
	seen := make(map[string]bool)
	for _, written := range b.cfg.Keep {
		name, why := canonical(written)
		if b.cfg.CSPReportOnly && name == nameCSP {
			name = nameCSPReport // what the upstream enforces stays anyway
		}
		i := b.index(name)
		switch {
		case why != "":
			b.failf("keep %q: the name %s", clip(written), why)
		case seen[name]:
			b.failf("keep %q: is named twice", written)
		case name == nameEndpoints && b.endpoints != "":
			b.failf("keep %q: stands beside report %s, which sets it", written, b.cfg.Report)
		case i < 0:
			b.failf("keep %q: is no header of this policy, so the upstream's value is not touched; leave it out", written)
		case b.rules[i].mode == replace:
			b.rules[i].mode = keep
		}
		seen[name] = true
	}
}

// merge marks the headers that are sent beside the upstream's.
func (b *builder) merge() {
	if len(b.cfg.Merge) > maxNames {
		b.failf("merge: %d headers: at most %d are allowed", len(b.cfg.Merge), maxNames)
		return
	}
	for _, written := range b.cfg.Merge {
		name, why := canonical(written)
		if b.cfg.CSPReportOnly && name == nameCSP {
			name = nameCSPReport // what the upstream enforces stays anyway
		}
		i := b.index(name)
		switch {
		case why != "":
			b.failf("merge %q: the name %s", clip(written), why)
		case name != nameCSP && name != nameCSPReport:
			b.failf("merge %q: two values would mean what each browser makes of them; only %s can be merged", clip(written), nameCSP)
		case i < 0:
			b.failf("merge %q: is no header of this policy, so the upstream's value is not touched; leave it out", written)
		case b.rules[i].mode == keep:
			b.failf("merge %q: is also kept; it is either the upstream's value that counts or both", written)
		case b.rules[i].mode == merge:
			b.failf("merge %q: is named twice", written)
		default:
			b.rules[i].mode = merge
		}
	}
}

// checkCookies checks what cookies must have.
func (b *builder) checkCookies() {
	c := &b.cfg.Cookies
	if c.SameSite != "" && sameSites[c.SameSite] == "" {
		b.failf("cookies: samesite %q: must be lax or strict", clip(c.SameSite))
	}
	if len(c.Except) > 0 && !c.active() {
		b.failf("cookies: except: says nothing without secure, httponly or samesite")
	}
	if len(c.Except) > maxNames {
		b.failf("cookies: except: %d cookies: at most %d are allowed", len(c.Except), maxNames)
		return
	}
	for i, name := range c.Except {
		switch {
		case name == "" || !only(name, "!#$%&'*+-.^_`|~"):
			b.failf("cookies: except %q: is no name of a cookie", clip(name))
		case slices.Contains(c.Except[:i], name):
			b.failf("cookies: except %q: is named twice", name)
		}
	}
}

// remove returns the canonical names of the headers to take off.
func (b *builder) remove() []string {
	if len(b.cfg.Remove) > maxNames {
		b.failf("remove: %d headers: at most %d are allowed", len(b.cfg.Remove), maxNames)
		return nil
	}
	var names []string
	for _, name := range alwaysRemoved {
		if name = http.CanonicalHeaderKey(name); b.index(name) < 0 {
			names = append(names, name)
		}
	}
	for _, written := range b.cfg.Remove {
		name, why := canonical(written)
		switch {
		case why != "":
			b.failf("remove %q: the name %s", clip(written), why)
		case ownWords[name]:
			b.failf("remove %q: the answer would not be understood without it", written)
		case b.index(name) >= 0:
			b.failf("remove %q: is a header of this policy; set it to another value, or keep the upstream's", written)
		case !slices.Contains(names, name):
			names = append(names, name)
		}
	}
	return names
}
