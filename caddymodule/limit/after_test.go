package limit

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/moat-gateway/moat/internal/ratelimit"
)

// kept counts what comes back to a store and what is taken afterwards.
type kept struct {
	ratelimit.Store
	given   int
	debited int64
}

func (k *kept) Give(_ context.Context, reqs []ratelimit.Request) error {
	k.given += len(reqs)
	return nil
}

func (k *kept) Debit(_ context.Context, reqs []ratelimit.Request) error {
	for _, r := range reqs {
		k.debited += r.Cost
	}
	return nil
}

// answer runs a request whose limit awaits its answer.
func answer(ctx context.Context, l *Limit, next caddyhttp.HandlerFunc) (k kept, panicked bool) {
	h := &Handler{store: &k}
	defer func() { panicked = recover() != nil }()
	r := httptest.NewRequestWithContext(ctx, "POST", "/", nil)
	_ = h.settle(httptest.NewRecorder(), r, next, []charged{{limit: l, request: ratelimit.Request{Cost: 1}}})
	return k, false
}

func TestAUnitComesBackOnlyForAnAnswerThatDoesNotCount(t *testing.T) {
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	status := func(code int) caddyhttp.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) error { w.WriteHeader(code); return nil }
	}
	for name, row := range map[string]struct {
		ctx    context.Context
		next   caddyhttp.HandlerFunc
		panics bool
		want   int
	}{
		"a status that counts":      {t.Context(), status(401), false, 0},
		"one that does not":         {t.Context(), status(200), false, 1},
		"nothing written is a 200":  {t.Context(), func(http.ResponseWriter, *http.Request) error { return nil }, false, 1},
		"an error that counts":      {t.Context(), func(http.ResponseWriter, *http.Request) error { return caddyhttp.Error(401, nil) }, false, 0},
		"an error that does not":    {t.Context(), func(http.ResponseWriter, *http.Request) error { return errors.New("x") }, false, 1},
		"the proxy says: hung up":   {t.Context(), status(499), false, 0},
		"hung up before the answer": {gone, status(200), false, 0},
		"an aborted answer":         {t.Context(), func(http.ResponseWriter, *http.Request) error { panic(http.ErrAbortHandler) }, true, 0},
	} {
		got, panicked := answer(row.ctx, &Limit{Count: []int{401}}, row.next)
		if panicked != row.panics {
			t.Errorf("%s: panic %v", name, panicked)
		}
		if got.given != row.want || got.debited != 0 {
			t.Errorf("%s: %d units came back, want %d; %d were taken, want none", name, got.given, row.want, got.debited)
		}
	}
}

func TestAPlaceIsFreeAfterEveryKindOfEnd(t *testing.T) {
	for name, next := range map[string]caddyhttp.HandlerFunc{
		"an answer":         func(w http.ResponseWriter, _ *http.Request) error { w.WriteHeader(200); return nil },
		"an error":          func(http.ResponseWriter, *http.Request) error { return errors.New("x") },
		"an aborted answer": func(http.ResponseWriter, *http.Request) error { panic(http.ErrAbortHandler) },
	} {
		if got, _ := answer(t.Context(), &Limit{Concurrent: 1}, next); got.given != 1 {
			t.Errorf("%s: %d places came back, want 1", name, got.given)
		}
	}
}

func TestAnAnswerSaysWhatItCost(t *testing.T) {
	for name, row := range map[string]struct {
		values  []string
		give    int
		debited int64
	}{
		"nothing said":       {nil, 0, 0},
		"one":                {[]string{"1"}, 0, 0},
		"several":            {[]string{"7"}, 0, 6},
		"nothing at all":     {[]string{"0"}, 1, 0},
		"not a number":       {[]string{"many"}, 0, 0},
		"less than nothing":  {[]string{"-5"}, 0, 0},
		"not whole":          {[]string{"2.5"}, 0, 0},
		"two answers to one": {[]string{"1", "9"}, 0, 0},
		"more than there is": {[]string{"9223372036854775807"}, 0, maxCost - 1},
		"beyond any number":  {[]string{"92233720368547758070"}, 0, maxCost - 1},
	} {
		write := map[string]caddyhttp.HandlerFunc{
			"with a status": func(w http.ResponseWriter, _ *http.Request) error {
				w.Header()["X-Cost"] = row.values
				w.WriteHeader(http.StatusTeapot)
				return nil
			},
			"with a body": func(w http.ResponseWriter, _ *http.Request) error {
				w.Header()["X-Cost"] = row.values
				_, err := w.Write([]byte("body"))
				return err
			},
			"with neither": func(w http.ResponseWriter, _ *http.Request) error {
				w.Header()["X-Cost"] = row.values
				return nil
			},
		}
		for how, next := range write {
			if got, _ := answer(t.Context(), &Limit{costFrom: "X-Cost"}, next); got.given != row.give || got.debited != row.debited {
				t.Errorf("%s, %s: gave back %d and took %d, want %d and %d", name, how, got.given, got.debited, row.give, row.debited)
			}
		}
	}
}
