package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/moat-gateway/moat/caddymodule/internal/dispense"
	"github.com/moat-gateway/moat/caddymodule/internal/lint"
	"github.com/moat-gateway/moat/internal/rbac"
	"github.com/moat-gateway/moat/internal/rbac/policyfile"
)

// The exit codes of moat lint, beside success.
const (
	exitFindings   = 1 // at least one finding of severity high
	exitUnreadable = 2 // nothing could be judged
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "lint",
		Usage: "[--config <file> [--adapter <name>]] [--json] [<file>]",
		Short: "Says what weakens a configuration",
		Long: `
Adapts a configuration, starts nothing, and prints what weakens it: each finding
with a code, a severity (high, medium or low), the place, and how to mend it.
docs/lint.md explains every code.

The file is a Caddyfile or, with the extension .json, Caddy's JSON; --adapter
names another format. Policy files that it names are read, too.

The exit code is 0 when nothing of severity high was found, 1 when something
was, and 2 when the configuration could not be read.`,
		CobraFunc: func(cmd *cobra.Command) {
			cmd.Flags().String("config", "", "Configuration file; default: ./Caddyfile")
			cmd.Flags().String("adapter", "", "Name of the config adapter, for example caddyfile")
			cmd.Flags().Bool("json", false, "Print one JSON object")
			cmd.RunE = caddycmd.WrapCommandFuncForCobra(lintConfig)
			// 1 says that something was found; what was not understood is no finding.
			cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
				_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "moat lint: %v\n", err)
				return caddycmd.WrapCommandFuncForCobra(func(caddycmd.Flags) (int, error) { return exitUnreadable, nil })(cmd, nil)
			})
		},
	})
}

func lintConfig(flags caddycmd.Flags) (int, error) {
	if err := emptyFlag(flags.FlagSet); err != nil {
		return exitUnreadable, err
	}
	file, err := lintFile(flags.String("config"), flags.Args())
	if err != nil {
		return exitUnreadable, err
	}
	report, err := lintReport(file, flags.String("adapter"))
	if err != nil {
		return exitUnreadable, err
	}
	show := showFindings
	if flags.Bool("json") {
		show = encodeFindings
	}
	if err := show(os.Stdout, report); err != nil {
		return exitUnreadable, fmt.Errorf("printing: %w", err)
	}
	if n := report.Summary.High; n > 0 {
		// Caddy's command line has no exit code 1 without an error.
		return exitFindings, fmt.Errorf("findings of severity high: %d", n)
	}
	return caddy.ExitCodeSuccess, nil
}

// lintFile is the one file that is named, by flag or as argument.
func lintFile(config string, args []string) (string, error) {
	given := slices.Clone(args)
	if config != "" {
		given = append(given, config)
	}
	switch len(given) {
	case 0:
		return "", nil
	case 1:
		return given[0], nil
	}
	return "", fmt.Errorf("lint: one file at a time, but got %s", strings.Join(given, ", "))
}

func lintReport(file, adapter string) (*lint.Report, error) {
	if file == "" && adapter != "" {
		file = "Caddyfile"
	}
	config, file, adapter, err := caddycmd.LoadConfig(file, adapter)
	switch {
	case err != nil:
		return nil, err
	case len(config) == 0:
		return nil, errors.New("no configuration: name a file, because there is no Caddyfile here")
	}
	opts := lint.Options{RolesFile: rolesOf, RulesFile: rulesOf}
	if adapter == "caddyfile" && file != "-" {
		if opts.Lines, err = lintLines(file); err != nil {
			return nil, err
		}
	}
	return lint.Run(config, opts)
}

// lintLines parts a Caddyfile into its lines, as its parser does.
func lintLines(file string) ([]lint.Line, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	tokens, err := caddyfile.Tokenize(text, file)
	if err != nil {
		return nil, err
	}
	var lines []lint.Line
	for _, t := range tokens {
		if n := len(lines); n == 0 || lines[n-1].Number != t.Line {
			lines = append(lines, lint.Line{File: file, Number: t.Line})
		}
		last := &lines[len(lines)-1]
		last.Words = append(last.Words, t.Text)
	}
	return lines, nil
}

func rolesOf(path string) ([]rbac.RoleConfig, error) { return policyOf(path, policyfile.Roles) }

func rulesOf(path string) ([]rbac.RuleConfig, error) { return policyOf(path, policyfile.Rules) }

// policyOf reads a policy file as the gateway does when it starts.
func policyOf[T any](path string, parse func(string, []byte) ([]T, error)) ([]T, error) {
	path, err := dispense.Expand("path", path)
	if err != nil {
		return nil, err
	}
	data, err := policyfile.Read(path)
	if err != nil {
		return nil, err
	}
	return parse(path, data)
}

func encodeFindings(w io.Writer, report *lint.Report) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(report)
}

// showFindings prints the report for people.
func showFindings(w io.Writer, report *lint.Report) error {
	if len(report.Findings) == 0 {
		_, err := fmt.Fprintln(w, "no findings")
		return err
	}
	for _, f := range report.Findings {
		if _, err := fmt.Fprintf(w, "%s: %s: %s\n  %s\n  fix: %s\n\n", f.Place, f.Severity, f.Code, f.Message, f.Hint); err != nil {
			return err
		}
	}
	s := report.Summary
	_, err := fmt.Fprintf(w, "%d high, %d medium, %d low\n", s.High, s.Medium, s.Low)
	return err
}
