package postgres

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// maxDSN bounds Config.DSN, in bytes.
	maxDSN = 4 << 10
	// maxAnswer bounds one message of the server, in bytes.
	maxAnswer = 1 << 20
)

// Config is what New needs. DSN is required.
type Config struct {
	// Connection string, as a URL or as keywords, with the meaning libpq gives
	// it. A server that is not on this machine needs an explicit sslmode:
	// verify-full, verify-ca, require or disable. The usual "prefer" would send
	// the events unencrypted to whoever says that it cannot do better.
	DSN string
	// Table that takes the events, in lower case and with its schema if that is
	// not the first of the search path. It is created when missing; where it
	// exists the right to INSERT is all the sink needs. Default: moat_audit.
	Table string
	// Budget of one delivery, connecting included. Default: 10 s.
	Timeout time.Duration
}

// tableName leaves room for the names of the indexes in PostgreSQL's 63 bytes.
var tableName = regexp.MustCompile(`^([a-z_][a-z0-9_]{0,62}\.)?[a-z_][a-z0-9_]{0,45}$`)

func (c Config) withDefaults() Config {
	if c.Table == "" {
		c.Table = "moat_audit"
	}
	if c.Timeout == 0 {
		c.Timeout = 10 * time.Second
	}
	return c
}

// parse checks the configuration. No error repeats the DSN.
func (c Config) parse() (*pgx.ConnConfig, error) {
	conn, err := parseDSN(c.DSN)
	errs := []error{err}
	if !tableName.MatchString(c.Table) {
		errs = append(errs, fmt.Errorf("postgres: table %.80q: must be of a-z, 0-9 and _, at most 46 bytes, with or without a schema", c.Table))
	}
	if c.Timeout < time.Millisecond || c.Timeout > time.Minute {
		errs = append(errs, fmt.Errorf("postgres: timeout %s: must be between 1ms and 1m", c.Timeout))
	}
	return conn, errors.Join(errs...)
}

func parseDSN(dsn string) (*pgx.ConnConfig, error) {
	if strings.TrimSpace(dsn) == "" {
		return nil, errors.New("postgres: dsn: is empty: must be given")
	}
	if len(dsn) > maxDSN {
		return nil, fmt.Errorf("postgres: dsn: has %d bytes: must have at most %d", len(dsn), maxDSN)
	}
	conn, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, errors.New("postgres: dsn: is no connection string, or names a file that cannot be read: must be like postgres://user@host/database?sslmode=verify-full")
	}
	if host := downgradable(conn); host != "" {
		return nil, fmt.Errorf("postgres: dsn: host %q may be spoken to without TLS: sslmode must be given, best as verify-full", host)
	}
	if conn.RuntimeParams["application_name"] == "" {
		conn.RuntimeParams["application_name"] = "moat"
	}
	conn.MaxProtocolMessageBodyLen = maxAnswer
	return conn, nil
}

// downgradable returns a host off this machine to which both ways lead, with
// TLS and without, or "". Without TLS only is what sslmode=disable asks for.
func downgradable(conn *pgx.ConnConfig) string {
	type ways struct{ secure, plain bool }
	hosts := map[string]ways{}
	note := func(host string, secure bool) {
		w := hosts[host]
		w.secure, w.plain = w.secure || secure, w.plain || !secure
		hosts[host] = w
	}
	note(conn.Host, conn.TLSConfig != nil)
	for _, f := range conn.Fallbacks {
		note(f.Host, f.TLSConfig != nil)
	}
	for host, w := range hosts {
		if w.secure && w.plain && !isLocal(host) {
			return host
		}
	}
	return ""
}

func isLocal(host string) bool {
	if filepath.IsAbs(host) || strings.HasPrefix(host, "@") || strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// Place says where a connection string leads and to which table, without user or
// password: hosts and ports, and the database. One that is no connection string is a
// place of its own.
func Place(dsn, table string) string {
	table = Config{Table: table}.withDefaults().Table
	conn, err := pgx.ParseConfig(dsn)
	if err != nil {
		return dsn
	}
	hosts := []string{fmt.Sprintf("%s:%d", conn.Host, conn.Port)}
	for _, f := range conn.Fallbacks {
		if host := fmt.Sprintf("%s:%d", f.Host, f.Port); !slices.Contains(hosts, host) {
			hosts = append(hosts, host)
		}
	}
	slices.Sort(hosts)
	return strings.Join(hosts, ",") + "/" + conn.Database + " " + table
}
