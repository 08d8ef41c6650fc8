package journal_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/audit"
	"github.com/moat-gateway/moat/internal/audit/journal"
)

func TestReconfigureKeepsEveryEvent(t *testing.T) {
	dir := t.TempDir()
	j := mustOpen(t, config(dir))
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 300 {
				class := audit.Security
				if i%2 == 0 {
					class = audit.Access
				}
				if err := j.Record(context.Background(), event(class, fmt.Sprintf("%d-%d", g, i))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range 40 {
		cfg := config(dir)
		cfg.Queue = 4096 + i%2
		cfg.FsyncAlways = i%4 == 0
		if err := j.Reconfigure(cfg); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	mustClose(t, j)
	mustVerify(t, dir)
	if n := len(find(trail(t, dir), "http.request")); n != 1200 {
		t.Errorf("%d of 1200 events", n)
	}
}

func TestReconfigureRefusesAnotherTrail(t *testing.T) {
	dir := t.TempDir()
	j := mustOpen(t, config(dir))
	for name, change := range map[string]func(*journal.Config){
		"dir":      func(c *journal.Config) { c.Dir = t.TempDir() },
		"instance": func(c *journal.Config) { c.Instance = "gw-b" },
		"queue":    func(c *journal.Config) { c.Queue = -1 },
	} {
		cfg := config(dir)
		change(&cfg)
		if err := j.Reconfigure(cfg); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	same := config(dir + "/")
	if err := j.Reconfigure(same); err != nil {
		t.Errorf("the same directory: %v", err)
	}
}

func TestConfigNamesEverythingThatIsWrong(t *testing.T) {
	bad := journal.Config{
		Fsync: time.Microsecond, Keep: time.Minute, MaxSize: 1, Segment: 1, Queue: -1, Wait: time.Hour, Instance: "a/b",
	}
	err := bad.Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"dir", "instance \"a/b\"", "fsync 1µs", "keep 1m0s", "max_size 1", "segment 1", "queue -1", "wait 1h"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nlacks %q", err, want)
		}
	}
	if _, err := journal.Open(bad); err == nil {
		t.Error("Open took it")
	}
	for name, c := range map[string]journal.Config{
		"zero":              {},
		"no instance":       {Dir: "/d"},
		"a long instance":   {Dir: "/d", Instance: strings.Repeat("a", 65)},
		"a key separator":   {Dir: "/d", Instance: "a:b"},
		"a space":           {Dir: "/d", Instance: "a b"},
		"negative fsync":    {Dir: "/d", Instance: "a", Fsync: -1},
		"negative keep":     {Dir: "/d", Instance: "a", Keep: -time.Hour},
		"slow fsync":        {Dir: "/d", Instance: "a", Fsync: time.Hour},
		"one segment only":  {Dir: "/d", Instance: "a", MaxSize: 32 << 20},
		"a huge segment":    {Dir: "/d", Instance: "a", Segment: 2 << 30},
		"a huge queue":      {Dir: "/d", Instance: "a", Queue: 1 << 21},
		"a negative wait":   {Dir: "/d", Instance: "a", Wait: -1},
		"negative max_size": {Dir: "/d", Instance: "a", MaxSize: -1},
	} {
		if err := c.Validate(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if err := (journal.Config{Dir: "/d", Instance: "Gw-1.example_x", MaxSize: 64 << 20}).Validate(); err != nil {
		t.Errorf("a good one: %v", err)
	}
}

func TestOpenFailsOnADirectoryItCannotUse(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	odd := t.TempDir()
	if err := os.Mkdir(filepath.Join(odd, "000000000001.jsonl"), 0o700); err != nil {
		t.Fatal(err)
	}
	locked := t.TempDir()
	if err := os.Mkdir(filepath.Join(locked, ".lock"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, dir := range map[string]string{"a file": file, "a segment that is a directory": odd, "a lock that is a directory": locked} {
		if j, err := journal.Open(config(dir)); err == nil {
			_ = j.Close()
			t.Errorf("%s: opened", name)
		}
	}
}
