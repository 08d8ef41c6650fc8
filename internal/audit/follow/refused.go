package follow

import (
	"bytes"
	"context"
	"errors"
)

// convictions is how often a line must have been refused, each time while the server
// took another one, before it is set aside. A server of which one part is broken
// refuses good lines at random.
const convictions = 5

// maxSuspects is the power of two to which the lines that are offered in one round
// grow. A longer row of bad lines looks like a server that takes nothing.
const maxSuspects = 8

// probe finds out whether the first line of rest, which the server has refused
// alone, is at fault, or the server refuses whatever comes. It offers the lines
// behind it one by one: one that the server takes shows that it is those before
// it. Without such a line the follower waits, and offers more of them each time. When
// there is none that the server has not got yet, it gets one again. Probe returns rest
// with what it had to read on.
func (f *Follower) probe(ctx context.Context, rest []entry, refusal error) []entry {
	var suspects []int
	taken, most := -1, 1<<min(f.State().Failures, maxSuspects)
	for i := 0; len(suspects) <= most && ctx.Err() == nil; i++ {
		if i == len(rest) {
			if rest = f.extend(rest); i == len(rest) {
				break // the end of the journal
			}
		}
		if rest[i].done && len(suspects) > 0 {
			taken = i
		}
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
			return rest
		case errors.Is(err, ErrRefused):
			suspects = append(suspects, i)
		case errors.As(err, &poison), errors.Is(err, ErrTooLarge):
			// Its own fault, which is dealt with in its turn.
		case ctx.Err() == nil:
			f.backOff(ctx, err)
			return rest
		}
	}
	switch {
	case ctx.Err() != nil:
	case taken >= 0 && f.hand(ctx, []Line{rest[taken].line}) == nil:
		f.arrived()
		f.condemn(ctx, rest, suspects)
	case ctx.Err() == nil:
		f.backOff(ctx, refusal)
	}
	return rest
}

// condemn offers the suspects once more, now that the server is known to take
// others: it may have recovered just between them. Those that it refuses again, time
// after time, are bad, and the next attempt sets them aside. One that it takes now
// comes behind a later line, which is better than not at all.
func (f *Follower) condemn(ctx context.Context, rest []entry, suspects []int) {
	var doubt error
	for _, n := range suspects {
		lines, _ := good(rest[n : n+1])
		err := f.hand(ctx, lines)
		switch {
		case err == nil:
			rest[n].done = true
		case ctx.Err() != nil:
			return
		case !errors.Is(err, ErrRefused):
			f.backOff(ctx, err)
			return
		default:
			if rest[n].refused++; rest[n].refused >= convictions {
				rest[n].bad = err
			} else {
				doubt = err
			}
		}
	}
	if doubt != nil {
		f.backOff(ctx, doubt)
	}
}

// extend reads on behind lines of which none shows whose fault it is.
func (f *Follower) extend(rest []entry) []entry {
	for i := range rest {
		if e := &rest[i]; !e.own {
			e.line.Raw, e.own = bytes.Clone(e.line.Raw), true // what is read next takes its place
		}
	}
	more, err := f.trail.next(f.cfg.Batch)
	if err != nil {
		return rest // the next time tells
	}
	f.dress(more)
	return append(rest, more...)
}
