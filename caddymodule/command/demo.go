// Package command adds Moat's commands to Caddy's command line.
package command

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
)

// startTimeout is how long the gateway may take until it answers.
const startTimeout = 15 * time.Second

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "demo",
		Usage: "[--upstream <url>] [--port <port>]",
		Short: "Runs a gateway on loopback with everything embedded",
		Long: `
Starts a gateway on https://localhost with a certificate of its own authority
(the system's trust store is not touched), in front of a small built-in
application or of the one given by --upstream. It signs tokens for a user, an
admin and a stranger and prints curl lines that show a 200, 401, 403 and 429.

Everything is kept in a new temporary directory. Ctrl-C ends it.`,
		Flags: func() *flag.FlagSet {
			fs := flag.NewFlagSet("demo", flag.ExitOnError)
			fs.String("upstream", "", "URL of the application to guard, for example http://127.0.0.1:3000")
			fs.Int("port", 8443, "Port on loopback; when it is taken, a free one is used")
			return fs
		}(),
		Func: demo,
	})
}

func demo(flags caddycmd.Flags) (int, error) {
	upstream, err := demoUpstream(flags.String("upstream"))
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	dir, err := os.MkdirTemp("", "moat-demo-")
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	port, err := freePort(flags.Int("port"))
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	d := &demonstration{Dir: dir, Port: port, Upstream: upstream}
	if err := d.keys(); err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	text, err := d.caddyfile()
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt(text, map[string]any{"filename": "demo"})
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	caddy.TrapSignals()
	if err := caddy.Load(config, true); err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	if err := d.await(); err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	if err := d.print(os.Stdout); err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	select {} // The signal handler ends the process, in order.
}

// demoUpstream is the address to dial: the built-in application, or the given
// one.
func demoUpstream(given string) (string, error) {
	if given == "" {
		return startApplication()
	}
	u, err := url.Parse(given)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return "", fmt.Errorf("--upstream %q: must be a URL such as http://127.0.0.1:3000", given)
	}
	if u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.User != nil {
		return "", fmt.Errorf("--upstream %q: must have no path, query or credentials", given)
	}
	return u.Scheme + "://" + u.Host, nil
}

// freePort returns the wanted port, or a free one when that is taken.
func freePort(wanted int) (int, error) {
	for _, port := range []int{wanted, 0} {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		free := l.Addr().(*net.TCPAddr).Port
		return free, l.Close()
	}
	return 0, errors.New("no free port on 127.0.0.1")
}

// await returns when the gateway shows a certificate of its own authority,
// which is made in the background.
func (d *demonstration) await() error {
	var last error
	for deadline := time.Now().Add(startTimeout); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		root, err := os.ReadFile(d.path("pki/authorities/local/root.crt"))
		if err != nil {
			last = err
			continue
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(root)
		conn, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", d.Port), &tls.Config{
			ServerName: "localhost", RootCAs: roots, MinVersion: tls.VersionTLS13,
		})
		if err == nil {
			return conn.Close()
		}
		last = err
	}
	return fmt.Errorf("the gateway did not answer within %s: %w", startTimeout, last)
}

func (d *demonstration) path(name string) string { return filepath.Join(d.Dir, name) }
