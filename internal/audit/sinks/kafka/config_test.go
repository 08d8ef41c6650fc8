package kafka_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/audit/sinks/kafka"
)

func TestEveryConfigErrorIsReportedAtOnce(t *testing.T) {
	_, err := kafka.New(kafka.Config{
		Brokers: []string{"planted"}, Topic: "a b", CAFile: "/nowhere.pem", CertFile: "/nowhere.crt",
		Mechanism: "planted-oauth", Username: "planted-user\x00", Timeout: -1, Compression: "brotli",
	})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{
		`broker "planted"`, `topic "a b"`, `ca file "/nowhere.pem"`, "client certificate", `mechanism "planted-oauth"`,
		"user name:", "password:", "timeout -1ns", `compression "brotli"`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q: %v", want, err)
		}
	}
	if strings.Contains(err.Error(), "planted-user") {
		t.Errorf("the error repeats the user name: %v", err)
	}
}

// valid is the least that is accepted, with what edit changes.
func valid(edit func(*kafka.Config)) kafka.Config {
	cfg := kafka.Config{Brokers: []string{"kafka.example.com:9092"}, Topic: "moat.audit"}
	edit(&cfg)
	return cfg
}

func login(cfg *kafka.Config, mechanism string) {
	cfg.Mechanism, cfg.Username, cfg.Password = mechanism, "planted-user", "planted-secret"
}

func TestConfigsThatAreRefused(t *testing.T) {
	for name, row := range map[string]struct {
		edit func(*kafka.Config)
		want string // "": accepted
	}{
		"the least":                 {func(*kafka.Config) {}, ""},
		"no broker":                 {func(c *kafka.Config) { c.Brokers = nil }, "0 brokers: must be between 1 and 16"},
		"sixteen brokers":           {func(c *kafka.Config) { c.Brokers = slices.Repeat(c.Brokers, 16) }, ""},
		"seventeen brokers":         {func(c *kafka.Config) { c.Brokers = slices.Repeat(c.Brokers, 17) }, "17 brokers: must be between 1 and 16"},
		"no topic":                  {func(c *kafka.Config) { c.Topic = "" }, `topic ""`},
		"the longest topic":         {func(c *kafka.Config) { c.Topic = strings.Repeat("a", 249) }, ""},
		"a longer topic":            {func(c *kafka.Config) { c.Topic = strings.Repeat("a", 250) }, "topic"},
		"topic .":                   {func(c *kafka.Config) { c.Topic = "." }, "topic"},
		"topic ..":                  {func(c *kafka.Config) { c.Topic = ".." }, "topic"},
		"a topic with a line break": {func(c *kafka.Config) { c.Topic = "a\n" }, "topic"},
		"a topic with an umlaut":    {func(c *kafka.Config) { c.Topic = "ä" }, "topic"},
		"plaintext":                 {func(c *kafka.Config) { c.Plaintext = true }, ""},
		"plaintext and an authority": {
			func(c *kafka.Config) { c.Plaintext, c.CAFile = true, "config_test.go" }, "although TLS is off",
		},
		"an authority that is none": {func(c *kafka.Config) { c.CAFile = "config_test.go" }, "has no certificate"},
		"an authority that is a directory": {
			func(c *kafka.Config) { c.CAFile = "." }, "cannot be read",
		},
		"an authority that has no end": {
			func(c *kafka.Config) { c.CAFile = "/dev/zero" }, "cannot be read",
		},
		"a certificate without key": {func(c *kafka.Config) { c.CertFile = "config_test.go" }, "must have both"},
		"a key without certificate": {func(c *kafka.Config) { c.KeyFile = "config_test.go" }, "must have both"},
		"a certificate that is none": {
			func(c *kafka.Config) { c.CertFile, c.KeyFile = "config_test.go", "config_test.go" }, "do not belong together",
		},
		"plain over TLS":               {func(c *kafka.Config) { login(c, "plain") }, ""},
		"scram-sha-256":                {func(c *kafka.Config) { login(c, "scram-sha-256") }, ""},
		"scram-sha-512 over plaintext": {func(c *kafka.Config) { login(c, "scram-sha-512"); c.Plaintext = true }, ""},
		"plain over plaintext": {
			func(c *kafka.Config) { login(c, "plain"); c.Plaintext = true }, `"kafka.example.com:9092": would be sent the password`,
		},
		"plain over plaintext, not all on this machine": {
			func(c *kafka.Config) {
				login(c, "plain")
				c.Plaintext, c.Brokers = true, []string{"localhost:9092", "10.0.0.7:9092"}
			}, `"10.0.0.7:9092": would be sent the password`,
		},
		"plain over plaintext on this machine": {
			func(c *kafka.Config) {
				login(c, "plain")
				c.Plaintext, c.Brokers = true, []string{"localhost:9092", "127.0.0.1:9093", "[::1]:9094"}
			}, "",
		},
		"an unknown mechanism":         {func(c *kafka.Config) { login(c, "PLAIN") }, `mechanism "PLAIN"`},
		"a password without mechanism": {func(c *kafka.Config) { c.Password = "planted-secret" }, "without a mechanism"},
		"a user without mechanism":     {func(c *kafka.Config) { c.Username = "planted-user" }, "without a mechanism"},
		"no password":                  {func(c *kafka.Config) { login(c, "plain"); c.Password = "" }, "password: must have"},
		"a long password": {
			func(c *kafka.Config) { login(c, "plain"); c.Password = strings.Repeat("planted", 200) }, "password: must have",
		},
		"a zero byte in the user name": {func(c *kafka.Config) { login(c, "plain"); c.Username = "planted\x00" }, "user name: must have"},
		"the shortest timeout":         {func(c *kafka.Config) { c.Timeout = time.Millisecond }, ""},
		"a shorter timeout":            {func(c *kafka.Config) { c.Timeout = time.Microsecond }, "timeout"},
		"the longest timeout":          {func(c *kafka.Config) { c.Timeout = time.Minute }, ""},
		"a longer timeout":             {func(c *kafka.Config) { c.Timeout = time.Minute + 1 }, "timeout"},
		"no compression":               {func(c *kafka.Config) { c.Compression = "none" }, ""},
		"an unknown compression":       {func(c *kafka.Config) { c.Compression = "ZSTD" }, `compression "ZSTD"`},
	} {
		_, err := kafka.New(valid(row.edit))
		if (err == nil) != (row.want == "") || err != nil && !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), "planted") {
			t.Errorf("%s: the error repeats a secret: %v", name, err)
		}
	}
}

func TestBrokersThatAreRefused(t *testing.T) {
	for broker, ok := range map[string]bool{
		"kafka.example.com:9092": true, "127.0.0.1:9092": true, "[::1]:9092": true, "a:1": true, "a:65535": true,
		strings.Repeat("a", 253) + ":9092": true,
		"":                                 false, "kafka.example.com": false, ":9092": false, "a:": false, "a:0": false, "a:65536": false,
		"a:kafka": false, "::1:9092": false, "kafka://a:9092": false, "user@a:9092": false, "a:9092,b:9092": false, "a,b:9092": false,
		"a b:9092": false, "a\n:9092": false, "ä:9092": false, "a/b:9092": false, strings.Repeat("a", 300) + ":9092": false,
	} {
		_, err := kafka.New(valid(func(c *kafka.Config) { c.Brokers = []string{broker} }))
		if (err == nil) != ok {
			t.Errorf("%.60q: %v", broker, err)
		}
	}
}
