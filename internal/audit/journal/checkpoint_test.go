package journal_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moat-gateway/moat/internal/audit"
	"github.com/moat-gateway/moat/internal/audit/journal"
)

// signed is a journal that signs a checkpoint every ten events, with its key apart
// from the trail.
func signed(t testing.TB, dir string) journal.Config {
	t.Helper()
	cfg := config(dir)
	cfg.KeyFile = filepath.Join(t.TempDir(), "checkpoint.key")
	cfg.CheckpointEvents = 10
	return cfg
}

// signedTrail is a trail of n events over several segments, closed.
func signedTrail(t testing.TB, n int) (dir string, cfg journal.Config) {
	t.Helper()
	dir = t.TempDir()
	cfg = signed(t, dir)
	for part := range 3 {
		j := mustOpen(t, cfg)
		for i := range n / 3 {
			mustRecord(t, j, event(audit.Security, fmt.Sprintf("%d-%d", part, i)))
		}
		mustClose(t, j)
	}
	return dir, cfg
}

func publicKey(t testing.TB, cfg journal.Config) ed25519.PublicKey {
	t.Helper()
	key, err := journal.ReadPublicKey(cfg.KeyFile + journal.PublicSuffix)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestATrailIsSigned(t *testing.T) {
	dir, cfg := signedTrail(t, 75)
	r, err := journal.Verify(dir, journal.VerifyOptions{Keys: []ed25519.PublicKey{publicKey(t, cfg)}})
	if err != nil {
		t.Fatal(err)
	}
	// Each opening has one at its start, one at its end and two for 25 events.
	if !r.Signed || r.Checkpoints != 12 || r.Unsigned != 0 || r.Key != journal.KeyID(publicKey(t, cfg)) || time.Since(r.CheckedAt) > time.Minute {
		t.Errorf("%+v", r)
	}
	info, err := os.Stat(cfg.KeyFile)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key file: %v, %v", info.Mode(), err)
	}
	var reasons []string
	for _, l := range find(trail(t, dir), audit.ActionCheckpoint) {
		reasons = append(reasons, l.Reason)
	}
	if got := strings.Join(reasons[:4], " "); got != "start count count stop" {
		t.Errorf("checkpoints because of %s", got)
	}
	// Somebody else's key is not the trail's.
	other, _, _ := ed25519.GenerateKey(rand.Reader)
	wantReason(t, dir, journal.VerifyOptions{Keys: []ed25519.PublicKey{other}}, "none of those given")
}

func wantReason(t *testing.T, dir string, opts journal.VerifyOptions, want string) {
	t.Helper()
	_, err := journal.Verify(dir, opts)
	var fault *journal.Fault
	if !errors.As(err, &fault) || !strings.Contains(fault.Reason, want) {
		t.Errorf("error %v, want a fault with %q", err, want)
	}
}

// forger changes a trail as somebody would who may write to the directory and has
// not the key: all hashes are made to fit again.
type forger struct {
	t     *testing.T
	dir   string
	lines []string
	files []string // of each line
}

func newForger(t *testing.T, dir string) *forger {
	t.Helper()
	f := &forger{t: t, dir: dir}
	for _, l := range trail(t, dir) {
		f.lines = append(f.lines, strings.TrimSuffix(string(l.raw), "\n"))
		f.files = append(f.files, l.File)
	}
	return f
}

var (
	prevField = regexp.MustCompile(`"prev":"[0-9a-f]{64}"\}$`)
	seqField  = regexp.MustCompile(`"seq":[0-9]+,"instance"`)
)

// save writes the lines, chained and numbered anew from line n on.
func (f *forger) save(n int) {
	f.t.Helper()
	for i := max(n, 1); i < len(f.lines); i++ {
		sum := sha256.Sum256([]byte(f.lines[i-1]))
		f.lines[i] = prevField.ReplaceAllString(f.lines[i], `"prev":"`+hex.EncodeToString(sum[:])+`"}`)
		f.lines[i] = seqField.ReplaceAllString(f.lines[i], fmt.Sprintf(`"seq":%d,"instance"`, i+1))
	}
	f.saveAsIs()
}

func (f *forger) saveAsIs() {
	f.t.Helper()
	content := make(map[string]*bytes.Buffer)
	for _, path := range segments(f.t, f.dir) {
		content[filepath.Base(path)] = new(bytes.Buffer)
	}
	for i, l := range f.lines {
		content[f.files[i]].WriteString(l + "\n")
	}
	for name, text := range content {
		if err := os.WriteFile(filepath.Join(f.dir, name), text.Bytes(), 0o600); err != nil {
			f.t.Fatal(err)
		}
	}
}

func (f *forger) index(action string, nth int) int {
	f.t.Helper()
	for i, l := range f.lines {
		if strings.Contains(l, `"action":"`+action+`"`) {
			if nth--; nth < 0 {
				return i
			}
		}
	}
	f.t.Fatalf("no %s", action)
	return 0
}

func (f *forger) remove(from, to int) {
	f.lines = append(f.lines[:from], f.lines[to:]...)
	f.files = append(f.files[:from], f.files[to:]...)
}

// TestEveryForgeryWithoutTheKeyShows has hashes that fit throughout, so only the
// signatures tell.
func TestEveryForgeryWithoutTheKeyShows(t *testing.T) {
	head := func(t *testing.T, f *forger, change func(*journal.Statement)) {
		t.Helper()
		path := filepath.Join(f.dir, journal.HeadFile)
		s, err := journal.ReadHead(path)
		if err != nil {
			t.Fatal(err)
		}
		change(&s)
		text, _ := json.Marshal(s)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, row := range map[string]struct {
		forge func(t *testing.T, f *forger)
		want  string
	}{
		"an event changed": {func(_ *testing.T, f *forger) {
			i := f.index("http.request", 3)
			f.lines[i] = strings.Replace(f.lines[i], `"userId":"anonymous"`, `"userId":"somebody"`, 1)
			f.save(i)
		}, "checkpoint of another place"},
		"an event removed": {func(_ *testing.T, f *forger) {
			i := f.index("http.request", 3)
			f.remove(i, i+1)
			f.save(i)
		}, "checkpoint of another place"},
		"the last event changed": {func(_ *testing.T, f *forger) {
			i := f.index("http.request", 74)
			f.lines[i] = strings.Replace(f.lines[i], `"userId":"anonymous"`, `"userId":"somebody"`, 1)
			f.save(i)
		}, "checkpoint of another place"},
		"the tail cut at a line end": {func(_ *testing.T, f *forger) {
			f.remove(len(f.lines)-5, len(f.lines))
			f.saveAsIs()
		}, "the trail ends before line number"},
		"the tail cut behind a checkpoint": {func(_ *testing.T, f *forger) {
			i := f.index(audit.ActionCheckpoint, 10)
			f.remove(i+1, len(f.lines))
			f.saveAsIs()
		}, "the trail ends before line number"},
		"the tail cut and HEAD set back": {func(t *testing.T, f *forger) {
			f.remove(len(f.lines)-5, len(f.lines))
			f.saveAsIs()
			sum := sha256.Sum256([]byte(f.lines[len(f.lines)-1]))
			head(t, f, func(s *journal.Statement) { s.LastSeq -= 5; s.LastHash = hex.EncodeToString(sum[:]) })
		}, "not signed by a key of the trail"},
		"a checkpoint edited": {func(_ *testing.T, f *forger) {
			i := f.index(audit.ActionCheckpoint, 4)
			f.lines[i] = strings.Replace(f.lines[i], `"time":"2`, `"time":"3`, 1)
			f.save(i)
		}, "signature is not by the key"},
		"a checkpoint removed": {func(_ *testing.T, f *forger) {
			i := f.index(audit.ActionCheckpoint, 4)
			f.remove(i, i+1)
			f.save(i)
		}, "of another place"},
		"all checkpoints removed": {func(_ *testing.T, f *forger) {
			for i := len(f.lines) - 1; i >= 0; i-- {
				if strings.Contains(f.lines[i], audit.ActionCheckpoint) {
					f.remove(i, i+1)
				}
			}
			f.save(0)
		}, ""},
		"HEAD removed": {func(t *testing.T, f *forger) {
			if err := os.Remove(filepath.Join(f.dir, journal.HeadFile)); err != nil {
				t.Fatal(err)
			}
		}, "is missing"},
		"HEAD damaged": {func(t *testing.T, f *forger) {
			if err := os.WriteFile(filepath.Join(f.dir, journal.HeadFile), []byte("{"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, "is no HEAD"},
		"a checkpoint made HEAD and the rest rewritten": {func(t *testing.T, f *forger) {
			var e struct {
				Details struct {
					Epoch, LastHash, Time, Key, Signature string
					LastSeq                               uint64
				}
			}
			if err := json.Unmarshal([]byte(f.lines[f.index(audit.ActionCheckpoint, 0)]), &e); err != nil {
				t.Fatal(err)
			}
			head(t, f, func(s *journal.Statement) {
				d := e.Details
				*s = journal.Statement{Instance: s.Instance, Epoch: d.Epoch, LastSeq: d.LastSeq, LastHash: d.LastHash, Time: d.Time, Key: d.Key, Signature: d.Signature}
			})
			f.remove(f.index(audit.ActionCheckpoint, 0), len(f.lines))
			f.saveAsIs()
			for _, path := range segments(t, f.dir)[1:] {
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
			}
		}, "not signed by a key of the trail"},
		"a removal that nobody signed": {func(t *testing.T, f *forger) {
			second := f.index(audit.ActionSegment, 1)
			sum := sha256.Sum256([]byte(f.lines[second-1]))
			last := f.lines[len(f.lines)-1]
			end := sha256.Sum256([]byte(last))
			line := strings.Replace(f.lines[f.index("http.request", 0)], `"http.request"`, `"`+audit.ActionRemoved+`"`, 1)
			line = regexp.MustCompile(`"details":\{[^}]*\}`).ReplaceAllString(line, fmt.Sprintf(`"details":{"lastSeq":%d,"lastHash":"%s"}`, second, hex.EncodeToString(sum[:])))
			line = prevField.ReplaceAllString(line, `"prev":"`+hex.EncodeToString(end[:])+`"}`)
			line = seqField.ReplaceAllString(line, fmt.Sprintf(`"seq":%d,"instance"`, len(f.lines)+1))
			f.lines, f.files = append(f.lines, line), append(f.files, f.files[len(f.files)-1])
			f.saveAsIs()
			if err := os.Remove(segments(t, f.dir)[0]); err != nil {
				t.Fatal(err)
			}
		}, "is not signed"},
		"HEAD of another hash": {func(t *testing.T, f *forger) {
			head(t, f, func(s *journal.Statement) { s.LastHash = strings.Repeat("0", 64) })
		}, "it or the one before it was changed"},
		"the key's name removed": {func(_ *testing.T, f *forger) {
			i := f.index(audit.ActionSegment, 1)
			f.lines[i] = regexp.MustCompile(`,"publicKey":"[^"]*"`).ReplaceAllString(f.lines[i], "")
			f.save(i)
		}, "names no key"},
		"another key in a segment": {func(_ *testing.T, f *forger) {
			i := f.index(audit.ActionSegment, 1)
			f.lines[i] = regexp.MustCompile(`"publicKey":"[^"]{4}`).ReplaceAllString(f.lines[i], `"publicKey":"AAAA`)
			f.save(i)
		}, "another key than before"},
		"a key of the forger's": {func(_ *testing.T, f *forger) {
			i := f.index("http.request", 0)
			f.lines[i] = strings.Replace(f.lines[i], "http.request", audit.ActionKey, 1)
			f.save(i)
		}, "is no new key"},
		"a segment replaced by an older one": {func(_ *testing.T, f *forger) {
			second, third := f.index(audit.ActionSegment, 1), f.index(audit.ActionSegment, 2)
			for i := third; i < len(f.lines); i++ {
				f.lines[i] = f.lines[second+i-third]
			}
			f.save(third)
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir, _ := signedTrail(t, 75)
			row.forge(t, newForger(t, dir))
			wantReason(t, dir, journal.VerifyOptions{}, row.want)
		})
	}
}

// TestATrailSignedAnewByAnotherKeyNeedsTheRightOneToShow: whoever replaces
// everything can sign everything.
func TestATrailSignedAnewByAnotherKeyNeedsTheRightOneToShow(t *testing.T) {
	_, real := signedTrail(t, 30)
	forged, _ := signedTrail(t, 30)
	mustVerify(t, forged)
	wantReason(t, forged, journal.VerifyOptions{Keys: []ed25519.PublicKey{publicKey(t, real)}}, "none of those given")
	unsigned := t.TempDir()
	j := mustOpen(t, config(unsigned))
	mustClose(t, j)
	wantReason(t, unsigned, journal.VerifyOptions{Keys: []ed25519.PublicKey{publicKey(t, real)}}, "is to be signed")
}

// TestAHeadFromElsewhereShowsWhatWasCutWithItsHead sets a whole trail back to what
// it was earlier.
func TestAHeadFromElsewhereShowsWhatWasCutWithItsHead(t *testing.T) {
	dir, cfg := signedTrail(t, 30)
	earlier := t.TempDir()
	if err := os.CopyFS(earlier, os.DirFS(dir)); err != nil && !errors.Is(err, os.ErrExist) {
		t.Fatal(err)
	}
	j := mustOpen(t, cfg)
	mustRecord(t, j, event(audit.Security, "more"))
	mustClose(t, j)
	kept, err := journal.ReadHead(filepath.Join(dir, journal.HeadFile))
	if err != nil {
		t.Fatal(err)
	}
	mustVerify(t, earlier)
	wantReason(t, earlier, journal.VerifyOptions{Head: &kept}, "the trail ends before line number")
	if _, err := journal.Verify(dir, journal.VerifyOptions{Head: &kept}); err != nil {
		t.Error(err)
	}
}

// TestRandomDamageShows changes one thing of a closed trail at random.
func TestRandomDamageShows(t *testing.T) {
	dir, cfg := signedTrail(t, 45)
	key := journal.VerifyOptions{Keys: []ed25519.PublicKey{publicKey(t, cfg)}}
	rng := mathrand.New(mathrand.NewPCG(5, 6)) //nolint:gosec // Repeatable.
	for round := range 250 {
		damaged, what := damagedCopy(t, dir, rng)
		if what == "" {
			continue
		}
		var fault *journal.Fault
		if _, err := journal.Verify(damaged, key); !errors.As(err, &fault) {
			t.Fatalf("round %d: it verifies: %v\n%s", round, err, what)
		}
	}
}

// damagedCopy copies a trail and changes one of its files at random. It says what it
// did, or "" when nothing came of it.
func damagedCopy(t *testing.T, dir string, rng *mathrand.Rand) (damaged, what string) {
	t.Helper()
	damaged = t.TempDir()
	if err := os.CopyFS(damaged, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	paths := append(segments(t, damaged), filepath.Join(damaged, journal.HeadFile))
	path := paths[rng.IntN(len(paths))]
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := damage(rng, text)
	if bytes.Equal(changed, text) {
		return damaged, ""
	}
	if err := os.WriteFile(path, changed, 0o600); err != nil {
		t.Fatal(err)
	}
	return damaged, fmt.Sprintf("%s was\n%q\nand is\n%q", filepath.Base(path), text, changed)
}

func damage(rng *mathrand.Rand, text []byte) []byte {
	lines := bytes.SplitAfter(bytes.Clone(text), []byte("\n"))
	i, k := rng.IntN(len(lines)), rng.IntN(len(lines))
	switch rng.IntN(6) {
	case 0: // a bit
		b := bytes.Clone(text)
		b[rng.IntN(len(b)-1)] ^= 1 << rng.IntN(8)
		return b
	case 1: // a line removed
		return bytes.Join(append(lines[:i:i], lines[i+1:]...), nil)
	case 2: // two lines swapped
		lines[i], lines[k] = lines[k], lines[i]
		return bytes.Join(lines, nil)
	case 3: // the tail cut
		return text[:rng.IntN(len(text))]
	case 4: // a line twice
		return bytes.Join(append(lines[:i+1:i+1], lines[i:]...), nil)
	default: // bytes in between
		at := rng.IntN(len(text))
		return append(append(bytes.Clone(text[:at]), byte(rng.IntN(256))), text[at:]...)
	}
}

func TestAHeartbeatIsSignedWhenNothingHappens(t *testing.T) {
	dir := t.TempDir()
	cfg := signed(t, dir)
	synctest.Test(t, func(t *testing.T) {
		j := mustOpen(t, cfg)
		time.Sleep(3*time.Minute + 2*time.Second)
		synctest.Wait()
		if n := len(find(trail(t, dir), audit.ActionCheckpoint)); n != 4 {
			t.Errorf("%d checkpoints after three minutes, want 4", n)
		}
		head, err := journal.ReadHead(filepath.Join(dir, journal.HeadFile))
		if stats := j.Stats(); err != nil || head.LastSeq != stats.Seq || head.LastHash != stats.LastHash {
			t.Errorf("HEAD %+v, %v; the trail is at %d", head, err, stats.Seq)
		}
		mustClose(t, j)
	})
	if r := mustVerify(t, dir); r.Checkpoints != 5 {
		t.Errorf("%+v", r)
	}
}

func TestATailCutWhileNothingRanIsRecordedAtStart(t *testing.T) {
	for name, row := range map[string]struct {
		change func(*testing.T, *forger)
		reason string
	}{
		"cut":     {func(_ *testing.T, f *forger) { f.remove(len(f.lines)-2, len(f.lines)); f.saveAsIs() }, "tail-missing"},
		"changed": {func(_ *testing.T, f *forger) { f.lines[len(f.lines)-1] += " "; f.saveAsIs() }, "tail-changed"},
		"HEAD removed": {func(t *testing.T, f *forger) {
			if err := os.Remove(filepath.Join(f.dir, journal.HeadFile)); err != nil {
				t.Fatal(err)
			}
		}, "head-missing"},
		"HEAD damaged": {func(t *testing.T, f *forger) {
			if err := os.WriteFile(filepath.Join(f.dir, journal.HeadFile), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, "head-damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, cfg := signedTrail(t, 30)
			row.change(t, newForger(t, dir))
			mustClose(t, mustOpen(t, cfg))
			found := find(trail(t, dir), audit.ActionRecovered)
			if len(found) != 1 || found[0].Reason != row.reason || found[0].Severity != "high" {
				t.Fatalf("%+v", found)
			}
			// It stays a fault for who verifies, unless they know of it.
			wantReason(t, dir, journal.VerifyOptions{}, row.reason)
			if _, err := journal.Verify(dir, journal.VerifyOptions{AcceptLoss: true}); err != nil {
				t.Error(err)
			}
		})
	}
}

// addKey puts a new key in front of those in a key file.
func addKey(t *testing.T, path string, keep bool) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	if keep {
		old, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, old...)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestANewKeyIsVouchedForByTheOldOne(t *testing.T) {
	dir, cfg := signedTrail(t, 30)
	first := publicKey(t, cfg)
	addKey(t, cfg.KeyFile, true)
	for range 2 {
		j := mustOpen(t, cfg)
		mustRecord(t, j, event(audit.Security, "more"))
		mustClose(t, j)
	}
	second := publicKey(t, cfg)
	if second.Equal(first) {
		t.Fatal("the public key beside the key file is still the old one")
	}
	if n := len(find(trail(t, dir), audit.ActionKey)); n != 1 {
		t.Errorf("%d changes of keys, want 1", n)
	}
	r, err := journal.Verify(dir, journal.VerifyOptions{Keys: []ed25519.PublicKey{first}})
	if err != nil || r.Key != journal.KeyID(second) {
		t.Errorf("%+v, %v", r, err)
	}
	// The old key may go now.
	addKey(t, cfg.KeyFile, true)
	mustClose(t, mustOpen(t, cfg))
	mustVerify(t, dir)
	f := newForger(t, dir)
	i := f.index(audit.ActionKey, 0)
	f.lines[i] = regexp.MustCompile(`"signature":"[^"]{6}`).ReplaceAllString(f.lines[i], `"signature":"AAAAAA`)
	f.save(i)
	wantReason(t, dir, journal.VerifyOptions{}, "without the signature of the one before")
}

func TestANewKeyThatNobodyVouchesForIsAFault(t *testing.T) {
	dir, cfg := signedTrail(t, 30)
	addKey(t, cfg.KeyFile, false)
	mustClose(t, mustOpen(t, cfg))
	wantReason(t, dir, journal.VerifyOptions{}, "another key than before")
}

func TestAKeyFileThatOthersCanReadIsRefused(t *testing.T) {
	cfg := signed(t, t.TempDir())
	mustClose(t, mustOpen(t, cfg))
	for name, change := range map[string]func() error{
		"readable by others": func() error { return os.Chmod(cfg.KeyFile, 0o644) },
		"no key": func() error {
			return errors.Join(os.Chmod(cfg.KeyFile, 0o600), os.WriteFile(cfg.KeyFile, []byte("x"), 0o600))
		},
	} {
		if err := change(); err != nil {
			t.Fatal(err)
		}
		if j, err := journal.Open(cfg); err == nil || !strings.Contains(err.Error(), cfg.KeyFile) {
			t.Errorf("%s: %v", name, err)
			_ = j.Close()
		}
	}
}

func TestATrailThatBecomesSignedLaterVerifies(t *testing.T) {
	dir := t.TempDir()
	j := mustOpen(t, config(dir))
	mustRecord(t, j, event(audit.Security, "unsigned"))
	mustClose(t, j)
	cfg := signed(t, dir)
	mustClose(t, mustOpen(t, cfg))
	if r := mustVerify(t, dir); !r.Signed || r.Unsigned != 0 {
		t.Errorf("%+v", r)
	}
	// And back: not to sign any more is a fault, since a forger would do that.
	mustClose(t, mustOpen(t, config(dir)))
	wantReason(t, dir, journal.VerifyOptions{}, "names no key")
}

// TestNobodyElseWritesWhatReadsAsTheJournals: a client chooses its method, which is
// the action of a request that no rule matched.
func TestNobodyElseWritesWhatReadsAsTheJournals(t *testing.T) {
	dir := t.TempDir()
	j := mustOpen(t, signed(t, dir))
	for _, action := range []string{audit.ActionCheckpoint, audit.ActionKey, audit.ActionRecovered, audit.ActionSegment, audit.ActionRemoved, audit.ActionSummary} {
		e := event(audit.Security, action)
		e.Action = action
		mustRecord(t, j, e)
	}
	mustClose(t, j)
	mustVerify(t, dir)
	if n := len(find(trail(t, dir), "x-"+audit.ActionCheckpoint)); n != 1 {
		t.Errorf("%d events with the marked action", n)
	}
	if n := len(find(trail(t, dir), audit.ActionSummary)); n != 1 {
		t.Errorf("%d summaries", n)
	}
}

// TestATailRewrittenAndMadeLongerIsRecordedAtStart: that the trail goes beyond HEAD
// does not mean that it still has HEAD's line.
func TestATailRewrittenAndMadeLongerIsRecordedAtStart(t *testing.T) {
	dir, cfg := signedTrail(t, 30)
	f := newForger(t, dir)
	f.lines[len(f.lines)-1] += " "
	f.lines, f.files = append(f.lines, f.lines[len(f.lines)-1]), append(f.files, f.files[len(f.files)-1])
	f.save(len(f.lines) - 1)
	mustClose(t, mustOpen(t, cfg))
	if found := find(trail(t, dir), audit.ActionRecovered); len(found) != 1 || found[0].Reason != "tail-changed" {
		t.Errorf("%+v", found)
	}
	wantReason(t, dir, journal.VerifyOptions{AcceptLoss: true}, "checkpoint of another place")
}
