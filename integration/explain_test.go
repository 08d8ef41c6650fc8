//go:build linux

package integration

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// explainSecret is the main issuer's, for tests that judge tokens.
const explainSecret = "an-issuer-secret-of-more-than-32-bytes"

// explained is what a run of the command printed.
type explained struct {
	stdout, stderr string
	exit           int
}

// explainIn runs the command in a home of its own. Stdin may be empty.
func explainIn(t testing.TB, h *home, stdin string, args ...string) explained {
	t.Helper()
	cmd := exec.Command(moatBinary, append([]string{"explain"}, args...)...)
	cmd.Env, cmd.Dir, cmd.Stdin = append(slices.Clone(h.Env), "TMPDIR="+h.Dir), h.Dir, strings.NewReader(stdin)
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

func explainFixture(t testing.TB, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("explain", name))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// signed returns a token of the fixture's main issuer.
func signed(t testing.TB, secret string, change map[string]any) string {
	t.Helper()
	return sign(t, jwt.SigningMethodHS256, []byte(secret), claims(change))
}

// explainRow is one question and what the answer must say. Want is looked for in
// standard output, and in standard error when nothing can be told.
type explainRow struct {
	args []string
	exit int
	want []string
}

func runExplain(t *testing.T, env map[string]string, rows map[string]explainRow) {
	t.Helper()
	h := newHome(t, "", env)
	config := explainFixture(t, "Caddyfile")
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := explainIn(t, h, "", append([]string{"--config", config}, row.args...)...)
			if got.exit != row.exit {
				t.Fatalf("exit %d, want %d\n%s%s", got.exit, row.exit, got.stdout, got.stderr)
			}
			text := got.stdout
			switch {
			case row.exit == 2:
				text += got.stderr
				if !strings.Contains(got.stderr, "moat explain: ") {
					t.Errorf("nothing is said on standard error:\n%s", got.stderr)
				}
			case got.stderr != "":
				t.Errorf("standard error has\n%s", got.stderr)
			}
			for _, want := range row.want {
				if !strings.Contains(text, want) {
					t.Errorf("no %q in\n%s", want, text)
				}
			}
		})
	}
}

// TestExplainWithoutKeys asks for callers that are told. No key file, no secret,
// no Redis and no journal of the configuration is there.
func TestExplainWithoutKeys(t *testing.T) {
	t.Parallel()
	const site = "https://orders.test"
	as := func(method, path string, flags ...string) []string {
		return append([]string{method, site + path}, flags...)
	}
	admin := []string{"--user", "a-1", "--tenant", "t-1", "--role", "admin"}
	runExplain(t, nil, map[string]explainRow{
		"public": {as("GET", "/healthz"), 0, []string{
			"allowed", "rbac.public", "GET /healthz public", "Caddyfile:", "reverse_proxy to 127.0.0.1:3000, 127.0.0.1:3001, sealed",
			"default: 100 in 1m by ip applies", "nobody is known"}},
		"a limit that counts": {as("POST", "/auth/login"), 0, []string{"login: 5 in 15m by ip applies", "[401]"}},
		"nobody":              {as("GET", "/me"), 1, []string{"refused: 401 token-missing", "jwt.missing"}},
		"authenticated":       {as("GET", "/me", "--user", "u-1"), 0, []string{"rbac.authenticated", "the caller is u-1 of issuer main, no role"}},
		"permission": {as("GET", "/documents/7", admin...), 0, []string{
			"rbac.permission", "role admin grants documents.read", "user: 10000 in 1m by user applies", "tenant t-1"}},
		"two roles": {as("GET", "/documents/7", "--role", "user,guest"), 0, []string{"role guest grants documents.read", "roles user, guest"}},
		"role twice": {as("GET", "/documents/7", "--role", "user", "--role", "guest"), 0, []string{
			"role guest grants documents.read"}},
		"no permission": {as("GET", "/documents/7", "--role", "user"), 1, []string{
			"refused: 403 forbidden", "rbac.no-permission", "GET /documents/{id} documents.read  (", "/explain/Caddyfile:"}},
		"owner":      {as("PUT", "/users/u-1/files/a", "--user", "u-1", "--role", "user"), 0, []string{"rbac.owner", "role user grants files.write"}},
		"not owner":  {as("PUT", "/users/u-2/files/a", "--user", "u-1", "--role", "user"), 1, []string{"rbac.not-owner"}},
		"tenant":     {as("POST", "/orgs/t-1/x", admin...), 0, []string{"rbac.permission", "tenant={org}"}},
		"not tenant": {as("POST", "/orgs/t-2/x", admin...), 1, []string{"rbac.wrong-tenant"}},
		"scope":      {as("POST", "/orgs/t-2/x", "--role", "superadmin"), 0, []string{"role superadmin grants organization.manage"}},
		"another issuer": {as("PUT", "/users/u-1/files/a", "--user", "u-1", "--role", "user", "--issuer", "partner"), 1, []string{
			"rbac.foreign-issuer"}},
		"deny":         {as("GET", "/internal/x", "--role", "superadmin"), 1, []string{"rbac.deny-rule"}},
		"no rule":      {as("GET", "/nowhere", "--role", "superadmin"), 1, []string{"rbac.no-rule", "none matches GET /nowhere"}},
		"HEAD":         {as("HEAD", "/documents/7", admin...), 0, []string{"GET /documents/{id}"}},
		"method":       {as("TRACE", "/me"), 1, []string{"405 method-not-allowed", "canon.method"}},
		"dots":         {as("GET", "/a/../me", admin...), 1, []string{"400 bad-request", "canon.dot-segment"}},
		"escaped dots": {as("GET", "/a/%2e%2e/me"), 1, []string{"canon.dot-segment"}},
		"escape of a letter": {as("GET", "/m%65", "--user", "u-1"), 0, []string{
			"canonical: GET /me", "written /m%65"}},
		"raw space":                  {as("GET", "/a b"), 1, []string{"refused: 400", "before any site and gate"}},
		"an encoding":                {as("POST", "/auth/login", "--header", "Transfer-Encoding: gzip"), 1, []string{"refused: 501", "before any site and gate"}},
		"long method":                {as(strings.Repeat("A", 40), "/me"), 1, []string{"refused: 405", "before any site and gate"}},
		"a body":                     {as("GET", "/healthz", "--header", "Content-Length: 5"), 0, []string{"allowed"}},
		"a large body":               {as("GET", "/healthz", "--header", "Content-Length: 50000000"), 0, []string{"allowed"}},
		"a chunked body":             {as("GET", "/healthz", "--header", "Transfer-Encoding: chunked"), 0, []string{"allowed"}},
		"host of another connection": {as("GET", "/healthz", "--header", "Host: www.orders.test"), 1, []string{"421 misdirected", "guard.host-mismatch"}},
		"an id no header can carry":  {as("GET", "/me", "--user", " u"), 1, []string{"401 token-invalid", "jwt.unsafe-value"}},
		"a limit too early":          {[]string{"GET", "http://early.test:8080/me", "--user", "u-1"}, 1, []string{"500 internal", "limit.no-identity"}},
		"another Host":               {as("GET", "/healthz", "--header", "Host: open.test"), 2, []string{"no site for open.test"}},
		"rule in shadow":             {as("GET", "/trial", "--role", "user"), 0, []string{"allowed, because of shadow; it would be refused: rbac.no-permission", "would refuse"}},
		"condition holds":            {as("GET", "/office", "--user", "u-1", "--at", "2026-07-01T09:00:00Z"), 0, []string{"when      now.getHours() < 12", "allowed"}},
		"condition fails":            {as("GET", "/office", "--user", "u-1", "--at", "2026-07-01T13:00:00Z"), 1, []string{"rbac.condition: "}},
		"condition error":            {as("GET", "/mfa", "--user", "u-1"), 1, []string{"rbac.condition-error", "no such key: amr"}},
		"claims":                     {as("GET", "/mfa", "--user", "u-1", "--claims", `{"amr":["mfa"]}`), 0, []string{"allowed"}},
		"block in shadow": {[]string{"GET", "http://shadow.test:8080/me"}, 0, []string{
			"allowed, because of shadow; it would be refused: jwt.missing, rbac.no-identity"}},
		"role of a stranger":        {[]string{"GET", "http://cookies.test:8080/documents/7"}, 0, []string{"anonymous, role guest", "without the seal"}},
		"stripped as the rule says": {[]string{"GET", "http://stripped.test:8080/api/x"}, 0, []string{"allowed", "sealed"}},
		"stripped behind its back": {[]string{"GET", "http://stripped.test:8080/old/x"}, 1, []string{
			"403 forbidden", "seal.path-changed", "decided GET /old/x", "sent GET /x"}},
		"another method":    {[]string{"GET", "http://changed.test:8080/method"}, 1, []string{"seal.method-changed", "sent POST /method"}},
		"another query":     {[]string{"GET", "http://changed.test:8080/query"}, 1, []string{"seal.query-changed"}},
		"rewrite_ok":        {[]string{"GET", "http://changed.test:8080/free"}, 0, []string{"allowed", "rewrite_ok", "sealed"}},
		"another is asked":  {[]string{"GET", "http://changed.test:8080/asks"}, 0, []string{"forward_auth, which is not asked here", "127.0.0.1:3000, sealed"}},
		"a plugin":          {[]string{"GET", "http://changed.test:8080/plugin"}, 0, []string{"authentication not run here", "127.0.0.1:3000, sealed"}},
		"files, if there":   {[]string{"GET", "http://changed.test:8080/files/a"}, 0, []string{"it answers what it has a file for", "127.0.0.1:3000, sealed"}},
		"composed":          {[]string{"GET", "http://composed.test:8080/me", "--user", "u-1"}, 0, []string{"allowed", "static_response"}},
		"composed, refused": {[]string{"GET", "http://composed.test:8080/me"}, 1, []string{"401 token-missing"}},

		"another host":      {[]string{"GET", "http://unknown.test:8080/me"}, 2, []string{"no site for unknown.test"}},
		"another port":      {[]string{"GET", "https://orders.test:8443/me"}, 2, []string{"no server listens on port 8443 with TLS", ":443"}},
		"without TLS":       {[]string{"GET", "http://orders.test/me"}, 2, []string{"redirected to https://orders.test/me"}},
		"TLS where none is": {[]string{"GET", "https://open.test:8080/me"}, 2, []string{"no server listens on port 8080 with TLS"}},
		"no gate":           {[]string{"GET", "http://open.test:8080/me"}, 2, []string{"static_response answers, and no gate decides before it"}},
		"half a gate":       {[]string{"GET", "http://half.test:8080/me"}, 2, []string{"no gate decides"}},
		"a guard only":      {[]string{"GET", "http://only.test:8080/me"}, 2, []string{"no rbac decides on its route"}},
		"unknown role":      {as("GET", "/me", "--role", "root"), 2, []string{`role "root" is not configured; configured are: admin, guest, superadmin, user`}},
		"role not to give":  {as("GET", "/me", "--role", "admin", "--issuer", "partner"), 2, []string{`may not grant it; it may grant: user`}},
		"unknown issuer":    {as("GET", "/me", "--issuer", "other"), 2, []string{`it takes those of: main, partner`}},
		"token and caller":  {as("GET", "/me", "--token", "x", "--user", "u-1"), 2, []string{"cannot stand beside"}},
		"one argument":      {[]string{"GET"}, 2, []string{"a method and a URL are needed"}},
		"no URL":            {[]string{"GET", "orders.test/me"}, 2, []string{"must begin with https:// or http://"}},
		"user in the URL":   {[]string{"GET", "https://me@orders.test/me"}, 2, []string{"must name a host, and no user"}},
		"bad time":          {as("GET", "/me", "--at", "noon"), 2, []string{"2026-07-01T09:00:00Z"}},
		"bad address":       {as("GET", "/me", "--address", "home"), 2, []string{"must be an IP address"}},
		"bad header":        {as("GET", "/me", "--header", "nothing"), 2, []string{"must be a line"}},
		"bad claims":        {as("GET", "/me", "--claims", "[]"), 2, []string{"must be one JSON object"}},
		"unknown flag":      {as("GET", "/me", "--rule", "x"), 2, []string{"--rule"}},
		"keys needed":       {as("GET", "/me", "--token", "a.b.c"), 2, []string{"a token has to be judged", "EXPLAIN_SECRET"}},
		"keys needed by a header": {as("GET", "/me", "--header", "Authorization: Bearer a.b.c"), 2, []string{
			"a token has to be judged"}},
		"no jwt looks": {[]string{"GET", "http://stripped.test:8080/api/x", "--token", "a.b.c"}, 0, []string{"no jwt looks at it"}},
	})
}

// explainTokens is a configuration whose issuers have their keys.
const explainTokens = `{
	admin off
	moat {
		issuer main {
			iss https://id.test
			audience orders-api
			secret {env.EXPLAIN_SECRET}
		}
		role user documents.read
	}
}
http://orders.test {
	moat {
		jwt main
		rbac {
			GET /healthz public
			GET /documents/{id} documents.read
		}
	}
	reverse_proxy 127.0.0.1:3000 {
		transport moat
	}
}
http://cookies.test {
	moat {
		jwt main {
			from cookie access_token
			from header
		}
		rbac {
			POST /documents documents.read
		}
	}
	reverse_proxy 127.0.0.1:3000 {
		transport moat
	}
}
`

func TestExplainJudgesTokens(t *testing.T) {
	t.Parallel()
	h := newHome(t, explainTokens, map[string]string{"EXPLAIN_SECRET": explainSecret})
	good := signed(t, explainSecret, nil)
	now := time.Now()
	expired := signed(t, explainSecret, map[string]any{"iat": now.Add(-2 * time.Hour).Unix(), "exp": now.Add(-time.Hour).Unix()})
	foreign := signed(t, strings.Repeat("x", 32), nil)
	for name, row := range map[string]struct {
		stdin string
		explainRow
	}{
		"good":           {"", explainRow{[]string{"GET", "http://orders.test/documents/7", "--token", good}, 0, []string{"the caller is u-1 of issuer main, tenant t-1, role user"}}},
		"expired":        {"", explainRow{[]string{"GET", "http://orders.test/documents/7", "--token", expired}, 1, []string{"401 token-expired", "jwt.expired"}}},
		"wrong key":      {"", explainRow{[]string{"GET", "http://orders.test/documents/7", "--token", foreign}, 1, []string{"401 token-invalid", "jwt.bad-signature"}}},
		"public":         {"", explainRow{[]string{"GET", "http://orders.test/healthz", "--token", foreign}, 0, []string{"the token does not count: jwt.bad-signature"}}},
		"standard input": {good + "\n", explainRow{[]string{"GET", "http://orders.test/documents/7", "--token-file", "-"}, 0, []string{"the caller is u-1"}}},
		"a header":       {"", explainRow{[]string{"GET", "http://orders.test/documents/7", "--header", bearer(good)}, 0, []string{"the caller is u-1"}}},
		"two":            {"", explainRow{[]string{"GET", "http://orders.test/documents/7", "--token", good, "--header", bearer(good)}, 1, []string{"jwt.two-tokens"}}},
		"a cookie":       {"", explainRow{[]string{"POST", "http://cookies.test/documents", "--token", good}, 1, []string{"403 cross-origin", "Sec-Fetch-Site"}}},
		"our own page":   {"", explainRow{[]string{"POST", "http://cookies.test/documents", "--token", good, "--header", "Sec-Fetch-Site: same-origin"}, 0, []string{"the caller is u-1"}}},
		"told":           {"", explainRow{[]string{"POST", "http://cookies.test/documents", "--role", "user"}, 0, []string{"the caller is someone"}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := explainIn(t, h, row.stdin, append(row.args, "--config", h.File)...)
			if got.exit != row.exit {
				t.Fatalf("exit %d, want %d\n%s%s", got.exit, row.exit, got.stdout, got.stderr)
			}
			for _, want := range row.want {
				if !strings.Contains(got.stdout, want) {
					t.Errorf("no %q in\n%s", want, got.stdout)
				}
			}
			if strings.Contains(got.stdout+got.stderr, good) {
				t.Error("the token is printed")
			}
		})
	}
}

// TestExplainAsJSON reads the answer as a program would.
func TestExplainAsJSON(t *testing.T) {
	t.Parallel()
	h := newHome(t, "", nil)
	got := explainIn(t, h, "", "GET", "https://orders.test/documents/7", "--role", "guest", "--user", "u-1",
		"--json", "-c", explainFixture(t, "Caddyfile"), "--at", "2026-07-01T09:00:00Z", "--address", "198.51.100.7")
	var d explainDocument
	if err := json.Unmarshal([]byte(got.stdout), &d); err != nil || got.exit != 0 {
		t.Fatalf("exit %d, %v\n%s%s", got.exit, err, got.stdout, got.stderr)
	}
	v := d.Verdict
	if v.Result != "allowed" || v.Reason != "rbac.permission" || v.Role != "guest" || v.Permission != "documents.read" ||
		v.Rule != "GET /documents/{id} documents.read" || !strings.Contains(v.Place, "Caddyfile:") {
		t.Errorf("verdict %+v", v)
	}
	if d.Time != "2026-07-01T09:00:00Z" || d.Address != "198.51.100.7:50000" || d.Caller.ID != "u-1" || !d.Caller.Known {
		t.Errorf("document %+v", d)
	}
	var names []string
	for _, s := range d.Steps {
		names = append(names, s.Step)
	}
	want := []string{"audit", "headers", "guard", "rule", "limit", "jwt", "limit", "rbac", "next"}
	if !slices.Equal(names, want) {
		t.Errorf("steps %q, want %q", names, want)
	}
}

// explainDocument is what of the JSON the tests look at.
type explainDocument struct {
	Address, Time string
	Caller        struct {
		Known bool
		ID    string
	}
	Steps   []struct{ Step, Outcome, Says, Place string }
	Verdict explainVerdict
}

type explainVerdict struct {
	Result, Code, Reason, Rule, Place, Role, Permission string
	Status                                              int
}

func TestExplainBrokenConfigurations(t *testing.T) {
	t.Parallel()
	h := newHome(t, "", nil)
	for name, c := range map[string]struct{ caddyfile, want string }{
		"a syntax error":    {"orders.test {\n", "Caddyfile"},
		"a fault in a gate": {strings.Replace(explainTokens, "documents.read\n\t\t}", "documents..read\n\t\t}", 1), "documents..read"},
		"no sites":          {"{\n\tadmin off\n}\n", "no sites"},
		"no file":           {"", "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(h.Dir, "missing")
			if c.caddyfile != "" {
				h.write(t, c.caddyfile)
				file = h.File
			}
			got := explainIn(t, h, "", "GET", "http://orders.test/", "--config", file)
			if got.exit != 2 || !strings.Contains(got.stderr, c.want) {
				t.Errorf("exit %d, want 2 and %q\n%s%s", got.exit, c.want, got.stdout, got.stderr)
			}
		})
	}
}

// TestExplainFindsTheServer asks about sites that a port alone does not tell
// apart.
func TestExplainFindsTheServer(t *testing.T) {
	t.Parallel()
	gate := func(address, bind string) string {
		return address + " {\n\tbind " + bind + "\n\tmoat {\n\t\trbac {\n\t\t\tGET /x public\n\t\t}\n\t}\n\trespond x\n}\n"
	}
	h := newHome(t, "{\n\tadmin off\n}\n"+
		gate("http://:8080", "127.0.0.1")+gate("http://two.test:8080", "127.0.0.2")+gate("http://sock.test", "unix//run/x.sock"), nil)
	for url, row := range map[string]explainRow{
		"http://one.test:8080/x":  {nil, 0, []string{"allowed"}},
		"http://two.test:8080/x":  {nil, 2, []string{"both serve this URL, at different addresses"}},
		"http://sock.test/x":      {nil, 0, []string{"allowed"}},
		"https://one.test:8080/x": {nil, 2, []string{"no server listens on port 8080 with TLS"}},
	} {
		got := explainIn(t, h, "", "GET", url, "-c", h.File)
		if got.exit != row.exit || !strings.Contains(got.stdout+got.stderr, row.want[0]) {
			t.Errorf("%s: exit %d, want %d and %q\n%s%s", url, got.exit, row.exit, row.want[0], got.stdout, got.stderr)
		}
	}
}

// TestExplainTheSecondGate asks about a route that has the chain of a gate twice.
func TestExplainTheSecondGate(t *testing.T) {
	t.Parallel()
	h := newHome(t, siteConfig{Port: 8080, Upstream: "127.0.0.1:1"}.render(newIssuer(t)), nil)
	got := explainIn(t, h, "", "GET", "http://127.0.0.1:8080/healthz", "-c", doubleGate(t, h))
	if got.exit != 1 || !strings.Contains(got.stdout, "refused: 500 internal") || !strings.Contains(got.stdout, "gate.second") {
		t.Errorf("exit %d, want 1\n%s%s", got.exit, got.stdout, got.stderr)
	}
}
