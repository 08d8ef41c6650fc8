package file_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/audit/sinks/file"
)

func TestEveryConfigErrorIsReportedAtOnce(t *testing.T) {
	_, err := file.New(file.Config{RollSize: 1, RollKeep: -1, Mode: 0o666, Timeout: -1})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"path: is empty", "roll_size 1:", "roll_keep -1:", "mode 0666:", "timeout -1ns:"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q: %v", want, err)
		}
	}
}

func TestPathsThatAreRefused(t *testing.T) {
	for path, ok := range map[string]bool{
		"": false, "/": false, "/var/log/": false, ".": false, "..": false, "/var/..": false, "a\x00b": false,
		strings.Repeat("a", 201): false, strings.Repeat("a/", 2000) + "b": false,
		"/x/audit-20261126T031638.123456Z.jsonl": false, "audit-20261126T031638.123456Z": false,
		"audit.jsonl": true, "/x/audit-20261126.jsonl": true, "audit-": true, strings.Repeat("a", 200): true, ".hidden": true,
	} {
		if _, err := file.New(file.Config{Path: path}); (err == nil) != ok {
			t.Errorf("%.80q: %v", path, err)
		}
	}
}

func TestBoundsOfTheConfig(t *testing.T) {
	for _, row := range []struct {
		cfg file.Config
		ok  bool
	}{
		{file.Config{}, true},
		{file.Config{RollSize: 1<<20 - 1}, false}, {file.Config{RollSize: 1 << 20}, true},
		{file.Config{RollSize: 1 << 40}, true}, {file.Config{RollSize: 1<<40 + 1}, false}, {file.Config{RollSize: -1}, false},
		{file.Config{RollKeep: 1}, true}, {file.Config{RollKeep: 10_000}, true}, {file.Config{RollKeep: 10_001}, false},
		{file.Config{Mode: 0o600}, true}, {file.Config{Mode: 0o640}, true}, {file.Config{Mode: 0o644}, true},
		{file.Config{Mode: 0o400}, false}, {file.Config{Mode: 0o620}, false}, {file.Config{Mode: 0o602}, false},
		{file.Config{Mode: 0o700}, false}, {file.Config{Mode: 0o600 | os.ModeSetuid}, false}, {file.Config{Mode: 0o600 | os.ModeDir}, false},
		{file.Config{Timeout: time.Microsecond}, false}, {file.Config{Timeout: time.Millisecond}, true},
		{file.Config{Timeout: time.Minute}, true}, {file.Config{Timeout: time.Minute + 1}, false},
	} {
		row.cfg.Path = "audit.jsonl"
		if _, err := file.New(row.cfg); (err == nil) != row.ok {
			t.Errorf("%+v: %v", row.cfg, err)
		}
	}
}
