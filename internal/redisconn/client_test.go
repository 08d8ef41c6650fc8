package redisconn_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/moat-gateway/moat/internal/redisconn"
	"github.com/moat-gateway/moat/internal/redisconn/redistest"
)

const patient = 5 * time.Second

func newClient(tb testing.TB, o redisconn.Options) redis.UniversalClient {
	tb.Helper()
	client, err := redisconn.New(o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = client.Close() })
	return client
}

func TestClientReachesTheServer(t *testing.T) {
	server := redistest.Start(t)
	client := newClient(t, redisconn.Options{URL: server.URL() + "?db=3", Timeout: patient})
	ctx := context.Background()
	if err := client.Set(ctx, "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	other := newClient(t, redisconn.Options{URL: server.URL(), Timeout: patient})
	if n, err := other.DBSize(ctx).Result(); err != nil || n != 0 {
		t.Fatalf("database 0 has %d keys, error %v: database 3 was not selected", n, err)
	}
}

func TestCredentialsAreSent(t *testing.T) {
	server := redistest.Start(t, "--requirepass", "planted")
	for _, tt := range []struct {
		name string
		o    redisconn.Options
		ok   bool
	}{
		{"none", redisconn.Options{URL: server.URL()}, false},
		{"wrong", redisconn.Options{URL: server.URL(), Password: "other"}, false},
		{"apart", redisconn.Options{URL: server.URL(), Password: "planted"}, true},
		{"in the url", redisconn.Options{URL: strings.Replace(server.URL(), "unix://", "unix://:planted@", 1)}, true},
	} {
		tt.o.Timeout = patient
		err := newClient(t, tt.o).Ping(context.Background()).Err()
		if (err == nil) != tt.ok {
			t.Errorf("%s: error %v", tt.name, err)
		}
		if err != nil && strings.Contains(err.Error(), "planted") {
			t.Errorf("%s: error shows the password: %v", tt.name, err)
		}
	}
}

func TestClientKindFollowsTheURL(t *testing.T) {
	for url, cluster := range map[string]bool{
		"redis://127.0.0.1:1":               false,
		"unix:///nowhere":                   false,
		"redis+sentinel://127.0.0.1:1/m":    false,
		"redis+cluster://127.0.0.1:1":       true,
		"redis+cluster://127.0.0.1:1,[::1]": true,
	} {
		client := newClient(t, redisconn.Options{URL: url})
		if _, got := client.(*redis.ClusterClient); got != cluster {
			t.Errorf("%s: %T", url, client)
		}
	}
}

// The settings as they arrive in the library, after its own defaults.
func TestClientKeepsItsBudget(t *testing.T) {
	client := newClient(t, redisconn.Options{URL: "unix:///nowhere", PoolSize: 7}).(*redis.Client)
	o := client.Options()
	const timeout = redisconn.DefaultTimeout
	if !o.ContextTimeoutEnabled || o.MaxRetries != 0 || o.DialerRetries != 1 || o.ReadTimeout != timeout ||
		o.WriteTimeout != timeout || o.PoolTimeout != timeout || o.DialTimeout != 200*time.Millisecond || o.PoolSize != 7 {
		t.Errorf("client %+v", o)
	}
	cluster := newClient(t, redisconn.Options{URL: "redis+cluster://127.0.0.1:1", Timeout: time.Second}).(*redis.ClusterClient)
	if c := cluster.Options(); !c.ContextTimeoutEnabled || c.MaxRetries > 0 || c.DialerRetries != 1 ||
		c.ReadTimeout != time.Second || c.WriteTimeout != time.Second || c.PoolTimeout != time.Second ||
		c.DialTimeout != time.Second || c.ReadOnly {
		t.Errorf("cluster client %+v", c)
	}
}

func TestNewDoesNotDial(t *testing.T) {
	socket := filepath.Join(shortDir(t), "s")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	client := newClient(t, redisconn.Options{URL: "unix://" + socket})
	if err := listener.SetDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if conn, err := listener.Accept(); err == nil {
		_ = conn.Close()
		t.Error("a connection was opened before the first call")
	}
	_ = client.Close()
}

func TestServerThatNeverAnswersCostsTheTimeout(t *testing.T) {
	// The address of TEST-NET-1 (RFC 5737) may be refused or swallowed; the
	// socket that is never accepted from is the certain case.
	socket := filepath.Join(shortDir(t), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	for _, url := range []string{"unix://" + socket, "redis://192.0.2.1", "redis+cluster://192.0.2.1", "redis+sentinel://192.0.2.1/m"} {
		client := newClient(t, redisconn.Options{URL: url})
		for range 3 {
			ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
			start := time.Now()
			err := client.Ping(ctx).Err()
			cancel()
			if took := time.Since(start); err == nil || took > 2*time.Second {
				t.Errorf("%s: error %v after %s", url, err, took)
			}
		}
	}
}

func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "redis")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func TestTLSVerifiesTheServer(t *testing.T) {
	dir := shortDir(t)
	ca, cert, key := writeCertificate(t, dir)
	server := redistest.StartTLS(t, cert, key, ca)
	url := "rediss://" + server.Addr()
	for _, tt := range []struct {
		name string
		o    redisconn.Options
		ok   bool
	}{
		{"unknown authority", redisconn.Options{URL: url}, false},
		{"wrong name", redisconn.Options{URL: url, CAFile: ca, ServerName: "other.example"}, false},
		{"no tls", redisconn.Options{URL: "redis://" + server.Addr()}, false},
		{"known authority", redisconn.Options{URL: url, CAFile: ca}, true},
		{"known authority, other name", redisconn.Options{URL: url, CAFile: ca, ServerName: "redis.example"}, true},
		{"with a certificate", redisconn.Options{URL: url, CAFile: ca, CertFile: cert, KeyFile: key}, true},
		{"insecure", redisconn.Options{URL: url, InsecureSkipVerify: true}, true},
	} {
		tt.o.Timeout = patient
		err := newClient(t, tt.o).Ping(context.Background()).Err()
		if (err == nil) != tt.ok {
			t.Errorf("%s: error %v", tt.name, err)
		}
	}
}

func TestTLSFilesAreRead(t *testing.T) {
	dir := shortDir(t)
	empty := filepath.Join(dir, "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(dir, "missing.pem")
	for name, o := range map[string]redisconn.Options{
		"missing ca":   {URL: "rediss://h", CAFile: missing},
		"empty ca":     {URL: "rediss://h", CAFile: empty},
		"missing cert": {URL: "rediss://h", CertFile: missing, KeyFile: missing},
		"empty cert":   {URL: "rediss://h", CertFile: empty, KeyFile: empty},
	} {
		if err := o.Validate(); err != nil {
			t.Errorf("%s: Validate read the file: %v", name, err)
		}
		if client, err := redisconn.New(o); err == nil {
			_ = client.Close()
			t.Errorf("%s: accepted", name)
		}
	}
}

// writeCertificate makes a certificate that is its own authority.
func writeCertificate(t *testing.T, dir string) (ca, cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "test"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		DNSNames:              []string{"redis.example"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{
		cert: {Type: "CERTIFICATE", Bytes: der},
		key:  {Type: "PRIVATE KEY", Bytes: pkcs8},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, cert, key
}
