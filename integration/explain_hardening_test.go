//go:build linux

package integration

import (
	"fmt"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"
)

// TestExplainDoesNotAnswerAnotherQuestion asks what a careless command line, or
// an odd configuration, could have answered for something else.
func TestExplainDoesNotAnswerAnotherQuestion(t *testing.T) {
	t.Parallel()
	secret := "0123456789abcdef0123456789abcdef"
	token := sign(t, jwt.SigningMethodHS256, []byte(secret), claims(nil))
	gate := func(rules string) string {
		return "moat_guard\n moat_jwt main {\nanonymous guest\n}\nmoat_rbac {\n" + rules + "\n}\nrespond \"ok\"\n"
	}
	h := newHome(t, caddyfile(fmt.Sprintf("issuer main {\niss %s\naudience %s\nsecret %s\n}\nrole guest x.read\n", issuerURL, audience, secret),
		"http://plain.test:8090 {\nmoat {\njwt main {\nanonymous guest\n}\nrbac {\nGET /x x.read\n}\n}\n}",
		"http://a.test:8091 {\nbind 127.0.0.1\nmoat {\nrbac {\nGET /x deny\n}\n}\n}",
		"http://a.test:8091 {\nbind 127.0.0.2\nreverse_proxy 127.0.0.1:1\n}",
		"http://b.test:8092 {\n@t header Authorization *\nroute @t {\n"+gate("* /** deny")+"}\nroute {\n"+gate("* /** public")+"}\n}",
	), nil)
	for name, row := range map[string]struct {
		args []string
		exit int
		want string
	}{
		"a stranger":                  {[]string{"GET", "http://plain.test:8090/x"}, 0, "guest"},
		"an unset configuration":      {[]string{"GET", "http://plain.test:8090/x", "--config", ""}, 2, "--config: is empty"},
		"an unset token":              {[]string{"GET", "http://plain.test:8090/x", "--token", ""}, 2, "--token: is empty"},
		"an unset file":               {[]string{"GET", "http://plain.test:8090/x", "--token-file", ""}, 2, "--token-file: is empty"},
		"an unset role":               {[]string{"GET", "http://plain.test:8090/x", "--role", ""}, 2, "--role: is empty"},
		"an unset user":               {[]string{"GET", "http://plain.test:8090/x", "--user", " "}, 2, "--user: is empty"},
		"an empty port":               {[]string{"GET", "http://plain.test:/x"}, 2, "port 80"},
		"an open twin":                {[]string{"GET", "http://a.test:8091/x"}, 2, "both serve this URL"},
		"a matcher for the token":     {[]string{"GET", "http://b.test:8092/x", "--token", token}, 1, "rbac.deny-rule"},
		"the same without":            {[]string{"GET", "http://b.test:8092/x"}, 0, "rbac.public"},
		"a token in a split header":   {[]string{"GET", "http://plain.test:8090/x", "--header", "Authorization Bearer " + token}, 2, "header 1"},
		"two callers":                 {[]string{"GET", "http://plain.test:8090/x", "--user", "u", "--header", "Authorization: Bearer x"}, 2, "told"},
		"a header that asks to go on": {[]string{"POST", "http://plain.test:8090/x", "--header", "Expect: 100-continue", "--header", "Content-Length: 3"}, 1, "no-rule"},
	} {
		got := explainIn(t, h, "", append([]string{"--config", h.File, "--adapter", "caddyfile"}, row.args...)...)
		if got.exit != row.exit || !strings.Contains(got.stdout+got.stderr, row.want) {
			t.Errorf("%s: exit %d, want %d and %q\n%s%s", name, got.exit, row.exit, row.want, got.stdout, got.stderr)
		}
		if strings.Contains(got.stdout+got.stderr, token) {
			t.Errorf("%s: the token is printed", name)
		}
	}
	// A key in another letter case is no way past the reduction.
	odd := `{"apps": {"http": {"servers": {"s": {"listen": [":8093"], "routes": [{"Handle": [{"handler": "reverse_proxy", "upstreams": [{"dial": "127.0.0.1:1"}]}]}]}}}}}`
	put(t, h.File+".json", odd)
	got := explainIn(t, h, "", "--config", h.File+".json", "GET", "http://x:8093/")
	if got.exit != 2 || !strings.Contains(got.stderr, `the key "Handle" is read as "handle"`) {
		t.Errorf("exit %d\n%s%s", got.exit, got.stdout, got.stderr)
	}
}
