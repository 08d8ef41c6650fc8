package report_test

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/internal/headers"
	"github.com/moat-gateway/moat/internal/headers/report"
)

// What the property tests draw from.
var (
	directives = []string{
		"default-src", "script-src", "script-src-elem", "script-src-attr", "style-src", "style-src-elem", "style-src-attr",
		"img-src", "font-src", "connect-src", "media-src", "object-src", "manifest-src", "child-src", "frame-src",
		"fenced-frame-src", "worker-src", "base-uri", "form-action", "frame-ancestors",
	}
	sources = []string{
		"'self'", "https:", "data:", "blob:", "*", "https://cdn.example.net", "cdn.example.net", "http://cdn.example.net",
		"https://*.example.net", "*.example.net:*", "https://cdn.example.net/lib/", "https://cdn.example.net:8443",
		"'unsafe-inline'", "'strict-dynamic'", "'nonce-YWJj'", "'report-sample'", "wss://live.example.org",
	}
	addresses = []string{
		"https://cdn.example.net/lib/a.js", "https://cdn.example.net/other/b.js", "http://cdn.example.net/lib/a.js",
		"https://cdn.example.net:8443/a", "https://img.example.net/a.png", "https://api.example.org/v1", "http://api.example.org/v1",
		"wss://live.example.org/s", "ws://live.example.org/s", "https://live.example.org/s", "data:text/plain,x",
		"blob:https://app.example.com/1", "https://127.0.0.1/x", "https://10.0.0.1/x", "https://a.b.example.net/x",
	}
	owns = []string{"https://app.example.com", "http://app.example.com", "https://app.example.com:8443"}
)

// trial is one page, its policy and what a browser reported.
type trial struct {
	own      string
	current  headers.CSP
	reported []asking
	options  report.Options
}

// asking is what was blocked.
type asking struct{ directive, address string }

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

// newTrial draws a trial; only what the current policy blocks is reported.
func newTrial(r *rand.Rand) trial {
	tr := trial{own: pick(r, owns)}
	for _, name := range directives {
		if r.IntN(4) == 0 {
			tr.current = append(tr.current, headers.Directive{Name: name, Sources: newList(r, name)})
		}
	}
	if len(tr.current) == 0 || r.IntN(3) > 0 && tr.current[0].Name != "default-src" {
		tr.current = append(headers.CSP{{Name: "default-src", Sources: newList(r, "default-src")}}, tr.current...)
		tr.current = slices.CompactFunc(tr.current, func(a, b headers.Directive) bool { return a.Name == b.Name })
	}
	for range 1 + r.IntN(12) {
		a := asking{pick(r, directives), pick(r, tr.world())}
		if !allows(tr.current, tr.own, a.directive, a.address) {
			tr.reported = append(tr.reported, a)
		}
	}
	tr.options = report.Options{MinCount: 1, Origin: tr.own, Paths: r.IntN(3) == 0}
	if r.IntN(4) == 0 {
		tr.options.Wildcards = []string{"example.net"}
	}
	return tr
}

func newList(r *rand.Rand, name string) []string {
	if r.IntN(4) == 0 {
		return []string{"'none'"}
	}
	var list []string
	for range 1 + r.IntN(3) {
		s := pick(r, sources)
		if name == "frame-ancestors" && s[0] == '\'' {
			s = "'self'"
		}
		if !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	return list
}

// world is every address that is tried.
func (tr trial) world() []string {
	return append(slices.Clone(addresses), tr.own+"/x.js", "https://app.example.com:444/x")
}

// propose sends the reports through Parse, as a browser would.
func (tr trial) propose(t *testing.T) (report.Proposal, map[asking]report.Evidence) {
	t.Helper()
	u, err := url.Parse(tr.own)
	if err != nil {
		t.Fatal(err)
	}
	s := report.Site{Host: u.Host, Paths: true}
	evidence := make(map[asking]report.Evidence)
	var all []report.Evidence
	for _, a := range tr.reported {
		body := fmt.Sprintf(`{"csp-report":{"document-uri":%q,"effective-directive":%q,"blocked-uri":%q}}`,
			tr.own+"/page", a.directive, a.address)
		e := report.Evidence{Violation: one(t, s, legacyType, body), Count: 1}
		evidence[a] = e
		all = append(all, e)
	}
	p, err := report.Propose(all, tr.current, tr.options)
	if err != nil {
		t.Fatalf("%s: %v", tr.current, err)
	}
	return p, evidence
}

// accepted are the reports that the proposal does not set apart.
func (tr trial) accepted(p report.Proposal, evidence map[asking]report.Evidence) []asking {
	var out []asking
	for a, e := range evidence {
		apart := slices.ContainsFunc(p.Apart, func(x report.Apart) bool {
			return x.Directive == e.Directive && tr.about(x.Blocked, e.Blocked)
		})
		if !apart {
			out = append(out, a)
		}
	}
	return out
}

// about reports whether the blocked text of a proposal stands for that of a
// report: the same, its origin, or its wildcard.
func (tr trial) about(shown, reported string) bool {
	x, err := url.Parse(shown)
	y, err2 := url.Parse(reported)
	if shown == reported || err != nil || err2 != nil || x.Host == "" {
		return shown == reported || shown == "'self'" && err2 == nil && y.Scheme+"://"+y.Host == tr.own
	}
	name, wild := strings.CutPrefix(x.Hostname(), "*")
	sameHost := x.Host == y.Host || wild && strings.HasSuffix(y.Hostname(), name) && x.Port() == y.Port()
	return x.Scheme == y.Scheme && sameHost && (x.Path == "" || x.Path == y.Path)
}

// without takes one added source away again.
func without(policy headers.CSP, a report.Addition) headers.CSP {
	out := slices.Clone(policy)
	for i := range out {
		if out[i].Name == a.Directive {
			out[i].Sources = slices.DeleteFunc(slices.Clone(out[i].Sources), func(s string) bool { return s == a.Source })
		}
	}
	return out
}

func TestAProposalAllowsWhatWasSeenAndNothingIsAddedInVain(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	added := 0
	for range 1500 {
		tr := newTrial(r)
		p, evidence := tr.propose(t)
		accepted := tr.accepted(p, evidence)
		checkParses(t, p)
		for _, a := range accepted {
			if !allows(p.CSP, tr.own, a.directive, a.address) {
				t.Fatalf("%s + %v = %s\nstill blocks %v and does not say so: %+v", tr.current, tr.reported, p.CSP, a, p.Apart)
			}
		}
		for _, addition := range p.Added {
			added++
			less := without(p.CSP, addition)
			if !slices.ContainsFunc(accepted, func(a asking) bool { return !allows(less, tr.own, a.directive, a.address) }) {
				t.Fatalf("%s + %v = %s\n%s in %s is not needed", tr.current, tr.reported, p.CSP, addition.Source, addition.Directive)
			}
		}
	}
	if added < 1500 {
		t.Errorf("only %d sources were added; the trials are too tame", added)
	}
}

func checkParses(t *testing.T, p report.Proposal) {
	t.Helper()
	again, err := headers.ParseCSP(p.CSP.String())
	if err != nil || again.String() != p.CSP.String() {
		t.Fatalf("%s: %v", p.CSP, err)
	}
}

// Of what the current policy allows nothing is lost, and what is new shares
// its host with something that was seen.
func TestAProposalIsWiderThanThePolicyOnlyAboutWhatWasSeen(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 500 {
		tr := newTrial(r)
		tr.options.Wildcards = nil
		p, evidence := tr.propose(t)
		accepted := tr.accepted(p, evidence)
		for _, directive := range directives {
			for _, address := range tr.world() {
				before := allows(tr.current, tr.own, directive, address)
				after := allows(p.CSP, tr.own, directive, address)
				if before && !after {
					t.Fatalf("%s + %v = %s\nblocks %s %s", tr.current, tr.reported, p.CSP, directive, address)
				}
				if !before && after && !related(accepted, directive, address) {
					t.Fatalf("%s + %v = %s\nallows %s %s", tr.current, tr.reported, p.CSP, directive, address)
				}
			}
		}
	}
}

// related reports whether the address was seen, or its host in clear text or
// with another path, under a directive that could have lent it.
func related(accepted []asking, directive, address string) bool {
	return slices.ContainsFunc(accepted, func(a asking) bool {
		x, err := url.Parse(a.address)
		y, err2 := url.Parse(address)
		return err == nil && err2 == nil && schemeAllows(x.Scheme, y.Scheme) && x.Host == y.Host &&
			(slices.Contains(asked(directive), a.directive) || slices.Contains(asked(a.directive), wholeOf(directive)) ||
				slices.Contains(asked(directive), wholeOf(a.directive)))
	})
}

func wholeOf(directive string) string {
	for _, whole := range []string{"script-src", "style-src"} {
		if directive == whole+"-elem" || directive == whole+"-attr" {
			return whole
		}
	}
	return directive
}

func TestTheOrderOfEvidenceDoesNotMatter(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 300 {
		tr := newTrial(r)
		first, _ := tr.propose(t)
		r.Shuffle(len(tr.reported), func(i, j int) { tr.reported[i], tr.reported[j] = tr.reported[j], tr.reported[i] })
		second, _ := tr.propose(t)
		if fmt.Sprintf("%+v", first) != fmt.Sprintf("%+v", second) {
			t.Fatalf("got\n%+v\nand\n%+v", first, second)
		}
	}
}

// What a proposal adds never needs insecure_unsafe_csp.
func TestAProposalAddsNothingThatUndoesThePolicy(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for range 500 {
		tr := newTrial(r)
		p, _ := tr.propose(t)
		for _, a := range p.Added {
			_, err := headers.New(headers.Config{CSP: headers.CSP{{Name: a.Directive, Sources: []string{a.Source}}}})
			if err != nil || slices.Contains([]string{"*", "'unsafe-inline'", "'unsafe-eval'"}, a.Source) {
				t.Fatalf("%s %s: %v", a.Directive, a.Source, err)
			}
		}
	}
}
