package app

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// parsed reads the lines of an audit block and returns its JSON.
func parsed(t *testing.T, lines string) (string, error) {
	t.Helper()
	a := new(App)
	err := a.parseAudit(auditBlock("audit {\n" + lines + "\n}"))
	if err != nil {
		return "", err
	}
	raw, err := json.Marshal(a.Audit.Sinks)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw), nil
}

func auditBlock(text string) *caddyfile.Dispenser {
	d := caddyfile.NewTestDispenser(text)
	d.Next()
	return d
}

func TestASinkHasWordsOfItsOwnAndThoseOfAll(t *testing.T) {
	for name, row := range map[string]struct{ lines, want string }{
		"none":              {"sink stdout", `[{"type":"stdout"}]`},
		"an empty block":    {"sink stdout {\n}", `[{"type":"stdout"}]`},
		"of all":            {"sink stdout {\nclass security admin\nrequired\n}", `[{"class":["security","admin"],"required":true,"type":"stdout"}]`},
		"of its own":        {"sink webhook https://x.test {\nsecret a\nsecret b\n}", `[{"secret":["a","b"],"type":"webhook","url":"https://x.test"}]`},
		"of both, mixed":    {"sink webhook https://x.test {\nformat ocsf\nsecret a\noutcome !allow\nseverity medium high\naction !http.* !audit.*\nsecret b\n}", `[{"action":["!http.*","!audit.*"],"format":"ocsf","outcome":["!allow"],"secret":["a","b"],"severity":["medium","high"],"type":"webhook","url":"https://x.test"}]`},
		"several lines":     {"sink stdout {\nclass security\nclass admin\n}", `[{"class":["security","admin"],"type":"stdout"}]`},
		"a word as a value": {"sink webhook class {\nsecret format\n}", `[{"secret":["format"],"type":"webhook","url":"class"}]`},
		"over lines":        {"sink webhook https://x.test {\nsecret `a\nb`\nclass admin\n}", `[{"class":["admin"],"secret":["a\nb"],"type":"webhook","url":"https://x.test"}]`},
		"over lines, last":  {"sink webhook https://x.test {\nclass admin\nsecret `a\nb`\n}", `[{"class":["admin"],"secret":["a\nb"],"type":"webhook","url":"https://x.test"}]`},
		"quoted":            {"sink \"webhook\" \"https://x.test\" {\nsecret a\nclass admin\n}", `[{"class":["admin"],"secret":["a"],"type":"webhook","url":"https://x.test"}]`},
		"an action":         {"sink stdout {\naction \"GET /orders/{id}\" \"POST *\"\n}", `[{"action":["GET /orders/{id}","POST *"],"type":"stdout"}]`},
		"a name":            {"sink stdout {\nname siem-1\n}", `[{"name":"siem-1","type":"stdout"}]`},
		"two sinks":         {"sink stdout {\nformat ecs\n}\nsink redis_stream k\ninstance i", `[{"format":"ecs","type":"stdout"},{"key":"k","type":"redis_stream"}]`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parsed(t, row.lines)
			if err != nil {
				t.Fatal(err)
			}
			if canonical(t, got) != canonical(t, row.want) {
				t.Errorf("got %s, want %s", got, row.want)
			}
			var back []*Sink
			if err := json.Unmarshal([]byte(got), &back); err != nil {
				t.Fatal(err)
			}
			again, err := json.Marshal(back)
			if err != nil || canonical(t, string(again)) != canonical(t, got) {
				t.Errorf("read back: %s, %v", again, err)
			}
		})
	}
}

func canonical(t *testing.T, text string) string {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestWrongSinksAreNamedWhereTheyStand(t *testing.T) {
	for lines, want := range map[string]string{
		"sink":                         "needs a type",
		"sink nowhere":                 `sink "nowhere": unknown; known are: `,
		"sink stdout x":                `unexpected argument "x"`,
		"sink stdout {\ncolour red\n}": `sink stdout: unknown word "colour"`,
		"sink stdout {\nclass all\n}":  `class "all": must be access, security, admin`,
		"sink stdout {\nclass security !admin\n}":    "must be all or none",
		"sink stdout {\nname SIEM\n}":                `name "SIEM": must be 1 to 32`,
		"sink stdout {\nformat xml\n}":               `format`,
		"sink stdout {\nformat ecs\nformat ecs\n}":   `"format" stands twice`,
		"sink stdout {\nrequired yes\n}":             `"yes"`,
		"sink webhook":                               "webhook",
		"sink webhook a b":                           `unexpected argument "b"`,
		"sink webhook a {\nsecret\n}":                "secret",
		"sink webhook a {\nclass all\ncolour red\n}": `unknown word "colour"`,
	} {
		_, err := parsed(t, lines)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: no %q in: %v", lines, want, err)
		}
	}
}

func TestASinkThatCannotBeIsRefusedWithAllOthers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	a := journalApp(dir,
		&Sink{Type: "nowhere"}, nil,
		&Sink{Type: "stdout", Class: []string{"all"}},
		sinkOf("webhook", map[string]any{"url": "ftp://x.test", "secret": []string{"short"}}),
		sinkOf("webhook", map[string]any{"uri": "https://x.test"}),
		sinkOf("redis_stream", map[string]any{"key": "k"}),
		&Sink{Type: "postgres", Format: "ocsf", Settings: sinkOf("", map[string]any{"dsn": "host=/x"}).Settings},
		&Sink{Type: "stdout", Format: "xml"},
		&Sink{Type: "stdout"}, &Sink{Type: "stdout", Format: "ecs"},
	)
	err := provision(t, a)
	defer end(t, a)
	for _, want := range []string{
		"sink nowhere: unknown; known are: ", "audit: sink 2: is empty", `class "all"`, `scheme "ftp"`, "secret 1: has 5 bytes", "uri", "sink redis_stream: needs the redis block",
		"sink postgres: format ocsf: this sink stores the journal's lines", `format "xml": must be moat, ocsf`, "the same target stands twice",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in:\n%v", want, err)
		}
	}
}

func TestAFileAmongTheSegmentsIsRefused(t *testing.T) {
	dir := t.TempDir()
	journal := filepath.Join(dir, "j")
	for _, d := range []string{journal, filepath.Join(dir, "other")} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(journal, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for file, ok := range map[string]bool{
		"j/x": false, "j/sub/x": false, "other/../j/x": false, "link/x": false, "link/new/x": false, "jx/x": true, "j2": true, "other/j/y": true,
	} {
		if err := checkFiles(journal, []string{filepath.Join(dir, file)}, map[string]bool{}); (err == nil) != ok {
			t.Errorf("%s: %v", file, err)
		}
	}
	written := map[string]bool{}
	if err := checkFiles(journal, []string{filepath.Join(dir, "other/a")}, written); err != nil {
		t.Error(err)
	}
	if err := checkFiles(journal, []string{filepath.Join(dir, "other/./a")}, written); err == nil || !strings.Contains(err.Error(), "another sink writes it") {
		t.Errorf("one file for two sinks: %v", err)
	}
}

func TestANamedSinkKeepsItsPlaceWhereverItGoes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	hook := func(url string) *Sink {
		s := sinkOf("webhook", map[string]any{"url": url, "secret": []string{strings.Repeat("s", 32)}})
		s.Name = "siem"
		return s
	}
	twice := journalApp(dir, hook("https://a.test"), hook("https://b.test"))
	if err := provision(t, twice); err == nil || !strings.Contains(err.Error(), "stands twice") {
		t.Errorf("two sinks of one name: %v", err)
	}
	end(t, twice)
	other := hook("https://a.test")
	other.Name = ""
	first := journalApp(dir, hook("https://a.test"), other, &Sink{Type: "stdout", Name: "webhook"})
	second := journalApp(dir, hook("https://b.test"))
	start(t, first)
	start(t, second)
	defer end(t, second)
	one, two := sinksOf(first), sinksOf(second)
	if one[0].follower == two[0].follower || one[0].id != two[0].id || one[1].id == one[0].id {
		t.Errorf("ids %s, %s and %s", one[0].id, one[1].id, two[0].id)
	}
	if got := strings.Join(labels(one), " "); got != "siem webhook-"+one[1].id[:6]+" webhook-"+one[2].id[:6] {
		t.Errorf("labels %s", got)
	}
	end(t, first)
}

func TestTheJournalIsHeldByRequiredSinksOnly(t *testing.T) {
	follow := func(required bool) followed {
		f, err := newFollower(stdoutSettings(), followConfig(t), identified{sinkStdout, "", digest("x")})
		if err != nil {
			t.Fatal(err)
		}
		return followed{f, required}
	}
	if heldBy([]followed{follow(false), follow(false)}) != nil {
		t.Error("held by nobody")
	}
	if hold := heldBy([]followed{follow(false), follow(true)}); hold == nil || hold() != 0 {
		t.Error("a required sink that got nothing does not hold")
	}
}
