package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/moat-gateway/moat/internal/audit/reader"
)

func init() { auditCommands = append(auditCommands, newAuditTail) }

const (
	defaultTail = 20
	// maxTail bounds what is kept in memory.
	maxTail = 10_000
)

// tailFlags say what is shown of the end of a trail and how.
type tailFlags struct {
	filter filterFlags
	json   bool
	follow bool
	lines  int
}

func newAuditTail() *cobra.Command {
	var flags tailFlags
	cmd := &cobra.Command{
		Use:   "tail <dir>",
		Short: "Shows the last events of a trail, and new ones as they are written",
		Long: `
Shows the last events that fit all filters, the oldest of them first. With
--follow it goes on with new ones until it is interrupted. A gateway may be
running on the trail.
` + filterHelp + `

The exit code is 0, also when there is nothing to show, and 2 when the trail could
not be read.`,
	}
	flags.filter.add(cmd)
	f := cmd.Flags()
	f.BoolVar(&flags.json, "json", false, "Print the lines of the trail as they are")
	f.BoolVarP(&flags.follow, "follow", "f", false, "Go on with new events until interrupted")
	f.IntVarP(&flags.lines, "lines", "n", defaultTail, "How many of the last events are shown")
	tokenRun(cmd, func(cmd *cobra.Command, args []string) (int, error) {
		filter, err := flags.filter.read(time.Now())
		if flags.lines < 0 || flags.lines > maxTail {
			err = errors.Join(err, fmt.Errorf("--lines %d: must be 0 to %d", flags.lines, maxTail))
		}
		if err := errors.Join(oneTrail(args), err); err != nil {
			return 0, err
		}
		return 0, tail(cmd, args[0], filter, flags)
	})
	return cmd
}

func tail(cmd *cobra.Command, dir string, filter *reader.Filter, flags tailFlags) error {
	trail, err := reader.Open(dir)
	if err != nil {
		return err
	}
	out, left := newEventPrinter(cmd.OutOrStdout(), flags.json), &passedOver{cmd: cmd, trail: trail}
	end, err := printLast(trail, filter, out, flags.lines)
	left.say()
	if err != nil || !flags.follow {
		return err
	}
	return followTrail(cmd.Context(), trail, end, filter, out, left)
}

// printLast prints the last n events that are meant, and returns where the trail
// ends.
func printLast(trail *reader.Trail, filter *reader.Filter, out *eventPrinter, n int) (reader.Place, error) {
	if n == 0 {
		return trail.End()
	}
	var last []*reader.Event
	end, err := trail.Backward(filter, func(e *reader.Event) error {
		if last = append(last, e.Clone()); len(last) == n {
			return reader.ErrEnough
		}
		return nil
	})
	if err != nil {
		return end, err
	}
	for _, e := range slices.Backward(last) {
		if err := out.print(e); err != nil {
			return end, err
		}
	}
	return end, out.flush()
}

// followTrail prints what is written behind a place until an interrupt.
func followTrail(ctx context.Context, trail *reader.Trail, from reader.Place, filter *reader.Filter, out *eventPrinter, left *passedOver) error {
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := trail.Follow(ctx, from, filter, out.print, func() error {
		left.say()
		return out.flush()
	})
	return errors.Join(err, out.flush())
}
