package inline_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"

	"github.com/moat-gateway/moat/internal/headers/inline"
)

func TestSettingsAreChecked(t *testing.T) {
	long := strings.Repeat("A", 22)
	for name, row := range map[string]struct {
		cfg  inline.Config
		want string
	}{
		"no nonce":        {inline.Config{}, "nonce: 0 characters"},
		"short":           {inline.Config{Nonce: "secretsecretsecretsec"}, "nonce: 21 characters"},
		"long":            {inline.Config{Nonce: strings.Repeat("A", 129)}, "nonce: 129 characters"},
		"quote":           {inline.Config{Nonce: long + `"`}, "only base64"},
		"space":           {inline.Config{Nonce: long + " x"}, "only base64"},
		"not ASCII":       {inline.Config{Nonce: long + "é"}, "only base64"},
		"equals within":   {inline.Config{Nonce: long + "=a"}, "only base64"},
		"equals":          {inline.Config{Nonce: long + "==="}, "at most two ="},
		"negative":        {inline.Config{Nonce: long, MaxContent: -1}, "max_content -1"},
		"too much":        {inline.Config{Nonce: long, MaxContent: 4<<20 + 1}, "max_content 4194305"},
		"learn into what": {inline.Config{Nonce: long, Learn: true}, "learn: needs pins"},
		"all at once":     {inline.Config{MaxContent: -1, Learn: true}, "max_content -1"},
	} {
		r, err := inline.New(nil, row.cfg)
		if err == nil || r != nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && row.cfg.Nonce != "" && strings.Contains(err.Error(), row.cfg.Nonce) {
			t.Errorf("%s: the error repeats the nonce", name)
		}
	}
	_, err := inline.New(nil, inline.Config{MaxContent: -1, Learn: true})
	if err == nil || strings.Count(err.Error(), "inline: ") != 3 {
		t.Errorf("not all at once: %v", err)
	}
	for _, n := range []string{long, "+/-_09azAZ+/-_09azAZ+/==", strings.Repeat("A", 126) + "=="} {
		if _, err := inline.New(nil, inline.Config{Nonce: n, MaxContent: 4 << 20}); err != nil {
			t.Errorf("%s: %v", n, err)
		}
	}
}

func TestANonceIsNewEachTime(t *testing.T) {
	seen := make(map[string]bool)
	for range 1000 {
		n := inline.NewNonce()
		if len(n) != 22 || seen[n] {
			t.Fatalf("got %s", n)
		}
		seen[n] = true
		if _, err := inline.New(nil, inline.Config{Nonce: n}); err != nil {
			t.Fatal(err)
		}
	}
}

// What is decided is delivered while the upstream is silent.
func TestNothingDecidedWaits(t *testing.T) {
	for sent, want := range map[string]string{
		"text":                  "text",
		"text <":                "text ",
		"text <s":               "text ",
		"text <script":          "text ",
		"text <script a='>":     "text ",
		"text <sp":              "text <sp",
		"text <stylo":           "text <stylo",
		"text </":               "text </",
		"text </script":         "text </script",
		"text <!":               "text <!",
		"text <!-- ":            "text <!-- ",
		"text <?":               "text <?",
		"text < ":               "text < ",
		"text <p a='":           "text <p a='",
		"<script§>var":          "<script§>var",
		"<script§>var <":        "<script§>var <",
		"<script§>var </script": "<script§>var </script",
		"<style§></sty":         "<style§></sty",
		"<textarea><script":     "<textarea><script",
		"text <scripts ":        "text <scripts ",
	} {
		page, want := strings.ReplaceAll(sent, "§", ""), strings.ReplaceAll(want, "§", added)
		t.Run(sent, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { deliver(t, page, want) })
		})
	}
}

// deliver sends the page, waits for what must come of it, and only then ends it.
func deliver(t *testing.T, page, want string) {
	src, send := io.Pipe()
	r := reader(t, src, inline.Config{})
	come := make(chan struct{})
	go func() {
		_, _ = io.WriteString(send, page)
		<-come
		_ = send.Close()
	}()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(r, got); err != nil || string(got) != want {
		t.Errorf("%v: %q", err, got)
	}
	close(come)
	rest, err := io.ReadAll(r)
	if err != nil || strings.ReplaceAll(string(got)+string(rest), added, "") != page {
		t.Errorf("%v: then %q", err, rest)
	}
}

func TestAnErrorComesBehindWhatWasRead(t *testing.T) {
	broken := errors.New("broken")
	for _, page := range []string{"", "text", "text <scr", "<script a", "<script>x"} {
		for _, cfg := range []inline.Config{{}, {Pins: inline.NewPins(0)}} {
			r := reader(t, io.MultiReader(strings.NewReader(page), iotest.ErrReader(broken)), cfg)
			got, err := io.ReadAll(r)
			if !errors.Is(err, broken) || strings.ReplaceAll(string(got), added, "") != page {
				t.Errorf("%q: %v: %q", page, err, got)
			}
			if n, err := r.Read(make([]byte, 9)); n != 0 || !errors.Is(err, broken) {
				t.Errorf("%q: then %d, %v", page, n, err)
			}
		}
	}
}

func TestATagOf64KiBGetsTheNonceAndALongerOneDoesNot(t *testing.T) {
	for size, want := range map[int]int{64 << 10: 1, 64<<10 + 1: 0} {
		page := "<script " + strings.Repeat("x", size-9) + "></script>"
		for _, at := range []int{0, 1, 100, size - 1, size} {
			r := reader(t, halves(page, at), inline.Config{})
			var got strings.Builder
			if _, err := io.CopyBuffer(&got, struct{ io.Reader }{r}, make([]byte, 128<<10)); err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(got.String(), nonce); n != want {
				t.Errorf("%d bytes cut at %d: %d nonces", size, at, n)
			}
		}
	}
}

// idle sends nothing, for ever.
type idle struct{}

func (idle) Read([]byte) (int, error) { return 0, nil }

func TestASourceThatSendsNothingEndsTheRead(t *testing.T) {
	r := reader(t, idle{}, inline.Config{})
	if _, err := r.Read(make([]byte, 9)); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("got %v", err)
	}
	if n, err := r.Read(nil); n != 0 || err != nil {
		t.Errorf("an empty read: %d, %v", n, err)
	}
}

func TestCloseClosesTheSource(t *testing.T) {
	src, send := io.Pipe()
	r := reader(t, src, inline.Config{})
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := send.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("got %v", err)
	}
	if err := reader(t, strings.NewReader(""), inline.Config{}).Close(); err != nil {
		t.Error(err)
	}
}

func TestFindingsNameWhatANonceDoesNotCover(t *testing.T) {
	for name, row := range map[string]struct {
		page string
		want string
	}{
		"handler":              {`<p><a ONCLICK="secret()">`, "event_handler 3 a onclick"},
		"handler no value":     {`<a onclick>`, "event_handler 0 a onclick"},
		"handler of its own":   {`<x-y on-x=1 on=1 o=1 onx=1>`, "event_handler 0 x-y onx"},
		"handler in svg":       {`<svg onload=x>`, "event_handler 0 svg onload"},
		"url":                  {`<a href="javascript:secret()">`, "javascript_url 0 a href"},
		"url disguised":        {"<iframe src=' \x01\tJava\nScript\r:secret'></iframe>", "javascript_url 0 iframe src"},
		"url of a form":        {`<form action=javascript:secret><button formaction=javascript:>`, "javascript_url 0 form action"},
		"url of a button":      {`<button formaction=javascript:>`, "javascript_url 0 button formaction"},
		"url of svg":           {`<svg><a xlink:href=javascript:>`, "javascript_url 5 a xlink:href"},
		"url of an object":     {`<object data=javascript:>`, "javascript_url 0 object data"},
		"no url":               {`<a href="/javascript:"><a href=javascript><a title=javascript:x><a href='x javascript:'>`, ""},
		"style":                {`<a style=secret>`, "style_attribute 0 a style"},
		"srcdoc":               {`<iframe srcdoc="<script>secret</script>"></iframe>`, "srcdoc 0 iframe srcdoc"},
		"srcdoc of no frame":   {`<p srcdoc=x>`, ""},
		"end tag":              {`</a onclick=x style=y>`, ""},
		"comment":              {`<!-- <a onclick=x> --><textarea><a onclick=x></textarea>`, ""},
		"cut":                  {`<a onclick=x`, ""},
		"once per kind":        {`<a onclick=x onload=y><a onclick=z style=1><a style=2>`, "event_handler 0 a onclick; style_attribute 22 a style"},
		"odd names":            {"<a\x1b\"é onx\x1b[31m" + strings.Repeat("y", 50) + ">", "event_handler 0 a??? onx??31m" + strings.Repeat("y", 16)},
		"twice":                {`<script src=a src=b></script>`, "unnonceable 0 script "},
		"twice, other case":    {`<script a src=a A></script>`, "unnonceable 0 script "},
		"swallowed tag":        {`<p><script x="<SCRIPT src=a"></script>`, "unnonceable 3 script "},
		"swallowed style":      {`<script <style></script>`, "unnonceable 0 script "},
		"nothing swallowed":    {`<script x="a<b <scrip <"></script>`, ""},
		"too long":             {`<script a=` + strings.Repeat("x", 65<<10) + `>`, "tag_too_long 0 script "},
		"too many":             {`<script` + strings.Repeat(" a", 65) + `>`, "tag_too_long 0 script "},
		"handler of a script":  {`<script onload=x></script>`, "event_handler 0 script onload"},
		"handler, page in two": {`<a on` + `click=x>`, "event_handler 0 a onclick"},
	} {
		for at := range min(len(row.page), 90) + 1 {
			var found []string
			rewrite(t, halves(row.page, at), inline.Config{OnFinding: func(f inline.Finding) {
				found = append(found, fmt.Sprintf("%s %d %s %s", f.Kind, f.Offset, f.Element, f.Attribute))
			}})
			got := strings.Join(found, "; ")
			if got != row.want || strings.Contains(got, "secret") {
				t.Errorf("%s cut at %d: got %s, want %s", name, at, got, row.want)
				break
			}
		}
	}
}

func TestAnUnpinnedScriptIsNamedByItsHash(t *testing.T) {
	var found []inline.Finding
	rewrite(t, strings.NewReader("<p><script>x</script><script>y</script>"), inline.Config{
		Pins: inline.NewPins(0), OnFinding: func(f inline.Finding) { found = append(found, f) },
	})
	want := inline.Finding{Kind: inline.Unpinned, Offset: 3, Element: "script", Hash: inline.HashScript([]byte("x"))}
	if len(found) != 1 || found[0] != want {
		t.Errorf("found %+v", found)
	}
}

func TestEveryKindHasAName(t *testing.T) {
	seen := make(map[string]bool)
	for k := inline.EventHandler; k <= inline.TooManyHashes+1; k++ {
		if k.String() == "" || seen[k.String()] {
			t.Errorf("kind %d is %q", k, k)
		}
		seen[k.String()] = true
	}
	if !seen["unknown"] || len(seen) != 12 {
		t.Errorf("%v", seen)
	}
}
