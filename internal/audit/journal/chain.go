package journal

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/moat-gateway/moat/internal/audit"
)

// genesis is what the first line of a trail is chained to.
var genesis = strings.Repeat("0", 2*sha256.Size)

// maxSeq is far beyond any trail and far from overflow.
const maxSeq = 1 << 62

// chain is the end of a trail: the number and the hash of its last line.
type chain struct {
	seq  uint64
	last string
}

// extend appends the line that completes open, with its line end, and moves on.
func (c *chain) extend(dst, open []byte, instance string) []byte {
	start := len(dst)
	dst = append(dst, open...)
	dst = audit.AppendChain(dst, c.seq+1, instance, c.last)
	c.seq++
	c.last = lineHash(dst[start:])
	return append(dst, '\n')
}

// lineHash returns the hash of a line without its line end.
func lineHash(line []byte) string {
	sum := sha256.Sum256(line)
	var text [2 * sha256.Size]byte
	hex.Encode(text[:], sum[:])
	return string(text[:])
}

// head is what the chain needs to know of a line.
type head struct {
	Timestamp time.Time `json:"timestamp"`
	Action    string    `json:"action"`
	Seq       uint64    `json:"seq"`
	Instance  string    `json:"instance"`
	Prev      string    `json:"prev"`
	Details   struct {
		Epoch    string `json:"epoch"`
		LastSeq  uint64 `json:"lastSeq"`
		LastHash string `json:"lastHash"`
		// Of checkpoints and keys.
		Time      string `json:"time"`
		Key       string `json:"key"`
		Previous  string `json:"previous"`
		PublicKey string `json:"publicKey"`
		Signature string `json:"signature"`
	} `json:"-"`
	Reason string `json:"reason"`
}

var errNotAnEvent = errors.New("is not an event of a trail")

// parseHead reads a line without its line end.
func parseHead(line []byte) (head, error) {
	var h head
	if len(line) == 0 || len(line) > audit.MaxLine || json.Unmarshal(line, &h) != nil {
		return head{}, errNotAnEvent
	}
	if h.Seq == 0 || h.Seq > maxSeq || len(h.Prev) != len(genesis) {
		return head{}, errNotAnEvent
	}
	switch h.Action {
	case audit.ActionSegment, audit.ActionRemoved, audit.ActionCheckpoint, audit.ActionKey:
	default:
		return h, nil
	}
	// Only here: the details of other events are free, and need not be decoded.
	own := struct {
		Details any `json:"details"`
	}{Details: &h.Details}
	if json.Unmarshal(line, &own) != nil {
		return head{}, errNotAnEvent
	}
	return h, nil
}

// cutLine returns the first line of b without its line end, and the rest. It
// is false when there is no line end.
func cutLine(b []byte) (line, rest []byte, ok bool) {
	return bytes.Cut(b, []byte{'\n'})
}
