//go:build linux

package integration

import (
	"bytes"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// framingCase is a stream of bytes. {get} and {post} stand for the request line
// and Host of a harmless request, {mark} for the mark of the case and {len} for
// the length of the second request.
type framingCase struct {
	name, wire string
	same       bool // the gateway must let through exactly what bare Caddy does
}

// second is a request that must not come out of another one's body.
const second = "GET /smuggled/{mark} HTTP/1.1\r\nHost: same.test\r\n\r\n"

// framingCases are the ways in which two readers of one connection have come to
// disagree about where a request ends (RFC 9112 sections 6 and 11.2).
var framingCases = []framingCase{
	{"plain", "{get}\r\n", true},
	{"pipelined", "{get}\r\n{get}\r\n{post}Content-Length: 2\r\n\r\nab{get}\r\n", true},
	{"pipelined behind chunks", "{post}Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n{get}\r\n", true},
	{"empty lines first", "\r\n\r\n{get}\r\n", false},
	{"length", "{post}Content-Length: 5\r\n\r\nhello", true},
	{"length, too much follows", "{post}Content-Length: 5\r\n\r\nhello" + second, true},
	{"length, too little", "{post}Content-Length: 50\r\n\r\nhello", false},
	{"two equal lengths", "{post}Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", false},
	{"a list of equal lengths", "{post}Content-Length: 5, 5\r\n\r\nhello", false},
	{"two lengths", "{post}Content-Length: 5\r\nContent-Length: 0\r\n\r\n" + second, false},
	{"two lengths, other order", "{post}Content-Length: 0\r\nContent-Length: 5\r\n\r\n" + second, false},
	{"signed length", "{post}Content-Length: +5\r\n\r\nhello", false},
	{"negative length", "{post}Content-Length: -1\r\n\r\n" + second, false},
	{"hexadecimal length", "{post}Content-Length: 0x5\r\n\r\nhello", false},
	{"length with zeros", "{post}Content-Length: 0005\r\n\r\nhello", true},
	{"length overflows", "{post}Content-Length: 18446744073709551621\r\n\r\nhello", false},
	{"empty length", "{post}Content-Length: \r\n\r\n" + second, false},
	{"odd space in the length", "{post}Content-Length: \x0b5\r\n\r\nhello", false},
	{"underscore length", "{post}Content_Length: 5\r\n\r\nhello", false},
	{"length behind underscore twin", "{post}Content-Length: 5\r\nContent_Length: 0\r\n\r\nhello", false},
	{"transfer behind underscore twin", "{post}Content-Length: 5\r\nTransfer_Encoding: chunked\r\n\r\nhello", false},
	{"length and chunks", "{post}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + second, false},
	{"chunks and length", "{post}Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\n" + second, false},
	{"unknown coding", "{post}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + second, false},
	{"chunked twice", "{post}Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n" + second, false},
	{"chunked in two lines", "{post}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + second, false},
	{"chunked and identity", "{post}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + second, false},
	{"identity and chunked", "{post}Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n" + second, false},
	{"identity", "{post}Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello", false},
	{"gzip, chunked", "{post}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + second, false},
	{"chunked in capitals", "{post}Transfer-Encoding: CHUNKED\r\n\r\n5\r\nhello\r\n0\r\n\r\n", true},
	{"quoted chunked", "{post}Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n" + second, false},
	{"vertical tab before chunked", "{post}Transfer-Encoding: \x0bchunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + second, false},
	{"tab before chunked", "{post}Transfer-Encoding:\tchunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", false},
	{"space after chunked", "{post}Transfer-Encoding: chunked \r\n\r\n5\r\nhello\r\n0\r\n\r\n", false},
	{"parameter of chunked", "{post}Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n" + second, false},
	{"empty coding", "{post}Transfer-Encoding:\r\nContent-Length: 5\r\n\r\nhello", false},
	{"chunks in HTTP/1.0", "POST /a/{mark} HTTP/1.0\r\nHost: same.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + second, false},
	{"space before the colon", "{post}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + second, false},
	{"space before the length's colon", "{post}Content-Length : 5\r\n\r\nhello" + second, false},
	{"tab before the colon", "{post}Transfer-Encoding\t: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + second, false},
	{"folded line", "{get}X-Fold: a\r\n b\r\n\r\n", false},
	{"folded coding", "{post}Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + second, false},
	{"folded length", "{post}Content-Length: 5\r\n 0\r\n\r\nhello" + second, false},
	{"space before the first header", "POST /a/{mark} HTTP/1.1\r\n Content-Length: 5\r\nHost: same.test\r\n\r\nhello", false},
	{"bare LF", "GET /a/{mark} HTTP/1.1\nHost: same.test\n\n", false},
	{"bare LF in one header", "{post}X-A: b\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + second, false},
	{"bare CR in a header", "{post}X-A: b\rTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + second, false},
	{"NUL in a value", "{get}X-A: b\x00c\r\n\r\n", false},
	{"NUL in a name", "{get}X-A\x00: b\r\n\r\n", false},
	{"8 bit in a name", "{get}X-\xc3\xa9: b\r\n\r\n", false},
	{"8 bit in a value", "{get}X-A: \xc3\xa9\xff\r\n\r\n", true},
	{"no colon", "{get}Transfer-Encoding\r\n\r\n", false},
	{"empty name", "{get}: x\r\n\r\n", false},
	{"two hosts", "GET /a/{mark} HTTP/1.1\r\nHost: same.test\r\nHost: evil.test\r\n\r\n", false},
	{"no host", "GET /a/{mark} HTTP/1.1\r\n\r\n", false},
	{"chunk extension", "{post}Transfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0;c\r\n\r\n", true},
	{"quoted chunk extension", "{post}Transfer-Encoding: chunked\r\n\r\n5;a=\"0\\\";\"\r\nhello\r\n0\r\n\r\n", false},
	{"LF in a chunk extension", "{post}Transfer-Encoding: chunked\r\n\r\n5;\nxx\r\nhello\r\n0\r\n\r\n" + second, false},
	{"CR in a chunk extension", "{post}Transfer-Encoding: chunked\r\n\r\n5;a\rb\r\nhello\r\n0\r\n\r\n" + second, false},
	{"long chunk extension", "{post}Transfer-Encoding: chunked\r\n\r\n5;" + strings.Repeat("x", 20000) + "\r\nhello\r\n0\r\n\r\n", false},
	{"chunk size with a prefix", "{post}Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n" + second, false},
	{"signed chunk size", "{post}Transfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n" + second, false},
	{"negative chunk size", "{post}Transfer-Encoding: chunked\r\n\r\n-1\r\nhello\r\n0\r\n\r\n" + second, false},
	{"underscore in a chunk size", "{post}Transfer-Encoding: chunked\r\n\r\n0_5\r\nhello\r\n0\r\n\r\n" + second, false},
	{"chunk size overflows", "{post}Transfer-Encoding: chunked\r\n\r\n10000000000000005\r\nhello\r\n0\r\n\r\n" + second, false},
	{"chunk size wraps to zero", "{post}Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n\r\n" + second, false},
	{"chunk size with zeros", "{post}Transfer-Encoding: chunked\r\n\r\n00000005\r\nhello\r\n0\r\n\r\n", true},
	{"space after a chunk size", "{post}Transfer-Encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\n", false},
	{"space before a chunk size", "{post}Transfer-Encoding: chunked\r\n\r\n 5\r\nhello\r\n0\r\n\r\n", false},
	{"empty chunk size", "{post}Transfer-Encoding: chunked\r\n\r\n\r\nhello\r\n0\r\n\r\n" + second, false},
	{"bare LF after a chunk size", "{post}Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n" + second, false},
	{"bare LF after a chunk", "{post}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\n0\r\n\r\n" + second, false},
	{"chunk longer than its size", "{post}Transfer-Encoding: chunked\r\n\r\n2\r\nhello\r\n0\r\n\r\n" + second, false},
	{"chunk without an end", "{post}Transfer-Encoding: chunked\r\n\r\n5\r\nhello0\r\n\r\n" + second, false},
	{"last chunk missing", "{post}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", false},
	{"final line end missing", "{post}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n" + second, false},
	{"bare LF at the end", "{post}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\n\n" + second, false},
	{"framing in a trailer", "{post}Transfer-Encoding: chunked\r\nTrailer: Content-Length\r\n\r\n0\r\nContent-Length: 50\r\nTransfer-Encoding: chunked\r\n\r\n" + second, false},
	{"GET with a body", "{get}Content-Length: 5\r\n\r\nhello{get}\r\n", true},
	{"GET with a request as its body", "{get}Content-Length: {len}\r\n\r\n" + second, true},
	{"GET with chunks", "{get}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n{get}\r\n", true},
	{"HEAD with a body", "HEAD /a/{mark} HTTP/1.1\r\nHost: same.test\r\nContent-Length: {len}\r\n\r\n" + second, true},
	{"expectation, no body", "{post}Expect: 100-continue\r\nContent-Length: {len}\r\n\r\n" + second, true},
	{"unknown expectation", "{post}Expect: 200-ok\r\nContent-Length: 5\r\n\r\nhello", false},
	{"connection names the length", "{post}Connection: Content-Length\r\nContent-Length: {len}\r\n\r\n" + second, true},
	{"connection names the coding", "{post}Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", true},
	{"upgrade to h2c", "{get}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n" + second, false},
	{"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + second, false},
	{"HTTP/0.9", "GET /a/{mark}\r\n\r\n", false},
	{"HTTP/1.2", "GET /a/{mark} HTTP/1.2\r\nHost: same.test\r\n\r\n", false},
	{"HTTP/2.0 in words", "GET /a/{mark} HTTP/2.0\r\nHost: same.test\r\n\r\n", false},
	{"two spaces", "GET  /a/{mark} HTTP/1.1\r\nHost: same.test\r\n\r\n", false},
	{"tab in the request line", "GET\t/a/{mark}\tHTTP/1.1\r\nHost: same.test\r\n\r\n", false},
	{"version twice", "GET /a/{mark} HTTP/1.1 HTTP/1.1\r\nHost: same.test\r\n\r\n", false},
}

// bytesFor spells a case.
func (c framingCase) bytesFor(mark string) string {
	start := func(method string) string { return method + " /a/" + mark + " HTTP/1.1\r\nHost: same.test\r\n" }
	smuggled := strings.ReplaceAll(second, "{mark}", mark)
	return strings.NewReplacer("{get}", start("GET"), "{post}", start("POST"), "{mark}", mark, "{len}", fmt.Sprint(len(smuggled))).Replace(c.wire)
}

// TestIntegrityFramingIsNoLooserThanCaddy sends the same bytes to a gateway and to
// the same server without one. The gateway lets through no more requests, and none
// that the other would not have sent in the same words.
func TestIntegrityFramingIsNoLooserThanCaddy(t *testing.T) {
	t.Parallel()
	guarded := startSite(t, siteConfig{Rules: "\n* /** public", Host: "same.test"}, nil)
	bare, port := startSpy(t), freePort(t)
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	startMoat(t, fmt.Sprintf("{\n\tadmin {$MOAT_ADMIN}\n\tpersist_config off\n\tauto_https off\n}\nhttp://same.test:%d {\n\tbind 127.0.0.1\n\treverse_proxy %s\n}\n",
		port, bare.Addr), options{Ready: []string{addr}})
	// A spy never learns that a client would have gone on; each case is silent for a while.
	var wg sync.WaitGroup
	slots := make(chan struct{}, 16)
	for i, c := range framingCases {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			wire := c.bytesFor(fmt.Sprintf("frame-%d-", i))
			pour(t, guarded.Addr, wire)
			pour(t, addr, wire)
		})
	}
	wg.Wait()
	arrived := 0
	for i, c := range framingCases {
		t.Run(c.name, func(t *testing.T) {
			mark := fmt.Sprintf("frame-%d-", i)
			through, allowed := mentioning(guarded.Spy, mark), mentioning(bare, mark)
			arrived += len(through)
			compareFramed(t, through, allowed)
			if c.same && (len(through) != len(allowed) || len(through) == 0) {
				t.Errorf("%d requests arrived behind the gateway, %d without it; want the same and some", len(through), len(allowed))
			}
			if len(through) != len(allowed) {
				t.Logf("stricter: %d instead of %d", len(through), len(allowed))
			}
		})
	}
	t.Logf("%d cases, %d requests reached the guarded upstream, %d the other", len(framingCases), arrived, len(bare.requests()))
	if n := len(guarded.Spy.requests()); n != arrived {
		t.Errorf("%d requests arrived, %d of them from a case", n, arrived)
	}
}

// pour writes bytes and reads until the server closes or has been silent.
func pour(t *testing.T, addr, wire string) {
	conn, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		t.Error(err)
		return
	}
	defer func() { _ = conn.Close() }()
	// The server may close before it has read everything.
	_, _ = conn.Write([]byte(wire))
	buf := make([]byte, 32<<10)
	for {
		_ = conn.SetReadDeadline(time.Now().Add(1500 * time.Millisecond))
		if _, err := conn.Read(buf); err != nil {
			return
		}
	}
}

// mentioning returns what arrived with the mark anywhere in it.
func mentioning(s *spy, mark string) []recorded {
	return slices.DeleteFunc(s.requests(), func(r recorded) bool {
		return !bytes.Contains(r.Head, []byte(mark)) && !bytes.Contains(r.Body, []byte(mark))
	})
}

// compareFramed wants each request that passed the gateway among those that
// passed without it, in order.
func compareFramed(t *testing.T, through, allowed []recorded) {
	t.Helper()
	next := 0
	for _, r := range through {
		found := slices.IndexFunc(allowed[min(next, len(allowed)):], func(a recorded) bool { return wording(a) == wording(r) })
		if found < 0 {
			t.Errorf("only the gateway sent\n%s\nwithout it\n%s", wording(r), strings.Join(wordings(allowed), "\n---\n"))
			return
		}
		next += found + 1
	}
}

func wordings(all []recorded) []string {
	var out []string
	for _, r := range all {
		out = append(out, wording(r))
	}
	return out
}

// wording is a request but for the order of its headers and what a gateway adds
// or takes off: the request ID, hop-by-hop headers, and trailers.
func wording(r recorded) string {
	var lines []string
	for _, h := range r.Header {
		switch name := strings.ToLower(h[0]); name {
		case "x-request-id", "trailer", "connection", "upgrade", "http2-settings":
		default:
			lines = append(lines, fmt.Sprintf("%s: %q", name, h[1]))
		}
	}
	slices.Sort(lines)
	first, _, _ := bytes.Cut(r.Head, []byte("\r\n"))
	return fmt.Sprintf("%q\n%s\n%q", first, strings.Join(lines, "\n"), r.Body)
}
