// Package inline lets the inline code of an unchanged application run under a
// strict Content-Security-Policy: it gives the script and style elements of a
// page a nonce while the page streams by, optionally only those whose hash is
// pinned, and says what neither nonce nor hash can cover. It knows HTML and
// nothing of HTTP but a Content-Type: no server, no request, no policy.
package inline

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Bounds of what a page may make the rewriter remember.
const (
	// maxRead is how much is asked of the source at once. What nonces add to one
	// read waits in memory, so it bounds that as well.
	maxRead = 64 << 10
	// maxTag is the longest start tag that gets a nonce.
	maxTag = 64 << 10
	// maxAttrs is how many attributes a start tag may have that gets a nonce.
	maxAttrs = 64
	// maxIdle is how often in a row a source may send nothing and no error.
	maxIdle = 100
	// minNonce is 128 bits in base64 without padding, as CSP Level 3 section
	// 7.1 asks for.
	minNonce = 22
	maxNonce = 128

	defaultContent = 256 << 10
	maxContent     = 4 << 20
)

// Config is what New needs.
type Config struct {
	// Nonce is put into every script and style start tag; NewNonce makes one.
	// It stands in the policy as 'nonce-…' and must never serve two answers.
	Nonce string
	// Pins are the hashes that get the nonce. Nil: every script and style does.
	// With pins, an inline script or style is held back until its end tag.
	Pins *Pins
	// Learn gives everything the nonce and adds its hash to Pins. It is for a
	// while that the operator watches: what an attacker has planted is learned
	// as well.
	Learn bool
	// MaxContent is the size in bytes up to which an inline script or style is
	// held back; a longer one is never pinned and gets no nonce. Default: 256
	// KiB. At most 4 MiB.
	MaxContent int
	// Charset is what Fit says of the page. Default: Guessed, where pins do not
	// cover what charsets may differ in.
	Charset Charset
	// OnFinding is called within Read, once for each kind. Nil: findings are
	// dropped.
	OnFinding func(Finding)
}

// NewNonce returns 128 random bits in the alphabet of URLs, which CSP's
// base64-value allows and which needs no quoting in HTML.
func NewNonce() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // It never fails; it ends the process instead.
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// check returns the config with defaults, or every error in it.
func (c Config) check() (Config, error) {
	var errs []error
	if err := checkNonce(c.Nonce); err != nil {
		errs = append(errs, err)
	}
	if c.MaxContent == 0 {
		c.MaxContent = defaultContent
	}
	if c.MaxContent < 0 || c.MaxContent > maxContent {
		errs = append(errs, fmt.Errorf("inline: max_content %d: must be between 1 and %d bytes", c.MaxContent, maxContent))
	}
	if c.Learn && c.Pins == nil {
		errs = append(errs, errors.New("inline: learn: needs pins to learn into"))
	}
	return c, errors.Join(errs...)
}

// checkNonce does not repeat the nonce: it is a secret until it is sent.
func checkNonce(n string) error {
	if len(n) < minNonce || len(n) > maxNonce {
		return fmt.Errorf("inline: nonce: %d characters: must be %d to %d", len(n), minNonce, maxNonce)
	}
	value := strings.TrimRight(n, "=")
	if len(n)-len(value) > 2 {
		return errors.New("inline: nonce: at most two = may stand at the end")
	}
	for _, c := range value {
		if c > 'z' || !isLetter(byte(c)) && (c < '0' || c > '9') && !strings.ContainsRune("+/-_", c) {
			return errors.New("inline: nonce: only base64 characters are allowed")
		}
	}
	return nil
}

// Rewriter reads a page and adds the nonces. It is not safe for concurrent
// use, except that Close may be called at any time if the source allows it.
//
// Everything but the nonces is passed byte for byte, however malformed. What
// stands before a '<' that may begin a script or style tag is delivered at
// once, so a page that is sent in pieces keeps flowing.
type Rewriter struct {
	cfg Config
	src io.Reader
	err error

	out  []byte // waits for the caller
	sent int    // how much of out the caller has

	chunk []byte // what was read last, in the caller's own memory
	off   int64  // where chunk begins in the page
	kept  int    // chunk[:kept] leaves as it stands
	done  int    // chunk[:done] has left or was dropped

	// The held region is undecided: it begins in held, from earlier chunks,
	// and goes on at chunk[mark:].
	holding bool
	held    []byte
	mark    int

	scanner
	element  element
	insert   string
	value    string
	reported uint32
	collect  func(Hash)
	escaped  int64 // behind the first escape of the page; 0: none was seen
}

// New wraps the page that src sends. Fit says whether it may be rewritten.
func New(src io.Reader, cfg Config) (*Rewriter, error) {
	cfg, err := cfg.check()
	if err != nil {
		return nil, err
	}
	r := &Rewriter{cfg: cfg, src: src, value: `="` + cfg.Nonce + `"`}
	r.insert = " nonce" + r.value
	r.step = (*Rewriter).text
	return r, nil
}

// Close closes the source if it can be closed.
func (r *Rewriter) Close() error {
	if c, ok := r.src.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// Read returns as soon as there is something to deliver.
func (r *Rewriter) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for idle := 0; idle < maxIdle; idle++ {
		if r.sent < len(r.out) {
			n := copy(p, r.out[r.sent:])
			r.sent += n
			return n, nil
		}
		if r.err != nil {
			return 0, r.err
		}
		n, read := r.pull(p)
		if n > 0 {
			return n, nil
		}
		if read > 0 {
			idle = -1 // All of it is undecided.
		}
	}
	return 0, io.ErrNoProgress
}

// pull reads once, straight into the caller's memory, and returns how much of
// it may be delivered and how much was read. It leaves an eighth of the memory
// for the nonces, so that they need no second Read, which is a packet of its own
// where every piece is flushed.
func (r *Rewriter) pull(p []byte) (n, read int) {
	r.out, r.sent = reuse(r.out), 0
	read, err := r.src.Read(p[:min(len(p)-len(p)/8, maxRead)])
	r.scan(p[:read])
	if err != nil {
		r.err = err
		r.conclude(false) // A tag or script that does not end is none.
	}
	n = r.kept + copy(p[r.kept:], r.out)
	r.sent = n - r.kept
	return n, read
}

// reuse empties a buffer and gives a big one back.
func reuse(b []byte) []byte {
	if cap(b) > 4*maxRead {
		return nil
	}
	return b[:0]
}

// scan walks over one chunk and leaves in kept and out what may be delivered.
func (r *Rewriter) scan(b []byte) {
	r.chunk, r.mark, r.done, r.kept = b, 0, 0, 0
	if r.cfg.Pins != nil {
		r.watch(b)
	}
	for i := 0; i < len(b); {
		i = r.step(r, b, i)
	}
	if r.holding && r.overdue(len(r.held)+len(b)-r.mark) {
		r.giveUp()
	}
	end := len(b)
	if r.holding {
		end = r.mark
		r.held = append(r.held, b[end:]...)
	}
	r.emit(end)
	r.off += int64(len(b))
}

// emit delivers the chunk up to end.
func (r *Rewriter) emit(end int) {
	switch {
	case end <= r.done:
		return
	case len(r.out) == 0 && r.kept == r.done:
		r.kept = end
	default:
		r.out = append(r.out, r.chunk[r.done:end]...)
	}
	r.done = end
}

// hold begins the held region at chunk[i].
func (r *Rewriter) hold(i int) {
	if !r.holding {
		r.holding, r.mark = true, i
	}
}

// release delivers the held region as it came.
func (r *Rewriter) release() {
	r.holding = false
	r.out = append(r.out, r.held...)
	r.held = reuse(r.held)
	r.element = element{}
}

// region returns the held region up to chunk[end], in one piece.
func (r *Rewriter) region(end int) []byte {
	if len(r.held) == 0 {
		return r.chunk[r.mark:end]
	}
	r.held = append(r.held, r.chunk[r.mark:end]...)
	r.mark, r.done = end, end
	return r.held
}

// edit puts text in the place of the bytes from at to end of the held region,
// and delivers the rest of it as it came.
func (r *Rewriter) edit(e edit) {
	if len(r.held) == 0 {
		r.emit(r.mark + e.at)
		r.done = r.mark + e.end
		r.out = append(r.out, e.text...)
	} else {
		r.out = append(r.out, r.held[:e.at]...)
		r.out = append(r.out, e.text...)
		r.out = append(r.out, r.held[e.end:]...)
		r.held = r.held[:0]
	}
	r.release()
}

// edit is one change of a start tag, in bytes from its '<'.
type edit struct {
	at, end int
	text    string
}

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

// isSpace takes a carriage return for the line feed that browsers make of it.
func isSpace(c byte) bool { return c == ' ' || '\t' <= c && c <= '\r' && c != '\v' }

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// equalLower compares without regard to ASCII case. bytes.EqualFold would take
// the long s for an s.
func equalLower(b []byte, want string) bool {
	if len(b) != len(want) {
		return false
	}
	for i, c := range b {
		if lower(c) != want[i] {
			return false
		}
	}
	return true
}
