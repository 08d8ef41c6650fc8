package denial

import (
	"net/http/httptest"
	"testing"
)

func TestOnlyANavigationThatPrefersHTMLGetsAPage(t *testing.T) {
	const browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
	for name, row := range map[string]struct {
		method, mode, accept string
		want                 bool
	}{
		"a browser's navigation":          {"GET", "navigate", browser, true},
		"an old browser without metadata": {"GET", "", browser, true},
		"a form that was posted":          {"POST", "navigate", browser, true},
		"fetch with the same Accept":      {"GET", "cors", browser, false},
		"an image":                        {"GET", "no-cors", browser, false},
		"curl":                            {"GET", "", "*/*", false},
		"no Accept at all":                {"GET", "", "", false},
		"an API client":                   {"GET", "", "application/json", false},
		"JSON before HTML":                {"GET", "", "application/json, text/html;q=0.5", false},
		"HTML refused":                    {"GET", "", "text/html;q=0, */*", false},
		"a weight that is none":           {"GET", "", "text/html;q=high", false},
		"PUT":                             {"PUT", "navigate", browser, false},
	} {
		r := httptest.NewRequest(row.method, "/", nil)
		if row.mode != "" {
			r.Header.Set("Sec-Fetch-Mode", row.mode)
		}
		if row.accept != "" {
			r.Header.Set("Accept", row.accept)
		}
		if got := PrefersHTML(r); got != row.want {
			t.Errorf("%s: %v, want %v", name, got, row.want)
		}
	}
}
