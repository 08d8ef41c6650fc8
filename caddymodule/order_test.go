package caddymodule_test

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"

	"github.com/moat-gateway/moat/caddymodule"
)

// The directives written backwards, in front of a rewrite and a responder.
const backwards = `
http://127.0.0.1:9 {
	respond "behind"
	rewrite /a /b
	moat_health /health/*
	moat_rbac {
		* /** public
	}
	moat_jwt main
	moat_limit 1/1m by ip
	moat_guard
	moat_headers
	moat_audit
}
`

func TestDirectivesRunInTheOrderOfTheTableWhateverTheLines(t *testing.T) {
	adapted, _, err := caddyfile.Adapter{ServerType: httpcaddyfile.ServerType{}}.Adapt([]byte(backwards), nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range regexp.MustCompile(`"handler":"([a-z_]+)"`).FindAllStringSubmatch(string(adapted), -1) {
		if m[1] != "subroute" {
			got = append(got, m[1])
		}
	}
	want := "moat_audit moat_headers moat_guard moat_limit moat_jwt moat_rbac rewrite moat_health static_response"
	if strings.Join(got, " ") != want {
		t.Errorf("order\n got %s\nwant %s", strings.Join(got, " "), want)
	}
}

func TestTheTableHoldsEveryDirectiveOnce(t *testing.T) {
	seen := make(map[string]bool)
	for _, o := range caddymodule.Order {
		if seen[o.Directive] {
			t.Errorf("%s stands twice", o.Directive)
		}
		seen[o.Directive] = true
	}
	if len(seen) != 8 {
		t.Errorf("%d directives in the table, want 8", len(seen))
	}
}

func TestTheBuildManifestNamesTheVersionsOfGoMod(t *testing.T) {
	text, err := os.ReadFile("../xcaddy.json")
	if err != nil {
		t.Fatal(err)
	}
	var manifest struct {
		CaddyVersion string `json:"caddy_version"`
		Plugins      []struct{ Module, Import, Version, Replace string }
	}
	if err := json.Unmarshal(text, &manifest); err != nil {
		t.Fatal(err)
	}
	mod, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	version := func(module string) string {
		m := regexp.MustCompile(`(?m)^\s*(?:require )?` + regexp.QuoteMeta(module) + ` (v\S+)`).FindStringSubmatch(string(mod))
		if m == nil {
			return ""
		}
		return m[1]
	}
	if want := version("github.com/caddyserver/caddy/v2"); manifest.CaddyVersion != want || want == "" {
		t.Errorf("caddy_version %q, go.mod has %q", manifest.CaddyVersion, want)
	}
	ours := false
	for _, p := range manifest.Plugins {
		if p.Replace == "." {
			ours = true
			if !strings.Contains(string(mod), "module "+p.Module+"\n") {
				t.Errorf("module %q is not go.mod's", p.Module)
			}
			if p.Import != p.Module+"/caddymodule" {
				t.Errorf("import %q", p.Import)
			}
			continue
		}
		if want := version(p.Module); p.Version != want {
			t.Errorf("%s %q, go.mod has %q", p.Module, p.Version, want)
		}
	}
	if !ours {
		t.Error("the manifest does not name this module")
	}
}
