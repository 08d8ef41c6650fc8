package audit_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/audit"
)

var pseudonymKey = bytes.Repeat([]byte{7}, 32)

func pseudonyms(t testing.TB, kinds ...string) *audit.Pseudonyms {
	t.Helper()
	p, err := audit.NewPseudonyms(pseudonymKey, kinds...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPseudonymsAreWhatTheDocumentationSays(t *testing.T) {
	mac := hmac.New(sha256.New, pseudonymKey)
	mac.Write([]byte("ip\x00192.0.2.7"))
	want := "p:" + hex.EncodeToString(mac.Sum(nil))[:32]
	p := pseudonyms(t, "ip")
	for range 2 {
		if got := p.Of("ip", "192.0.2.7"); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	if p.Of("user", "u-1") != "u-1" || p.Of("ip", "") != "" {
		t.Error("what is not to be replaced was")
	}
	if both := pseudonyms(t, "ip", "user"); both.Of("user", "x") == both.Of("ip", "x") {
		t.Error("a user and an address of the same text share a pseudonym")
	}
	if (*audit.Pseudonyms)(nil).Of("ip", "192.0.2.7") != "192.0.2.7" {
		t.Error("no pseudonyms replace something")
	}
}

func TestPseudonymsTakeNoWeakKeyAndNoUnknownKind(t *testing.T) {
	if _, err := audit.NewPseudonyms(pseudonymKey[:31], "ip"); err == nil {
		t.Error("a key of 31 bytes was taken")
	}
	if _, err := audit.NewPseudonyms(pseudonymKey, "tenant"); err == nil {
		t.Error("an unknown kind was taken")
	}
}

func TestAVeiledEventIsWrittenWithPseudonyms(t *testing.T) {
	p := pseudonyms(t, "ip", "user")
	e := sample()
	e.IP, e.UserID = "192.0.2.7", "u-1"
	line := string(p.Veil(e).AppendJSON(nil))
	for _, want := range []string{`"ip":"` + p.Of("ip", e.IP) + `"`, `"userId":"` + p.Of("user", e.UserID) + `"`} {
		if !strings.Contains(line, want) {
			t.Errorf("no %s in\n%s", want, line)
		}
	}
	if e.IP != "192.0.2.7" || strings.Contains(line, "192.0.2.7") || strings.Contains(line, `"u-1"`) {
		t.Errorf("the event changed, or a name is in\n%s", line)
	}
	e.UserID = ""
	if line := string(p.Veil(e).AppendJSON(nil)); !strings.Contains(line, `"userId":"anonymous"`) {
		t.Errorf("nobody has a pseudonym in\n%s", line)
	}
}

func TestAFloodIsToldByAddressAndSummedUpByPseudonym(t *testing.T) {
	var summaries []*audit.Event
	now := time.Unix(1e9, 0)
	f := audit.NewFlood(audit.FloodConfig{
		Limit: 1, Now: func() time.Time { return now },
		Emit: func(e *audit.Event) { summaries = append(summaries, e) },
	})
	p := pseudonyms(t, "ip")
	for _, address := range []string{"2001:db8::1", "2001:db8::2", "2001:db8::3"} {
		e := &audit.Event{Class: audit.Security, Outcome: audit.Deny, Reason: "x", IP: address}
		f.Admit(p.Veil(e))
	}
	f.Close()
	if len(summaries) != 1 {
		t.Fatalf("%d summaries, want one of the network", len(summaries))
	}
	line := string(summaries[0].AppendJSON(nil))
	if strings.Contains(line, "2001:db8") || !strings.Contains(line, p.Of("ip", "2001:db8::/64")) || !strings.Contains(line, p.Of("ip", "2001:db8::2")) {
		t.Errorf("the summary is\n%s", line)
	}
}

func TestPseudonymKeyFiles(t *testing.T) {
	random := bytes.Repeat([]byte{0xfe, 3}, 16)
	for name, row := range map[string]struct {
		content string
		want    []byte
	}{
		"hex":              {hex.EncodeToString(random) + "\n", random},
		"base64":           {" " + base64.StdEncoding.EncodeToString(random) + "\n", random},
		"base64url":        {base64.RawURLEncoding.EncodeToString(random), random},
		"raw":              {string(random), random},
		"a text":           {"thirty-two characters, or more of them", []byte("thirty-two characters, or more of them")},
		"too short":        {"short", nil},
		"too short in hex": {hex.EncodeToString(random[:15]), nil},
	} {
		key, err := audit.ParsePseudonymKey([]byte(row.content))
		if !bytes.Equal(key, row.want) || (err == nil) != (row.want != nil) {
			t.Errorf("%s: key %q, error %v", name, key, err)
		}
	}
	file := filepath.Join(t.TempDir(), "key")
	first, err := audit.EnsurePseudonymKey(file)
	if err != nil || len(first) != 32 {
		t.Fatalf("%d bytes, %v", len(first), err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if again, err := audit.EnsurePseudonymKey(file); err != nil || !bytes.Equal(again, first) {
		t.Errorf("the second start has another key, %v", err)
	}
	if left, _ := os.ReadDir(filepath.Dir(file)); len(left) != 1 {
		t.Errorf("%d files beside the key", len(left)-1)
	}
}

func TestFieldsAreAnObject(t *testing.T) {
	var e audit.Event
	e.Details.Set("headers", []audit.Field{{Name: "user-agent", Value: "curl\"\n" + strings.Repeat("\u202e", 300)}, {Name: "via", Count: 2}})
	line := string(e.AppendJSON(nil))
	if !strings.Contains(line, `"headers":{"user-agent":"curl\"\u000a`) || !strings.Contains(line, `…","via":2}`) {
		t.Error(line)
	}
}

func BenchmarkAppendJSONWithPseudonyms(b *testing.B) {
	p, e := pseudonyms(b, "ip", "user"), sample()
	buf := make([]byte, 0, audit.MaxLine)
	b.ReportAllocs()
	for b.Loop() {
		buf = p.Veil(e).AppendJSON(buf[:0])
	}
}
