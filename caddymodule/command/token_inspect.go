package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/moat-gateway/moat/internal/token"
)

// inspectedIssuer is the name of an issuer that no configuration names. It is
// shown nowhere.
const inspectedIssuer = "inspected"

// keyFlags say what a token is checked with.
type keyFlags struct {
	keys   []string
	jwks   string
	secret secretFlags
}

func (k *keyFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVar(&k.keys, "key", nil, "PEM file with public keys or certificates; several")
	f.StringVar(&k.jwks, "jwks", "", "File with a key set, for example one that you fetched")
	k.secret.add(cmd)
}

// given reports whether there are keys. Two kinds are an error.
func (k *keyFlags) given() (bool, error) {
	given := 0
	for _, there := range []bool{len(k.keys) > 0, k.jwks != "", k.secret.file != "", k.secret.variable != ""} {
		if there {
			given++
		}
	}
	if given > 1 {
		return false, errors.New("--key, --jwks, --secret-file and --secret-env: at most one of them")
	}
	if strings.Contains(k.jwks, "://") {
		return false, errors.New("--jwks: must be a file; nothing is fetched over a network")
	}
	return given == 1, nil
}

// read reads the keys.
func (k *keyFlags) read() ([]token.Key, error) {
	switch {
	case k.secret.given():
		secret, err := k.secret.read()
		if err != nil {
			return nil, err
		}
		key, err := token.NewSecret(secret, "")
		return []token.Key{key}, err
	case k.jwks != "":
		return parseKeys("--jwks", k.jwks, token.ParseJWKS)
	}
	var keys []token.Key
	for _, name := range k.keys {
		found, err := parseKeys("--key", name, token.ParsePEM)
		if err != nil {
			return nil, err
		}
		keys = append(keys, found...)
	}
	return keys, nil
}

func parseKeys(flag, name string, parse func([]byte) ([]token.Key, error)) ([]token.Key, error) {
	data, err := readInput(flag, name)
	if err != nil {
		return nil, err
	}
	keys, err := parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", flag, name, err)
	}
	return keys, nil
}

// tokenInspect is the command line of moat token inspect.
type tokenInspect struct {
	file          string
	keys          keyFlags
	issuer        issuerFlags
	iss, aud, alg []string
	json          bool
	at            string
}

func newTokenInspect() *cobra.Command {
	i := new(tokenInspect)
	cmd := &cobra.Command{
		Use: "inspect -|<token>|--file <file> [--config <file>] [--issuer <name>] " +
			"[--key <file>...|--jwks <file>|--secret-file <file>|--secret-env <name>] [--json]",
		DisableFlagsInUseLine: true,
		Short:                 "Says which check a token fails, and why",
		Long: `Shows the header and the claims of a token and what each check of the gateway
says to it, in the order in which it makes them; the first that fails is why the
gateway refuses. It is the gateway's own code that checks.

With --config or --issuer the token is judged by the rules and the keys of that
issuer. Nothing is fetched over a network: where the keys are at a key server,
everything but the signature is checked, and --jwks takes a set that you fetched.
Key flags go before the issuer's own keys.

With a key flag alone the rules are those of an issuer without settings, and iss
and aud are checked as --iss and --aud say. With none of these there is nothing to
verify with; the checks show what an issuer without settings would say besides.

The signature is never printed. - reads the token from standard input, where it
stays out of the shell's history.

Exit code: 0 accepted, or well-formed when there is nothing to verify with;
1 refused; 2 nothing can be told: an error, or keys that are at a key server.`,
		Example: `  moat token inspect --config Caddyfile --issuer main --file token.txt
  pbpaste | moat token inspect - --key dev.public.pem --aud orders-api
  curl -s https://id.example.com/jwks > set.json
  moat token inspect - --config Caddyfile --jwks set.json < token.txt`,
	}
	f := cmd.Flags()
	f.StringVar(&i.file, "file", "", "File with the token; - for standard input")
	i.issuer.add(cmd)
	i.keys.add(cmd)
	f.StringArrayVar(&i.iss, "iss", nil, "Accepted issuer, without a configuration; several (default: any)")
	f.StringArrayVar(&i.aud, "aud", nil, "Accepted audience, without a configuration; several (default: any)")
	f.StringSliceVar(&i.alg, "alg", nil, "Accepted algorithms, without a configuration (default: what each key allows)")
	f.BoolVar(&i.json, "json", false, "Answer in JSON")
	f.StringVar(&i.at, "at", "", "Time at which the token is shown, RFC 3339 (default: now)")
	tokenRun(cmd, i.run)
	return cmd
}

func (i *tokenInspect) run(cmd *cobra.Command, args []string) (int, error) {
	at := time.Now()
	if i.at != "" {
		var err error
		if at, err = time.Parse(time.RFC3339, i.at); err != nil {
			return 0, fmt.Errorf("--at %q: must be a time such as 2026-07-01T09:00:00Z", i.at)
		}
	}
	judge, err := i.judge()
	if err != nil {
		return 0, err
	}
	raw, err := i.token(cmd, args)
	if err != nil {
		return 0, err
	}
	ctx := cmd.Context()
	if ctx == nil {
		ctx = context.Background()
	}
	seen, err := judge.verifier.Inspect(ctx, raw, at, judge.kind == judgedUnsigned)
	if err != nil {
		return 0, err
	}
	report := newTokenReport(judge, seen, at)
	if i.json {
		return report.exit(), explainJSON(cmd.OutOrStdout(), report)
	}
	return report.exit(), report.print(cmd.OutOrStdout())
}

// token reads the token.
func (i *tokenInspect) token(cmd *cobra.Command, args []string) (string, error) {
	given := slices.Clone(args)
	if i.file != "" {
		given = append(given, i.file)
	}
	switch {
	case len(given) != 1:
		return "", fmt.Errorf("%d tokens: one is needed, as - for standard input, as --file or as argument", len(given))
	case given[0] == "-":
		return readOneToken("standard input", cmd.InOrStdin())
	case i.file != "":
		file, err := os.Open(i.file)
		if err != nil {
			return "", fmt.Errorf("--file: %w", err)
		}
		defer func() { _ = file.Close() }()
		return readOneToken("--file "+i.file, file)
	}
	_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "%s: warning: a token as argument stays in the shell's history and shows in the list of processes; "+
		"- reads it from standard input\n", cmd.CommandPath())
	return args[0], nil
}

func readOneToken(place string, in io.Reader) (string, error) {
	data, err := io.ReadAll(io.LimitReader(in, maxTokenFile))
	if err != nil {
		return "", fmt.Errorf("%s: %w", place, err)
	}
	raw := strings.TrimSpace(string(data))
	if raw == "" {
		return "", fmt.Errorf("%s: is empty", place)
	}
	return raw, nil
}

// judgedBy is what there is to judge a token with.
type judgedBy int

const (
	judgedNothing  judgedBy = iota // it is only read
	judgedUnsigned                 // rules without keys
	judgedFully
)

// tokenJudge is a verifier and how far its word goes.
type tokenJudge struct {
	verifier *token.Verifier
	kind     judgedBy
	issuer   string // empty without a configuration
}

func (i *tokenInspect) judge() (*tokenJudge, error) {
	keys, err := i.keys.given()
	switch {
	case err != nil:
		return nil, err
	case i.issuer.given():
		return i.configured(keys)
	case len(i.alg) > 0 && !keys:
		return nil, errors.New("--alg: says which algorithms the keys serve, and there are no keys")
	}
	config := token.Config{
		Name:    inspectedIssuer,
		Issuers: i.iss, AnyIssuer: len(i.iss) == 0,
		Audience: i.aud, AnyAudience: len(i.aud) == 0,
		Algorithms: i.alg,
		KnownRole:  func(string) bool { return true },
	}
	j := &tokenJudge{kind: judgedFully}
	if !keys {
		j.kind = judgedNothing
		j.verifier, err = token.NewReader(config)
		return j, err
	}
	list, err := i.keys.read()
	if err != nil {
		return nil, err
	}
	if config.Keys, err = token.NewStaticKeys(list, i.alg); err != nil {
		return nil, err
	}
	j.verifier, err = token.NewVerifier(config)
	return j, err
}

func (i *tokenInspect) configured(keys bool) (*tokenJudge, error) {
	if len(i.iss)+len(i.aud)+len(i.alg) > 0 {
		return nil, errors.New("--iss, --aud and --alg: the configuration says what is accepted")
	}
	c, err := i.issuer.load()
	if err != nil {
		return nil, err
	}
	if keys {
		if err := c.use(&i.keys); err != nil {
			return nil, err
		}
	}
	j := &tokenJudge{kind: judgedFully, issuer: c.Name}
	if c.remote() {
		j.kind = judgedUnsigned
	}
	j.verifier, err = c.verifier()
	return j, err
}
