package inline

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
)

// Hash is the SHA-256 of an inline script, of an inline style or of the src
// attribute of a script. Those of one kind never stand for another. The zero
// Hash is none.
type Hash struct {
	kind byte
	sum  [sha256.Size]byte
}

// Kinds of hashes, in the order of their names.
const (
	ofScript = iota + 1
	ofSource
	ofStyle
)

var hashKinds = [...]string{ofScript: "script", ofSource: "src", ofStyle: "style"}

// HashScript returns the hash of what stands between a script's tags, as
// browsers compute it for a page in UTF-8: with line breaks and NUL bytes as
// the HTML standard replaces them. In another encoding, only ASCII has the hash
// that browsers compute.
func HashScript(content []byte) Hash { return hash(ofScript, content) }

// HashStyle is HashScript for a style.
func HashStyle(content []byte) Hash { return hash(ofStyle, content) }

// HashSource returns the hash of a src attribute as it stands in the page. It
// says where a script comes from, not what it holds.
func HashSource(value []byte) Hash { return hash(ofSource, value) }

func hash(kind byte, content []byte) Hash {
	return Hash{kind, sha256.Sum256(preprocess(content))}
}

// preprocess does what browsers do before a script has a text (sections
// 13.2.3.5 and 13.2.5.4). It does not change content.
func preprocess(content []byte) []byte {
	if bytes.IndexByte(content, '\r') >= 0 {
		content = bytes.ReplaceAll(content, []byte("\r\n"), []byte("\n"))
		content = bytes.ReplaceAll(content, []byte("\r"), []byte("\n"))
	}
	if bytes.IndexByte(content, 0) >= 0 {
		content = bytes.ReplaceAll(content, []byte{0}, []byte("\ufffd"))
	}
	return content
}

// Source returns the hash as a source of a policy: 'sha256-…'.
func (h Hash) Source() string {
	return "'sha256-" + base64.StdEncoding.EncodeToString(h.sum[:]) + "'"
}

// String returns the hash as a line of the pins: script sha256-…
func (h Hash) String() string {
	if h.kind == 0 {
		return "none"
	}
	return hashKinds[h.kind] + " " + strings.Trim(h.Source(), "'")
}

// ParseHash reads what String returns.
func ParseHash(line string) (Hash, error) {
	kind, value, _ := strings.Cut(line, " ")
	k := slices.Index(hashKinds[:], kind)
	if k <= 0 {
		return Hash{}, errors.New("must begin with script, src or style and one space")
	}
	text, ok := strings.CutPrefix(value, "sha256-")
	if !ok {
		return Hash{}, errors.New("the hash must begin with sha256-")
	}
	sum, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(sum) != sha256.Size || strings.ContainsAny(text, "\r\n") {
		return Hash{}, errors.New("the hash must be 32 bytes in base64")
	}
	return Hash{byte(k), [sha256.Size]byte(sum)}, nil
}

// maxHashes is how many hashes a page may have. They take 52 bytes each in a
// header, up to twice: 100 make some 10 KB, and servers on the way refuse
// headers of more than 8 to 64 KB, so that the page would be gone altogether.
const maxHashes = 100

// Hashes reads a page and returns the hashes of its inline scripts and styles,
// each once, in the order of the page. What browsers do not run has none. The
// findings say what no hash covers; one that is Ambiguous or ContentTooLong
// means that hashes are missing. A page with more than 100 is not read further:
// it gets none, and TooManyHashes says so.
func Hashes(page io.Reader, charset Charset) ([]Hash, []Finding, error) {
	var findings []Finding
	r, err := New(page, Config{
		Nonce: NewNonce(), Pins: NewPins(1), MaxContent: maxContent, Charset: charset,
		OnFinding: func(f Finding) {
			if f.Kind != Unpinned {
				findings = append(findings, f)
			}
		},
	})
	if err != nil {
		return nil, nil, err
	}
	list := &hashList{seen: make(map[Hash]struct{})}
	r.collect = list.add
	for buffer := make([]byte, maxHashRead); err == nil && !list.full(); {
		_, err = r.Read(buffer)
	}
	if list.full() {
		return nil, append(findings, Finding{Kind: TooManyHashes}), nil
	}
	if !errors.Is(err, io.EOF) {
		return list.hashes, findings, err
	}
	return list.hashes, findings, nil
}

// maxHashRead is how far a page is read beyond the hash that is one too many.
const maxHashRead = 32 << 10

// hashList is the hashes of a page, each once.
type hashList struct {
	hashes []Hash
	seen   map[Hash]struct{}
}

func (l *hashList) full() bool { return len(l.hashes) > maxHashes }

func (l *hashList) add(h Hash) {
	if _, known := l.seen[h]; known || h.kind == ofSource || l.full() {
		return
	}
	l.seen[h] = struct{}{}
	l.hashes = append(l.hashes, h)
}

const (
	defaultPins = 4096
	maxPins     = 1 << 16
	// pinsVersion is the first line of pins in text.
	pinsVersion = "moat-pins 1"
	// maxPinLine is longer than any right line.
	maxPinLine = 128
)

// Pins is a bounded set of hashes. It is safe for concurrent use.
type Pins struct {
	mu  sync.RWMutex
	max int
	set map[Hash]struct{}
}

// NewPins returns an empty set that holds at most max hashes. 0 means 4096; at
// most 65536 are possible, and more is taken for that.
func NewPins(limit int) *Pins {
	if limit <= 0 {
		limit = defaultPins
	}
	return &Pins{max: min(limit, maxPins), set: make(map[Hash]struct{})}
}

// Learn adds a hash and reports whether it is in the set now. A full set
// forgets nothing and takes nothing new.
func (p *Pins) Learn(h Hash) bool {
	if p.Has(h) {
		return true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.set[h]; !ok && (len(p.set) >= p.max || h.kind == 0) {
		return false
	}
	p.set[h] = struct{}{}
	return true
}

// Has reports whether the hash is in the set.
func (p *Pins) Has(h Hash) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	_, ok := p.set[h]
	return ok
}

// Len returns how many hashes the set holds.
func (p *Pins) Len() int {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return len(p.set)
}

// Snapshot returns the set as text: a line with the version, then one for each
// hash, sorted.
func (p *Pins) Snapshot() []byte {
	p.mu.RLock()
	all := slices.SortedFunc(maps.Keys(p.set), func(a, b Hash) int {
		if a.kind != b.kind {
			return int(a.kind) - int(b.kind)
		}
		return bytes.Compare(a.sum[:], b.sum[:])
	})
	p.mu.RUnlock()
	var b bytes.Buffer
	b.WriteString(pinsVersion + "\n")
	for _, h := range all {
		b.WriteString(h.String() + "\n")
	}
	return b.Bytes()
}

// Load puts the hashes of a text in the place of the set. It is strict: blank
// lines and comments, repetitions, another version or a missing line break at
// the end, where a file may have been cut, are errors, and all are returned at
// once. With an error the set stays as it is.
func (p *Pins) Load(text []byte) error {
	loaded, err := parsePins(text, p.max)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.set = loaded
	return nil
}

// Update is Load for a text that somebody has changed while the set was in use:
// before is the text that the set was last loaded from or written to, and what
// was learned since stays. What the new text lacks goes. The set never takes more
// than its bound.
func (p *Pins) Update(before, text []byte) error {
	known, err := parsePins(before, maxPins)
	if err != nil {
		return err
	}
	loaded, err := parsePins(text, p.max)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for h := range p.set {
		if _, old := known[h]; !old && len(loaded) < p.max {
			loaded[h] = struct{}{}
		}
	}
	p.set = loaded
	return nil
}

func parsePins(text []byte, limit int) (map[Hash]struct{}, error) {
	head, body, _ := strings.Cut(string(text), "\n")
	if head != pinsVersion {
		return nil, fmt.Errorf("pins: line 1: must be %q", pinsVersion)
	}
	if !bytes.HasSuffix(text, []byte("\n")) {
		return nil, errors.New("pins: the last line has no line break; the text may have been cut")
	}
	if n := strings.Count(body, "\n"); n > limit {
		return nil, fmt.Errorf("pins: %d hashes: at most %d are allowed", n, limit)
	}
	loaded := make(map[Hash]struct{})
	var errs []error
	number := 1
	for line := range strings.Lines(body) {
		number++
		if err := addPin(loaded, strings.TrimSuffix(line, "\n")); err != nil {
			errs = append(errs, fmt.Errorf("pins: line %d: %w", number, err))
		}
	}
	return loaded, errors.Join(errs...)
}

func addPin(set map[Hash]struct{}, line string) error {
	if len(line) > maxPinLine {
		return fmt.Errorf("%d bytes: at most %d are allowed", len(line), maxPinLine)
	}
	h, err := ParseHash(line)
	if err != nil {
		return err
	}
	if _, ok := set[h]; ok {
		return errors.New("the hash stands twice")
	}
	set[h] = struct{}{}
	return nil
}
