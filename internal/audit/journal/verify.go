package journal

import (
	"bufio"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/moat-gateway/moat/internal/audit"
)

// ErrNoTrail says that a directory holds no segment.
var ErrNoTrail = errors.New("journal: there is no trail in this directory")

// Fault is the first place where a trail is not as it was written.
type Fault struct {
	// File is the name of the segment, Line counts from 1 in it.
	File string `json:"file"`
	Line int    `json:"line"`
	// Reason says what is wrong there.
	Reason string `json:"reason"`
}

func (f *Fault) Error() string { return fmt.Sprintf("journal: %s:%d: %s", f.File, f.Line, f.Reason) }

// Anchor is a place of the trail that was noted elsewhere: the line Seq has the
// SHA-256 Hash, in lower-case hex. The zero Anchor is none.
type Anchor struct {
	Seq  uint64
	Hash string
}

// VerifyOptions say what else is expected of a trail.
type VerifyOptions struct {
	// AnyHead accepts a trail whose first segments are missing without a record
	// of their removal, such as a copy of its last days.
	AnyHead bool
	// Anchor must be in the trail. Only this shows that the tail was not cut
	// off at a line end, or rewritten.
	Anchor Anchor
	// Keys are the public keys that the trail may begin with; see Report.Key. Default:
	// the one that the first segment names, which whoever replaces the whole trail
	// can name too.
	Keys []ed25519.PublicKey
	// Head is a HEAD that was kept elsewhere, such as the last checkpoint that a sink
	// has. Default: the one beside the segments.
	Head *Statement
	// AcceptLoss accepts what the journal itself recorded when it was opened: that
	// the end of the trail was missing or changed.
	AcceptLoss bool
}

// Report is what Verify saw, up to the first fault.
type Report struct {
	// Segments and Events are how many were read.
	Segments int    `json:"segments"`
	Events   uint64 `json:"events"`
	// FirstSeq and LastSeq are the numbers of the first and the last line.
	FirstSeq uint64 `json:"firstSeq"`
	LastSeq  uint64 `json:"lastSeq"`
	// LastHash is the SHA-256 of the last line, to be noted as an Anchor.
	LastHash string `json:"lastHash"`
	// From and To are the times of the first and the last line.
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
	// Epochs is how often the journal was opened.
	Epochs int `json:"epochs"`
	// Removed says that older segments were removed by Keep or MaxSize, so the
	// first line's prev is taken on trust.
	Removed bool `json:"removed"`
	// Signed says that the trail is signed, Key by which key at its end (see KeyID),
	// Checkpoints how often, and CheckedAt when for the last time.
	Signed      bool      `json:"signed"`
	Key         string    `json:"key"`
	Checkpoints int       `json:"checkpoints"`
	CheckedAt   time.Time `json:"checkedAt"`
	// Unsigned is the number of lines at the end that neither a checkpoint nor HEAD
	// covers yet: whoever can write to the directory can change those.
	Unsigned uint64 `json:"unsigned"`
	// Live says that a journal is open on the directory. The last line may then
	// still be on its way and is not a fault.
	Live bool `json:"live"`
}

// Verify reads a trail from its first line to its last and checks that every
// line is an event, that the numbers have no gap, that each line carries the
// hash of the one before, within segments and from one to the next, and that
// a missing beginning was removed by the journal. It returns a *Fault for the
// first line that was changed, removed, added or moved, and another error when
// the trail cannot be read. Where the trail is signed, every checkpoint has to be
// by the key that the trail goes by, a new key needs the word of the old one, there
// must be a HEAD, and the trail must reach it. What is behind the last signature
// is proven only by an Anchor. A journal may be open on the directory meanwhile.
func Verify(dir string, opts VerifyOptions) (Report, error) {
	v := &verifier{dir: dir, opts: opts, report: Report{Live: live(dir)}}
	v.loadHeads()
	list, err := listSegments(dir)
	if err != nil {
		return v.report, fmt.Errorf("journal: %w", err)
	}
	for i, s := range list {
		err := v.segment(s, i == len(list)-1)
		if errors.Is(err, os.ErrNotExist) && v.report.Events == 0 {
			continue // removed by the open journal in this moment
		}
		if err != nil {
			return v.report, err
		}
	}
	if v.report.Segments == 0 {
		return v.report, ErrNoTrail
	}
	return v.report, v.end()
}

type verifier struct {
	dir    string
	opts   VerifyOptions
	report Report

	chain      chain
	place      Fault  // the line being looked at
	before     Fault  // the line before it
	doubt      *doubt // a hash that did not fit
	first      Fault
	missing    chain // the end of what is missing at the beginning
	recorded   bool  // its removal is in the trail
	recordedAt uint64
	anchored   bool
	epoch      string

	heads   []*said
	local   bool              // HEAD lies beside the segments
	key     ed25519.PublicKey // the trail's, once it named one
	earlier []ed25519.PublicKey
	covered uint64 // the last line that something signed speaks of
	damaged bool   // HEAD is there and cannot be read
}

// doubt is a line whose prev is not the hash of the line before: one of the two
// was changed, and the line after tells which.
type doubt struct {
	before, place Fault
	hash          string // of the line in doubt
}

func (v *verifier) segment(s segment, last bool) error {
	f, err := os.Open(filepath.Join(v.dir, s.name())) // #nosec G304 -- given by the operator
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	defer func() { _ = f.Close() }()
	r := bufio.NewReaderSize(f, audit.MaxLine+1)
	v.report.Segments++
	for n := 1; ; n++ {
		v.before, v.place = v.place, Fault{File: s.name(), Line: n}
		line, err := r.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF) && len(line) == 0:
			v.place = v.before
			if n == 1 && (!last || !v.report.Live) {
				return v.fault(Fault{File: s.name(), Line: 1}, "the segment is empty")
			}
			return nil
		case errors.Is(err, io.EOF) && last && v.report.Live:
			v.place = v.before
			return nil
		case errors.Is(err, io.EOF):
			return v.fault(v.place, "the line is torn")
		case errors.Is(err, bufio.ErrBufferFull):
			return v.fault(v.place, "the line is too long")
		case err != nil:
			return fmt.Errorf("journal: read %s: %w", s.name(), err)
		}
		if err := v.line(line[:len(line)-1], n == 1, s.first); err != nil {
			return err
		}
	}
}

// line checks one line against everything before it.
func (v *verifier) line(line []byte, begins bool, named uint64) error {
	h, err := parseHead(line)
	if err != nil {
		return v.fault(v.place, err.Error())
	}
	if v.doubt != nil {
		return v.resolve(h)
	}
	if begins && (h.Seq != named || h.Action != audit.ActionSegment) {
		return v.fault(v.place, "is not the first line of the segment of this name")
	}
	if v.report.Events == 0 {
		v.start(h)
	}
	if h.Seq != v.chain.seq+1 {
		return v.fault(v.place, fmt.Sprintf("has number %d where %d is due", h.Seq, v.chain.seq+1))
	}
	if fault := v.signatures(h, begins); fault != "" {
		return v.fault(v.place, fault)
	}
	hash := lineHash(line)
	if h.Prev != v.chain.last && v.report.Events == 0 {
		return v.fault(v.place, "the first line of a trail carries only zeros as prev")
	}
	if h.Prev != v.chain.last {
		v.doubt = &doubt{before: v.before, place: v.place, hash: hash}
		return nil
	}
	v.chain = chain{seq: h.Seq, last: hash}
	return v.accept(h)
}

// start takes the end of what came before the first line from that line.
func (v *verifier) start(h head) {
	v.first = v.place
	v.report.FirstSeq, v.report.From = h.Seq, h.Timestamp
	v.chain = chain{seq: h.Seq - 1, last: genesis}
	if h.Seq > 1 {
		v.chain.last = h.Prev
		v.missing = v.chain
	}
}

func (v *verifier) accept(h head) error {
	v.report.Events++
	v.report.LastSeq, v.report.LastHash, v.report.To = v.chain.seq, v.chain.last, h.Timestamp
	switch h.Action {
	case audit.ActionSegment:
		if h.Details.Epoch != v.epoch {
			v.epoch = h.Details.Epoch
			v.report.Epochs++
		}
	case audit.ActionRecovered:
		if !v.opts.AcceptLoss && h.Reason != "torn-tail" && h.Reason != "" {
			return v.fault(v.place, "records that the end of the trail was not as HEAD says: "+h.Reason)
		}
	case audit.ActionRemoved:
		if h.Details.LastSeq == v.missing.seq && h.Details.LastHash == v.missing.last {
			if !v.recorded {
				v.recordedAt = v.chain.seq
			}
			v.recorded = true
		}
	}
	if fault := v.atHead(); fault != "" {
		return v.fault(v.place, fault)
	}
	if v.opts.Anchor.Seq != 0 && v.opts.Anchor.Seq == v.chain.seq {
		if v.opts.Anchor.Hash != v.chain.last {
			return v.fault(v.place, "is not the line that was noted elsewhere")
		}
		v.anchored = true
	}
	return nil
}

// resolve blames a line in doubt when the next one does not fit it either, and
// the line before it when it does.
func (v *verifier) resolve(next head) error {
	d := v.doubt
	v.doubt = nil
	if next.Prev == d.hash {
		return v.fault(d.before, "the line was changed: the next line carries another hash")
	}
	return v.fault(d.place, "the line was changed, and perhaps the one before it: neither neighbour fits")
}

// end checks what only the whole trail can show.
func (v *verifier) end() error {
	if v.doubt != nil {
		return v.fault(v.place, "")
	}
	if v.missing.seq > 0 {
		v.report.Removed = true
		if !v.recorded && !v.opts.AnyHead {
			return v.fault(v.first, "the lines before it are missing and nothing records their removal")
		}
	}
	if err := v.signedEnd(); err != nil {
		return err
	}
	switch a := v.opts.Anchor; {
	case a.Seq == 0 || v.anchored:
		return nil
	case a.Seq == v.missing.seq && a.Hash == v.missing.last:
		return nil
	case a.Seq == v.missing.seq:
		return v.fault(v.first, "does not join the line that was noted elsewhere")
	case a.Seq < v.missing.seq:
		return fmt.Errorf("journal: line number %d that was noted elsewhere was removed with older segments", a.Seq)
	default:
		return v.fault(v.place, fmt.Sprintf("the trail ends before line number %d that was noted elsewhere", a.Seq))
	}
}

// fault returns the place as an error, and v is done.
func (v *verifier) fault(at Fault, reason string) error {
	if v.doubt != nil {
		// Whatever else was found behind it, the first fault counts.
		at, reason = v.doubt.before, "the line or the next one was changed: the hash does not fit"
	}
	at.Reason = reason
	return &at
}
