package guard

import (
	"net/http"
	"testing"
)

func TestConnectionCanNameNoHeaderAway(t *testing.T) {
	for name, row := range map[string]struct {
		in                  http.Header
		connection, upgrade string
		te                  string
	}{
		"identity headers":          {http.Header{"Connection": {"X-User-Id, Authorization"}}, "", "", ""},
		"close beside them":         {http.Header{"Connection": {"X-User-Id, close"}}, "close", "", ""},
		"keep-alive":                {http.Header{"Connection": {"keep-alive"}}, "", "", ""},
		"several lines":             {http.Header{"Connection": {"close", "X-User-Id"}}, "close", "", ""},
		"WebSocket":                 {http.Header{"Connection": {"keep-alive, Upgrade"}, "Upgrade": {"websocket"}}, "Upgrade", "websocket", ""},
		"h2c":                       {http.Header{"Connection": {"Upgrade, HTTP2-Settings"}, "Upgrade": {"h2c"}, "Http2-Settings": {"x"}}, "", "", ""},
		"two upgrades":              {http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket", "h2c"}}, "", "", ""},
		"an upgrade list":           {http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket, h2c"}}, "", "", ""},
		"WebSocket names headers":   {http.Header{"Connection": {"Upgrade, X-User-Id"}, "Upgrade": {"websocket"}}, "Upgrade", "websocket", ""},
		"TE trailers":               {http.Header{"Te": {"trailers"}}, "", "", "trailers"},
		"TE gzip":                   {http.Header{"Te": {"gzip"}}, "", "", ""},
		"an upgrade without a word": {http.Header{"Upgrade": {"websocket"}}, "", "websocket", ""},
	} {
		cleanConnection(row.in)
		if got := row.in.Get("Connection"); got != row.connection || len(row.in["Connection"]) > 1 {
			t.Errorf("%s: Connection %q", name, row.in["Connection"])
		}
		if got := row.in.Get("Upgrade"); got != row.upgrade {
			t.Errorf("%s: Upgrade %q", name, got)
		}
		if got := row.in.Get("Te"); got != row.te {
			t.Errorf("%s: Te %q", name, got)
		}
		if row.in["Http2-Settings"] != nil || row.in["Keep-Alive"] != nil {
			t.Errorf("%s: left %v", name, row.in)
		}
	}
}

func TestAConnectionCarriesRequestsForItsServerNameOnly(t *testing.T) {
	for name, row := range map[string]struct {
		serverName, host string
		want             bool
	}{
		"the same":               {"site.test", "site.test", true},
		"with a port":            {"site.test", "site.test:8443", true},
		"another case":           {"Site.Test", "sITE.test", true},
		"a final dot":            {"site.test", "site.test.", true},
		"an address, no name":    {"", "127.0.0.1:8443", true},
		"an IPv6, no name":       {"", "[::1]:8443", true},
		"another host":           {"site.test", "other.test", false},
		"a name inside":          {"site.test", "a.site.test", false},
		"a host, no name":        {"", "site.test", false},
		"an address with a name": {"site.test", "127.0.0.1", false},
		"no host":                {"site.test", "", false},
	} {
		if got := allowed(row.serverName, row.host); got != row.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestHeadersHaveBounds(t *testing.T) {
	h := &Handler{MaxHeaders: 3, MaxHeader: 10}
	for name, row := range map[string]struct {
		header http.Header
		want   string
	}{
		"within":        {http.Header{"A": {"1", "2"}, "B": {"123456789"}}, ""},
		"too many":      {http.Header{"A": {"1", "2", "3"}, "B": {"4"}}, "guard.too-many-headers"},
		"a long value":  {http.Header{"A": {"1234567890"}}, "guard.header-too-long"},
		"a long name":   {http.Header{"Abcdefghij": {"1"}}, "guard.header-too-long"},
		"none":          {http.Header{}, ""},
		"an empty line": {http.Header{"A": {""}}, ""},
	} {
		got := ""
		if refusal := h.headers(&http.Request{Header: row.header}); refusal != nil {
			got = refusal.Reason
		}
		if got != row.want {
			t.Errorf("%s: %q, want %q", name, got, row.want)
		}
	}
}

func TestTwoHostsAreNotOne(t *testing.T) {
	h := new(Handler)
	same := &http.Request{Host: "site.test", Header: http.Header{"Host": {"SITE.test"}}}
	if refusal := h.hosts(same); refusal != nil || same.Header["Host"] != nil {
		t.Errorf("the same host: %+v, left %v", refusal, same.Header)
	}
	for _, hosts := range [][]string{{"other.test"}, {"site.test", "other.test"}, {""}} {
		if h.hosts(&http.Request{Host: "site.test", Header: http.Header{"Host": hosts}}) == nil {
			t.Errorf("%v passes", hosts)
		}
	}
}
