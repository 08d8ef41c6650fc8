package follow

import (
	"bytes"
	"context"
	"errors"
)

// probe finds out whether the first line of rest, which the server has refused
// alone, is at fault, or the server refuses whatever comes. It offers the lines
// behind it one by one: one that the server takes shows that it is those before
// it. Without such a line the follower waits, and offers more of them each time.
func (f *Follower) probe(ctx context.Context, rest []entry, refusal error) {
	var suspects []int
	most := 1 << min(f.State().Failures, 10)
	for i := 0; i < len(rest) && len(suspects) <= most; i++ {
		lines, _ := good(rest[i : i+1])
		if len(lines) == 0 {
			continue
		}
		if len(suspects) == 0 {
			suspects = append(suspects, i)
			continue
		}
		err := f.hand(ctx, lines)
		var poison *Poison
		switch {
		case err == nil:
			rest[i].done = true
			f.arrived()
			f.condemn(ctx, rest, suspects)
			return
		case ctx.Err() != nil:
			return
		case errors.Is(err, ErrRefused):
			suspects = append(suspects, i)
		case errors.As(err, &poison), errors.Is(err, ErrTooLarge):
			// Its own fault, which is dealt with in its turn.
		default:
			f.backOff(ctx, err)
			return
		}
	}
	f.backOff(ctx, refusal)
}

// condemn offers the suspects once more, now that the server is known to take
// others: it may have recovered just between them. Those that it refuses again
// are bad, and the next attempt sets them aside. One that it takes now comes
// behind a later line, which is better than not at all.
func (f *Follower) condemn(ctx context.Context, rest []entry, suspects []int) {
	for _, n := range suspects {
		lines, _ := good(rest[n : n+1])
		err := f.hand(ctx, lines)
		switch {
		case err == nil:
			rest[n].done = true
		case ctx.Err() != nil:
			return
		case errors.Is(err, ErrRefused):
			rest[n].bad = err
		default:
			f.backOff(ctx, err)
			return
		}
	}
}

// extend reads on behind a refused line with nothing behind it that could show
// whose fault it is.
func (f *Follower) extend(rest []entry) []entry {
	if lines, _ := good(rest); len(lines) > 1 {
		return rest
	}
	for i := range rest {
		rest[i].line.Raw = bytes.Clone(rest[i].line.Raw) // what is read next takes its place
	}
	more, err := f.trail.next(f.cfg.Batch)
	if err != nil {
		return rest // the next time tells
	}
	f.dress(more)
	return append(rest, more...)
}
