package reader_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/audit"
	"github.com/moat-gateway/moat/internal/audit/journal"
	"github.com/moat-gateway/moat/internal/audit/reader"
)

var noon = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)

// line is an event with a time and a user.
func line(seq int, at time.Time, user string) string {
	e := audit.Event{Timestamp: at, UserID: user, Action: "http.request", Class: audit.Access, Outcome: audit.Allow, Instance: "gw", Seq: uint64(seq)}
	return string(e.AppendJSON(nil))
}

// writeSegment writes a segment as it is given.
func writeSegment(t testing.TB, dir string, first int, content string) {
	t.Helper()
	if err := os.WriteFile(segment(dir, first), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func segment(dir string, first int) string {
	return filepath.Join(dir, fmt.Sprintf("%012d.jsonl", first))
}

// appendSegment writes as a journal does: a reader may look at any moment.
func appendSegment(t testing.TB, dir string, first int, content string) {
	t.Helper()
	file, err := os.OpenFile(segment(dir, first), os.O_WRONLY|os.O_APPEND, 0o600)
	if err == nil {
		_, err = file.WriteString(content)
		err = errors.Join(err, file.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, dir string) *reader.Trail {
	t.Helper()
	trail, err := reader.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return trail
}

// both returns the numbers of the events that f means, read forwards; backwards it
// must be the same.
func both(t *testing.T, dir string, f *reader.Filter) (seqs []uint64, noEvents int) {
	t.Helper()
	trail, back := open(t, dir), open(t, dir)
	if err := trail.Forward(f, func(e *reader.Event) error { seqs = append(seqs, e.Seq); return nil }); err != nil {
		t.Fatal(err)
	}
	var reversed []uint64
	if _, err := back.Backward(f, func(e *reader.Event) error { reversed = append(reversed, e.Seq); return nil }); err != nil {
		t.Fatal(err)
	}
	slices.Reverse(reversed)
	if !slices.Equal(seqs, reversed) || trail.NoEvents != back.NoEvents {
		t.Fatalf("forwards %v and %d no events, backwards %v and %d", seqs, trail.NoEvents, reversed, back.NoEvents)
	}
	return seqs, trail.NoEvents
}

func TestBothDirectionsSeeTheSame(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // Repeatable.
	for round := range 40 {
		dir := t.TempDir()
		var want []uint64
		bad, seq := 0, 1
		for range 1 + rng.IntN(3) {
			first, content := seq, new(strings.Builder)
			for range 1 + rng.IntN(60) {
				switch rng.IntN(12) {
				case 0:
					content.WriteString("no event\n")
					bad++
				case 1:
					content.WriteString("\n")
					bad++
				case 2: // Around the bound of a line, and far beyond.
					size := []int{audit.MaxLine - 1, audit.MaxLine, audit.MaxLine + 1, 64 << 10, 200 << 10}[rng.IntN(5)]
					content.WriteString(strings.Repeat("x", size) + "\n")
					bad++
				case 3:
					l := line(seq, noon, "u")
					content.WriteString(l[:len(l)-1] + strings.Repeat(" ", audit.MaxLine-len(l)) + "}\n")
					want = append(want, uint64(seq))
				default:
					content.WriteString(line(seq, noon, strings.Repeat("u", rng.IntN(200))) + "\n")
					want = append(want, uint64(seq))
				}
				seq++
			}
			writeSegment(t, dir, first, content.String())
		}
		if got, n := both(t, dir, new(reader.Filter)); !slices.Equal(got, want) || n != bad {
			t.Fatalf("round %d: %d events and %d no events, want %d and %d", round, len(got), n, len(want), bad)
		}
	}
}

func TestATornLineCountsOnlyWhereTheTrailHasMovedOn(t *testing.T) {
	dir := t.TempDir()
	writeSegment(t, dir, 1, line(1, noon, "u")+"\n"+line(2, noon, "u")[:20])
	if got, n := both(t, dir, new(reader.Filter)); len(got) != 1 || n != 0 {
		t.Errorf("last: %v, %d no events", got, n)
	}
	writeSegment(t, dir, 2, line(2, noon, "u")+"\n")
	if got, n := both(t, dir, new(reader.Filter)); len(got) != 2 || n != 1 {
		t.Errorf("not last: %v, %d no events", got, n)
	}
}

func TestOtherFilesAreNotRead(t *testing.T) {
	dir := t.TempDir()
	if _, err := reader.Open(dir); !errors.Is(err, reader.ErrNoTrail) {
		t.Errorf("empty: %v", err)
	}
	if _, err := reader.Open(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	for _, name := range []string{"HEAD", "1.jsonl", "000000000000.jsonl", "0000000000001.jsonl", "000000000003.jsonl.next", "x00000000001.jsonl"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "000000000009.jsonl"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := reader.Open(dir); !errors.Is(err, reader.ErrNoTrail) {
		t.Errorf("with other files: %v", err)
	}
	writeSegment(t, dir, 1_000_000_000_000, line(1_000_000_000_000, noon, "u")+"\n")
	writeSegment(t, dir, 999_999_999_999, line(999_999_999_999, noon, "u")+"\n")
	if got, n := both(t, dir, new(reader.Filter)); !slices.Equal(got, []uint64{999_999_999_999, 1_000_000_000_000}) || n != 0 {
		t.Errorf("got %v, %d no events", got, n)
	}
}

// TestSegmentsOfAnotherTimeAreNotRead has a line in each segment that is no event,
// so the count of those says which were read.
func TestSegmentsOfAnotherTimeAreNotRead(t *testing.T) {
	dir := t.TempDir()
	for i := range 10 {
		at := noon.Add(time.Duration(i) * 24 * time.Hour)
		writeSegment(t, dir, 2*i+1, line(2*i+1, at, "u")+"\n"+line(2*i+2, at.Add(time.Hour), "u")+"\nno event\n")
	}
	day := func(n int) time.Time { return noon.Add(time.Duration(n) * 24 * time.Hour) }
	for name, c := range map[string]struct {
		filter reader.Filter
		want   []uint64
		read   int
	}{
		"all":           {reader.Filter{}, []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20}, 10},
		"since":         {reader.Filter{Since: day(8)}, []uint64{17, 18, 19, 20}, 3},
		"between":       {reader.Filter{Since: day(3), Until: day(4).Add(time.Minute)}, []uint64{7, 8, 9}, 3},
		"until":         {reader.Filter{Until: day(1)}, []uint64{1, 2}, 2},
		"before":        {reader.Filter{Until: day(-1)}, nil, 0},
		"since the end": {reader.Filter{Since: day(20)}, nil, 1},
		"exactly":       {reader.Filter{Since: day(2), Until: day(2).Add(time.Hour)}, []uint64{5}, 2},
	} {
		if got, read := both(t, dir, &c.filter); !slices.Equal(got, c.want) || read != c.read {
			t.Errorf("%s: %v and %d segments read, want %v and %d", name, got, read, c.want, c.read)
		}
	}
}

func TestFilters(t *testing.T) {
	e := reader.Event{
		Time: noon, User: "u-1", Action: "GET /open/**", IP: "192.0.2.7", Class: "security", Outcome: "deny", Reason: "rbac.no-rule",
		Severity: "medium", RequestID: "r-1", Tenant: "t-1", Path: "/open/a*", Seq: 1,
	}
	prefixes := func(texts ...string) (list []netip.Prefix) {
		for _, text := range texts {
			list = append(list, netip.MustParsePrefix(text))
		}
		return list
	}
	for name, c := range map[string]struct {
		filter reader.Filter
		want   bool
	}{
		"nothing":             {reader.Filter{}, true},
		"user":                {reader.Filter{Users: []string{"u-2", "u-1"}}, true},
		"no pattern of users": {reader.Filter{Users: []string{"u*"}}, false},
		"both kinds":          {reader.Filter{Users: []string{"u-1"}, Tenants: []string{"t-1"}}, true},
		"one of two kinds":    {reader.Filter{Users: []string{"u-1"}, Tenants: []string{"t-2"}}, false},
		"action":              {reader.Filter{Actions: []string{"GET /open/**"}}, true},
		"action's beginning":  {reader.Filter{Actions: []string{"GET*"}}, true},
		"part of an action":   {reader.Filter{Actions: []string{"GET"}}, false},
		"star in the middle":  {reader.Filter{Paths: []string{"/*/a*"}}, false},
		"any reason":          {reader.Filter{Reasons: []string{"*"}}, true},
		"reason":              {reader.Filter{Reasons: []string{"jwt.*", "rbac.*"}}, true},
		"path":                {reader.Filter{Paths: []string{"/open/*"}}, true},
		"case":                {reader.Filter{Paths: []string{"/OPEN/*"}}, false},
		"outcome":             {reader.Filter{Outcomes: []string{"deny", "error"}}, true},
		"severity":            {reader.Filter{Severities: []string{"low"}}, false},
		"least low":           {reader.Filter{MinSeverity: "low"}, true},
		"least medium":        {reader.Filter{MinSeverity: "medium"}, true},
		"least high":          {reader.Filter{MinSeverity: "high"}, false},
		"class":               {reader.Filter{Classes: []string{"security"}}, true},
		"request id":          {reader.Filter{RequestIDs: []string{"r-2"}}, false},
		"address":             {reader.Filter{Addresses: prefixes("192.0.2.7/32")}, true},
		"prefix":              {reader.Filter{Addresses: prefixes("10.0.0.0/8", "192.0.2.0/24")}, true},
		"other prefix":        {reader.Filter{Addresses: prefixes("192.0.3.0/24", "::/0")}, false},
		"pseudonym":           {reader.Filter{Pseudonyms: []string{"p:1"}}, false},
		"either":              {reader.Filter{Pseudonyms: []string{"p:1"}, Addresses: prefixes("0.0.0.0/0")}, true},
		"since":               {reader.Filter{Since: noon}, true},
		"since later":         {reader.Filter{Since: noon.Add(1)}, false},
		"until":               {reader.Filter{Until: noon}, false},
		"until later":         {reader.Filter{Until: noon.Add(1)}, true},
	} {
		if got := c.filter.Match(&e); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	for text, want := range map[string]bool{"::ffff:192.0.2.7": true, "fe80::1%eth0": true, "": false, "p:1": false, "192.0.2.700": false} {
		f := reader.Filter{Addresses: prefixes("192.0.2.0/24", "fe80::/10")}
		if e.IP = text; f.Match(&e) != want {
			t.Errorf("%q: want %v", text, want)
		}
	}
	if e.Severity = "unknown"; (&reader.Filter{MinSeverity: "low"}).Match(&e) {
		t.Error("an unknown severity is low")
	}
}

// follow follows a trail from its end until the test ends.
func follow(t *testing.T, dir string) <-chan uint64 {
	t.Helper()
	trail := open(t, dir)
	end, err := trail.End()
	if err != nil {
		t.Fatal(err)
	}
	seqs, done := make(chan uint64, 100_000), make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer close(done)
		visit := func(e *reader.Event) error { seqs <- e.Seq; return nil }
		if err := trail.Follow(ctx, end, new(reader.Filter), visit, func() error { return nil }); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return seqs
}

// wantNext fails unless the next event has a number, soon.
func wantNext(t *testing.T, seqs <-chan uint64, want uint64) {
	t.Helper()
	select {
	case got := <-seqs:
		if got != want {
			t.Fatalf("number %d, want %d", got, want)
		}
	case <-time.After(2 * time.Second):
		t.Fatalf("number %d did not come", want)
	}
}

// TestFollowOverSegmentsOfAJournal has a journal fill segments and remove old ones
// while it is followed.
func TestFollowOverSegmentsOfAJournal(t *testing.T) {
	dir := t.TempDir()
	const small = 128 << 10
	j, err := journal.Open(journal.Config{Dir: dir, Instance: "gw", Segment: small, MaxSize: 3 * small, Wait: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = j.Close() }()
	record := func() {
		t.Helper()
		e := audit.Event{Action: "test", Class: audit.Security, Outcome: audit.Deny, Path: strings.Repeat("/x", 900)}
		if err := j.Record(t.Context(), &e); err != nil {
			t.Fatal(err)
		}
	}
	record()
	next := j.Stats().Seq + 1
	seqs := follow(t, dir)
	for range 6 {
		for range 150 {
			record()
		}
		for last := j.Stats().Seq; next <= last; next++ {
			wantNext(t, seqs, next)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "000000000001.jsonl")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no segment was removed: %v", err)
	}
}

func TestFollowWaitsForATornLine(t *testing.T) {
	dir := t.TempDir()
	whole := line(2, noon, "u") + "\n"
	writeSegment(t, dir, 1, line(1, noon, "u")+"\n"+whole[:30])
	seqs := follow(t, dir)
	time.Sleep(2 * reader.Poll)
	appendSegment(t, dir, 1, whole[30:])
	wantNext(t, seqs, 2)
	// A write that failed is taken back, and the next segment has its place.
	if err := os.Truncate(segment(dir, 1), int64(len(line(1, noon, "u")+"\n"))); err != nil {
		t.Fatal(err)
	}
	writeSegment(t, dir, 2, line(2, noon, "v")+"\n")
	wantNext(t, seqs, 2)
	writeSegment(t, dir, 3, line(3, noon, "v")+"\n")
	wantNext(t, seqs, 3)
}

func TestFollowGoesOnWithAnotherTrail(t *testing.T) {
	dir := t.TempDir()
	writeSegment(t, dir, 100, line(100, noon, "u")+"\n")
	seqs := follow(t, dir)
	time.Sleep(2 * reader.Poll)
	for _, first := range []int{100, 1} {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * reader.Poll)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		writeSegment(t, dir, first, line(first, noon, "u")+"\n")
		wantNext(t, seqs, uint64(first))
	}
}

func TestALargeTrailInLittleMemory(t *testing.T) {
	dir := largeTrail(t, largeLines)
	for name, read := range map[string]func(*reader.Trail, *reader.Filter, reader.Visitor) error{
		"forwards": (*reader.Trail).Forward,
		"backwards": func(t *reader.Trail, f *reader.Filter, v reader.Visitor) error {
			_, err := t.Backward(f, v)
			return err
		},
	} {
		runtime.GC()
		var before, now runtime.MemStats
		runtime.ReadMemStats(&before)
		found, peak, start := 0, uint64(0), time.Now()
		err := read(open(t, dir), new(reader.Filter), func(*reader.Event) error {
			if found++; found%2000 == 0 {
				runtime.ReadMemStats(&now)
				peak = max(peak, now.HeapInuse)
			}
			return nil
		})
		if err != nil || found != largeLines {
			t.Errorf("%s: %d events, %v", name, found, err)
		}
		t.Logf("%s: %d lines in %s, heap at most %d KiB (%d before)", name, largeLines, time.Since(start).Round(time.Millisecond), peak>>10, before.HeapInuse>>10)
		if peak > before.HeapInuse+16<<20 {
			t.Errorf("%s: the heap grew by %d KiB", name, (peak-before.HeapInuse)>>10)
		}
	}
}

// largeTrail writes segments of 50,000 lines.
func largeTrail(t testing.TB, lines int) string {
	t.Helper()
	dir := t.TempDir()
	var content bytes.Buffer
	for first := 1; first <= lines; first += 50_000 {
		content.Reset()
		for seq := first; seq < first+50_000; seq++ {
			e := audit.Event{
				Timestamp: noon.Add(time.Duration(seq) * time.Second), UserID: fmt.Sprintf("u-%d", seq%100), Action: "GET /documents/{id}",
				Path: fmt.Sprintf("/documents/%d", seq), Method: "GET", IP: "192.0.2.7", Class: audit.Access, Outcome: audit.Allow, Status: 200,
				RequestID: fmt.Sprintf("r-%d", seq), ID: "01980000-0000-7000-8000-000000000000", Roles: []string{"admin", "user"}, Host: "orders.test",
				Route: "/documents/{id}", Instance: "gateway-a", Seq: uint64(seq), Prev: strings.Repeat("0", 64),
			}
			content.Write(append(e.AppendJSON(nil), '\n'))
		}
		writeSegment(t, dir, first, content.String())
	}
	return dir
}
