package webhook_test

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/audit/sinks/webhook"
)

func TestEveryConfigErrorIsReportedAtOnce(t *testing.T) {
	_, err := webhook.New(webhook.Config{URL: "ftp://x", Secrets: []string{"short", planted, "whsec_%%%"}, Timeout: time.Hour})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{`scheme "ftp"`, "secret 1: has 5 bytes", "secret 3: what follows whsec_", "timeout 1h0m0s"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q: %v", want, err)
		}
	}
	if strings.Contains(err.Error(), "short") || strings.Contains(err.Error(), "%%%") {
		t.Errorf("the error repeats a secret: %v", err)
	}
	if _, err := webhook.New(webhook.Config{}); err == nil {
		t.Error("the zero config was accepted")
	}
}

func TestOnlyHTTPSLeavesTheMachine(t *testing.T) {
	for text, ok := range map[string]bool{
		"http://siem.example.com/in":                 false,
		"HTTP://siem.example.com/in":                 false,
		"http://127.0.0.1.example.com/in":            false,
		"http://10.0.0.1/in":                         false,
		"http://0.0.0.0/in":                          false,
		"http://localhost.example.com/in":            false,
		"https://user:planted-pw@siem.example.com":   false,
		"https://planted-token@siem.example.com":     false,
		"https://":                                   false,
		"https:siem.example.com":                     false,
		"siem.example.com":                           false,
		"//siem.example.com":                         false,
		"":                                           false,
		"https://siem.example.com/%zz?planted-token": false,
		"unix:///run/x":                              false,
		"https://siem.example.com/in?k=v":            true,
		"http://127.0.0.1:8080/in":                   true,
		"http://[::1]:8080/in":                       true,
		"http://localhost/in":                        true,
	} {
		_, err := webhook.New(webhook.Config{URL: text, Secrets: []string{planted}})
		if (err == nil) != ok {
			t.Errorf("%s: %v", text, err)
		}
		if err != nil && strings.Contains(err.Error(), "planted") {
			t.Errorf("%s: the error repeats it: %v", text, err)
		}
	}
}

func TestWeakSecretsAreRefused(t *testing.T) {
	for name, secret := range map[string]string{
		"empty": "", "23 bytes": strings.Repeat("x", 23), "only the mark": "whsec_", "short once decoded": "whsec_" + base64.StdEncoding.EncodeToString(make([]byte, 23)),
		"endless": strings.Repeat("x", 1025),
	} {
		if _, err := webhook.New(webhook.Config{URL: "https://x", Secrets: []string{planted, secret}}); err == nil || !strings.Contains(err.Error(), "secret 2") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
