//go:build linux

package integration

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
)

// siteRules are the rules of a test site unless the test writes its own.
const siteRules = `
			GET /healthz public
			GET,POST /open/** public
			GET /me authenticated
			GET /documents/{id} documents.read
			GET,PUT /users/{uid}/files/** files.write owner={uid}
			* /orgs/{org}/** organization.manage tenant={org}
			POST /reports reports.create|documents.write
			* /internal/** deny`

// siteRoles are the roles of a test gateway.
const siteRoles = `
		role superadmin {
			scope global
			permissions *
		}
		role admin users.* documents.* settings.read organization.manage
		role user documents.own files.own
		role guest documents.read meetings.join`

// siteConfig is a gateway with one guarded site in front of one upstream.
type siteConfig struct {
	Global   string // more lines of the global moat block; KEYFILE is the issuer's
	Issuers  string // of the jwt line; default "main"
	Gate     string // more lines of the site's moat block (limits, …)
	Headers  string // the headers line; default "headers html"
	JWT      string // more lines of the jwt block
	Rules    string // lines of the rbac block; default siteRules
	Site     string // more lines of the site
	Upstream string // address
	Host     string // name of the site; default: the address it binds
	Bind     string // default 127.0.0.1
	Port     int
	Metrics  int // port of a site with metrics and health; 0: none
	TLS      bool
	NoAudit  bool
}

// render writes the Caddyfile. Keys come from the issuer's file.
func (c siteConfig) render(i *issuer) string {
	global := fmt.Sprintf(`
		issuer main {
			iss %s
			audience %s
			key %s
		}%s
%s`, issuerURL, audience, i.KeyFile, siteRoles, strings.ReplaceAll(c.Global, "KEYFILE", i.KeyFile))
	if !c.NoAudit {
		global += `
		audit {
			journal {$MOAT_JOURNAL} {
				fsync 10ms
			}
		}`
	}
	sites := []string{c.site()}
	if c.Metrics != 0 {
		sites = append(sites, fmt.Sprintf(`http://:%d {
	bind 127.0.0.1
	metrics /metrics
	moat_health /health/*
}`, c.Metrics))
	}
	return caddyfile(global, sites...)
}

func (c siteConfig) site() string {
	bind := fallback(c.Bind, "127.0.0.1")
	address, tls := fmt.Sprintf("http://%s:%d", fallback(c.Host, bind), c.Port), ""
	if c.TLS {
		address = fmt.Sprintf("https://localhost:%d", c.Port)
		tls = "tls internal {\n\t\tprotocols tls1.3\n\t}"
	}
	return fmt.Sprintf(`%s {
	bind %s
	%s
	moat {
		%s
%s
		jwt %s {
			from cookie access_token
			from header
			forward X-User-Id id
			forward X-Tenant-Id tenant
			forward X-Roles roles
%s
		}
		rbac {%s
		}
	}
%s
	reverse_proxy %s {
		transport moat
	}
}`, address, bind, tls, fallback(c.Headers, "headers html"), c.Gate, fallback(c.Issuers, "main"), c.JWT,
		fallback(c.Rules, siteRules), c.Site, c.Upstream)
}

func fallback(s, otherwise string) string {
	if strings.TrimSpace(s) == "" {
		return otherwise
	}
	return s
}

// site is a started siteConfig with what a test needs around it.
type site struct {
	*gateway
	Config siteConfig
	Issuer *issuer
	Spy    *spy
	Addr   string // 127.0.0.1:PORT
	// provider is the iss of tokens, where it is not issuerURL.
	provider string
	web      *client
}

// startSite fills in what the configuration leaves open: a spy as the upstream,
// a port, an issuer.
func startSite(t testing.TB, c siteConfig, env map[string]string) *site {
	t.Helper()
	s := &site{Issuer: newIssuer(t)}
	if c.Upstream == "" {
		s.Spy = startSpy(t)
		c.Upstream = s.Spy.Addr
	}
	if c.Port == 0 {
		c.Port = freePort(t)
	}
	s.Config, s.Addr = c, "127.0.0.1:"+strconv.Itoa(c.Port)
	s.gateway = startMoat(t, c.render(s.Issuer), options{Ready: []string{s.Addr}, Env: env})
	if c.TLS {
		awaitCertificate(t, s.Addr, clientTLS(t, s.gateway))
		s.web = newTLSClient(t, s.gateway, s.Addr)
	} else {
		s.web = newClient(t, "http://"+s.Addr)
	}
	return s
}

// get and send are requests to the site by an ordinary client.
func (s *site) get(t testing.TB, path string, header ...string) answer {
	t.Helper()
	return s.web.send(t, "GET", path, "", header...)
}

func (s *site) send(t testing.TB, method, path, body string, header ...string) answer {
	t.Helper()
	return s.web.send(t, method, path, body, header...)
}

// raw sends exact bytes to a plain site.
func (s *site) raw(t testing.TB, request string) exchange {
	t.Helper()
	return rawHTTP(t, s.Addr, []byte(request), nil)
}

// reload changes the configuration of the running site; it must be accepted.
func (s *site) reload(t testing.TB, change func(*siteConfig)) {
	t.Helper()
	change(&s.Config)
	if out, exit := s.Reload(t, s.Config.render(s.Issuer)); exit != 0 {
		t.Fatalf("reload: exit %d\n%s", exit, out)
	}
	// The old server closes its idle connections; a request must not race that.
	s.web.CloseIdleConnections()
}
