package sinks

import (
	"github.com/moat-gateway/moat/caddymodule/internal/dispense"
)

// certificates are the files that a TLS connection of a sink is made with.
type certificates struct {
	// CA is a PEM file of the certificate authorities that may vouch for the server.
	// Default: those of the system.
	CA string `json:"ca,omitempty"`
	// Cert is the PEM file with the certificate, and its chain, by which the gateway
	// shows who it is. Default: none.
	Cert string `json:"cert,omitempty"`
	// Key is the PEM file with the key of the certificate.
	Key string `json:"key,omitempty"`
}

// words are the words for the files.
func (c *certificates) words() dispense.Words {
	return dispense.Words{"ca": word(&c.CA), "cert": word(&c.Cert), "key": word(&c.Key)}
}

// fields are the settings that may hold placeholders.
func (c *certificates) fields() map[string]*string {
	return map[string]*string{"ca": &c.CA, "cert": &c.Cert, "key": &c.Key}
}

// means tells certificates apart by what is in the files: after a reload, renewed
// ones are used.
func (c *certificates) means() []string {
	var means []string
	for _, file := range []string{c.CA, c.Cert, c.Key} {
		means = append(means, file, dispense.FileSum(file))
	}
	return means
}
