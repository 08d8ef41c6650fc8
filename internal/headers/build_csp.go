package headers

import (
	"slices"
	"strings"
)

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

// report adds where violations are reported. The old directive goes everywhere; the
// new one and its header go over TLS only: Chromium prefers it to the old one also on
// plain pages, where it then sends nothing (Reporting API section 3.3, which takes
// endpoints of secure origins only).
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
	b.csp = append(slices.Clone(b.csp), Directive{Name: "report-uri", Sources: []string{b.cfg.Report}})
	if _, set := b.set[nameEndpoints]; set {
		b.failf("set %s: stands beside report %s, which sets it", nameEndpoints, b.cfg.Report)
		return
	}
	b.endpoints = reportEndpoint + `="` + b.cfg.Report + `"`
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

func (b *builder) cspRule() rule {
	r := rule{name: nameCSP, value: b.csp.String()}
	r.plain = r.value
	const upgrade = "upgrade-insecure-requests"
	tail := ""
	// Upgrading is an action, which a trial does not take.
	if b.preset.upgrade && b.csp.find(upgrade) == nil && !b.cfg.CSPReportOnly {
		tail = "; " + upgrade
	}
	if b.endpoints != "" {
		tail += "; report-to " + reportEndpoint
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
