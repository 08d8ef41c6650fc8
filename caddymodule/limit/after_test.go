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

// given counts what comes back to a store.
type given struct {
	ratelimit.Store
	units int
}

func (g *given) Give(_ context.Context, reqs []ratelimit.Request) error {
	g.units += len(reqs)
	return nil
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
		store := new(given)
		units := []reservation{{limit: &Limit{Count: []int{401}}, store: store}}
		r := httptest.NewRequestWithContext(row.ctx, "POST", "/", nil)
		func() {
			defer func() {
				if (recover() != nil) != row.panics {
					t.Errorf("%s: panic %v", name, !row.panics)
				}
			}()
			_ = settle(httptest.NewRecorder(), r, row.next, units)
		}()
		if store.units != row.want {
			t.Errorf("%s: %d units came back, want %d", name, store.units, row.want)
		}
	}
}
