package command

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"text/tabwriter"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "limit",
		Usage: "show|reset <name> <key>... [--site <site>] [--address <interface>] [--config <path> [--adapter <name>]] [--json]",
		Short: "Shows what a caller has left of a limit, and gives it back",
		Long: `
Asks the running gateway, over Caddy's admin endpoint, what somebody has left of
a limit, or unblocks them. A reset counts on all instances that share the Redis,
and leaves an event of class admin.

There is one key for each key that the limit counts by, in their order:

    moat limit show login 192.0.2.7
    moat limit reset api u-1
    moat limit reset api main/u-1        only the u-1 of the issuer main
    moat limit show report 192.0.2.7 /reports

Of a limit "by header:X", "cookie:X" or "param:x", ip:192.0.2.7 means those from
that address who sent no such value. Without --site the limits of all sites with
that name are meant.

The exit code is 0 when it was done, 2 when not.`,
		CobraFunc: func(cmd *cobra.Command) {
			show := limitCommand("show", "Shows what a caller has left of a limit")
			reset := limitCommand("reset", "Gives a caller all of a limit back")
			cmd.AddCommand(show, reset)
			cmd.RunE = func(cmd *cobra.Command, args []string) error {
				if len(args) == 0 {
					return cmd.Help()
				}
				complainToken(cmd, fmt.Errorf("%q: must be show or reset", args[0]))
				return exitExplain(cmd, exitNothing)
			}
			refuseTokenFlags(cmd)
		},
	})
}

func limitCommand(name, short string) *cobra.Command {
	cmd := &cobra.Command{Use: name + " <name> <key>...", Short: short}
	cmd.Flags().String("site", "", "Site whose limit is meant; default: all")
	cmd.Flags().String("address", "", "Address of the admin endpoint; default: the one of the configuration, else localhost:2019")
	cmd.Flags().StringP("config", "c", "", "Configuration file that names the admin endpoint")
	cmd.Flags().StringP("adapter", "a", "", "Name of the config adapter")
	cmd.Flags().Bool("json", false, "Print one JSON object")
	tokenRun(cmd, func(cmd *cobra.Command, args []string) (int, error) { return 0, limitRequest(cmd, name, args) })
	return cmd
}

// limitState is what the admin endpoint says of one bucket.
type limitState struct {
	Site, Name, Subject, Limit string
	Remaining                  int64
	RetryAfterMS, ResetAfterMS int64
	Degraded                   bool
}

func limitRequest(cmd *cobra.Command, what string, args []string) error {
	if len(args) == 0 {
		return errors.New("needs the name of a limit and whom it counts")
	}
	flags := caddycmd.Flags{FlagSet: cmd.Flags()}
	address, err := caddycmd.DetermineAdminAPIAddress(flags.String("address"), nil, flags.String("config"), flags.String("adapter"))
	if err != nil {
		return fmt.Errorf("finding the admin endpoint: %w", err)
	}
	// In the body: Caddy logs the URI and the headers, and a key may be a credential.
	question, err := json.Marshal(map[string]any{"name": args[0], "keys": args[1:], "site": flags.String("site")})
	if err != nil {
		return err
	}
	header := http.Header{"Content-Type": {"application/json"}}
	answer, err := caddycmd.AdminAPIRequest(address, http.MethodPost, "/moat/limit/"+what, header, bytes.NewReader(question))
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxTokenInput))
	if err != nil {
		return fmt.Errorf("reading the answer of the admin endpoint: %w", err)
	}
	if flags.Bool("json") {
		_, err := cmd.OutOrStdout().Write(body)
		return err
	}
	return printLimits(cmd.OutOrStdout(), body)
}

func printLimits(w io.Writer, body []byte) error {
	var states struct{ Limits []limitState }
	if err := json.Unmarshal(body, &states); err != nil {
		return fmt.Errorf("the admin endpoint answered something else: %w", err)
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "SITE\tLIMIT\tGRANTS\tSUBJECT\tREMAINING\tNEXT IN\tALL IN\t")
	for _, s := range states.Limits {
		note := ""
		if s.Degraded {
			note = "counted by this instance alone: the shared store is away"
		}
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\n", s.Site, s.Name, s.Limit, s.Subject, s.Remaining,
			time.Duration(s.RetryAfterMS)*time.Millisecond, time.Duration(s.ResetAfterMS)*time.Millisecond, note)
	}
	return table.Flush()
}
