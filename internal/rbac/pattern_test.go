package rbac_test

import (
	"strings"
	"testing"

	"github.com/moat-gateway/moat/internal/canon"
	"github.com/moat-gateway/moat/internal/rbac"
)

var badPatterns = map[string]string{
	"empty":                    "",
	"no slash":                 "a/b",
	"asterisk form":            "*",
	"only a tail":              "**",
	"empty segment":            "/a//b",
	"empty first segment":      "//a",
	"only slashes":             "//",
	"empty last segment":       "/a//",
	"dot":                      "/a/./b",
	"dot dot":                  "/a/../b",
	"escaped dots":             "/a/%2e%2E/b",
	"dots with a parameter":    "/a/..;x/b",
	"query":                    "/a?b",
	"fragment":                 "/a#b",
	"backslash":                `/a\b`,
	"escaped backslash":        "/a%5Cb",
	"escaped slash":            "/a%2Fb",
	"double escape":            "/a%2561",
	"broken escape":            "/a%2",
	"no escape":                "/100%",
	"space":                    "/a b",
	"control byte":             "/a\x01",
	"escaped control byte":     "/a%00",
	"bad UTF-8":                "/a\xff",
	"escaped bad UTF-8":        "/a%FF",
	"tail in the middle":       "/a/**/b",
	"named tail in the middle": "/{a...}/b",
	"two tails":                "/**/**",
	"asterisk segment":         "/a/*",
	"asterisk in a segment":    "/a/b*",
	"tail in a segment":        "/a/b**",
	"three asterisks":          "/a/***",
	"parameter in a segment":   "/a/x{b}",
	"parameter with an ending": "/a/{b}.json",
	"two parameters":           "/a/{b}{c}",
	"open brace":               "/a/{b",
	"close brace":              "/a/b}",
	"lone brace":               "/a/{",
	"no name":                  "/a/{}",
	"no tail name":             "/a/{...}",
	"digit first":              "/a/{1b}",
	"upper case name":          "/a/{Id}",
	"dash in a name":           "/a/{user-id}",
	"dot in a name":            "/a/{env.X}",
	"nested name":              "/a/{{b}}",
	"non-ASCII name":           "/a/{ä}",
	"four dots":                "/a/{b....}",
	"long name":                "/a/{" + strings.Repeat("b", 65) + "}",
	"name twice":               "/{a}/{a}",
	"name twice in the tail":   "/{a}/{a...}",
	"too many segments":        strings.Repeat("/a", 65),
	"too long":                 "/" + strings.Repeat("a", 2048),
	"an absolute URL":          "https://example.com/a",
}

func TestPatternsThatCanNotBeMeantAreRefused(t *testing.T) {
	for name, s := range badPatterns {
		p, err := rbac.ParsePattern(s)
		if err == nil {
			t.Errorf("%s: %q is taken", name, s)
		}
		if p.Match("/") || p.Match("/a/b") || p.String() != "" {
			t.Errorf("%s: %q is refused and still matches", name, s)
		}
	}
}

var matchRows = []struct {
	pattern string
	yes, no []string
}{
	{"/", []string{"/"}, []string{"", "a", "/a", "//", "*"}},
	{"/a", []string{"/a", "/a/"}, []string{"/", "/A", "/ab", "/a/b", "/b", "a", "/a//", "//a", "/%61"}},
	{"/a/", []string{"/a", "/a/"}, []string{"/a/b"}},
	{"/a/{x}", []string{"/a/b", "/a/b/", "/a/%2F", "/a/..."}, []string{"/a", "/a/", "/a//", "/a/b/c", "/b/b"}},
	{"/{x}/b", []string{"/a/b", "/b/b/"}, []string{"//b", "/b", "/a/c"}},
	{"/**", []string{"/", "/a", "/a/", "/a/b/c/d", "//"}, []string{"", "a", "*"}},
	{"/a/**", []string{"/a", "/a/", "/a/b", "/a/b/c/"}, []string{"/", "/ab", "/b/a"}},
	{"/a/**/", []string{"/a", "/a/b/"}, []string{"/b"}},
	{"/a/{rest...}", []string{"/a", "/a/", "/a/b/c"}, []string{"/", "/b"}},
	{"/a/{x}/**", []string{"/a/b", "/a/b/", "/a/b/c/d"}, []string{"/a", "/a/", "/a//c"}},
	{"/~joe", []string{"/~joe"}, []string{"/joe"}},
	{"/%7ejoe", []string{"/~joe"}, []string{"/%7Ejoe"}},
	{"/a%c3%a9", []string{"/a%C3%A9"}, []string{"/ae", "/a"}},
	{"/aé", []string{"/a%C3%A9"}, []string{"/a"}},
	{"/a%20b", []string{"/a%20b"}, []string{"/a+b", "/a"}},
	{"/users/@me", []string{"/users/@me", "/users/%40me"}, []string{"/users/me", "/users/%2540me"}},
	{"/u@/Me", []string{"/u%40/Me"}, []string{"/u%40/me", "/u@/me"}},
	{"/users/%40me", []string{"/users/@me", "/users/%40me"}, []string{"/users/me"}},
	{"/a;v=1", []string{"/a;v=1", "/a%3Bv%3D1"}, []string{"/a"}},
	{"/a(b)", []string{"/a(b)", "/a%28b%29"}, []string{"/a%28b"}},
	{"/a%2Ab", []string{"/a*b", "/a%2Ab"}, []string{"/aab", "/a"}},
}

func TestPatternMatchesWholePaths(t *testing.T) {
	for _, row := range matchRows {
		p, err := rbac.ParsePattern(row.pattern)
		if err != nil {
			t.Errorf("%s: %v", row.pattern, err)
			continue
		}
		if p.String() != row.pattern {
			t.Errorf("%s: String() = %q", row.pattern, p)
		}
		pol := policy(t, nil, "* "+row.pattern+" public")
		for _, path := range row.yes {
			if !p.Match(path) || !pol.Lookup("GET", path).Found() {
				t.Errorf("%s does not match %s", row.pattern, path)
			}
		}
		for _, path := range row.no {
			if p.Match(path) || pol.Lookup("GET", path).Found() {
				t.Errorf("%s matches %s", row.pattern, path)
			}
		}
	}
}

func TestAPatternWithAQueryIsToldSo(t *testing.T) {
	for _, s := range []string{"/a?b", "/a#b"} {
		if _, err := rbac.ParsePattern(s); err == nil || !strings.Contains(err.Error(), "? and # have no place in it") {
			t.Errorf("%s: %v", s, err)
		}
	}
}

func TestTheZeroPatternMatchesNothing(t *testing.T) {
	var p rbac.Pattern
	for _, path := range []string{"", "/", "/a"} {
		if p.Match(path) {
			t.Errorf("it matches %q", path)
		}
	}
}

func TestParametersAreDecodedOnce(t *testing.T) {
	for _, row := range []struct {
		pattern, path, name, want string
		ok                        bool
	}{
		{"/u/{id}", "/u/7", "id", "7", true},
		{"/u/{id}", "/u/7/", "id", "7", true},
		{"/u/{id}/f", "/u/a%20b/f", "id", "a b", true},
		{"/u/{id}", "/u/a%2Fb", "id", "a/b", true},
		{"/u/{id}", "/u/a+b", "id", "a+b", true},
		{"/u/{id}", "/u/%2541", "id", "%41", true},
		{"/u/{id}", "/u/%C3%A9", "id", "é", true},
		{"/{a}/{b}", "/x/y", "b", "y", true},
		{"/u/{rest...}", "/u/a/b%20c/", "rest", "a/b c", true},
		{"/u/{rest...}", "/u", "rest", "", true},
		{"/u/{rest...}", "/u/", "rest", "", true},
		{"/{rest...}", "/", "rest", "", true},
		{"/u/{id}", "/u/%zz", "id", "", false},
		{"/u/{id}", "/u/7", "", "", false},
		{"/u/{id}", "/u/7", "ID", "", false},
		{"/u/{id}", "/u/7", "u", "", false},
		{"/u/**", "/u/7", "", "", false},
		{"/u/**", "/u/7", "**", "", false},
	} {
		m := policy(t, nil, "* "+row.pattern+" public").Lookup("GET", row.path)
		if !m.Found() {
			t.Errorf("%s does not match %s", row.pattern, row.path)
		}
		if got, ok := m.Param(row.name); got != row.want || ok != row.ok {
			t.Errorf("%s, %s: Param(%q) = %q, %v", row.pattern, row.path, row.name, got, ok)
		}
		on, err := rbac.CompileOn([]string{"*"}, row.pattern)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := on.Param(row.path, row.name); got != row.want || ok != row.ok {
			t.Errorf("%s, %s: On.Param(%q) = %q, %v", row.pattern, row.path, row.name, got, ok)
		}
	}
}

func TestNoMatchHasNoParameters(t *testing.T) {
	var m rbac.Match
	if v, ok := m.Param("id"); ok || v != "" {
		t.Errorf("Param = %q, %v", v, ok)
	}
	on, err := rbac.CompileOn([]string{"GET"}, "/u/{id}")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"", "/", "/u", "/u/", "/v/7", "/u/7/8"} {
		if v, ok := on.Param(path, "id"); ok || v != "" {
			t.Errorf("%s: Param = %q, %v", path, v, ok)
		}
	}
}

func TestOnSelectsByMethodAndPattern(t *testing.T) {
	for _, row := range []struct {
		methods string
		method  string
		path    string
		want    bool
	}{
		{"POST", "POST", "/auth/login", true},
		{"POST", "POST", "/auth/login/", true},
		{"GET", "HEAD", "/auth/login", true},
		{"*", "PURGE", "/auth/login", true},
		{"GET,POST", "POST", "/auth/login", true},
		{"POST", "GET", "/auth/login", false},
		{"POST", "HEAD", "/auth/login", false},
		{"HEAD", "GET", "/auth/login", false},
		{"POST", "post", "/auth/login", false},
		{"*", "", "/auth/login", false},
		{"POST", "POST", "/auth", false},
		{"POST", "POST", "/Auth/Login", false},
		{"POST", "POST", "", false},
	} {
		on, err := rbac.CompileOn(strings.Split(row.methods, ","), "/auth/login")
		if err != nil {
			t.Fatal(err)
		}
		if got := on.Match(row.method, row.path); got != row.want {
			t.Errorf("on %s: %s %s = %v", row.methods, row.method, row.path, got)
		}
	}
}

func TestOnCanIgnoreCase(t *testing.T) {
	on, err := rbac.CompileOn([]string{"POST"}, "/Auth/{step}")
	if err != nil {
		t.Fatal(err)
	}
	folded := on.CaseInsensitive()
	for _, path := range []string{"/Auth/Login", "/auth/Login", "/AUTH/Login"} {
		if !folded.Match("POST", path) {
			t.Errorf("%s is not matched", path)
		}
		if v, _ := folded.Param(path, "step"); v != "Login" {
			t.Errorf("%s: step = %q", path, v)
		}
	}
	if on.Match("POST", "/auth/login") {
		t.Error("the original ignores case, too")
	}
}

func TestNoOnMatchesNothing(t *testing.T) {
	var on *rbac.On
	if _, ok := on.Param("/", "a"); ok || on.Match("GET", "/") || on.CaseInsensitive() != nil {
		t.Error("the nil On matches")
	}
	if new(rbac.On).Match("GET", "/") {
		t.Error("the zero On matches")
	}
	on, err := rbac.CompileOn([]string{"get", "*"}, "a")
	if err == nil || on != nil {
		t.Fatalf("CompileOn = %v, %v", on, err)
	}
	for _, want := range []string{`"get"`, "* stands alone", "begins with /"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q lacks %q", err, want)
		}
	}
	if _, err := rbac.CompileOn(nil, "/a"); err == nil {
		t.Error("no method is taken")
	}
}

// FuzzPattern: whatever is taken as a pattern can be met by a canonical path,
// reads the same when it is read again, and is matched alike by the loop and by
// the trie.
func FuzzPattern(f *testing.F) {
	for _, s := range badPatterns {
		f.Add(s, "/a/b")
	}
	for _, row := range matchRows {
		for _, path := range append(row.yes, row.no...) {
			f.Add(row.pattern, path)
		}
	}
	f.Fuzz(func(t *testing.T, pattern, path string) {
		p, err := rbac.ParsePattern(pattern)
		if err != nil {
			return
		}
		again, err := rbac.ParsePattern(p.String())
		if err != nil {
			t.Fatalf("%q is not read again: %v", p, err)
		}
		met := witness(t, p.String())
		if !p.Match(met) || !again.Match(met) {
			t.Fatalf("%q does not match %q", p, met)
		}
		pol, err := rbac.NewPolicy(rbac.PolicyConfig{Rules: []rbac.RuleConfig{
			{Methods: []string{"*"}, Pattern: pattern, Require: []string{"public"}},
		}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if p.Match(path) != pol.Lookup("GET", path).Found() {
			t.Fatalf("%q, %q: Match = %v", pattern, path, p.Match(path))
		}
	})
}

// witness returns a canonical path that a pattern must match.
func witness(t *testing.T, pattern string) string {
	t.Helper()
	var b strings.Builder
	for text := range strings.SplitSeq(strings.Trim(pattern, "/"), "/") {
		b.WriteByte('/')
		switch {
		case strings.HasPrefix(text, "{") || text == "**":
			b.WriteString("x")
		default:
			for i := range len(text) {
				if text[i] >= 0x80 {
					b.WriteString("%" + strings.ToUpper(string("0123456789abcdef"[text[i]>>4])+string("0123456789abcdef"[text[i]&15])))
					continue
				}
				b.WriteByte(text[i])
			}
		}
	}
	path, err := canon.Path(b.String())
	if err != nil {
		t.Fatalf("the pattern %q is taken and no canonical path: %v", pattern, err)
	}
	return path
}
