package follow

import (
	"encoding/json"
	"errors"
	"unicode/utf8"

	"github.com/moat-gateway/moat/internal/audit/jsonline"
)

// maxName bounds instance, epoch and class: they become keys in the sinks.
const maxName = 256

var (
	errNotJSON  = errors.New("is not a JSON object in UTF-8")
	errNoSeq    = errors.New("has no sequence number above zero")
	errNoOwner  = errors.New("names no instance")
	errLongName = errors.New("has an instance, epoch or class of over 256 bytes")
	errOversize = errors.New("is longer than one MiB")
)

// head is what a follower reads of a line. The slices are JSON values inside
// the line, nil when absent.
type head struct {
	seq                             uint64
	instance, class, epoch, details []byte
	action, outcome, severity       []byte
}

// readHead checks that line is an event and finds its outer fields. Of a
// repeated name the last counts, as with encoding/json.
func readHead(line []byte) (head, error) {
	var h head
	if len(line) == 0 || line[0] != '{' || !utf8.Valid(line) || !json.Valid(line) {
		return h, errNotJSON
	}
	var seq []byte
	for key, value := range jsonline.Members(line) {
		switch string(jsonline.Key(key)) {
		case "seq":
			seq = value
		case "instance":
			h.instance = value
		case "class":
			h.class = value
		case "epoch":
			h.epoch = value
		case "details":
			h.details = value
		case "action":
			h.action = value
		case "outcome":
			h.outcome = value
		case "severity":
			h.severity = value
		}
	}
	if h.seq, _ = jsonline.Number(seq); h.seq == 0 {
		return h, errNoSeq
	}
	if len(h.instance) <= len(`""`) || h.instance[0] != '"' {
		return h, errNoOwner
	}
	if len(h.instance) > maxName || len(h.class) > maxName || len(h.epoch) > maxName {
		return h, errLongName
	}
	return h, nil
}

// bootOf returns the epoch a line names: its own field, or the one among the
// details of the event that begins a segment. Empty when there is none.
func (h head) bootOf() string {
	if epoch := jsonline.Text(h.epoch); epoch != "" {
		return epoch
	}
	if len(h.details) == 0 || h.details[0] != '{' {
		return ""
	}
	var epoch []byte
	for key, value := range jsonline.Members(h.details) {
		if string(jsonline.Key(key)) == "epoch" {
			epoch = value
		}
	}
	if len(epoch) > maxName {
		return ""
	}
	return jsonline.Text(epoch)
}
