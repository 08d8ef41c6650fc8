package follow

import "github.com/moat-gateway/moat/internal/audit/jsonline"

// Event is what a follower reads of a line.
type Event struct {
	Seq                    uint64
	Instance, Class, Epoch string
}

// ReadEvent reads one line as a follower does.
func ReadEvent(line []byte) (Event, error) {
	h, err := readHead(line)
	if err != nil {
		return Event{}, err
	}
	return Event{Seq: h.seq, Instance: jsonline.Text(h.instance), Class: jsonline.Text(h.class), Epoch: h.bootOf()}, nil
}

// CheckLine is ReadEvent without its copies.
func CheckLine(line []byte) error {
	_, err := readHead(line)
	return err
}

// ParseCursor reports whether a cursor file would be used, and for what.
func ParseCursor(raw []byte, sink string) (segment string, offset int64, err error) {
	c, err := parseCursor(raw, sink)
	return c.Segment, c.Offset, err
}
