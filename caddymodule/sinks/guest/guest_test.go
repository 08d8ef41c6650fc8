package guest_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"

	"github.com/moat-gateway/moat/caddymodule/app"
	"github.com/moat-gateway/moat/caddymodule/sinks/guest"
	"github.com/moat-gateway/moat/caddymodule/sinks/guest/sinktest"
)

// Notebook is a sink as somebody else would write it: it knows Caddy and the
// package guest, and nothing of what is inside the gateway.
type Notebook struct {
	Page string `json:"page,omitempty"`
	Fail bool   `json:"fail,omitempty"`
}

func init() { caddy.RegisterModule(new(Notebook)) }

// CaddyModule returns the module's registration.
func (*Notebook) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "moat.sinks.notebook", New: func() caddy.Module { return new(Notebook) }}
}

// UnmarshalCaddyfile reads: notebook <page> { fail }.
func (n *Notebook) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if !d.Args(&n.Page) {
		return d.ArgErr()
	}
	for d.NextBlock(0) {
		if d.Val() != "fail" {
			return d.Errf("unknown word %q", d.Val())
		}
		n.Fail = true
	}
	return nil
}

// Target implements guest.Settings.
func (n *Notebook) Target() guest.Target { return guest.Target{Place: n.Page} }

// Open implements guest.Settings.
func (n *Notebook) Open() (guest.Sink, error) {
	if n.Fail {
		return nil, errors.New("notebook: fail: must not stand there")
	}
	return pages.of(n.Page), nil
}

// page is the sink.
type page struct {
	mu     sync.Mutex
	lines  []string
	fault  sinktest.Fault
	closed bool
}

var errBusy = errors.New("notebook: is busy")

func (*page) Name() string { return "notebook" }

func (p *page) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	return nil
}

func (p *page) Deliver(_ context.Context, lines []guest.Line) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.fault == sinktest.Refuse {
		return errBusy
	}
	for _, line := range lines {
		p.lines = append(p.lines, string(line.Content()))
	}
	return nil
}

func (p *page) read() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.lines...)
}

// pages are the open notebooks.
var pages = &shelf{pages: map[string]*page{}}

type shelf struct {
	mu    sync.Mutex
	pages map[string]*page
}

func (s *shelf) of(name string) *page {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pages[name] == nil {
		s.pages[name] = new(page)
	}
	return s.pages[name]
}

func TestAGuestPassesTheSuite(t *testing.T) {
	sinktest.Run(t, func(*testing.T) sinktest.Harness {
		book := new(page)
		return sinktest.Harness{
			Open: func(*testing.T) guest.Sink {
				book.mu.Lock()
				defer book.mu.Unlock()
				book.closed = false
				return book
			},
			Received: func(*testing.T) []string { return book.read() },
			Fault: func(f sinktest.Fault) {
				book.mu.Lock()
				defer book.mu.Unlock()
				book.fault = f
			},
		}
	}, sinktest.HalfOpen, sinktest.Malformed) // there is no connection that could break
}

// global adapts the lines of an audit block to the app's JSON.
func global(t *testing.T, lines string) (*app.App, error) {
	t.Helper()
	adapter := caddyfile.Adapter{ServerType: httpcaddyfile.ServerType{}}
	raw, _, err := adapter.Adapt([]byte("{\nmoat {\naudit {\n"+lines+"\n}\n}\n}\n"), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		return nil, err
	}
	var config caddy.Config
	if err := caddy.StrictUnmarshalJSON(raw, &config); err != nil {
		t.Fatal(err)
	}
	a := new(app.App)
	return a, caddy.StrictUnmarshalJSON(config.AppsRaw["moat"], a)
}

func run(t *testing.T, a *app.App) error {
	t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	t.Cleanup(cancel)
	t.Cleanup(func() { _ = a.Cleanup() })
	return errors.Join(a.Provision(ctx), nil)
}

func TestAGuestIsFedLikeAnyOtherSink(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	a, err := global(t, fmt.Sprintf("journal %s\nsink notebook one {\nclass admin\n}\nsink notebook two {\nformat cloudevents\naction config.*\n}", dir))
	if err != nil {
		t.Fatal(err)
	}
	if text := string(caddyconfig.JSON(a.Audit.Sinks, nil)); !strings.Contains(text, `"page":"one"`) {
		t.Errorf("JSON %s", text)
	}
	if err := run(t, a); err != nil {
		t.Fatal(err)
	}
	if err := a.Start(); err != nil {
		t.Fatal(err)
	}
	one, two := pages.of("one"), pages.of("two")
	for deadline := time.Now().Add(20 * time.Second); len(one.read()) < 3 || len(two.read()) < 1; <-time.After(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("one got %q, two %q", one.read(), two.read())
		}
	}
	files, err := os.ReadDir(filepath.Join(dir, "cursors"))
	if err != nil || len(files) != 2 {
		t.Errorf("cursors %v, %v", files, err)
	}
	if first := one.read()[0]; !strings.Contains(first, `"action":"audit.segment"`) {
		t.Errorf("one begins with %s", first)
	}
	if first := two.read()[0]; !strings.Contains(first, `"specversion":"1.0"`) || !strings.Contains(first, "config.loaded") {
		t.Errorf("two begins with %s", first)
	}
}

func TestWhatAGuestRefusesIsAConfigurationError(t *testing.T) {
	for lines, want := range map[string]string{
		"sink notebook":                      "wrong argument count",
		"sink notebook a b":                  `unexpected argument "b"`,
		"sink notebook a {\nsucceed\n}":      `unknown word "succeed"`,
		"sink notebook a {\nclass nobody\n}": `class "nobody"`,
		"sink notebook a {\nfail\n}":         "audit: sink notebook: notebook: fail: must not stand there",
	} {
		a, err := global(t, "journal "+filepath.Join(t.TempDir(), "journal")+"\n"+lines)
		if err == nil {
			err = run(t, a)
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: no %q in: %v", lines, want, err)
		}
	}
}

// Interface guards.
var (
	_ guest.Settings        = (*Notebook)(nil)
	_ caddyfile.Unmarshaler = (*Notebook)(nil)
)
