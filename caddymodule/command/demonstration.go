package command

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"text/template"
	"time"

	"github.com/moat-gateway/moat/internal/token"
)

// demonstration is one run of the demo.
type demonstration struct {
	Dir      string
	Port     int
	Upstream string

	User, Admin, Stranger string
}

const (
	demoIssuer   = "https://issuer.moat.invalid"
	demoAudience = "moat-demo"
	demoLifetime = 12 * time.Hour
)

// keys makes the issuer's key and signs the tokens. The stranger's is signed by
// a key that the gateway does not know.
func (d *demonstration) keys() error {
	known, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	unknown, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKIXPublicKey(known.Public())
	if err != nil {
		return err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	if err := os.WriteFile(d.path("issuer.pem"), text, 0o600); err != nil {
		return err
	}
	for _, t := range []struct {
		target *string
		key    *ecdsa.PrivateKey
		id     string
		role   string
	}{
		{&d.User, known, "alice", "user"},
		{&d.Admin, known, "root", "admin"},
		{&d.Stranger, unknown, "mallory", "admin"},
	} {
		if *t.target, err = sign(t.key, t.id, t.role); err != nil {
			return err
		}
	}
	return nil
}

func sign(key *ecdsa.PrivateKey, id, role string) (string, error) {
	now := time.Now()
	return token.Sign(map[string]any{
		"iss": demoIssuer, "aud": demoAudience, "sub": id, "tenant_id": "acme",
		"roles": []string{role}, "iat": now.Unix(), "exp": now.Add(demoLifetime).Unix(),
	}, nil, key, "ES256")
}

var demoCaddyfile = template.Must(template.New("Caddyfile").Parse(`{
	admin off
	persist_config off
	skip_install_trust
	auto_https disable_redirects
	grace_period 2s
	storage file_system {{printf "%q" .Dir}}
	servers {
		strict_sni_host on
		protocols h1 h2
	}
	log {
		level WARN
	}
	moat {
		issuer demo {
			iss ` + demoIssuer + `
			audience ` + demoAudience + `
			key {{printf "%q" (printf "%s/issuer.pem" .Dir)}}
		}
		role admin *
		role user documents.read documents.own
		audit {
			journal {{printf "%q" (printf "%s/journal" .Dir)}}
			instance demo
		}
	}
}

https://localhost:{{.Port}} {
	bind 127.0.0.1
	tls internal {
		protocols tls1.3
	}
	moat {
		headers api
		limit default
		limit few 3/1m by ip {
			on GET /limited
		}
		jwt demo {
			forward X-User-Id id
			forward X-Tenant-Id tenant
			forward X-Roles roles
		}
		rbac {
			GET /limited public
			GET /documents/{id} documents.read
			* /admin/** admin.use
			* /** authenticated
		}
	}
	reverse_proxy {{.Upstream}} {
		transport moat
	}
}

https://:{{.Port}} {
	bind 127.0.0.1
	tls internal {
		protocols tls1.3
	}
	abort
}
`))

func (d *demonstration) caddyfile() ([]byte, error) {
	var text bytes.Buffer
	if err := demoCaddyfile.Execute(&text, d); err != nil {
		return nil, err
	}
	if err := os.WriteFile(d.path("Caddyfile"), text.Bytes(), 0o600); err != nil {
		return nil, err
	}
	return text.Bytes(), nil
}

var demoText = template.Must(template.New("demo").Parse(`
Moat guards {{.Upstream}} at {{.URL}}

The configuration:  {{.Dir}}/Caddyfile
The audit journal:  {{.Dir}}/journal

Copy these lines to another terminal. Each prints the status behind the answer.

# 200: a user reads a document
{{.Curl}} -H 'Authorization: Bearer {{.User}}' {{.URL}}/documents/7

# 200: an admin enters
{{.Curl}} -H 'Authorization: Bearer {{.Admin}}' {{.URL}}/admin/users

# 401: nobody
{{.Curl}} {{.URL}}/documents/7

# 401: a token signed with a key that the gateway does not know
{{.Curl}} -H 'Authorization: Bearer {{.Stranger}}' {{.URL}}/documents/7

# 403: a user where only an admin may go
{{.Curl}} -H 'Authorization: Bearer {{.User}}' {{.URL}}/admin/users

# 429: the fourth of four requests within a minute
{{.Curl}} {{.URL}}/limited {{.URL}}/limited {{.URL}}/limited {{.URL}}/limited

Ctrl-C ends it.
`))

// URL is where the gateway answers.
func (d *demonstration) URL() string { return fmt.Sprintf("https://localhost:%d", d.Port) }

// Curl is the start of every printed line.
func (d *demonstration) Curl() string {
	return fmt.Sprintf(`curl -s -w ' %%{http_code}\n' --cacert %s/pki/authorities/local/root.crt`, d.Dir)
}

func (d *demonstration) print(w io.Writer) error {
	if err := demoText.Execute(w, d); err != nil {
		return fmt.Errorf("printing: %w", err)
	}
	return nil
}
