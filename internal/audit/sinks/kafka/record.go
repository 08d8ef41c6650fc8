package kafka

import (
	"fmt"
	"strconv"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/moat-gateway/moat/internal/audit/follow"
)

const (
	// maxDelivery bounds what a delivery takes in memory and before compression,
	// in bytes. The follower's deliveries have one MiB of journal; the same
	// events in another format can be longer.
	maxDelivery = 8 << 20
	// overhead is more than Kafka's framing of one record takes, in bytes, the
	// names of the headers included.
	overhead = 128
)

// The names of the headers.
const (
	headerEpoch = "epoch"
	headerSeq   = "seq"
	headerClass = "class"
)

// recordsOf copies the lines into records. The client may still read a record
// while it ends after a failed delivery, when the lines are valid no more.
func recordsOf(lines []follow.Line) ([]kgo.Record, error) {
	size := sizeOf(lines)
	if size > maxDelivery || len(lines) > follow.MaxBatch {
		return nil, fmt.Errorf("kafka: %d lines with %d bytes: %w", len(lines), size, follow.ErrTooLarge)
	}
	store := make([]byte, 0, size)
	records := make([]kgo.Record, len(lines))
	headers := make([]kgo.RecordHeader, 0, 3*len(lines))
	begin := 0
	cut := func() []byte { // what was appended since the last cut
		piece := store[begin:len(store):len(store)]
		begin = len(store)
		return piece
	}
	keep := func(text string) []byte {
		store = append(store, text...)
		return cut()
	}
	for i, line := range lines {
		store = strconv.AppendUint(store, line.Seq, 10)
		headers = append(headers,
			kgo.RecordHeader{Key: headerSeq, Value: cut()},
			kgo.RecordHeader{Key: headerEpoch, Value: keep(line.Epoch)},
			kgo.RecordHeader{Key: headerClass, Value: keep(line.Class)})
		records[i].Headers = headers[3*i : 3*i+3 : 3*i+3]
		records[i].Key = keep(line.Instance)
		store = append(store, line.Content()...)
		records[i].Value = cut()
	}
	return records, nil
}

// sizeOf is an upper bound of what the lines take in a batch.
func sizeOf(lines []follow.Line) int {
	size := 0
	for _, line := range lines {
		size += overhead + len(line.Instance) + len(line.Epoch) + len(line.Class) + len(line.Content())
	}
	return size
}
