//go:build linux

package integration

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	"google.golang.org/protobuf/proto"
)

// fault is how a server of the test misbehaves.
type fault int

const (
	healthy fault = iota
	// slow answers late, but within the budget of a delivery.
	slow
	// refusing closes every connection at once.
	refusing
	// hanging reads and answers nothing.
	hanging
)

func (f fault) String() string { return [...]string{"healthy", "slow", "refusing", "hanging"}[f] }

// moody is a listener whose connections have the fault of the moment.
type moody struct {
	net.Listener

	mu     sync.Mutex
	fault  fault
	change chan struct{}
	conns  map[*moodyConn]bool
}

func listenMoody(t testing.TB) *moody {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return &moody{Listener: l, change: make(chan struct{}), conns: map[*moodyConn]bool{}}
}

// set changes the fault of open and new connections alike. Those that hung break.
func (m *moody) set(f fault) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := m.fault
	m.fault = f
	close(m.change)
	m.change = make(chan struct{})
	if f == refusing || before == hanging {
		for c := range m.conns {
			_ = c.Conn.Close()
		}
	}
}

func (m *moody) now() (fault, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.fault, m.change
}

// Accept implements net.Listener.
func (m *moody) Accept() (net.Conn, error) {
	conn, err := m.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &moodyConn{Conn: conn, of: m}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.conns[c] = true
	if m.fault == refusing {
		_ = conn.Close()
	}
	return c, nil
}

type moodyConn struct {
	net.Conn
	of *moody
}

// Read implements net.Conn.
func (c *moodyConn) Read(p []byte) (int, error) {
	for {
		f, change := c.of.now()
		switch f {
		case hanging:
			<-change
			continue
		case slow:
			time.Sleep(30 * time.Millisecond)
		case healthy, refusing:
		}
		n, err := c.Conn.Read(p)
		if f, _ := c.of.now(); f == hanging && err == nil {
			c.lose()
			return 0, io.ErrUnexpectedEOF
		}
		return n, err
	}
}

// lose breaks the connection with a reset, as a system does for a process that
// has not read what came. An orderly close would say that all of it was read,
// and for syslog that is the only confirmation there is.
func (c *moodyConn) lose() {
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Conn.Close()
}

// Close implements net.Conn.
func (c *moodyConn) Close() error {
	c.of.mu.Lock()
	delete(c.of.conns, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}

// CloseWrite lets TLS say goodbye in one direction.
func (c *moodyConn) CloseWrite() error {
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		return tcp.CloseWrite()
	}
	return nil
}

// ledger collects what a server of the test took, in order.
type ledger struct {
	mu  sync.Mutex
	ids []string
}

func (l *ledger) add(ids ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ids = append(l.ids, ids...)
}

func (l *ledger) list() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.ids...)
}

// idOf reads the event's id out of any of the formats.
func idOf(event []byte) string {
	var e struct {
		ID    string `json:"id"`
		Event struct {
			ID string `json:"id"`
		} `json:"event"`
		Metadata struct {
			UID string `json:"uid"`
		} `json:"metadata"`
	}
	if err := json.Unmarshal(event, &e); err != nil {
		return "no event: " + err.Error()
	}
	return fallback(e.ID, fallback(e.Event.ID, fallback(e.Metadata.UID, "no id")))
}

// receiveWebhooks serves a webhook.
func receiveWebhooks(t testing.TB) (*moody, *ledger) {
	t.Helper()
	book := new(ledger)
	return serveMoody(t, func(w http.ResponseWriter, r *http.Request) {
		var delivery struct {
			Data []json.RawMessage `json:"data"`
		}
		if err := json.NewDecoder(r.Body).Decode(&delivery); err != nil {
			return
		}
		if r.Header.Get("Webhook-Signature") == "" {
			http.Error(w, "unsigned", http.StatusUnauthorized)
			return
		}
		for _, e := range delivery.Data {
			book.add(idOf(e))
		}
		w.WriteHeader(http.StatusNoContent)
	}), book
}

// receiveOTLP serves OpenTelemetry logs.
func receiveOTLP(t testing.TB) (*moody, *ledger) {
	t.Helper()
	book := new(ledger)
	return serveMoody(t, func(w http.ResponseWriter, r *http.Request) {
		body := io.Reader(r.Body)
		if r.Header.Get("Content-Encoding") == "gzip" {
			unzipped, err := gzip.NewReader(r.Body)
			if err != nil {
				return
			}
			body = unzipped
		}
		raw, err := io.ReadAll(body)
		if err != nil {
			return
		}
		var export collector.ExportLogsServiceRequest
		if err := proto.Unmarshal(raw, &export); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		for _, resource := range export.GetResourceLogs() {
			for _, scope := range resource.GetScopeLogs() {
				for _, record := range scope.GetLogRecords() {
					book.add(idOf([]byte(record.GetBody().GetStringValue())))
				}
			}
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
	}), book
}

func serveMoody(t testing.TB, handle http.HandlerFunc) *moody {
	t.Helper()
	l := listenMoody(t)
	srv := &http.Server{Handler: handle, ReadHeaderTimeout: time.Minute}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { l.set(healthy); _ = srv.Close() })
	return l
}

// receiveSyslog serves RFC 5425 with a certificate of its own, whose authority is
// in the file.
func receiveSyslog(t testing.TB) (l *moody, authority string, book *ledger) {
	t.Helper()
	certificate, authority := selfSigned(t)
	l, book = listenMoody(t), new(ledger)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go takeSyslog(tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}), book)
		}
	}()
	t.Cleanup(func() { l.set(healthy); _ = l.Close() })
	return l, authority, book
}

func takeSyslog(conn net.Conn, book *ledger) {
	defer func() { _ = conn.Close() }()
	in := bufio.NewReader(conn)
	for {
		length, err := in.ReadString(' ')
		if err != nil {
			return
		}
		n, err := strconv.Atoi(strings.TrimSuffix(length, " "))
		if err != nil || n > 1<<20 {
			return
		}
		message := make([]byte, n)
		if _, err := io.ReadFull(in, message); err != nil {
			return
		}
		if at := bytes.IndexByte(message, '{'); at >= 0 {
			book.add(idOf(message[at:]))
		}
	}
}

// selfSigned returns a certificate for the loopback interface and the file with it
// as its own authority.
func selfSigned(t testing.TB) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(privateDir(t), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, file
}

// port is the port of a listener.
func port(l net.Listener) string { return fmt.Sprint(l.Addr().(*net.TCPAddr).Port) }
