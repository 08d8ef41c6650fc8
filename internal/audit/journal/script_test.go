package journal_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/internal/audit"
	"github.com/moat-gateway/moat/internal/audit/journal"
)

// script is the documentation's own verifier: the format is described well enough
// only if somebody else can check a trail with what it says.
const script = "../../../docs/verify-trail.py"

func runScript(t *testing.T, args ...string) (string, error) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "python3", append([]string{script}, args...)...).CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		t.Fatalf("python3 has to be installed for this test: %v", err)
	}
	return string(out), err
}

func TestTheDocumentedScriptAcceptsATrail(t *testing.T) {
	dir, cfg := signedTrail(t, 15)
	addKey(t, cfg.KeyFile, true)
	first := base64.StdEncoding.EncodeToString(publicKey(t, cfg))
	j := mustOpen(t, cfg)
	mustRecord(t, j, event(audit.Security, "by the second key"))
	mustClose(t, j)
	r := mustVerify(t, dir)
	for _, args := range [][]string{{dir}, {dir, first}} {
		if out, err := runScript(t, args...); err != nil || !strings.Contains(out, r.LastHash) {
			t.Errorf("%q: %v\n%s", args[1:], err, out)
		}
	}
	second := base64.StdEncoding.EncodeToString(publicKey(t, cfg))
	if out, err := runScript(t, dir, second); err == nil {
		t.Errorf("with a key that it does not begin with: %s", out)
	}
	unsigned := t.TempDir()
	mustClose(t, mustOpen(t, config(unsigned)))
	if out, err := runScript(t, unsigned); err != nil {
		t.Errorf("an unsigned trail: %v\n%s", err, out)
	}
}

func TestTheDocumentedScriptFindsDamage(t *testing.T) {
	dir, _ := signedTrail(t, 6)
	rng := mathrand.New(mathrand.NewPCG(7, 8)) //nolint:gosec // Repeatable.
	for round := range 6 {
		damaged := t.TempDir()
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
			continue
		}
		if err := os.WriteFile(path, changed, 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := runScript(t, damaged); err == nil {
			t.Errorf("round %d: %s was changed: %s", round, filepath.Base(path), out)
		}
	}
}
