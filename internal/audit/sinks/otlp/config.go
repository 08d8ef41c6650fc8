package otlp

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
)

const (
	// standardPath is where OTLP/HTTP takes logs unless something else is said.
	standardPath = "/v1/logs"

	maxHeaders     = 32
	maxHeaderValue = 8 << 10
)

// Values of Config.Compression.
const (
	// Gzip makes a delivery several times smaller for some time of a processor.
	Gzip = "gzip"
	// None sends it as it is.
	None = "none"
)

// Config is what New needs. URL is required.
type Config struct {
	// Where to post, https only; http is accepted for the loopback interface.
	// The path is taken as it stands; without any it is /v1/logs. No user or
	// password may stand in it. No environment variable changes it.
	URL string
	// Header fields of each request, such as an API key. Their values are
	// secrets. Those that HTTP or OTLP gives a meaning of its own, such as Host
	// or Content-Type, are refused.
	Headers map[string]string
	// PEM file of the certificate authorities that may vouch for the server.
	// Default: those of the system.
	CAFile string
	// PEM files of the certificate by which the gateway shows who it is, and of
	// its key: both or neither. Read once, by New. Default: none.
	CertFile string
	KeyFile  string
	// How the body is compressed, Gzip or None. Default: Gzip, which every OTLP
	// server must understand.
	Compression string
	// Budget of one delivery, until the answer has been read. Default: 10 s.
	Timeout time.Duration
	// Client whose transport is used, for tests. It is copied, and redirects
	// are never followed. It excludes the files above. Default: a client of the
	// sink's own with TLS 1.2 at least.
	Client *http.Client
	// Clock for events without a readable time and for Retry-After. Default:
	// time.Now.
	Now func() time.Time
}

func (c Config) withDefaults() Config {
	if c.Compression == "" {
		c.Compression = Gzip
	}
	if c.Timeout == 0 {
		c.Timeout = 10 * time.Second
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// settings is what a configuration says once it is checked.
type settings struct {
	url    *url.URL
	header http.Header
	tls    *tls.Config
}

// check returns what the configuration says, or all that is wrong with it.
func (c Config) check() (settings, error) {
	var out settings
	var errs [5]error
	out.url, errs[0] = urlOf(c.URL)
	out.header, errs[1] = headerOf(c.Headers)
	out.tls, errs[2] = c.tlsConfig()
	if c.Compression != Gzip && c.Compression != None {
		errs[3] = fmt.Errorf("otlp: compression %.20q: must be gzip or none", c.Compression)
	}
	if c.Timeout < time.Millisecond || c.Timeout > time.Minute {
		errs[4] = fmt.Errorf("otlp: timeout %s: must be between 1ms and 1m", c.Timeout)
	}
	return out, errors.Join(errs[:]...)
}

// urlOf never repeats the URL: its query may hold a token.
func urlOf(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case text == "":
		return nil, errors.New("otlp: url: is empty: must be given")
	case err != nil || u.Hostname() == "" || u.Opaque != "":
		return nil, errors.New("otlp: url: is none: must be like https://host/v1/logs")
	case u.User != nil:
		return nil, errors.New("otlp: url: has a user or password: must have none, a header can carry them")
	case u.Fragment != "":
		return nil, errors.New("otlp: url: has a fragment: must have none, it never reaches a server")
	case u.Scheme != "https" && (u.Scheme != "http" || !isLoopback(u.Hostname())):
		return nil, fmt.Errorf("otlp: url: scheme %.20q: must be https, or http to the loopback interface", u.Scheme)
	}
	if u.Path == "" {
		u.Path = standardPath
	}
	return u, nil
}

func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// reserved are the fields that say how a request is to be read or passed on:
// another value would make of a delivery something else than was checked.
var reserved = []string{
	"Accept-Encoding", "Connection", "Content-Encoding", "Content-Length", "Content-Type", "Expect", "Host",
	"Keep-Alive", "Proxy-Authorization", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "User-Agent",
}

// headerOf returns the header fields. Errors never repeat a value, nor a name
// that is none: it may be a secret in the wrong place.
func headerOf(given map[string]string) (http.Header, error) {
	var errs []error
	if len(given) > maxHeaders {
		errs = append(errs, fmt.Errorf("otlp: %d headers: must be at most %d", len(given), maxHeaders))
	}
	header := http.Header{}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		canonical := http.CanonicalHeaderKey(name)
		switch {
		case !httpguts.ValidHeaderFieldName(name):
			errs = append(errs, fmt.Errorf("otlp: headers: a name of %d bytes is none: must be a token (RFC 9110, section 5.1)", len(name)))
		case slices.Contains(reserved, canonical):
			errs = append(errs, fmt.Errorf("otlp: header %s: belongs to the sink: must not be given", canonical))
		case header[canonical] != nil:
			errs = append(errs, fmt.Errorf("otlp: header %.80s: is given twice: must be given once", canonical))
		case !isValue(given[name]):
			errs = append(errs, fmt.Errorf("otlp: header %.80s: a value of %d bytes: must be one line of 1 to %d bytes without space around it", canonical, len(given[name]), maxHeaderValue))
		}
		header[canonical] = []string{given[name]}
	}
	return header, errors.Join(errs...)
}

func isValue(value string) bool {
	return value != "" && len(value) <= maxHeaderValue && httpguts.ValidHeaderFieldValue(value) && strings.TrimSpace(value) == value
}

// tlsConfig reads the files. A setting that would have no effect is an error:
// whoever gave it relies on it.
func (c Config) tlsConfig() (*tls.Config, error) {
	out := &tls.Config{MinVersion: tls.VersionTLS12}
	var errs []error
	if c.CAFile+c.CertFile+c.KeyFile != "" && (c.Client != nil || strings.HasPrefix(strings.ToLower(c.URL), "http:")) {
		errs = append(errs, errors.New("otlp: ca_file, cert_file, key_file: stand without https or beside a client: must not, they have no effect there"))
	}
	if c.CAFile != "" {
		pool, err := poolOf(c.CAFile)
		if err != nil {
			errs = append(errs, fmt.Errorf("otlp: ca_file: %w", err))
		}
		out.RootCAs = pool
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		errs = append(errs, errors.New("otlp: cert_file, key_file: one is given: must be both or neither"))
	} else if c.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			errs = append(errs, fmt.Errorf("otlp: cert_file, key_file: %w", fileError(err)))
		}
		out.Certificates = []tls.Certificate{pair}
	}
	return out, errors.Join(errs...)
}

func poolOf(file string) (*x509.CertPool, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, fileError(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(raw) {
		return nil, errors.New("holds no certificate: must be PEM")
	}
	return pool, nil
}

// fileError leaves out the name: a key that was pasted where its file's name
// belongs would stand in it.
func fileError(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}
