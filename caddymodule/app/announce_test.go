package app

import (
	"strings"
	"testing"

	"github.com/moat-gateway/moat/internal/ratelimit"
)

func TestTwoLimitsMayShareACountAndNotARate(t *testing.T) {
	a := &App{limiter: new(limiter)}
	named := func(grants string) ratelimit.Named {
		return ratelimit.Named{Name: "ip", Site: "s", Grants: map[string]string{"s/ip-1#1": grants}}
	}
	for _, step := range []struct {
		grants, want string
	}{{"20/1h", ""}, {"20/1h", ""}, {"5/1s", "counts the same as another limit"}} {
		err := a.Announce(named(step.grants))
		if (err == nil) != (step.want == "") || err != nil && !strings.Contains(err.Error(), step.want) {
			t.Errorf("%s: error %v, want %q", step.grants, err, step.want)
		}
	}
}
