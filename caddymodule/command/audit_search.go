package command

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/moat-gateway/moat/internal/audit"
	"github.com/moat-gateway/moat/internal/audit/reader"
)

func init() { auditCommands = append(auditCommands, newAuditSearch) }

// exitNotFound is the exit code of a search that found nothing.
const exitNotFound = 1

// filterHelp is what tail and search say of their filters.
const filterHelp = `
An event must fit every filter. A filter that stands often is fit by any of its
values. --action, --reason and --path take a whole value, or the beginning of one
and "*". --since is the first moment that counts and --until the first that no
longer does: RFC 3339, or a time before now such as 15m, 24h or 7d.

A table shows times in UTC. What could steer a terminal is shown as an escape,
and what is long is cut; --json prints the lines exactly as they are in the trail.`

// searchFlags say what is searched and how it is shown.
type searchFlags struct {
	filter  filterFlags
	json    bool
	reverse bool
	limit   int
}

func newAuditSearch() *cobra.Command {
	var flags searchFlags
	cmd := &cobra.Command{
		Use:   "search <dir>",
		Short: "Shows the events of a trail that fit filters",
		Long: `
Shows the events that fit all filters, from the oldest. A gateway may be running
on the trail.
` + filterHelp + `

The exit code is 0 when something was found, 1 when not, 2 when the trail could
not be read.`,
	}
	flags.filter.add(cmd)
	f := cmd.Flags()
	f.BoolVar(&flags.json, "json", false, "Print the lines of the trail as they are")
	f.BoolVar(&flags.reverse, "reverse", false, "Print the newest event first")
	f.IntVar(&flags.limit, "limit", 0, "Most events that are printed; default: all")
	tokenRun(cmd, func(cmd *cobra.Command, args []string) (int, error) {
		filter, err := flags.filter.read(time.Now())
		if cmd.Flags().Changed("limit") && flags.limit < 1 {
			err = errors.Join(err, fmt.Errorf("--limit %d: must be at least 1", flags.limit))
		}
		if err := errors.Join(oneTrail(args), err); err != nil {
			return 0, err
		}
		return search(cmd, args[0], filter, flags)
	})
	return cmd
}

func oneTrail(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("%d arguments: needs the directory of a trail", len(args))
	}
	return nil
}

func search(cmd *cobra.Command, dir string, filter *reader.Filter, flags searchFlags) (int, error) {
	trail, err := reader.Open(dir)
	if err != nil {
		return 0, err
	}
	out, found := newEventPrinter(cmd.OutOrStdout(), flags.json), 0
	visit := func(e *reader.Event) error {
		if err := out.print(e); err != nil {
			return err
		}
		if found++; found == flags.limit {
			return reader.ErrEnough
		}
		return nil
	}
	if flags.reverse {
		_, err = trail.Backward(filter, visit)
	} else {
		err = trail.Forward(filter, visit)
	}
	err = errors.Join(err, out.flush())
	(&passedOver{cmd: cmd, trail: trail}).say()
	if found == 0 {
		return exitNotFound, err
	}
	return 0, err
}

// passedOver says what of a trail could not be looked at.
type passedOver struct {
	cmd   *cobra.Command
	trail *reader.Trail

	noEvents, removed int // what was said
}

// say says it when there is more of it than last time.
func (p *passedOver) say() {
	if n := p.trail.NoEvents; n > p.noEvents {
		p.noEvents = n
		complainToken(p.cmd, fmt.Errorf("passed over lines that are no events: %d", n))
	}
	if n := p.trail.Removed; n > p.removed {
		p.removed = n
		complainToken(p.cmd, fmt.Errorf("passed over files that were removed meanwhile: %d", n))
	}
}

// filterFlags are the filters of tail and search.
type filterFlags struct {
	users, actions, outcomes, severities, classes, reasons []string
	requestIDs, ips, tenants, paths                        []string
	minSeverity, since, until                              string
}

func (v *filterFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVar(&v.users, "user", nil, "User (userId) of the event")
	f.StringArrayVar(&v.actions, "action", nil, `Action, or its beginning and "*"`)
	f.StringArrayVar(&v.outcomes, "outcome", nil, "Outcome: "+strings.Join(outcomes, ", "))
	f.StringArrayVar(&v.severities, "severity", nil, "Severity: "+strings.Join(reader.Severities, ", "))
	f.StringVar(&v.minSeverity, "min-severity", "", "Least severity")
	f.StringArrayVar(&v.classes, "class", nil, "Class: "+strings.Join(classes, ", "))
	f.StringArrayVar(&v.reasons, "reason", nil, `Reason, or its beginning and "*"`)
	f.StringArrayVar(&v.requestIDs, "request-id", nil, "Id of the request")
	f.StringArrayVar(&v.ips, "ip", nil, "Address of the client, prefix such as 192.0.2.0/24, or pseudonym")
	f.StringArrayVar(&v.tenants, "tenant", nil, "Tenant of the user")
	f.StringArrayVar(&v.paths, "path", nil, `Path, or its beginning and "*"`)
	f.StringVar(&v.since, "since", "", "First moment that counts: RFC 3339, or a time before now")
	f.StringVar(&v.until, "until", "", "First moment that no longer counts: RFC 3339, or a time before now")
}

var (
	outcomes = []string{string(audit.Allow), string(audit.Deny), string(audit.Failure), string(audit.Aborted)}
	classes  = []string{string(audit.Access), string(audit.Security), string(audit.Admin)}
)

// read returns the filter that the flags mean, or all that is wrong with them.
func (v *filterFlags) read(now time.Time) (*reader.Filter, error) {
	f := &reader.Filter{
		Users: v.users, Actions: v.actions, Outcomes: v.outcomes, Severities: v.severities, Classes: v.classes,
		Reasons: v.reasons, RequestIDs: v.requestIDs, Tenants: v.tenants, Paths: v.paths, MinSeverity: v.minSeverity,
	}
	errs := []error{
		noneEmpty("user", v.users), noneEmpty("action", v.actions), noneEmpty("reason", v.reasons),
		noneEmpty("request-id", v.requestIDs), noneEmpty("tenant", v.tenants), noneEmpty("path", v.paths),
		allOf("outcome", v.outcomes, outcomes), allOf("severity", v.severities, reader.Severities),
		allOf("class", v.classes, classes),
	}
	if v.minSeverity != "" {
		errs = append(errs, allOf("min-severity", []string{v.minSeverity}, reader.Severities))
	}
	errs = append(errs, v.readIPs(f), v.readTimes(f, now))
	return f, errors.Join(errs...)
}

func noneEmpty(flag string, values []string) error {
	if slices.ContainsFunc(values, func(value string) bool { return strings.TrimSpace(value) == "" }) {
		return fmt.Errorf("--%s: is empty", flag)
	}
	return nil
}

func allOf(flag string, values, words []string) error {
	var errs []error
	for _, value := range values {
		if !slices.Contains(words, value) {
			errs = append(errs, fmt.Errorf("--%s %.64q: must be one of %s", flag, value, strings.Join(words, ", ")))
		}
	}
	return errors.Join(errs...)
}

// pseudonymForm is that of what a trail with pseudonyms has in the place of an
// address.
var pseudonymForm = regexp.MustCompile(`^p:[0-9a-f]{32}$`)

func (v *filterFlags) readIPs(f *reader.Filter) error {
	var errs []error
	for _, value := range v.ips {
		prefix, err := parsePrefix(value)
		switch {
		case pseudonymForm.MatchString(value):
			f.Pseudonyms = append(f.Pseudonyms, value)
		case err != nil:
			errs = append(errs, fmt.Errorf("--ip %.64q: must be an address such as 192.0.2.7, a prefix such as 192.0.2.0/24, or a pseudonym", value))
		default:
			f.Addresses = append(f.Addresses, prefix)
		}
	}
	return errors.Join(errs...)
}

func parsePrefix(value string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(value); err == nil {
		addr = addr.Unmap().WithZone("")
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(value)
	if err == nil && prefix.Addr().Is4In6() {
		// Events name IPv4 addresses as such.
		if prefix.Bits() < 96 {
			return prefix, errors.New("is wider than IPv4")
		}
		prefix = netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()-96)
	}
	return prefix.Masked(), err
}

func (v *filterFlags) readTimes(f *reader.Filter, now time.Time) error {
	var errs [2]error
	f.Since, errs[0] = parseMoment("since", v.since, now)
	f.Until, errs[1] = parseMoment("until", v.until, now)
	if err := errors.Join(errs[:]...); err != nil {
		return err
	}
	if v.since != "" && v.until != "" && !f.Since.Before(f.Until) {
		return fmt.Errorf("--since %s: must be before --until %s", v.since, v.until)
	}
	return nil
}

// parseMoment reads a time. Empty is none.
func parseMoment(flag, value string, now time.Time) (time.Time, error) {
	if value == "" {
		return time.Time{}, nil
	}
	if at, err := time.Parse(time.RFC3339, value); err == nil && !at.IsZero() {
		return at, nil
	}
	if ago, ok := parseAgo(value); ok {
		return now.Add(-ago), nil
	}
	return time.Time{}, fmt.Errorf("--%s %.64q: must be a time such as 2026-07-01T09:00:00Z, or one before now such as 15m, 24h or 7d", flag, value)
}

// parseAgo reads a duration above zero. It may begin with days, which Go's do not
// have.
func parseAgo(value string) (time.Duration, bool) {
	var ago time.Duration
	if days, rest, ok := strings.Cut(value, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		if err != nil {
			return 0, false
		}
		ago, value = time.Duration(n)*24*time.Hour, rest
	}
	if value == "" {
		return ago, ago > 0
	}
	rest, err := time.ParseDuration(value)
	return ago + rest, err == nil && rest > 0 && ago+rest > 0
}
