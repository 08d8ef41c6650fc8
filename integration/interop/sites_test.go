//go:build interop && linux

package interop

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// judgedSites is a gateway with the sites that judges ask: over TLS with
// certificates of its own authority, and a port that redirects to https.
type judgedSites struct {
	http, https int
	authority   string // file of the root certificate
}

const judgedSite = `%s {
	bind 127.0.0.1
	tls internal {
		protocols tls1.3
	}
	%s
	reverse_proxy %s%s
}
`

// startJudgedSites starts the gateway before an application and an API that send
// no security header themselves.
func startJudgedSites(t testing.TB) judgedSites {
	t.Helper()
	page, api := startUpstream(t, servePage), startUpstream(t, serveOrders)
	dir, err := os.MkdirTemp("/tmp", "moat")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s := judgedSites{freePort(t), freePort(t), filepath.Join(dir, "caddy/pki/authorities/local/root.crt")}
	text := fmt.Sprintf(`{
	admin unix/%s/admin.sock|0600
	persist_config off
	skip_install_trust
	http_port %d
	https_port %d
	grace_period 5s
	servers {
		strict_sni_host on
		0rtt off
	}
	moat {
		audit {
			journal %s/journal
		}
	}
}
`, dir, s.http, s.https, dir)
	for _, site := range []struct{ host, gate, upstream string }{
		{htmlHost, gate("headers html"), page},
		{apiHost, gate("headers api"), api},
		{weakHost, gate("headers html {\n csp {\n script-src 'self' 'unsafe-inline'\n insecure_unsafe_csp\n }\n }"), page},
		{unguardedHost, "", page},
	} {
		transport := " {\n\t\ttransport moat\n\t}"
		if site.gate == "" {
			transport = ""
		}
		text += fmt.Sprintf(judgedSite, site.host, site.gate, site.upstream, transport)
	}
	writeFile(t, filepath.Join(dir, "Caddyfile"), text)
	env := []string{"PATH=/usr/bin:/bin", "HOME=" + dir, "XDG_DATA_HOME=" + dir, "XDG_CONFIG_HOME=" + dir}
	p := startProcess(t, env, moatBinary, "run", "--config", filepath.Join(dir, "Caddyfile"), "--adapter", "caddyfile")
	s.await(t, p)
	return s
}

func gate(headers string) string {
	return "moat {\n" + headers + "\nrbac {\n GET,OPTIONS /** public\n }\n}"
}

// await waits until the gateway redirects and every site has its certificate:
// Caddy obtains those after it began to serve.
func (s judgedSites) await(t testing.TB, p *process) {
	t.Helper()
	await(t, startBudget, "the judged sites", func() bool {
		if p.exited() {
			t.Fatalf("the gateway ended:\n%s", p.stderr.String())
		}
		if !canDial(s.http) || !canDial(s.https) {
			return false
		}
		for _, host := range []string{htmlHost, apiHost, weakHost, unguardedHost} {
			if !s.certified(host) {
				return false
			}
		}
		return true
	})
}

func (s judgedSites) certified(host string) bool {
	pem, err := os.ReadFile(s.authority)
	roots := x509.NewCertPool()
	if err != nil || !roots.AppendCertsFromPEM(pem) {
		return false
	}
	config := &tls.Config{RootCAs: roots, ServerName: host, MinVersion: tls.VersionTLS13}
	conn, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.https), config)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

func startUpstream(t testing.TB, serve http.HandlerFunc) string {
	t.Helper()
	upstream := httptest.NewServer(serve)
	t.Cleanup(upstream.Close)
	return strings.TrimPrefix(upstream.URL, "http://")
}

// servePage is an application without inline script or style.
func servePage(w http.ResponseWriter, r *http.Request) {
	kind, body := "", ""
	switch r.URL.Path {
	case "/":
		kind, body = "text/html; charset=utf-8", `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Orders</title>
<link rel="stylesheet" href="/app.css">
<script src="/app.js" defer></script>
</head>
<body><h1>Orders</h1><p id="count"></p></body>
</html>
`
	case "/app.css":
		kind, body = "text/css; charset=utf-8", "h1 { color: navy }\n"
	case "/app.js":
		kind, body = "text/javascript; charset=utf-8", "document.getElementById('count').textContent = 'none yet'\n"
	default:
		http.NotFound(w, r)
		return
	}
	http.SetCookie(w, &http.Cookie{
		Name: "session", Value: "s-1", Path: "/", HttpOnly: true, Secure: true, SameSite: http.SameSiteLaxMode,
	})
	w.Header().Set("Content-Type", kind)
	_, _ = io.WriteString(w, body)
}

// serveOrders is an API for machines.
func serveOrders(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/" {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, `{"orders":[]}`)
}
