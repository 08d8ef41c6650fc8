package headers

import (
	"compress/gzip"
	"compress/zlib"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
)

// maxWindow bounds what a decoder of zstd may remember, in bytes (RFC 8878, section
// 3.1.1.1.2, recommends to support 8 MB).
const maxWindow = 8 << 20

// decode makes the body the page itself, for an upstream that compresses although
// nobody asked it to. Whoever asked for a compression gets it by the site's own encode
// handler.
func decode(resp *http.Response) error {
	coding := strings.ToLower(strings.TrimSpace(strings.Join(resp.Header.Values("Content-Encoding"), ",")))
	var plain io.Reader
	var err error
	switch coding {
	case "", "identity":
		return nil
	case "gzip", "x-gzip":
		plain, err = gzip.NewReader(resp.Body)
	case "deflate":
		plain, err = zlib.NewReader(resp.Body)
	case "br":
		plain = brotli.NewReader(resp.Body)
	case "zstd":
		var d *zstd.Decoder
		if d, err = zstd.NewReader(resp.Body, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow)); err == nil {
			plain = d.IOReadCloser()
		}
	default:
		return fmt.Errorf("content encoding %.32q: is none of gzip, deflate, br and zstd", coding)
	}
	if err != nil {
		return fmt.Errorf("content encoding %s: %w", coding, err)
	}
	body := resp.Body
	resp.Body = replay{plain, closers{plain, body}}
	resp.Header.Del("Content-Encoding")
	resp.Header.Del("Content-Length")
	resp.ContentLength = -1
	resp.Uncompressed = true
	if tag := resp.Header.Get("Etag"); tag != "" && !strings.HasPrefix(tag, "W/") {
		resp.Header.Set("Etag", "W/"+tag) // other bytes, the same page
	}
	return nil
}

// closers close a decoder, if it can be closed, and what it reads from.
type closers struct {
	decoder io.Reader
	body    io.Closer
}

// Close implements io.Closer.
func (c closers) Close() error {
	if d, ok := c.decoder.(io.Closer); ok {
		_ = d.Close() // Nothing is lost: it only reads.
	}
	return c.body.Close()
}
