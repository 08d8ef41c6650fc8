package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/net/http/httpguts"

	"github.com/moat-gateway/moat/caddymodule/internal/explanation"
)

const (
	// defaultAddress is one of those that are for documentation (RFC 5737): no
	// caller has it, and no exception is made for it.
	defaultAddress = "192.0.2.1"
	// someone is the id of a caller of whom only roles or a tenant were told.
	someone = "someone"
	// maxTokenFile bounds what is read as a token.
	maxTokenFile = 64 << 10
)

// question is the command line.
type question struct {
	config, adapter  string
	json             bool
	cases            string
	token, tokenFile string
	user, tenant     string
	roles            []string
	issuer, claims   string
	address, at      string
	headers          []string
	given            *pflag.FlagSet
}

func (q *question) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	q.given = f
	f.StringVarP(&q.config, "config", "c", "", "Configuration file (default: Caddyfile in this directory)")
	f.StringVarP(&q.adapter, "adapter", "a", "", "Name of the config adapter (default: by the file's name)")
	f.BoolVar(&q.json, "json", false, "Answer in JSON")
	f.StringVar(&q.cases, "cases", "", "File of requests and expected answers, YAML or JSON; - for standard input")
	f.StringVar(&q.token, "token", "", "Token of the caller")
	f.StringVar(&q.tokenFile, "token-file", "", "File with the caller's token; - for standard input")
	f.StringVar(&q.user, "user", "", "Id of the caller")
	f.StringVar(&q.tenant, "tenant", "", "Tenant of the caller")
	f.StringSliceVar(&q.roles, "role", nil, "Role of the caller; several, or separated by commas")
	f.StringVar(&q.issuer, "issuer", "", "Issuer that vouches for the caller (default: the site's first)")
	f.StringVar(&q.claims, "claims", "", "Claims of the caller that conditions ask for, as a JSON object")
	f.StringVar(&q.address, "address", defaultAddress, "Address of the caller, or of the proxy in front")
	f.StringVar(&q.at, "at", "", "Time of the request for conditions, RFC 3339 (default: now)")
	f.StringArrayVar(&q.headers, "header", nil, "Header line of the request, 'Name: value'; several")
}

// check finds what cannot stand together.
func (q *question) check(args []string) error {
	told := q.user != "" || q.tenant != "" || len(q.roles) > 0 || q.issuer != "" || q.claims != ""
	token := q.token != "" || q.tokenFile != ""
	if err := emptyFlag(q.given); err != nil {
		return err
	}
	switch {
	case q.cases != "" && (len(args) > 0 || told || token || len(q.headers) > 0 || q.at != "" || q.address != defaultAddress):
		return errors.New("--cases: the file says method, URL, caller and all else; only --config, --adapter and --json stand beside it")
	case q.cases == "" && len(args) != 2:
		return fmt.Errorf("%d arguments: a method and a URL are needed, for example: GET https://orders.example.com/documents/7", len(args))
	case q.token != "" && q.tokenFile != "":
		return errors.New("--token and --token-file: one of them")
	case told && token:
		return errors.New("--token says who the caller is; --user, --tenant, --role, --issuer and --claims cannot stand beside it")
	}
	return nil
}

// request is one request and its caller, ready to be sent.
type request struct {
	method string
	target *target
	header []string // lines
	remote string   // address and port
	at     time.Time
	caller *explanation.Caller // nil: nobody was told
	token  string
}

// request reads the command line.
func (q *question) request(args []string, in io.Reader) (*request, error) {
	token, err := q.readToken(in)
	if err != nil {
		return nil, err
	}
	r := &request{method: args[0], header: q.headers, token: token}
	if q.user != "" || q.tenant != "" || len(q.roles) > 0 || q.issuer != "" || q.claims != "" {
		r.caller = &explanation.Caller{ID: q.user, Tenant: q.tenant, Roles: q.roles, Issuer: q.issuer}
	}
	var errs []error
	if q.claims != "" {
		r.caller.Claims, err = parseClaims(q.claims)
		errs = append(errs, err)
	}
	return r, errors.Join(append(errs, r.fill(args[1], q.address, q.at))...)
}

// fill sets and checks what a request needs beside its caller.
func (r *request) fill(url, address, at string) error {
	var errs []error
	var err error
	r.target, err = parseTarget(url)
	errs = append(errs, err)
	r.remote, err = parseAddress(address)
	errs = append(errs, err)
	r.at = time.Now()
	if at != "" {
		if r.at, err = time.Parse(time.RFC3339, at); err != nil {
			errs = append(errs, fmt.Errorf("at %q: must be a time such as 2026-07-01T09:00:00Z", at))
		}
	}
	if r.method == "" || strings.ContainsFunc(r.method, func(c rune) bool { return c <= ' ' || c == 0x7f }) {
		errs = append(errs, fmt.Errorf("method %q: must be one word", r.method))
	}
	for i, line := range r.header {
		name, value, ok := strings.Cut(line, ":")
		if !ok || !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) {
			// Not the line itself: it may hold a token.
			errs = append(errs, fmt.Errorf("header %d: must be a line such as 'Accept: text/html'", i+1))
		}
		if r.caller != nil && ok && strings.EqualFold(name, "Authorization") {
			errs = append(errs, fmt.Errorf("header %d: Authorization cannot stand beside a caller that is told", i+1))
		}
	}
	if !httpguts.ValidHeaderFieldValue(r.token) || strings.ContainsAny(r.token, " ;,") {
		errs = append(errs, errors.New("the token has characters that cannot stand in a request"))
	}
	if c := r.caller; c != nil && c.ID == "" {
		c.ID = someone
	}
	return errors.Join(errs...)
}

func (q *question) readToken(in io.Reader) (string, error) {
	switch q.tokenFile {
	case "":
		return q.token, nil
	case "-":
	default:
		file, err := os.Open(q.tokenFile)
		if err != nil {
			return "", fmt.Errorf("--token-file: %w", err)
		}
		defer func() { _ = file.Close() }()
		in = file
	}
	data, err := io.ReadAll(io.LimitReader(in, maxTokenFile))
	if err != nil {
		return "", fmt.Errorf("--token-file: %w", err)
	}
	token := strings.TrimSpace(string(data))
	if token == "" {
		return "", fmt.Errorf("--token-file %s: is empty", q.tokenFile)
	}
	return token, nil
}

// parseClaims reads claims as a token's are read: numbers stay as written.
func parseClaims(text string) (map[string]any, error) {
	var claims map[string]any
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&claims); err != nil || claims == nil || d.More() {
		return nil, fmt.Errorf("claims %q: must be one JSON object", text)
	}
	return claims, nil
}

// parseAddress returns an address with a port.
func parseAddress(text string) (string, error) {
	if at, err := netip.ParseAddrPort(text); err == nil {
		return at.String(), nil
	}
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return "", fmt.Errorf("address %q: must be an IP address", text)
	}
	return net.JoinHostPort(addr.String(), "50000"), nil
}

// target is a URL, taken apart and not changed: how it is spelled is part of
// the question.
type target struct {
	url   string // as given
	https bool
	host  string // as it stands in the Host header
	name  string // without port and brackets
	port  uint16
	path  string // and all behind it
}

func parseTarget(url string) (*target, error) {
	bad := func(reason string) error {
		return fmt.Errorf("URL %q: %s, for example https://orders.example.com/documents/7", url, reason)
	}
	scheme, rest, ok := strings.Cut(url, "://")
	if !ok || scheme != "https" && scheme != "http" {
		return nil, bad("must begin with https:// or http:// and a host")
	}
	t := &target{url: url, https: scheme == "https", host: rest, path: "/", port: 80}
	if t.https {
		t.port = 443
	}
	if end := strings.IndexAny(rest, "/?#"); end >= 0 {
		t.host, t.path = rest[:end], rest[end:]
	}
	if t.path[0] == '?' {
		t.path = "/" + t.path // As every client does (RFC 9112 section 3.2.1).
	}
	t.name = strings.Trim(t.host, "[]")
	if name, port, err := net.SplitHostPort(t.host); err == nil && port == "" {
		t.name = name // RFC 3986 section 3.2.3: the scheme's.
	} else if err == nil {
		number, err := net.LookupPort("tcp", port)
		if err != nil {
			return nil, bad("the port is none")
		}
		t.name, t.port = name, uint16(number)
	}
	switch {
	case t.name == "" || strings.Contains(t.host, "@") || !httpguts.ValidHostHeader(t.host):
		return nil, bad("must name a host, and no user")
	case strings.ContainsAny(t.path, "\r\n"):
		return nil, bad("must be one line")
	}
	return t, nil
}
