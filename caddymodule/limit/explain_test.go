package limit

import (
	"testing"
	"time"
)

func TestWindowsAreWrittenShort(t *testing.T) {
	for d, want := range map[time.Duration]string{
		30 * time.Second: "30s", time.Minute: "1m", 15 * time.Minute: "15m", 24 * time.Hour: "24h",
		70 * time.Minute: "1h10m", 90 * time.Second: "1m30s", time.Hour + time.Second: "1h0m1s", 10 * time.Hour: "10h",
	} {
		if got := window(d); got != want {
			t.Errorf("%s: %q, want %q", d, got, want)
		}
	}
}
