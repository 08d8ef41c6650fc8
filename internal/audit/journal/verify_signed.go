package journal

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"github.com/moat-gateway/moat/internal/audit"
)

// maxUnsigned is the most lines without a signature: the largest setting, and the
// batch that went over it.
const maxUnsigned = maxCheckpointEvents + 6000

// said is a HEAD and whether its line was met.
type said struct {
	Statement

	name string
	seen bool
}

// loadHeads reads HEAD before the segments, which may grow meanwhile.
func (v *verifier) loadHeads() {
	if v.opts.Head != nil {
		v.heads = append(v.heads, &said{Statement: *v.opts.Head, name: "the HEAD from elsewhere"})
	}
	s, err := ReadHead(filepath.Join(v.dir, HeadFile))
	switch {
	case err == nil:
		v.local = true
		v.heads = append(v.heads, &said{Statement: s, name: HeadFile})
	case !errors.Is(err, fs.ErrNotExist):
		v.damaged = true // Of a trail that is not signed it is just another file.
	}
}

// signatures checks what a line says about keys and signs, and returns what is wrong
// with it, or "".
func (v *verifier) signatures(h head, begins bool) string {
	switch {
	case begins:
		return v.segmentKey(h)
	case h.Action == audit.ActionKey:
		return v.succession(h)
	case h.Action == audit.ActionCheckpoint:
		return v.checkpoint(h)
	case v.key != nil && h.Seq-v.covered > maxUnsigned:
		return fmt.Sprintf("is the %dth line without a checkpoint", h.Seq-v.covered)
	}
	return ""
}

// segmentKey takes over the key of the first segment and holds the others to it.
func (v *verifier) segmentKey(h head) string {
	key := decodeKey(h.Details.PublicKey)
	switch {
	case h.Details.PublicKey != "" && key == nil:
		return "names a public key that is none"
	case v.key == nil && key == nil && len(v.opts.Keys) > 0:
		return "names no key, and the trail is to be signed"
	case v.key == nil && key == nil:
		return ""
	case v.key == nil:
		if len(v.opts.Keys) > 0 && !slices.ContainsFunc(v.opts.Keys, func(k ed25519.PublicKey) bool { return k.Equal(key) }) {
			return "begins with the key " + KeyID(key) + ", which is none of those given"
		}
		v.key, v.covered = key, h.Seq-1
		return ""
	case key == nil:
		return "names no key, and the segments before it were signed"
	case !key.Equal(v.key):
		return "goes by another key than before, and nothing by the old key says so"
	}
	return ""
}

// succession checks the word of the old key for the new one.
func (v *verifier) succession(h head) string {
	next := decodeKey(h.Details.PublicKey)
	signature, err := base64.StdEncoding.DecodeString(h.Details.Signature)
	before := chain{seq: h.Seq - 1, last: h.Prev}
	switch {
	case next == nil || err != nil:
		return "is no new key"
	case v.key == nil:
		return "is a new key where there was none before"
	case h.Details.LastSeq != before.seq || h.Details.LastHash != before.last:
		return "is a new key for another place in the trail"
	case !ed25519.Verify(v.key, successionText(h.Instance, before, h.Details.PublicKey), signature):
		return "is a new key without the signature of the one before"
	}
	v.earlier = append(v.earlier, v.key)
	v.key = next
	return ""
}

func (v *verifier) checkpoint(h head) string {
	s := Statement{
		Instance: h.Instance, Epoch: h.Details.Epoch, LastSeq: h.Details.LastSeq, LastHash: h.Details.LastHash,
		Time: h.Details.Time, Key: h.Details.Key, Signature: h.Details.Signature,
	}
	switch {
	case v.key == nil:
		return "is a checkpoint in a trail that names no key"
	case s.LastSeq != h.Seq-1 || s.LastHash != h.Prev:
		return "is a checkpoint of another place in the trail"
	case s.Epoch != v.epoch:
		return "is a checkpoint of another epoch"
	case !s.verify(v.key, asCheckpoint):
		return "is a checkpoint whose signature is not by the key of the trail"
	}
	v.covered = s.LastSeq
	v.report.Checkpoints++
	v.report.CheckedAt, _ = time.Parse(statementTime, s.Time)
	return ""
}

// atHead compares the line that a HEAD speaks of.
func (v *verifier) atHead() string {
	for _, h := range v.heads {
		if h.LastSeq != v.chain.seq {
			continue
		}
		h.seen = true
		if h.LastHash != v.chain.last {
			return "is not the line that " + h.name + " speaks of: it or the one before it was changed"
		}
	}
	return ""
}

// signedEnd checks what only the whole trail shows about its signatures.
func (v *verifier) signedEnd() error {
	v.report.Signed = v.key != nil
	switch {
	case v.key == nil && len(v.heads) > 0 && v.report.Events > 0:
		return &Fault{File: HeadFile, Line: 1, Reason: "is signed, and the trail names no key"}
	case v.key == nil:
		return nil
	case v.damaged:
		return &Fault{File: HeadFile, Line: 1, Reason: "is no HEAD of a trail"}
	case !v.local && v.report.LastSeq <= newborn:
		v.report.Key = KeyID(v.key)
		return nil
	case !v.local:
		return &Fault{File: HeadFile, Line: 1, Reason: "is missing, and the trail is signed"}
	}
	v.report.Key = KeyID(v.key)
	covered := v.covered
	for _, h := range v.heads {
		if err := v.headFits(h); err != nil {
			return err
		}
		covered = max(covered, h.LastSeq)
	}
	v.report.Unsigned = v.report.LastSeq - covered
	switch {
	case v.report.Unsigned > maxUnsigned:
		return v.fault(v.place, fmt.Sprintf("%d lines are behind the last signature", v.report.Unsigned))
	case v.missing.seq > 0 && v.recordedAt > covered && !v.opts.AnyHead:
		return v.fault(v.first, "the record that the lines before it were removed is not signed")
	}
	return nil
}

func (v *verifier) headFits(h *said) error {
	switch {
	case !h.signedBy(v.key) && !slices.ContainsFunc(v.earlier, h.signedBy):
		return &Fault{File: HeadFile, Line: 1, Reason: h.name + " is not signed by a key of the trail"}
	case h.LastSeq > v.report.LastSeq:
		return v.fault(v.place, fmt.Sprintf("the trail ends before line number %d, of which %s speaks", h.LastSeq, h.name))
	case !h.seen && (h.LastSeq > v.missing.seq || h.name == HeadFile && !v.opts.AnyHead):
		return &Fault{File: HeadFile, Line: 1, Reason: h.name + " speaks of a line that the trail does not have"}
	case h.name == HeadFile && h.LastSeq+maxUnsigned < v.covered:
		return &Fault{File: HeadFile, Line: 1, Reason: "is far behind the last checkpoint"}
	}
	return nil
}

// signedBy accepts a checkpoint in the place of a HEAD from elsewhere: a sink has
// those.
func (h *said) signedBy(key ed25519.PublicKey) bool {
	if h.name == HeadFile {
		return h.verify(key, asHead)
	}
	return h.verify(key, asHead, asCheckpoint)
}
