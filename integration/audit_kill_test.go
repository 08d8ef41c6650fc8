//go:build linux

package integration

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// killSettings are the journals that a gateway is killed on.
var killSettings = []killSetting{
	{name: "default", fsync: "100ms"},
	{name: "fsync always", fsync: "always", allowedToo: true},
}

// killSetting says what a journal promises about an answer that arrived.
type killSetting struct {
	name, fsync string
	allowedToo  bool // also the event of an allowed request is there
}

func TestKilledGatewayKeepsWhatItsAnswersPromised(t *testing.T) {
	t.Parallel()
	for _, setting := range killSettings {
		t.Run(setting.name, func(t *testing.T) { killRounds(t, setting, 3) })
	}
}

// killTally is what the rounds of a setting came to.
type killTally struct {
	refused, allowed, cut, found, missing, torn int
}

// killRounds kills a gateway under load, over and over, on one journal.
func killRounds(t *testing.T, setting killSetting, rounds int) {
	t.Helper()
	s := startSite(t, siteConfig{NoAudit: true, Global: `
		audit {
			journal {$MOAT_JOURNAL} {
				fsync ` + setting.fsync + `
			}
		}`}, nil)
	var sum killTally
	for round := range rounds {
		l := startKillLoad(s, round, bearer(s.Issuer.as(t, "u-1", "user")))
		time.Sleep(50*time.Millisecond + rand.N(450*time.Millisecond))
		s.kill()
		answers := l.end(&sum)

		torn := tornTail(t, s.journal())
		before := readJournal(t, s.journal())
		sum.check(t, setting, answers, before)
		s.gateway = startIn(t, s.home, []string{s.Addr}, "--config", s.File, "--adapter", "caddyfile")
		after := readJournal(t, s.journal())
		checkRestart(t, before, after, torn)
		if torn {
			sum.torn++
		}
		if out, exit := s.moat(t, "audit", "verify", s.journal()); exit != 0 {
			t.Errorf("round %d: audit verify: exit %d\n%s", round, exit, out)
		}
		if t.Failed() {
			t.Fatalf("round %d", round)
		}
	}
	s.Stop(t)
	events := readJournal(t, s.journal())
	checkTrail(t, events)
	if out, exit := s.moat(t, "audit", "verify", s.journal()); exit != 0 {
		t.Errorf("audit verify after the end: exit %d\n%s", exit, out)
	}
	t.Logf("%s: %d rounds, %d answers received (%d refused, %d allowed) and %d cut off, %d events found, %d access events missing, %d torn ends recovered",
		setting.name, rounds, sum.refused+sum.allowed, sum.refused, sum.allowed, sum.cut, sum.found, sum.missing, sum.torn)
	if sum.refused < 20*rounds || sum.allowed < 20*rounds {
		t.Error("too few answers to say anything")
	}
}

// killAnswer is one answer that arrived to its last byte.
type killAnswer struct {
	path, requestID string
	status          int
}

// killLoad is the clients of one round.
type killLoad struct {
	group sync.WaitGroup

	mu      sync.Mutex
	answers []killAnswer
	cut     int
}

// startKillLoad sends requests until the gateway does not answer any more, each for
// a path of its own.
func startKillLoad(s *site, round int, user string) *killLoad {
	l := new(killLoad)
	for worker := range 4 {
		l.group.Go(func() {
			for n := 0; ; n++ {
				// Refusals of one address are summarised from the hundredth on.
				address := net.IPv4(127, byte(1+worker), byte(n>>8), byte(1+n&0xff%250))
				transport := &http.Transport{DisableCompression: true, DialContext: (&net.Dialer{
					LocalAddr: &net.TCPAddr{IP: address}, Timeout: time.Second,
				}).DialContext}
				c := &client{Base: "http://" + s.Addr, Client: &http.Client{Transport: transport, Timeout: 10 * time.Second}}
				ended := l.requests(c, fmt.Sprintf("r%d-w%d-%d", round, worker, n), user)
				transport.CloseIdleConnections()
				if ended {
					return
				}
			}
		})
	}
	return l
}

// requests sends some requests over one connection; true: the gateway is gone.
func (l *killLoad) requests(c *client, mark, user string) bool {
	for i := range 40 {
		path, header := fmt.Sprintf("/open/%s-%d", mark, i), []string(nil)
		switch i % 4 {
		case 1:
			path = fmt.Sprintf("/nowhere/%s-%d", mark, i)
		case 3:
			path, header = fmt.Sprintf("/documents/%s-%d", mark, i), []string{user}
		}
		a, err := c.try("GET", path, "", header...)
		l.mu.Lock()
		if err != nil {
			l.cut++
			l.mu.Unlock()
			return true
		}
		l.answers = append(l.answers, killAnswer{path, a.Header.Get("X-Request-Id"), a.Status})
		l.mu.Unlock()
	}
	return false
}

func (l *killLoad) end(sum *killTally) []killAnswer {
	l.group.Wait()
	sum.cut += l.cut
	return l.answers
}

// check looks for the events of what was answered.
func (sum *killTally) check(t *testing.T, setting killSetting, answers []killAnswer, events []event) {
	t.Helper()
	byRequest := make(map[string]event, len(events))
	for _, e := range events {
		byRequest[e.RequestID] = e
	}
	lost := 0
	for _, a := range answers {
		refused := a.status == 401 || a.status == 403
		if !refused && a.status != 200 {
			t.Fatalf("%s: status %d", a.path, a.status)
		}
		if refused {
			sum.refused++
		} else {
			sum.allowed++
		}
		e, ok := byRequest[a.requestID]
		switch {
		case ok && a.requestID != "" && e.Path == a.path && e.Status == a.status:
			sum.found++
		case ok:
			t.Errorf("%s answered %d as %s has the event\n%s", a.path, a.status, a.requestID, e.Line)
		case refused || setting.allowedToo:
			lost++
			t.Errorf("%s: answered %d as %s, and its event is gone", a.path, a.status, a.requestID)
		default:
			sum.missing++
		}
		if lost > 5 {
			t.Fatalf("and so on, of %d answers", len(answers))
		}
	}
}

// tornTail reports whether the journal ends in part of a line.
func tornTail(t *testing.T, dir string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil || len(files) == 0 {
		t.Fatalf("journal files %v, %v", files, err)
	}
	data, err := os.ReadFile(slices.Max(files))
	if err != nil {
		t.Fatal(err)
	}
	return !bytes.HasSuffix(data, []byte("\n"))
}

// checkRestart wants the old lines unchanged, then those of a start, and exactly
// for a torn end the record of it.
func checkRestart(t *testing.T, before, after []event, torn bool) {
	t.Helper()
	if len(after) <= len(before) || !bytes.Equal(after[len(before)-1].Line, before[len(before)-1].Line) {
		t.Fatalf("%d events before the start, %d after it", len(before), len(after))
	}
	var actions []string
	for _, e := range after[len(before):] {
		actions = append(actions, e.Action)
	}
	if actions[0] != "audit.segment" || !slices.Contains(actions, "gateway.start") || slices.Contains(actions, "audit.recovered") != torn {
		t.Errorf("torn %v, and the start recorded %s", torn, strings.Join(actions, ", "))
	}
}
