// Package redisconn turns a Redis URL into a client that keeps its time budget.
// It knows addresses, credentials and time-outs, and nothing of what is stored.
package redisconn

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// DefaultTimeout bounds each step of a call when Options names no timeout.
	DefaultTimeout = 50 * time.Millisecond
	// MinTimeout is the least Options.Timeout.
	MinTimeout = time.Millisecond
	// MaxTimeout is the largest Options.Timeout.
	MaxTimeout = 10 * time.Second

	// MaxPoolSize is the largest Options.PoolSize.
	MaxPoolSize = 10_000

	maxURL       = 4096
	maxHosts     = 64
	maxDB        = 1 << 20
	redisPort    = "6379"
	sentinelPort = "26379"
)

// Options says where Redis is and who asks. Only URL is required.
type Options struct {
	// Where the server is, in one of these forms:
	//
	//	redis://[user:password@]host[:port][/db]
	//	rediss://…                               the same over TLS
	//	unix:///path/to/socket[?db=N]
	//	redis+cluster://host[:port],host[:port]…
	//	redis+sentinel://host[:port],…/master[/db]
	//
	// rediss+cluster and rediss+sentinel are the same over TLS. The port
	// defaults to 6379, for sentinels to 26379. Other parameters are refused:
	// what they would set is chosen here.
	URL string
	// User for Redis 6 and later. Default: the one of the URL, else "default".
	// Must not stand here and in the URL.
	Username string
	// Password of the user. Default: the one of the URL, else none. Must not
	// stand here and in the URL.
	Password string
	// Credentials for the sentinels themselves. Default: none.
	SentinelUsername string
	SentinelPassword string
	// Largest time a read, a write or the wait for a connection may take.
	// Between 1ms and 10s. Default: 50ms.
	Timeout time.Duration
	// Largest number of connections to each server. Default: 10 per processor,
	// with a cluster 5.
	PoolSize int

	// PEM file with the certificates that may sign the server's. Default: those
	// of the system. This and the fields below need a rediss URL.
	CAFile string
	// PEM files with the certificate shown to the server, and its key. Both or
	// none.
	CertFile string
	KeyFile  string
	// Name the server's certificate must carry. Default: the host of the URL.
	ServerName string
	// Accept any certificate. Whoever stands in between can then read and
	// change everything.
	InsecureSkipVerify bool
}

type kind uint8

const (
	single kind = iota
	cluster
	sentinel
	unix
)

// target is a URL taken apart.
type target struct {
	kind     kind
	tls      bool
	addrs    []string
	master   string
	db       int
	username string
	password string
}

var schemes = map[string]target{
	"redis":           {kind: single},
	"rediss":          {kind: single, tls: true},
	"unix":            {kind: unix},
	"redis+cluster":   {kind: cluster},
	"rediss+cluster":  {kind: cluster, tls: true},
	"redis+sentinel":  {kind: sentinel},
	"rediss+sentinel": {kind: sentinel, tls: true},
}

// Validate reports every mistake at once. It neither dials nor reads files, and
// no error shows a credential: of the URL they name parts at most.
func (o Options) Validate() error {
	_, err := o.parse()
	return err
}

func (o Options) parse() (target, error) {
	t, err := parseURL(o.URL)
	errs := []error{err}
	complain := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("redis: "+format, args...))
	}
	if o.Timeout != 0 && (o.Timeout < MinTimeout || o.Timeout > MaxTimeout) {
		complain("timeout %s: must be between %s and %s", o.Timeout, MinTimeout, MaxTimeout)
	}
	if o.PoolSize < 0 || o.PoolSize > MaxPoolSize {
		complain("pool size %d: must be between 1 and %d", o.PoolSize, MaxPoolSize)
	}
	if (o.Username != "" || o.Password != "") && (t.username != "" || t.password != "") {
		complain("credentials in the url and apart: must stand in one place")
	}
	if o.Username != "" || o.Password != "" {
		t.username, t.password = o.Username, o.Password
	}
	if t.username != "" && t.password == "" {
		complain("user without a password: both or the password alone")
	}
	if err == nil {
		errs = append(errs, o.checkTLS(t), o.checkSentinel(t))
	}
	return t, errors.Join(errs...)
}

func (o Options) checkTLS(t target) error {
	var errs []error
	if !t.tls && (o.CAFile != "" || o.CertFile != "" || o.KeyFile != "" || o.ServerName != "" || o.InsecureSkipVerify) {
		errs = append(errs, errors.New("redis: tls settings: need a rediss url"))
	}
	if (o.CertFile == "") != (o.KeyFile == "") {
		errs = append(errs, errors.New("redis: client certificate: needs certificate and key"))
	}
	return errors.Join(errs...)
}

func (o Options) checkSentinel(t target) error {
	switch {
	case t.kind != sentinel && (o.SentinelUsername != "" || o.SentinelPassword != ""):
		return errors.New("redis: sentinel credentials: need a sentinel url")
	case o.SentinelUsername != "" && o.SentinelPassword == "":
		return errors.New("redis: sentinel user without a password: both or the password alone")
	}
	return nil
}

// parseURL reads what Options.URL describes. Errors of net/url are not passed
// on, because they quote the URL and with it the password.
func parseURL(raw string) (target, error) {
	if raw == "" {
		return target{}, errors.New("redis: url missing: is required")
	}
	if len(raw) > maxURL {
		return target{}, fmt.Errorf("redis: url of %d bytes: must have at most %d", len(raw), maxURL)
	}
	scheme, rest, found := strings.Cut(raw, "://")
	t, known := schemes[strings.ToLower(scheme)]
	if !found || !known {
		return target{}, errors.New("redis: url scheme: must be redis, rediss, unix, redis+cluster, " +
			"rediss+cluster, redis+sentinel or rediss+sentinel, followed by ://")
	}
	authority, path := rest, ""
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		authority, path = rest[:i], rest[i:]
	}
	hosts := authority
	if i := strings.LastIndexByte(authority, '@'); i >= 0 {
		u, err := url.Parse("redis://" + authority[:i] + "@host")
		if err != nil || u.User == nil {
			return target{}, errors.New("redis: url credentials: must be user:password@, percent-encoded")
		}
		hosts = authority[i+1:]
		t.username = u.User.Username()
		t.password, _ = u.User.Password()
	}
	u, err := url.Parse(path)
	if err != nil || u.Fragment != "" || strings.HasSuffix(path, "#") {
		return target{}, errors.New("redis: url path: malformed; a password must be percent-encoded")
	}
	if t.kind == unix {
		return t, t.parseSocket(hosts, u)
	}
	return t, errors.Join(t.parseHosts(hosts), t.parsePath(u))
}

func (t *target) parseSocket(host string, u *url.URL) error {
	var errs []error
	if host != "" || len(u.Path) < 2 || u.Path[0] != '/' {
		errs = append(errs, errors.New("redis: url: unix needs an absolute path, as in unix:///run/redis.sock"))
	}
	t.addrs = []string{u.Path}
	query, err := url.ParseQuery(u.RawQuery)
	for name, values := range query {
		if name != "db" || len(values) != 1 {
			err = errors.New("unknown parameter")
			continue
		}
		errs = append(errs, t.parseDB(values[0]))
	}
	if err != nil {
		errs = append(errs, errors.New("redis: url parameters: only one db is known"))
	}
	return errors.Join(errs...)
}

func (t *target) parseHosts(hosts string) error {
	list := strings.Split(hosts, ",")
	if len(list) > maxHosts {
		return fmt.Errorf("redis: url hosts: %d: must be at most %d", len(list), maxHosts)
	}
	if t.kind == single && len(list) > 1 {
		return errors.New("redis: url hosts: several need redis+cluster or redis+sentinel")
	}
	port := redisPort
	if t.kind == sentinel {
		port = sentinelPort
	}
	for i, host := range list {
		addr, err := address(host, port)
		if err != nil {
			return fmt.Errorf("redis: url host %d: %w", i+1, err)
		}
		t.addrs = append(t.addrs, addr)
	}
	return nil
}

// address completes host or host:port. It does not quote the host, which could
// be the tail of a password with an unescaped "@" or "/" in it.
func address(host, port string) (string, error) {
	u, err := url.Parse("redis://" + host)
	if err != nil || u.Hostname() == "" || u.Path != "" || u.User != nil || strings.ContainsAny(host, " \\%") {
		return "", errors.New("must be host or host:port")
	}
	if strings.Contains(u.Hostname(), ":") && host[0] != '[' {
		return "", errors.New("must have an IPv6 address in brackets")
	}
	if u.Port() != "" {
		port = u.Port()
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", errors.New("port must be between 1 and 65535")
	}
	return net.JoinHostPort(u.Hostname(), port), nil
}

func (t *target) parsePath(u *url.URL) error {
	if u.RawQuery != "" || u.ForceQuery {
		return errors.New("redis: url parameters: are not accepted")
	}
	path := strings.TrimSuffix(strings.TrimPrefix(u.Path, "/"), "/")
	switch {
	case t.kind == cluster && path != "" && path != "0":
		return errors.New("redis: url database: a cluster has only 0")
	case t.kind == sentinel:
		master, db, _ := strings.Cut(path, "/")
		if master == "" || len(master) > 128 {
			return errors.New("redis: url master: must be named, as in redis+sentinel://host/mymaster")
		}
		t.master, path = master, db
	}
	if path == "" {
		return nil
	}
	return t.parseDB(path)
}

func (t *target) parseDB(s string) error {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 || n > maxDB || s[0] == '+' {
		return fmt.Errorf("redis: url database: must be a number between 0 and %d", maxDB)
	}
	t.db = n
	return nil
}

// Key is equal for options that lead to the same client and differs otherwise,
// for pools. It is a hash, credentials included, and 64 characters long.
func Key(o Options) string {
	t, _ := o.parse()
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	fields := []string{
		o.rest(t), strconv.Itoa(int(t.kind)), strconv.FormatBool(t.tls), t.master, strconv.Itoa(t.db),
		t.username, t.password, o.SentinelUsername, o.SentinelPassword, o.Timeout.String(), strconv.Itoa(o.PoolSize),
		o.CAFile, o.CertFile, o.KeyFile, o.ServerName, strconv.FormatBool(o.InsecureSkipVerify),
	}
	h := sha256.New()
	for _, f := range slices.Concat(fields, t.addrs) {
		var size [8]byte
		binary.BigEndian.PutUint64(size[:], uint64(len(f)))
		h.Write(size[:])
		h.Write([]byte(f))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// rest keeps URLs that cannot be parsed apart.
func (o Options) rest(t target) string {
	if len(t.addrs) == 0 {
		return o.URL
	}
	return ""
}

// String names the server without credentials, for messages.
func (o Options) String() string {
	t, err := parseURL(o.URL)
	if err != nil {
		return "redis (invalid url)"
	}
	scheme, _, _ := strings.Cut(o.URL, "://")
	s := strings.ToLower(scheme) + "://" + strings.Join(t.addrs, ",")
	if t.master != "" {
		s += "/" + t.master
	}
	if t.db != 0 {
		s += "/" + strconv.Itoa(t.db)
	}
	return s
}
