package journal_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/audit"
	"github.com/moat-gateway/moat/internal/audit/journal"
)

func unmarshal(t testing.TB, raw []byte, into any) {
	t.Helper()
	if err := json.Unmarshal(raw, into); err != nil {
		t.Fatal(err)
	}
}

func wantFault(t *testing.T, dir, file string, no int) {
	t.Helper()
	_, err := journal.Verify(dir, journal.VerifyOptions{})
	var fault *journal.Fault
	if !errors.As(err, &fault) {
		t.Fatalf("Verify: %v", err)
	}
	if fault.File != file || fault.Line != no || fault.Reason == "" || !strings.Contains(err.Error(), fault.File) {
		t.Errorf("fault %v, want %s:%d", fault, file, no)
	}
}

// edit changes the lines (with their line ends) of one segment.
func edit(t *testing.T, path string, change func(lines [][]byte) [][]byte) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(content, []byte("\n"))
	lines = change(lines[:len(lines)-1])
	if err := os.WriteFile(path, bytes.Join(lines, nil), 0o600); err != nil {
		t.Fatal(err)
	}
}

// flip changes the character behind a mark.
func flip(line []byte, mark string) []byte {
	line = slices.Clone(line)
	i := bytes.Index(line, []byte(mark)) + len(mark)
	if line[i] == '0' {
		line[i] = '1'
	} else {
		line[i] = '0'
	}
	return line
}

func TestVerifyNamesThePlaceOfAnyChange(t *testing.T) {
	const file = "000000000001.jsonl"
	for name, c := range map[string]struct {
		change func([][]byte) [][]byte
		line   int
	}{
		"a flipped byte":                    {func(l [][]byte) [][]byte { l[4] = flip(l[4], `"id":"`); return l }, 5},
		"a flipped byte in the second line": {func(l [][]byte) [][]byte { l[1] = flip(l[1], `"status":`); return l }, 2},
		"a flipped byte in the first line":  {func(l [][]byte) [][]byte { l[0] = flip(l[0], `"epoch":"`); return l }, 1},
		"a flipped byte before the last":    {func(l [][]byte) [][]byte { l[9] = flip(l[9], `"id":"`); return l }, 10},
		"a changed prev":                    {func(l [][]byte) [][]byte { l[4] = flip(l[4], `"prev":"`); return l }, 5},
		"a changed prev of the first line":  {func(l [][]byte) [][]byte { l[0] = flip(l[0], `"prev":"`); return l }, 1},
		// Either of the last two could be the one: nothing follows to tell.
		"a changed prev of the last line": {func(l [][]byte) [][]byte { l[10] = flip(l[10], `"prev":"`); return l }, 10},
		"a changed number":                {func(l [][]byte) [][]byte { l[4] = flip(l[4], `"seq":`); return l }, 5},
		"a removed line":                  {func(l [][]byte) [][]byte { return slices.Delete(l, 4, 5) }, 5},
		"a removed first line":            {func(l [][]byte) [][]byte { return l[1:] }, 1},
		"a doubled line":                  {func(l [][]byte) [][]byte { return slices.Insert(l, 4, l[3]) }, 5},
		"swapped lines":                   {func(l [][]byte) [][]byte { l[4], l[5] = l[5], l[4]; return l }, 5},
		"an empty line":                   {func(l [][]byte) [][]byte { return slices.Insert(l, 4, []byte("\n")) }, 5},
		"an inserted line":                {func(l [][]byte) [][]byte { return slices.Insert(l, 4, []byte("{\"seq\":5}\n")) }, 5},
		"broken JSON":                     {func(l [][]byte) [][]byte { l[4] = l[4][1:]; return l }, 5},
		"a torn last line":                {func(l [][]byte) [][]byte { l[10] = l[10][:20]; return l }, 11},
		"a lost last line end":            {func(l [][]byte) [][]byte { l[10] = bytes.TrimSuffix(l[10], []byte("\n")); return l }, 11},
		"a flip, then broken JSON": {func(l [][]byte) [][]byte {
			l[4] = flip(l[4], `"id":"`)
			l[6] = l[6][1:]
			return l
		}, 5},
		"a flip, then a torn end": {func(l [][]byte) [][]byte {
			l[9] = flip(l[9], `"id":"`)
			l[10] = append(l[10], '{')
			return l
		}, 10},
		"a monster": {func(l [][]byte) [][]byte {
			return slices.Insert(l, 4, append(bytes.Repeat([]byte("x"), audit.MaxLine+1), '\n'))
		}, 5},
		// The second is surely changed, the first only perhaps.
		"two changed neighbours": {func(l [][]byte) [][]byte {
			l[4], l[5] = flip(l[4], `"id":"`), flip(l[5], `"id":"`)
			return l
		}, 6},
	} {
		t.Run(name, func(t *testing.T) {
			dir := crashed(t, 10)
			edit(t, filepath.Join(dir, file), c.change)
			wantFault(t, dir, file, c.line)
		})
	}
}

// twoStarts is a trail of two segments of five lines each.
func twoStarts(t *testing.T) string {
	dir := t.TempDir()
	for range 2 {
		j := mustOpen(t, config(dir))
		for range 4 {
			mustRecord(t, j, event(audit.Security, "e"))
		}
		mustClose(t, j)
	}
	return dir
}

func TestVerifyNamesChangesBetweenSegments(t *testing.T) {
	const one, two = "000000000001.jsonl", "000000000006.jsonl"
	for name, c := range map[string]struct {
		change func(dir string) error
		file   string
		line   int
	}{
		"an emptied segment":      {func(dir string) error { return os.Truncate(filepath.Join(dir, one), 0) }, one, 1},
		"an emptied last segment": {func(dir string) error { return os.Truncate(filepath.Join(dir, two), 0) }, two, 1},
		"a removed beginning":     {func(dir string) error { return os.Remove(filepath.Join(dir, one)) }, two, 1},
		"a renamed segment": {func(dir string) error {
			return os.Rename(filepath.Join(dir, two), filepath.Join(dir, "000000000007.jsonl"))
		}, "000000000007.jsonl", 1},
		"a last line changed": {func(dir string) error {
			edit(t, filepath.Join(dir, one), func(l [][]byte) [][]byte { l[4] = flip(l[4], `"status":`); return l })
			return nil
		}, one, 5},
		"a last line removed": {func(dir string) error {
			edit(t, filepath.Join(dir, one), func(l [][]byte) [][]byte { return l[:4] })
			return nil
		}, two, 1},
		"a torn line before the end": {func(dir string) error {
			edit(t, filepath.Join(dir, one), func(l [][]byte) [][]byte { return append(l, []byte("{")) })
			return nil
		}, one, 6},
		"a segment in a segment": {func(dir string) error {
			content, err := os.ReadFile(filepath.Join(dir, two))
			return errors.Join(err, os.WriteFile(filepath.Join(dir, "000000000011.jsonl"), content, 0o600))
		}, "000000000011.jsonl", 1},
	} {
		t.Run(name, func(t *testing.T) {
			dir := twoStarts(t)
			mustVerify(t, dir)
			if err := c.change(dir); err != nil {
				t.Fatal(err)
			}
			wantFault(t, dir, c.file, c.line)
		})
	}
}

func TestASegmentMustBeginWithItsEvent(t *testing.T) {
	dir := twoStarts(t)
	one, two := filepath.Join(dir, "000000000001.jsonl"), filepath.Join(dir, "000000000006.jsonl")
	// The same chain, cut at another place.
	var moved [][]byte
	edit(t, one, func(l [][]byte) [][]byte { moved = slices.Clone(l[3:]); return l[:3] })
	edit(t, two, func(l [][]byte) [][]byte { return append(moved, l...) })
	if err := os.Rename(two, filepath.Join(dir, "000000000004.jsonl")); err != nil {
		t.Fatal(err)
	}
	wantFault(t, dir, "000000000004.jsonl", 1)
}

func TestTheOnlyLineOfATrailCarriesZeros(t *testing.T) {
	dir := t.TempDir()
	mustClose(t, mustOpen(t, config(dir)))
	edit(t, segments(t, dir)[0], func(l [][]byte) [][]byte { l[0] = flip(l[0], `"prev":"`); return l })
	wantFault(t, dir, "000000000001.jsonl", 1)
}

func TestOnlyAnEventIsALineOfATrail(t *testing.T) {
	zeros := strings.Repeat("0", 64)
	good := `{"seq":7,"prev":"` + zeros + `","action":"a","details":{"lastSeq":"free"}}`
	if !journal.ParseHead([]byte(good)) {
		t.Error("refused a good one")
	}
	for name, line := range map[string]string{
		"nothing":             "",
		"no JSON":             good[1:],
		"an array":            "[" + good + "]",
		"two objects":         good + good,
		"no number":           `{"prev":"` + zeros + `"}`,
		"number zero":         strings.Replace(good, `"seq":7`, `"seq":0`, 1),
		"a negative number":   strings.Replace(good, `"seq":7`, `"seq":-7`, 1),
		"a number in a text":  strings.Replace(good, `"seq":7`, `"seq":"7"`, 1),
		"a number too large":  strings.Replace(good, `"seq":7`, `"seq":4611686018427387905`, 1),
		"a short prev":        strings.Replace(good, "00", "", 1),
		"no prev":             `{"seq":7}`,
		"longer than any":     strings.Replace(good, `"a"`, `"`+strings.Repeat("a", audit.MaxLine)+`"`, 1),
		"a segment's details": strings.Replace(good, `"a"`, `"audit.segment"`, 1),
	} {
		if journal.ParseHead([]byte(line)) {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestOtherFilesAreNoPartOfATrail(t *testing.T) {
	dir := twoStarts(t)
	for _, name := range []string{"HEAD", "1.jsonl", "000000000000.jsonl", "00000000000x.jsonl", "000000000001.jsonl.gz", "0000000000001.jsonl"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	mustVerify(t, dir)
}

func TestACopyOfTheLastDaysVerifiesOnlyWhenAskedFor(t *testing.T) {
	dir := twoStarts(t)
	if err := os.Remove(filepath.Join(dir, "000000000001.jsonl")); err != nil {
		t.Fatal(err)
	}
	wantFault(t, dir, "000000000006.jsonl", 1)
	r, err := journal.Verify(dir, journal.VerifyOptions{AnyHead: true})
	if err != nil || !r.Removed || r.FirstSeq != 6 || r.LastSeq != 10 || r.Events != 5 {
		t.Errorf("report %+v, %v", r, err)
	}
}

func TestOnlyAnAnchorShowsACutTail(t *testing.T) {
	dir := twoStarts(t)
	full := mustVerify(t, dir)
	anchor := journal.Anchor{Seq: full.LastSeq, Hash: full.LastHash}
	two := filepath.Join(dir, "000000000006.jsonl")
	content, err := os.ReadFile(two)
	if err != nil {
		t.Fatal(err)
	}
	check := func(name string, a journal.Anchor, ok bool) {
		t.Helper()
		var fault *journal.Fault
		_, err := journal.Verify(dir, journal.VerifyOptions{Anchor: a})
		if ok != (err == nil) || !ok && !errors.As(err, &fault) {
			t.Errorf("%s: %v", name, err)
		}
	}
	check("the whole trail", anchor, true)
	check("another hash", journal.Anchor{Seq: 3, Hash: anchor.Hash}, false)
	edit(t, two, func(l [][]byte) [][]byte { return l[:4] })
	check("cut, without an anchor", journal.Anchor{}, true)
	check("cut", anchor, false)
	if err := os.WriteFile(two, content, 0o600); err != nil {
		t.Fatal(err)
	}
	edit(t, two, func(l [][]byte) [][]byte { l[4] = flip(l[4], `"id":"`); return l })
	check("a changed last line, without an anchor", journal.Anchor{}, true)
	check("a changed last line", anchor, false)
}

func TestAnAnchorBeforeTheFirstLine(t *testing.T) {
	dir := twoStarts(t)
	lines := trail(t, dir)
	if err := os.Remove(filepath.Join(dir, "000000000001.jsonl")); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		anchor journal.Anchor
		ok     bool
	}{
		"the line that is joined":      {journal.Anchor{Seq: 5, Hash: lines[5].Prev}, true},
		"another line in its place":    {journal.Anchor{Seq: 5, Hash: lines[4].Prev}, false},
		"one that nothing proves here": {journal.Anchor{Seq: 4, Hash: lines[4].Prev}, false},
	} {
		if _, err := journal.Verify(dir, journal.VerifyOptions{AnyHead: true, Anchor: c.anchor}); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWithoutATrailThereIsNothingToVerify(t *testing.T) {
	if _, err := journal.Verify(t.TempDir(), journal.VerifyOptions{}); !errors.Is(err, journal.ErrNoTrail) {
		t.Errorf("an empty directory: %v", err)
	}
	if _, err := journal.Verify(filepath.Join(t.TempDir(), "none"), journal.VerifyOptions{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "000000000001.jsonl"), 0o700); err != nil {
		t.Fatal(err)
	}
	var fault *journal.Fault
	if _, err := journal.Verify(dir, journal.VerifyOptions{}); err == nil || errors.As(err, &fault) {
		t.Errorf("a directory for a segment: %v", err)
	}
}

func TestALineOnItsWayIsNoFaultWhileTheJournalIsOpen(t *testing.T) {
	dir := t.TempDir()
	j := mustOpen(t, config(dir))
	mustRecord(t, j, event(audit.Security, "e"))
	path := segments(t, dir)[0]
	appendTo(t, path, []byte(`{"timestamp":`))
	if r := mustVerify(t, dir); !r.Live || r.Events != 2 {
		t.Errorf("report %+v", r)
	}
	mustClose(t, j)
	wantFault(t, dir, filepath.Base(path), 3)
}

func TestTheReportTellsTheTimesOfTheTrail(t *testing.T) {
	dir := t.TempDir()
	cfg := config(dir)
	start := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	cfg.Now = func() time.Time { return start }
	j := mustOpen(t, cfg)
	e := event(audit.Security, "e")
	e.Timestamp = start.Add(time.Hour)
	mustRecord(t, j, e)
	mustClose(t, j)
	if r := mustVerify(t, dir); !r.From.Equal(start) || !r.To.Equal(e.Timestamp) {
		t.Errorf("report %+v", r)
	}
}
