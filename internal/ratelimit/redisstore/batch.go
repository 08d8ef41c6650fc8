package redisstore

import (
	"context"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// directCalls go out at once, each on a connection of its own, so that a caller
	// among few waits for nobody.
	directCalls = 4
	// maxBatch bounds how long one batch keeps the server from others.
	maxBatch = 64
)

// batcher sends the calls that come while others are on their way together, as one
// pipeline when one of those is back: under load that is a small part of the
// processor time, on both sides, of as many calls. The client library's own
// batching lets callers wait beyond their deadline and doubles the time of a
// caller that is alone.
//
// With Redis Cluster every call goes by itself: in a batch over several nodes all
// would wait for the slowest.
type batcher struct {
	client  redis.UniversalClient
	timeout time.Duration
	single  bool // no batches

	mu    sync.Mutex
	out   int // calls and batches on their way
	queue []*queued
}

// queued is a command that waits for a batch. Who sends it closes done.
type queued struct {
	ctx  context.Context
	cmd  *redis.Cmd
	done chan struct{}
}

// process runs a command. It returns when ctx ends, even if the command is still
// on its way.
func (b *batcher) process(ctx context.Context, cmd *redis.Cmd) error {
	if b.single {
		return b.client.Process(ctx, cmd)
	}
	b.mu.Lock()
	if b.out < directCalls {
		b.out++
		b.mu.Unlock()
		defer b.back()
		return b.client.Process(ctx, cmd)
	}
	q := &queued{ctx: ctx, cmd: cmd, done: make(chan struct{})}
	b.queue = append(b.queue, q)
	b.mu.Unlock()
	select {
	case <-q.done:
		return cmd.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// back says that a call returned: the next batch takes its place.
func (b *batcher) back() {
	b.mu.Lock()
	n := min(len(b.queue), maxBatch)
	if n == 0 {
		b.out--
		b.mu.Unlock()
		return
	}
	batch := b.queue[:n:n]
	b.queue = b.queue[n:]
	b.mu.Unlock()
	// Not here: whoever is back has an answer to give.
	go b.send(batch)
}

func (b *batcher) send(batch []*queued) {
	defer b.back()
	ctx, cancel := context.WithTimeout(context.Background(), b.timeout)
	defer cancel()
	pipe := b.client.Pipeline()
	for _, q := range batch {
		// Who has given up waiting, or is about to, is not charged.
		if deadline, ok := q.ctx.Deadline(); ok && time.Until(deadline) < b.timeout/10 {
			q.cmd.SetErr(context.DeadlineExceeded)
			continue
		}
		_ = pipe.Process(ctx, q.cmd) // Queues; the error is the command's own.
	}
	_, _ = pipe.Exec(ctx)
	for _, q := range batch {
		close(q.done)
	}
}
