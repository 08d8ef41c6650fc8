package command

import (
	"fmt"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

// auditCommands are the commands below moat audit.
var auditCommands []func() *cobra.Command

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "audit",
		Usage: "verify|tail|search <dir>",
		Short: "Checks and reads an audit trail",
		Long: `
Checks and reads the directory of a gateway's audit trail. A gateway may be
running on it; nothing is written there. docs/audit.md explains more.`,
		CobraFunc: func(cmd *cobra.Command) {
			for _, make := range auditCommands {
				cmd.AddCommand(make())
			}
			cmd.RunE = func(cmd *cobra.Command, args []string) error {
				if len(args) == 0 {
					return cmd.Help()
				}
				complainToken(cmd, fmt.Errorf("%q: must be verify, tail or search", args[0]))
				return exitExplain(cmd, exitNothing)
			}
			refuseTokenFlags(cmd)
		},
	})
}
