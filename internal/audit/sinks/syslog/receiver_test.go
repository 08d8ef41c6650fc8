package syslog_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/audit/follow"
	"github.com/moat-gateway/moat/internal/audit/sinks/syslog"
	"github.com/moat-gateway/moat/internal/audit/sinktest"
)

// authority signs the certificates of the tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
	file string
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{pool: x509.NewCertPool(), file: filepath.Join(t.TempDir(), "ca.pem")}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.pool.AddCert(a.cert)
	writePEM(t, a.file, "CERTIFICATE", der)
	return a
}

func writePEM(t testing.TB, file, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// issue returns a certificate and the files that hold it and its key.
func (a *authority) issue(t testing.TB) (cert tls.Certificate, certFile, keyFile string) {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{"syslog.test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writePEM(t, certFile, "CERTIFICATE", der)
	writePEM(t, keyFile, "PRIVATE KEY", secret)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, certFile, keyFile
}

// receiver is a syslog receiver that reads strictly and misbehaves on request.
type receiver struct {
	t        testing.TB
	ca       *authority
	config   *tls.Config // nil without TLS
	listener net.Listener
	done     sync.WaitGroup

	mu            sync.Mutex
	fault         sinktest.Fault
	serve         func(raw net.Conn) // when set, serves instead
	conns         map[net.Conn]bool
	closed        bool
	changed       chan struct{} // closed when the fault changes
	accepted      int
	claimed       int // lines reported as delivered without a confirmation
	full, resumed int
	frames        []string
}

func receive(t testing.TB, edit func(*tls.Config)) *receiver {
	t.Helper()
	ca := newAuthority(t)
	cert, _, _ := ca.issue(t)
	config := &tls.Config{Certificates: []tls.Certificate{cert}, ClientCAs: ca.pool, MinVersion: tls.VersionTLS12}
	if edit != nil {
		edit(config)
	}
	return listen(t, ca, config)
}

func receivePlain(t testing.TB) *receiver { return listen(t, nil, nil) }

func listen(t testing.TB, ca *authority, config *tls.Config) *receiver {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &receiver{t: t, ca: ca, config: config, listener: listener, conns: map[net.Conn]bool{}, changed: make(chan struct{})}
	r.done.Go(r.accept)
	t.Cleanup(r.stop)
	return r
}

func (r *receiver) stop() {
	_ = r.listener.Close()
	r.mu.Lock()
	r.closed = true
	for conn := range r.conns {
		_ = conn.Close()
	}
	close(r.changed)
	r.mu.Unlock()
	r.done.Wait()
}

func (r *receiver) accept() {
	for {
		conn, err := r.listener.Accept()
		if err != nil {
			return
		}
		r.mu.Lock()
		if r.closed {
			_ = conn.Close()
		}
		r.conns[conn] = true
		r.accepted++
		serve := r.serve
		r.mu.Unlock()
		if serve == nil {
			serve = r.take
		}
		r.done.Go(func() {
			defer r.forget(conn)
			serve(conn)
		})
	}
}

func (r *receiver) forget(conn net.Conn) {
	_ = conn.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, conn)
}

func (r *receiver) open() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.conns)
}

// count returns how many connections there were, and how many full and resumed
// handshakes.
func (r *receiver) count() (accepted, full, resumed int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.accepted, r.full, r.resumed
}

func (r *receiver) now() sinktest.Fault {
	fault, _ := r.until()
	return fault
}

// until returns the present fault, and what is closed when it changes.
func (r *receiver) until() (sinktest.Fault, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fault, r.changed
}

// set changes the behaviour from now on, also on open connections.
func (r *receiver) set(fault sinktest.Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fault = fault
	close(r.changed)
	r.changed = make(chan struct{})
	for conn := range r.conns {
		if fault == sinktest.Malformed {
			_, _ = conn.Write([]byte("planted-answer"))
		}
		if fault == sinktest.Refuse {
			_ = conn.Close()
		}
	}
}

// instead lets serve have the connections from now on.
func (r *receiver) instead(serve func(raw net.Conn)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.serve = serve
}

// session returns what is spoken on a connection: TLS, or just the bytes.
func (r *receiver) session(raw net.Conn) (net.Conn, error) {
	if r.config == nil {
		return raw, nil
	}
	conn := tls.Server(raw, r.config)
	if err := conn.Handshake(); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if conn.ConnectionState().DidResume {
		r.resumed++
	} else {
		r.full++
	}
	return conn, nil
}

// take keeps the messages of one connection.
func (r *receiver) take(raw net.Conn) {
	switch r.now() {
	case sinktest.Refuse:
		return
	case sinktest.Malformed:
		_, _ = raw.Write([]byte("planted-answer"))
		_, _ = io.Copy(io.Discard, raw)
		return
	}
	conn, err := r.session(raw)
	if err != nil {
		return
	}
	in := bufio.NewReader(conn)
	for {
		frame, err := readFrame(in)
		switch fault, changed := r.until(); {
		case fault == sinktest.HalfOpen:
			<-changed // what else comes stays in the socket
			return
		case err == nil && fault == sinktest.Healthy, err == nil && fault == sinktest.Slow:
			r.keep(frame)
		case errors.Is(err, io.EOF):
			_ = conn.Close() // a close_notify in answer to the sink's
			return
		default:
			return
		}
		if r.now() == sinktest.Slow {
			<-time.After(time.Millisecond)
		}
	}
}

func (r *receiver) keep(frame string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.frames = append(r.frames, frame)
}

// messages returns what was received, read strictly.
func (r *receiver) messages() []message {
	r.mu.Lock()
	frames := slices.Clone(r.frames)
	r.mu.Unlock()
	var all []message
	for _, frame := range frames {
		m, err := parseMessage(frame)
		if err != nil {
			r.t.Error(err)
		}
		all = append(all, m)
	}
	return all
}

// claim wraps a sink that does not confirm, to know what must arrive sometime.
func (r *receiver) claim(s follow.Sink) follow.Sink { return claiming{s, r} }

type claiming struct {
	follow.Sink
	r *receiver
}

func (c claiming) Deliver(ctx context.Context, lines []follow.Line) error {
	err := c.Sink.Deliver(ctx, lines)
	if err == nil {
		c.r.mu.Lock()
		defer c.r.mu.Unlock()
		c.r.claimed += len(lines)
	}
	return err
}

// caughtUp waits until all that was claimed has arrived.
func (r *receiver) caughtUp() {
	r.t.Helper()
	within(r.t, "the arrival of what was sent", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.frames) >= r.claimed
	})
}

func within(t testing.TB, what string, met func() bool) {
	t.Helper()
	deadline := time.After(5 * time.Second)
	for !met() {
		select {
		case <-deadline:
			t.Fatalf("not within five seconds: %s", what)
		case <-time.After(time.Millisecond):
		}
	}
}

func (r *receiver) texts() []string {
	var all []string
	for _, m := range r.messages() {
		all = append(all, m.text)
	}
	return all
}

// sink returns a sink for the receiver.
func (r *receiver) sink(t testing.TB, edit func(*syslog.Config)) *syslog.Sink {
	t.Helper()
	cfg := syslog.Config{Address: r.listener.Addr().String(), Plaintext: r.config == nil}
	if r.ca != nil {
		cfg.CAFile = r.ca.file
	}
	if edit != nil {
		edit(&cfg)
	}
	s, err := syslog.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}
