package audit

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/caddymodule/internal/exchange"
	"github.com/moat-gateway/moat/internal/canon"
)

func TestQueryNamesHoldNoValue(t *testing.T) {
	var many strings.Builder
	for n := range 40 {
		fmt.Fprintf(&many, "n%02d=1&", 39-n)
	}
	for query, want := range map[string][]string{
		"":                             nil,
		"b=2&a=1&b=3":                  {"a", "b"},
		"token=planted&x=":             {"token", "x"},
		"planted":                      {"…"},
		"a=1&planted&&":                {"a", "…"},
		"cGxhbnRlZA==":                 {"…"}, // Padded base64 looks like a name.
		"cGxhbnRlZDE=":                 {"…"},
		"a=b=planted":                  {"a"},
		"filter%5Bid%5D=1&sort[]=2":    {"filter[id]", "sort[]"},
		"a%20b=1":                      {"…"},
		"a;b=planted":                  {"…"},
		"%zz=1":                        {"…"},
		"=planted":                     {"…"},
		strings.Repeat("n", 64) + "=1": {strings.Repeat("n", 64)},
		strings.Repeat("n", 65) + "=1": {"…"},
	} {
		if got := queryNames(query); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", query, got, want)
		}
	}
	got := queryNames(many.String())
	if len(got) != 33 || got[32] != "…" || !slices.IsSorted(got[:32]) {
		t.Errorf("of forty names: %q", got)
	}
}

func TestRecordedURLsHoldNoSecret(t *testing.T) {
	for value, want := range map[string]string{
		"https://user:planted@a.test/b?planted#planted": "https://a.test/b",
		"https://planted@@a.test":                       "https://a.test",
		"//a.test/b?planted":                            "//a.test/b",
		"https://a.test/@b":                             "https://a.test/@b",
	} {
		if got := withoutURLSecrets("Referer", value); got != want {
			t.Errorf("%q: %q, want %q", value, got, want)
		}
	}
	if got := withoutURLSecrets("User-Agent", "what? (+http://a.test/)"); got != "what" {
		t.Errorf("%q", got)
	}
	if got := withoutURLSecrets("User-Agent", "x/1.0 (a; b?)"); got != "x/1.0 (a; b?)" {
		t.Errorf("%q", got)
	}
}

func TestRecordedHeadersAreTheClients(t *testing.T) {
	h := http.Header{
		"User-Agent": {strings.Repeat("é", 200)}, "Via": {"one", "two"}, "X-User-Id": {"forged"}, "X-Jwt": {"planted"},
		"X-Forwarded-Host": {"pretended"},
	}
	seen := see(h, []string{"User-Agent", "Via", "X-User-Id", "X-Jwt", "X-Forwarded-Host", "Referer"})
	// What guard and jwt do.
	delete(h, "X-Forwarded-Host")
	h["X-User-Id"], h["User-Agent"] = []string{"u-1"}, []string{"the gate's"}
	ex := &exchange.Exchange{Strip: canon.NewHeaderSet("X-User-Id"), Credentials: canon.NewHeaderSet("X-Jwt")}
	got := told(seen, h, ex)
	if len(got) != 2 || got[0].Name != "user-agent" || got[0].Value != strings.Repeat("é", 128)+"…" ||
		got[1].Name != "via" || got[1].Count != 2 || got[1].Value != "" {
		t.Errorf("got %+v", got)
	}
}
