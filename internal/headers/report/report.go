// Package report knows what browsers report about a content security policy:
// how a report is read, how many of the same are told once, and which policy
// would allow what was seen. It knows nothing of requests, of where reports
// are kept, or of the headers that ask for them.
//
// Anybody may post anything to a collector of reports, so nothing in one is
// believed or kept but what a policy could say: no query, no fragment, no
// sample, no referrer, no user agent.
package report

import "strings"

// Other is the label of a directive that is none of CSP Level 3.
const Other = "other"

// Kind says what was blocked, in one of eight words. It is fit for a metric.
type Kind string

// The kinds.
const (
	KindInline    Kind = "inline"
	KindEval      Kind = "eval"
	KindData      Kind = "data"
	KindBlob      Kind = "blob"
	KindSelf      Kind = "self"
	KindOrigin    Kind = "other-origin"
	KindExtension Kind = "extension"
	KindUnknown   Kind = "unknown"
)

// What stands in Violation.Blocked where a report names no address.
const (
	blockedInline = "inline"
	blockedEval   = "eval"
	blockedWasm   = "wasm-eval"
	blockedSink   = "trusted-types-sink"
	blockedPolicy = "trusted-types-policy"
	self          = "'self'"
)

// Violation is one report, reduced to what a policy could say about it.
type Violation struct {
	// Directive is the effective directive, or Other.
	Directive string
	// Blocked is a source expression ('self', data:, https://cdn.example.com)
	// or one of the words inline, eval, wasm-eval, trusted-types-sink and
	// trusted-types-policy. It is empty when the report names nothing that a
	// policy could allow.
	Blocked string
	// Kind is the kind of what was blocked.
	Kind Kind
	// Document is the path of the page, escaped, without its query. It is cut
	// after 256 bytes at a slash. It is empty where the page's path is not in
	// canonical form.
	Document string
	// Disposition is "enforce", "report" or, from old browsers, empty.
	Disposition string
	// Source is where the code stands that asked for it: a path of the own
	// origin or another origin. Empty when the report does not say.
	Source string
	// Line is the line in Source, 0 when the report does not say.
	Line int
	// Noise is true for what no page of ours asked for: extensions of the
	// browser, its own pages, and what is known to be injected on the way.
	Noise bool
}

// Key is what makes two violations equal.
type Key struct {
	Directive, Blocked, Document, Disposition string
	Noise                                     bool
}

// Key returns what the violation is counted under. Where in the page the code
// stands is not part of it.
func (v Violation) Key() Key {
	return Key{v.Directive, v.Blocked, v.Document, v.Disposition, v.Noise}
}

// chains are the directives whose value is a list of sources, each with the
// directives that are asked in its place when it is missing, nearest first (CSP
// Level 3 section 6.8.3; fenced-frame-src: Fenced Frame).
var chains = map[string][]string{
	"default-src":      {},
	"script-src":       {"default-src"},
	"script-src-elem":  {"script-src", "default-src"},
	"script-src-attr":  {"script-src", "default-src"},
	"style-src":        {"default-src"},
	"style-src-elem":   {"style-src", "default-src"},
	"style-src-attr":   {"style-src", "default-src"},
	"img-src":          {"default-src"},
	"font-src":         {"default-src"},
	"connect-src":      {"default-src"},
	"media-src":        {"default-src"},
	"object-src":       {"default-src"},
	"manifest-src":     {"default-src"},
	"prefetch-src":     {"default-src"},
	"child-src":        {"default-src"},
	"frame-src":        {"child-src", "default-src"},
	"fenced-frame-src": {"frame-src", "child-src", "default-src"},
	"worker-src":       {"child-src", "script-src", "default-src"},
	"base-uri":         {},
	"form-action":      {},
	"frame-ancestors":  {},
}

// sourceless are the directives that can be violated and list no sources.
var sourceless = map[string]bool{
	"sandbox": true, "trusted-types": true, "require-trusted-types-for": true, "webrtc": true,
	"upgrade-insecure-requests": true, "block-all-mixed-content": true,
}

// directive returns the known name that a report begins with, or Other. In CSP
// Level 2 the whole text of the directive follows the name.
func directive(effective, violated string) string {
	text := effective
	if text == "" {
		text = violated
	}
	name, _, _ := strings.Cut(strings.TrimLeft(text, " "), " ")
	name = strings.ToLower(name)
	if _, ok := chains[name]; ok || sourceless[name] {
		return name
	}
	return Other
}
