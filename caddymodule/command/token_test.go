package command

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/moat-gateway/moat/internal/token"
)

// ran is what one run of a command printed.
type ran struct {
	out, err string
	exit     int
}

func runToken(t *testing.T, cmd *cobra.Command, stdin string, args ...string) ran {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.SetIn(strings.NewReader(stdin))
	cmd.SetOut(&out)
	cmd.SetErr(&errs)
	cmd.SetArgs(args)
	r := ran{}
	switch err := cmd.Execute(); {
	case errors.Is(err, errRefused):
		r.exit = 1
	case err != nil:
		r.exit = 2
	}
	r.out, r.err = out.String(), errs.String()
	return r
}

// done runs a command that must succeed and returns what it printed.
func done(t *testing.T, cmd *cobra.Command, stdin string, args ...string) string {
	t.Helper()
	r := runToken(t, cmd, stdin, args...)
	if r.exit != 0 || r.err != "" {
		t.Fatalf("%s %q: exit %d\n%s%s", cmd.Name(), args, r.exit, r.out, r.err)
	}
	return r.out
}

// devKey makes a key pair and a key set and returns the prefix of the files.
func devKey(t *testing.T, args ...string) string {
	t.Helper()
	prefix := filepath.Join(t.TempDir(), "dev")
	done(t, newKeygen(), "", append([]string{"--out", prefix}, args...)...)
	return prefix
}

var devToken = []string{"--iss", "https://id.test", "--aud", "orders-api", "--sub", "u-1"}

func TestEveryAlgorithmGoesFromKeygenToInspect(t *testing.T) {
	for _, alg := range token.Algorithms() {
		t.Run(alg, func(t *testing.T) {
			sign := append([]string{"--alg", alg}, devToken...)
			check := []string{"-", "--alg", alg}
			if strings.HasPrefix(alg, "HS") {
				secret := devKey(t, "--alg", alg) + ".secret"
				sign, check = append(sign, "--secret-file", secret), append(check, "--secret-file", secret)
			} else {
				prefix := devKey(t, "--alg", alg, "--jwks", "--kid", "k")
				sign, check = append(sign, "--key", prefix+".private.pem", "--kid", "k"), append(check, "--key", prefix+".public.pem")
				raw := done(t, newTokenSign(), "", sign...)
				done(t, newTokenInspect(), raw, "-", "--jwks", prefix+".jwks.json")
			}
			raw := done(t, newTokenSign(), "", sign...)
			if out := done(t, newTokenInspect(), raw, check...); !strings.Contains(out, "\naccepted\n") {
				t.Errorf("not accepted:\n%s", out)
			}
		})
	}
}

func TestKeygenWritesPrivateFilesForTheirOwnerOnly(t *testing.T) {
	prefix := devKey(t, "--jwks")
	secret := devKey(t, "--alg", "HS512") + ".secret"
	for name, mode := range map[string]os.FileMode{
		prefix + ".private.pem": 0o600, prefix + ".public.pem": 0o644, prefix + ".jwks.json": 0o644, secret: 0o600,
	} {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got&^mode != 0 || got&0o600 != 0o600 {
			t.Errorf("%s has mode %o, want %o", filepath.Base(name), got, mode)
		}
	}
	public, err := os.ReadFile(prefix + ".public.pem")
	if err != nil || strings.Contains(string(public), "PRIVATE") {
		t.Errorf("%v\n%s", err, public)
	}
}

func TestKeygenOverwritesNothingAndLeavesNothingHalf(t *testing.T) {
	for _, last := range []string{".private.pem", ".public.pem", ".jwks.json"} {
		dir := t.TempDir()
		prefix := filepath.Join(dir, "dev")
		if err := os.WriteFile(prefix+last, []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		r := runToken(t, newKeygen(), "", "--out", prefix, "--jwks")
		if r.exit != 2 || !strings.Contains(r.err, "no file is overwritten") || r.out != "" {
			t.Errorf("%s: exit %d\n%s%s", last, r.exit, r.out, r.err)
		}
		entries, err := os.ReadDir(dir)
		if data, _ := os.ReadFile(prefix + last); err != nil || len(entries) != 1 || string(data) != "mine" {
			t.Errorf("%s: %v, %d files, %q", last, err, len(entries), data)
		}
	}
	// A link that points nowhere would be written through.
	dir := t.TempDir()
	if err := os.Symlink(filepath.Join(dir, "elsewhere"), filepath.Join(dir, "dev.secret")); err != nil {
		t.Fatal(err)
	}
	if r := runToken(t, newKeygen(), "", "--alg", "HS256", "--out", filepath.Join(dir, "dev")); r.exit != 2 {
		t.Errorf("a link was followed: %+v", r)
	}
}

func TestKeygenPrintsASecretAndNothingElse(t *testing.T) {
	for alg, size := range map[string]int{"HS256": 32, "HS384": 48, "HS512": 64} {
		one, other := done(t, newKeygen(), "", "--alg", alg), done(t, newKeygen(), "", "--alg", alg)
		data, err := base64.RawURLEncoding.DecodeString(strings.TrimSuffix(one, "\n"))
		if err != nil || len(data) != size || one == other {
			t.Errorf("%s: %v, %d bytes", alg, err, len(data))
		}
	}
}

// TestThumbprints uses the examples of RFC 7638 section 3.1 and RFC 8037
// appendix A.3.
func TestThumbprints(t *testing.T) {
	n, err := base64.RawURLEncoding.DecodeString("0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw")
	if err != nil {
		t.Fatal(err)
	}
	x, err := base64.RawURLEncoding.DecodeString("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")
	if err != nil {
		t.Fatal(err)
	}
	for want, key := range map[string]any{
		"NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs": &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: 65537},
		"kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k": ed25519.PublicKey(x),
	} {
		set, err := encodeKeySet(key, "", map[bool]string{true: "RS256", false: "EdDSA"}[want[0] == 'N'])
		if err != nil || !strings.Contains(string(set), `"kid": "`+want+`"`) {
			t.Errorf("%v\n%s, want %s", err, set, want)
		}
	}
}

// TestPrivateKeysOfOtherTools reads the older forms, as openssl writes them.
func TestPrivateKeysOfOtherTools(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	modern, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	sec1, err := x509.MarshalECPrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	for name, row := range map[string]struct{ text, want string }{
		"SEC 1":     {block("EC PARAMETERS", []byte{5, 0}) + block("EC PRIVATE KEY", sec1), ""},
		"PKCS 1":    {block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(modern)), ""},
		"encrypted": {block("ENCRYPTED PRIVATE KEY", []byte("x")), "must be an unencrypted PRIVATE KEY"},
		"public":    {block("PUBLIC KEY", []byte("x")), "is a PUBLIC KEY"},
		"damaged":   {block("PRIVATE KEY", []byte("planted")), "damaged"},
		"no PEM":    {"planted", "no PEM block"},
		"empty":     {"", "no PEM block"},
	} {
		key, err := parsePrivateKey([]byte(row.text))
		if row.want == "" && (err != nil || key == nil) {
			t.Errorf("%s: %v", name, err)
		}
		if row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want) || strings.Contains(err.Error(), "planted")) {
			t.Errorf("%s: %v, want %q", name, err, row.want)
		}
	}
}

// payload returns the claims and the header of a token.
func payload(t *testing.T, raw string) (header, claims map[string]any) {
	t.Helper()
	parts := strings.Split(raw, ".")
	for i, target := range []*map[string]any{&header, &claims} {
		data, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err == nil {
			err = json.Unmarshal(data, target)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return header, claims
}

func TestSignSaysWhatTheFlagsSay(t *testing.T) {
	key := devKey(t) + ".private.pem"
	raw := done(t, newTokenSign(), "", append(devToken, "--key", key, "--kid", "k", "--typ", "at+jwt", "--aud", "second",
		"--tenant", "t-1", "--role", "admin,user", "--role", "guest", "--ttl", "7d",
		"--claim", `realm_access.roles=["x"]`, "--claim", `"https://a.test/b=c.d"={"n":12345678901234567890}`, "--claim", "jti=null")...)
	header, claims := payload(t, raw)
	if !reflect.DeepEqual(header, map[string]any{"alg": "ES256", "kid": "k", "typ": "at+jwt"}) {
		t.Errorf("header %v", header)
	}
	if life := claims["exp"].(float64) - claims["iat"].(float64); life != 7*24*3600 {
		t.Errorf("life of %v s", life)
	}
	if at := time.Unix(int64(claims["iat"].(float64)), 0); time.Since(at).Abs() > time.Minute {
		t.Errorf("issued %s", at)
	}
	delete(claims, "iat")
	delete(claims, "exp")
	want := map[string]any{
		"iss": "https://id.test", "aud": []any{"orders-api", "second"}, "sub": "u-1", "tenant_id": "t-1",
		"roles": []any{"admin", "user", "guest"}, "jti": nil, "realm_access": map[string]any{"roles": []any{"x"}},
		"https://a.test/b=c.d": map[string]any{"n": 12345678901234567890.0},
	}
	if !reflect.DeepEqual(claims, want) {
		t.Errorf("claims %v, want %v", claims, want)
	}
	if data, _ := base64.RawURLEncoding.DecodeString(strings.Split(raw, ".")[1]); !strings.Contains(string(data), "12345678901234567890") {
		t.Error("a number lost digits")
	}
	if strings.Count(raw, "\n") != 1 {
		t.Errorf("more than the token is printed: %q", raw)
	}
}

func TestANegativeLifetimeMakesATokenThatOnlyHasExpired(t *testing.T) {
	prefix := devKey(t)
	raw := done(t, newTokenSign(), "", append(devToken, "--key", prefix+".private.pem", "--ttl", "-5m")...)
	r := runToken(t, newTokenInspect(), raw, "-", "--key", prefix+".public.pem")
	if r.exit != 1 || !strings.Contains(r.out, "refused jwt.expired") || !strings.Contains(r.out, "expired 5 minutes ago") {
		t.Errorf("exit %d\n%s", r.exit, r.out)
	}
}

// TestWhatTokenCommandsRefuse also holds that no error shows an argument that
// could be a secret.
func TestWhatTokenCommandsRefuse(t *testing.T) {
	prefix := devKey(t, "--jwks")
	private, public, set := prefix+".private.pem", prefix+".public.pem", prefix+".jwks.json"
	short := filepath.Join(t.TempDir(), "short")
	if err := os.WriteFile(short, []byte("planted\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	large := filepath.Join(t.TempDir(), "large")
	if err := os.WriteFile(large, make([]byte, maxTokenInput+1), 0o600); err != nil {
		t.Fatal(err)
	}
	sign := func(args ...string) []string { return append(args, devToken...) }
	for name, row := range map[string]struct {
		cmd  *cobra.Command
		args []string
		want string
	}{
		"unknown algorithm":    {newKeygen(), []string{"--alg", "none"}, "is none of"},
		"weak RSA":             {newKeygen(), []string{"--alg", "RS256", "--bits", "1024"}, "2048 to 8192"},
		"EC of a length":       {newKeygen(), []string{"--bits", "2048"}, "only RSA keys"},
		"secret in a set":      {newKeygen(), []string{"--alg", "HS256", "--jwks"}, "no place in a key set"},
		"kid without set":      {newKeygen(), []string{"--kid", "k"}, "none without --jwks"},
		"kid of control bytes": {newKeygen(), []string{"--jwks", "--kid", "a\nb", "--out", filepath.Join(t.TempDir(), "x")}, "kid: must be"},
		"keygen argument":      {newKeygen(), []string{"planted"}, "1 arguments"},
		"unknown flag":         {newKeygen(), []string{"--secret=x"}, "unknown flag"},

		"no key":            {newTokenSign(), sign(), "exactly one of them"},
		"two keys":          {newTokenSign(), sign("--key", private, "--secret-file", short), "exactly one of them"},
		"public key":        {newTokenSign(), sign("--key", public), "is a PUBLIC KEY"},
		"no such key":       {newTokenSign(), sign("--key", "nowhere.pem"), "nowhere.pem"},
		"short secret":      {newTokenSign(), sign("--secret-file", short), "at least 32"},
		"large secret":      {newTokenSign(), sign("--secret-file", large), "at most 1048576 bytes"},
		"empty secret":      {newTokenSign(), sign("--secret-file", empty), "is empty"},
		"unset secret":      {newTokenSign(), sign("--secret-env", "MOAT_TEST_UNSET"), "is not set or empty"},
		"other algorithm":   {newTokenSign(), sign("--key", private, "--alg", "ES384"), "does not fit ES384"},
		"sign argument":     {newTokenSign(), sign("--key", private, "planted"), "1 arguments"},
		"all are missing":   {newTokenSign(), []string{"--key", private}, "--iss: is missing; a token needs it\n--aud: is missing; a token needs it\n--sub: is missing"},
		"bad lifetime":      {newTokenSign(), sign("--key", private, "--ttl", "soon"), `--ttl "soon"`},
		"no lifetime":       {newTokenSign(), sign("--key", private, "--ttl", "0s"), `--ttl "0s"`},
		"unquoted text":     {newTokenSign(), sign("--key", private, "--claim", "email=x"), "a text needs its quotes"},
		"no value":          {newTokenSign(), sign("--key", private, "--claim", "email"), "must be path=JSON"},
		"two values":        {newTokenSign(), sign("--key", private, "--claim", "a=1 2"), "must be path=JSON"},
		"path into a text":  {newTokenSign(), sign("--key", private, "--claim", "sub.x=1"), "no object"},
		"path without name": {newTokenSign(), sign("--key", private, "--claim", "a..b=1"), "claim path"},

		"no token":         {newTokenInspect(), nil, "0 tokens"},
		"two tokens":       {newTokenInspect(), []string{"-", "--file", short}, "2 tokens"},
		"empty token":      {newTokenInspect(), []string{"--file", empty}, "is empty"},
		"no such file":     {newTokenInspect(), []string{"--file", "nowhere"}, "nowhere"},
		"empty input":      {newTokenInspect(), []string{"-"}, "standard input: is empty"},
		"two kinds":        {newTokenInspect(), []string{"-", "--key", public, "--jwks", set}, "at most one"},
		"private key":      {newTokenInspect(), []string{"-", "--key", private}, "is a private key"},
		"set from afar":    {newTokenInspect(), []string{"-", "--jwks", "https://id.test/jwks"}, "nothing is fetched"},
		"damaged set":      {newTokenInspect(), []string{"-", "--jwks", short}, "not strict JSON"},
		"secret too short": {newTokenInspect(), []string{"-", "--secret-file", short}, "at least 32"},
		"unserved alg":     {newTokenInspect(), []string{"-", "--key", public, "--alg", "RS256"}, "serves none"},
		"alg of no key":    {newTokenInspect(), []string{"-", "--alg", "RS256"}, "there are no keys"},
		"bad time":         {newTokenInspect(), []string{"-", "--at", "noon"}, "2026-07-01T09:00:00Z"},
	} {
		r := runToken(t, row.cmd, "", row.args...)
		if r.exit != 2 || !strings.Contains(r.err, row.want) || r.out != "" {
			t.Errorf("%s: exit %d, want 2 and %q\n%s%s", name, r.exit, row.want, r.out, r.err)
		}
		if strings.Contains(r.err, "planted") {
			t.Errorf("%s: the error shows what it was given\n%s", name, r.err)
		}
	}
}

func TestSecretsAreReadAsACaddyfileReadsThem(t *testing.T) {
	const secret = " thirty-two bytes and more, with a space "
	t.Setenv("MOAT_TEST_SECRET", secret)
	raw := done(t, newTokenSign(), "", append(devToken, "--secret-env", "MOAT_TEST_SECRET")...)
	for _, end := range []string{"", "\n", "\r\n"} {
		file := filepath.Join(t.TempDir(), "secret")
		if err := os.WriteFile(file, []byte(secret+end), 0o600); err != nil {
			t.Fatal(err)
		}
		done(t, newTokenInspect(), raw, "-", "--secret-file", file)
	}
}
