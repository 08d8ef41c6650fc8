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

// buildCSP resolves the content security policy.
func (b *builder) buildCSP() {
	own, err := normalizeAll(b.cfg.CSP)
	if err != nil {
		b.errs = append(b.errs, err)
	}
	b.own, b.csp = own, b.preset.csp.with(own)
	if b.cfg.InlineCode {
		defer func() { b.csp = b.csp.withLists() }()
	}
	defer b.report()
	if whole, ok := b.set[nameCSP]; ok {
		b.wholeCSP(whole)
	}
	if trial, ok := b.set[nameCSPReport]; ok {
		if b.cfg.CSPReportOnly {
			b.failf("%sset %s: the policy is already sent in that header because of report_only", before(trial.Place), nameCSPReport)
		}
		trial.Value = b.parse(trial).String()
		b.set[nameCSPReport] = trial
	}
	if b.cfg.InsecureCSP {
		return
	}
	for _, d := range b.own {
		for _, s := range d.Sources {
			if why := danger(d.Name, s); why != "" {
				b.errs = append(b.errs, d.errorf("source %q: %s; %s", s, why, ifMeant))
			}
		}
	}
}

// reportEndpoint is the name of the place for reports.
const reportEndpoint = "moat-csp"

// report adds where violations are reported, by the old directive and by the new one.
func (b *builder) report() {
	if b.cfg.Report == "" {
		return
	}
	if path := b.cfg.Report; !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//") || !only(path, "/-._~") {
		b.failf("csp: report %q: must be a path of letters, digits, / - . _ ~", clip(path))
		return
	}
	for _, name := range []string{"report-uri", "report-to"} {
		if d := b.csp.find(name); d != nil {
			b.errs = append(b.errs, d.errorf("stands beside report %s, which sets it", b.cfg.Report))
			return
		}
	}
	b.csp = append(slices.Clone(b.csp),
		Directive{Name: "report-uri", Sources: []string{b.cfg.Report}}, Directive{Name: "report-to", Sources: []string{reportEndpoint}})
	if _, set := b.set[nameEndpoints]; set {
		b.failf("set %s: stands beside report %s, which sets it", nameEndpoints, b.cfg.Report)
		return
	}
	b.preset.fields = append(b.preset.fields, Field{Name: nameEndpoints, Value: reportEndpoint + `="` + b.cfg.Report + `"`})
}

const ifMeant = "if that is meant, write insecure_unsafe_csp"

// wholeCSP takes the policy from one value in place of the preset's.
func (b *builder) wholeCSP(f Field) {
	if len(b.cfg.CSP) > 0 {
		b.failf("%sset %s: give the whole policy here or single directives in csp, not both", before(f.Place), nameCSP)
	}
	csp := b.parse(f)
	if len(csp) > 0 && !b.cfg.InsecureCSP && csp.find("default-src") == nil && csp.find("script-src") == nil {
		b.failf("%sset %s: names neither default-src nor script-src, so code may come from anywhere; %s", before(f.Place), nameCSP, ifMeant)
	}
	b.own, b.csp, b.preset.upgrade = csp, csp, false
}

// parse reads a policy given as one value.
func (b *builder) parse(f Field) CSP {
	csp, err := ParseCSP(f.Value)
	if err != nil {
		b.failf("%sset %s: %w", before(f.Place), f.Name, err)
	}
	return csp
}

// agreeOnFrames makes X-Frame-Options and frame-ancestors say the same. A
// browser that knows frame-ancestors ignores X-Frame-Options (CSP Level 3
// section 6.4.2.1), so a stricter X-Frame-Options beside it would be an empty
// promise. In a trial nothing follows: X-Frame-Options is what is enforced.
func (b *builder) agreeOnFrames() {
	if b.cfg.CSPReportOnly {
		return
	}
	options, said := b.set[nameFrame]
	if said && problem(nameFrame, options.Value) != "" {
		return // said already
	}
	ancestors := b.own.find("frame-ancestors")
	switch {
	case said && ancestors != nil:
		if want := frameOptions(ancestors.Sources); !strings.EqualFold(options.Value, want) {
			b.failf("%sset %s: value %q contradicts frame-ancestors %s, which browsers obey instead; "+
				"set it to %s, or leave one of the two out and it follows the other",
				before(options.Place), nameFrame, clip(options.Value), strings.Join(ancestors.Sources, " "), want)
		}
	case said && b.csp.find("frame-ancestors") != nil:
		source := "'self'"
		if strings.EqualFold(options.Value, "DENY") {
			source = "'none'"
		}
		b.csp = b.csp.with(CSP{{Name: "frame-ancestors", Sources: []string{source}}})
	case ancestors != nil:
		for i := range b.preset.fields {
			if b.preset.fields[i].Name == nameFrame {
				b.preset.fields[i].Value = frameOptions(ancestors.Sources)
			}
		}
	}
}

// frameOptions is the nearest that X-Frame-Options can say and that is never
// wider than the given frame-ancestors.
func frameOptions(ancestors []string) string {
	for _, s := range ancestors {
		if s == "'self'" || anyHost(s) {
			return "SAMEORIGIN"
		}
	}
	return "DENY"
}

// policy puts the headers in order and applies Keep and Remove.
func (b *builder) policy() *Policy {
	csp := b.cspRule()
	b.rules = append(b.rules, csp, b.hstsRule())
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

func (b *builder) cspRule() rule {
	r := rule{name: nameCSP, value: b.csp.String()}
	r.plain = r.value
	const upgrade = "upgrade-insecure-requests"
	tail := ""
	// Upgrading is an action, which a trial does not take.
	if b.preset.upgrade && b.csp.find(upgrade) == nil && !b.cfg.CSPReportOnly {
		tail = "; " + upgrade
	}
	r.value += tail
	if b.cfg.CSPReportOnly {
		r.name = nameCSPReport
	}
	if b.cfg.InlineCode {
		code, plain := b.csp.pointed(tail), b.csp.pointed("")
		r.code, r.plainCode = &code, &plain
	}
	return r
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
		case i < 0:
			b.failf("keep %q: is no header of this policy, so the upstream's value is not touched; leave it out", written)
		case b.rules[i].mode == replace:
			b.rules[i].mode = keep
		}
		seen[name] = true
	}
}

// checkInline refuses what would make the answer's sources mean nothing.
func (b *builder) checkInline() {
	if !b.cfg.InlineCode {
		return
	}
	if r := b.rules[0]; r.mode != replace {
		b.failf("csp: nonce, hash and pin: %s is kept or merged, so the upstream's policy would block what they allow", r.name)
	}
	if len(b.rules[0].code.points) == 0 {
		b.failf("csp: nonce, hash and pin: every list for scripts and styles has 'unsafe-inline', or there is none; a nonce beside it would take it back")
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
