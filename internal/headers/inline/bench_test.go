package inline_test

import (
	"bytes"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/internal/headers/inline"
)

// huge and dense are pages of 2.7 MB with one inline script, as single-file
// applications have. In a minified script about one byte in 250 is a '<'; the
// dense one has ten times as many.
var (
	huge  = single(strings.Repeat("function f(a,b){return a.length>b?g(a,b):h(b)}", 4) + "for(var i=0;i<9;i++)g('<p>')\n")
	dense = single("if(a.length<b)return'<p>'+a;i<9\n")
)

func single(line string) string {
	return "<!DOCTYPE html><html><head><title>x</title></head><body><p>y</p><script>" +
		strings.Repeat(line, 2_700_000/len(line)) + "</script></body></html>"
}

// markup is a page of 2.7 MB that is nothing but tags.
var markup = strings.Repeat(`<div class="a b c"><a href="/x?y=1" title='z'>text and more</a><script>x()</script></div>`+"\n", 31_000)

// pipe sends a page through the kernel, as a connection would.
func pipe(b *testing.B, page []byte) *os.File {
	b.Helper()
	out, in, err := os.Pipe()
	if err != nil {
		b.Fatal(err)
	}
	go func() {
		_, _ = in.Write(page)
		_ = in.Close()
	}()
	return out
}

// opaque keeps io.Copy from taking a way around Read.
type opaque struct{ io.Reader }

type sink struct{}

func (sink) Write(p []byte) (int, error) { return len(p), nil }

func BenchmarkPage(b *testing.B) {
	for name, page := range map[string]string{"script": huge, "dense": dense, "markup": markup} {
		body := []byte(page)
		pins := pinned(b, page)
		big := inline.NewPins(0)
		rewrite(b, strings.NewReader(page), inline.Config{Pins: big, Learn: true, MaxContent: 4 << 20})
		for _, way := range []struct {
			name string
			wrap func(io.Reader) io.Reader
		}{
			{"copied", func(r io.Reader) io.Reader { return r }},
			{"nonces", func(r io.Reader) io.Reader { return reader(b, r, inline.Config{}) }},
			{"pins", func(r io.Reader) io.Reader { return reader(b, r, inline.Config{Pins: pins}) }},
			{"pins4MiB", func(r io.Reader) io.Reader { return reader(b, r, inline.Config{Pins: big, MaxContent: 4 << 20}) }},
		} {
			b.Run(name+"/"+way.name, func(b *testing.B) {
				b.SetBytes(int64(len(body)))
				b.ReportAllocs()
				buffer := make([]byte, 32<<10)
				for b.Loop() {
					src := pipe(b, body)
					if _, err := io.CopyBuffer(sink{}, opaque{way.wrap(opaque{src})}, buffer); err != nil {
						b.Fatal(err)
					}
					_ = src.Close()
				}
			})
		}
	}
}

// A page costs the rewriter and a few buffers, not something for each script.
func TestAPageCostsFewAllocations(t *testing.T) {
	body := []byte(markup[:300_000])
	buffer := make([]byte, 32<<10)
	got := testing.AllocsPerRun(5, func() {
		r := reader(t, opaque{bytes.NewReader(body)}, inline.Config{})
		if _, err := io.CopyBuffer(sink{}, opaque{r}, buffer); err != nil {
			t.Fatal(err)
		}
	})
	if got > 30 {
		t.Errorf("%.0f allocations for a page", got)
	}
}

// Every Read may become a packet, so the nonces travel with what they stand in.
func TestNoncesNeedNoReadsOfTheirOwn(t *testing.T) {
	page := strings.Repeat("<p>"+strings.Repeat("text ", 200)+"<script>x()</script>", 500)
	count := func(src io.Reader) (reads int) {
		buffer := make([]byte, 32<<10)
		for {
			n, err := src.Read(buffer)
			if n > 0 {
				reads++
			}
			if err != nil {
				return reads
			}
		}
	}
	plain := count(strings.NewReader(page))
	if got := count(reader(t, strings.NewReader(page), inline.Config{})); got > plain+plain/4 {
		t.Errorf("%d reads for a page that takes %d without nonces", got, plain)
	}
}

// endless repeats a page.
type endless struct {
	page string
	at   int
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.page[e.at:])
	e.at = (e.at + n) % len(e.page)
	return n, nil
}

// What a page may make the rewriter remember has a bound, however long it is.
func TestMemoryStaysFlat(t *testing.T) {
	for name, page := range map[string]string{
		"script": "<script>" + strings.Repeat("x < y", 1000), "tag": "<script " + strings.Repeat("x", 5000),
		"scripts": "<script></script>", "attributes": "<script" + strings.Repeat(" a", 100) + "></script>",
		"depth": "<svg><g>", "quote": `<script a="`, "less": "<", "markup": markup[:100_000],
	} {
		for _, cfg := range []inline.Config{{}, {Pins: inline.NewPins(0)}} {
			before := runtime.NumGoroutine()
			r := reader(t, &endless{page: page}, cfg)
			if _, err := io.CopyN(io.Discard, r, 4<<20); err != nil {
				t.Fatal(err)
			}
			if held := r.Held(); held > 2<<20 {
				t.Errorf("%s: %d bytes held", name, held)
			}
			if after := runtime.NumGoroutine(); after > before {
				t.Errorf("%s: %d goroutines, then %d", name, before, after)
			}
		}
	}
}

func TestAHugeScriptDoesNotStayInMemory(t *testing.T) {
	page := "<script>" + strings.Repeat("x", 3<<20) + "</script><p>"
	r := reader(t, strings.NewReader(page+strings.Repeat("x", 1<<20)), inline.Config{Pins: inline.NewPins(0), MaxContent: 4 << 20})
	if _, err := io.CopyN(io.Discard, r, 3<<20+500_000); err != nil {
		t.Fatal(err)
	}
	if held := r.Held(); held > 1<<20 {
		t.Errorf("%d bytes held behind the script", held)
	}
}
