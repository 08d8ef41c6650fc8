//go:build linux && soak

package integration

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// pagesPerRound is how many pages one measurement downloads.
const pagesPerRound = 40

// TestSoakRewriterThroughput downloads a page of 2.7 MB, in turns, through a bare
// reverse_proxy, through a guarded site that does not touch the page, and through
// sites that put nonces into it, all of one process, and prints the rates.
func TestSoakRewriterThroughput(t *testing.T) {
	upstream := startUpstream(t, streamUpstream)
	pins := filepath.Join(privateDir(t), "pins")
	ways := []struct{ name, csp string }{
		{"bare", ""}, {"guarded", "default-src 'self'"}, {"nonce", "nonce"}, {"pin", "pin " + pins + " learn 4MiB"}, {"hash", "hash 4MiB"},
	}
	issuer := newIssuer(t)
	bare := freePort(t)
	blocks := []string{fmt.Sprintf("http://:%d {\n\treverse_proxy %s\n}", bare, upstream.Addr)}
	ports := []int{bare}
	base := siteConfig{Upstream: upstream.Addr, Rules: publicRules, NoAudit: true}
	for _, way := range ways[1:] {
		c := base
		c.Port, c.Headers = freePort(t), "headers html {\n csp {\n "+way.csp+"\n }\n}"
		ports = append(ports, c.Port)
		blocks = append(blocks, c.site())
	}
	whole := base
	whole.Port = freePort(t)
	ready := make([]string, len(ports))
	for i, p := range ports {
		ready[i] = fmt.Sprintf("127.0.0.1:%d", p)
	}
	startMoat(t, whole.render(issuer)+"\n"+strings.Join(blocks, "\n"), options{Ready: ready})
	for _, kind := range []string{"script", "dense", "markup"} {
		times := make([][]float64, len(ways))
		for round := range 13 {
			for n := range ways {
				n = (n + round) % len(ways)
				times[n] = append(times[n], fetchPages(t, ready[n], kind))
			}
		}
		for n, way := range ways {
			ratios := make([]float64, len(times[n]))
			for i := range ratios {
				ratios[i] = times[n][i] / times[1][i]
			}
			slices.Sort(ratios)
			slices.Sort(times[n])
			t.Logf("%s, %s: %.2f ms a page, time against guarded x%.2f [%.2f..%.2f]", kind, way.name,
				times[n][len(times[n])/2], ratios[len(ratios)/2], ratios[1], ratios[len(ratios)-2])
		}
	}
}

// fetchPages returns the milliseconds that one page takes.
func fetchPages(t *testing.T, address, kind string) float64 {
	t.Helper()
	begin := time.Now()
	for range pagesPerRound {
		if n, _ := openPage(t, address, "/page/"+kind+"/1"); n < 2_600_000 {
			t.Fatalf("%s: %d bytes", address, n)
		}
	}
	return float64(time.Since(begin).Microseconds()) / 1000 / pagesPerRound
}
