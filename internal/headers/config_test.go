package headers_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/headers"
)

func csp(lines ...string) []headers.Directive {
	var out []headers.Directive
	for i, line := range lines {
		words := strings.Fields(line)
		out = append(out, headers.Directive{Name: words[0], Sources: words[1:], Place: fmt.Sprint("Caddyfile:", i+1)})
	}
	return out
}

func set(name, value string) []headers.Field {
	return []headers.Field{{Name: name, Value: value, Place: "Caddyfile:7"}}
}

func many(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprint("X-", i)
	}
	return names
}

func fields(n int) (out []headers.Field) {
	for _, name := range many(n) {
		out = append(out, headers.Field{Name: name, Value: "1"})
	}
	return out
}

func TestWrongConfigurationsAreRefused(t *testing.T) {
	rows := map[string]struct {
		cfg  headers.Config
		want string // in the error's text
	}{
		"unknown preset":            {headers.Config{Preset: "strict"}, `preset "strict": must be html or api`},
		"preset in another case":    {headers.Config{Preset: "HTML"}, `preset "HTML"`},
		"set without a name":        {headers.Config{Set: set("", "a")}, "the name is empty"},
		"set with a space":          {headers.Config{Set: set("X Y", "a")}, "is not a header name"},
		"set with a colon":          {headers.Config{Set: set("Trailer:X", "a")}, "is not a header name"},
		"set with a long name":      {headers.Config{Set: set(strings.Repeat("x", 129), "a")}, "longer than 128"},
		"set without a value":       {headers.Config{Set: set("X-A", "")}, `Caddyfile:7: set "X-A": value "": is empty`},
		"set to blanks":             {headers.Config{Set: set("X-A", " \t")}, "is empty"},
		"set with a line break":     {headers.Config{Set: set("X-A", "a\r\nX-B: c")}, "printable ASCII"},
		"set with a letter beyond":  {headers.Config{Set: set("X-A", "ä")}, "printable ASCII"},
		"set with DEL":              {headers.Config{Set: set("X-A", "a\x7f")}, "printable ASCII"},
		"set too long":              {headers.Config{Set: set("X-A", strings.Repeat("a", 4097))}, "at most 4096"},
		"set twice":                 {headers.Config{Set: append(set("X-A", "1"), set("x-a", "2")...)}, "is set twice (first at Caddyfile:7)"},
		"set a frame of messages":   {headers.Config{Set: set("content-length", "1")}, "value of its own"},
		"set a cookie":              {headers.Config{Set: set("Set-Cookie", "a=b")}, "value of its own"},
		"set too many":              {headers.Config{Set: fields(65)}, "65 headers: at most 64"},
		"nosniff misspelt":          {headers.Config{Set: set("X-Content-Type-Options", "no-sniff")}, "must be one of nosniff"},
		"frame options with a host": {headers.Config{Set: set("X-Frame-Options", "ALLOW-FROM https://a")}, "must be one of DENY, SAMEORIGIN"},
		"referrer policy misspelt":  {headers.Config{Set: set("Referrer-Policy", "no-referer")}, "must be one of no-referrer"},
		"feature policy syntax":     {headers.Config{Set: set("Permissions-Policy", "camera 'none'; usb 'self'")}, "write feature=()"},
		"permissions unclosed":      {headers.Config{Set: set("Permissions-Policy", "camera=(self")}, "write feature=()"},
		"permissions quote open":    {headers.Config{Set: set("Permissions-Policy", `camera=("https://a)`)}, "write feature=()"},
		"permissions upper case":    {headers.Config{Set: set("Permissions-Policy", "Camera=()")}, "write feature=()"},
		"opener policy in capitals": {headers.Config{Set: set("Cross-Origin-Opener-Policy", "Same-Origin")}, "must be one of"},
		"resource policy none":      {headers.Config{Set: set("Cross-Origin-Resource-Policy", "none")}, "must be one of"},
		"embedder policy none":      {headers.Config{Set: set("Cross-Origin-Embedder-Policy", "none")}, "must be one of"},
		"agent cluster true":        {headers.Config{Set: set("Origin-Agent-Cluster", "true")}, "must be one of ?1, ?0"},
		"cross domain policies":     {headers.Config{Set: set("X-Permitted-Cross-Domain-Policies", "no")}, "must be one of none"},

		"hsts without age":           {headers.Config{Set: set("Strict-Transport-Security", "includeSubDomains")}, "max-age is missing"},
		"hsts age no number":         {headers.Config{Set: set("Strict-Transport-Security", "max-age=1y")}, "number of seconds"},
		"hsts unknown word":          {headers.Config{Set: set("Strict-Transport-Security", "max-age=1; always")}, "is no directive"},
		"hsts preload with a value":  {headers.Config{Set: set("Strict-Transport-Security", "max-age=1; preload=1")}, "is no directive"},
		"hsts twice":                 {headers.Config{Set: set("Strict-Transport-Security", "max-age=1; max-age=1")}, "stands twice"},
		"hsts preload set alone":     {headers.Config{Set: set("Strict-Transport-Security", "max-age=63072000; preload")}, "preload needs the subdomains"},
		"hsts preload set short":     {headers.Config{Set: set("Strict-Transport-Security", "max-age=86400; includeSubDomains; preload")}, "at least one year"},
		"hsts set and typed":         {headers.Config{Set: set("Strict-Transport-Security", "max-age=1"), HSTSSubdomains: true}, "not both"},
		"hsts preload without subs":  {headers.Config{HSTSPreload: true}, "preload needs the subdomains"},
		"hsts preload short":         {headers.Config{HSTSPreload: true, HSTSSubdomains: true, HSTSMaxAge: 24 * time.Hour}, "at least one year"},
		"hsts age negative":          {headers.Config{HSTSMaxAge: -time.Hour}, "whole seconds"},
		"hsts age broken":            {headers.Config{HSTSMaxAge: 1500 * time.Millisecond}, "whole seconds"},
		"hsts age over ten years":    {headers.Config{HSTSMaxAge: 11 * 365 * 24 * time.Hour}, "whole seconds"},
		"hsts age below one second":  {headers.Config{HSTSMaxAge: time.Millisecond}, "whole seconds"},
		"keep nothing known":         {headers.Config{Keep: []string{"X-Other"}}, `keep "X-Other": is no header of this policy`},
		"keep no name":               {headers.Config{Keep: []string{""}}, "the name is empty"},
		"keep a bad name":            {headers.Config{Keep: []string{"a b"}}, "is not a header name"},
		"keep twice":                 {headers.Config{Keep: []string{"X-Frame-Options", "x-frame-options"}}, "is named twice"},
		"keep too many":              {headers.Config{Keep: many(65)}, "keep: 65 headers"},
		"keep Server":                {headers.Config{Keep: []string{"Server"}}, "is no header of this policy"},
		"remove one of the policy":   {headers.Config{Remove: []string{"x-frame-options"}}, "set it to another value, or keep"},
		"remove one that is set":     {headers.Config{Set: set("X-A", "1"), Remove: []string{"X-A"}}, "is a header of this policy"},
		"remove the message's frame": {headers.Config{Remove: []string{"Content-Type"}}, "would not be understood"},
		"remove no name":             {headers.Config{Remove: []string{""}}, "the name is empty"},
		"remove too many":            {headers.Config{Remove: many(65)}, "remove: 65 headers"},

		"frames contradict":        {headers.Config{Set: set("X-Frame-Options", "DENY"), CSP: csp("frame-ancestors 'self'")}, "set it to SAMEORIGIN"},
		"frames contradict none":   {headers.Config{Set: set("X-Frame-Options", "SAMEORIGIN"), CSP: csp("frame-ancestors 'none'")}, "set it to DENY"},
		"frames contradict a host": {headers.Config{Set: set("X-Frame-Options", "sameorigin"), CSP: csp("frame-ancestors https://a.example")}, "contradicts frame-ancestors https://a.example"},
		"frames contradict a whole policy": {headers.Config{Set: append(set("X-Frame-Options", "DENY"),
			set("Content-Security-Policy", "default-src 'self'; frame-ancestors 'self'")...)}, "contradicts"},

		"whole policy and lines":   {headers.Config{Set: set("Content-Security-Policy", "default-src 'self'"), CSP: csp("img-src *")}, "not both"},
		"whole policy wrong":       {headers.Config{Set: set("Content-Security-Policy", "defualt-src 'self'")}, "did you mean default-src?"},
		"whole policy empty":       {headers.Config{Set: set("Content-Security-Policy", ";")}, "the policy is empty"},
		"whole policy open":        {headers.Config{Set: set("Content-Security-Policy", "img-src 'self'")}, "insecure_unsafe_csp"},
		"whole policy dangerous":   {headers.Config{Set: set("Content-Security-Policy", "default-src *")}, "insecure_unsafe_csp"},
		"trial twice":              {headers.Config{CSPReportOnly: true, Set: set("Content-Security-Policy-Report-Only", "img-src *")}, "report_only"},
		"trial wrong":              {headers.Config{Set: set("Content-Security-Policy-Report-Only", "img-scr *")}, "did you mean img-src?"},
		"same directive twice":     {headers.Config{CSP: csp("img-src *", "IMG-SRC data:")}, "Caddyfile:2: csp img-src: the directive stands twice (first at Caddyfile:1)"},
		"dangerous in report only": {headers.Config{CSPReportOnly: true, CSP: csp("script-src 'unsafe-inline'")}, "insecure_unsafe_csp"},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			p, err := headers.New(row.cfg)
			if err == nil {
				t.Fatalf("accepted; CSP %q", p.CSP())
			}
			if p != nil {
				t.Error("an error came with a policy")
			}
			if !strings.Contains(err.Error(), row.want) || !strings.HasPrefix(err.Error(), "headers: ") {
				t.Errorf("error %q does not say %q", err, row.want)
			}
		})
	}
}

func TestAllErrorsComeAtOnce(t *testing.T) {
	_, err := headers.New(headers.Config{
		Preset:     "x",
		Set:        set("X-Frame-Options", "maybe"),
		Keep:       []string{"X-Nothing"},
		Remove:     []string{"Content-Type"},
		HSTSMaxAge: -1,
		CSP:        csp("img-scr *", "script-src self 'unsafe-inline'", "script-src-elem 'unsafe-inline'", "frame-ancestors 'none'"),
	})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{
		`preset "x"`, `"maybe"`, `"X-Nothing"`, `"Content-Type"`, "hsts max age", "img-scr",
		`source "self"`, "Caddyfile:3: csp script-src-elem", "insecure_unsafe_csp",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in:\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), "contradicts") {
		t.Errorf("a wrong value is also compared:\n%v", err)
	}
}

func TestSettingsReachTheAnswer(t *testing.T) {
	const nameCSP, nameHSTS = "Content-Security-Policy", "Strict-Transport-Security"
	rows := map[string]struct {
		cfg  headers.Config
		name string
		want string // empty: absent
	}{
		"set replaces":               {headers.Config{Set: set("referrer-policy", " no-referrer ")}, "Referrer-Policy", "no-referrer"},
		"set adds":                   {headers.Config{Set: set("Cross-Origin-Embedder-Policy", "require-corp")}, "Cross-Origin-Embedder-Policy", "require-corp"},
		"set of a removed name":      {headers.Config{Set: set("Server", "moat")}, "Server", "moat"},
		"set forces the cache":       {headers.Config{Preset: "api", Set: set("Cache-Control", "no-cache")}, "Cache-Control", "no-cache"},
		"hsts all":                   {headers.Config{HSTSSubdomains: true, HSTSPreload: true}, nameHSTS, "max-age=63072000; includeSubDomains; preload"},
		"hsts age":                   {headers.Config{HSTSMaxAge: 5 * time.Minute}, nameHSTS, "max-age=300"},
		"hsts taken back":            {headers.Config{Set: set(nameHSTS, "max-age=0")}, nameHSTS, "max-age=0"},
		"a line replaces in place":   {headers.Config{Preset: "api", CSP: csp("default-src 'self'")}, nameCSP, "default-src 'self'; frame-ancestors 'none'"},
		"a line follows":             {headers.Config{Preset: "api", CSP: csp("IMG-SRC 'SELF' Data:")}, nameCSP, apiCSP + "; img-src 'self' data:"},
		"a whole policy":             {headers.Config{Set: set(nameCSP, " default-src  'none';\n\timg-src 'self';")}, nameCSP, "default-src 'none'; img-src 'self'"},
		"an insecure source":         {headers.Config{Preset: "api", InsecureCSP: true, CSP: csp("script-src 'unsafe-inline' *")}, nameCSP, apiCSP + "; script-src 'unsafe-inline' *"},
		"an insecure whole":          {headers.Config{InsecureCSP: true, Set: set(nameCSP, "img-src 'self'")}, nameCSP, "img-src 'self'"},
		"report only":                {headers.Config{CSPReportOnly: true}, nameCSP + "-Report-Only", htmlPlainCSP},
		"report only enforces none":  {headers.Config{CSPReportOnly: true}, nameCSP, ""},
		"a trial beside":             {headers.Config{Set: set(nameCSP+"-Report-Only", "script-src  *")}, nameCSP + "-Report-Only", "script-src *"},
		"a trial leaves the policy":  {headers.Config{Set: set(nameCSP+"-Report-Only", "img-src 'none'")}, nameCSP, htmlCSP},
		"ancestors follow options":   {headers.Config{Preset: "api", Set: set("X-Frame-Options", "SAMEORIGIN")}, nameCSP, "default-src 'none'; frame-ancestors 'self'"},
		"ancestors follow deny":      {headers.Config{Set: set("X-Frame-Options", "deny")}, nameCSP, strings.Replace(htmlCSP, "frame-ancestors 'self'", "frame-ancestors 'none'", 1)},
		"options follow ancestors":   {headers.Config{CSP: csp("frame-ancestors 'none'")}, "X-Frame-Options", "DENY"},
		"options follow self":        {headers.Config{Preset: "api", CSP: csp("frame-ancestors 'self' https://a.example")}, "X-Frame-Options", "SAMEORIGIN"},
		"options follow hosts":       {headers.Config{CSP: csp("frame-ancestors https://a.example")}, "X-Frame-Options", "DENY"},
		"options follow anybody":     {headers.Config{InsecureCSP: true, CSP: csp("frame-ancestors *")}, "X-Frame-Options", "SAMEORIGIN"},
		"a trial moves no options":   {headers.Config{CSPReportOnly: true, CSP: csp("frame-ancestors 'none'")}, "X-Frame-Options", "SAMEORIGIN"},
		"options agree":              {headers.Config{Set: set("X-Frame-Options", "DENY"), CSP: csp("frame-ancestors 'none'")}, "X-Frame-Options", "DENY"},
		"options without ancestors":  {headers.Config{Set: append(set("X-Frame-Options", "DENY"), set(nameCSP, "default-src 'self'")...)}, nameCSP, "default-src 'self'"},
		"inline styles need no word": {headers.Config{Preset: "api", CSP: csp("style-src 'self' 'unsafe-inline'")}, nameCSP, apiCSP + "; style-src 'self' 'unsafe-inline'"},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			h := answer(policy(t, row.cfg), 200, overTLS, silent)
			if h.Get(row.name) != row.want || len(h[row.name]) > 1 {
				t.Errorf("%s is %q, want %q", row.name, h[row.name], row.want)
			}
		})
	}
}

func TestAPolicyThatTheUpstreamEnforcesStaysDuringATrial(t *testing.T) {
	p := policy(t, headers.Config{CSPReportOnly: true, Keep: []string{"Content-Security-Policy"}})
	h := answer(p, 200, overTLS, func(h http.Header) {
		h.Set("Content-Security-Policy", "default-src 'none'")
		h.Add("Content-Security-Policy-Report-Only", "img-src 'none'")
	})
	if got := h.Get("Content-Security-Policy"); got != "default-src 'none'" {
		t.Errorf("the enforced policy is %q", got)
	}
	if got := h["Content-Security-Policy-Report-Only"]; !slices.Equal(got, []string{"img-src 'none'"}) {
		t.Errorf("the kept trial is %q", got)
	}
}

func TestNewLeavesItsConfigurationAlone(t *testing.T) {
	lines := csp("SCRIPT-SRC 'SELF'")
	own := set("x-a", " 1 ")
	policy(t, headers.Config{CSP: lines, Set: own})
	if lines[0].Name != "SCRIPT-SRC" || !slices.Equal(lines[0].Sources, []string{"'SELF'"}) || own[0].Value != " 1 " {
		t.Errorf("New changed its configuration: %v %v", lines, own)
	}
}
