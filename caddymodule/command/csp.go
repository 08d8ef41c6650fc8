package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/moat-gateway/moat/caddymodule/internal/explanation"
	"github.com/moat-gateway/moat/internal/audit"
	"github.com/moat-gateway/moat/internal/audit/reader"
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
	config, adapter, site, part, preset string
	since, until                        string
	options                             report.Options
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

It begins with the policy that the reports are about: that of the site in --config, or
of a part of it, or that of --preset. Reports about other sites and parts do not count.`,
	}
	f := cmd.Flags()
	f.StringVar(&flags.config, "config", "", "Configuration with the policy that the reports are about")
	f.StringVar(&flags.adapter, "adapter", "", "Adapter of the configuration, such as caddyfile")
	f.StringVar(&flags.site, "site", "", "Label of the site in it; default: the only one with a policy")
	f.StringVar(&flags.part, "part", "", "Pattern of a part of the site with headers of its own; default: the site")
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
	about, err := flags.policy()
	if err != nil {
		return 0, err
	}
	found := &findings{site: about.site, part: about.Part}
	if err := found.read(args[0], filter); err != nil {
		return 0, err
	}
	if len(found.evidence) == 0 {
		return exitNotFound, fmt.Errorf("no violation was reported%s; a csp block needs a line such as `report /-/csp`", found.elsewhere())
	}
	if len(found.sites) > 1 {
		return 0, fmt.Errorf("--site: the reports are about several sites, and a policy is that of one: %q", slices.Sorted(maps.Keys(found.sites)))
	}
	flags.options.Words, flags.options.Whole = about.Words, about.Whole
	proposal, err := report.Propose(found.evidence, about.CSP, flags.options)
	if err != nil {
		return 0, err
	}
	return 0, printProposal(cmd.OutOrStdout(), proposal, found)
}

// findings are the violations of a trail.
type findings struct {
	site, part string // of those that count
	evidence   []report.Evidence
	// others counts the reports about other sites and parts.
	others map[string]int64
	sites  map[string]bool // of what counts
}

// violation is what an event says of one.
type violation struct {
	IP      string `json:"ip"`
	Path    string `json:"path"`
	Details struct {
		Directive, Blocked, Kind, Disposition string
		Site, Part                            string
		Count                                 int64
		Networks                              int
		Noise                                 bool
	} `json:"details"`
}

func (f *findings) read(dir string, filter *reader.Filter) error {
	trail, err := reader.Open(dir)
	if err != nil {
		return err
	}
	f.others, f.sites = make(map[string]int64), make(map[string]bool)
	return trail.Forward(filter, func(e *reader.Event) error {
		var v violation
		if err := json.Unmarshal(e.Raw, &v); err != nil {
			return err
		}
		f.add(&v, e.Time)
		return nil
	})
}

// add sorts an event. One without a site is of a gateway that is composed of single
// handlers, and may be about any.
func (f *findings) add(v *violation, at time.Time) {
	d := &v.Details
	if d.Site != "" && f.site != "" && d.Site != f.site || d.Part != f.part {
		f.others[strings.TrimSpace(d.Site+" "+d.Part)] += d.Count
		return
	}
	if d.Site != "" {
		f.sites[d.Site] = true
	}
	f.evidence = append(f.evidence, report.Evidence{
		Violation: report.Violation{
			Directive: d.Directive, Blocked: d.Blocked, Kind: report.Kind(d.Kind), Document: v.Path,
			Disposition: d.Disposition, Noise: d.Noise,
		},
		Count: d.Count, From: network(v.IP), Networks: d.Networks, First: at, Last: at,
	})
}

// network names the network of an address. A pseudonym names none: one sender may have
// many.
func network(ip string) string {
	addr, err := netip.ParseAddr(ip)
	if err != nil {
		return ""
	}
	return report.Network(addr).String()
}

// elsewhere says what was left out.
func (f *findings) elsewhere() string {
	if len(f.others) == 0 {
		return ""
	}
	var words []string
	for _, name := range slices.Sorted(maps.Keys(f.others)) {
		words = append(words, f.other(name))
	}
	return " about it; other reports: " + strings.Join(words, ", ") + " (--site, --part)"
}

func (f *findings) other(name string) string {
	if name == "" {
		return fmt.Sprintf("%d about the site itself", f.others[name])
	}
	return fmt.Sprintf("%d about %q", f.others[name], name)
}

// sitePolicy is one that a configuration says.
type sitePolicy struct {
	explanation.ContentPolicy
	site string
}

func (p *sitePolicy) name() string { return strings.TrimSpace(p.site + " " + p.Part) }

// policy is the one that the reports are about.
func (f *proposeFlags) policy() (*sitePolicy, error) {
	policies, err := f.policies()
	if err != nil {
		return nil, err
	}
	var all []string
	var found []*sitePolicy
	for _, p := range policies {
		all = append(all, p.name())
		if (f.site == "" || f.site == p.site) && f.part == p.Part {
			found = append(found, p)
		}
	}
	if len(found) != 1 {
		return nil, fmt.Errorf("--site %q --part %q: there must be one policy, and there are %d; the sites and parts with one are: %s",
			f.site, f.part, len(found), strings.Join(all, ", "))
	}
	return found[0], nil
}

func (f *proposeFlags) policies() ([]*sitePolicy, error) {
	if f.config != "" {
		text, err := explainedConfig(f.config, f.adapter)
		if err != nil {
			return nil, err
		}
		return policiesIn(text)
	}
	preset := map[string]any{"handler": "moat_headers", "preset": f.preset, "report_only": true, "site": f.site}
	return policiesOf(preset, f.site)
}

// policiesIn finds the policies of a configuration, each with the label of the site
// that the moat_audit before it names.
func policiesIn(text []byte) ([]*sitePolicy, error) {
	var config any
	if err := json.Unmarshal(text, &config); err != nil {
		return nil, err
	}
	var found []*sitePolicy
	if err := collectPolicies(config, &found); err != nil {
		return nil, err
	}
	// An error route repeats its site's headers, without a label.
	if labeled := func(p *sitePolicy) bool { return p.site != "" }; slices.ContainsFunc(found, labeled) {
		found = slices.DeleteFunc(found, func(p *sitePolicy) bool { return !labeled(p) })
	}
	if len(found) == 0 {
		return nil, errors.New("the configuration has no site with headers")
	}
	return found, nil
}

func collectPolicies(value any, found *[]*sitePolicy) error {
	var errs []error
	if object := objectIn(value); object != nil {
		for _, key := range slices.Sorted(maps.Keys(object)) {
			errs = append(errs, collectPolicies(object[key], found))
		}
	}
	site := ""
	for _, item := range listIn(value) {
		handler := objectIn(item)
		switch handler["handler"] {
		case "moat_audit":
			site, _ = handler["site"].(string)
		case "moat_headers":
			policies, err := policiesOf(handler, site)
			errs = append(errs, err)
			*found = append(*found, policies...)
		}
		errs = append(errs, collectPolicies(item, found))
	}
	return errors.Join(errs...)
}

// policiesOf are those of a moat_headers handler, which reads its own settings.
func policiesOf(handler map[string]any, site string) ([]*sitePolicy, error) {
	info, err := caddy.GetModule("http.handlers.moat_headers")
	if err != nil {
		return nil, err
	}
	holder, ok := info.New().(explanation.ContentPolicyHolder)
	if !ok {
		return nil, errors.New("moat_headers has no policies")
	}
	raw, err := json.Marshal(handler)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(raw, holder); err != nil {
		return nil, err
	}
	policies, err := holder.ContentPolicies()
	out := make([]*sitePolicy, 0, len(policies))
	for _, p := range policies {
		out = append(out, &sitePolicy{ContentPolicy: p, site: site})
	}
	return out, err
}

// maxApart bounds the lines about what is not allowed.
const maxApart = 100

// printProposal prints the block and what it leaves out.
func printProposal(w io.Writer, p report.Proposal, found *findings) error {
	var b strings.Builder
	b.WriteString(p.Block)
	section(&b, "Not allowed", len(p.Apart), func(i int) string { return p.Apart[i].Sentence() })
	section(&b, "Worth a look", len(p.Warnings), func(i int) string { return p.Warnings[i] })
	others := slices.Sorted(maps.Keys(found.others))
	section(&b, "Reports that are not about this policy (--site, --part)", len(others), func(i int) string { return found.other(others[i]) })
	_, err := io.WriteString(w, b.String())
	return err
}

// section writes lines as comments below a title.
func section(b *strings.Builder, title string, n int, line func(int) string) {
	if n > 0 {
		fmt.Fprintf(b, "\n# %s:\n", title)
	}
	for i := range min(n, maxApart) {
		fmt.Fprintf(b, "# %s\n", line(i))
	}
	if n > maxApart {
		fmt.Fprintf(b, "# %d more are not shown.\n", n-maxApart)
	}
}
