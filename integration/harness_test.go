//go:build linux

package integration

import (
	"strings"
	"testing"
)

// TestTheSpySeesExactBytes keeps the instrument honest: what it would hide, no
// other test could find.
func TestTheSpySeesExactBytes(t *testing.T) {
	t.Parallel()
	s := startSpy(t)
	request := "PoSt /a/%2e%2E//b?x#y HTTP/1.1\r\nHost: spy\r\nX_Odd.Name:  two  \r\n" +
		"Transfer-Encoding: chunked\r\n\r\n3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\nX-Trail: t\r\n\r\n"
	e := rawHTTP(t, s.Addr, []byte(request), nil)
	if e.Status != 200 || string(e.Body) != "ok" {
		t.Fatalf("status %d, %v", e.Status, e.Err)
	}
	got := s.requests()
	if len(got) != 1 {
		t.Fatalf("%d requests", len(got))
	}
	r := got[0]
	if r.Method != "PoSt" || r.Target != "/a/%2e%2E//b?x#y" || string(r.Body) != "abcde" {
		t.Errorf("got %q %q %q", r.Method, r.Target, r.Body)
	}
	if !strings.HasPrefix(request, string(r.Head)) || string(r.Tail) != "X-Trail: t\r\n" {
		t.Errorf("head %q, tail %q", r.Head, r.Tail)
	}
	if v := r.values(func(n string) bool { return folded(n) == "x-odd-name" }); len(v) != 1 || v[0] != "two" {
		t.Errorf("odd header %q", v)
	}
}

func TestTheUpstreamsServe(t *testing.T) {
	t.Parallel()
	if r := startRedis(t); r.exited() {
		t.Error("redis-server ended")
	}
	for kind, path := range map[string]string{httpbinUpstream: "/get", streamUpstream: "/proto"} {
		c := newClient(t, "http://"+startUpstream(t, kind).Addr)
		if a := c.send(t, "GET", path, ""); a.Status != 200 {
			t.Errorf("%s: status %d", kind, a.Status)
		}
	}
}
