package command

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	_ "github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"

	"github.com/moat-gateway/moat/caddymodule/internal/lint"
)

// written is a file with that text.
func written(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLintTakesOneFile(t *testing.T) {
	for _, row := range []struct {
		config string
		args   []string
		want   string
		fails  bool
	}{
		{"", nil, "", false},
		{"a", nil, "a", false},
		{"", []string{"a"}, "a", false},
		{"a", []string{"b"}, "", true},
		{"", []string{"a", "b"}, "", true},
	} {
		if got, err := lintFile(row.config, row.args); got != row.want || (err != nil) != row.fails {
			t.Errorf("--config %q %q: %q, %v", row.config, row.args, got, err)
		}
	}
}

func TestALineOfACaddyfileKeepsItsWords(t *testing.T) {
	file := written(t, "Caddyfile", "{\n\tmoat { # no word\n\t}\n}\n\nexample.com, \"a b\" {\n\trespond \\\n\t\tx\n}\n")
	got, err := lintLines(file)
	want := []lint.Line{
		{File: file, Number: 1, Words: []string{"{"}},
		{File: file, Number: 2, Words: []string{"moat", "{"}},
		{File: file, Number: 3, Words: []string{"}"}},
		{File: file, Number: 4, Words: []string{"}"}},
		{File: file, Number: 6, Words: []string{"example.com,", "a b", "{"}},
		{File: file, Number: 7, Words: []string{"respond", "x"}},
		{File: file, Number: 9, Words: []string{"}"}},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v\n%+v", err, got)
	}
	if _, err := lintLines(file + ".missing"); err == nil {
		t.Error("a missing file has lines")
	}
}

func TestLintReadsTheFormTheFileHas(t *testing.T) {
	site := "http://:8080 {\n\treverse_proxy app:3000\n}\n"
	caddyfile := written(t, "Caddyfile", site)
	other := written(t, "moat.conf", site)
	config := written(t, "moat.json", `{"admin": {"listen": "0.0.0.0:2019"}}`)
	for _, row := range []struct{ file, adapter, want string }{
		{caddyfile, "", caddyfile + ":2"},
		{other, "caddyfile", other + ":2"},
		{config, "", "admin/listen"},
	} {
		report, err := lintReport(row.file, row.adapter)
		if err != nil {
			t.Errorf("%s: %v", row.file, err)
			continue
		}
		if first := report.Findings[0]; first.Place != row.want || first.Severity != lint.High {
			t.Errorf("%s: %+v", row.file, first)
		}
	}
	for _, row := range [][2]string{{other, ""}, {config + ".missing", ""}, {caddyfile, "nginx"}, {written(t, "l.json", "[]"), ""}} {
		if _, err := lintReport(row[0], row[1]); err == nil {
			t.Errorf("%q has a report", row)
		}
	}
}

func TestPolicyFilesAreReadAsTheGatewayDoes(t *testing.T) {
	roles := written(t, "roles.yaml", "roles:\n  user: [documents.read]\n")
	t.Setenv("MOAT_TEST_ROLES", roles)
	for _, path := range []string{roles, "{env.MOAT_TEST_ROLES}"} {
		got, err := rolesOf(path)
		if err != nil || len(got) != 1 || got[0].Name != "user" {
			t.Errorf("%s: %+v, %v", path, got, err)
		}
	}
	got, err := rulesOf(written(t, "rules.json", `["GET /a public"]`))
	if err != nil || len(got) != 1 || got[0].Pattern != "/a" {
		t.Errorf("rules: %+v, %v", got, err)
	}
	for _, path := range []string{roles + ".missing", "{env.MOAT_TEST_UNSET}", written(t, "broken", "{")} {
		if got, err := rulesOf(path); err == nil {
			t.Errorf("%s: %+v", path, got)
		}
	}
}

func TestAReportIsPrintedForPeopleAndForPrograms(t *testing.T) {
	report := &lint.Report{
		Findings: []lint.Finding{{
			Code: lint.AdminOnTCP, Severity: lint.High, Place: "Caddyfile:2", Message: "listens on <all>", Hint: "close it",
		}},
		Summary: lint.Summary{High: 1},
	}
	for name, row := range map[string]struct {
		report *lint.Report
		want   string
	}{
		"findings": {report, "Caddyfile:2: high: admin-on-tcp\n  listens on <all>\n  fix: close it\n\n1 high, 0 medium, 0 low\n"},
		"none":     {&lint.Report{}, "no findings\n"},
	} {
		var out strings.Builder
		if err := showFindings(&out, row.report); err != nil || out.String() != row.want {
			t.Errorf("%s: %v\n%s", name, err, out.String())
		}
	}
	var out strings.Builder
	var back lint.Report
	if err := encodeFindings(&out, report); err != nil || !strings.Contains(out.String(), "<all>") {
		t.Errorf("%v\n%s", err, out.String())
	}
	if err := json.Unmarshal([]byte(out.String()), &back); err != nil || !reflect.DeepEqual(&back, report) {
		t.Errorf("%v %+v", err, back)
	}
}
