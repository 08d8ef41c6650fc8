package sinks

import (
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/moat-gateway/moat/caddymodule/internal/dispense"
	"github.com/moat-gateway/moat/internal/audit/follow"
	"github.com/moat-gateway/moat/internal/audit/sinks/kafka"
)

// Kafka produces each event to a topic. The key of a record is the gateway's
// instance, so that its events stay in one partition and in order; the headers
// epoch and seq tell a consumer which event it has seen before. A delivery is done
// when all replicas in sync have it.
type Kafka struct {
	// Topic that takes the events. It has to exist.
	Topic string `json:"topic,omitempty"`
	// Broker lists where the cluster is first asked, each as host:port, at most 16.
	Broker []string `json:"broker,omitempty"`
	// InsecurePlaintext speaks to the brokers without TLS: whoever is on the way reads
	// the events and can change them. Default: TLS 1.2 at least.
	InsecurePlaintext bool `json:"insecure_plaintext,omitempty"`
	certificates
	// SASL is the mechanism that proves who is there: plain, scram-sha-256 or
	// scram-sha-512. Default: none.
	SASL string `json:"sasl,omitempty"`
	// Username of the mechanism.
	Username string `json:"username,omitempty"`
	// Password of the mechanism.
	Password string `json:"password,omitempty"`
	// Compression is zstd, lz4, snappy, gzip or none. Default: zstd.
	Compression string `json:"compression,omitempty"`
	// Timeout is the budget of one delivery. Default: 10s.
	Timeout caddy.Duration `json:"timeout,omitempty"`
}

// CaddyModule returns the module's registration.
func (*Kafka) CaddyModule() caddy.ModuleInfo {
	return module("kafka", func() caddy.Module { return new(Kafka) })
}

// Provision expands placeholders.
func (k *Kafka) Provision(ctx caddy.Context) error {
	brokers, err := dispense.ExpandAll("broker", k.Broker)
	k.Broker = brokers
	if k.InsecurePlaintext {
		ctx.Logger().Warn("insecure_plaintext: events go to Kafka without TLS")
	}
	fields := k.fields()
	maps.Copy(fields, map[string]*string{"topic": &k.Topic, "username": &k.Username, "password": &k.Password})
	return errors.Join(err, expand(fields))
}

// Target implements follow.Settings. The brokers are where to begin, and the
// topic is where the events go: another list of brokers is the same place.
func (k *Kafka) Target() follow.Target {
	means := append(k.means(), strconv.FormatBool(k.InsecurePlaintext), k.SASL, k.Username, k.Password, k.Compression, strings.Join(k.Broker, " "))
	return follow.Target{Timeout: time.Duration(k.Timeout), Place: k.Topic, Means: meansOf(k.Timeout, means...)}
}

// Open implements follow.Settings.
func (k *Kafka) Open() (follow.Sink, error) {
	return kafka.New(kafka.Config{
		Brokers: slices.Clone(k.Broker), Topic: k.Topic, Plaintext: k.InsecurePlaintext,
		CAFile: k.CA, CertFile: k.Cert, KeyFile: k.Key,
		Mechanism: k.SASL, Username: k.Username, Password: k.Password,
		Compression: k.Compression, Timeout: time.Duration(k.Timeout),
	})
}

// UnmarshalCaddyfile reads:
//
//	kafka <topic> <broker>... {
//		insecure_plaintext
//		ca <file>
//		cert <file>
//		key <file>
//		sasl plain|scram-sha-256|scram-sha-512
//		username <name>
//		password <secret>
//		compression zstd|lz4|snappy|gzip|none
//		timeout <duration>
//	}
func (k *Kafka) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if !d.NextArg() {
		return d.Err("sink kafka: needs a topic and at least one broker")
	}
	k.Topic = d.Val()
	words := k.words()
	maps.Copy(words, dispense.Words{
		"insecure_plaintext": flag(&k.InsecurePlaintext),
		"sasl":               word(&k.SASL),
		"username":           word(&k.Username),
		"password":           word(&k.Password),
		"compression":        word(&k.Compression),
		"timeout":            timeout(&k.Timeout),
	})
	return errors.Join(dispense.Strings(&k.Broker)(d), words.Block(d, "sink kafka"))
}
