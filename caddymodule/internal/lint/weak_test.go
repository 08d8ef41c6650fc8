package lint_test

import (
	"slices"
	"testing"

	"github.com/moat-gateway/moat/caddymodule/internal/lint"
)

// limited is a guarded server with these limits.
func limited(limits string) string {
	return server(quiet, routes(route(
		`{"handler": "moat_guard"}`, `{"handler": "moat_limit", "limits": [`+limits+`]}`, `{"handler": "moat_rbac"}`)))
}

func TestOnlyALimitThatCanRefuseAnybodyCounts(t *testing.T) {
	none := "medium no-limit-for-anonymous routes/0/handle/2"
	const first, second = "routes/0/handle/1/limits/0", "routes/0/handle/1/limits/1"
	for name, row := range map[string]struct {
		limits string
		want   []string
	}{
		"by address":         {`{"rate": "5/1m", "by": ["ip"]}`, nil},
		"by user":            {`{"rate": "5/1m", "by": ["user"]}`, []string{none}},
		"in shadow":          {`{"rate": "5/1m", "by": ["ip"], "mode": "shadow"}`, []string{none, "low shadow-mode " + first}},
		"by a chosen header": {`{"rate": "5/1m", "by": ["header:X"]}`, []string{none, "medium limit-key-from-caller " + first}},
		"two that are alike": {`{"rate": "5/1m", "by": ["ip"]}, {"rate": "5/1m", "by": ["ip"]}`, []string{"medium limit-never-bites " + second}},
		"the later tighter":  {`{"rate": "9/1m", "by": ["ip"]}, {"rate": "5/1m", "by": ["ip"]}`, []string{"medium limit-never-bites " + first}},
	} {
		if got := found(t, limited(row.limits), lint.Options{}); !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(row.want))) {
			t.Errorf("%s:\n got %q\nwant %q", name, got, row.want)
		}
	}
}

func TestAnInsecureSettingCountsWhereItIsInUse(t *testing.T) {
	for name, row := range map[string]struct {
		handlers string
		want     []string
	}{
		"off":         {`{"handler": "vars", "insecure_a": false, "insecure_b": "", "insecure_c": null, "insecure_d": 0, "insecure_e": []}`, nil},
		"on":          {`{"handler": "vars", "insecure_a": true}`, []string{"high insecure-setting routes/0/handle/0/insecure_a"}},
		"a file":      {`{"handler": "vars", "insecure_secrets_log": "f"}`, []string{"high insecure-setting routes/0/handle/0/insecure_secrets_log"}},
		"a mild one":  {`{"handler": "vars", "insecure_unsafe_csp": true}`, []string{"medium insecure-setting routes/0/handle/0/insecure_unsafe_csp"}},
		"both halves": {`{"handler": "moat_rbac", "stage": "match", "insecure_shadow": true}, {"handler": "moat_rbac", "stage": "decide", "insecure_shadow": true}`, []string{"high insecure-setting routes/0/handle/0/insecure_shadow"}},
	} {
		got := slices.DeleteFunc(found(t, server(quiet, routes(route(row.handlers))), lint.Options{}), func(f string) bool {
			return f == "medium no-limit-for-anonymous routes/0/handle/1"
		})
		if !slices.Equal(got, row.want) && len(got)+len(row.want) > 0 {
			t.Errorf("%s:\n got %q\nwant %q", name, got, row.want)
		}
	}
}
