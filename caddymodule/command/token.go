package command

import (
	"bytes"
	"fmt"
	"io"
	"os"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

// exitNothing is the exit code of a token command that could not do, or not
// tell, what it was asked for.
const exitNothing = 2

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "token",
		Usage: "keygen|sign|inspect",
		Short: "Makes development keys and tokens, and says what is wrong with one",
		Long: `
Makes keys and tokens for development and tests, and says what a gateway makes
of a token, and why. None of it uses a network. docs/token.md explains more.

A gateway issues no credentials: whoever can sign tokens of an issuer is that
issuer. Do not give a gateway that others use a key made here.`,
		CobraFunc: func(cmd *cobra.Command) {
			cmd.AddCommand(newKeygen(), newTokenSign(), newTokenInspect())
			cmd.RunE = func(cmd *cobra.Command, args []string) error {
				if len(args) == 0 {
					return cmd.Help()
				}
				complainToken(cmd, fmt.Errorf("%q: must be keygen, sign or inspect", args[0]))
				return exitExplain(cmd, exitNothing)
			}
			refuseTokenFlags(cmd)
		},
	})
}

// tokenRun makes a function of a command: its error is printed, and the exit
// code is then 2.
func tokenRun(cmd *cobra.Command, run func(cmd *cobra.Command, args []string) (int, error)) {
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		code, err := 0, emptyFlag(cmd.Flags())
		if err == nil {
			code, err = run(cmd, args)
		}
		if err != nil {
			complainToken(cmd, err)
			code = exitNothing
		}
		return exitExplain(cmd, code)
	}
	refuseTokenFlags(cmd)
}

// noArguments does not show them: one may be a secret.
func noArguments(args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%d arguments: everything is said by flags", len(args))
	}
	return nil
}

func refuseTokenFlags(cmd *cobra.Command) {
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		complainToken(cmd, err)
		return exitExplain(cmd, exitNothing)
	})
}

func complainToken(cmd *cobra.Command, err error) {
	_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "%s: %v\n", cmd.CommandPath(), err)
}

// maxTokenInput bounds a file that a token command reads: a key, a key set or a
// secret.
const maxTokenInput = 1 << 20

// readInput reads a file that a flag names.
func readInput(flag, name string) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	defer func() { _ = file.Close() }()
	data, err := io.ReadAll(io.LimitReader(file, maxTokenInput+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: %w", flag, err)
	case len(data) > maxTokenInput:
		return nil, fmt.Errorf("%s %s: must have at most %d bytes", flag, name, maxTokenInput)
	}
	return data, nil
}

// secretFlags say where a shared secret is. It is never an argument: others can
// see those, and a shell remembers them.
type secretFlags struct {
	file, variable string
}

func (s *secretFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&s.file, "secret-file", "", "File with a shared secret; one line end at its end does not count")
	cmd.Flags().StringVar(&s.variable, "secret-env", "", "Name of the environment variable with a shared secret")
}

func (s *secretFlags) given() bool { return s.file != "" || s.variable != "" }

// read returns the bytes that {file.…} or {env.…} stand for in a Caddyfile.
func (s *secretFlags) read() ([]byte, error) {
	if s.variable != "" {
		value := os.Getenv(s.variable)
		if value == "" {
			return nil, fmt.Errorf("--secret-env %s: is not set or empty", s.variable)
		}
		return []byte(value), nil
	}
	data, err := readInput("--secret-file", s.file)
	if err != nil {
		return nil, err
	}
	data = bytes.TrimSuffix(bytes.TrimSuffix(data, []byte("\n")), []byte("\r"))
	if len(data) == 0 {
		return nil, fmt.Errorf("--secret-file %s: is empty", s.file)
	}
	return data, nil
}
