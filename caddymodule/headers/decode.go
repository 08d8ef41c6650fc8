package headers

import (
	"bufio"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"errors"
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

// opener begins to undo a coding.
type opener func(io.Reader) (io.Reader, error)

// codings are the ways in which a body may be coded, by Content-Encoding. Browsers take
// deflate with the header of zlib, as it should be, and without, as some servers send it.
var codings = map[string][]opener{
	"gzip":    {gunzip},
	"x-gzip":  {gunzip},
	"deflate": {inflate, inflateRaw},
	"br":      {unbrotli},
	"zstd":    {unzstd},
}

func inflate(r io.Reader) (io.Reader, error)    { return zlib.NewReader(r) }
func inflateRaw(r io.Reader) (io.Reader, error) { return flate.NewReader(r), nil }
func unbrotli(r io.Reader) (io.Reader, error)   { return brotli.NewReader(r), nil }

func gunzip(r io.Reader) (io.Reader, error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, err
	}
	z.Multistream(false)
	return &members{Reader: z, body: r}, nil
}

// members reads all members of a gzip body. What follows the last and is none is left
// out, as browsers do: some servers fill up their blocks.
type members struct {
	*gzip.Reader
	body  io.Reader
	ended bool
}

// Read implements io.Reader.
func (m *members) Read(p []byte) (int, error) {
	if m.ended {
		return 0, io.EOF
	}
	n, err := m.Reader.Read(p)
	if n > 0 || !errors.Is(err, io.EOF) {
		return n, unlessEnd(err, n)
	}
	if m.Reset(m.body) == nil {
		m.Multistream(false)
		return 0, nil
	}
	// A body that broke off here says so.
	if _, err := io.Copy(io.Discard, m.body); err != nil {
		return 0, err
	}
	m.ended = true
	return 0, io.EOF
}

// unlessEnd leaves out the end of a member that came together with its last bytes.
func unlessEnd(err error, n int) error {
	if n > 0 && errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func unzstd(r io.Reader) (io.Reader, error) {
	d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
	if err != nil {
		return nil, err
	}
	return d.IOReadCloser(), nil
}

// coding is the body's coding in lower case; empty for none.
func coding(h http.Header) string {
	name := strings.ToLower(strings.TrimSpace(strings.Join(h.Values("Content-Encoding"), ",")))
	if name == "identity" {
		return ""
	}
	return name
}

// decode makes the body the page itself, for an upstream that compresses although
// nobody asked it to. Whoever asked for a compression gets it by the site's own encode
// handler. With an error the body is as it came, nothing of it lost.
func decode(resp *http.Response) error {
	name := coding(resp.Header)
	if name == "" {
		return nil
	}
	openers := codings[name]
	if openers == nil {
		return fmt.Errorf("content encoding %.32q: is none of gzip, deflate, br and zstd", name)
	}
	body := bufio.NewReaderSize(resp.Body, 4096)
	resp.Body = replay{body, resp.Body}
	_, _ = body.Peek(headerOfGzip) // Fewer are judged as well, and whoever reads on meets the error.
	first, _ := body.Peek(body.Buffered())
	if len(first) == 0 {
		return nil // Nothing has no code.
	}
	for _, open := range openers {
		if !opens(open, first) {
			continue
		}
		source := &recorder{Reader: body, on: true}
		decoder, err := open(source)
		if err != nil {
			resp.Body = replay{io.MultiReader(bytes.NewReader(source.kept), body), resp.Body}
			return fmt.Errorf("content encoding %s: %w", name, err)
		}
		source.on, source.kept = false, nil
		resp.Body = replay{decoder, closers{decoder, resp.Body}}
		plain(resp)
		return nil
	}
	return fmt.Errorf("content encoding %s: the body is coded in another way, or not at all", name)
}

// recorder keeps what was read while a decoder looked at the beginning. It has
// ReadByte, so that a decoder reads no further than it must.
type recorder struct {
	*bufio.Reader
	on   bool
	kept []byte
}

// Read implements io.Reader.
func (r *recorder) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if r.on {
		r.kept = append(r.kept, p[:n]...)
	}
	return n, err
}

// ReadByte implements io.ByteReader.
func (r *recorder) ReadByte() (byte, error) {
	c, err := r.Reader.ReadByte()
	if r.on && err == nil {
		r.kept = append(r.kept, c)
	}
	return c, err
}

// headerOfGzip is the longest beginning that a coding is known by, in bytes.
const headerOfGzip = 10

// opens reports whether the beginning of a body is one of its coding. Not every coding
// begins with a mark, so the beginning is decoded, but not more of it than a page's.
func opens(open opener, first []byte) bool {
	const most = 64 << 10
	r, err := open(bytes.NewReader(first))
	if err == nil {
		defer func() { _ = closers{r, io.NopCloser(nil)}.Close() }()
		_, err = io.CopyN(io.Discard, r, most)
	}
	more := len(first) >= headerOfGzip // Less is the whole body.
	return err == nil || errors.Is(err, io.EOF) || more && errors.Is(err, io.ErrUnexpectedEOF)
}

// plain makes the header that of a body which is not coded.
func plain(resp *http.Response) {
	resp.Header.Del("Content-Encoding")
	resp.Header.Del("Content-Length")
	resp.ContentLength = -1
	resp.Uncompressed = true
	if tag := resp.Header.Get("Etag"); tag != "" && !strings.HasPrefix(tag, "W/") {
		resp.Header.Set("Etag", "W/"+tag) // other bytes, the same page
	}
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
