package command

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/moat-gateway/moat/internal/audit/journal"
)

func init() { auditCommands = append(auditCommands, newAuditVerify) }

// exitTampered is the exit code of moat audit verify for a trail that is not as it
// was written.
const exitTampered = 1

// verifyFlags are what else is asked of a trail.
type verifyFlags struct {
	keys       []string
	head       string
	fresh      time.Duration
	acceptLoss bool
	anyHead    bool
	json       bool
}

func newAuditVerify() *cobra.Command {
	var flags verifyFlags
	cmd := &cobra.Command{
		Use:   "verify <dir>",
		Short: "Says whether a trail is as it was written",
		Long: `
Reads a trail from its first line to its last and checks numbers, hashes,
signatures, the joins of its files and that it goes as far as its signed HEAD
says. A gateway may be running on it.

The exit code is 0 for a clean trail, 1 for one that was changed, with the first
place, and 2 when nothing could be told. docs/audit.md says what is checked and
how somebody else can do the same.

Whoever can replace a whole trail can name a key of their own in it: give the
public key that was kept elsewhere by --public-key. Whoever can put a whole
directory back to what it was earlier leaves no trace in it: give a HEAD that was
kept elsewhere by --head.`,
	}
	f := cmd.Flags()
	f.StringArrayVar(&flags.keys, "public-key", nil, "PEM file with the public key the trail must begin with; may stand often")
	f.StringVar(&flags.head, "head", "", "HEAD of this trail that was kept elsewhere")
	f.DurationVar(&flags.fresh, "fresh", 0, "Longest time since the last checkpoint, for a gateway that is running")
	f.BoolVar(&flags.acceptLoss, "accept-loss", false, "Accept what the journal itself recorded as missing when it was opened")
	f.BoolVar(&flags.anyHead, "part", false, "Accept a trail whose beginning is missing, such as a copy of its last days")
	f.BoolVar(&flags.json, "json", false, "Print one JSON object")
	tokenRun(cmd, func(cmd *cobra.Command, args []string) (int, error) {
		if len(args) != 1 {
			return 0, fmt.Errorf("%d arguments: needs the directory of a trail", len(args))
		}
		return verifyTrail(cmd.OutOrStdout(), args[0], flags)
	})
	return cmd
}

func (f *verifyFlags) options() (journal.VerifyOptions, error) {
	o := journal.VerifyOptions{AcceptLoss: f.acceptLoss, AnyHead: f.anyHead}
	var errs []error
	for _, file := range f.keys {
		key, err := journal.ReadPublicKey(file)
		errs, o.Keys = append(errs, err), append(o.Keys, key)
	}
	if f.head != "" {
		head, err := journal.ReadHead(f.head)
		errs, o.Head = append(errs, err), &head
	}
	if f.fresh < 0 {
		errs = append(errs, fmt.Errorf("--fresh %s: must be positive", f.fresh))
	}
	return o, errors.Join(errs...)
}

func verifyTrail(w io.Writer, dir string, flags verifyFlags) (int, error) {
	opts, err := flags.options()
	if err != nil {
		return 0, err
	}
	report, err := journal.Verify(dir, opts)
	var fault *journal.Fault
	if err != nil && !errors.As(err, &fault) {
		return 0, err
	}
	if fault == nil && flags.fresh > 0 && time.Since(report.CheckedAt) > flags.fresh {
		fault = &journal.Fault{File: journal.HeadFile, Line: 1, Reason: fmt.Sprintf("the last checkpoint is older than %s", flags.fresh)}
	}
	code := 0
	if fault != nil {
		code = exitTampered
	}
	if flags.json {
		return code, json.NewEncoder(w).Encode(struct {
			Clean  bool            `json:"clean"`
			Fault  *journal.Fault  `json:"fault,omitempty"`
			Report *journal.Report `json:"report"`
		}{fault == nil, fault, &report})
	}
	printVerified(w, opts.Keys, report, fault)
	return code, nil
}

func printVerified(w io.Writer, pinned []ed25519.PublicKey, r journal.Report, fault *journal.Fault) {
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format+"\n", args...) }
	if fault != nil {
		say("CHANGED  %s:%d: %s", fault.File, fault.Line, fault.Reason)
		say("%d lines before it are as they were written.", r.Events)
		return
	}
	say("clean    %d lines, number %d to %d, in %d files, %d openings", r.Events, r.FirstSeq, r.LastSeq, r.Segments, r.Epochs)
	say("from     %s to %s", r.From.UTC().Format(time.RFC3339), r.To.UTC().Format(time.RFC3339))
	if r.Removed {
		say("begins   behind lines that were removed because of their age or number, or that are not in this copy")
	}
	switch {
	case !r.Signed:
		say("unsigned whoever can write to the directory can change all of it")
	case len(pinned) == 0:
		say("signed   by %s, as the trail itself says: compare the key, or give it by --public-key", r.Key)
	default:
		say("signed   by %s", r.Key)
	}
	if r.Signed {
		say("checked  %d checkpoints, the last at %s; %d lines behind the last signature", r.Checkpoints, r.CheckedAt.Format(time.RFC3339), r.Unsigned)
	}
	say("last     %s", r.LastHash)
}
