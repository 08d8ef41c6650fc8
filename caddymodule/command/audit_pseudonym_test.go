package command

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/internal/audit"
)

func TestAPseudonymIsTheOneInTheTrail(t *testing.T) {
	key := bytes.Repeat([]byte("k"), audit.MinPseudonymKey)
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, key, 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := audit.NewPseudonyms(key, audit.KindUser)
	if err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) (out, complaint string) {
		cmd := newAuditPseudonym()
		var stdout, stderr bytes.Buffer
		cmd.SetOut(&stdout)
		cmd.SetErr(&stderr)
		cmd.SetArgs(args)
		_ = cmd.Execute() // What it prints says it.
		return stdout.String(), stderr.String()
	}
	event := &audit.Event{UserID: "u-1", IP: "192.0.2.1"}
	line := string(p.Veil(event).AppendJSON(nil))
	if out, _ := run(file, "user", "u-1"); !strings.Contains(line, `"userId":"`+strings.TrimSpace(out)+`"`) || out == "u-1\n" {
		t.Errorf("%q, in the trail stands %s", out, line)
	}
	for want, args := range map[string][]string{
		"needs the key file": {file, "user"},
		"must be ip or user": {file, "tenant", "acme"},
		"no such file":       {file + "x", "ip", "192.0.2.1"},
	} {
		if out, complaint := run(args...); out != "" || !strings.Contains(complaint, want) {
			t.Errorf("%q: %q, %q, want %q", args, out, complaint, want)
		}
	}
}
