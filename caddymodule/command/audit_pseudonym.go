package command

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/moat-gateway/moat/internal/audit"
)

func init() { auditCommands = append(auditCommands, newAuditPseudonym) }

func newAuditPseudonym() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "pseudonym <key file> ip|user <value>",
		Short: "Prints what stands in a trail for an address or a user",
		Long: `
Prints the pseudonym of a value, for a search in a trail that was written with
pseudonymize. The key file is the one that the configuration names.`,
	}
	tokenRun(cmd, func(cmd *cobra.Command, args []string) (int, error) {
		if len(args) != 3 {
			return 0, fmt.Errorf("%d arguments: needs the key file, ip or user, and the value", len(args))
		}
		key, err := audit.ReadPseudonymKey(args[0])
		if err != nil {
			return 0, err
		}
		p, err := audit.NewPseudonyms(key, args[1])
		if err != nil {
			return 0, err
		}
		_, err = fmt.Fprintln(cmd.OutOrStdout(), p.Of(args[1], args[2]))
		return 0, err
	})
	return cmd
}
