package journal_test

import (
	"encoding/base64"
	"errors"
	mathrand "math/rand/v2"
	"os/exec"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/internal/audit"
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
		damaged, what := damagedCopy(t, dir, rng)
		if what == "" {
			continue
		}
		if out, err := runScript(t, damaged); err == nil {
			t.Errorf("round %d: accepted: %s\n%s", round, out, what)
		}
	}
}
