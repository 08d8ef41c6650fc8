package app

import (
	"strings"
	"testing"
)

func TestTheTokenCacheIsAsLargeAsItIsSaid(t *testing.T) {
	size := func(n int) *int { return &n }
	for name, row := range map[string]struct {
		size *int
		on   bool
		want string // of the error
	}{
		"by default": {nil, true, ""},
		"set":        {size(5), true, ""},
		"off":        {size(0), false, ""},
		"negative":   {size(-1), false, "token_cache -1"},
		"too large":  {size(mostTokenCache + 1), false, "token_cache 1000001"},
	} {
		a := &App{TokenCache: row.size}
		err := provision(t, a)
		if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
			t.Errorf("%s: %v", name, err)
		}
		if (a.tokens != nil) != row.on {
			t.Errorf("%s: remembers %v", name, a.tokens != nil)
		}
		if err := a.Cleanup(); err != nil {
			t.Error(err)
		}
	}
}
