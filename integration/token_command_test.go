//go:build linux

package integration

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// tokenIn runs a token command in a home and returns what it printed.
func tokenIn(t testing.TB, h *home, stdin string, args ...string) explained {
	t.Helper()
	cmd := exec.Command(moatBinary, append([]string{"token"}, args...)...)
	cmd.Env, cmd.Dir, cmd.Stdin = slices.Clone(h.Env), h.Dir, strings.NewReader(stdin)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var stdout, stderr logBuffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	watchdog := time.AfterFunc(startBudget, func() { _ = cmd.Process.Kill() })
	defer watchdog.Stop()
	_ = cmd.Wait() // The exit code says it.
	return explained{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// signedIn signs a token that must come out.
func signedIn(t testing.TB, h *home, args ...string) string {
	t.Helper()
	got := tokenIn(t, h, "", append([]string{"sign", "--key", "dev.private.pem"}, args...)...)
	if got.exit != 0 || got.stderr != "" {
		t.Fatalf("exit %d\n%s%s", got.exit, got.stdout, got.stderr)
	}
	return got.stdout
}

// tokenCommandConfig has an issuer of every kind. The secrets of Redis and of the
// issuer "other" are nowhere.
const tokenCommandConfig = `{
	admin off
	moat {
		redis redis://{env.TOKEN_UNSET}
		issuer dev {
			iss {env.TOKEN_ISS} https://old.test
			audience orders-api
			key dev.public.pem
			max_lifetime 10m
			claims {
				id user_id sub
				tenant org.id
				roles realm_access.roles
			}
			azp web
			typ at+jwt
			may_grant user
		}
		issuer afar {
			iss https://afar.test
			audience orders-api
			jwks KEYSERVER/jwks
			insecure_http_jwks
			algorithms RS256 ES256
		}
		issuer discovered {
			iss KEYSERVER
			audience orders-api
			discovery
			insecure_http_jwks
		}
		issuer other {
			iss https://other.test
			audience orders-api
			secret {env.TOKEN_UNSET}
		}
		role user documents.read
		role admin *
		audit {
			journal {env.TOKEN_UNSET}
		}
	}
}
http://orders.test {
	moat {
		jwt dev
		rbac {
			GET /documents/{id} documents.read
		}
	}
	respond ok
}
`

// tokenHome is a home with the configuration and a development key. Touched says
// whether anybody came to the key server.
func tokenHome(t *testing.T) (h *home, touched *atomic.Bool) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	touched = new(atomic.Bool)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			touched.Store(true)
			_ = conn.Close()
		}
	}()
	config := strings.ReplaceAll(tokenCommandConfig, "KEYSERVER", "http://"+listener.Addr().String())
	h = newHome(t, config, map[string]string{"TOKEN_ISS": "https://dev.test"})
	got := tokenIn(t, h, "", "keygen", "--out", "dev", "--jwks", "--kid", "dev-1")
	if got.exit != 0 || got.stdout != "dev.private.pem\ndev.public.pem\ndev.jwks.json\n" {
		t.Fatalf("exit %d\n%s%s", got.exit, got.stdout, got.stderr)
	}
	return h, touched
}

// TestATokenGoesFromKeygenThroughTheGate signs what the configuration wants and
// nothing else, and has it judged twice.
func TestATokenGoesFromKeygenThroughTheGate(t *testing.T) {
	t.Parallel()
	h, _ := tokenHome(t)
	raw := signedIn(t, h, "--issuer", "dev", "--sub", "u-1", "--tenant", "t-1", "--role", "user", "--role", "admin")
	got := tokenIn(t, h, raw, "inspect", "-", "--config", "Caddyfile", "--issuer", "dev")
	if got.exit != 0 || got.stderr != "" || !strings.Contains(got.stdout, "caller    u-1, tenant t-1, role user\n") ||
		!strings.Contains(got.stdout, `"iss": "https://dev.test"`) || !strings.Contains(got.stdout, `"user_id": "u-1"`) || !strings.Contains(got.stdout, "azp       ok") {
		t.Errorf("exit %d\n%s%s", got.exit, got.stdout, got.stderr)
	}
	// Of the whole configuration the gate needs the other issuer's secret, too.
	config, err := os.ReadFile(h.File)
	if err != nil {
		t.Fatal(err)
	}
	h.write(t, strings.Replace(string(config), "secret {env.TOKEN_UNSET}", "secret "+strings.Repeat("x", 32), 1))
	put(t, filepath.Join(h.Dir, "token"), raw)
	asked := explainIn(t, h, "", "GET", "http://orders.test/documents/7", "--token-file", "token")
	if asked.exit != 0 || !strings.Contains(asked.stdout, "the caller is u-1 of issuer dev, tenant t-1, role user") {
		t.Errorf("exit %d\n%s%s", asked.exit, asked.stdout, asked.stderr)
	}
}

func TestInspectJudgesAsTheIssuerIsConfigured(t *testing.T) {
	t.Parallel()
	h, touched := tokenHome(t)
	dev := []string{"--issuer", "dev", "--sub", "u-1"}
	afar := []string{"--issuer", "afar", "--sub", "u-1"}
	secret := strings.TrimSpace(tokenIn(t, h, "", "keygen", "--alg", "HS256").stdout)
	put(t, filepath.Join(h.Dir, "shared"), secret+"\n")
	for name, row := range map[string]struct {
		sign, inspect []string
		exit          int
		want          []string
	}{
		"good":         {dev, []string{"--issuer", "dev"}, 0, []string{"every check passes\n", "no role"}},
		"second iss":   {append(dev, "--iss", "https://old.test"), []string{"--issuer", "dev"}, 0, []string{"accepted"}},
		"iss":          {append(dev, "--iss", "https://x.test"), []string{"--issuer", "dev"}, 1, []string{"refused jwt.iss-mismatch", "accepted: https://dev.test, https://old.test", "aud       not reached"}},
		"aud":          {append(dev, "--aud", "x"), []string{"--issuer", "dev"}, 1, []string{"refused jwt.aud-mismatch", "accepted: orders-api"}},
		"azp":          {append(dev, "--claim", `azp="x"`), []string{"--issuer", "dev"}, 1, []string{"refused jwt.azp-mismatch", "accepted: web"}},
		"typ":          {append(dev, "--typ", "JWT"), []string{"--issuer", "dev"}, 1, []string{"refused jwt.typ-mismatch", "accepted: at+jwt"}},
		"lifetime":     {append(dev, "--ttl", "1h"), []string{"--issuer", "dev"}, 1, []string{"refused jwt.lifetime", "accepted: 10m0s"}},
		"id":           {append(dev, "--claim", "user_id=1.5"), []string{"--issuer", "dev"}, 1, []string{"refused jwt.bad-claim"}},
		"expired":      {append(dev, "--ttl", "-5m"), []string{"--issuer", "dev"}, 1, []string{"refused jwt.expired", "expired 5 minutes ago"}},
		"then":         {append(dev, "--ttl", "-1h"), []string{"--issuer", "dev", "--at", time.Now().Add(-65 * time.Minute).Format(time.RFC3339)}, 0, []string{"expires in 5 minutes"}},
		"wrong issuer": {dev, []string{"--issuer", "afar"}, 1, []string{"refused jwt.iss-mismatch", "its signature was not checked"}},

		"key server":         {afar, []string{"--issuer", "afar"}, 2, []string{"unknown\n", "--jwks", "signature not checked", "aud       ok", "would be  u-1"}},
		"discovery":          {[]string{"--issuer", "discovered", "--sub", "u"}, []string{"--issuer", "discovered"}, 2, []string{"unknown\n"}},
		"key server, bad":    {append(afar, "--aud", "x"), []string{"--issuer", "afar"}, 1, []string{"refused jwt.aud-mismatch", "its signature was not checked"}},
		"key server, set":    {append(afar, "--kid", "dev-1"), []string{"--issuer", "afar", "--jwks", "dev.jwks.json"}, 0, []string{"accepted"}},
		"key server, no kid": {append(afar, "--kid", "dev-2"), []string{"--issuer", "afar", "--jwks", "dev.jwks.json"}, 1, []string{"refused jwt.unknown-key"}},
		"key server, key":    {afar, []string{"--issuer", "afar", "--key", "dev.public.pem"}, 0, []string{"accepted"}},
		"another kind":       {dev, []string{"--issuer", "dev", "--secret-file", "shared"}, 1, []string{"refused jwt.alg-mismatch", "accepted: HS256"}},

		"which issuer":   {dev, []string{"--config", "Caddyfile"}, 2, []string{"several issuers", "dev, afar, discovered, other"}},
		"unknown issuer": {dev, []string{"--issuer", "x"}, 2, []string{`--issuer "x": is not configured`, "dev, afar, discovered, other"}},
		"no secret":      {dev, []string{"--issuer", "other"}, 2, []string{"TOKEN_UNSET"}},
		"both":           {dev, []string{"--issuer", "dev", "--aud", "x"}, 2, []string{"the configuration says what is accepted"}},
		"no file":        {dev, []string{"--config", "nowhere"}, 2, []string{"nowhere"}},
	} {
		t.Run(name, func(t *testing.T) {
			raw := signedIn(t, h, row.sign...)
			got := tokenIn(t, h, raw, append([]string{"inspect", "-"}, row.inspect...)...)
			if got.exit != row.exit {
				t.Errorf("exit %d, want %d", got.exit, row.exit)
			}
			for _, want := range row.want {
				if !strings.Contains(got.stdout+got.stderr, want) {
					t.Errorf("no %q in\n%s%s", want, got.stdout, got.stderr)
				}
			}
			signature := strings.TrimSpace(raw[strings.LastIndex(raw, ".")+1:])
			if strings.Contains(got.stdout+got.stderr, signature) || strings.Contains(got.stdout+got.stderr, secret) {
				t.Error("the signature or the secret is printed")
			}
		})
	}
	if touched.Load() {
		t.Error("the key server was asked")
	}
}

// TestTokenCommandsLeaveNothingBehind looks for files beside those that were
// asked for.
func TestTokenCommandsLeaveNothingBehind(t *testing.T) {
	t.Parallel()
	h, _ := tokenHome(t)
	raw := signedIn(t, h, "--issuer", "dev", "--sub", "u-1")
	if got := tokenIn(t, h, raw, "inspect", "-", "--issuer", "dev"); got.exit != 0 {
		t.Fatalf("exit %d\n%s", got.exit, got.stderr)
	}
	var files []string
	err := filepath.WalkDir(h.Dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, strings.TrimPrefix(path, h.Dir+"/"))
		}
		return err
	})
	if want := []string{"Caddyfile", "dev.jwks.json", "dev.private.pem", "dev.public.pem"}; err != nil || !slices.Equal(files, want) {
		t.Errorf("%v, files %q, want %q", err, files, want)
	}
}

func TestTokenExplainsItself(t *testing.T) {
	t.Parallel()
	h := newHome(t, "", nil)
	for _, name := range []string{"keygen", "sign", "inspect"} {
		if got := tokenIn(t, h, "", name, "--help"); got.exit != 0 || !strings.Contains(got.stdout, "moat token "+name) || !strings.Contains(got.stdout, "Exit code: 0") {
			t.Errorf("%s --help: exit %d\n%s", name, got.exit, got.stdout)
		}
	}
	if got := tokenIn(t, h, ""); got.exit != 0 || !strings.Contains(got.stdout, "Says which check a token fails") {
		t.Errorf("exit %d\n%s", got.exit, got.stdout)
	}
	for _, args := range [][]string{{"check"}, {"--what"}, {"sign", "--secret", "planted"}} {
		if got := tokenIn(t, h, "", args...); got.exit != 2 || !strings.Contains(got.stderr, "moat token") || strings.Contains(got.stderr, "planted") {
			t.Errorf("%q: exit %d\n%s", args, got.exit, got.stderr)
		}
	}
}

// TestAnUnsetVariableIsNoAnswer gives each flag that says what a token is judged
// by an empty value: nothing would be verified, and that must not exit 0.
func TestAnUnsetVariableIsNoAnswer(t *testing.T) {
	t.Parallel()
	h, _ := tokenHome(t)
	raw := signedIn(t, h, "--issuer", "dev", "--sub", "u-1", "--tenant", "t-1", "--role", "user")
	for _, flag := range []string{"config", "issuer", "key", "jwks", "secret-file", "secret-env", "iss", "aud", "alg", "at", "file"} {
		got := tokenIn(t, h, raw, "inspect", "-", "--"+flag, "")
		if got.exit != 2 || !strings.Contains(got.stderr, "--"+flag+": is empty") {
			t.Errorf("--%s: exit %d\n%s%s", flag, got.exit, got.stdout, got.stderr)
		}
	}
	if got := tokenIn(t, h, "", "inspect", ""); got.exit == 0 {
		t.Errorf("an empty token: exit 0\n%s", got.stdout)
	}
	out, exit := h.moat(t, "lint", "--config", "")
	if exit != 2 || !strings.Contains(out, "--config: is empty") {
		t.Errorf("lint: exit %d\n%s", exit, out)
	}
}
