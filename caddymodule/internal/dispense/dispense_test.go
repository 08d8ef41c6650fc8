package dispense

import (
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
)

func TestEveryParameterNameSurvivesCaddysShorthands(t *testing.T) {
	caddys := httpcaddyfile.NewShorthandReplacer()
	rewritten := 0
	for _, name := range append([]string{"id", "uid", "org", "path_"}, shorthandNames...) {
		for _, written := range []string{
			"/files/{" + name + "}", "owner={" + name + "}", "/a/{" + name + "}/b/{" + name + "}/**",
		} {
			segment := caddyfile.Segment{{Text: written}}
			caddys.ApplyToSegment(&segment)
			if segment[0].Text != written {
				rewritten++
			}
			if got := AsWritten(segment[0].Text); got != written {
				t.Errorf("%s: Caddy made %s of it, mapped back to %s", written, segment[0].Text, got)
			}
		}
	}
	if rewritten < 3*len(shorthandNames) {
		t.Errorf("Caddy rewrote %d of %d; the list holds names that are no shorthands", rewritten, 3*len(shorthandNames))
	}
}

func TestDottedShorthandsAreShownAsWritten(t *testing.T) {
	caddys := httpcaddyfile.NewShorthandReplacer()
	for _, written := range []string{"{header.X-Id}", "{cookie.a}", "{query.q}", "{path.0}", "{vars.x}"} {
		segment := caddyfile.Segment{{Text: written}}
		caddys.ApplyToSegment(&segment)
		if got := AsWritten(segment[0].Text); got != written {
			t.Errorf("%s: shown as %s", written, got)
		}
	}
}

func TestAnEmptyPlaceholderIsAnError(t *testing.T) {
	t.Setenv("MOAT_TEST_SET", "value")
	t.Setenv("MOAT_TEST_EMPTY", "")
	t.Setenv("MOAT_TEST_BLANK", "  ")
	for _, value := range []string{
		"", " ", "{env.MOAT_TEST_UNSET}", "{env.MOAT_TEST_EMPTY}", "{env.MOAT_TEST_BLANK}",
		"x-{env.MOAT_TEST_EMPTY}", "{no.such.placeholder}", "{file./no/such/file}",
	} {
		if got, err := Expand("issuer \"a\": iss", value); err == nil {
			t.Errorf("%q expanded to %q", value, got)
		} else if !strings.Contains(err.Error(), `issuer "a": iss`) {
			t.Errorf("%q: the error names no place: %v", value, err)
		}
	}
	got, err := Expand("p", "a-{env.MOAT_TEST_SET}")
	if err != nil || got != "a-value" {
		t.Errorf("a set variable: %q, %v", got, err)
	}
}

func TestAnErrorNeverShowsTheExpandedValue(t *testing.T) {
	t.Setenv("MOAT_TEST_SECRET", "hunter2")
	_, err := Expand("p", "{env.MOAT_TEST_SECRET}{env.MOAT_TEST_UNSET}")
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("error: %v", err)
	}
}

func TestABlockReportsAllItsErrorsAtOnce(t *testing.T) {
	var name string
	var wait caddy.Duration
	d := caddyfile.NewTestDispenser("block {\n name a\n name b\n wait 5\n bogus x\n flag y\n name c d\n}")
	d.Next()
	var flag bool
	err := Words{
		"name": {Parse: String(&name)},
		"wait": {Parse: Duration(&wait)},
		"flag": {Parse: Flag(&flag)},
	}.Block(d, "block")
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		`"name" stands twice`, `wait "5": must be a positive duration`, `unknown word "bogus"`,
		`flag: unexpected argument "y"`, "Testfile:3", "Testfile:4", "Testfile:5", "Testfile:6",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in\n%v", want, err)
		}
	}
}

func TestSizesAndDurationsMustBePositive(t *testing.T) {
	for text, want := range map[string]int64{
		"1": 1, "512B": 512, "64KB": 64000, "64KiB": 65536, "20GiB": 20 << 30, "10 MiB": 10 << 20,
	} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("size %q: %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "0", "-1", "x", "1.5GiB", "99999999999999GiB", "GiB"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("size %q: %d", text, got)
		}
	}
	for _, text := range []string{"", "0", "-5s", "5", "x"} {
		if got, err := ParseDuration(text); err == nil {
			t.Errorf("duration %q: %s", text, got)
		}
	}
}
