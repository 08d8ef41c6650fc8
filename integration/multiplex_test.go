//go:build linux

package integration

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// h2Fields are the header fields of a GET, with any :path at all.
func h2Fields(method, path, authority string, more ...hpack.HeaderField) []hpack.HeaderField {
	return append([]hpack.HeaderField{
		{Name: ":method", Value: method}, {Name: ":scheme", Value: "https"},
		{Name: ":authority", Value: authority}, {Name: ":path", Value: path},
	}, more...)
}

// rawH2 sends one HEADERS frame and returns the status of the answer, or "reset"
// when the server ended the stream or the connection instead.
func rawH2(t testing.TB, addr string, config *tls.Config, fields []hpack.HeaderField) string {
	t.Helper()
	config = config.Clone()
	config.NextProtos = []string{"h2"}
	dialer := &tls.Dialer{NetDialer: &net.Dialer{Timeout: 10 * time.Second}, Config: config}
	conn, err := dialer.DialContext(context.Background(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if err := sendH2(conn, framer, fields); err != nil {
		t.Fatal(err)
	}
	return readH2(t, framer)
}

func sendH2(conn io.Writer, framer *http2.Framer, fields []hpack.HeaderField) error {
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		return err
	}
	if err := framer.WriteSettings(); err != nil {
		return err
	}
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, f := range fields {
		if err := encoder.WriteField(f); err != nil {
			return err
		}
	}
	return framer.WriteHeaders(http2.HeadersFrameParam{
		StreamID: 1, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true,
	})
}

func readH2(t testing.TB, framer *http2.Framer) string {
	t.Helper()
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			if errors.Is(err, io.EOF) {
				return "reset"
			}
			return fmt.Sprintf("reset (%v)", err)
		}
		switch f := frame.(type) {
		case *http2.MetaHeadersFrame:
			return f.PseudoValue("status")
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return "reset"
		case *http2.SettingsFrame:
			if !f.IsAck() {
				if err := framer.WriteSettingsAck(); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

// newH3Client speaks HTTP/3 to the address and nothing else.
func newH3Client(t testing.TB, g *gateway, addr string) *client {
	t.Helper()
	transport := &http3.Transport{
		TLSClientConfig: clientTLS(t, g),
		Dial: func(ctx context.Context, _ string, tc *tls.Config, qc *quic.Config) (*quic.Conn, error) {
			return quic.DialAddr(ctx, addr, tc, qc)
		},
	}
	t.Cleanup(func() { _ = transport.Close() })
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return &client{
		Base:   "https://localhost:" + port,
		Client: &http.Client{Transport: transport, Timeout: 20 * time.Second},
	}
}
