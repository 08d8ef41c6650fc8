package redisstream

import (
	"context"
	"errors"
	"net"
	"os"

	"github.com/redis/go-redis/v9"
)

// maxText bounds what is passed on of a server's words.
const maxText = 200

// clean reduces an error to what an operator needs. A server's answer is cut
// short, and an answer that cannot be understood is not repeated at all: it may
// hold anything, also what was sent.
func clean(err error) error {
	var network net.Error
	var server redis.Error
	switch {
	case errors.Is(err, context.Canceled):
		return context.Canceled
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded),
		errors.As(err, &network) && network.Timeout():
		return context.DeadlineExceeded
	case errors.As(err, &server):
		return errors.New(cut(server.Error()))
	case errors.As(err, &network):
		return errors.New(cut(network.Error()))
	}
	return errors.New(cut(known(err)))
}

func known(err error) string {
	if errors.Is(err, redis.ErrClosed) || errors.Is(err, redis.ErrPoolTimeout) {
		return err.Error()
	}
	return "the connection broke or the answer was not understood"
}

func cut(text string) string {
	if len(text) > maxText {
		return text[:maxText]
	}
	return text
}
