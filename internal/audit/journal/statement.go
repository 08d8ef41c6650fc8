package journal

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// HeadFile is the name of the file beside the segments that says, signed, how far
// the trail goes.
const HeadFile = "HEAD"

// maxHead bounds a HEAD, in bytes.
const maxHead = 4096

// Statement is what a checkpoint and a HEAD say: that the line LastSeq of this
// instance's trail has the hash LastHash. Signature is by Ed25519 (RFC 8032) over
// the text of seven lines, each with a line end; in a HEAD the first is
// moat.audit.head.v1, so that no checkpoint can be made an older HEAD:
//
//	moat.audit.checkpoint.v1
//	INSTANCE
//	EPOCH
//	LASTSEQ
//	LASTHASH
//	TIME
//	KEY
//
// with the fields as they stand in the JSON.
type Statement struct {
	// Instance and Epoch are those of the journal that signed.
	Instance string `json:"instance"`
	Epoch    string `json:"epoch"`
	// LastSeq and LastHash are the number and the SHA-256 of a line, in hex.
	LastSeq  uint64 `json:"lastSeq"`
	LastHash string `json:"lastHash"`
	// Time is when it was signed, RFC 3339 in UTC with microseconds.
	Time string `json:"time"`
	// Key names the key that signed; see KeyID.
	Key string `json:"key"`
	// Signature is in base64.
	Signature string `json:"signature"`
}

// What a Statement is signed as.
const (
	asCheckpoint = "moat.audit.checkpoint.v1"
	asHead       = "moat.audit.head.v1"
)

func (s *Statement) text(as string) []byte {
	return []byte(strings.Join([]string{
		as, s.Instance, s.Epoch, strconv.FormatUint(s.LastSeq, 10), s.LastHash, s.Time, s.Key, "",
	}, "\n"))
}

// sign returns the statement about c.
func (w *writer) sign(as string, c chain) Statement {
	s := Statement{
		Instance: w.j.instance, Epoch: w.epoch, LastSeq: c.seq, LastHash: c.last,
		Time: w.j.now().UTC().Format(statementTime), Key: KeyID(w.signer.public()),
	}
	s.Signature = base64.StdEncoding.EncodeToString(ed25519.Sign(w.signer.current, s.text(as)))
	return s
}

const statementTime = "2006-01-02T15:04:05.000000Z"

// verify reports whether the statement was signed by key as one of these.
func (s *Statement) verify(key ed25519.PublicKey, kinds ...string) bool {
	signature, err := base64.StdEncoding.DecodeString(s.Signature)
	return err == nil && len(key) == ed25519.PublicKeySize && s.Key == KeyID(key) &&
		slices.ContainsFunc(kinds, func(as string) bool { return ed25519.Verify(key, s.text(as), signature) })
}

// ReadHead reads a HEAD, or a copy of one that was kept elsewhere.
func ReadHead(path string) (Statement, error) {
	f, err := os.Open(filepath.Clean(path))
	if err != nil {
		return Statement{}, err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxHead+1))
	if err != nil {
		return Statement{}, err
	}
	var s Statement
	if len(data) > maxHead || json.Unmarshal(data, &s) != nil || s.LastSeq == 0 || len(s.LastHash) != len(genesis) {
		return Statement{}, fmt.Errorf("%s: is no HEAD of a trail", path)
	}
	return s, nil
}

// successionText is what a key signs for the one that follows it: five lines like
// those of a Statement, about the line before.
func successionText(instance string, c chain, next string) []byte {
	return []byte(strings.Join([]string{
		"moat.audit.key.v1", instance, strconv.FormatUint(c.seq, 10), c.last, next, "",
	}, "\n"))
}

// newborn is how many lines a trail has at most before its first HEAD.
const newborn = 4

// headDelay is the least time between two HEADs.
const headDelay = time.Second

// writeHead replaces HEAD. It never says more than what is on disk, so that a trail
// that ends before it was cut.
func (w *writer) writeHead() {
	w.heads.Stop()
	w.headDue = false
	if w.signer == nil || w.synced.seq == w.headSeq {
		return
	}
	text, err := json.Marshal(w.sign(asHead, w.synced))
	if err == nil {
		err = w.fs.Replace(w.path(HeadFile), append(text, '\n'))
	}
	if err == nil && w.headSeq == 0 {
		err = w.fs.SyncDir(w.j.dir) // That there is one has to survive everything.
	}
	if err != nil {
		w.j.settings.Load().onTrouble(TroubleHead, errors.Join(fmt.Errorf("write %s", HeadFile), err))
		return
	}
	w.headSeq = w.synced.seq
}
