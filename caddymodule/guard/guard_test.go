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
