package redisstore

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/moat-gateway/moat/internal/ratelimit"
)

// run executes the script for limits of one slot. states are what each was before
// the call: how far its arrival time lay ahead of the server's now, or the places
// in use.
func (s *Store) run(ctx context.Context, op string, reqs []ratelimit.Request) (states []int64, granted bool, err error) {
	args := make([]any, 0, 2+4*len(reqs))
	args = append(args, op, s.clock())
	for i := range reqs {
		args = s.appendRequest(args, op, &reqs[i])
	}
	reply, err := s.eval(ctx, s.keys(reqs), args)
	if err != nil {
		return nil, false, fmt.Errorf("ratelimit: redis: %w", err)
	}
	if len(reply) != len(reqs)+1 {
		return nil, false, errors.New("ratelimit: redis: reply of unexpected length")
	}
	return reply[1:], reply[0] == 1, nil
}

// eval runs the script. A server that does not know it gets it.
func (s *Store) eval(ctx context.Context, keys []string, args []any) ([]int64, error) {
	words := make([]any, 0, 3+len(keys)+len(args))
	words = append(words, "evalsha", s.script.Hash(), len(keys))
	for _, key := range keys {
		words = append(words, key)
	}
	cmd := redis.NewCmd(ctx, append(words, args...)...)
	if len(keys) > 0 {
		cmd.SetFirstKeyPos(3)
	}
	err := s.batches.process(ctx, cmd)
	if redis.HasErrorPrefix(err, "NOSCRIPT") {
		return s.script.Eval(ctx, s.client, keys, args...).Int64Slice()
	}
	if err != nil {
		return nil, err
	}
	return cmd.Int64Slice()
}

func (s *Store) appendRequest(args []any, op string, r *ratelimit.Request) []any {
	shadow := ""
	if r.Shadow {
		shadow = "s"
	}
	if r.Slots == 0 && op == "give" {
		return append(args, shadow+"b", r.RefundMicros(), r.Rate.SpanMicros(), 1)
	}
	if r.Slots == 0 {
		return append(args, shadow+"b", r.Rate.UnitMicros(), r.Rate.SpanMicros(), r.Cost)
	}
	holder := r.Holder
	if r.Cost == 0 {
		holder = ""
	}
	return append(args, shadow+"c", r.Slots, s.ttl.Microseconds(), holder)
}

// clock is the test clock in microseconds, or empty for the server's own.
func (s *Store) clock() any {
	if s.now == nil {
		return ""
	}
	return s.now().UnixMicro()
}

// keys names the buckets: PREFIX{HASH}:LIMIT. The hash hides the subject, and
// because it is what the braces enclose it alone chooses the cluster slot.
func (s *Store) keys(reqs []ratelimit.Request) []string {
	keys := make([]string, len(reqs))
	for i := range reqs {
		sum := ratelimit.KeyHash("", reqs[i].Subject)
		b := make([]byte, 0, len(s.prefix)+len(reqs[i].Limit)+2*len(sum)+3)
		b = append(b, s.prefix...)
		b = append(b, '{')
		b = hex.AppendEncode(b, sum[:])
		b = append(b, '}', ':')
		keys[i] = string(append(b, reqs[i].Limit...))
	}
	return keys
}

// group is the requests of one subject and where they stood in the call.
type group struct {
	reqs []ratelimit.Request
	at   []int
}

func groups(reqs []ratelimit.Request) []group {
	var all []group
	for i := range reqs {
		g := slices.IndexFunc(all, func(g group) bool { return g.reqs[0].Subject == reqs[i].Subject })
		if g < 0 {
			g = len(all)
			all = append(all, group{})
		}
		all[g].reqs = append(all[g].reqs, reqs[i])
		all[g].at = append(all[g].at, i)
	}
	return all
}

// each runs f on what may be sent to the server together, and goes on after an
// error.
func (s *Store) each(reqs []ratelimit.Request, f func([]ratelimit.Request) error) error {
	if len(reqs) == 0 {
		return nil
	}
	if !s.cluster {
		return f(reqs)
	}
	var errs []error
	for _, g := range groups(reqs) {
		errs = append(errs, f(g.reqs))
	}
	return errors.Join(errs...)
}

// takeGroups charges subject by subject and undoes that when one refuses. All
// of it shares one deadline.
func (s *Store) takeGroups(ctx context.Context, reqs []ratelimit.Request, dst []ratelimit.Result) ([]ratelimit.Result, error) {
	states := make([]int64, len(reqs))
	granted := true
	var charged [][]ratelimit.Request
	for _, g := range groups(reqs) {
		asked := g.reqs
		if !granted {
			asked = looks(asked)
		}
		part, ok, err := s.run(ctx, "take", asked)
		if err != nil {
			s.undo(ctx, charged)
			return nil, err
		}
		for i, at := range g.at {
			states[at] = part[i]
		}
		if granted = granted && ok; granted {
			charged = append(charged, chargedOf(g.reqs, part))
		}
	}
	if !granted {
		s.undo(ctx, charged)
	}
	return settle(reqs, states, granted, dst)
}

// chargedOf leaves out the shadows that did not fit, of which nothing was taken.
func chargedOf(reqs []ratelimit.Request, states []int64) []ratelimit.Request {
	results, _ := ratelimit.Settle(0, reqs, slices.Clone(states), nil)
	charged := make([]ratelimit.Request, 0, len(reqs))
	for i := range reqs {
		if results[i].Allowed {
			charged = append(charged, reqs[i])
		}
	}
	return charged
}

// looks turns requests into ones that take nothing: after a refusal only what
// is left in the other buckets is still of interest.
func looks(reqs []ratelimit.Request) []ratelimit.Request {
	looks := slices.Clone(reqs)
	for i := range looks {
		looks[i].Cost = 0
	}
	return looks
}

// undo gives back what earlier subjects of a call were charged. When the caller's
// time is over, as it is after waiting for a server that stands still, that goes
// on without him.
func (s *Store) undo(ctx context.Context, charged [][]ratelimit.Request) {
	if len(charged) == 0 {
		return
	}
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) > s.timeout/10 {
		s.giveBack(ctx, charged)
		return
	}
	go func() {
		ctx, cancel := s.bound(ctx)
		defer cancel()
		s.giveBack(ctx, charged)
	}()
}

// giveBack is what undo does. An error here changes nothing for the caller: the
// units come back with time.
func (s *Store) giveBack(ctx context.Context, charged [][]ratelimit.Request) {
	for _, reqs := range charged {
		if len(reqs) > 0 {
			_, _, _ = s.run(ctx, "give", reqs)
		}
	}
}
