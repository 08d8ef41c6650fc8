//go:build linux

package integration

import (
	"context"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/mccutchen/go-httpbin/v2/httpbin"
)

// upstreamVariable makes the test binary serve as an upstream instead of testing.
const upstreamVariable = "MOAT_TEST_UPSTREAM"

const (
	httpbinUpstream = "httpbin" // an application nobody wrote for this gateway
	streamUpstream  = "streams" // WebSocket, server-sent events, large bodies
)

// upstream is an application in a process of its own, so that its memory and its
// death are not the test's.
type upstream struct {
	*process
	Addr string
}

func startUpstream(t testing.TB, kind string) *upstream {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := startProcess(t, []string{upstreamVariable + "=" + kind}, self)
	u := &upstream{process: p}
	await(t, startBudget, "upstream "+kind, func() bool {
		if p.exited() {
			t.Fatalf("upstream %s ended:\n%s", kind, p.stderr.String())
		}
		line, _, whole := strings.Cut(p.stdout.String(), "\n")
		u.Addr = line
		return whole
	})
	return u
}

// serveUpstream is the main function of an upstream process: it prints its
// address and serves until it is killed.
func serveUpstream(kind string) int {
	var handler http.Handler
	switch kind {
	case httpbinUpstream:
		handler = httpbin.New()
	case streamUpstream:
		handler = streams()
	default:
		fmt.Fprintf(os.Stderr, "unknown upstream %q\n", kind)
		return 2
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(l.Addr())
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	fmt.Fprintln(os.Stderr, server.Serve(l))
	return 1
}

// streams is an application with everything that is not a short answer.
func streams() http.Handler {
	mux, release := http.NewServeMux(), make(chan struct{})
	mux.HandleFunc("GET /ws", echoWebSocket)
	mux.HandleFunc("GET /events", func(w http.ResponseWriter, r *http.Request) { sendEvents(w, r, release) })
	mux.HandleFunc("POST /release", func(http.ResponseWriter, *http.Request) { release <- struct{}{} })
	mux.HandleFunc("GET /down/{mib}", download)
	mux.HandleFunc("GET /page/{kind}/{scripts}", sendPage)
	mux.HandleFunc("POST /up", func(w http.ResponseWriter, r *http.Request) {
		sum := crc32.NewIEEE()
		n, err := io.Copy(sum, r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		_, _ = fmt.Fprintf(w, "%d %08x", n, sum.Sum32())
	})
	mux.HandleFunc("GET /proto", func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprint(w, r.Proto, " ", r.URL.Path)
	})
	return mux
}

func echoWebSocket(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return
	}
	defer func() { _ = conn.CloseNow() }()
	for {
		ctx, cancel := context.WithTimeout(r.Context(), 30*time.Second)
		kind, data, err := conn.Read(ctx)
		if err == nil {
			err = conn.Write(ctx, kind, data)
		}
		cancel()
		if err != nil {
			return
		}
	}
}

// sendEvents sends the next event only when it was asked for beside the gateway:
// whoever sees event 1 before that has proof that nothing gathers events.
func sendEvents(w http.ResponseWriter, r *http.Request, release <-chan struct{}) {
	w.Header().Set("Content-Type", "text/event-stream")
	flush := http.NewResponseController(w)
	for n := 1; n <= 3; n++ {
		_, _ = fmt.Fprintf(w, "data: %d\n\n", n)
		if err := flush.Flush(); err != nil {
			return
		}
		select {
		case <-release:
		case <-r.Context().Done():
			return
		}
	}
}

func download(w http.ResponseWriter, r *http.Request) {
	mib, err := strconv.Atoi(r.PathValue("mib"))
	if err != nil || mib < 0 || mib > 1024 {
		http.Error(w, "size", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(mib<<20))
	block := make([]byte, 64<<10)
	for range mib << 20 / len(block) {
		if _, err := w.Write(block); err != nil {
			return
		}
	}
}

// The lines of the pages: a minified script, in which about one byte in 250 is a
// '<', a script with ten times as many, and a row that is nothing but tags.
var pageLines = map[string]string{
	"script": strings.Repeat("function f(a,b){return a.length>b?g(a,b):h(b)}", 4) + "for(var i=0;i<9;i++)g('<p>')\n",
	"dense":  "if(a.length<b)return'<p>'+a;i<9\n",
	"markup": `</script><div class="a b c"><a href="/x?y=1" title='z'>text and more</a></div><script>` + "\n",
}

// scriptBytes is the size of an application in one file (TiddlyWiki 5.3).
const scriptBytes = 2_700_000

// sendPage sends a page with so many scripts of 2.7 MB, as an application in one
// file has one.
func sendPage(w http.ResponseWriter, r *http.Request) {
	line, known := pageLines[r.PathValue("kind")]
	scripts, err := strconv.Atoi(r.PathValue("scripts"))
	if err != nil || !known || scripts < 1 || scripts > 200 {
		http.Error(w, "page", http.StatusBadRequest)
		return
	}
	const head, begin, end, foot = "<!DOCTYPE html><title>x</title><p>y", "<script>", "</script>", "<p>z\n"
	block := strings.Repeat(line, 64<<10/len(line)+1)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(head)+len(foot)+scripts*(len(begin)+scriptBytes/len(block)*len(block)+len(end))))
	_, _ = io.WriteString(w, head)
	for range scripts {
		_, _ = io.WriteString(w, begin)
		for range scriptBytes / len(block) {
			if _, err := io.WriteString(w, block); err != nil {
				return
			}
		}
		_, _ = io.WriteString(w, end)
	}
	_, _ = io.WriteString(w, foot)
}
