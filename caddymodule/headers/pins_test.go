package headers

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/moat-gateway/moat/internal/headers/inline"
)

func pin(text string) inline.Hash { return inline.HashScript([]byte(text)) }

// pinText is what a file with those scripts holds.
func pinText(scripts ...string) string {
	p := inline.NewPins(0)
	for _, s := range scripts {
		p.Learn(pin(s))
	}
	return string(p.Snapshot())
}

func writePins(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// want fails the test if the set holds other scripts.
func (p *pinFile) want(t *testing.T, when string, scripts ...string) {
	t.Helper()
	if got, want := string(p.set.Snapshot()), pinText(scripts...); got != want {
		t.Errorf("%s: %s, want %s", when, got, want)
	}
}

func TestWhatIsTakenOutOfTheFileIsGoneWithTheNextConfiguration(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pins")
	writePins(t, path, pinText("a", "b"))
	running := &Handler{Settings: Settings{Inline: modePin, Pins: path}}
	if err := provisioned(t, running); err != nil {
		t.Fatal(err)
	}
	pins := running.inliners[running.policy].pins
	running.acceptPins()
	pins.want(t, "at the beginning", "a", "b")
	lines := strings.SplitAfter(strings.TrimSuffix(pinText("b", "c"), "\n"), "\n")
	writePins(t, path, lines[0]+lines[2]+"\n"+strings.TrimSuffix(lines[1], "\n")+"\n") // Not in our order.
	next := &Handler{Settings: Settings{Inline: modePin, Pins: path}}
	if err := provisioned(t, next); err != nil {
		t.Fatal(err)
	}
	if next.inliners[next.policy].pins != pins {
		t.Error("two sets of one file")
	}
	pins.want(t, "before the next one is used: it may be refused", "a", "b")
	next.acceptPins()
	pins.want(t, "after an edit", "b", "c")
	for text, want := range map[string]string{
		"moat-pins 1\nscript sha256-x\n": "line 2",
		pinText("b")[:60]:                "no line break",
		"":                               "line 1",
		pinText():                        "has no hash",
	} {
		writePins(t, path, text)
		broken := &Handler{Settings: Settings{Inline: modePin, Pins: path}}
		if err := provisioned(t, broken); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
		if err := broken.Cleanup(); err != nil {
			t.Error(err)
		}
		pins.want(t, "with a file that is refused", "b", "c")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	gone := &Handler{Settings: Settings{Inline: modePin, Pins: path}}
	if err := provisioned(t, gone); err == nil || !strings.Contains(err.Error(), "has no hash") {
		t.Errorf("without the file: %v", err)
	}
	pins.want(t, "without the file", "b", "c")
	for _, h := range []*Handler{gone, next, running} {
		if err := h.Cleanup(); err != nil {
			t.Error(err)
		}
	}
	if _, is := pinFiles.References(path); is {
		t.Error("the file is still in use")
	}
}

func TestAnEditWhileLearningIsMergedAndNotOverwritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pins")
	writePins(t, path, pinText("a", "b"))
	p := newPinFile(path, zap.NewNop())
	if err := p.check(true); err != nil {
		t.Fatal(err)
	}
	p.accept(false)
	p.set.Learn(pin("learned"))
	writePins(t, path, pinText("b", "added"))
	p.keep()
	p.want(t, "written down", "b", "added", "learned")
	if text, err := os.ReadFile(path); err != nil || string(text) != pinText("b", "added", "learned") {
		t.Errorf("%v: the file holds %s", err, text)
	}
	p.set.Learn(pin("more"))
	writePins(t, path, pinText("learned"))
	if err := p.check(false); err != nil {
		t.Fatal(err)
	}
	p.accept(false)
	p.want(t, "with the next configuration", "learned", "more")
	writePins(t, path, "broken")
	p.keep()
	p.want(t, "beside a broken file", "learned", "more")
	if text, err := os.ReadFile(path); err != nil || string(text) != "broken" {
		t.Errorf("%v: a broken file was overwritten with %s", err, text)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	p.keep()
	p.want(t, "without the file", "more")
}

func TestWhatWasLearnedLastIsEnoughToEndLearning(t *testing.T) {
	p := newPinFile(filepath.Join(t.TempDir(), "pins"), zap.NewNop())
	if err := p.check(false); err == nil {
		t.Error("nothing was learned, and it may end")
	}
	p.set.Learn(pin("a"))
	if err := p.check(false); err != nil {
		t.Error(err)
	}
	p.accept(false)
	p.want(t, "at the end", "a")
}

func TestWhatWasLearnedIsWrittenDownAndNotReadAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pins")
	synctest.Test(t, func(t *testing.T) {
		p := newPinFile(path, zap.NewNop())
		if err := p.check(true); err != nil {
			t.Fatal(err)
		}
		p.accept(true)
		p.set.Learn(pin("a"))
		time.Sleep(2 * keepEvery)
		synctest.Wait()
		if text, err := os.ReadFile(path); err != nil || string(text) != pinText("a") {
			t.Errorf("%v: the file holds %s", err, text)
		}
		p.set.Learn(pin("b"))
		if err := p.Destruct(); err != nil {
			t.Error(err)
		}
		if text, err := os.ReadFile(path); err != nil || string(text) != pinText("a", "b") {
			t.Errorf("%v: at the end the file holds %s", err, text)
		}
	})
}
