package journal_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/audit"
	"github.com/moat-gateway/moat/internal/audit/journal"
)

// crashed returns the directory of a trail of n events in several segments,
// as a process leaves it that did not close its journal.
func crashed(t testing.TB, n int) string {
	t.Helper()
	from := t.TempDir()
	cfg := config(from)
	cfg.Segment = 128 << 10
	j := mustOpen(t, cfg)
	for i := range n {
		mustRecord(t, j, event(audit.Security, fmt.Sprint("e", i)))
	}
	dir := t.TempDir()
	if err := copyTrail(from, dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

func appendTo(t testing.TB, path string, content []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func last[T any](list []T) T { return list[len(list)-1] }

func TestATornLastLineIsCutOffAndRecorded(t *testing.T) {
	for name, torn := range map[string]string{
		"half a line":           `{"timestamp":"2026-11-22T03:00:00.000001Z","userId":"u`,
		"one byte":              `{`,
		"zeros":                 strings.Repeat("\x00", 4096),
		"zeros and a line end":  strings.Repeat("\x00", 100) + "\n",
		"the end of a line":     `","seq":9,"instance":"gw-a","prev":""}` + "\n",
		"two broken lines":      "\x00\x00\n{\n{\"seq\"",
		"JSON that is no event": "{}\n",
		"an empty line":         "\n",
	} {
		t.Run(name, func(t *testing.T) {
			dir := crashed(t, 3)
			appendTo(t, segments(t, dir)[0], []byte(torn))
			if _, err := journal.Verify(dir, journal.VerifyOptions{}); err == nil {
				t.Fatal("the torn trail verifies")
			}
			j := mustOpen(t, config(dir))
			mustRecord(t, j, event(audit.Security, "after"))
			mustClose(t, j)
			mustVerify(t, dir)
			lines := trail(t, dir)
			if len(lines) != 4+3 || last(lines).ID != "after" {
				t.Fatalf("%d lines", len(lines))
			}
			sum := sha256.Sum256([]byte(torn))
			r := lines[5]
			if r.Action != audit.ActionRecovered || r.Class != "admin" || r.Severity != "high" || r.Resource != "000000000001.jsonl" ||
				r.Details["cutBytes"] != float64(len(torn)) || r.Details["cutHash"] != hex.EncodeToString(sum[:]) {
				t.Errorf("recovered %+v", r)
			}
			// Recorded once, not at every start.
			mustClose(t, mustOpen(t, config(dir)))
			if n := len(find(trail(t, dir), audit.ActionRecovered)); n != 1 {
				t.Errorf("recorded %d times", n)
			}
		})
	}
}

func TestACleanEndIsNotARecovery(t *testing.T) {
	dir := crashed(t, 3)
	mustClose(t, mustOpen(t, config(dir)))
	if n := len(find(trail(t, dir), audit.ActionRecovered)); n != 0 {
		t.Errorf("recorded %d times", n)
	}
}

func TestASegmentThatWasOnlyBegunIsBegunAnew(t *testing.T) {
	for name, content := range map[string]string{"empty": "", "half a first line": `{"timestamp":"20`} {
		t.Run(name, func(t *testing.T) {
			dir := crashed(t, 3)
			appendTo(t, segments(t, dir)[0], []byte(`{"times`))
			for _, file := range []string{"000000000005.jsonl", "000000000006.jsonl"} {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			mustClose(t, mustOpen(t, config(dir)))
			r := mustVerify(t, dir)
			recovered := find(trail(t, dir), audit.ActionRecovered)
			if r.Segments != 2 || len(recovered) != 1 {
				t.Fatalf("report %+v", r)
			}
			if d := recovered[0].Details; d["file"] != "000000000006.jsonl" || d["file2"] == nil {
				t.Errorf("details %v", d)
			}
		})
	}
}

func TestATrailOfNothingButATornBeginningStartsAtOne(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "000000000001.jsonl"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	mustClose(t, mustOpen(t, config(dir)))
	if r := mustVerify(t, dir); r.FirstSeq != 1 || r.Events != 2 {
		t.Errorf("report %+v", r)
	}
}

func TestOpenDestroysNothingThatACrashCannotLeave(t *testing.T) {
	for name, content := range map[string][]byte{
		"a long file of something else": bytes.Repeat([]byte("x"), audit.MaxLine+1),
		"more than is looked at":        bytes.Repeat([]byte("y\n"), 1<<20),
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "000000000001.jsonl")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if j, err := journal.Open(config(dir)); err == nil {
			_ = j.Close()
			t.Errorf("%s: opened", name)
		}
		if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, content) {
			t.Errorf("%s: was changed", name)
		}
	}
}

func TestDamageBeforeTheLastLineIsLeftForVerify(t *testing.T) {
	dir := crashed(t, 5)
	path := segments(t, dir)[0]
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	damaged := bytes.Replace(content, []byte(`"id":"e2"`), []byte(`"id":"eX"`), 1)
	if err := os.WriteFile(path, damaged, 0o600); err != nil {
		t.Fatal(err)
	}
	mustClose(t, mustOpen(t, config(dir)))
	if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, damaged) {
		t.Error("the damaged segment was changed")
	}
	wantFault(t, dir, "000000000001.jsonl", 4)
}

// A crash at any byte: what remains verifies after the next start, and no event
// whose line lay whole before the cut is missing.
func TestRecoveryAtAnyCutLosesNothingBeforeIt(t *testing.T) {
	whole := crashed(t, 400)
	list := segments(t, whole)
	content, err := os.ReadFile(last(list))
	if err != nil {
		t.Fatal(err)
	}
	firstLine := bytes.IndexByte(content, '\n') + 1
	random := rand.New(rand.NewPCG(1, 2)) // #nosec G404 -- the same cuts every time
	cuts := []int{0, 1, firstLine - 1, firstLine, firstLine + 1, len(content) - 1, len(content)}
	for range 30 {
		cuts = append(cuts, random.IntN(len(content)))
	}
	for _, cut := range cuts {
		dir := t.TempDir()
		if err := copyTrail(whole, dir); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(filepath.Join(dir, filepath.Base(last(list))), int64(cut)); err != nil {
			t.Fatal(err)
		}
		kept := make(map[string]bool)
		for i := range bytes.Count(content[:cut], []byte("\n")) {
			var l line
			unmarshal(t, bytes.Split(content, []byte("\n"))[i], &l)
			kept[l.ID] = true
		}
		j := mustOpen(t, config(dir))
		mustRecord(t, j, event(audit.Security, "after"))
		mustClose(t, j)
		mustVerify(t, dir)
		for _, l := range trail(t, dir) {
			delete(kept, l.ID)
		}
		if len(kept) > 0 {
			t.Errorf("cut at %d: %d events are missing", cut, len(kept))
		}
	}
}

func TestAJournalThatWasLeftWithoutCloseIsTakenOver(t *testing.T) {
	dir := t.TempDir()
	j := mustOpen(t, config(dir))
	mustRecord(t, j, event(audit.Security, "first"))
	if err := j.Abandon(); err != nil {
		t.Fatal(err)
	}
	next := mustOpen(t, config(dir))
	mustRecord(t, next, event(audit.Security, "second"))
	mustClose(t, next)
	if r := mustVerify(t, dir); r.Events != 4 || r.Epochs != 2 {
		t.Errorf("report %+v", r)
	}
}

// crashDir tells the test binary to be the process that is killed.
const crashDir = "MOAT_TEST_JOURNAL_CRASH_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		recordUntilKilled(dir)
	}
	os.Exit(m.Run())
}

// recordUntilKilled prints the ID of each event that Record vouched for.
func recordUntilKilled(dir string) {
	j, err := journal.Open(journal.Config{Dir: dir, Instance: "gw-a", Segment: 128 << 10, Wait: 10 * time.Second})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	for i := 0; ; i++ {
		_ = j.Record(context.Background(), event(audit.Access, fmt.Sprint("a", i)))
		id := fmt.Sprintf("%s-%d", j.Stats().LastHash[:8], i)
		if err := j.Record(context.Background(), event(audit.Security, id)); err == nil {
			fmt.Println(id)
		}
	}
}

func TestKillLosesNoAcknowledgedEvent(t *testing.T) {
	dir := t.TempDir()
	acknowledged := make(map[string]bool)
	for round := range 5 {
		for _, id := range killAfter(t, dir, 100+150*round) {
			acknowledged[id] = true
		}
	}
	mustClose(t, mustOpen(t, config(dir)))
	if r := mustVerify(t, dir); r.Epochs != 6 {
		t.Errorf("report %+v", r)
	}
	n := len(acknowledged)
	for _, l := range trail(t, dir) {
		delete(acknowledged, l.ID)
	}
	if len(acknowledged) > 0 || n < 5*100 {
		t.Errorf("%d of %d acknowledged events are missing", len(acknowledged), n)
	}
}

// killAfter runs the recording process until it acknowledged n events, kills it
// and returns all it acknowledged.
func killAfter(t *testing.T, dir string, n int) []string {
	t.Helper()
	cmd := exec.Command(os.Args[0]) // #nosec G204 -- this test itself
	cmd.Env = append(os.Environ(), crashDir+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var ids []string
	r := bufio.NewReader(out)
	for {
		id, err := r.ReadString('\n')
		if err != nil {
			break // an ID that is torn was not seen by anybody either
		}
		if strings.HasPrefix(id, "error") {
			t.Fatal(id)
		}
		ids = append(ids, strings.TrimSpace(id))
		if len(ids) == n {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = cmd.Wait()
	return ids
}
