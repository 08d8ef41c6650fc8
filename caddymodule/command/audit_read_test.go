package command

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/audit"
)

var auditNoon = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)

// auditLine is an event of a request; change may be nil.
func auditLine(seq int, change func(*audit.Event)) string {
	e := audit.Event{
		Timestamp: auditNoon.Add(time.Duration(seq) * time.Second), UserID: fmt.Sprintf("u-%d", seq), Action: "documents.read", IP: "192.0.2.7",
		Class: audit.Access, Outcome: audit.Allow, Status: 200, Method: "GET", Path: fmt.Sprintf("/documents/%d", seq),
		RequestID: fmt.Sprintf("r-%d", seq), Tenant: "t-1", Instance: "gw", Seq: uint64(seq),
	}
	if change != nil {
		change(&e)
	}
	return string(e.AppendJSON(nil))
}

// auditTrail writes a trail of these lines and returns its directory.
func auditTrail(t *testing.T, lines ...string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "000000000001.jsonl"), []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestAuditSearch(t *testing.T) {
	lines := []string{
		auditLine(1, nil),
		auditLine(2, func(e *audit.Event) {
			e.Class, e.Outcome, e.Reason, e.Status = audit.Security, audit.Deny, "rbac.no-rule", 403
		}),
		auditLine(3, func(e *audit.Event) {
			e.Class, e.Action, e.Method, e.Path, e.Severity, e.IP, e.Tenant = audit.Admin, "store.degraded", "", "", audit.High, "", ""
		}),
		auditLine(4, func(e *audit.Event) { e.IP = "p:0123456789abcdef0123456789abcdef" }),
	}
	dir := auditTrail(t, lines...)
	for args, want := range map[string][]int{
		"":                                        {1, 2, 3, 4},
		"--user u-2 --user u-4":                   {2, 4},
		"--action store.*":                        {3},
		"--outcome deny":                          {2},
		"--severity medium --severity high":       {2, 3},
		"--min-severity high":                     {3},
		"--class access --user u-1":               {1},
		"--class access --user u-2":               nil,
		"--reason rbac.* --reason jwt.*":          {2},
		"--request-id r-4":                        {4},
		"--ip 192.0.2.0/24":                       {1, 2},
		"--ip 192.0.2.7":                          {1, 2},
		"--ip ::ffff:192.0.2.7":                   {1, 2},
		"--ip p:0123456789abcdef0123456789abcdef": {4},
		"--tenant t-1 --path /documents/4":        {4},
		"--path /documents/*":                     {1, 2, 4},
		"--since 2026-07-01T12:00:02Z":            {2, 3, 4},
		"--until 2026-07-01T14:00:02+02:00":       {1},
		"--since 5m":                              nil,
		"--reverse":                               {4, 3, 2, 1},
		"--reverse --limit 2":                     {4, 3},
		"--limit 1":                               {1},
	} {
		var out strings.Builder
		for _, seq := range want {
			out.WriteString(lines[seq-1] + "\n")
		}
		exit := 0
		if len(want) == 0 {
			exit = 1
		}
		r := runToken(t, newAuditSearch(), "", append([]string{dir, "--json"}, strings.Fields(args)...)...)
		if r.exit != exit || r.out != out.String() || r.err != "" {
			t.Errorf("%s: exit %d, want %d and lines %v\n%s%s", args, r.exit, exit, want, r.out, r.err)
		}
	}
}

func TestAuditFlagsThatAreWrong(t *testing.T) {
	dir := auditTrail(t, auditLine(1, nil))
	for name, row := range map[string]struct {
		args []string
		want []string
	}{
		"everything": {
			[]string{dir, "--outcome", "denied", "--severity", "bad", "--min-severity", "none", "--class", "user", "--ip", "home", "--since", "noon", "--until", "0m", "--user", "u", "--user", " "},
			[]string{`--outcome "denied": must be one of allow, deny, error, aborted`, `--severity "bad": must be one of low, medium, high`, `--min-severity "none"`,
				`--class "user": must be one of access, security, admin`, `--ip "home": must be an address`, `--since "noon": must be a time`, `--until "0m": must be`, "--user: is empty"},
		},
		"empty":            {[]string{dir, "--user", ""}, []string{"--user: is empty"}},
		"empty time":       {[]string{dir, "--since", ""}, []string{"--since: is empty"}},
		"no time":          {[]string{dir, "--since", "1h", "--until", "2h"}, []string{"--since 1h: must be before --until 2h"}},
		"no directory":     {nil, []string{"needs the directory of a trail"}},
		"two":              {[]string{dir, dir}, []string{"2 arguments"}},
		"missing":          {[]string{filepath.Join(dir, "none")}, []string{"no such file"}},
		"no trail":         {[]string{t.TempDir()}, []string{"there is no trail in this directory"}},
		"a file":           {[]string{filepath.Join(dir, "000000000001.jsonl")}, []string{"not a directory"}},
		"no such flag":     {[]string{dir, "--role", "x"}, []string{"unknown flag: --role"}},
		"mapped too wide":  {[]string{dir, "--ip", "::ffff:0.0.0.0/8"}, []string{"--ip"}},
		"no number":        {[]string{dir, "--ip", "192.0.2.0/33"}, []string{"--ip"}},
		"days of nonsense": {[]string{dir, "--since", "-1d"}, []string{"--since"}},
	} {
		for command, r := range map[string]ran{
			"search": runToken(t, newAuditSearch(), "", row.args...),
			"tail":   runToken(t, newAuditTail(), "", row.args...),
		} {
			if r.exit != 2 || r.out != "" {
				t.Errorf("%s, %s: exit %d\n%s%s", command, name, r.exit, r.out, r.err)
			}
			for _, want := range row.want {
				if !strings.Contains(r.err, want) {
					t.Errorf("%s, %s: no %q in\n%s", command, name, want, r.err)
				}
			}
		}
	}
	if r := runToken(t, newAuditSearch(), "", dir, "--limit", "0"); r.exit != 2 || !strings.Contains(r.err, "--limit 0: must be at least 1") {
		t.Errorf("limit: exit %d\n%s", r.exit, r.err)
	}
	if r := runToken(t, newAuditTail(), "", dir, "-n", "-1"); r.exit != 2 || !strings.Contains(r.err, "--lines -1: must be 0 to") {
		t.Errorf("lines: exit %d\n%s", r.exit, r.err)
	}
}

func TestAuditTimes(t *testing.T) {
	for value, want := range map[string]time.Time{
		"15m": auditNoon.Add(-15 * time.Minute), "7d": auditNoon.AddDate(0, 0, -7), "1d12h": auditNoon.Add(-36 * time.Hour),
		"2026-07-01T10:00:00.5+02:00": time.Date(2026, 7, 1, 8, 0, 0, 5e8, time.UTC),
	} {
		if got, err := parseMoment("since", value, auditNoon); err != nil || !got.Equal(want) {
			t.Errorf("%s: %s, %v", value, got, err)
		}
	}
	for _, value := range []string{"0d", "0s", "-5m", "d", "1d-1h", "99999999d", "5", "2026-07-01", "1.5d", "1d1d", "0001-01-01T00:00:00Z"} {
		if got, err := parseMoment("since", value, auditNoon); err == nil {
			t.Errorf("%s: %s", value, got)
		}
	}
}

func TestAuditPrefixes(t *testing.T) {
	for value, want := range map[string]string{
		"192.0.2.7": "192.0.2.7/32", "192.0.2.7/24": "192.0.2.0/24", "2001:db8::1": "2001:db8::1/128", "::ffff:192.0.2.0/120": "192.0.2.0/24",
	} {
		if got, err := parsePrefix(value); err != nil || got != netip.MustParsePrefix(want) {
			t.Errorf("%s: %s, %v", value, got, err)
		}
	}
}

func TestAuditTail(t *testing.T) {
	var lines []string
	for seq := 1; seq <= 50; seq++ {
		lines = append(lines, auditLine(seq, nil))
	}
	dir := auditTrail(t, lines...)
	for args, want := range map[string][]string{
		"":                                       lines[30:],
		"-n 3":                                   lines[47:],
		"-n 0":                                   nil,
		"-n 100":                                 lines,
		"-n 1 --user u-4 --user u-7":             lines[6:7],
		"-n 2 --path /documents/1*":              lines[17:19],
		"--user nobody":                          nil,
		"--lines 1 --until 2026-07-01T12:00:04Z": lines[2:3],
	} {
		r := runToken(t, newAuditTail(), "", append([]string{dir, "--json"}, strings.Fields(args)...)...)
		text := ""
		for _, line := range want {
			text += line + "\n"
		}
		if r.exit != 0 || r.out != text || r.err != "" {
			t.Errorf("%s: exit %d\n%s%s", args, r.exit, r.out, r.err)
		}
	}
}

func TestAuditPassesOverWhatIsNoEvent(t *testing.T) {
	dir := auditTrail(t, auditLine(1, nil), "\x1b[31mred", `{"seq":2}x`, `{"action":"a"}`, `[]`, auditLine(5, nil), auditLine(6, nil)[:40])
	if err := os.Truncate(filepath.Join(dir, "000000000001.jsonl"), fileSize(t, dir)-1); err != nil {
		t.Fatal(err) // Takes the last line end.
	}
	for name, r := range map[string]ran{
		"search": runToken(t, newAuditSearch(), "", dir), "tail": runToken(t, newAuditTail(), "", dir),
	} {
		if r.exit != 0 || strings.Count(r.out, "\n") != 3 || !strings.Contains(r.err, "no events: 4\n") || strings.Contains(r.out+r.err, "\x1b") {
			t.Errorf("%s: exit %d\n%s%s", name, r.exit, r.out, r.err)
		}
	}
}

func fileSize(t *testing.T, dir string) int64 {
	t.Helper()
	info, err := os.Stat(filepath.Join(dir, "000000000001.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

func TestAuditTable(t *testing.T) {
	dir := auditTrail(t,
		auditLine(1, nil),
		auditLine(2, func(e *audit.Event) { e.Method, e.Action, e.UserID, e.Status = "", "keys.changed", "moat", 0 }),
		auditLine(3, func(e *audit.Event) { e.UserID, e.Path = "\x1b]0;x\a\n\u202eroot\u200b", "/a\\b\u0085" }),
		auditLine(4, func(e *audit.Event) { e.UserID = "u  192.0.2.9  ok" }),
		auditLine(5, func(e *audit.Event) { e.Path = "/" + strings.Repeat("ä", 300) }),
	)
	r := runToken(t, newAuditSearch(), "", dir)
	rows := strings.Split(r.out, "\n")
	if r.exit != 0 || r.err != "" || len(rows) != 7 {
		t.Fatalf("exit %d\n%s%s", r.exit, r.out, r.err)
	}
	for n, want := range map[int]string{
		0: "TIME                      SEVERITY  OUTCOME  STATUS  REQUEST OR ACTION",
		1: "2026-07-01T12:00:01.000Z  low       allow    200     GET /documents/1 ",
		2: "allow    -       keys.changed",
		3: `GET /a\\b\u0085`,
		4: `u \u0020192.0.2.9 \u0020ok  `,
		5: "ä…  u-5",
	} {
		if !strings.Contains(rows[n], want) {
			t.Errorf("row %d: no %q in\n%s", n, want, r.out)
		}
	}
	if want := `\u001b]0;x\u0007\u000a\u202eroot\u200b`; !strings.Contains(rows[3], want) || strings.ContainsAny(r.out, "\x1b\a\u202e\u0085\u200b") {
		t.Errorf("no %s in\n%q", want, rows[3])
	}
	at := strings.Index(rows[0], "IP")
	for _, row := range rows[1:6] {
		if !strings.HasPrefix(string([]rune(row)[at:]), "192.0.2.7 ") {
			t.Errorf("the address does not stand below its title:\n%s", row)
		}
	}
}

func TestAuditCells(t *testing.T) {
	for text, want := range map[string]string{
		"": "-", "-": "-", "12345678": "12345678", "123456789": "1234567…", "1234567\x1b": "1234567…", "123\n456": `123…`,
		"\U000e0001": "…", "ab\xff": "ab\uFFFD", " a": `\u0020a`,
	} {
		if got := cell(text, 8); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
