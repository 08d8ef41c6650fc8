package syslog_test

import (
	"bufio"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/audit/follow"
	"github.com/moat-gateway/moat/internal/audit/sinks/syslog"
	"github.com/moat-gateway/moat/internal/audit/sinktest"
)

func formatter(t testing.TB, edit func(*syslog.Config)) *syslog.Sink {
	t.Helper()
	cfg := syslog.Config{Address: "syslog.test", MaxMessage: 2 << 20}
	if edit != nil {
		edit(&cfg)
	}
	s, err := syslog.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// sent returns the line as a strict receiver reads it.
func sent(t testing.TB, s *syslog.Sink, line follow.Line) message {
	t.Helper()
	framed, err := s.Frame(line)
	if err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(strings.NewReader(string(framed)))
	frame, err := readFrame(in)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.ReadByte(); err == nil {
		t.Fatalf("more than one message: %q", framed)
	}
	m, err := parseMessage(frame)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestAMessageIsWhatTheRFCSays(t *testing.T) {
	line := follow.Line{
		Seq: 7, Instance: "gw-1", Class: "security", Epoch: "boot-1",
		Raw: []byte(`{"timestamp":"2026-01-02T03:04:05.000006Z","action":"http.request","id":"e-7","outcome":"deny","severity":"high","seq":7}`),
	}
	for name, row := range map[string]struct {
		edit func(*syslog.Config)
		want string
	}{
		"by default": {nil, `<108>1 2026-01-02T03:04:05.000006Z gw-1 moat - http.request [meta sequenceId="7"] ` + string(line.Raw)},
		"with everything": {
			func(c *syslog.Config) { c.Facility, c.AppName, c.Enterprise = "local7", "edge", 4711 },
			`<188>1 2026-01-02T03:04:05.000006Z gw-1 edge - http.request [meta sequenceId="7"]` +
				`[moat@4711 seq="7" epoch="boot-1" class="security" outcome="deny" id="e-7"] ` + string(line.Raw),
		},
	} {
		framed, err := formatter(t, row.edit).Frame(line)
		if err != nil {
			t.Fatal(err)
		}
		if _, got, _ := strings.Cut(string(framed), " "); got != row.want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, row.want)
		}
		sent(t, formatter(t, row.edit), line)
	}
}

func TestSeveritiesAndFacilities(t *testing.T) {
	for text, want := range map[string]int{
		`"low"`: 6, `"medium"`: 5, `"high"`: 4, `"critical"`: 5, `""`: 5, `7`: 5, `null`: 5,
	} {
		m := sent(t, formatter(t, nil), follow.Line{Seq: 1, Instance: "i", Raw: []byte(`{"severity":` + text + `}`)})
		if m.severity != want || m.facility != 13 {
			t.Errorf("%s: facility %d, severity %d, want 13, %d", text, m.facility, m.severity, want)
		}
	}
	for name, want := range map[string]int{
		"": 13, "audit": 13, "auth": 4, "authpriv": 10, "local0": 16, "local7": 23, "0": 0, "1": 1, "23": 23,
	} {
		m := sent(t, formatter(t, func(c *syslog.Config) { c.Facility = name }), sinktest.Line(1, 0))
		if m.facility != want {
			t.Errorf("%q: facility %d, want %d", name, m.facility, want)
		}
	}
}

func TestTimesAreInUTCWithMicrosecondsOrNone(t *testing.T) {
	for text, want := range map[string]string{
		`"2026-01-02T03:04:05.123456Z"`:         "2026-01-02T03:04:05.123456Z",
		`"2026-01-02T03:04:05Z"`:                "2026-01-02T03:04:05.000000Z",
		`"2026-01-02T03:04:05.123456789+02:00"`: "2026-01-02T01:04:05.123456Z",
		`"2026-01-02T03:04:60Z"`:                "-",
		`"0000-01-01T00:00:00+01:00"`:           "-",
		`"9999-12-31T23:59:59-01:00"`:           "-",
		`"yesterday"`:                           "-",
		`"2026-01-02T03:04:05Z\n"`:              "-",
		`1767323045`:                            "-",
		`null`:                                  "-",
		`""`:                                    "-",
	} {
		line := follow.Line{Seq: 1, Instance: "i", Raw: []byte(`{"timestamp":` + text + `}`)}
		framed, err := formatter(t, nil).Frame(line)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Fields(string(framed))[2]; got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
		sent(t, formatter(t, nil), line)
	}
}

func TestHostileValuesStayInTheirPlace(t *testing.T) {
	long := strings.Repeat("ü", 300)
	for name, row := range map[string]struct{ value, header, structured string }{
		"empty":                {"", "-", ""},
		"a space":              {"a b", "a_b", "a b"},
		"a line break":         {"a\n<13>1 - b", "a_<13>1_-_b", "a_<13>1 - b"},
		"a carriage return":    {"a\r\x00\x7f", "a___", "a___"},
		"a quote and brackets": {`a"] [x@1 y="z"]`, `a"]_[x@1_y="z"]`, `a"] [x@1 y="z"]`},
		"backslashes":          {`a\\"\]`, `a\\"\]`, `a\\"\]`},
		"not ASCII":            {"köln\u2028\u202e", "k_ln__", "k_ln__"},
		"broken UTF-8":         {"a\xff\xfe", "a__", "a__"},
		"a byte order mark":    {"\ufeffa", "_a", "_a"},
		"long":                 {long, strings.Repeat("_", 255), strings.Repeat("_", 128)},
		"long ASCII":           {strings.Repeat("x", 300), strings.Repeat("x", 255), strings.Repeat("x", 128)},
	} {
		raw := sinktest.Line(9, 0).Raw
		m := sent(t, formatter(t, func(c *syslog.Config) { c.Enterprise = 1 }), follow.Line{
			Seq: 9, Instance: row.value, Epoch: row.value, Class: row.value, Raw: raw,
		})
		own := m.data["moat@1"]
		if m.host != row.header || own["epoch"] != row.structured || own["class"] != row.structured {
			t.Errorf("%s: host %q, structured data %q", name, m.host, own)
		}
		if m.text != string(raw) || m.app != "moat" || m.process != "-" || own["seq"] != "9" {
			t.Errorf("%s: %+v", name, m)
		}
	}
}

func TestTheActionNamesTheMessage(t *testing.T) {
	for action, want := range map[string]string{
		`"http.request"`: "http.request", `"a b\nc"`: "a_b_c", `""`: "-", `7`: "-", `"\ud800"`: "_",
		`"` + strings.Repeat("a", 33) + `"`: strings.Repeat("a", 32),
	} {
		m := sent(t, formatter(t, nil), follow.Line{Seq: 1, Instance: "i", Raw: []byte(`{"action":` + action + `}`)})
		if m.kind != want {
			t.Errorf("%s: %q, want %q", action, m.kind, want)
		}
	}
}

func TestSequenceIDsBeginAnewWhereTheyWouldBecomeTooLarge(t *testing.T) {
	for seq, want := range map[uint64]string{
		1: "1", 2: "2", 2147483647: "2147483647", 2147483648: "1", 2147483649: "2", 1<<64 - 1: "3",
	} {
		m := sent(t, formatter(t, func(c *syslog.Config) { c.Enterprise = 1 }), follow.Line{Seq: seq, Instance: "i", Raw: []byte(`{}`)})
		if m.data["meta"]["sequenceId"] != want {
			t.Errorf("%d: %v, want %s", seq, m.data, want)
		}
	}
}

func TestTheMessageIsTheTextWhereThereIsOneWithoutAByteOrderMark(t *testing.T) {
	line := sinktest.Line(3, 0)
	line.Text = []byte(`{"other":"ü"}`)
	m := sent(t, formatter(t, nil), line)
	if m.text != string(line.Text) || m.kind != "http.request" || m.at != time.Date(2026, 1, 2, 3, 4, 5, 3000, time.UTC) {
		t.Errorf("%+v", m)
	}
}
