//go:build linux

// Package integration drives the finished gateway from outside: the moat binary
// as a process of its own, a real Redis, real upstreams and raw sockets. It knows
// the contract of the Caddyfile, the wire and the journal; it imports nothing of
// the gateway, so a test here can only see what an operator or a client can see.
//
// The binary is taken from MOAT_BIN, or built once into tmp/moat at the root of
// the module.
package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// moatBinary is the path of the binary under test. TestMain sets it once, before
// any test runs.
var moatBinary string

// TestMain runs the tests, or serves as one of the upstream processes that the
// tests start by executing their own binary again.
func TestMain(m *testing.M) {
	if kind := os.Getenv(upstreamVariable); kind != "" {
		os.Exit(serveUpstream(kind))
	}
	path, err := locateBinary()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	moatBinary = path
	os.Exit(m.Run())
}

func locateBinary() (string, error) {
	if given := os.Getenv("MOAT_BIN"); given != "" {
		path, err := filepath.Abs(given)
		if err != nil {
			return "", fmt.Errorf("MOAT_BIN %q: %w", given, err)
		}
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("MOAT_BIN: %w", err)
		}
		return path, nil
	}
	path, err := filepath.Abs(filepath.Join("..", "tmp", "moat"))
	if err != nil {
		return "", err
	}
	build := exec.Command("go", "build", "-o", path, "../cmd/moat")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the gateway: %w\n%s", err, out)
	}
	return path, nil
}
