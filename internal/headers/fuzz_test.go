package headers_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/internal/headers"
)

// What the parser accepts is one header value, means the same when it is read
// again, and names nothing that the text does not.
func FuzzParseCSP(f *testing.F) {
	for text := range wrong {
		f.Add(text)
	}
	for text := range right {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := headers.ParseCSP(text)
		if err != nil {
			if c != nil {
				t.Fatal("an error came with a policy")
			}
			return
		}
		s := c.String()
		for i := range len(s) {
			if s[i] == ',' || s[i] < ' ' || s[i] > '~' {
				t.Fatalf("%q holds %q", s, s[i])
			}
		}
		again, err := headers.ParseCSP(s)
		if err != nil {
			t.Fatalf("%q: its normal form %q: %v", text, s, err)
		}
		if again.String() != s || len(again) != len(c) {
			t.Fatalf("%q became %q, then %q", text, s, again)
		}
		lower := strings.ToLower(text)
		for _, d := range c {
			for _, word := range append([]string{d.Name}, d.Sources...) {
				if !strings.Contains(lower, strings.ToLower(word)) {
					t.Fatalf("%q gained %q", text, word)
				}
			}
		}
	})
}

// Whatever an upstream sends, and however often: one value, ours unless kept,
// and a kept one holds no control byte.
func FuzzSettle(f *testing.F) {
	for _, value := range []string{"", "DENY", "SAMEORIGIN", "deny, deny", "max-age=1", "a\x00", "default-src *"} {
		f.Add(value, "other", byte(0), true)
		f.Add(value, value, byte(1), false)
	}
	replacing, err := headers.New(headers.Config{})
	if err != nil {
		f.Fatal(err)
	}
	keeping, err := headers.New(headers.Config{Keep: replacing.Names()})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, first, second string, how byte, tls bool) {
		c := headers.Conn{TLS: tls}
		for _, p := range []*headers.Policy{replacing, keeping} {
			ours := http.Header{}
			p.Apply(ours, c)
			for _, name := range p.Names() {
				h := http.Header{}
				p.Apply(h, c)
				if how&1 != 0 {
					h.Del(name)
				}
				if how&2 == 0 {
					h.Add(name, first)
				}
				if how&4 == 0 {
					h[strings.ToLower(name)] = []string{second}
				}
				p.Settle(h, 200, c)
				checkSettled(t, p == replacing, h[name], ours[name])
				if h[strings.ToLower(name)] != nil {
					t.Fatalf("%s: two spellings", name)
				}
			}
		}
	})
}

func checkSettled(t *testing.T, replaced bool, got, ours []string) {
	t.Helper()
	if len(got) > 1 || len(ours) == 1 && len(got) != 1 {
		t.Fatalf("got %q where the policy has %q", got, ours)
	}
	if replaced && len(ours) == 1 && !slices.Equal(got, ours) {
		t.Fatalf("got %q, want %q", got, ours)
	}
	for _, value := range got {
		if strings.ContainsAny(value, "\x00\r\n") || strings.TrimSpace(value) == "" {
			t.Fatalf("kept %q", value)
		}
	}
}
