package journal

import (
	"bufio"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"io/fs"
	"os"
	"time"

	"github.com/moat-gateway/moat/internal/audit"
)

// checkpointRoom is the most that a checkpoint adds to a write.
const checkpointRoom = 2048

// checkpointDue reports whether a checkpoint is to follow the line that c ends
// with.
func (w *writer) checkpointDue(c chain) bool {
	if w.signer == nil {
		return false
	}
	return w.due != "" || c.seq-w.checked >= uint64(w.j.settings.Load().checkpointEvents) //nolint:gosec // Positive.
}

// appendCheckpoint signs the line that c ends with in the line that follows.
func (w *writer) appendCheckpoint(c *chain) {
	s := w.sign(asCheckpoint, *c)
	e := w.event(audit.ActionCheckpoint, "trail")
	if e.Reason = w.due; e.Reason == "" {
		e.Reason = "count"
	}
	e.Details.Set("epoch", s.Epoch)
	e.Details.Set("lastSeq", int64(s.LastSeq)) // #nosec G115 -- far below 2^63
	e.Details.Set("lastHash", s.LastHash)
	e.Details.Set("time", s.Time)
	e.Details.Set("key", s.Key)
	e.Details.Set("signature", s.Signature)
	w.buf = c.extend(w.buf, e.AppendOpen(nil), w.j.instance)
}

// beat asks for a checkpoint although nothing happened: where they end, the trail
// was cut or the gateway stopped.
func (w *writer) beat(reason string) {
	if w.signer == nil {
		return
	}
	w.beats.Reset(w.j.settings.Load().checkpoint)
	w.due = reason
	w.commit()
	w.due = ""
}

// beginLines are the first lines of a segment: what it goes on from and by which
// key, and where that one is another than before, the old key's word for it.
func (w *writer) beginLines(c *chain) []byte {
	e := w.segmentEvent()
	var succession *audit.Event
	if w.signer != nil {
		key := w.signer.public()
		if old := w.signer.find(w.trailKey); old != nil && !w.trailKey.Equal(key) {
			succession = w.event(audit.ActionKey, "checkpoint key")
			key = w.trailKey
		}
		e.Details.Set("publicKey", encodeKey(key))
	}
	text := c.extend(nil, e.AppendOpen(nil), w.j.instance)
	if succession == nil {
		return text
	}
	next := encodeKey(w.signer.public())
	signature := ed25519.Sign(w.signer.find(w.trailKey), successionText(w.j.instance, *c, next))
	succession.Details.Set("previous", KeyID(w.trailKey))
	succession.Details.Set("key", KeyID(w.signer.public()))
	succession.Details.Set("publicKey", next)
	succession.Details.Set("lastSeq", int64(c.seq)) // #nosec G115 -- far below 2^63
	succession.Details.Set("lastHash", c.last)
	succession.Details.Set("signature", base64.StdEncoding.EncodeToString(signature))
	return c.extend(text, succession.AppendOpen(nil), w.j.instance)
}

// keyOf returns the key that a segment ends with, or nil. Another one than that of
// its first line can only be in its second.
func keyOf(path string) ed25519.PublicKey {
	lines, err := firstLines(path, 2)
	if err != nil || len(lines) == 0 {
		return nil
	}
	key := decodeKey(lines[0].Details.PublicKey)
	if len(lines) == 2 && lines[1].Action == audit.ActionKey {
		key = decodeKey(lines[1].Details.PublicKey)
	}
	return key
}

// checkHead compares the end of the trail that was found with what HEAD says, and
// returns the event that tells of a difference: then the end was cut off, or the
// last line is another one.
func (w *writer) checkHead(note *audit.Event) *audit.Event {
	s, err := ReadHead(w.path(HeadFile))
	w.hadHead = err == nil
	switch {
	case w.signer == nil, w.trailKey == nil:
		return note // Not signed so far.
	case errors.Is(err, fs.ErrNotExist) && w.chain.seq <= newborn:
		return note // A crash in the middle of the first start.
	case errors.Is(err, fs.ErrNotExist):
		return w.headEvent(note, "head-missing", Statement{})
	case err != nil, !s.verify(w.trailKey, asHead) && !s.verify(w.signer.public(), asHead):
		return w.headEvent(note, "head-damaged", Statement{})
	case s.LastSeq > w.chain.seq:
		return w.headEvent(note, "tail-missing", s)
	case w.hashOf(s.LastSeq) != s.LastHash:
		return w.headEvent(note, "tail-changed", s)
	}
	return note
}

// hashOf is the hash of a line of the trail, or "".
func (w *writer) hashOf(seq uint64) string {
	i := len(w.old) - 1
	for i >= 0 && w.old[i].first > seq {
		i--
	}
	if i < 0 {
		return ""
	}
	f, err := os.Open(w.path(w.old[i].name()))
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	r := bufio.NewReaderSize(f, audit.MaxLine+1)
	for n := w.old[i].first; ; n++ {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return ""
		}
		if n == seq {
			return lineHash(line[:len(line)-1])
		}
	}
}

func (w *writer) headEvent(note *audit.Event, reason string, s Statement) *audit.Event {
	if note == nil {
		note = w.event(audit.ActionRecovered, HeadFile)
	}
	note.Severity, note.Reason = audit.High, reason
	note.Details.Set("headSeq", int64(s.LastSeq)) // #nosec G115 -- compared only
	note.Details.Set("headHash", s.LastHash)
	note.Details.Set("foundSeq", int64(w.chain.seq)) // #nosec G115 -- far below 2^63
	return note
}

func stoppedTimer() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}
