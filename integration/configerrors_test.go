//go:build linux

package integration

import (
	"fmt"
	"strings"
	"testing"
)

// here marks a line of a Caddyfile whose place an error has to name.
const here = "# here"

// badConfig is a mistake and what the error must say about it. Every line that
// ends in the mark must be named as Caddyfile:LINE.
type badConfig struct {
	Global string // more lines of the global moat block
	Issuer string // replaces the issuer
	Site   string // replaces the site's moat block
	Want   []string
}

// issuerWith is an issuer block with the given lines.
func issuerWith(lines string) string { return "\t\tissuer main {\n" + lines + "\n\t\t}\n" }

// gateWith is a site's block with rules of its own.
func gateWith(rules string) string {
	return "moat {\n\t\tjwt main\n\t\trbac {\n" + rules + "\n\t\t}\n\t}"
}

// named is iss and audience.
const named = "iss https://id.test\naudience orders-api\n"

func (c badConfig) render(i *issuer) string {
	issuer := fallback(c.Issuer, issuerWith(named+"key "+i.KeyFile))
	site := fallback(c.Site, gateWith("* /** authenticated"))
	text := caddyfile(issuer+siteRoles+"\n"+c.Global,
		"http://127.0.0.1:18080 {\n\t"+site+"\n\treverse_proxy 127.0.0.1:3000 {\n\t\ttransport moat\n\t}\n}")
	return strings.NewReplacer("{key}", i.KeyFile, "{private}", i.PrivateFile).Replace(text)
}

// places are the marked lines of the text.
func places(text string) []string {
	var out []string
	for n, line := range strings.Split(text, "\n") {
		if strings.HasSuffix(line, here) {
			out = append(out, fmt.Sprintf("Caddyfile:%d", n+1))
		}
	}
	return out
}

func runBadConfigs(t *testing.T, cases map[string]badConfig) {
	i := newIssuer(t)
	// One after the other: each is a process, and two cores have enough of them.
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			text := c.render(i)
			out, exit := newHome(t, text, nil).validate(t)
			if exit == 0 {
				t.Fatalf("accepted:\n%s\n%s\n%s", c.Issuer, c.Global, c.Site)
			}
			for _, want := range append(places(text), c.Want...) {
				if !strings.Contains(out, want) && !strings.Contains(out, strings.ReplaceAll(want, `"`, `\"`)) {
					t.Errorf("no %q in\n%s", want, lastLines(out, 6))
				}
			}
			if strings.Contains(out, "panic") || strings.Contains(out, "planted-secret") {
				t.Errorf("panic or secret in\n%s", out)
			}
		})
	}
}

func TestGlobalMistakesAreLoadErrors(t *testing.T) {
	t.Parallel()
	runBadConfigs(t, map[string]badConfig{
		"unknown word":            {Global: "frobnicate yes " + here, Want: []string{"frobnicate"}},
		"unknown issuer word":     {Issuer: issuerWith(named + "key {key}\nfrobnicate " + here), Want: []string{"frobnicate"}},
		"no iss":                  {Issuer: issuerWith("audience orders-api\nkey {key}"), Want: []string{"main", "iss", "insecure_any_issuer"}},
		"no audience":             {Issuer: issuerWith("iss https://id.test\nkey {key}"), Want: []string{"main", "audience", "insecure_any_audience"}},
		"unset iss":               {Issuer: issuerWith("iss {env.MOAT_UNSET}\naudience orders-api\nkey {key}"), Want: []string{"iss", "MOAT_UNSET"}},
		"unset audience":          {Issuer: issuerWith("iss https://id.test\naudience {env.MOAT_UNSET}\nkey {key}"), Want: []string{"audience", "MOAT_UNSET"}},
		"no key source":           {Issuer: issuerWith(named), Want: []string{"main", "discovery", "jwks", "key", "secret"}},
		"two key sources":         {Issuer: issuerWith(named + "key {key}\nsecret planted-secret-planted-secret-planted"), Want: []string{"main", "key", "secret"}},
		"secret too short":        {Issuer: issuerWith(named + "secret planted-secret"), Want: []string{"main", "secret", "32"}},
		"unset secret":            {Issuer: issuerWith(named + "secret {env.MOAT_UNSET}"), Want: []string{"secret", "MOAT_UNSET"}},
		"missing key file":        {Issuer: issuerWith(named + "key /nowhere/key.pem"), Want: []string{"/nowhere/key.pem"}},
		"private key":             {Issuer: issuerWith(named + "key {private}"), Want: []string{"private"}},
		"algorithm none":          {Issuer: issuerWith(named + "key {key}\nalgorithms none"), Want: []string{"none"}},
		"symmetric beside public": {Issuer: issuerWith(named + "key {key}\nalgorithms ES256 HS256"), Want: []string{"HS256"}},
		"algorithm without a key": {Issuer: issuerWith(named + "key {key}\nalgorithms RS256"), Want: []string{"RS256"}},
		"plain http keys":         {Issuer: issuerWith(named + "jwks http://id.test/keys"), Want: []string{"http://id.test/keys", "https"}},
		"any issuer, remote keys": {Issuer: issuerWith("insecure_any_issuer\naudience orders-api\njwks https://id.test/keys"), Want: []string{"insecure_any_issuer"}},
		"leeway too long":         {Issuer: issuerWith(named + "key {key}\nleeway 1h"), Want: []string{"leeway", "1h"}},
		"issuer twice":            {Global: issuerWith(named + "key {key}"), Want: []string{"main"}},
		"role twice":              {Global: "role user other.permission", Want: []string{"user"}},
		"bad permission":          {Global: "role odd documents..read", Want: []string{"documents..read"}},
		"unknown inherit":         {Global: "role heir {\npermissions a.b\ninherit nobody\n}", Want: []string{"heir", "nobody"}},
		"inherit cycle":           {Global: "role ping {\ninherit pong\n}\nrole pong {\ninherit ping\n}", Want: []string{"ping", "pong"}},
		"bad scope":               {Global: "role far {\nscope galaxy\npermissions a.b\n}", Want: []string{"far", "galaxy"}},
		"role map to nowhere":     {Issuer: issuerWith(named + "key {key}\nrole_map x nobody"), Want: []string{"nobody"}},
		"sink without a journal":  {Global: "redis redis://127.0.0.1:1\naudit {\nsink redis_stream moat:audit\n}", Want: []string{"redis_stream", "journal"}},
		"unknown sink":            {Global: "audit {\njournal /nowhere/journal\nsink pigeon x\n}", Want: []string{"pigeon"}},
		"stream without a redis":  {Global: "audit {\njournal /nowhere/journal\nsink redis_stream moat:audit\n}", Want: []string{"redis"}},
		"webhook without secret":  {Global: "audit {\njournal /nowhere/journal\nsink webhook https://siem.test/in\n}", Want: []string{"webhook", "secret"}},
		"unset redis password":    {Global: "redis redis://127.0.0.1:1 {\npassword {env.MOAT_UNSET}\n}", Want: []string{"password", "MOAT_UNSET"}},
		"unset redis address":     {Global: "redis {env.MOAT_UNSET}", Want: []string{"redis", "MOAT_UNSET"}},
		"bad redis policy":        {Global: "redis redis://127.0.0.1:1 {\non_error maybe\n}", Want: []string{"on_error", "maybe"}},
	})
}

func TestSiteMistakesAreLoadErrors(t *testing.T) {
	t.Parallel()
	limit := func(line string) string {
		return "moat {\n\t\t" + line + "\n\t\trbac {\n* /** public\n}\n}"
	}
	runBadConfigs(t, map[string]badConfig{
		"unknown word":          {Site: "moat {\nfrobnicate " + here + "\nrbac {\n* /** public\n}\n}", Want: []string{"frobnicate"}},
		"second moat":           {Site: gateWith("* /** public") + "\n" + strings.Replace(gateWith("* /** public"), "{", "{ "+here, 1), Want: []string{"moat"}},
		"matcher":               {Site: "moat /api/* {\nrbac {\n* /** public\n}\n}", Want: []string{"moat", "matcher"}},
		"named matcher":         {Site: "@api path /api/*\nmoat @api {\nrbac {\n* /** public\n}\n}", Want: []string{"moat", "matcher"}},
		"inside handle":         {Site: "handle {\n" + gateWith("* /** public") + "\n}", Want: []string{"moat_guard"}},
		"inside route":          {Site: "route {\n" + gateWith("* /** public") + "\n}", Want: []string{"moat_guard"}},
		"no rbac":               {Site: "moat {\njwt main\n}", Want: []string{"* /** authenticated", "* /** public"}},
		"empty rbac":            {Site: "moat {\njwt main\nrbac {\n}\n}", Want: []string{"* /** authenticated", "* /** public"}},
		"somebody without jwt":  {Site: "moat {\nrbac {\nGET /me authenticated\n}\n}", Want: []string{"jwt"}},
		"permission, no jwt":    {Site: "moat {\nrbac {\nGET /x documents.read\n}\n}", Want: []string{"jwt"}},
		"limit by user, no jwt": {Site: limit("limit 5/1m by user"), Want: []string{"user", "jwt"}},
		"unknown issuer":        {Site: "moat {\njwt ghost\nrbac {\n* /** authenticated\n}\n}", Want: []string{"ghost"}},
		"unknown anonymous":     {Site: "moat {\njwt main {\nanonymous ghost\n}\nrbac {\n* /** authenticated\n}\n}", Want: []string{"ghost"}},
		"unknown forward":       {Site: "moat {\njwt main {\nforward X-Thing shoe\n}\nrbac {\n* /** authenticated\n}\n}", Want: []string{"shoe"}},
		"unknown preset":        {Site: "moat {\nheaders xml\nrbac {\n* /** public\n}\n}", Want: []string{"xml"}},
		"unsafe csp": {Site: "moat {\nheaders html {\ncsp {\nscript-src 'unsafe-inline'\n}\n}\nrbac {\n* /** public\n}\n}",
			Want: []string{"unsafe-inline", "insecure_"}},
		"unknown csp":         {Site: "moat {\nheaders html {\ncsp {\nscript-sauce 'self'\n}\n}\nrbac {\n* /** public\n}\n}", Want: []string{"script-sauce"}},
		"limit of nothing":    {Site: limit("limit 0/1m by ip"), Want: []string{"0/1m"}},
		"limit without time":  {Site: limit("limit 5/0s by ip"), Want: []string{"5/0s"}},
		"limit of no form":    {Site: limit("limit many by ip"), Want: []string{"N/WINDOW"}},
		"limit by no key":     {Site: limit("limit 5/1m by planet"), Want: []string{"planet"}},
		"parameter without a": {Site: limit("limit 5/1m by param:id"), Want: []string{"param:id"}},
	})
}

func TestRuleMistakesAreLoadErrors(t *testing.T) {
	t.Parallel()
	runBadConfigs(t, map[string]badConfig{
		"conflict": {Site: gateWith("GET /a/{x}/c authenticated " + here + "\nGET /a/b/{y} public " + here),
			Want: []string{"/a/{x}/c", "/a/b/{y}"}},
		"same rule twice": {Site: gateWith("GET /a/{x} authenticated " + here + "\nGET,POST /a/{y} public " + here),
			Want: []string{"/a/{"}},
		"unknown owner":       {Site: gateWith("GET /a/{x} a.b owner={nobody} " + here), Want: []string{"nobody"}},
		"unknown tenant":      {Site: gateWith("GET /a/{x} a.b tenant={nobody} " + here), Want: []string{"nobody"}},
		"public and more":     {Site: gateWith("GET /a public a.b " + here), Want: []string{"public"}},
		"no requirement":      {Site: gateWith("GET /a " + here), Want: []string{"/a"}},
		"no slash":            {Site: gateWith("GET a public " + here), Want: []string{"a"}},
		"double slash":        {Site: gateWith("GET /a//b public " + here), Want: []string{"/a//b"}},
		"dot segment":         {Site: gateWith("GET /a/../b public " + here), Want: []string{"/a/../b"}},
		"query":               {Site: gateWith("GET /a?b public " + here), Want: []string{"/a?b"}},
		"tail in the middle":  {Site: gateWith("GET /a/**/b public " + here), Want: []string{"/a/**/b"}},
		"parameter twice":     {Site: gateWith("GET /a/{x}/{x} public " + here), Want: []string{"/a/{x}/{x}"}},
		"bad parameter":       {Site: gateWith("GET /a/{X-Y} public " + here), Want: []string{"/a/"}},
		"lower-case method":   {Site: gateWith("get /a public " + here), Want: []string{"get"}},
		"bad permission":      {Site: gateWith("GET /a documents..read " + here), Want: []string{"documents..read"}},
		"unknown block word":  {Site: gateWith("GET /a public {\nfrobnicate " + here + "\n}"), Want: []string{"frobnicate"}},
		"overlap of wildcard": {Site: gateWith("* /a/{x}/c authenticated " + here + "\nGET /a/b/** public " + here), Want: []string{"/a/b/**"}},
	})
}

func TestAllMistakesAtOnce(t *testing.T) {
	t.Parallel()
	c := badConfig{
		Issuer: issuerWith("key /nowhere/one.pem"),
		Global: "role heir {\ninherit nobody\n}\nrole odd documents..read",
	}
	out, exit := newHome(t, c.render(newIssuer(t)), nil).validate(t)
	if exit == 0 {
		t.Fatal("accepted")
	}
	for _, want := range []string{"insecure_any_issuer", "insecure_any_audience", "/nowhere/one.pem", "nobody", "documents..read"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, lastLines(out, 8))
		}
	}
	rules := badConfig{Site: gateWith("GET a public " + here + "\nGET /b/{x} c.d owner={y} " + here + "\nget /e public " + here)}
	text := rules.render(newIssuer(t))
	out, _ = newHome(t, text, nil).validate(t)
	for _, want := range places(text) {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, lastLines(out, 8))
		}
	}
}

// TestUnusualConfigurationsAreValid accepts what looks odd and is right: any order
// of lines, parameter names that Caddy takes for placeholders, a third rule that
// settles an overlap.
func TestUnusualConfigurationsAreValid(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	for name, c := range map[string]badConfig{
		"lines backwards": {Site: "moat {\nrbac {\n* /** authenticated\n}\njwt main\nlimit default\nheaders api\n}"},
		"Caddy's placeholders": {Site: gateWith(
			"GET /f/{file} files.read owner={file}\nGET /p/{path}/{host} a.b tenant={path}\nGET /d/{dir}/{method...} a.b")},
		"parameter of a limit": {Site: "moat {\njwt main\nlimit 5/1m by param:file {\non * /f/{file}\n}\nrbac {\n* /** authenticated\n}\n}"},
		"settled overlap":      {Site: gateWith("GET /a/{x}/c public\nGET /a/b/{y} public\nGET /a/b/c authenticated")},
		"other methods":        {Site: gateWith("GET /a/{x}/c public\nPOST /a/b/{y} public")},
		"more specific first":  {Site: gateWith("* /** authenticated\n* /admin/** deny\nGET /{page} public")},
		"stdout alone":         {Global: "audit {\nsink stdout\n}"},
		"two secrets":          {Issuer: issuerWith(named + "secret " + strings.Repeat("a", 32) + "\nsecret " + strings.Repeat("b", 32))},
		"local keys, no names": {Issuer: issuerWith("insecure_any_issuer\ninsecure_any_audience\nkey {key}")},
		"no limits, no jwt":    {Site: "moat {\nrbac {\n* /** public\n}\n}"},
	} {
		t.Run(name, func(t *testing.T) {
			text := c.render(i)
			if out, exit := newHome(t, text, nil).validate(t); exit != 0 {
				t.Errorf("exit %d\n%s", exit, lastLines(out, 3))
			}
		})
	}
}
