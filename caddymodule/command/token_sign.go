package command

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/spf13/cobra"

	"github.com/moat-gateway/moat/internal/token"
)

// defaultTTL is how long a signed token is good for, unless its issuer accepts
// less.
const defaultTTL = time.Hour

// tokenSign is the command line of moat token sign.
type tokenSign struct {
	key               string
	secret            secretFlags
	issuer            issuerFlags
	alg, kid, typ     string
	iss, sub, tenant  string
	aud, roles, claim []string
	ttl               string
}

func newTokenSign() *cobra.Command {
	s := new(tokenSign)
	cmd := &cobra.Command{
		Use: "sign --key <file>|--secret-file <file>|--secret-env <name> " +
			"[--config <file>] [--issuer <name>] [--iss <issuer>] [--aud <audience>...] --sub <id> [--role <role>...] [--claim <path>=<json>...]",
		Short: "Signs a token",
		Long: `Signs a token for development and prints it, and nothing else.

With --config or --issuer, what the issuer wants of a token is taken from the
configuration: iss, aud, azp, typ, an algorithm, the claims in which it looks for
id, tenant and roles, and a lifetime that it accepts. Flags go before that. The
issuer's own keys and secrets are not used: the key is always named here.

Every token gets iat, exp and a random jti. A --claim replaces what the other
flags say; its path goes into objects at dots, and a name in double quotes keeps
its dots. Nothing keeps you from signing a token that a gateway refuses: that is
what moat token inspect is for.

Exit code: 0 signed, 2 not.`,
		Example: `  moat token sign --key dev.private.pem --config Caddyfile --sub u-1 --role user
  moat token sign --secret-env DEV_SECRET --iss https://id.test --aud orders-api --sub u-1
  moat token sign --key dev.private.pem --config Caddyfile --sub u-1 --ttl -5m
  moat token sign --key dev.private.pem --config Caddyfile --sub u-1 \
      --claim 'realm_access.roles=["admin"]' --claim 'email="u@example.com"'`,
		DisableFlagsInUseLine: true,
	}
	s.flags(cmd)
	tokenRun(cmd, s.run)
	return cmd
}

func (s *tokenSign) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&s.key, "key", "", "PEM file with the private key")
	s.secret.add(cmd)
	s.issuer.add(cmd)
	f.StringVar(&s.alg, "alg", "", "Algorithm (default: the first that the issuer accepts and the key serves)")
	f.StringVar(&s.kid, "kid", "", "Name of the key, for the header (default: none)")
	f.StringVar(&s.typ, "typ", "", "Type of the token, for the header (default: JWT, or what the issuer accepts)")
	f.StringVar(&s.iss, "iss", "", "Issuer")
	f.StringArrayVar(&s.aud, "aud", nil, "Audience; several")
	f.StringVar(&s.sub, "sub", "", "Id of the caller")
	f.StringVar(&s.tenant, "tenant", "", "Tenant of the caller")
	f.StringSliceVar(&s.roles, "role", nil, "Role of the caller; several, or separated by commas")
	f.StringVar(&s.ttl, "ttl", "", "How long the token is good for (default: 1h, or what the issuer accepts); negative for an expired one")
	f.StringArrayVar(&s.claim, "claim", nil, "Claim as path=JSON; several. A text needs its quotes: 'email=\"u@example.com\"'")
}

func (s *tokenSign) run(cmd *cobra.Command, args []string) (int, error) {
	if err := noArguments(args); err != nil {
		return 0, err
	}
	key, public, err := s.signingKey()
	if err != nil {
		return 0, err
	}
	issuer := new(issuerSettings)
	if s.issuer.given() {
		c, err := s.issuer.load()
		if err != nil {
			return 0, err
		}
		issuer = &c.issuerSettings
	}
	alg := s.alg
	if alg == "" {
		if alg, err = chooseAlgorithm(public, issuer.Algorithms); err != nil {
			return 0, err
		}
	}
	claims, err := s.claims(issuer, time.Now())
	if err != nil {
		return 0, err
	}
	raw, err := token.Sign(claims, s.header(issuer), key, alg)
	if err != nil {
		return 0, err
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), raw)
	return 0, err
}

// signingKey returns what to sign with, and what it is checked with.
func (s *tokenSign) signingKey() (key, public any, err error) {
	given := 0
	for _, value := range []string{s.key, s.secret.file, s.secret.variable} {
		if value != "" {
			given++
		}
	}
	if given != 1 {
		return nil, nil, errors.New("--key, --secret-file and --secret-env: exactly one of them says what to sign with")
	}
	if s.secret.given() {
		secret, err := s.secret.read()
		return secret, secret, err
	}
	private, err := readPrivateKey(s.key)
	if err != nil {
		return nil, nil, err
	}
	return private, private.Public(), nil
}

func (s *tokenSign) header(issuer *issuerSettings) map[string]any {
	header := map[string]any{}
	if s.kid != "" {
		header["kid"] = s.kid
	}
	isJWT := func(typ string) bool { return strings.EqualFold(typ, "JWT") }
	switch {
	case s.typ != "":
		header["typ"] = s.typ
	case len(issuer.Typ) > 0 && !slices.ContainsFunc(issuer.Typ, isJWT):
		header["typ"] = issuer.Typ[0]
	}
	return header
}

// claims returns the claims of the token. What is missing is reported at once.
func (s *tokenSign) claims(issuer *issuerSettings, now time.Time) (map[string]any, error) {
	issued, expires, err := s.dates(issuer, now)
	if err != nil {
		return nil, err
	}
	c := &claimSet{claims: map[string]any{"iat": issued.Unix(), "exp": expires.Unix(), "jti": rand.Text()}}
	c.text("iss", cmp.Or(s.iss, first(issuer.Iss)))
	c.list("aud", s.aud, issuer.Audience)
	c.text("azp", first(issuer.AZP))
	c.text("sub", s.sub)
	c.text(first(issuer.Claims.ID), s.sub)
	c.text(cmp.Or(first(issuer.Claims.Tenant), "tenant_id"), s.tenant)
	if len(s.roles) > 0 {
		c.put(cmp.Or(first(issuer.Claims.Roles), "roles"), s.roles)
	}
	for _, text := range s.claim {
		c.parse(text)
	}
	c.need("iss", "--iss", issuer.InsecureAnyIssuer)
	c.need("aud", "--aud", issuer.InsecureAnyAudience)
	c.need("sub", "--sub", c.has(first(issuer.Claims.ID)))
	return c.claims, errors.Join(c.errs...)
}

// dates returns when the token begins and ends. One that has expired was issued
// an hour before.
func (s *tokenSign) dates(issuer *issuerSettings, now time.Time) (issued, expires time.Time, err error) {
	ttl := defaultTTL
	if most := time.Duration(issuer.MaxLifetime); most > 0 {
		ttl = min(ttl, most)
	}
	life := ttl
	if s.ttl != "" {
		text, negative := strings.CutPrefix(s.ttl, "-")
		if ttl, err = caddy.ParseDuration(text); err != nil || ttl <= 0 {
			return now, now, fmt.Errorf("--ttl %q: must be a time such as 15m, 1h or 7d, or -5m for a token that has expired", s.ttl)
		}
		if negative {
			return now.Add(-ttl - life), now.Add(-ttl), nil
		}
	}
	return now, now.Add(ttl), nil
}
