//go:build interop && linux

package interop

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The sites that are judged. Their names end in .test, which nobody owns.
const (
	htmlHost      = "html.moat.test"
	apiHost       = "api.moat.test"
	weakHost      = "weak.moat.test"
	unguardedHost = "unguarded.moat.test"
)

// judgeBudget bounds the judges' whole work; the Observatory gives a site 10 s.
const judgeBudget = time.Minute

// verdict of the Observatory and findings of the CSP Evaluator on one site.
type headerVerdict struct {
	Host     string
	Grade    string
	Score    int
	Status   int
	Policy   string
	Tests    []headerTest
	Findings []cspFinding
}

type headerTest struct {
	Name     string
	Pass     bool
	Result   string
	Modifier int
}

type cspFinding struct {
	Severity, Directive, Value, Description string
}

// accepted are the findings that stay, by site and then by severity, directive
// and value, and why. Any other finding fails the test, and so does an entry that
// is no longer found.
var accepted = map[string]map[string]string{
	htmlHost: {
		"MEDIUM_MAYBE default-src 'self'": "an application's scripts come from its own origin, " +
			"and a preset cannot know their nonces or hashes",
		"INFO require-trusted-types-for": "scripts that write markup would stop working; " +
			"an application that is ready for it adds the directive in its csp block",
		"INFO report-uri": noReports,
	},
	apiHost: {
		"INFO require-trusted-types-for": "default-src 'none' lets no script run that could write markup",
		"INFO report-uri":                noReports,
	},
}

const noReports = "where reports go is the operator's to say; report-uri can be added in the csp block"

func (f cspFinding) key() string {
	return strings.TrimSpace(f.Severity + " " + f.Directive + " " + f.Value)
}

// high tells whether the evaluator calls the finding grave, or says that it may
// be. A policy that is not well formed protects from nothing, so that counts too.
func (f cspFinding) high() bool {
	return slices.Contains([]string{"HIGH", "HIGH_MAYBE", "SYNTAX"}, f.Severity)
}

// TestJudgesOfHeadersAgreeWithThePresets has the Observatory grade both presets,
// and the CSP Evaluator read their policies. Two more sites show that the judges
// see what is wrong: one with the policy opened, and one without the gateway.
func TestJudgesOfHeadersAgreeWithThePresets(t *testing.T) {
	t.Parallel()
	verdicts := judgeHeaders(t, htmlHost, apiHost, weakHost, unguardedHost)
	for _, host := range []string{htmlHost, apiHost} {
		t.Run(host, func(t *testing.T) {
			v := verdicts[host]
			v.report()
			if v.Grade != "A+" {
				t.Errorf("grade %s with a score of %d, want A+\n%s", v.Grade, v.Score, v.costs())
			}
			v.wantOnlyAcceptedFindings(t)
		})
	}
	t.Run("what is weak is seen", func(t *testing.T) {
		weak, unguarded := verdicts[weakHost], verdicts[unguardedHost]
		weak.summary()
		unguarded.summary()
		if !slices.ContainsFunc(weak.Findings, cspFinding.high) {
			t.Errorf("no high finding about %q", weak.Policy)
		}
		if weak.Score >= verdicts[htmlHost].Score {
			t.Errorf("the weak policy scores %d, the preset %d", weak.Score, verdicts[htmlHost].Score)
		}
		if unguarded.Grade == "A+" || unguarded.Grade == "A" {
			t.Errorf("without the gateway the grade is %s", unguarded.Grade)
		}
	})
}

func (v headerVerdict) wantOnlyAcceptedFindings(t *testing.T) {
	t.Helper()
	if v.Policy == "" {
		t.Fatal("the answer has no Content-Security-Policy")
	}
	gone := maps.Clone(accepted[v.Host])
	for _, f := range v.Findings {
		switch {
		case f.high():
			t.Errorf("high finding: %s: %s\n%s", f.key(), f.Description, v.Policy)
		case accepted[v.Host][f.key()] == "":
			t.Errorf("new finding: %s: %s\n%s", f.key(), f.Description, v.Policy)
		}
		delete(gone, f.key())
	}
	for key := range gone {
		t.Errorf("accepted, but no longer found: %s", key)
	}
}

// costs are the tests that fail or cost points.
func (v headerVerdict) costs() string {
	var lines []string
	for _, test := range v.Tests {
		if !test.Pass || test.Modifier < 0 {
			lines = append(lines, fmt.Sprintf("%+d %s: %s", test.Modifier, test.Name, test.Result))
		}
	}
	return strings.Join(lines, "\n")
}

func (v headerVerdict) summary() {
	passed := 0
	for _, test := range v.Tests {
		if test.Pass {
			passed++
		}
	}
	figures.note("Observatory: %s: status %d, grade %s, score %d, %d of %d tests passed",
		v.Host, v.Status, v.Grade, v.Score, passed, len(v.Tests))
}

// report leaves the whole verdict to be printed with the other figures.
func (v headerVerdict) report() {
	v.summary()
	for _, test := range v.Tests {
		outcome := "passed"
		if !test.Pass {
			outcome = "FAILED"
		}
		figures.note("  %s %+3d %s: %s", outcome, test.Modifier, test.Name, test.Result)
	}
	figures.note("CSP Evaluator: %s: %d findings about %s", v.Host, len(v.Findings), v.Policy)
	for _, f := range v.Findings {
		figures.note("  %s: %s", f.key(), f.Description)
		if why := accepted[v.Host][f.key()]; why != "" {
			figures.note("    stays: %s", why)
		}
	}
}

// judgeHeaders starts a gateway with every site and lets the judges ask the hosts.
func judgeHeaders(t *testing.T, hosts ...string) map[string]headerVerdict {
	t.Helper()
	g := startJudgedSites(t)
	ctx, cancel := context.WithTimeout(context.Background(), judgeBudget)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", append([]string{"node/headers.mjs", strconv.Itoa(g.http), strconv.Itoa(g.https)}, hosts...)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "NODE_EXTRA_CA_CERTS=" + g.authority}
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	began := time.Now()
	if err := cmd.Run(); err != nil {
		t.Fatalf("the judges could not judge: %v\n%s", err, complaint.String())
	}
	figures.time("both judges on four sites", time.Since(began))
	var answer struct {
		Versions    map[string]string
		Verdicts    []headerVerdict
		Connections int
		Refused     []string
	}
	if err := json.Unmarshal(out.Bytes(), &answer); err != nil {
		t.Fatalf("%v in %s", err, out.String())
	}
	for name, value := range answer.Versions {
		figures.version(name, value)
	}
	// Whatever a judge wanted from elsewhere would be missing in its verdict.
	if len(answer.Refused) != 0 || answer.Connections == 0 {
		t.Errorf("%d connections to the gateway, and tried elsewhere: %q", answer.Connections, answer.Refused)
	}
	figures.note("the judges made %d connections, all to the gateway", answer.Connections)
	all := map[string]headerVerdict{}
	for _, v := range answer.Verdicts {
		all[v.Host] = v
	}
	for _, host := range hosts {
		if len(all[host].Tests) == 0 {
			t.Fatalf("no verdict on %s: %s", host, out.String())
		}
	}
	return all
}
