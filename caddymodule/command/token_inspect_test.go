package command

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/token"
)

func TestATokenIsWellFormedWhenNothingVerifies(t *testing.T) {
	prefix := devKey(t)
	good := done(t, newTokenSign(), "", append(devToken, "--key", prefix+".private.pem")...)
	expired := done(t, newTokenSign(), "", append(devToken, "--key", prefix+".private.pem", "--ttl", "-3h")...)
	for name, row := range map[string]struct {
		raw  string
		exit int
		want []string
	}{
		"good":    {good, 0, []string{"\nwell-formed\n", "nothing to verify with", "signature not checked", "expires in 59 minutes", `"sub": "u-1"`, "would be  u-1"}},
		"expired": {expired, 0, []string{"\nwell-formed jwt.expired\n", "expiry    failed", "expired 3 hours ago"}},
		"broken":  {"planted", 1, []string{"refused jwt.malformed", "form      failed", "header    not reached"}},
	} {
		r := runToken(t, newTokenInspect(), row.raw, "-")
		if r.exit != row.exit || r.err != "" {
			t.Errorf("%s: exit %d\n%s", name, r.exit, r.err)
		}
		for _, want := range row.want {
			if !strings.Contains(r.out, want) {
				t.Errorf("%s: no %q in\n%s", name, want, r.out)
			}
		}
		if strings.Contains(r.out, "planted") {
			t.Errorf("%s: what is no token is printed", name)
		}
	}
}

func TestAnAcceptedTokenOfAnyIssuerIsSaidToBeThat(t *testing.T) {
	prefix := devKey(t)
	raw := done(t, newTokenSign(), "", append(devToken, "--key", prefix+".private.pem")...)
	for want, args := range map[string][]string{
		"every check passes, but any iss and any aud would do": nil,
		"every check passes, but any aud would do":             {"--iss", "https://id.test"},
	} {
		if out := done(t, newTokenInspect(), raw, append(args, "-", "--key", prefix+".public.pem")...); !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

func TestASignatureIsNeverPrinted(t *testing.T) {
	prefix := devKey(t)
	raw := strings.TrimSpace(done(t, newTokenSign(), "", append(devToken, "--key", prefix+".private.pem")...))
	signature := raw[strings.LastIndex(raw, ".")+1:]
	for _, args := range [][]string{{"-"}, {"-", "--json"}, {raw}, {raw, "--at", "noon"}, {"-", "--key", prefix + ".public.pem"}} {
		r := runToken(t, newTokenInspect(), raw, args...)
		if strings.Contains(r.out+r.err, signature) {
			t.Errorf("%q: the signature is printed\n%s%s", args[1:], r.out, r.err)
		}
		if warned := strings.Contains(r.err, "stays in the shell's history"); warned != (args[0] == raw && len(args) == 1) {
			t.Errorf("%q: warned: %v", args[1:], warned)
		}
	}
}

func TestTheAnswerOfInspectAsJSON(t *testing.T) {
	prefix := devKey(t)
	raw := done(t, newTokenSign(), "", append(devToken, "--key", prefix+".private.pem", "--role", "a b")...)
	r := runToken(t, newTokenInspect(), raw, "-", "--json", "--key", prefix+".public.pem", "--iss", "https://id.test", "--aud", "x", "--aud", "y")
	var got tokenReport
	if err := json.Unmarshal([]byte(r.out), &got); err != nil || r.exit != 1 {
		t.Fatalf("exit %d, %v\n%s", r.exit, err, r.out)
	}
	if got.Result != "refused" || got.Reason != token.ReasonAudMismatch || got.Caller != nil || len(got.Dates) != 2 {
		t.Errorf("%+v", got)
	}
	want := tokenCheck{Check: "aud", Outcome: token.Failed, Reason: token.ReasonAudMismatch, Says: got.Says, Accepts: []string{"x", "y"}}
	if !reflect.DeepEqual(got.Checks[7], want) {
		t.Errorf("check %+v, want %+v", got.Checks[7], want)
	}
	r = runToken(t, newTokenInspect(), raw, "-", "--json", "--key", prefix+".public.pem", "--iss", "https://id.test", "--aud", "orders-api")
	got = tokenReport{}
	if err := json.Unmarshal([]byte(r.out), &got); err != nil || r.exit != 0 {
		t.Fatalf("exit %d, %v\n%s", r.exit, err, r.out)
	}
	if got.Result != "accepted" || got.Says != "every check passes" || got.Caller.ID != "u-1" || !got.Caller.Known || got.Caller.Roles[0] != "a b" {
		t.Errorf("%+v, caller %+v", got, got.Caller)
	}
}

func TestATokenCannotSteerTheTerminal(t *testing.T) {
	prefix := devKey(t)
	raw := done(t, newTokenSign(), "", append(devToken, "--key", prefix+".private.pem", "--claim", `y="\u009b2J\u007f\u001b"`)...)
	for _, c := range runToken(t, newTokenInspect(), raw, "-").out {
		if c != '\n' && c < ' ' || c >= 0x7f && c < 0xa0 {
			t.Fatalf("%U is printed", c)
		}
	}
}

func TestDatesInWords(t *testing.T) {
	at := time.Unix(1_800_000_000, 0)
	for want, m := range map[string]token.Moment{
		"expired 3 minutes ago":            {Claim: "exp", At: at.Add(-3*time.Minute - 40*time.Second)},
		"expired 0 seconds ago":            {Claim: "exp", At: at},
		"expires in 1 second":              {Claim: "exp", At: at.Add(time.Second)},
		"expires in 47 hours":              {Claim: "exp", At: at.Add(48*time.Hour - 1)},
		"expires in 2 days":                {Claim: "exp", At: at.Add(48 * time.Hour)},
		"became valid 1 hour ago":          {Claim: "nbf", At: at.Add(-time.Hour)},
		"becomes valid in 1 minute":        {Claim: "nbf", At: at.Add(time.Minute)},
		"issued 59 seconds ago":            {Claim: "iat", At: at.Add(-59 * time.Second)},
		"issued in the future, in 2 hours": {Claim: "iat", At: at.Add(2 * time.Hour)},
		"logged in 9 days ago":             {Claim: "auth_time", At: at.Add(-9 * 24 * time.Hour)},
	} {
		if got := dateSays(m, at); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestTheDocsNameEveryCheckAndReason keeps docs/token.md complete.
func TestTheDocsNameEveryCheckAndReason(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "token.md"))
	if err != nil {
		t.Fatal(err)
	}
	reader, err := token.NewReader(token.Config{Name: "x", AnyIssuer: true, AnyAudience: true})
	if err != nil {
		t.Fatal(err)
	}
	seen, err := reader.Inspect(t.Context(), "", time.Now(), true)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range seen.Checks {
		if !strings.Contains(string(text), fmt.Sprintf("\n| `%s` |", c.Name)) {
			t.Errorf("docs/token.md has no line for the check %s", c.Name)
		}
	}
	for _, reason := range token.Reasons() {
		if !strings.Contains(string(text), "`"+strings.TrimPrefix(reason, "jwt.")+"`") {
			t.Errorf("docs/token.md has no reason %s", reason)
		}
	}
}
