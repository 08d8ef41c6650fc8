package headers

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
)

// coded is a text in a coding; "raw" is deflate without the header of zlib.
func coded(t *testing.T, coding, text string) string {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	switch coding {
	case "gzip", "x-gzip":
		w = gzip.NewWriter(&b)
	case "deflate":
		w = zlib.NewWriter(&b)
	case "raw":
		w, _ = flate.NewWriter(&b, flate.BestCompression)
	case "br":
		w = brotli.NewWriter(&b)
	case "zstd":
		w, _ = zstd.NewWriter(&b)
	default:
		return text
	}
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// texts are a short page, one that compresses to nothing, and one that does not compress.
func texts() []string {
	random := rand.New(rand.NewPCG(5, 6))
	noise := make([]byte, 100_000)
	for i := range noise {
		noise[i] = byte(random.IntN(256))
	}
	return []string{"x", twoScripts, twoScripts + strings.Repeat("a", 1_000_000), twoScripts + string(noise)}
}

func TestEveryCodingIsUndoneHoweverItArrives(t *testing.T) {
	for coding, name := range map[string]string{"gzip": "GZip ", "x-gzip": "x-gzip", "deflate": "deflate", "raw": "deflate", "br": "br", "zstd": "zstd", "none": "identity"} {
		for _, text := range texts() {
			body := coded(t, coding, text)
			for _, src := range []io.Reader{strings.NewReader(body), iotest.OneByteReader(strings.NewReader(body))} {
				resp := &http.Response{Header: http.Header{"Content-Encoding": {name}}, Body: io.NopCloser(src)}
				if err := decode(resp); err != nil {
					t.Fatalf("%s, %d bytes: %v", coding, len(text), err)
				}
				got, err := io.ReadAll(resp.Body)
				if err != nil || string(got) != text || resp.Body.Close() != nil {
					t.Errorf("%s: %d bytes of %d, %v", coding, len(got), len(text), err)
				}
				if resp.Header.Get("Content-Encoding") != "" && coding != "none" {
					t.Errorf("%s: %v", coding, resp.Header)
				}
			}
		}
	}
}

func TestWhatIsNotOfItsCodingLosesNothing(t *testing.T) {
	page := "<!doctype html><title>t</title>" + twoScripts + strings.Repeat("x", 6000) + "END"
	for _, name := range []string{"gzip", "x-gzip", "deflate", "br", "zstd", "rot13"} {
		for actual, body := range map[string]string{"plain": page, "gzip": coded(t, "gzip", page), "zstd": coded(t, "zstd", page), "one byte": "<", "almost gzip": "\x1f\x8b" + page} {
			if strings.HasSuffix(name, "gzip") && actual == "gzip" || name == actual || actual == "one byte" && (name == "deflate" || name == "br") {
				continue
			}
			u := &upstreamAnswer{body: body, header: []string{"Content-Encoding: " + name, "Content-Length: 99", `ETag: "v1"`}}
			h, got := u.ask(t, nonces(), false, http.MethodGet, forPage)
			if got != body || h.Get("Content-Encoding") != name || h.Get("Content-Length") != "99" || h.Get("Etag") != `"v1"` || u.code != nil {
				t.Errorf("%s called %s: %d bytes of %d, %v, %v", actual, name, len(got), len(body), h, u.code)
			}
			if u.logs.FilterMessageSnippet("cannot be brought under the policy").Len() != 1 {
				t.Errorf("%s called %s: logged %v", actual, name, u.logs.All())
			}
		}
	}
}

// Browsers take all members of a gzip body and leave out what is none.
func TestWhatFollowsAGzipBodyIsLeftOut(t *testing.T) {
	page := twoScripts + strings.Repeat("x", 100_000)
	whole := coded(t, "gzip", page)
	broken := iotest.ErrReader(io.ErrUnexpectedEOF)
	for name, row := range map[string]struct {
		src  io.Reader
		want string
		err  error
	}{
		"zeros":                     {strings.NewReader(whole + strings.Repeat("\x00", 40)), page, nil},
		"one byte":                  {strings.NewReader(whole + "\x1f"), page, nil},
		"another member":            {strings.NewReader(whole + coded(t, "gzip", "more")), page + "more", nil},
		"members, byte by byte":     {iotest.OneByteReader(strings.NewReader(whole + whole + "rest")), page + page, nil},
		"data with its end":         {iotest.DataErrReader(strings.NewReader(whole + "rest")), page, nil},
		"broken off behind":         {io.MultiReader(strings.NewReader(whole), broken), page, io.ErrUnexpectedEOF},
		"broken off in the rest":    {io.MultiReader(strings.NewReader(whole+"\x1f\x8b\x08"), broken), page, io.ErrUnexpectedEOF},
		"cut within the body":       {strings.NewReader(whole[:len(whole)-10]), page, io.ErrUnexpectedEOF},
		"cut within another member": {strings.NewReader(whole + whole[:len(whole)-10]), page + page, io.ErrUnexpectedEOF},
	} {
		resp := &http.Response{Header: http.Header{"Content-Encoding": {"gzip"}}, Body: io.NopCloser(row.src)}
		if err := decode(resp); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		if !strings.HasPrefix(row.want, string(got)) || err == nil && string(got) != row.want || !errors.Is(err, row.err) {
			t.Errorf("%s: %d bytes, %v, want %d bytes, %v", name, len(got), err, len(row.want), row.err)
		}
		if n, again := resp.Body.Read(make([]byte, 9)); err == nil && (n != 0 || !errors.Is(again, io.EOF)) {
			t.Errorf("%s: behind the end: %d bytes, %v", name, n, again)
		}
	}
}

// What a decoder has read before it gives up is not lost. The name in the header is
// longer than the library takes.
func TestADecoderThatCannotBeginLosesNothing(t *testing.T) {
	body := "\x1f\x8b\x08\x08\x00\x00\x00\x00\x00\xff" + strings.Repeat("n", 600) + "\x00" + strings.Repeat("x", 9000)
	resp := &http.Response{Header: http.Header{"Content-Encoding": {"gzip"}}, Body: io.NopCloser(iotest.OneByteReader(strings.NewReader(body)))}
	if err := decode(resp); err == nil {
		t.Error("the name is taken")
	}
	if got, err := io.ReadAll(resp.Body); err != nil || string(got) != body || resp.Header.Get("Content-Encoding") != "gzip" {
		t.Errorf("%d bytes of %d, %v, %v", len(got), len(body), err, resp.Header)
	}
}

func TestAnEmptyPageIsOfEveryCoding(t *testing.T) {
	for name := range codings {
		u := &upstreamAnswer{header: []string{"Content-Encoding: " + name}}
		if _, body := u.ask(t, nonces(), false, http.MethodGet, forPage); body != "" || u.logs.Len() != 0 {
			t.Errorf("%s: %q, %v", name, body, u.logs.All())
		}
	}
}
