//go:build linux && soak

package integration

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"testing"
	"time"
)

// TestSoakStreamingThroughput downloads the same body, in turns, through a guarded
// site and through a bare reverse_proxy of the same process, and prints the rates.
func TestSoakStreamingThroughput(t *testing.T) {
	const mib = 512
	upstream := startUpstream(t, streamUpstream)
	bare := freePort(t)
	guarded := startSite(t, siteConfig{Upstream: upstream.Addr, Rules: publicRules, NoAudit: true}, nil)
	guarded.Stop(t)
	startMoat(t, guarded.Config.render(guarded.Issuer)+fmt.Sprintf("\nhttp://:%d {\n\treverse_proxy %s\n}\n", bare, upstream.Addr),
		options{Ready: []string{guarded.Addr, fmt.Sprintf("127.0.0.1:%d", bare)}})
	var rates [2][]float64
	for round := range 12 {
		for n := range 2 {
			n = (n + round) % 2
			base := [2]string{fmt.Sprintf("http://127.0.0.1:%d", bare), "http://" + guarded.Addr}[n]
			begin := time.Now()
			resp, err := http.Get(fmt.Sprintf("%s/down/%d", base, mib)) //nolint:gosec // loopback
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			if err != nil || got != mib<<20 {
				t.Fatalf("%s: %d bytes, %v", base, got, err)
			}
			rates[n] = append(rates[n], mib/time.Since(begin).Seconds())
		}
	}
	var ratios []float64
	for i := range rates[0] {
		ratios = append(ratios, rates[1][i]/rates[0][i])
	}
	for n, name := range []string{"bare", "guarded"} {
		slices.Sort(rates[n])
		t.Logf("%s: %.0f MiB/s [%.0f..%.0f]", name, rates[n][len(rates[n])/2], rates[n][0], rates[n][len(rates[n])-1])
	}
	slices.Sort(ratios)
	t.Logf("guarded against bare: x%.2f [%.2f..%.2f]", ratios[len(ratios)/2], ratios[1], ratios[len(ratios)-2])
}
