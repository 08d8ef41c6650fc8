package limit

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/moat-gateway/moat/internal/ratelimit"
)

// parseGrants reads what the limit or one of its tiers grants: rates separated by
// spaces, or places.
func (l *Limit) parseGrants(text string) ([]grant, error) {
	if l.Concurrent > 0 {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 1 || n > ratelimit.MaxSlots {
			return nil, fmt.Errorf("concurrent %q: must be between 1 and %d", text, ratelimit.MaxSlots)
		}
		return []grant{{slots: n}}, nil
	}
	var grants []grant
	var errs []error
	windows := make(map[time.Duration]bool)
	for word := range strings.FieldsSeq(text) {
		rate, err := ratelimit.ParseRate(word)
		if err == nil && windows[rate.Window] {
			err = fmt.Errorf("rate %q: another one has the same window", word)
		}
		windows[rate.Window] = true
		errs = append(errs, err)
		grants = append(grants, grant{rate: rate})
	}
	if len(grants) == 0 {
		errs = append(errs, errors.New("rate: must be units/duration, such as 100/1m"))
	}
	return grants, errors.Join(errs...)
}

func (l *Limit) compileGrants() error {
	text := l.Rate
	switch {
	case l.Concurrent < 0:
		return fmt.Errorf("concurrent %d: must be between 1 and %d", l.Concurrent, ratelimit.MaxSlots)
	case l.Concurrent > 0 && l.Rate != "":
		return errors.New("concurrent: stands in place of a rate; write two limits for both")
	case l.Concurrent > 0:
		text = strconv.FormatInt(l.Concurrent, 10)
	}
	grants, err := l.parseGrants(text)
	if err != nil {
		return err
	}
	l.grants = grants
	return l.compileBurst()
}

func (l *Limit) compileBurst() error {
	switch {
	case l.Burst == 0:
		return nil
	case l.Burst < 0:
		return fmt.Errorf("burst %d: must be at least 1", l.Burst)
	case l.Concurrent > 0:
		return errors.New("burst: a concurrency limit has none")
	case len(l.grants) > 1:
		return errors.New("burst: beside several rates it is not clear whose; write a limit for each")
	}
	l.grants[0].rate.Burst = l.Burst
	return l.grants[0].rate.Validate()
}

func (l *Limit) compileLease() error {
	switch {
	case l.Lease == 0:
		return nil
	case l.Lease < 2:
		return fmt.Errorf("lease %d: must be at least 2", l.Lease)
	case l.Concurrent > 0 || len(l.Count) > 0 || l.Cost != "":
		return errors.New("lease: stands only beside a rate without count and cost, because what is taken in advance is not given back")
	}
	var errs []error
	all := slices.Clone(l.grants)
	for _, grants := range l.tiers {
		all = append(all, grants...)
	}
	for _, g := range all {
		if l.Lease*10 > g.rate.Capacity() {
			errs = append(errs, fmt.Errorf("lease %d: must be at most a tenth of what the bucket holds, which is %d for %s", l.Lease, g.rate.Capacity(), g.rate))
		}
	}
	return errors.Join(errs...)
}

func (l *Limit) compileCost() error {
	if l.cost = 1; l.Cost == "" {
		return nil
	}
	if l.Concurrent > 0 {
		return errors.New("cost: a request takes one place")
	}
	if name, found := strings.CutPrefix(l.Cost, "header:"); found {
		if !httpguts.ValidHeaderFieldName(name) {
			return fmt.Errorf("cost %q: must name a header", l.Cost)
		}
		l.costFrom = canonicalHeader(name)
		return nil
	}
	n, err := strconv.ParseInt(l.Cost, 10, 64)
	if err != nil || n < 1 {
		return fmt.Errorf("cost %q: must be a number of at least 1, or header:NAME", l.Cost)
	}
	l.cost = n
	return l.checkCost()
}

// checkCost refuses a cost that never fits.
func (l *Limit) checkCost() error {
	var errs []error
	for _, g := range l.grants {
		if l.cost > g.rate.Capacity() {
			errs = append(errs, fmt.Errorf("cost %d: never fits into a bucket of %d", l.cost, g.rate.Capacity()))
		}
	}
	return errors.Join(errs...)
}

func (l *Limit) compileFallback(fallback ratelimit.Fallback) (err error) {
	l.fallback = fallback
	if l.OnError != "" {
		l.fallback.OnError, err = ratelimit.ParseOnError(l.OnError)
	}
	if l.Instances != 0 {
		l.fallback.Instances = l.Instances
	}
	if n := l.fallback.Instances; n < 0 || n > ratelimit.MaxInstances {
		err = errors.Join(err, fmt.Errorf("instances %d: must be between 1 and %d", n, ratelimit.MaxInstances))
	}
	return err
}
