package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

// The exit codes of explain. That nothing can be told must never look like an
// answer.
const (
	exitAllowed = 0
	exitRefused = 1
	exitUnknown = 2
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name: "explain",
		Usage: "[--config <file>] [--adapter <name>] [--json] <method> <url> " +
			"[--token <token> | --user <id> --tenant <id> --role <role>]",
		Short: "Says what the gate does to a request, and why",
		Long: `
Adapts and provisions the configuration, without starting it, and sends one
request through its routes. Each step says what it does: the guard, the rule
that matches, the limits that apply, who the caller is, the decision with rule,
file and line, and what comes next. No limit is charged, nothing is recorded and
no upstream is asked. What stands in the URL behind the host is sent byte for
byte, as a client with no scruples would.

The caller is the one that --token names, or the one that --user, --tenant,
--role, --issuer and --claims tell; then the issuers' keys and secrets are not
needed. With neither, it is a stranger.

With --cases a file of requests and expected answers is checked instead; it
prints failures, and the rules that no case covers.

Exit code: 0 allowed (or all cases pass), 1 refused (or a case fails), 2 nothing
can be told: an error in the configuration or in the question, no site for the
URL, no gate on its route, or keys that could not be had.`,
		CobraFunc: func(cmd *cobra.Command) {
			q := new(question)
			q.flags(cmd)
			cmd.SilenceErrors = true
			cmd.RunE = func(cmd *cobra.Command, args []string) error {
				return exitExplain(cmd, q.run(cmd, args))
			}
			cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
				complainExplain(os.Stderr, err)
				return exitExplain(cmd, exitUnknown)
			})
		},
	})
}

// errRefused ends the process with exit code 1. It is printed nowhere.
var errRefused = errors.New("refused")

// exitExplain makes Caddy's command line end the process with a code. Only its own
// wrapper can make a code other than 0 and 1.
func exitExplain(cmd *cobra.Command, code int) error {
	switch code {
	case exitAllowed:
		return nil
	case exitRefused:
		return errRefused
	}
	return caddycmd.WrapCommandFuncForCobra(func(caddycmd.Flags) (int, error) { return code, nil })(cmd, nil)
}

func complainExplain(w io.Writer, err error) { _, _ = fmt.Fprintf(w, "moat explain: %v\n", err) }

// run answers the question and prints the answer.
func (q *question) run(cmd *cobra.Command, args []string) (code int) {
	code, err := q.answer(cmd.Context(), cmd.InOrStdin(), cmd.OutOrStdout(), args)
	if err != nil {
		complainExplain(cmd.ErrOrStderr(), err)
		return exitUnknown
	}
	return code
}

func (q *question) answer(ctx context.Context, in io.Reader, out io.Writer, args []string) (int, error) {
	if ctx == nil {
		ctx = context.Background()
	}
	if err := q.check(args); err != nil {
		return 0, err
	}
	var list []testCase
	var request *request
	var err error
	if q.cases != "" {
		list, err = readCases(q.cases, in)
	} else {
		request, err = q.request(args, in)
	}
	if err != nil {
		return 0, err
	}
	g, err := openGateways(q.config, q.adapter)
	if err != nil {
		return 0, err
	}
	defer g.close()
	if q.cases != "" {
		return runCases(ctx, g, list, out, q.json)
	}
	a, err := g.ask(ctx, request)
	if err != nil {
		return 0, err
	}
	if err := a.print(out, q.json); err != nil {
		return 0, err
	}
	return a.exit(), nil
}
