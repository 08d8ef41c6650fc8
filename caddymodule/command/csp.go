package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/moat-gateway/moat/internal/audit"
	"github.com/moat-gateway/moat/internal/audit/reader"
	"github.com/moat-gateway/moat/internal/headers"
	"github.com/moat-gateway/moat/internal/headers/report"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "csp",
		Usage: "propose <dir>",
		Short: "Proposes a content security policy from what browsers reported",
		Long: `
Proposes a content security policy from what browsers reported to a gateway.
docs/csp.md explains the way from no policy to an enforced one.`,
		CobraFunc: func(cmd *cobra.Command) {
			cmd.AddCommand(newCSPPropose())
			cmd.RunE = func(cmd *cobra.Command, args []string) error {
				if len(args) == 0 {
					return cmd.Help()
				}
				complainToken(cmd, fmt.Errorf("%q: must be propose", args[0]))
				return exitExplain(cmd, exitNothing)
			}
			refuseTokenFlags(cmd)
		},
	})
}

// proposeFlags say what is proposed from what.
type proposeFlags struct {
	config, adapter, site, preset string
	since, until                  string
	options                       report.Options
}

func newCSPPropose() *cobra.Command {
	var flags proposeFlags
	cmd := &cobra.Command{
		Use:   "propose <dir>",
		Short: "Prints the tightest policy that allows what was reported",
		Long: `
Reads the violations in the trail of a gateway whose policy has a report line, and
prints the tightest policy that allows what was seen, each source with its evidence,
ready to paste into a headers block. What no source can allow, and what was seen too
rarely, is listed with the reason. Everybody can send reports: read before you paste.

It begins with the policy that the reports are about: that of the site in --config,
or that of --preset.`,
	}
	f := cmd.Flags()
	f.StringVar(&flags.config, "config", "", "Configuration with the policy that the reports are about")
	f.StringVar(&flags.adapter, "adapter", "", "Adapter of the configuration, such as caddyfile")
	f.StringVar(&flags.site, "site", "", "Label of the site in it; default: the only one with a policy")
	f.StringVar(&flags.preset, "preset", "html", "Preset with the policy, without a configuration: html or api")
	f.StringVar(&flags.options.Origin, "origin", "", "Origin of the pages, such as https://app.example.com")
	f.Int64Var(&flags.options.MinCount, "min-count", 0, "Least number of reports for a source; default: 3")
	f.StringArrayVar(&flags.options.Wildcards, "wildcard", nil, "Domain below which hosts become one wildcard; may stand often")
	f.StringVar(&flags.since, "since", "", "First moment that counts: RFC 3339, or a time before now such as 7d")
	f.StringVar(&flags.until, "until", "", "First moment that no longer counts")
	tokenRun(cmd, func(cmd *cobra.Command, args []string) (int, error) { return propose(cmd, args, flags) })
	return cmd
}

func propose(cmd *cobra.Command, args []string, flags proposeFlags) (int, error) {
	times := filterFlags{since: flags.since, until: flags.until, actions: []string{audit.ActionViolation}}
	filter, err := times.read(time.Now())
	if err := errors.Join(oneTrail(args), err); err != nil {
		return 0, err
	}
	current, err := flags.current()
	if err != nil {
		return 0, err
	}
	evidence, err := evidenceIn(args[0], filter)
	if err != nil {
		return 0, err
	}
	if len(evidence) == 0 {
		return exitNotFound, errors.New("no violation was reported; a csp block needs a line such as `report /-/csp`")
	}
	proposal, err := report.Propose(evidence, current, flags.options)
	if err != nil {
		return 0, err
	}
	return 0, printProposal(cmd.OutOrStdout(), proposal)
}

// evidenceIn reads the violations of a trail.
func evidenceIn(dir string, filter *reader.Filter) ([]report.Evidence, error) {
	trail, err := reader.Open(dir)
	if err != nil {
		return nil, err
	}
	var all []report.Evidence
	err = trail.Forward(filter, func(e *reader.Event) error {
		var event struct {
			Path    string `json:"path"`
			Details struct {
				Directive, Blocked, Kind, Disposition string
				Count                                 int64
				Noise                                 bool
			} `json:"details"`
		}
		if err := json.Unmarshal(e.Raw, &event); err != nil {
			return err
		}
		d := event.Details
		all = append(all, report.Evidence{
			Violation: report.Violation{
				Directive: d.Directive, Blocked: d.Blocked, Kind: report.Kind(d.Kind), Document: event.Path,
				Disposition: d.Disposition, Noise: d.Noise,
			},
			Count: d.Count, First: e.Time, Last: e.Time,
		})
		return nil
	})
	return all, err
}

// current is the policy that the reports are about.
func (f *proposeFlags) current() (headers.CSP, error) {
	policies := []sitePolicy{{Preset: f.preset}}
	if f.config != "" {
		text, err := explainedConfig(f.config, f.adapter)
		if err != nil {
			return nil, err
		}
		if policies, err = policiesIn(text); err != nil {
			return nil, err
		}
	}
	var labels []string
	var found []sitePolicy
	for _, p := range policies {
		labels = append(labels, p.site)
		if f.site == "" || f.site == p.site {
			found = append(found, p)
		}
	}
	if len(found) != 1 {
		return nil, fmt.Errorf("--site %q: there must be one policy, and there are %d; the sites with one are: %s", f.site, len(found), strings.Join(labels, ", "))
	}
	return found[0].csp()
}

// sitePolicy is what a moat_headers handler says of its policy.
type sitePolicy struct {
	site string

	Preset            string              `json:"preset"`
	Set               []headers.Field     `json:"set"`
	CSP               []headers.Directive `json:"csp"`
	InsecureUnsafeCSP bool                `json:"insecure_unsafe_csp"`
}

func (p *sitePolicy) csp() (headers.CSP, error) {
	config := headers.Config{Preset: p.Preset, CSP: p.CSP, InsecureCSP: p.InsecureUnsafeCSP}
	for _, f := range p.Set {
		if strings.EqualFold(f.Name, "Content-Security-Policy") {
			config.Set = append(config.Set, f)
		}
	}
	policy, err := headers.New(config)
	if err != nil {
		return nil, err
	}
	return headers.ParseCSP(policy.CSP())
}

// policiesIn finds the policies of a configuration, each with the label of the site
// that the moat_audit before it names.
func policiesIn(text []byte) ([]sitePolicy, error) {
	var config any
	if err := json.Unmarshal(text, &config); err != nil {
		return nil, err
	}
	var found []sitePolicy
	collectPolicies(config, &found)
	// An error route repeats its site's headers, without a label.
	if labeled := func(p sitePolicy) bool { return p.site != "" }; slices.ContainsFunc(found, labeled) {
		found = slices.DeleteFunc(found, func(p sitePolicy) bool { return !labeled(p) })
	}
	if len(found) == 0 {
		return nil, errors.New("the configuration has no site with headers")
	}
	return found, nil
}

func collectPolicies(value any, found *[]sitePolicy) {
	if object := objectIn(value); object != nil {
		for _, key := range slices.Sorted(maps.Keys(object)) {
			collectPolicies(object[key], found)
		}
	}
	site := ""
	for _, item := range listIn(value) {
		handler := objectIn(item)
		switch handler["handler"] {
		case "moat_audit":
			site, _ = handler["site"].(string)
		case "moat_headers":
			p := sitePolicy{}
			raw, err := json.Marshal(handler)
			if err == nil && json.Unmarshal(raw, &p) == nil {
				p.site = site
				*found = append(*found, p)
			}
		}
		collectPolicies(item, found)
	}
}

// printProposal prints the block and what it leaves out.
func printProposal(w io.Writer, p report.Proposal) error {
	var b strings.Builder
	b.WriteString(p.Block)
	if len(p.Apart) > 0 {
		b.WriteString("\n# Not allowed:\n")
	}
	for _, a := range p.Apart {
		fmt.Fprintf(&b, "# %s %s (%d reports): %s\n", a.Directive, a.Blocked, a.Count, a.Why)
	}
	for i, warning := range p.Warnings {
		if i == 0 {
			b.WriteString("\n# Worth a look:\n")
		}
		fmt.Fprintf(&b, "# %s\n", warning)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
