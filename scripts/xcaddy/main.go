// Command xcaddy turns xcaddy.json into the command line of `xcaddy build`.
package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

func main() {
	text, err := os.ReadFile("xcaddy.json")
	if err == nil {
		var line string
		if line, err = commandLine(text); err == nil {
			fmt.Println(line)
			return
		}
	}
	fmt.Fprintln(os.Stderr, "xcaddy.json:", err)
	os.Exit(1)
}

// commandLine is what builds the binary that the manifest describes.
func commandLine(manifest []byte) (string, error) {
	var m struct {
		CaddyVersion string `json:"caddy_version"`
		Plugins      []struct {
			Module  string `json:"module"`
			Import  string `json:"import"` // default: the module itself
			Version string `json:"version"`
			Replace string `json:"replace"`
		} `json:"plugins"`
	}
	if err := json.Unmarshal(manifest, &m); err != nil {
		return "", err
	}
	words := []string{"xcaddy build", m.CaddyVersion, "--output moat"}
	for _, p := range m.Plugins {
		path := cmp.Or(p.Import, p.Module)
		with := "--with " + path
		if p.Version != "" && p.Replace == "" {
			with += "@" + p.Version
		}
		if p.Replace != "" {
			with += " --replace " + p.Module + "=" + p.Replace
		}
		words = append(words, with)
	}
	return strings.Join(words, " "), nil
}
