package ratelimit_test

import (
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/ratelimit"
)

const day = 24 * time.Hour

func TestParseRateReadsWhatPeopleWrite(t *testing.T) {
	for in, want := range map[string]ratelimit.Rate{
		"100/1m":     {N: 100, Window: time.Minute},
		"5/15m":      {N: 5, Window: 15 * time.Minute},
		"50/24h":     {N: 50, Window: day},
		"1000/1h":    {N: 1000, Window: time.Hour},
		"1/1s":       {N: 1, Window: time.Second},
		"1000/1ms":   {N: 1000, Window: time.Millisecond},
		"1/1ms":      {N: 1, Window: time.Millisecond},
		"10/1d":      {N: 10, Window: day},
		"10/1d12h":   {N: 10, Window: 36 * time.Hour},
		"10/30d":     {N: 10, Window: 30 * day},
		"1/366d":     {N: 1, Window: 366 * day},
		"10/1h30m":   {N: 10, Window: 90 * time.Minute},
		"10/1.5s":    {N: 10, Window: 1500 * time.Millisecond},
		"007/1m":     {N: 7, Window: time.Minute},
		"10/8784h0s": {N: 10, Window: 366 * day},
	} {
		got, err := ratelimit.ParseRate(in)
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v, want %+v", in, got, err, want)
		}
	}
}

func TestParseRateRefusesEverythingElse(t *testing.T) {
	for in, want := range map[string]string{
		"":                            "units/duration",
		"100":                         "units/duration",
		"100 1m":                      "units/duration",
		"/":                           "units",
		"/1m":                         "units",
		"100/":                        "window",
		"100/m":                       "window",
		"100/1":                       "window",
		"100/1x":                      "window",
		"100/0":                       "between 1ms and 366d",
		"100/-1m":                     "window",
		"100/+1m":                     "window",
		"100/d":                       "window",
		"100/-1d":                     "window",
		"100/1.5d":                    "window",
		"100/1d-1h":                   "window",
		"100/1d+1h":                   "window",
		"100/1h1d":                    "window",
		"100/1dd":                     "window",
		"100/367d":                    "between 1ms and 366d",
		"100/366d1s":                  "between 1ms and 366d",
		"100/99999999999999999d":      "between 1ms and 366d",
		"100/9999999999999999999999d": "window",
		"100/2562047h":                "between 1ms and 366d",
		"100/366d2562047h":            "between 1ms and 366d",
		"100/999us":                   "between 1ms and 366d",
		"100/1000001ns":               "whole microseconds",
		"0/1m":                        "at least 1",
		"-1/1m":                       "whole number",
		"+1/1m":                       "whole number",
		"1.5/1m":                      "whole number",
		"1e3/1m":                      "whole number",
		"0x10/1m":                     "whole number",
		" 1/1m":                       "whole number",
		"1 /1m":                       "whole number",
		"9223372036854775808/1m":      "whole number",
		"1001/1ms":                    "one per microsecond",
		"100/1m/1m":                   "window",
		"１/1m":                        "whole number",
	} {
		got, err := ratelimit.ParseRate(in)
		if err == nil || got != (ratelimit.Rate{}) {
			t.Errorf("%q: accepted as %+v", in, got)
			continue
		}
		if !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "rate") {
			t.Errorf("%q: error %q does not say %q", in, err, want)
		}
	}
}

func TestParseRateReportsBothHalves(t *testing.T) {
	_, err := ratelimit.ParseRate("x/y")
	if err == nil || !strings.Contains(err.Error(), "units") || !strings.Contains(err.Error(), "window") {
		t.Fatalf("error %v", err)
	}
}

func TestParseRateErrorsStayShort(t *testing.T) {
	for _, in := range []string{strings.Repeat("9", 1<<20), strings.Repeat("9", 1<<20) + "/" + strings.Repeat("9", 1<<20)} {
		if _, err := ratelimit.ParseRate(in); err == nil || len(err.Error()) > 500 {
			t.Errorf("error of %d bytes", len(err.Error()))
		}
	}
}

func TestValidateReportsEveryMistake(t *testing.T) {
	for _, tt := range []struct {
		name string
		rate ratelimit.Rate
		want []string
	}{
		{"zero", ratelimit.Rate{}, []string{"units 0", "window 0s"}},
		{"negative", ratelimit.Rate{N: -1, Window: -1, Burst: -1}, []string{"units -1", "window -1ns", "burst -1"}},
		{"negative burst", ratelimit.Rate{N: 1, Window: time.Second, Burst: -1}, []string{"burst -1"}},
		{"burst that fills in years", ratelimit.Rate{N: 1, Window: 366 * day, Burst: 11}, []string{"burst 11: must fill within 3660d"}},
		{"burst that overflows", ratelimit.Rate{N: 1, Window: 366 * day, Burst: 1 << 62}, []string{"must fill within"}},
	} {
		err := tt.rate.Validate()
		if err == nil {
			t.Errorf("%s: accepted", tt.name)
			continue
		}
		for _, want := range tt.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: error %q does not name %q", tt.name, err, want)
			}
		}
	}
	for _, ok := range []ratelimit.Rate{
		{N: 1, Window: 366 * day, Burst: 10},
		{N: 31_622_400_000_000, Window: 366 * day},
		{N: 1, Window: time.Millisecond},
		{N: 100, Window: time.Minute, Burst: 1},
		{N: 100, Window: time.Minute, Burst: 500},
	} {
		if err := ok.Validate(); err != nil {
			t.Errorf("%+v: %v", ok, err)
		}
	}
}

func TestRateStringIsReadBack(t *testing.T) {
	for _, in := range []string{"100/1m", "5/15m", "50/24h", "10/30d", "10/1h30m", "3/1.5s", "1/1ms", "10/36h", "7/1h0m30s"} {
		rate, err := ratelimit.ParseRate(in)
		if err != nil {
			t.Fatal(err)
		}
		if got := rate.String(); got != in {
			t.Errorf("%q prints as %q", in, got)
		}
	}
	if got := (ratelimit.Rate{N: 100, Window: time.Minute, Burst: 20}).String(); got != "100/1m burst 20" {
		t.Error(got)
	}
}

func FuzzParseRate(f *testing.F) {
	for _, s := range []string{"100/1m", "5/15m", "10/1d12h", "0/1m", "1/0", "1001/1ms", "x/y", "1/1d-1h", "9/1.5s", "1/µs", "/", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		rate, err := ratelimit.ParseRate(s)
		if err != nil {
			return
		}
		if err := rate.Validate(); err != nil {
			t.Fatalf("%q parsed to an invalid rate: %v", s, err)
		}
		again, err := ratelimit.ParseRate(rate.String())
		if err != nil || again != rate {
			t.Fatalf("%q prints as %q, which reads as %+v, %v", s, rate, again, err)
		}
	})
}

func TestUnitsNeverComeBackFasterThanTheRate(t *testing.T) {
	for _, tt := range []struct {
		rate ratelimit.Rate
		want int64
	}{
		{ratelimit.Rate{}, 0},
		{ratelimit.Rate{N: 100, Window: time.Minute}, 600_000},
		{ratelimit.Rate{N: 7, Window: time.Second}, 142_858},
		{ratelimit.Rate{N: 600_000, Window: time.Second}, 2},
		{ratelimit.Rate{N: 1_000_000, Window: time.Second}, 1},
	} {
		if got := tt.rate.UnitMicros(); got != tt.want {
			t.Errorf("%s: %dµs a unit, want %d", tt.rate, got, tt.want)
		}
	}
}

func TestShareDividesAndKeepsOneUnit(t *testing.T) {
	for _, tt := range []struct {
		instances int
		in, want  ratelimit.Rate
	}{
		{0, ratelimit.Rate{N: 100, Window: time.Minute}, ratelimit.Rate{N: 100, Window: time.Minute}},
		{1, ratelimit.Rate{N: 100, Window: time.Minute}, ratelimit.Rate{N: 100, Window: time.Minute}},
		{3, ratelimit.Rate{N: 100, Window: time.Minute}, ratelimit.Rate{N: 33, Window: time.Minute}},
		{3, ratelimit.Rate{N: 100, Window: time.Minute, Burst: 10}, ratelimit.Rate{N: 33, Window: time.Minute, Burst: 3}},
		{8, ratelimit.Rate{N: 5, Window: time.Minute, Burst: 2}, ratelimit.Rate{N: 1, Window: time.Minute, Burst: 1}},
	} {
		if got := tt.in.Share(tt.instances); got != tt.want {
			t.Errorf("%s for %d: %s, want %s", tt.in, tt.instances, got, tt.want)
		}
	}
}
