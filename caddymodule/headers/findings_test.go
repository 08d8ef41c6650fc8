package headers

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/moat-gateway/moat/internal/headers/inline"
)

func TestTheSameFindingOfAPathIsLoggedOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zapcore.InfoLevel)
		f := newFindings(modeNonce, zap.New(core))
		for range 5 {
			f.tell("/a", inline.Finding{Kind: inline.EventHandler})
			f.tell("/b", inline.Finding{Kind: inline.EventHandler})
			f.tell("/a", inline.Finding{Kind: inline.Srcdoc})
			f.unreadable("/a", fmt.Errorf("broken"))
			time.Sleep(10 * time.Second)
		}
		if logs.Len() != 4 {
			t.Fatalf("%d lines: %v", logs.Len(), logs.All())
		}
		time.Sleep(10 * time.Second)
		f.tell("/a", inline.Finding{Kind: inline.EventHandler})
		if last := logs.All()[logs.Len()-1]; logs.Len() != 5 || last.ContextMap()["left_out"] != int64(16) {
			t.Errorf("%d lines, the last: %v", logs.Len(), last)
		}
	})
}

func TestPathsThatCallersInventFillNeitherLogNorMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zapcore.InfoLevel)
		f := newFindings(modeNonce, zap.New(core))
		for i := range 3 * maxQuieted {
			f.tell(fmt.Sprint("/", i), inline.Finding{Kind: inline.EventHandler})
		}
		if logs.Len() != maxQuieted || len(f.told) != maxQuieted {
			t.Errorf("%d lines, %d remembered", logs.Len(), len(f.told))
		}
		time.Sleep(time.Minute)
		f.tell("/new", inline.Finding{Kind: inline.EventHandler})
		if logs.Len() != maxQuieted+1 || len(f.told) != 1 {
			t.Errorf("a minute later: %d lines, %d remembered", logs.Len(), len(f.told))
		}
	})
}

func TestAnUnpinnedScriptIsLoggedAsTheLineThatItLacks(t *testing.T) {
	core, logs := observer.New(zapcore.InfoLevel)
	f := newFindings(modePin, zap.New(core))
	hash := inline.HashScript([]byte("secret()"))
	f.tell("/a", inline.Finding{Kind: inline.Unpinned, Hash: hash})
	f.tell("/a", inline.Finding{Kind: inline.Srcdoc})
	all := logs.All()
	if got := all[0].ContextMap()["hash"]; got != hash.String() || !strings.HasPrefix(hash.String(), "script sha256-") {
		t.Errorf("hash %v", got)
	}
	if _, has := all[1].ContextMap()["hash"]; has {
		t.Error("a hash of nothing")
	}
}
