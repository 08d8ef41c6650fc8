//go:build interop && linux

package interop

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// sharedSecret is long enough for every HS algorithm.
const sharedSecret = "a-secret-that-two-programs-of-this-test-share-and-nobody-else-at-all"

// joseProcess is node/jose.mjs.
type joseProcess struct {
	*process
	mu    sync.Mutex
	asked int
}

// joseKey is the public half of a key that jose made.
type joseKey struct {
	PEM string         `json:"pem"`
	JWK map[string]any `json:"jwk"`
	Kid string         `json:"kid"`
}

func startJose(t testing.TB) *joseProcess {
	t.Helper()
	j := &joseProcess{process: startNode(t, "jose.mjs")}
	versions := map[string]string{}
	j.ask(t, "versions", nil, &versions)
	for name, value := range versions {
		figures.version(name, value)
	}
	return j
}

// ask has jose do one operation.
func (j *joseProcess) ask(t testing.TB, op string, question map[string]any, result any) {
	t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	q := map[string]any{"op": op}
	maps.Copy(q, question)
	line, err := json.Marshal(q)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(j.stdin, string(line)+"\n"); err != nil {
		t.Fatal(err)
	}
	await(t, startBudget, "jose to "+op, func() bool {
		if j.exited() {
			t.Fatalf("jose ended:\n%s", j.stderr.String())
		}
		return len(j.lines()) > j.asked
	})
	var answer struct {
		Result json.RawMessage
		Error  string
	}
	answerLine := j.lines()[j.asked]
	j.asked++
	if err := json.Unmarshal([]byte(answerLine), &answer); err != nil {
		t.Fatal(err)
	}
	if answer.Error != "" {
		t.Fatalf("jose could not %s: %s", op, answer.Error)
	}
	if err := json.Unmarshal(answer.Result, result); err != nil {
		t.Fatal(err)
	}
}

func (j *joseProcess) token(t testing.TB, op string, question map[string]any) string {
	t.Helper()
	var token string
	j.ask(t, op, question, &token)
	return token
}

// object is a JSON object.
type object = map[string]any

// claims are those of caller u-1. The given ones replace or, when nil, remove
// single members.
func claims(iss string, change object) object {
	now := time.Now().Unix()
	c := object{"iss": iss, "aud": "orders-api", "sub": "u-1", "tenant_id": "t-1", "roles": []string{"user"}, "iat": now, "exp": now + 600}
	return with(c, change)
}

func with(o, change object) object {
	o = maps.Clone(o)
	maps.Copy(o, change)
	maps.DeleteFunc(o, func(_ string, v any) bool { return v == nil })
	return o
}

// keyType tells which plain key serves an algorithm.
func keyType(alg string) string {
	switch alg {
	case "ES256":
		return "p256"
	case "ES384":
		return "p384"
	case "ES512":
		return "p521"
	case "EdDSA":
		return "ed25519"
	}
	return "rsa"
}

var (
	publicAlgorithms = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
	secretAlgorithms = []string{"HS256", "HS384", "HS512"}
)

// world is a gateway that trusts jose by every kind of key source: PEM files,
// a key set whose keys name their algorithm, one whose keys name nothing, and a
// shared secret.
type world struct {
	guarded
	jose *joseProcess
	keys map[string]joseKey
}

func startWorld(t testing.TB) *world {
	t.Helper()
	w := &world{jose: startJose(t), keys: map[string]joseKey{}}
	w.jose.ask(t, "keys", nil, &w.keys)
	dir := t.TempDir()
	var files []string
	named, plain := []any{}, []any{}
	for _, alg := range publicAlgorithms {
		named = append(named, w.keys[alg].JWK)
	}
	for _, kind := range []string{"rsa", "p256", "p384", "p521", "ed25519"} {
		plain = append(plain, w.keys[kind].JWK)
		files = append(files, filepath.Join(dir, kind+".pem"))
		writeFile(t, files[len(files)-1], w.keys[kind].PEM)
	}
	writeFile(t, filepath.Join(dir, "named.json"), marshal(t, object{"keys": named}))
	writeFile(t, filepath.Join(dir, "plain.json"), marshal(t, object{"keys": plain}))
	issuers := ""
	for name, source := range map[string]string{
		"pem":    "key " + strings.Join(files, " ") + "\nalgorithms " + strings.Join(publicAlgorithms, " "),
		"named":  "jwks " + filepath.Join(dir, "named.json"),
		"plain":  "jwks " + filepath.Join(dir, "plain.json") + "\nignore_headers x5t x5t#S256\nalgorithms " + strings.Join(publicAlgorithms, " "),
		"secret": "secret {env.INTEROP_SECRET}\nalgorithms " + strings.Join(secretAlgorithms, " "),
	} {
		issuers += fmt.Sprintf(`
		issuer %s {
			iss %s
			audience orders-api
			claims {
				id %s sub
				tenant org.id tenant_id
				roles realm_access.roles roles
			}
			role_map "Größen & Maße" admin
			%s
		}`, name, issOf(name), "`\"https://claims.test/user\"`", source)
	}
	w.guarded = startGateway(t, issuers, "pem named plain secret")[0]
	return w
}

func issOf(source string) string { return "https://" + source + ".test" }

func writeFile(t testing.TB, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func marshal(t testing.TB, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// signer is the question that makes jose sign for a source.
func (w *world) signer(source, alg string, header, claims object) object {
	q := object{"header": with(object{"alg": alg, "typ": "JWT"}, header), "claims": claims}
	switch source {
	case "secret":
		q["secret"] = sharedSecret
	case "named":
		q["key"] = alg
	default:
		q["key"] = keyType(alg)
	}
	return q
}

func (w *world) sign(t testing.TB, source, alg string, header, claims object) string {
	t.Helper()
	began := time.Now()
	token := w.jose.token(t, "sign", w.signer(source, alg, header, claims))
	figures.time("tokens signed by jose", time.Since(began))
	return token
}

func TestJose(t *testing.T) {
	t.Parallel()
	w := startWorld(t)
	t.Run("every algorithm", func(t *testing.T) { testEveryAlgorithm(t, w) })
	t.Run("claims", func(t *testing.T) { testClaims(t, w) })
	t.Run("ignored headers", func(t *testing.T) { testIgnoredHeaders(t, w) })
	t.Run("refused", func(t *testing.T) { testRefused(t, w) })
	t.Run("the other way round", func(t *testing.T) { testOtherWayRound(t, w) })
}

// testEveryAlgorithm signs with every algorithm, with and without kid, with
// every typ, for every kind of key source.
func testEveryAlgorithm(t *testing.T, w *world) {
	types := map[string]any{"JWT": "JWT", "jwt in small letters": "jwt", "at+jwt": "at+jwt", "a media type": "application/at+jwt", "none": nil}
	for source, algorithms := range map[string][]string{
		"pem": publicAlgorithms, "named": publicAlgorithms, "plain": publicAlgorithms, "secret": secretAlgorithms,
	} {
		for _, alg := range algorithms {
			kids := []any{nil, "a-name-of-its-own"}
			switch source {
			case "named":
				kids[1] = w.keys[alg].Kid
			case "plain":
				kids = kids[:1] // A key without a name serves tokens without one.
			}
			for name, typ := range types {
				for _, kid := range kids {
					t.Run(fmt.Sprintf("%s/%s/typ %s/kid %t", source, alg, name, kid != nil), func(t *testing.T) {
						token := w.sign(t, source, alg, object{"typ": typ, "kid": kid}, claims(issOf(source), nil))
						want := caller{ID: "u-1", Tenant: "t-1", Roles: "user", Issuer: source, Token: token}
						if got := w.accepts(t, "jose", token); got != want {
							t.Errorf("the upstream saw %+v, want %+v", got, want)
						}
					})
				}
			}
		}
	}
}

// testClaims has the shapes that claims take in JavaScript.
func testClaims(t *testing.T, w *world) {
	now := float64(time.Now().UnixMilli()) / 1000
	for name, c := range map[string]struct {
		change object
		want   caller
	}{
		"aud is an array":         {object{"aud": []string{"orders-api"}}, caller{ID: "u-1", Tenant: "t-1", Roles: "user"}},
		"aud is a long array":     {object{"aud": []string{"account", "https://orders.test/", "orders-api"}}, caller{ID: "u-1", Tenant: "t-1", Roles: "user"}},
		"id is a number":          {object{"sub": 42}, caller{ID: "42", Tenant: "t-1", Roles: "user"}},
		"id is 0":                 {object{"sub": 0}, caller{ID: "0", Tenant: "t-1", Roles: "user"}},
		"id is the safest number": {object{"sub": 1<<53 - 1}, caller{ID: "9007199254740991", Tenant: "t-1", Roles: "user"}},
		"tenant is a number":      {object{"org": object{"id": 7}}, caller{ID: "u-1", Tenant: "7", Roles: "user"}},
		"id under a URL":          {object{"https://claims.test/user": "c-9"}, caller{ID: "c-9", Tenant: "t-1", Roles: "user"}},
		"no tenant":               {object{"tenant_id": nil}, caller{ID: "u-1", Roles: "user"}},
		"nested roles": {
			object{"realm_access": object{"roles": []string{"offline_access", "admin", "user"}}},
			caller{ID: "u-1", Tenant: "t-1", Roles: "admin,user"},
		},
		"a role that is a string":    {object{"roles": "admin"}, caller{ID: "u-1", Tenant: "t-1", Roles: "admin"}},
		"no roles":                   {object{"roles": []string{}}, caller{ID: "u-1", Tenant: "t-1"}},
		"a role that is translated":  {object{"roles": []string{"Größen & Maße"}}, caller{ID: "u-1", Tenant: "t-1", Roles: "admin"}},
		"unicode":                    {object{"sub": "Zoë-Ωλ-日本-🦄", "tenant_id": "Ångström"}, caller{ID: "Zoë-Ωλ-日本-🦄", Tenant: "Ångström", Roles: "user"}},
		"unicode elsewhere":          {object{"name": "\u202eשלום \u0000 \"</script>", "ключ": object{"emoji 🦄": nil}}, caller{ID: "u-1", Tenant: "t-1", Roles: "user"}},
		"dates with fractions":       {object{"iat": now - 1.5, "nbf": now - 0.25, "exp": now + 60.125}, caller{ID: "u-1", Tenant: "t-1", Roles: "user"}},
		"no iat":                     {object{"iat": nil}, caller{ID: "u-1", Tenant: "t-1", Roles: "user"}},
		"expired within the leeway":  {object{"iat": now - 60, "exp": now - 5}, caller{ID: "u-1", Tenant: "t-1", Roles: "user"}},
		"issued ahead of our clock":  {object{"iat": now + 10, "nbf": now + 10}, caller{ID: "u-1", Tenant: "t-1", Roles: "user"}},
		"much that is none of ours":  {object{"scope": "openid documents.read", "azp": "spa", "client_id": "spa", "acr": "1", "amr": []string{"pwd", "otp"}, "auth_time": int64(now), "jti": "j-1"}, caller{ID: "u-1", Tenant: "t-1", Roles: "user"}},
		"a claim named like Object":  {object{"constructor": object{"prototype": object{}}, "toString": 1}, caller{ID: "u-1", Tenant: "t-1", Roles: "user"}},
		"null where nobody looks":    {object{"email": json.RawMessage("null")}, caller{ID: "u-1", Tenant: "t-1", Roles: "user"}},
		"several KiB of permissions": {object{"perms": strings.Split(strings.Repeat("a-permission ", 300), " ")}, caller{ID: "u-1", Tenant: "t-1", Roles: "user"}},
	} {
		t.Run(name, func(t *testing.T) {
			token := w.sign(t, "pem", "ES256", nil, claims(issOf("pem"), c.change))
			c.want.Issuer, c.want.Token = "pem", token
			if got := w.accepts(t, "jose", token); got != c.want {
				t.Errorf("the upstream saw %+v, want %+v", got, c.want)
			}
		})
	}
}

// testIgnoredHeaders has header members that some providers add and that change
// nothing: they are refused unless the operator lists them.
func testIgnoredHeaders(t *testing.T, w *world) {
	change := object{"x5t": "dGh1bWJwcmludA", "x5t#S256": "dGh1bWJwcmludCBvZiBhIGNlcnQ"}
	w.accepts(t, "jose", w.sign(t, "plain", "RS256", change, claims(issOf("plain"), nil)))
	w.refuses(t, "jose", w.sign(t, "pem", "RS256", change, claims(issOf("pem"), nil)), 401, "token-invalid", "jwt.header-member")
}

// testRefused has jose make what a gateway must not take.
func testRefused(t *testing.T, w *world) {
	good := func(change object) object { return claims(issOf("named"), change) }
	es256 := object{"kid": w.keys["ES256"].Kid}
	header := func(change object) object { return with(object{"alg": "ES256", "typ": "JWT"}, with(es256, change)) }
	sign := func(change object) string { return w.sign(t, "named", "ES256", es256, good(change)) }
	under := func(change object) string { return w.sign(t, "named", "ES256", with(es256, change), good(nil)) }
	other := func(op, key string, change object) string {
		return w.jose.token(t, op, object{"header": header(change), "claims": good(nil), "key": key})
	}
	hmac := func(secret string, kid any) string {
		return w.jose.token(t, "sign", object{"header": with(object{"alg": "HS256"}, object{"kid": kid}), "claims": good(nil), "secret": secret})
	}
	text := func(s string) string {
		return w.jose.token(t, "signText", object{"header": header(nil), "text": s, "key": "ES256"})
	}
	now := time.Now().Unix()
	for name, c := range map[string]struct {
		token, reason string
	}{
		"unsecured":                  {w.jose.token(t, "unsecured", object{"claims": good(nil)}), "jwt.malformed"},
		"encrypted":                  {w.jose.token(t, "encrypt", object{"claims": good(nil)}), "jwt.malformed"},
		"signed, then encrypted":     {w.jose.token(t, "nested", w.signer("named", "ES256", es256, good(nil))), "jwt.malformed"},
		"crit":                       {other("crit", "ES256", nil), "jwt.crit"},
		"b64 false":                  {other("unencoded", "ES256", nil), "jwt.crit"},
		"b64 false without crit":     {under(object{"b64": false}), "jwt.header-member"},
		"b64 true without crit":      {under(object{"b64": true}), "jwt.header-member"},
		"brings its key":             {other("embedded", "stranger", object{"kid": nil}), "jwt.header-member"},
		"brings a trusted key":       {other("embedded", "ES256", nil), "jwt.header-member"},
		"says where its key is":      {under(object{"jku": "http://127.0.0.1:1/keys"}), "jwt.header-member"},
		"says where a cert is":       {under(object{"x5u": "http://127.0.0.1:1/cert"}), "jwt.header-member"},
		"brings a certificate":       {under(object{"x5c": []string{"MIIB"}}), "jwt.header-member"},
		"an unknown header member":   {under(object{"zip": "DEF"}), "jwt.header-member"},
		"another key, the same kid":  {other("sign", "stranger", nil), "jwt.bad-signature"},
		"another key, no kid":        {other("sign", "stranger", object{"kid": nil}), "jwt.bad-signature"},
		"an unknown kid":             {under(object{"kid": "nobody"}), "jwt.unknown-key"},
		"the kid of another key":     {under(object{"kid": w.keys["ES384"].Kid}), "jwt.alg-mismatch"},
		"PS256 by a key for RS256":   {w.jose.token(t, "sign", object{"header": object{"alg": "PS256", "kid": w.keys["RS256"].Kid}, "claims": good(nil), "key": "PS256"}), "jwt.alg-mismatch"},
		"a public key as the secret": {hmac(w.keys["RS256"].PEM, w.keys["RS256"].Kid), "jwt.alg-mismatch"},
		"the secret of another":      {hmac(sharedSecret, nil), "jwt.alg-mismatch"},
		"Ed25519 for EdDSA":          {w.jose.token(t, "sign", object{"header": object{"alg": "Ed25519"}, "claims": claims(issOf("pem"), nil), "key": "ed25519"}), "jwt.alg-mismatch"},
		"a named key, keys unnamed":  {w.sign(t, "plain", "ES256", object{"kid": "a-name"}, claims(issOf("plain"), nil)), "jwt.unknown-key"},
		"no exp":                     {sign(object{"exp": nil}), "jwt.exp-missing"},
		"exp is a string":            {sign(object{"exp": fmt.Sprint(now + 60)}), "jwt.bad-date"},
		"exp in milliseconds":        {sign(object{"exp": (now + 60) * 1000}), "jwt.bad-date"},
		"a life of two days":         {sign(object{"exp": now + 48*3600}), "jwt.lifetime"},
		"not yet valid":              {sign(object{"nbf": now + 120}), "jwt.not-yet-valid"},
		"issued tomorrow":            {sign(object{"iat": now + 3600, "exp": now + 7200}), "jwt.iat-future"},
		"another audience":           {sign(object{"aud": "another-api"}), "jwt.aud-mismatch"},
		"other audiences":            {sign(object{"aud": []string{"another-api", "orders-api/"}}), "jwt.aud-mismatch"},
		"no audience":                {sign(object{"aud": nil}), "jwt.aud-mismatch"},
		"no audience in an array":    {sign(object{"aud": []string{}}), "jwt.aud-mismatch"},
		"a number among audiences":   {sign(object{"aud": []any{"orders-api", 1}}), "jwt.aud-mismatch"},
		"another issuer":             {sign(object{"iss": "https://elsewhere.test"}), "jwt.iss-mismatch"},
		"an issuer with a slash":     {sign(object{"iss": issOf("named") + "/"}), "jwt.iss-mismatch"},
		"another issuer's token":     {sign(object{"iss": issOf("pem")}), "jwt.bad-signature"},
		"a nonce":                    {sign(object{"nonce": "n-1"}), "jwt.id-token"},
		"an event":                   {sign(object{"events": object{"http://schemas.openid.net/event/backchannel-logout": object{}}}), "jwt.event-token"},
		"typ logout+jwt":             {under(object{"typ": "logout+jwt"}), "jwt.typ-mismatch"},
		"typ dpop+jwt":               {under(object{"typ": "dpop+jwt"}), "jwt.typ-mismatch"},
		"no sub":                     {sign(object{"sub": nil}), "jwt.bad-claim"},
		"sub is null":                {sign(object{"sub": json.RawMessage("null")}), "jwt.bad-claim"},
		"sub is a fraction":          {sign(object{"sub": 1.5}), "jwt.bad-claim"},
		"sub is 1e21":                {sign(object{"sub": 1e21}), "jwt.bad-claim"},
		"sub is a boolean":           {sign(object{"sub": true}), "jwt.bad-claim"},
		"a line end in sub":          {sign(object{"sub": "u-1\r\nX-Roles: admin"}), "jwt.bad-claim"},
		"half a character in sub":    {text(strings.Replace(marshal(t, good(nil)), `"u-1"`, `"u-\ud800"`, 1)), "jwt.malformed"},
		"sub twice":                  {text(strings.Replace(marshal(t, good(nil)), `{`, `{"sub":"u-2",`, 1)), "jwt.claim-duplicate"},
		"an array for claims":        {text(`[1]`), "jwt.malformed"},
		"a claims set of 9 KiB":      {sign(object{"perms": strings.Repeat("a", 9<<10)}), "jwt.too-large"},
	} {
		t.Run(name, func(t *testing.T) {
			w.refuses(t, "jose", c.token, 401, "token-invalid", c.reason)
		})
	}
	t.Run("expired", func(t *testing.T) {
		w.refuses(t, "jose", sign(object{"iat": now - 7200, "exp": now - 3600}), 401, "token-expired", "jwt.expired")
	})
	t.Run("expired and for another", func(t *testing.T) {
		w.refuses(t, "jose", sign(object{"aud": "another-api", "iat": now - 7200, "exp": now - 3600}), 401, "token-invalid", "jwt.aud-mismatch")
	})
}
