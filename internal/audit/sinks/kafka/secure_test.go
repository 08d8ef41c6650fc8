package kafka_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/moat-gateway/moat/internal/audit/sinks/kafka"
	"github.com/moat-gateway/moat/internal/audit/sinktest"
)

// identity is a certificate for 127.0.0.1 that is its own authority, with its
// files.
type identity struct {
	pair      tls.Certificate
	cert, key string
}

func newIdentity(t *testing.T) identity {
	t.Helper()
	srv := httptest.NewTLSServer(nil)
	defer srv.Close()
	id := identity{pair: srv.TLS.Certificates[0]}
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key, err := x509.MarshalPKCS8PrivateKey(id.pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	id.cert = write("cert.pem", "CERTIFICATE", id.pair.Certificate[0])
	id.key = write("key.pem", "PRIVATE KEY", key)
	return id
}

func (id identity) server(auth tls.ClientAuthType) kfake.Opt {
	return kfake.TLS(&tls.Config{Certificates: []tls.Certificate{id.pair}, ClientAuth: auth, MinVersion: tls.VersionTLS12})
}

func TestLinesArriveByTLSWithEveryMechanism(t *testing.T) {
	t.Parallel()
	id := newIdentity(t)
	for mechanism, name := range map[string]string{"plain": "PLAIN", "scram-sha-256": "SCRAM-SHA-256", "scram-sha-512": "SCRAM-SHA-512"} {
		c := start(t, id.server(tls.RequireAnyClientCert), kfake.EnableSASL(), kfake.Superuser(name, "gateway", "planted-secret"))
		cfg := kafka.Config{CAFile: id.cert, CertFile: id.cert, KeyFile: id.key, Mechanism: mechanism, Username: "gateway", Password: "planted-secret"}
		s := c.open(t, cfg)
		for range 2 {
			if err := s.Deliver(t.Context(), sinktest.Lines(1, 10)); err != nil {
				t.Errorf("%s: %v", mechanism, err)
			}
		}
		if got := c.held(); got != 20 {
			t.Errorf("%s: %d lines", mechanism, got)
		}
		cfg.Password, cfg.Timeout = "planted-wrong", 600*time.Millisecond
		err := c.open(t, cfg).Deliver(t.Context(), sinktest.Lines(1, 1))
		if err == nil || !strings.Contains(err.Error(), "the connection was closed") || strings.Contains(err.Error(), "planted") {
			t.Errorf("%s with another password: %v", mechanism, err)
		}
	}
}

// kfake hangs up on a wrong password, where Kafka says so, in words of its own.
func TestARefusedPasswordIsToldWithoutTheBrokersWords(t *testing.T) {
	c := start(t, kfake.EnableSASL(), kfake.Superuser("PLAIN", "gateway", "planted-secret"))
	c.ControlKey(int16(kmsg.SASLAuthenticate), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		answer := req.ResponseKind().(*kmsg.SASLAuthenticateResponse)
		answer.ErrorCode, answer.ErrorMessage = kerr.SaslAuthenticationFailed.Code, kmsg.StringPtr("no planted-words")
		return answer, nil, true
	})
	s := c.open(t, kafka.Config{Mechanism: "plain", Username: "gateway", Password: "planted-secret"})
	err := s.Deliver(t.Context(), sinktest.Lines(1, 1))
	if err == nil || err.Error() != "kafka: answered SASL_AUTHENTICATION_FAILED" {
		t.Errorf("Deliver = %v", err)
	}
}

func TestAWayThatIsNotSecureIsNotTaken(t *testing.T) {
	id := newIdentity(t)
	encrypted, strict := start(t, id.server(tls.NoClientCert)), start(t, id.server(tls.RequireAnyClientCert))
	proxy, garbled := proxied(t, encrypted)
	proxy.Set(sinktest.Malformed)
	for name, row := range map[string]struct {
		c    cluster
		cfg  kafka.Config
		want string
	}{
		"an authority nobody trusts": {encrypted, kafka.Config{CAFile: otherCA(t)}, "its issuer is not trusted"},
		"another host":               {encrypted, kafka.Config{CAFile: id.cert, Brokers: []string{"127.0.0.2:9092"}}, "it is for another host"},
		"a broker without TLS":       {encrypted, kafka.Config{CAFile: id.cert, Dial: to(garbled)}, "the broker does not speak TLS"},
		"a broker with TLS":          {encrypted, kafka.Config{}, "as by a broker that expects TLS"},
		"no client certificate":      {strict, kafka.Config{CAFile: id.cert}, "the broker refused the TLS connection: tls: certificate required"},
	} {
		row.cfg.Timeout = 2 * time.Second
		err := row.c.open(t, row.cfg).Deliver(t.Context(), sinktest.Lines(1, 1))
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, want %q", name, err, row.want)
		}
		if held := row.c.held(); held != 0 {
			t.Errorf("%s: %d lines arrived", name, held)
		}
	}
}

// otherCA returns the file of an authority that has issued nothing here.
func otherCA(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	path := filepath.Join(t.TempDir(), "other.pem")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// The cluster says where its brokers are. Who answers for it could send the
// password, which stays on this machine, anywhere.
func TestThePasswordIsNotSentWhereTheClusterPoints(t *testing.T) {
	c := startAt(t, &net.TCPAddr{IP: net.IPv4(10, 9, 8, 7), Port: 9092}, kfake.EnableSASL(), kfake.Superuser("PLAIN", "gateway", "planted-secret"))
	var mu sync.Mutex
	var elsewhere []string
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		if address != "127.0.0.1:9092" {
			mu.Lock()
			defer mu.Unlock()
			elsewhere = append(elsewhere, address)
		}
		return to(c.socket)(ctx, network, address)
	}
	s := c.open(t, kafka.Config{Mechanism: "plain", Username: "gateway", Password: "planted-secret", Dial: dial, Timeout: time.Second})
	err := s.Deliver(t.Context(), sinktest.Lines(1, 1))
	if err == nil || !strings.Contains(err.Error(), "names a broker off this machine") {
		t.Errorf("Deliver = %v", err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(elsewhere) > 0 {
		t.Errorf("connected to %q", elsewhere)
	}
}
