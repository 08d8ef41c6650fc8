package limit

import (
	"net/http"

	"github.com/moat-gateway/moat/caddymodule/internal/exchange"
	"github.com/moat-gateway/moat/internal/ratelimit"
)

// tell writes RateLimit-Policy and RateLimit with the limits of this and of earlier
// handlers. Those that refused are told already; of the others not the quiet ones,
// and none of which what is left tells a stranger about others.
func (c *charge) tell(w http.ResponseWriter, ex *exchange.Exchange) {
	for i, l := range c.limits {
		if c.results[i].Allowed && !l.silent {
			ex.Limits = append(ex.Limits, c.reported(i))
		}
	}
	if len(ex.Limits) == 0 {
		return
	}
	w.Header()["Ratelimit-Policy"] = []string{ratelimit.PolicyHeader(ex.Limits)}
	w.Header()["Ratelimit"] = []string{ratelimit.LimitHeader(ex.Limits)}
}

func (c *charge) reported(i int) ratelimit.Reported {
	rate := c.requests[i].Rate
	if n := c.requests[i].Slots; n > 0 {
		rate = ratelimit.Rate{N: n}
	}
	return ratelimit.Reported{Name: c.told[i], Rate: rate, Result: c.results[i]}
}
