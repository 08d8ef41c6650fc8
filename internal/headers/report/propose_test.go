package report_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/headers"
	"github.com/moat-gateway/moat/internal/headers/report"
)

func csp(t *testing.T, text string) headers.CSP {
	t.Helper()
	c, err := headers.ParseCSP(text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// seen is evidence of ten reports about one page.
func seen(directive, blocked string) report.Evidence {
	return report.Evidence{Violation: report.Violation{Directive: directive, Blocked: blocked, Document: "/"}, Count: 10}
}

func propose(t *testing.T, current string, o report.Options, evidence ...report.Evidence) report.Proposal {
	t.Helper()
	p, err := report.Propose(evidence, csp(t, current), o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestASourceGoesIntoTheNarrowestDirective(t *testing.T) {
	const cdn = "https://cdn.example.net"
	for _, row := range []struct{ name, current, directive, blocked, want string }{
		{"the directive stands", "img-src 'self'", "img-src", cdn, "img-src 'self' " + cdn},
		{"a new one copies default-src", "default-src 'self' data:", "font-src", cdn,
			"default-src 'self' data:; font-src 'self' data: " + cdn},
		{"'none' gives way", "default-src 'none'", "img-src", "'self'", "default-src 'none'; img-src 'self'"},
		{"'none' gives way in place", "img-src 'none'", "img-src", "data:", "img-src data:"},
		{"a part goes into its whole", "default-src 'none'; script-src 'self'", "script-src-elem", cdn,
			"default-src 'none'; script-src 'self' " + cdn},
		{"a part that stands gets it", "script-src 'none'; script-src-elem 'self'", "script-src-elem", cdn,
			"script-src 'none'; script-src-elem 'self' " + cdn},
		{"a part without its whole is new", "default-src 'self'", "script-src-elem", cdn,
			"default-src 'self'; script-src-elem 'self' " + cdn},
		{"a frame copies child-src", "default-src 'none'; child-src 'self'", "frame-src", cdn,
			"default-src 'none'; child-src 'self'; frame-src 'self' " + cdn},
		{"a fenced frame copies frame-src", "child-src 'none'; frame-src 'self'", "fenced-frame-src", cdn,
			"child-src 'none'; frame-src 'self'; fenced-frame-src 'self' " + cdn},
		{"a worker copies child-src", "default-src 'none'; script-src 'self'; child-src data:", "worker-src", "blob:",
			"default-src 'none'; script-src 'self'; child-src data:; worker-src data: blob:"},
		{"a worker copies script-src", "default-src 'none'; script-src 'self'", "worker-src", "blob:",
			"default-src 'none'; script-src 'self'; worker-src 'self' blob:"},
		{"what is fetched ahead goes into default-src", "default-src 'self'", "default-src", cdn, "default-src 'self' " + cdn},
		{"no fallback: form-action", "default-src 'none'; form-action 'self'", "form-action", cdn,
			"default-src 'none'; form-action 'self' " + cdn},
		{"no fallback: base-uri", "base-uri 'none'", "base-uri", "'self'", "base-uri 'self'"},
		{"no fallback: frame-ancestors", "frame-ancestors 'self'", "frame-ancestors", cdn, "frame-ancestors 'self' " + cdn},
		{"a worker is none of strict-dynamic's under default-src", "default-src 'strict-dynamic' 'nonce-YWJj'", "worker-src", "blob:",
			"default-src 'strict-dynamic' 'nonce-YWJj'; worker-src 'strict-dynamic' 'nonce-YWJj' blob:"},
		{"the loopback address", "img-src 'self'", "img-src", "https://127.0.0.1", "img-src 'self' https://127.0.0.1"},
		{"a port is kept", "img-src 'self'", "img-src", cdn + ":8443", "img-src 'self' " + cdn + ":8443"},
		{"a path is not", "img-src 'self'", "img-src", cdn + "/a.png", "img-src 'self' " + cdn},
		{"a scheme's own port is not", "img-src 'self'", "img-src", cdn + ":443", "img-src 'self' " + cdn},
	} {
		p := propose(t, row.current, report.Options{}, seen(row.directive, row.blocked))
		if p.CSP.String() != row.want || len(p.Added) != 1 || len(p.Apart) != 0 {
			t.Errorf("%s: got %s, %+v, %+v; want %s", row.name, p.CSP, p.Added, p.Apart, row.want)
		}
	}
}

func TestWhatIsNotAllowedStandsApartWithItsReason(t *testing.T) {
	const cdn = "https://cdn.example.net"
	rare, noisy := seen("img-src", cdn), seen("img-src", cdn)
	rare.Count, noisy.Noise = 2, true
	extension := seen("img-src", "chrome-extension:")
	extension.Kind = report.KindExtension
	for _, row := range []struct {
		name, current string
		evidence      report.Evidence
		reason        report.Reason
		words         string // in the sentence
	}{
		{"noise", "default-src 'none'", noisy, report.ReasonNoise, ""},
		{"extension", "default-src 'none'", extension, report.ReasonNoise, ""},
		{"rare", "default-src 'none'", rare, report.ReasonRare, "fewer than 3 times"},
		{"allowed", "img-src https:", seen("img-src", cdn), report.ReasonAllowed, ""},
		{"not restricted", "img-src 'self'", seen("font-src", cdn), report.ReasonAllowed, ""},
		{"form-action has no fallback", "default-src 'none'", seen("form-action", cdn), report.ReasonAllowed, ""},
		{"base-uri has no fallback", "default-src 'none'", seen("base-uri", cdn), report.ReasonAllowed, ""},
		{"frame-ancestors has no fallback", "default-src 'none'", seen("frame-ancestors", cdn), report.ReasonAllowed, ""},
		{"inline script", "default-src 'none'", seen("script-src-elem", "inline"), report.ReasonInline, "`nonce` `hash` `pin` 'unsafe-inline'"},
		{"inline style", "default-src 'none'", seen("style-src-elem", "inline"), report.ReasonInline, "`nonce` `hash` 'unsafe-inline'"},
		{"event handler", "default-src 'none'", seen("script-src-attr", "inline"), report.ReasonAttribute, "onclick neither `nonce` `hash`"},
		{"style attribute", "default-src 'none'", seen("style-src-attr", "inline"), report.ReasonAttribute, "style= neither `nonce` `hash`"},
		{"inline image", "default-src 'none'", seen("img-src", "inline"), report.ReasonUnnamed, "no inline"},
		{"eval", "default-src 'none'", seen("script-src", "eval"), report.ReasonEval, "'unsafe-eval' insecure_unsafe_csp"},
		{"WebAssembly", "default-src 'none'", seen("script-src", "wasm-eval"), report.ReasonEval, "'wasm-unsafe-eval'"},
		{"data: script", "default-src 'none'", seen("script-src-elem", "data:"), report.ReasonUnsafe, "insecure_unsafe_csp"},
		{"blob: script", "default-src 'none'", seen("script-src", "blob:"), report.ReasonUnsafe, "insecure_unsafe_csp"},
		{"data: plug-in", "default-src 'none'", seen("object-src", "data:"), report.ReasonUnsafe, "insecure_unsafe_csp"},
		{"script in clear text", "default-src 'none'", seen("script-src", "http://cdn.example.net"), report.ReasonUnsafe, "insecure_unsafe_csp"},
		{"data: base", "base-uri 'none'", seen("base-uri", "data:"), report.ReasonUnsafe, "insecure_unsafe_csp"},
		{"framed by nobody knows", "frame-ancestors 'none'", seen("frame-ancestors", "'self'"), report.ReasonUnnamed, "framed"},
		{"trusted types", "default-src 'none'", seen("require-trusted-types-for", "trusted-types-sink"), report.ReasonUnnamed, "no sources"},
		{"trusted types in a list", "default-src 'none'", seen("script-src", "trusted-types-sink"), report.ReasonUnnamed, "trusted types"},
		{"unknown directive", "default-src 'none'", seen("other", cdn), report.ReasonUnnamed, "no sources"},
		{"scheme alone", "default-src 'none'", seen("connect-src", "wss:"), report.ReasonUnnamed, "secret"},
		{"nothing", "default-src 'none'", seen("img-src", ""), report.ReasonUnnamed, "(nothing named)"},
		{"IPv4", "default-src 'none'", seen("img-src", "https://10.0.0.1"), report.ReasonUnnamed, "127.0.0.1"},
		{"strict-dynamic", "script-src 'strict-dynamic' 'nonce-YWJj'", seen("script-src-elem", cdn), report.ReasonIneffective, "nonce"},
		{"address of an attribute", "default-src 'none'", seen("style-src-attr", cdn), report.ReasonIneffective, "attributes"},
		{"child-src of old browsers", "default-src 'none'; script-src 'self'", seen("child-src", cdn), report.ReasonUnnamed, "frame-src or worker-src"},
	} {
		p := propose(t, row.current, report.Options{}, row.evidence)
		if len(p.Apart) != 1 || p.Apart[0].Reason != row.reason || p.CSP.String() != row.current || len(p.Added) != 0 {
			t.Errorf("%s: got %s, %+v", row.name, p.CSP, p.Apart)
			continue
		}
		text := p.Apart[0].Sentence()
		for word := range strings.FieldsSeq(row.words + " report") {
			if !strings.Contains(text, word) {
				t.Errorf("%s: %q does not say %s", row.name, text, word)
			}
		}
	}
}

func TestWhatThePolicyAllowsAlreadyIsNotAdded(t *testing.T) {
	for _, row := range []struct {
		current, origin, blocked string
		allowed                  bool
	}{
		{"*", "", "https://a.example", true},
		{"*", "", "wss://a.example", true},
		{"*", "", "'self'", false}, // whose scheme is not known
		{"*", "https://app.example.com", "'self'", true},
		{"*", "", "data:", false},
		{"https:", "", "https://a.example", true},
		{"https:", "", "http://a.example", false},
		{"https:", "http://app.example.com", "'self'", false},
		{"https:", "https://app.example.com", "'self'", true},
		{"http:", "", "https://a.example", true},
		{"a.example", "", "https://a.example", true},
		{"a.example:443", "", "https://a.example", true},
		{"a.example", "", "http://a.example", false},
		{"a.example", "http://app.example.com", "http://a.example", true},
		{"a.example", "", "https://b.example", false},
		{"*.a.example", "", "https://b.a.example", true},
		{"*.a.example", "", "https://a.example", false},
		{"https://a.example:*", "", "https://a.example:8443", true},
		{"https://a.example:443", "", "https://a.example", true},
		{"https://a.example", "", "https://a.example:8443", false},
		{"https://a.example/", "", "https://a.example/x", true},
		{"https://a.example/x/", "", "https://a.example/x/y", true},
		{"https://a.example/x/", "", "https://a.example/z", false},
		{"https://a.example/x", "", "https://a.example/x", true},
		{"https://a.example/x", "", "https://a.example/xy", false},
		{"'self'", "http://app.example.com", "https://app.example.com", true},
		{"'self'", "https://app.example.com", "http://app.example.com", false},
		{"'self'", "http://app.example.com:8080", "https://app.example.com", false},
		{"'unsafe-inline'", "", "https://a.example", false},
	} {
		o := report.Options{Origin: row.origin, Paths: true}
		p := propose(t, "img-src "+row.current, o, seen("img-src", row.blocked))
		allowed := len(p.Apart) == 1 && p.Apart[0].Reason == report.ReasonAllowed
		if allowed != row.allowed || len(p.Added) == len(p.Apart) {
			t.Errorf("%s and %s at %q: got %s, %+v", row.current, row.blocked, row.origin, p.CSP, p.Apart)
		}
	}
}

func TestAPartFollowsAWholeThatIsMadeForOthers(t *testing.T) {
	p := propose(t, "default-src 'none'", report.Options{},
		seen("script-src-elem", "https://a.example"), seen("script-src", "https://b.example"), seen("script-src", "https://a.example"))
	if got := p.CSP.String(); got != "default-src 'none'; script-src https://a.example https://b.example" {
		t.Errorf("got %s", got)
	}
	if len(p.Added) != 2 || fmt.Sprint(p.Added[0].Under) != "[script-src script-src-elem]" || p.Added[0].Count != 20 {
		t.Errorf("got %+v", p.Added)
	}
}

func TestALongPathIsCutInAComment(t *testing.T) {
	e := seen("img-src", "data:")
	e.Document = "/" + strings.Repeat("x", 5000)
	if p := propose(t, "img-src 'self'", report.Options{}, e); len(p.Block) > 500 {
		t.Errorf("got %d bytes", len(p.Block))
	}
}

// Evidence may come from anywhere; nothing in it becomes a line of a policy or
// of a Caddyfile.
func TestForgedEvidenceBecomesNoSource(t *testing.T) {
	for _, blocked := range []string{
		"*", "'unsafe-inline'", "'unsafe-eval'", "https:", "https://*", "https://*.com", "https://a https://b", "https://a;script-src *",
		"https://a,default-src *", "https://a.example/x https://b.example", "https://a.example/x;font-src *", "https://a.example/x;", "https://a\n}\nimport evil", "://", "https://", "https://a:*", "https://a/{$SECRET}", "ftp://a.example",
		"x://a.example", "HTTPS://A.example", "https://a.example#x", "https://a.example\"", "https://[::1]", "'nonce-YWJj'", "\x00",
	} {
		for _, directive := range []string{"img-src", "script-src-elem", "x\n}\nimport evil", ""} {
			e := seen(directive, blocked)
			e.Document = "/\n\t}\n\timport evil {$SECRET}"
			good := seen("img-src", "https://good.example")
			good.Document = e.Document
			p := propose(t, "default-src 'none'", report.Options{Paths: true}, e, good)
			if len(p.Added) != 1 || p.CSP.String() != "default-src 'none'; img-src https://good.example" {
				t.Errorf("%q %q: got %s", directive, blocked, p.CSP)
			}
			if strings.Contains(p.Block, "import evil\n") || strings.ContainsAny(p.Block, "$\x00") && strings.Contains(p.Block, "{$") ||
				strings.Count(p.Block, "\n") != 6 {
				t.Errorf("%q: the block is\n%s", blocked, p.Block)
			}
			if a := p.Apart; len(a) != 1 || strings.ContainsAny(a[0].Sentence()+strings.Join(p.Warnings, ""), "\n\x00{") {
				t.Errorf("%q: the warnings are %q, %+v", blocked, p.Warnings, a)
			}
		}
	}
}

func TestTheBlockIsReadyToPasteAndCarriesItsEvidence(t *testing.T) {
	day := func(n int) time.Time { return time.Date(2026, 3, n, 12, 0, 0, 0, time.UTC) }
	at := func(directive, blocked, document string, count int64, first, last int) report.Evidence {
		return report.Evidence{
			Violation: report.Violation{Directive: directive, Blocked: blocked, Document: document},
			Count:     count, First: day(first), Last: day(last),
		}
	}
	p := propose(t, "default-src 'self'; img-src 'self' data:; upgrade-insecure-requests",
		report.Options{Words: []string{"report_only", "report /-/csp"}},
		at("img-src", "https://img.example.net", "/shop", 12, 4, 6),
		at("img-src", "https://img.example.net", "/cart", 1, 2, 3),
		at("script-src-elem", "https://cdn.example.net", "/cart", 3, 9, 9),
		at("connect-src", "wss://live.example.net", "/cart", 3, 9, 9))
	const want = `csp {
	# Take report_only off to enforce the policy.
	report_only
	report /-/csp
	default-src 'self'
	# https://img.example.net: 13 reports on 2 pages, such as /cart, 2026-03-02 to 2026-03-06
	img-src 'self' data: https://img.example.net
	upgrade-insecure-requests
	# New; it begins with the sources of default-src, which it no longer inherits.
	# wss://live.example.net: 3 reports on 1 page, such as /cart, 2026-03-09 to 2026-03-09
	connect-src 'self' wss://live.example.net
	# New; it begins with the sources of default-src, which it no longer inherits.
	# https://cdn.example.net: 3 reports on 1 page, such as /cart, 2026-03-09 to 2026-03-09
	script-src-elem 'self' https://cdn.example.net
}
`
	if p.Block != want {
		t.Errorf("got\n%s\nwant\n%s", p.Block, want)
	}
	if got := p.Added[1]; got.Count != 13 || got.Documents != 2 || got.Example != "/cart" || !got.First.Equal(day(2)) || !got.Last.Equal(day(6)) {
		t.Errorf("got %+v", got)
	}
}

// A csp block would bring the preset's directives back.
func TestAPolicyOfOneHeaderStaysOne(t *testing.T) {
	p := propose(t, `default-src 'self'; report-uri /x"y`, report.Options{Whole: true, Words: []string{"report_only"}}, seen("img-src", "https://img.example.net"))
	const want = "# img-src https://img.example.net: 10 reports on 1 page, such as /\n" +
		`set Content-Security-Policy "default-src 'self'; report-uri /x\"y; img-src 'self' https://img.example.net"` + "\n"
	if p.Block != want {
		t.Errorf("got\n%s\nwant\n%s", p.Block, want)
	}
}

// The block says the policy and nothing else.
func TestTheBlockSaysThePolicy(t *testing.T) {
	p := propose(t, "default-src 'self'; trusted-types #a b; report-uri /x`y\"z", report.Options{}, seen("img-src", "data:"))
	var lines []string
	for text := range strings.Lines(p.Block) {
		text = strings.TrimSpace(text)
		if !strings.HasPrefix(text, "#") && text != "csp {" && text != "}" {
			lines = append(lines, text)
		}
	}
	if !strings.Contains(p.Block, "\ttrusted-types \"#a\" b\n") {
		t.Errorf("a word begins a comment in\n%s", p.Block)
	}
	got := strings.NewReplacer(`"#a"`, "#a", "\"/x`y\\\"z\"", "/x`y\"z").Replace(strings.Join(lines, "; "))
	if got != p.CSP.String() {
		t.Errorf("got %s, want %s", got, p.CSP)
	}
}

func TestASourceThatAnotherCoversIsNotAdded(t *testing.T) {
	for _, row := range []struct {
		name string
		o    report.Options
		seen []string
		want string
	}{
		{"clear text allows TLS", report.Options{}, []string{"https://a.example", "http://a.example"}, "http://a.example"},
		{"ws allows wss", report.Options{}, []string{"wss://a.example", "ws://a.example"}, "ws://a.example"},
		{"wss and https are both needed", report.Options{}, []string{"wss://a.example", "https://a.example"}, "https://a.example wss://a.example"},
		{"a host allows its files", report.Options{Paths: true}, []string{"https://a.example/x", "https://a.example"}, "https://a.example"},
		{"files", report.Options{Paths: true}, []string{"https://a.example/x", "https://a.example/y"}, "https://a.example/x https://a.example/y"},
		{"own origin by name", report.Options{Origin: "https://app.example.com"}, []string{"https://app.example.com", "'self'"}, "'self'"},
		{"own origin in clear text", report.Options{Origin: "https://app.example.com"}, []string{"http://app.example.com", "'self'"},
			"http://app.example.com"},
		{"wildcard", report.Options{Wildcards: []string{"example.net"}}, []string{"https://a.example.net", "https://b.c.example.net/x", "https://example.net"},
			"https://*.example.net https://example.net"},
		{"no wildcard by itself", report.Options{}, []string{"https://a.b.net", "https://b.b.net", "https://c.b.net", "https://d.b.net", "https://e.b.net"},
			"https://a.b.net https://b.b.net https://c.b.net https://d.b.net https://e.b.net"},
	} {
		var evidence []report.Evidence
		for _, blocked := range row.seen {
			evidence = append(evidence, seen("connect-src", blocked))
		}
		p := propose(t, "connect-src 'none'", row.o, evidence...)
		if got := p.CSP.String(); got != "connect-src "+row.want {
			t.Errorf("%s: got %s, want %s", row.name, got, row.want)
		}
		if n := len(p.Added); n > 0 && int(p.Added[0].Count) != 10*(len(row.seen)-n+1) {
			t.Errorf("%s: the evidence of a covered source is lost: %+v", row.name, p.Added)
		}
	}
}

// Anybody can post a report a thousand times.
func TestWhatOneNetworkAloneHasSeenIsNamed(t *testing.T) {
	from := func(name string, e report.Evidence) report.Evidence {
		e.From, e.Networks = name, 1
		return e
	}
	image, font, unknown := seen("img-src", "https://a.example.net"), seen("font-src", "https://b.example.net"), seen("media-src", "https://c.example.net")
	const alone = "one network reported"
	for name, row := range map[string]struct {
		evidence []report.Evidence
		want     []string
	}{
		"one of two": {[]report.Evidence{from("a", image), from("b", image), from("b", font), unknown},
			[]string{"font-src https://b.example.net: " + alone + " it, and nobody else"}},
		"all":           {[]report.Evidence{from("a", image), from("b", font)}, []string{alone + " all of it, and nobody else"}},
		"a single one":  {[]report.Evidence{from("a", image)}, []string{"img-src https://a.example.net: " + alone + " it, and nobody else"}},
		"many at once":  {[]report.Evidence{{Violation: image.Violation, Count: 9, From: "a", Networks: 5}}, nil},
		"nobody knows":  {[]report.Evidence{image, font}, nil},
		"several names": {[]report.Evidence{from("a", image), from("b", image)}, nil},
	} {
		p := propose(t, "default-src 'none'", report.Options{}, row.evidence...)
		if !slices.Equal(p.Warnings, row.want) {
			t.Errorf("%s: got %q, want %q", name, p.Warnings, row.want)
		}
	}
	p := propose(t, "default-src 'none'", report.Options{}, report.Evidence{Violation: image.Violation, Count: 9, From: "a", Networks: 5}, from("b", image))
	if p.Added[0].Networks != 5 || !strings.Contains(p.Block, "19 reports on 1 page, such as /, from 5 networks") {
		t.Errorf("%+v\n%s", p.Added, p.Block)
	}
}

func TestASourceThatAStrangerCanUseIsWorthALook(t *testing.T) {
	for directive, want := range map[string]bool{
		"default-src": true, "script-src": true, "script-src-elem": true, "worker-src": true, "object-src": true, "connect-src": true,
		"frame-ancestors": true, "form-action": true, "base-uri": true, "style-src": true, "style-src-elem": true,
		"img-src": false, "font-src": false,
	} {
		current := "default-src 'none'; frame-ancestors 'none'; form-action 'none'; base-uri 'none'"
		p := propose(t, current, report.Options{}, seen(directive, "https://evil.example"))
		if got := len(p.Warnings) == 1 && strings.HasPrefix(p.Warnings[0], directive+" https://evil.example: "); got != want || len(p.Added) != 1 {
			t.Errorf("%s: %q, %+v", directive, p.Warnings, p.Added)
		}
		if directive == "frame-ancestors" {
			continue
		}
		if p := propose(t, current, report.Options{}, seen(directive, "'self'")); len(p.Warnings) != 0 {
			t.Errorf("%s: %q", directive, p.Warnings)
		}
	}
}

func TestManyHostsOfOneNameAreHintedAt(t *testing.T) {
	var evidence []report.Evidence
	for i := range 5 {
		evidence = append(evidence, seen("img-src", fmt.Sprintf("https://c%d.cdn.example.net", i)))
	}
	hinted := func(e []report.Evidence) bool {
		p := propose(t, "default-src 'none'", report.Options{}, e...)
		return strings.Contains(strings.Join(p.Warnings, "\n"), "5 hosts below cdn.example.net")
	}
	if !hinted(evidence) || hinted(evidence[1:]) {
		t.Error("want a hint for five hosts and none for four")
	}
}

func TestCountsAreSummedBeforeTheyAreJudged(t *testing.T) {
	e := seen("img-src", "data:")
	e.Count = 1
	other, enforced, negative := e, e, e
	other.Document, enforced.Disposition, negative.Count = "/x", "enforce", -100
	if p := propose(t, "default-src 'none'", report.Options{}, e, other, enforced, negative); len(p.Added) != 1 || p.Added[0].Count != 3 {
		t.Errorf("got %+v, %+v", p.Added, p.Apart)
	}
	if p := propose(t, "default-src 'none'", report.Options{MinCount: 4}, e, other, enforced); len(p.Added) != 0 {
		t.Errorf("got %+v", p.Added)
	}
}

func TestADangerousPolicyIsTakenOverAndNamedSo(t *testing.T) {
	const current = "script-src 'self' 'unsafe-inline'"
	p := propose(t, current, report.Options{}, seen("img-src", "https://cdn.example.net"))
	if !strings.Contains(p.Block, "\n\tinsecure_unsafe_csp\n") || len(p.Warnings) != 1 || !strings.Contains(p.Warnings[0], "insecure_unsafe_csp") {
		t.Errorf("got %q\n%s", p.Warnings, p.Block)
	}
	if p := propose(t, "default-src 'self'", report.Options{}); strings.Contains(p.Block, "insecure") || len(p.Warnings) > 0 {
		t.Errorf("got %q\n%s", p.Warnings, p.Block)
	}
}

// Whoever posts thousands of hosts gets a policy that still fits into a header,
// and does not push out what was seen more often.
func TestAFullPolicyStaysAPolicy(t *testing.T) {
	evidence := []report.Evidence{seen("img-src", "https://real.example.org")}
	evidence[0].Count = 1000
	for i := range 3000 {
		directive := []string{"img-src", "font-src", "media-src"}[i%3]
		evidence = append(evidence, seen(directive, fmt.Sprintf("https://h%d.example.net", i)))
	}
	p := propose(t, "default-src 'self'", report.Options{}, evidence...)
	if n := len(p.CSP.String()); n > 8192 || n < 8000 {
		t.Errorf("%d bytes", n)
	}
	if !strings.Contains(p.CSP.String(), "https://real.example.org") {
		t.Error("what was seen most often is missing")
	}
	full := slices.IndexFunc(p.Apart, func(a report.Apart) bool { return a.Reason == report.ReasonFull })
	if full < 0 || len(p.Apart)+len(p.Added) != len(evidence) {
		t.Errorf("%d apart, %d added", len(p.Apart), len(p.Added))
	}
	// Nor does it push out what came from more networks.
	for i := range evidence {
		evidence[i].Networks, evidence[i].Count = 1, 1000
	}
	evidence[0].Networks, evidence[0].Count = 2, 10
	if p := propose(t, "default-src 'self'", report.Options{}, evidence...); !strings.Contains(p.CSP.String(), "https://real.example.org") {
		t.Error("what two networks have seen is missing")
	}
}

func TestADirectiveEndsAt256Sources(t *testing.T) {
	var evidence []report.Evidence
	for i := range 300 {
		evidence = append(evidence, seen("img-src", fmt.Sprintf("https://h%d.nu", i)))
	}
	p := propose(t, "img-src 'self'", report.Options{}, evidence...)
	if len(p.CSP[0].Sources) != 256 || len(p.Apart) != 45 {
		t.Errorf("%d sources, %d apart", len(p.CSP[0].Sources), len(p.Apart))
	}
}

func TestWrongOptionsAreAllNamed(t *testing.T) {
	_, err := report.Propose(nil, nil, report.Options{Origin: "app.example.com", Wildcards: []string{"com", "*.example.net", "Example.net"}})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"report: current policy: csp: the policy is empty", `origin "app.example.com"`, `"com"`, `"*.example.net"`, `"Example.net"`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %s", err, want)
		}
	}
	for _, origin := range []string{"https://app.example.com/", "https://app.example.com:443", "https://a@app.example.com", "https://[::1]", "x"} {
		if _, err := report.Propose(nil, csp(t, "img-src 'self'"), report.Options{Origin: origin}); err == nil {
			t.Errorf("origin %s is accepted", origin)
		}
	}
}

func TestThePolicyGivenIsNotChanged(t *testing.T) {
	current := csp(t, "default-src 'none'; img-src 'self' data:")
	before := current.String()
	if _, err := report.Propose([]report.Evidence{seen("img-src", "blob:"), seen("default-src", "'self'")}, current, report.Options{}); err != nil {
		t.Fatal(err)
	}
	if current.String() != before {
		t.Errorf("became %s", current)
	}
}
