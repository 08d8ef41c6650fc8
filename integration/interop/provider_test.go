//go:build interop && linux

package interop

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"
	"time"
)

const (
	machineSecret = "the-secret-of-a-machine-on-loopback"
	callback      = "http://127.0.0.1/callback"
	// refetchPause is how long an unknown kid makes no second fetch.
	refetchPause = 30 * time.Second
)

// provider is a running node/provider.mjs.
type provider struct {
	*process
	maker  string // library and version
	name   string // of the package
	port   int
	issuer string
	told   int
}

// document is an answer of the token endpoint.
type document struct {
	AccessToken string `json:"access_token"`
	IDToken     string `json:"id_token"`
	TokenType   string `json:"token_type"`
	Error       string `json:"error"`
	Description string `json:"error_description"`
}

func startProvider(t testing.TB, name string) *provider {
	t.Helper()
	p := &provider{name: name, maker: name, port: freePort(t)}
	p.issuer = fmt.Sprintf("http://127.0.0.1:%d", p.port)
	p.start(t)
	return p
}

// start begins the process; its keys are new.
func (p *provider) start(t testing.TB) {
	t.Helper()
	p.process, p.told = startNode(t, "provider.mjs", p.name, fmt.Sprint(p.port)), 0
	p.hear(t)
}

// hear waits for the next line, which names the published keys.
func (p *provider) hear(t testing.TB) []string {
	t.Helper()
	await(t, startBudget, p.name, func() bool {
		if p.exited() {
			t.Fatalf("%s ended:\n%s", p.name, p.stderr.String())
		}
		return len(p.lines()) > p.told
	})
	var line struct{ Kids []string }
	if err := json.Unmarshal([]byte(p.lines()[p.told]), &line); err != nil {
		t.Fatal(err)
	}
	p.told++
	return line.Kids
}

// rotate makes the provider sign with new keys and publish the old ones too.
func (p *provider) rotate(t testing.TB) {
	t.Helper()
	if _, err := io.WriteString(p.stdin, `{"op":"rotate","keep":true}`+"\n"); err != nil {
		t.Fatal(err)
	}
	if kids := p.hear(t); len(kids) != 6 {
		t.Fatalf("%d keys are published, want the new and the old ones", len(kids))
	}
}

// machine gets an access token for a resource by client_credentials.
func (p *provider) machine(t testing.TB, format string) string {
	t.Helper()
	form := url.Values{"grant_type": {"client_credentials"}, "scope": {"documents.read"}, "resource": {"https://api.test/" + format}}
	return p.token(t, http.DefaultClient, form, "machine").AccessToken
}

func (p *provider) token(t testing.TB, web *http.Client, form url.Values, basic string) document {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.issuer+"/token", strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if basic != "" {
		req.SetBasicAuth(basic, machineSecret)
	}
	began := time.Now()
	res, err := web.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	var d document
	if err := json.NewDecoder(res.Body).Decode(&d); err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != http.StatusOK || d.AccessToken == "" {
		t.Fatalf("the token endpoint says %d %s %s", res.StatusCode, d.Error, d.Description)
	}
	figures.time("tokens issued by "+p.maker, time.Since(began))
	return d
}

// browser logs a user in by authorization_code with PKCE, the way a browser
// would: redirects, cookies and two forms.
func (p *provider) browser(t testing.TB, user string, more url.Values) document {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	web := &http.Client{Jar: jar, Timeout: 20 * time.Second, CheckRedirect: func(req *http.Request, _ []*http.Request) error {
		if strings.HasPrefix(req.URL.String(), callback) {
			return http.ErrUseLastResponse
		}
		return nil
	}}
	defer web.CloseIdleConnections()
	verifier := rand.Text() + rand.Text()
	sum := sha256.Sum256([]byte(verifier))
	query := url.Values{
		"client_id": {"browser"}, "response_type": {"code"}, "redirect_uri": {callback}, "scope": {"openid documents.read"},
		"resource": {"https://api.test/ES256"}, "state": {rand.Text()},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "code_challenge_method": {"S256"},
	}
	for name, values := range more {
		query[name] = values
	}
	page := p.visit(t, web, p.issuer+"/auth?"+query.Encode(), nil)
	for _, form := range []url.Values{
		{"prompt": {"login"}, "login": {user}, "password": {"any"}}, {"prompt": {"consent"}},
	} {
		if !strings.Contains(page, "/interaction/") {
			t.Fatalf("no form to fill in at %s", page)
		}
		page = p.visit(t, web, page, form)
	}
	back, err := url.Parse(page)
	if err != nil {
		t.Fatal(err)
	}
	if back.Query().Get("state") != query.Get("state") || back.Query().Get("code") == "" {
		t.Fatalf("the browser came back with %s", page)
	}
	return p.token(t, web, url.Values{
		"grant_type": {"authorization_code"}, "client_id": {"browser"}, "redirect_uri": {callback},
		"code": {back.Query().Get("code")}, "code_verifier": {verifier}, "resource": {"https://api.test/ES256"},
	}, "")
}

// visit gets a page, or posts a form, and returns where that led.
func (p *provider) visit(t testing.TB, web *http.Client, address string, form url.Values) string {
	t.Helper()
	method, body := http.MethodGet, io.Reader(http.NoBody)
	if form != nil {
		method, body = http.MethodPost, strings.NewReader(form.Encode())
	}
	req, err := http.NewRequestWithContext(t.Context(), method, address, body)
	if err != nil {
		t.Fatal(err)
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	res, err := web.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	text, _ := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if location := res.Header.Get("Location"); location != "" {
		return location
	}
	if res.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: status %d\n%s", method, address, res.StatusCode, text)
	}
	return res.Request.URL.String()
}

// header returns a token's header, unverified.
func header(t testing.TB, token string) object {
	t.Helper()
	first, _, _ := strings.Cut(token, ".")
	data, err := base64.RawURLEncoding.DecodeString(first)
	if err != nil {
		t.Fatal(err)
	}
	var h object
	if err := json.Unmarshal(data, &h); err != nil {
		t.Fatal(err)
	}
	return h
}

// payload returns a token's claims, unverified.
func payload(t testing.TB, token string) object {
	t.Helper()
	return header(t, strings.SplitN(token, ".", 3)[1])
}

func TestProvider(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"oidc-provider", "oidc-provider-8"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testProvider(t, startProvider(t, name))
		})
	}
}

// testProvider has one provider and a gateway that finds its keys by discovery.
func testProvider(t *testing.T, p *provider) {
	discovering := func(name, iss string, more ...string) string {
		return fmt.Sprintf(`
		issuer %s {
			iss %s
			discovery
			insecure_http_jwks
			algorithms RS256 PS256 ES256 EdDSA
			%s
		}`, name, iss, strings.Join(more, "\n"))
	}
	const both = "audience orders-api browser" // The latter is the audience of ID tokens.
	sites := startGateway(t, discovering("main", p.issuer, "audience orders-api")+
		discovering("strict", p.issuer, both, "typ at+jwt")+
		discovering("loose", p.issuer, both)+
		discovering("clients", p.issuer, both, "azp browser")+
		discovering("elsewhere", fmt.Sprintf("http://localhost:%d", p.port), "audience orders-api"),
		"main", "strict", "loose", "clients", "elsewhere")
	main, strict, loose, clients, elsewhere := sites[0], sites[1], sites[2], sites[3], sites[4]
	began := time.Now()

	for _, alg := range []string{"RS256", "PS256", "ES256", "EdDSA"} {
		t.Run("client_credentials "+alg, func(t *testing.T) {
			token := p.machine(t, alg)
			if h := header(t, token); h["alg"] != alg || h["typ"] != "at+jwt" || h["kid"] == nil {
				t.Fatalf("the provider signed with %v", h)
			}
			want := caller{ID: "machine", Tenant: "t-1", Roles: "user", Issuer: "main", Token: token}
			if got := main.accepts(t, p.maker, token); got != want {
				t.Errorf("the upstream saw %+v, want %+v", got, want)
			}
			strict.accepts(t, p.maker, token)
		})
	}
	t.Run("authorization_code", func(t *testing.T) {
		d := p.browser(t, "zoë", url.Values{"nonce": {rand.Text()}})
		for _, site := range []guarded{main, strict, loose, clients} {
			if got := site.accepts(t, p.maker, d.AccessToken); got.ID != "zoë" {
				t.Errorf("the upstream saw %+v", got)
			}
		}
		clients.refuses(t, p.maker, p.machine(t, "ES256"), 401, "token-invalid", "jwt.azp-mismatch")
		// A nonce is for a client, whatever the audience.
		for _, site := range []guarded{main, loose, clients} {
			site.refuses(t, p.maker, d.IDToken, 401, "token-invalid", "jwt.id-token")
		}
		strict.refuses(t, p.maker, d.IDToken, 401, "token-invalid", "jwt.typ-mismatch")
	})
	t.Run("ID token without nonce", func(t *testing.T) {
		token := p.browser(t, "u-2", nil).IDToken
		strict.refuses(t, p.maker, token, 401, "token-invalid", "jwt.typ-mismatch")
		if payload(t, token)["at_hash"] != nil {
			for _, site := range []guarded{main, loose, clients} {
				site.refuses(t, p.maker, token, 401, "token-invalid", "jwt.id-token")
			}
			return
		}
		main.refuses(t, p.maker, token, 401, "token-invalid", "jwt.aud-mismatch")
		clients.refuses(t, p.maker, token, 401, "token-invalid", "jwt.azp-mismatch")
		// Nothing in it says what it is. Whoever lists a client among the
		// audiences needs typ or azp to keep it out.
		loose.accepts(t, p.maker, token)
	})
	t.Run("refused", func(t *testing.T) {
		main.refuses(t, p.maker, p.machine(t, "opaque"), 401, "token-invalid", "jwt.malformed")
		main.refuses(t, p.maker, p.machine(t, "encrypted"), 401, "token-invalid", "jwt.malformed")
		main.refuses(t, p.maker, p.machine(t, "elsewhere"), 401, "token-invalid", "jwt.aud-mismatch")
	})
	t.Run("another issuer in the document", func(t *testing.T) {
		elsewhere.refuses(t, p.maker, p.machine(t, "ES256"), 503, "unavailable", "jwt.keys-unavailable")
		await(t, 10*time.Second, "the log to say why", func() bool {
			return strings.Contains(main.stderr.String(), "the document names another issuer")
		})
	})
	t.Run("rotation", func(t *testing.T) { testRotation(t, p, main, began) })
}

// testRotation rotates the provider's keys twice: first the old ones go on being
// published, then, by a restart, they are gone.
func testRotation(t *testing.T, p *provider, site guarded, fetched time.Time) {
	old := p.machine(t, "ES256")
	site.accepts(t, p.maker, old)
	p.rotate(t)
	fresh := p.machine(t, "ES256")
	if header(t, fresh)["kid"] == header(t, old)["kid"] {
		t.Fatal("the provider signs with the old key")
	}
	time.Sleep(time.Until(fetched.Add(refetchPause + time.Second)))
	began := time.Now()
	site.accepts(t, p.maker, fresh)
	figures.time("first requests under a new key", time.Since(began))
	fetched = time.Now()
	site.accepts(t, p.maker, old)

	p.end()
	site.accepts(t, p.maker, old)
	p.start(t)
	latest := p.machine(t, "ES256")
	site.accepts(t, p.maker, old) // No reason to fetch yet.
	site.refuses(t, p.maker, latest, 401, "token-invalid", "jwt.unknown-key")
	time.Sleep(time.Until(fetched.Add(refetchPause + time.Second)))
	began = time.Now()
	site.accepts(t, p.maker, latest)
	figures.time("first requests under a new key", time.Since(began))
	site.refuses(t, p.maker, old, 401, "token-invalid", "jwt.unknown-key")
	site.refuses(t, p.maker, fresh, 401, "token-invalid", "jwt.unknown-key")
}
