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
	"strconv"
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

// disguised is an injected script whose source is pinned as the bytes have it, and
// another one as browsers read it in ISO-2022-JP.
const disguised = "<meta charset=iso-2022-jp><script x=\"\x1b$B\"src=\"/a.js\"yy='\x1b(B\"src=data:,alert(1) '></script>"

// manyStyles is a page with that many styles, each another one.
func manyStyles(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "<style>%d</style>", i)
	}
	return b.String()
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
		case "/bare":
			return rawAnswer(200, inlinePage, "Content-Type: text/html; charset=utf-8")
		case "/plain":
			// Its charset is not named, and it calls itself compressed.
			return rawAnswer(200, inlinePage+strings.Repeat(" ", 6000), "Content-Type: text/html", "Content-Encoding: gzip")
		case "/guess":
			return rawAnswer(200, inlinePage+strings.Repeat(" ", 4096)+disguised, "Content-Type: text/html")
		case "/styles":
			return rawAnswer(200, manyStyles(60_000), "Content-Type: text/html; charset=utf-8")
		case "/part":
			return rawAnswer(206, "<script", "Content-Type: text/html", "Content-Range: bytes 0-6/99", "ETag: \"v1\"")
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
		a := s.get(t, "/?coding="+coding, asksForPage, "If-None-Match: \"v1\"", "If-Modified-Since: Wed, 21 Oct 2025 07:28:00 GMT", "Accept-Encoding: br")
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
		for _, name := range []string{"ETag", "Last-Modified", "Accept-Ranges", "Content-Encoding"} {
			if v := a.Header.Get(name); v != "" {
				t.Errorf("%s: %s = %q", coding, name, v)
			}
		}
		// The upstream's is gone; the server may write that of a short page itself.
		if v := a.Header.Get("Content-Length"); v != "" && v != strconv.Itoa(len(a.Body)) {
			t.Errorf("%s: Content-Length %s of %d bytes", coding, v, len(a.Body))
		}
		if v := a.Header.Get("Cache-Control"); v != "private, no-cache" {
			t.Errorf("%s: Cache-Control %q", coding, v)
		}
	}
	for _, r := range s.Spy.requests() {
		if v := r.get("Accept-Encoding"); len(v) != 1 || v[0] != "identity" || len(r.get("If-None-Match"))+len(r.get("If-Modified-Since")) > 0 {
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
	if a := s.get(t, "/", "Accept: text/html", "Sec-Fetch-Dest: empty"); string(a.Body) != inlinePage || a.Header.Get("ETag") == "" || a.Header.Get("Vary") != "Accept, Sec-Fetch-Dest" {
		t.Errorf("fetched by a script: %q, %v", a.Body, a.Header)
	}
	if a := s.get(t, "/part", asksForPage, "Range: bytes=0-6"); a.Status != 206 || string(a.Body) != "<script" || a.Header.Get("ETag") == "" {
		t.Errorf("a part: %d, %q, %v", a.Status, a.Body, a.Header)
	}
	if a := s.get(t, "/plain", asksForPage); !strings.HasPrefix(string(a.Body), inlinePage) || len(a.Body) != len(inlinePage)+6000 || a.Header.Get("Content-Encoding") != "gzip" {
		t.Errorf("not compressed as it says: %d bytes, %v", len(a.Body), a.Header)
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
	if a := s.get(t, "/?coding=rot13", asksForPage); string(a.Body) != inlinePage || strings.Contains(a.Header.Get("Content-Security-Policy"), "nonce-") {
		t.Errorf("unknown coding: %q, %v", a.Body, a.Header)
	}
	s.says(t, "rot13")
	s.says(t, "coded in another way")
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
	begin := time.Now()
	if a := s.get(t, "/styles", asksForPage); strings.Contains(a.Header.Get("Content-Security-Policy"), "sha256-") {
		t.Errorf("too many styles: a policy of %d bytes", len(a.Header.Get("Content-Security-Policy")))
	}
	s.says(t, "too_many_hashes")
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("too many styles took %s", took)
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
	if a := s.get(t, "/guess", asksForPage); len(nonceIn.FindAll(a.Body, -1)) != 3 || !bytes.HasSuffix(a.Body, []byte(disguised)) {
		t.Errorf("a charset that browsers guess: %q", a.Body)
	}
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

// A page with a nonce is nobody's who asks again, whatever the upstream and the operator
// say or leave out.
func TestAPageWithANonceIsNotStored(t *testing.T) {
	t.Parallel()
	s := inlineSite(t, "nonce", "")
	token := bearer(s.Issuer.as(t, "u-1", "user"))
	for _, cache := range []string{"", "cache private", "cache off"} {
		s.reload(t, func(c *siteConfig) {
			c.Headers = "headers html {\n csp {\n nonce\n }\n " + cache + "\n}"
			c.Rules = "\n* /bare authenticated" + publicRules
		})
		want := "private, no-cache"
		if a := s.get(t, "/", asksForPage); a.Header.Get("Cache-Control") != want || a.Header.Get("Vary") != "Accept, Sec-Fetch-Dest" {
			t.Errorf("%q: of nobody: %v", cache, a.Header)
		}
		if cache == "" {
			want = "no-store"
		}
		if a := s.get(t, "/bare", asksForPage, token); a.Status != 200 || len(nonceIn.FindAll(a.Body, -1)) != 3 || a.Header.Get("Cache-Control") != want {
			t.Errorf("%q: of a caller: %d, %v, want %s", cache, a.Status, a.Header, want)
		}
	}
	if a := s.send(t, "POST", "/", "a=b", asksForPage, "Content-Type: application/x-www-form-urlencoded"); len(nonceIn.FindAll(a.Body, -1)) != 3 {
		t.Errorf("a form that is shown again: %q", a.Body)
	}
}

func TestAHashThatIsTakenOutOfTheFileCountsNoMore(t *testing.T) {
	t.Parallel()
	pins := filepath.Join(privateDir(t), "pins")
	s := inlineSite(t, "pin "+pins+" learn", "")
	s.get(t, "/", asksForPage)
	await(t, 10*time.Second, "the file of hashes", func() bool {
		text, err := os.ReadFile(pins)
		return err == nil && strings.Count(string(text), "sha256-") == 3
	})
	s.reload(t, func(c *siteConfig) { c.Headers = fmt.Sprintf("headers html {\n csp {\n pin %s\n }\n}", pins) })
	text, err := os.ReadFile(pins)
	if err != nil {
		t.Fatal(err)
	}
	reload := func(text string) (string, int) {
		if err := os.WriteFile(pins, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return s.moat(t, "reload", "--config", s.File, "--adapter", "caddyfile", "--address", s.adminAddress)
	}
	lines := strings.SplitAfter(string(text), "\n")
	if out, exit := reload(strings.Join(lines[:3], "")); exit != 0 {
		t.Fatalf("exit %d: %s", exit, out)
	}
	if a := s.get(t, "/", asksForPage); len(nonceIn.FindAll(a.Body, -1)) != 2 {
		t.Errorf("with two hashes left: %q", a.Body)
	}
	if out, exit := reload(string(text[:99])); exit == 0 || !strings.Contains(out, "may have been cut") {
		t.Errorf("a file that is cut: exit %d: %s", exit, out)
	}
	if a := s.get(t, "/", asksForPage); len(nonceIn.FindAll(a.Body, -1)) != 2 {
		t.Errorf("behind a file that is cut: %q", a.Body)
	}
}

// says waits for words of the log, which may be on their way when the answer is there.
func (s *site) says(t *testing.T, words string) {
	t.Helper()
	await(t, 10*time.Second, "a line with "+words, func() bool { return strings.Contains(s.Log(), words) })
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
		if n, length := openPage(t, s.Addr, "/page/"+kind+"/40"); n < 100<<20 || length >= 0 {
			t.Errorf("%s: %d bytes, length %d", kind, n, length)
		}
	}
	if grown := s.statusKiB(t, "VmHWM") - before; grown > flatKiB {
		t.Errorf("the gateway grew by %d KiB, want at most %d", grown, flatKiB)
	}
}

// openPage asks for a page as a browser does, and returns its size and the length that
// was told, -1 for none.
func openPage(t testing.TB, address, path string) (n, length int64) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "text/html")
	req.Header.Set("Accept-Encoding", "identity")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	n, err = io.Copy(io.Discard, resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: status %d, %d bytes, %v", path, resp.StatusCode, n, err)
	}
	return n, resp.ContentLength
}
