package kafka

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

const (
	maxBrokers = 16
	// maxAddress bounds one broker's address, in bytes: a DNS name and a port.
	maxAddress = 253 + 6
	// maxCredential bounds user name and password, in bytes each.
	maxCredential = 1024
	// maxPEM bounds a file with certificates or a key, in bytes.
	maxPEM = 1 << 20
)

// The words of Config.Mechanism.
const (
	mechanismPlain    = "plain"
	mechanismScram256 = "scram-sha-256"
	mechanismScram512 = "scram-sha-512"
)

// Config is what New needs. Brokers and Topic are required.
type Config struct {
	// Where the cluster is first asked for its brokers, each as host:port,
	// between 1 and 16, one after another until one answers. Which brokers the events
	// then go to is what the cluster says.
	Brokers []string
	// Topic that takes the events. It has to exist: it is never created.
	Topic string
	// Speaks to the brokers without TLS. Whoever is on the way reads the events,
	// and can change them or keep them. Default: TLS 1.2 at least.
	Plaintext bool
	// File of the certificate authorities, in PEM, that the brokers' certificates
	// must be issued by. Default: those of the operating system.
	CAFile string
	// Files of the client's certificate, with its chain, and of its key, in PEM.
	// Either both are given or none. Default: none is shown.
	CertFile string
	// See CertFile.
	KeyFile string
	// How to prove to the brokers who is there: "plain", "scram-sha-256" or
	// "scram-sha-512". With Plaintext, "plain" is only for brokers on this
	// machine, since it sends the password as it is. Default: not at all.
	Mechanism string
	// User name and password of Mechanism, each of 1 to 1024 bytes.
	Username string
	// See Username.
	Password string
	// Budget of one delivery, connecting and every repeated attempt included.
	// Default: 10 s.
	Timeout time.Duration
	// Compression of the events: "zstd", "lz4", "snappy", "gzip" or "none".
	// Brokers before 2.1 do not know zstd and get the events as they are.
	// Default: zstd.
	Compression string
	// Opens the connections, for tests. TLS is added to what it returns.
	// Default: TCP.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

var topicName = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,249}$`)

func (c Config) withDefaults() Config {
	if c.Timeout == 0 {
		c.Timeout = 10 * time.Second
	}
	if c.Compression == "" {
		c.Compression = "zstd"
	}
	if c.Dial == nil {
		c.Dial = (&net.Dialer{KeepAlive: 15 * time.Second}).DialContext
	}
	return c
}

// settings is what a checked configuration comes to.
type settings struct {
	tls       *tls.Config // nil: without TLS
	mechanism sasl.Mechanism
	codec     kgo.CompressionCodec
}

// parse checks the configuration. No error repeats user name or password.
func (c Config) parse() (settings, error) {
	var s settings
	errs := []error{checkBrokers(c.Brokers)}
	if !topicName.MatchString(c.Topic) || c.Topic == "." || c.Topic == ".." {
		errs = append(errs, fmt.Errorf("kafka: topic %.80q: must be 1 to 249 of a-z, A-Z, 0-9, '.', '_' and '-', and not only dots", c.Topic))
	}
	var err error
	s.tls, err = c.transport()
	errs = append(errs, err)
	s.mechanism, err = c.credentials()
	errs = append(errs, err)
	if c.Timeout < time.Millisecond || c.Timeout > time.Minute {
		errs = append(errs, fmt.Errorf("kafka: timeout %s: must be between 1ms and 1m", c.Timeout))
	}
	s.codec, err = codecOf(c.Compression)
	errs = append(errs, err)
	return s, errors.Join(errs...)
}

func checkBrokers(brokers []string) error {
	var errs []error
	if len(brokers) == 0 || len(brokers) > maxBrokers {
		errs = append(errs, fmt.Errorf("kafka: %d brokers: must be between 1 and %d", len(brokers), maxBrokers))
	}
	for _, broker := range brokers[:min(len(brokers), maxBrokers)] {
		if !isAddress(broker) {
			errs = append(errs, fmt.Errorf("kafka: broker %.80q: must be like host:9092", broker))
		}
	}
	return errors.Join(errs...)
}

func isAddress(text string) bool {
	host, port, err := net.SplitHostPort(text)
	if err != nil || host == "" || len(text) > maxAddress {
		return false
	}
	// A user, a scheme or a path shows that a URL was meant, which would
	// otherwise be looked up as a name.
	if strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`/@,;"'\`, r) }) {
		return false
	}
	number, err := strconv.ParseUint(port, 10, 16)
	return err == nil && number > 0
}

func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// isLocal reports whether an address is on this machine.
func isLocal(address string) bool {
	host, _, err := net.SplitHostPort(address)
	return err == nil && isLoopback(host)
}

// transport returns how TLS is spoken, nil without.
func (c Config) transport() (*tls.Config, error) {
	if c.Plaintext {
		if c.CAFile != "" || c.CertFile != "" || c.KeyFile != "" {
			return nil, errors.New("kafka: certificate files: are given although TLS is off: must be one or the other")
		}
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	var errs []error
	if c.CAFile != "" {
		config.RootCAs = x509.NewCertPool()
		if pem, err := readPEM(c.CAFile); err != nil || !config.RootCAs.AppendCertsFromPEM(pem) {
			errs = append(errs, fmt.Errorf("kafka: ca file %.200q: cannot be read or has no certificate: must be PEM", c.CAFile))
		}
	}
	pair, err := c.keyPair()
	if pair != nil {
		config.Certificates = []tls.Certificate{*pair}
	}
	return config, errors.Join(append(errs, err)...)
}

func (c Config) keyPair() (*tls.Certificate, error) {
	if c.CertFile == "" && c.KeyFile == "" {
		return nil, nil
	}
	if c.CertFile == "" || c.KeyFile == "" {
		return nil, errors.New("kafka: client certificate: has only one of certificate file and key file: must have both")
	}
	cert, certErr := readPEM(c.CertFile)
	key, keyErr := readPEM(c.KeyFile)
	pair, err := tls.X509KeyPair(cert, key)
	if certErr != nil || keyErr != nil || err != nil {
		// What the standard library says may hold pieces of the files.
		return nil, fmt.Errorf("kafka: client certificate %.200q with key %.200q: cannot be read or do not belong together: must be PEM", c.CertFile, c.KeyFile)
	}
	return &pair, nil
}

func readPEM(name string) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxPEM {
		return nil, errors.New("is no file of that kind")
	}
	return os.ReadFile(filepath.Clean(name))
}

// credentials returns the proof of who is there, nil without.
func (c Config) credentials() (sasl.Mechanism, error) {
	if c.Mechanism == "" {
		if c.Username != "" || c.Password != "" {
			return nil, errors.New("kafka: user name and password: are given without a mechanism: must have one")
		}
		return nil, nil
	}
	var errs []error
	for _, value := range []struct{ name, text string }{{"user name", c.Username}, {"password", c.Password}} {
		// A NUL is what separates the two in the mechanism plain.
		if value.text == "" || len(value.text) > maxCredential || strings.Contains(value.text, "\x00") {
			errs = append(errs, fmt.Errorf("kafka: %s: must have 1 to %d bytes, none of them zero", value.name, maxCredential))
		}
	}
	mechanism, err := c.mechanism()
	errs = append(errs, err)
	if c.exposed() {
		for _, broker := range c.Brokers {
			if !isLocal(broker) {
				errs = append(errs, fmt.Errorf("kafka: broker %.80q: would be sent the password unencrypted: must be spoken to by TLS or with a scram mechanism", broker))
			}
		}
	}
	return mechanism, errors.Join(errs...)
}

// exposed reports whether the password crosses the network as it is.
func (c Config) exposed() bool { return c.Plaintext && c.Mechanism == mechanismPlain }

func (c Config) mechanism() (sasl.Mechanism, error) {
	switch c.Mechanism {
	case mechanismPlain:
		return plain.Auth{User: c.Username, Pass: c.Password}.AsMechanism(), nil
	case mechanismScram256:
		return scram.Auth{User: c.Username, Pass: c.Password}.AsSha256Mechanism(), nil
	case mechanismScram512:
		return scram.Auth{User: c.Username, Pass: c.Password}.AsSha512Mechanism(), nil
	}
	return nil, fmt.Errorf("kafka: mechanism %.40q: must be %s, %s or %s", c.Mechanism, mechanismPlain, mechanismScram256, mechanismScram512)
}

func codecOf(name string) (kgo.CompressionCodec, error) {
	switch name {
	case "zstd":
		return kgo.ZstdCompression(), nil
	case "lz4":
		return kgo.Lz4Compression(), nil
	case "snappy":
		return kgo.SnappyCompression(), nil
	case "gzip":
		return kgo.GzipCompression(), nil
	case "none":
		return kgo.NoCompression(), nil
	}
	return kgo.NoCompression(), fmt.Errorf("kafka: compression %.40q: must be zstd, lz4, snappy, gzip or none", name)
}
