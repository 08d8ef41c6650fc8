package sqlite_test

import (
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/audit/sinks/sqlite"
)

func TestEveryConfigErrorIsReportedAtOnce(t *testing.T) {
	_, err := sqlite.New(sqlite.Config{Table: "a;drop", Timeout: -1})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"path: is empty", `table "a;drop"`, "timeout -1ns"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q: %v", want, err)
		}
	}
}

func TestPathsThatAreRefused(t *testing.T) {
	for path, ok := range map[string]bool{
		"": false, "/": false, "/var/lib/": false, ".": false, "..": false, "/var/..": false, "a\x00b": false,
		strings.Repeat("a", 501): false, "audit.db": true, "/var/lib/moat/audit.db": true, "/odd %20?#name": true,
	} {
		if _, err := sqlite.New(sqlite.Config{Path: path}); (err == nil) != ok {
			t.Errorf("%.80q: %v", path, err)
		}
	}
}

func TestTableNamesThatAreRefused(t *testing.T) {
	for name, ok := range map[string]bool{
		`a"b`: false, "a b": false, "main.a": false, "1a": false, "Audit": false, "é": false, "a\n": false, "sqlite_audit": false,
		strings.Repeat("a", 47): false, strings.Repeat("a", 46): true, "_x1": true, "order": true,
	} {
		if _, err := sqlite.New(sqlite.Config{Path: "audit.db", Table: name}); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestTimeoutsThatAreRefused(t *testing.T) {
	for timeout, ok := range map[time.Duration]bool{
		-time.Second: false, time.Microsecond: false, time.Minute + 1: false, 0: true, time.Millisecond: true, time.Minute: true,
	} {
		if _, err := sqlite.New(sqlite.Config{Path: "audit.db", Timeout: timeout}); (err == nil) != ok {
			t.Errorf("%s: %v", timeout, err)
		}
	}
}
