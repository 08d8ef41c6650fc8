//go:build linux && soak

package integration

import "testing"

// TestSoakKilledGateway kills often enough to meet moments that are rare.
func TestSoakKilledGateway(t *testing.T) {
	for _, setting := range killSettings {
		t.Run(setting.name, func(t *testing.T) { killRounds(t, setting, 50) })
	}
}
