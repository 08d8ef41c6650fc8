//go:build linux

package integration

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
)

const inlinePage = "<!doctype html><title>t</title><style>p{color:red}</style><script>\nlet a = 1 < 2\n</script>" +
	"<script src=/a.js></script><!-- <script>no</script> --><p onclick=\"x()\">text</p>"

// compressed is a page in a content coding.
func compressed(t *testing.T, coding string) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	switch coding {
	case "gzip":
		w = gzip.NewWriter(&b)
	case "deflate":
		w = zlib.NewWriter(&b)
	case "br":
		w = brotli.NewWriter(&b)
	case "zstd":
		w, _ = zstd.NewWriter(&b)
	default:
		return []byte(inlinePage)
	}
	if _, err := io.WriteString(w, inlinePage); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// inlineSite is a site whose upstream answers with the page, coded as the path says.
func inlineSite(t *testing.T, csp, more string) *site {
	t.Helper()
	s := startSite(t, siteConfig{Headers: "headers html {\n csp {\n " + csp + "\n }\n}", Rules: publicRules, Site: more}, nil)
	s.Spy.respond(func(r recorded) []byte {
		u, err := url.Parse(r.Target)
		if err != nil {
			return rawAnswer(400, "")
		}
		coding := u.Query().Get("coding")
		lines := []string{"Content-Type: text/html; charset=utf-8", "ETag: \"v1\"", "Last-Modified: Wed, 21 Oct 2025 07:28:00 GMT", "Accept-Ranges: bytes", "Cache-Control: public, max-age=60"}
		if coding != "" {
			lines = append(lines, "Content-Encoding: "+coding)
		}
		switch u.Path {
		case "/json":
			return rawAnswer(200, `{"a":"<script>"}`, "Content-Type: application/json", "ETag: \"v1\"")
		case "/fresh":
			return []byte("HTTP/1.1 304 Not Modified\r\nETag: \"v1\"\r\n\r\n")
		case "/reflect":
			return rawAnswer(200, inlinePage+u.Query().Get("q"), "Content-Type: text/html; charset=utf-8")
		case "/utf-16":
			return rawAnswer(200, inlinePage, "Content-Type: text/html; charset=utf-16")
		}
		return rawAnswer(200, string(compressed(t, coding)), lines...)
	})
	return s
}

const asksForPage = "Accept: text/html,application/xhtml+xml"

var nonceIn = regexp.MustCompile(` nonce="([A-Za-z0-9_+/=-]{22,})"`)

func TestAPageGetsANonceOfItsOwnInHeaderAndBody(t *testing.T) {
	t.Parallel()
	s := inlineSite(t, "nonce", "encode {\n gzip\n minimum_length 1\n}")
	seen := make(map[string]bool)
	for _, coding := range []string{"", "gzip", "deflate", "br", "zstd"} {
		a := s.get(t, "/?coding="+coding, asksForPage, "If-None-Match: \"v1\"", "If-Modified-Since: Wed, 21 Oct 2025 07:28:00 GMT", "Range: bytes=0-5", "Accept-Encoding: br")
		found := nonceIn.FindAllStringSubmatch(string(a.Body), -1)
		if a.Status != 200 || len(found) != 3 {
			t.Fatalf("%s: status %d, %d nonces in %q", coding, a.Status, len(found), a.Body)
		}
		nonce := found[0][1]
		if seen[nonce] {
			t.Errorf("%s: the nonce of another answer", coding)
		}
		seen[nonce] = true
		csp := a.Header.Get("Content-Security-Policy")
		if !strings.Contains(csp, "script-src 'self' 'nonce-"+nonce+"'") || !strings.Contains(csp, "style-src 'self' 'nonce-"+nonce+"'") {
			t.Errorf("%s: policy %q, nonce %s", coding, csp, nonce)
		}
		if plain := strings.ReplaceAll(string(a.Body), ` nonce="`+nonce+`"`, ""); plain != inlinePage {
			t.Errorf("%s: changed to %q", coding, plain)
		}
		for _, name := range []string{"ETag", "Last-Modified", "Accept-Ranges", "Content-Length", "Content-Encoding"} {
			if v := a.Header.Get(name); v != "" {
				t.Errorf("%s: %s = %q", coding, name, v)
			}
		}
		if v := a.Header.Get("Cache-Control"); v != "private, no-cache" {
			t.Errorf("%s: Cache-Control %q", coding, v)
		}
	}
	for _, r := range s.Spy.requests() {
		if v := r.get("Accept-Encoding"); len(v) != 1 || v[0] != "identity" || len(r.get("If-None-Match"))+len(r.get("Range"))+len(r.get("If-Modified-Since")) > 0 {
			t.Errorf("the upstream got\n%s", r.Head)
		}
	}
	packed := s.get(t, "/", asksForPage, "Accept-Encoding: gzip")
	unzipped, err := gzip.NewReader(bytes.NewReader(packed.Body))
	if packed.Header.Get("Content-Encoding") != "gzip" || err != nil {
		t.Fatalf("the site's encode: %q, %v", packed.Header, err)
	}
	text, err := io.ReadAll(unzipped)
	if err != nil || len(nonceIn.FindAll(text, -1)) != 3 {
		t.Errorf("compressed: %q, %v", text, err)
	}
}

func TestWhatIsNoPageKeepsItsBytesAndHeaders(t *testing.T) {
	t.Parallel()
	s := inlineSite(t, "nonce", "")
	if a := s.get(t, "/json", asksForPage); string(a.Body) != `{"a":"<script>"}` || a.Header.Get("ETag") == "" || strings.Contains(a.Header.Get("Content-Security-Policy"), "nonce-") {
		t.Errorf("JSON: %q, %v", a.Body, a.Header)
	}
	// What a script fetches runs under the policy of its page.
	if a := s.get(t, "/", "Accept: text/html", "Sec-Fetch-Dest: empty"); string(a.Body) != inlinePage || a.Header.Get("ETag") == "" {
		t.Errorf("fetched by a script: %q, %v", a.Body, a.Header)
	}
	if a := s.get(t, "/fresh", "If-None-Match: \"v1\""); a.Status != 304 || a.Header.Get("Content-Security-Policy") != "" {
		t.Errorf("304: %d, %v", a.Status, a.Header)
	}
	if a := s.get(t, "/utf-16", asksForPage); string(a.Body) != inlinePage || strings.Contains(a.Header.Get("Content-Security-Policy"), "nonce-") {
		t.Errorf("UTF-16: %q, %v", a.Body, a.Header)
	}
	if a := s.send(t, "HEAD", "/", "", asksForPage); a.Header.Get("ETag") != "" || !strings.Contains(a.Header.Get("Content-Security-Policy"), "'nonce-") {
		t.Errorf("HEAD: %v", a.Header)
	}
	if a := s.get(t, "/?coding=rot13", asksForPage); string(a.Body) != inlinePage || strings.Contains(a.Header.Get("Content-Security-Policy"), "nonce-") || !strings.Contains(s.Log(), "rot13") {
		t.Errorf("unknown coding: %q, %v", a.Body, a.Header)
	}
}

func TestAStaticPageIsAllowedByItsHashes(t *testing.T) {
	t.Parallel()
	s := inlineSite(t, "hash", "")
	for _, coding := range []string{"", "br"} {
		a := s.get(t, "/?coding="+coding, asksForPage)
		csp := a.Header.Get("Content-Security-Policy")
		// Of "\nlet a = 1 < 2\n" and "p{color:red}".
		if !regexp.MustCompile(`script-src 'self' 'sha256-[^ ]{44}'; style-src 'self' 'sha256-[^ ]{44}'`).MatchString(csp) {
			t.Errorf("%s: policy %q", coding, csp)
		}
		if string(a.Body) != inlinePage || a.Header.Get("ETag") == "" || a.Header.Get("Cache-Control") != "public, max-age=60" {
			t.Errorf("%s: %q, %v", coding, a.Body, a.Header)
		}
	}
	s.reload(t, func(c *siteConfig) { c.Headers = "headers html {\n csp {\n hash 64B\n }\n}" })
	if a := s.get(t, "/", asksForPage); string(a.Body) != inlinePage || strings.Contains(a.Header.Get("Content-Security-Policy"), "sha256-") {
		t.Errorf("a page over the bound: %q, %v", a.Body, a.Header)
	}
}

func TestOnlyPinnedScriptsGetTheNonce(t *testing.T) {
	t.Parallel()
	pins := filepath.Join(privateDir(t), "pins")
	s := inlineSite(t, "pin "+pins+" learn", "")
	if a := s.get(t, "/", asksForPage); len(nonceIn.FindAll(a.Body, -1)) != 3 {
		t.Fatalf("while learning: %q", a.Body)
	}
	await(t, 10*time.Second, "the file of hashes", func() bool {
		text, err := os.ReadFile(pins)
		return err == nil && strings.Count(string(text), "sha256-") == 3
	})
	s.reload(t, func(c *siteConfig) { c.Headers = fmt.Sprintf("headers html {\n csp {\n pin %s\n }\n}", pins) })
	a := s.get(t, "/reflect?q="+url.QueryEscape("<script>alert(1)</script><style>*{}</style>"), asksForPage)
	if n := len(nonceIn.FindAll(a.Body, -1)); n != 3 || !bytes.HasSuffix(a.Body, []byte("<script>alert(1)</script><style>*{}</style>")) {
		t.Errorf("%d nonces in %q", n, a.Body)
	}
	s.reload(t, func(c *siteConfig) { c.Headers = "headers html {\n csp {\n nonce\n }\n}" })
	if a := s.get(t, "/reflect?q="+url.QueryEscape("<script>alert(1)</script>"), asksForPage); len(nonceIn.FindAll(a.Body, -1)) != 4 {
		t.Errorf("without pins what is injected gets the nonce too, as docs/csp.md says: %q", a.Body)
	}
	s.Config.Headers = fmt.Sprintf("headers html {\n csp {\n pin %s\n }\n}", pins+".none")
	s.write(t, s.Config.render(s.Issuer))
	if out, exit := s.validate(t); exit == 0 || !strings.Contains(out, "has no hash") {
		t.Errorf("an empty file of hashes: exit %d\n%s", exit, lastLines(out, 3))
	}
}

// A page that goes through the rewriter takes no more memory than another body.
func TestAHugePageStaysOutOfMemory(t *testing.T) {
	t.Parallel()
	upstream := startUpstream(t, streamUpstream)
	s := startSite(t, siteConfig{Headers: "headers html {\n csp {\n nonce\n }\n}", Rules: publicRules, Upstream: upstream.Addr}, nil)
	if a := s.get(t, "/page/markup/1", asksForPage); a.Status != 200 || len(nonceIn.FindAll(a.Body, -1)) < 10_000 {
		t.Fatalf("status %d, %d bytes", a.Status, len(a.Body))
	}
	before := s.statusKiB(t, "VmRSS")
	for _, kind := range []string{"script", "markup"} {
		if n := s.discard(t, "/page/"+kind+"/40"); n < 100<<20 {
			t.Errorf("%s: %d bytes", kind, n)
		}
	}
	if grown := s.statusKiB(t, "VmHWM") - before; grown > flatKiB {
		t.Errorf("the gateway grew by %d KiB, want at most %d", grown, flatKiB)
	}
}

// discard downloads a page as a browser asks for it, and returns its size.
func (s *site) discard(t testing.TB, path string) int64 {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.Addr+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "text/html")
	req.Header.Set("Accept-Encoding", "identity")
	resp, err := s.web.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	n, err := io.Copy(io.Discard, resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || resp.ContentLength >= 0 {
		t.Fatalf("%s: status %d, length %d, %d bytes, %v", path, resp.StatusCode, resp.ContentLength, n, err)
	}
	return n
}
