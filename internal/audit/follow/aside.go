package follow

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// maxRejected bounds the rejected file. What no longer fits is counted only;
// the journal still has the line for as long as it keeps any.
const maxRejected = 16 << 20

// rejected is one line of the rejected file.
type rejected struct {
	At      time.Time `json:"at"`
	Sink    string    `json:"sink"`
	Seq     uint64    `json:"seq"`
	Segment string    `json:"segment"`
	End     int64     `json:"end"` // offset behind the line in the segment
	Reason  string    `json:"reason"`
	Line    string    `json:"line"`
}

// reject appends a line that cannot be delivered to the rejected file. It must
// be on disk before the cursor passes the line.
func (f *Follower) reject(e entry, reason error) error {
	raw, err := json.Marshal(rejected{
		At: f.cfg.Now().UTC(), Sink: f.cfg.Sink.Name(), Seq: e.line.Seq,
		Segment: e.at.Segment, End: e.at.Offset,
		Reason: bounded(reason), Line: string(e.line.Raw),
	})
	if err == nil {
		err = appendBounded(f.cfg.Cursor+".rejected", append(raw, '\n'))
	}
	if err != nil {
		return fmt.Errorf("follow: rejected file: %w", err)
	}
	return nil
}

func appendBounded(path string, line []byte) error {
	file, err := os.OpenFile(filepath.Clean(path), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err == nil && info.Size()+int64(len(line)) <= maxRejected {
		_, err = file.Write(line)
		err = errors.Join(err, file.Sync())
	}
	return errors.Join(err, file.Close())
}
