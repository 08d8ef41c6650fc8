package otlp_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/audit/sinks/otlp"
	"github.com/moat-gateway/moat/internal/audit/sinktest"
)

func TestEveryConfigErrorIsReportedAtOnce(t *testing.T) {
	_, err := otlp.New(otlp.Config{
		URL: "ftp://x", Headers: map[string]string{"Host": planted}, CAFile: "/nowhere/" + planted, CertFile: planted,
		Compression: "zstd", Timeout: time.Hour,
	})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{
		`scheme "ftp"`, "header Host: belongs to the sink", "ca_file: no such file", "cert_file, key_file: one is given",
		`compression "zstd"`, "timeout 1h0m0s",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q: %v", want, err)
		}
	}
	if strings.Contains(err.Error(), "planted") {
		t.Errorf("the error repeats a secret: %v", err)
	}
	if _, err := otlp.New(otlp.Config{}); err == nil {
		t.Error("the zero config was accepted")
	}
}

func TestOnlyHTTPSLeavesTheMachine(t *testing.T) {
	for text, ok := range map[string]bool{
		"http://siem.example.com/v1/logs":            false,
		"HTTP://siem.example.com/v1/logs":            false,
		"http://127.0.0.1.example.com/v1/logs":       false,
		"http://10.0.0.1/v1/logs":                    false,
		"http://0.0.0.0/v1/logs":                     false,
		"http://localhost.example.com/v1/logs":       false,
		"https://user:planted-pw@siem.example.com":   false,
		"https://planted-token@siem.example.com":     false,
		"https://":                                   false,
		"https:siem.example.com":                     false,
		"siem.example.com:4318":                      false,
		"//siem.example.com":                         false,
		"":                                           false,
		"https://siem.example.com/%zz?planted-token": false,
		"https://siem.example.com/#planted-token":    false,
		"planted-scheme-that-is-a-token://x":         false,
		"unix:///run/x":                              false,
		"https://siem.example.com":                   true,
		"https://siem.example.com/otlp?k=v":          true,
		"http://127.0.0.1:4318":                      true,
		"http://[::1]:4318/v1/logs":                  true,
		"http://localhost:4318":                      true,
	} {
		_, err := otlp.New(otlp.Config{URL: text})
		if (err == nil) != ok {
			t.Errorf("%s: %v", text, err)
		}
		if err != nil && strings.Contains(err.Error(), "token") {
			t.Errorf("%s: the error repeats it: %v", text, err)
		}
	}
}

func TestThePathIsTheStandardOneOnlyWhereNoneIsGiven(t *testing.T) {
	for text, want := range map[string]string{
		"https://h":            "https://h/v1/logs",
		"https://h?k=v":        "https://h/v1/logs?k=v",
		"https://h/":           "https://h/",
		"https://h/otlp":       "https://h/otlp",
		"https://h:4318/a%2Fb": "https://h:4318/a%2Fb",
	} {
		var got string
		s, err := otlp.New(otlp.Config{URL: text, Client: &http.Client{Transport: spy(func(req *http.Request, _ []byte) { got = req.URL.String() })}})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Deliver(t.Context(), sinktest.Lines(1, 1)); err != nil || got != want {
			t.Errorf("%s: %s, want %s (%v)", text, got, want, err)
		}
	}
}

func TestHeadersThatAreNoneOrNotTheirsAreRefused(t *testing.T) {
	many := map[string]string{}
	for i := range 33 {
		many[fmt.Sprintf("X-%d", i)] = "v"
	}
	for name, headers := range map[string]map[string]string{
		"host": {"host": planted}, "length": {"Content-Length": "1"}, "type": {"content-TYPE": planted}, "coding": {"Content-Encoding": "gzip"},
		"transfer": {"Transfer-Encoding": "chunked"}, "connection": {"Connection": "close"}, "agent": {"User-Agent": planted},
		"proxy": {"Proxy-Authorization": planted}, "pseudo": {":authority": planted},
		"no name": {"": planted}, "a name of two words": {"Api Key": planted}, "a field in one": {"Api-Key: " + planted: "x"}, "a line break in a name": {"a\r\nHost": planted},
		"no value": {"Api-Key": ""}, "a blank value": {"Api-Key": " "}, "a line break in a value": {"Api-Key": planted + "\r\nHost: x"},
		"a trailing line break": {"Api-Key": planted + "\n"}, "a space before it": {"Api-Key": " " + planted}, "a control character": {"Api-Key": planted + "\x00"},
		"an endless value": {"Api-Key": strings.Repeat(planted, 1000)}, "twice": {"Api-Key": planted, "api-key": planted}, "too many": many,
	} {
		_, err := otlp.New(otlp.Config{URL: "https://x", Headers: headers})
		if err == nil || strings.Contains(err.Error(), "planted") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFilesThatWouldHaveNoEffectOrAreNoneAreRefused(t *testing.T) {
	r := receive(t)
	ca := r.caFile(t)
	cert, key := clientPair(t)
	for name, cfg := range map[string]otlp.Config{
		"a CA for http":          {URL: "http://localhost", CAFile: ca},
		"a CA beside a client":   {URL: "https://x", CAFile: ca, Client: http.DefaultClient},
		"a pair for http":        {URL: "http://localhost", CertFile: cert, KeyFile: key},
		"no such CA":             {URL: "https://x", CAFile: filepath.Join(t.TempDir(), "planted")},
		"a CA without any":       {URL: "https://x", CAFile: key},
		"a certificate alone":    {URL: "https://x", CertFile: cert},
		"a key alone":            {URL: "https://x", KeyFile: key},
		"the wrong way round":    {URL: "https://x", CertFile: key, KeyFile: cert},
		"a key in place of file": {URL: "https://x", CertFile: cert, KeyFile: "-----BEGIN planted"},
	} {
		if _, err := otlp.New(cfg); err == nil || strings.Contains(err.Error(), "planted") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTheServerAndTheGatewayShowCertificates(t *testing.T) {
	r := receive(t, func(srv *httptest.Server) { srv.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert} }) //nolint:gosec // a test's own server
	cert, key := clientPair(t)
	for name, row := range map[string]struct {
		cfg otlp.Config
		ok  bool
	}{
		"both":                      {otlp.Config{CAFile: r.caFile(t), CertFile: cert, KeyFile: key}, true},
		"no certificate of its own": {otlp.Config{CAFile: r.caFile(t)}, false},
		"no authority":              {otlp.Config{CertFile: cert, KeyFile: key}, false},
	} {
		s := r.sink(t, func(c *otlp.Config) {
			url := c.URL
			*c = row.cfg
			c.URL = url
		})
		if err := s.Deliver(t.Context(), sinktest.Lines(1, 1)); (err == nil) != row.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func (r *receiver) caFile(t *testing.T) string {
	t.Helper()
	return pemFile(t, "CERTIFICATE", r.srv.Certificate().Raw)
}

func pemFile(t *testing.T, kind string, raw []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "file.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// clientPair returns the files of a certificate and its key.
func clientPair(t *testing.T) (cert, key string) {
	t.Helper()
	secret, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, &secret.PublicKey, secret)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	return pemFile(t, "CERTIFICATE", raw), pemFile(t, "PRIVATE KEY", der)
}
