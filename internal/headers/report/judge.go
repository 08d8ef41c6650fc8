package report

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/moat-gateway/moat/internal/headers"
)

// judge says why s gets no source, or nothing when it gets one.
func (p *proposer) judge(s subject, t *tally) (Reason, string) {
	_, listed := chains[s.directive]
	switch {
	case s.noise:
		return ReasonNoise, "no page of the site asked for it"
	case t.count < p.o.MinCount:
		return ReasonRare, fmt.Sprintf("it was seen fewer than %d times", p.o.MinCount)
	case !listed:
		return ReasonUnnamed, "the directive lists no sources"
	case s.blocked == blockedInline:
		return judgeInline(s.directive)
	case s.blocked == blockedEval:
		return ReasonEval, "code made from text (eval, new Function, timers given text) needs 'unsafe-eval', " +
			"which insecure_unsafe_csp must permit"
	case s.blocked == blockedWasm:
		return ReasonEval, "compiling WebAssembly needs 'wasm-unsafe-eval' in script-src"
	default:
		return p.judgeSource(s)
	}
}

// judgeInline says what would allow inline code.
func judgeInline(directive string) (Reason, string) {
	switch directive {
	case "script-src-attr":
		return ReasonAttribute, "event handlers in attributes (onclick=…) are covered by neither `nonce` nor `hash`; " +
			"move them into a script with addEventListener"
	case "style-src-attr":
		return ReasonAttribute, "style attributes (style=…) are covered by neither `nonce` nor `hash`; move them into a style sheet"
	case "script-src", "script-src-elem", "style-src", "style-src-elem", "default-src":
		return ReasonInline, "inline code needs the word `nonce` or `hash` in the csp block (`pin` holds on to what is there now); " +
			"beside them only the insecure 'unsafe-inline' would do"
	default:
		return ReasonUnnamed, "the directive knows no inline code"
	}
}

// judgeSource judges something that may be named by a source.
func (p *proposer) judgeSource(s subject) (Reason, string) {
	if why := p.unnamed(s.directive, s.blocked); why != "" {
		return ReasonUnnamed, why
	}
	force := inForce(p.current, s.directive)
	switch {
	case force == nil:
		return ReasonAllowed, "the current policy does not restrict it"
	case s.directive == "child-src" && p.workersFollowScripts():
		return ReasonUnnamed, "an old browser says child-src of a frame and of a worker, and a new child-src would also " +
			"govern workers, which follow script-src now; write frame-src or worker-src, whichever it was"
	case strings.HasSuffix(s.directive, "-attr"):
		return ReasonIneffective, "the directive is about attributes, which have no address"
	case hostsIgnored(s.directive, force):
		return ReasonIneffective, "'strict-dynamic' makes browsers ignore every address; give the script that loads it the nonce"
	case p.allowed(force, s.blocked):
		return ReasonAllowed, "the current policy allows it"
	}
	if _, err := headers.New(headers.Config{CSP: headers.CSP{{Name: s.directive, Sources: []string{s.blocked}}}}); err != nil {
		return ReasonUnsafe, strings.TrimPrefix(err.Error(), "headers: ")
	}
	return "", ""
}

// unnamed says why what was blocked is no source that could be added. The
// evidence may come from anywhere, so its form is checked again.
func (p *proposer) unnamed(directive, blocked string) string {
	scheme, isScheme := strings.CutSuffix(blocked, ":")
	switch {
	case blocked == blockedSink, blocked == blockedPolicy:
		return "it is a matter of trusted types, not of sources"
	case directive == "frame-ancestors" && blocked == self:
		// By the specification the address is the page's own; who framed it
		// stays secret.
		return "the report names the page that was framed, not the one that framed it"
	case blocked == self, blocked == "data:", blocked == "blob:":
		return ""
	case isScheme && defaultPorts[scheme] != "":
		return "the browser told the scheme and kept the host secret"
	case !strings.Contains(blocked, "://"):
		return "the report does not name what a policy could allow"
	}
	e := expressionOf(blocked)
	if c, err := headers.ParseCSP("img-src " + blocked); err != nil || len(c) != 1 || len(c[0].Sources) != 1 {
		return "it is no source"
	}
	if _, err := netip.ParseAddr(e.host); err == nil && e.host != "127.0.0.1" {
		return "a policy can name no IP address but 127.0.0.1 (CSP Level 3 section 6.7.2.10); give the service a name"
	}
	domain, wild := strings.CutPrefix(e.host, "*.")
	if defaultPorts[e.scheme] == "" || !isHost(domain) || !isPort(e.port) || wild && !slices.Contains(p.o.Wildcards, domain) {
		return "it is no address of the web"
	}
	return ""
}

// workersFollowScripts reports whether workers would lose what script-src allows
// them if there were a child-src.
func (p *proposer) workersFollowScripts() bool {
	return inForce(p.current, "worker-src").Name == "script-src"
}

// hostsIgnored reports whether browsers look past the addresses of the
// directive in force.
func hostsIgnored(directive string, force *headers.Directive) bool {
	script := directive == "script-src" || directive == "script-src-elem" ||
		directive == "worker-src" && force.Name == "script-src"
	return script && slices.Contains(force.Sources, "'strict-dynamic'")
}

// allowed reports whether a directive allows what was blocked.
func (p *proposer) allowed(d *headers.Directive, blocked string) bool {
	seen := expressionOf(blocked)
	return slices.ContainsFunc(d.Sources, func(s string) bool { return expressionOf(s).covers(seen, p.own) })
}
