package command

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/spf13/cobra"

	"github.com/moat-gateway/moat/caddymodule/internal/dispense"
	"github.com/moat-gateway/moat/caddymodule/internal/moatapp"
	"github.com/moat-gateway/moat/internal/token"
)

// issuerFlags name an issuer of a configuration.
type issuerFlags struct {
	config, adapter, name string
}

func (i *issuerFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVarP(&i.config, "config", "c", "", "Configuration file (default with --issuer: Caddyfile in this directory)")
	f.StringVarP(&i.adapter, "adapter", "a", "", "Name of the config adapter (default: by the file's name)")
	f.StringVar(&i.name, "issuer", "", "Issuer in the configuration (default: the only one)")
}

func (i *issuerFlags) given() bool { return *i != issuerFlags{} }

// configuredIssuer is one issuer of a configuration.
type configuredIssuer struct {
	moat   map[string]any // the moat app, with this issuer only
	issuer map[string]any // part of it
	issuerSettings
}

// issuerSettings are what a token has to say, in the words of the moat app.
type issuerSettings struct {
	Name                string         `json:"name"`
	Iss                 []string       `json:"iss"`
	Audience            []string       `json:"audience"`
	Discovery           bool           `json:"discovery"`
	JWKS                string         `json:"jwks"`
	Algorithms          []string       `json:"algorithms"`
	Typ                 []string       `json:"typ"`
	AZP                 []string       `json:"azp"`
	MaxLifetime         caddy.Duration `json:"max_lifetime"`
	Claims              issuerClaims   `json:"claims"`
	InsecureAnyIssuer   bool           `json:"insecure_any_issuer"`
	InsecureAnyAudience bool           `json:"insecure_any_audience"`
}

type issuerClaims struct {
	ID     []string `json:"id"`
	Tenant []string `json:"tenant"`
	Roles  []string `json:"roles"`
}

// load adapts the configuration and finds the issuer in it. Of everything else
// only the roles stay: other issuers' secrets need not be there.
func (i *issuerFlags) load() (*configuredIssuer, error) {
	text, err := explainedConfig(i.config, i.adapter)
	if err != nil {
		return nil, err
	}
	var config map[string]any
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&config); err != nil {
		return nil, fmt.Errorf("it is not a configuration: %w", err)
	}
	c := &configuredIssuer{moat: objectIn(objectIn(config["apps"])[moatapp.ID])}
	if c.issuer, err = i.find(listIn(c.moat["issuer"])); err != nil {
		return nil, err
	}
	delete(c.moat, "redis")
	delete(c.moat, "audit")
	c.moat["issuer"] = []any{c.issuer}
	return c, c.read()
}

func (i *issuerFlags) find(issuers []any) (map[string]any, error) {
	var names []string
	for _, value := range issuers {
		issuer := objectIn(value)
		name, _ := issuer["name"].(string)
		if name == i.name || i.name == "" && len(issuers) == 1 {
			return issuer, nil
		}
		names = append(names, name)
	}
	switch {
	case len(names) == 0:
		return nil, errors.New("the configuration has no issuer")
	case i.name == "":
		return nil, fmt.Errorf("the configuration has several issuers; say with --issuer which: %s", strings.Join(names, ", "))
	}
	return nil, fmt.Errorf("--issuer %q: is not configured; configured are: %s", i.name, strings.Join(names, ", "))
}

// read fills the settings in and replaces their placeholders.
func (c *configuredIssuer) read() error {
	text, err := json.Marshal(c.issuer)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &c.issuerSettings); err != nil {
		return fmt.Errorf("it is not the configuration of an issuer: %w", err)
	}
	var errs []error
	for _, setting := range []struct {
		word   string
		values *[]string
	}{{"iss", &c.Iss}, {"audience", &c.Audience}, {"azp", &c.AZP}} {
		values, err := dispense.ExpandAll(fmt.Sprintf("issuer %q: %s", c.Name, setting.word), *setting.values)
		*setting.values = values
		errs = append(errs, err)
	}
	if c.JWKS != "" {
		c.JWKS, err = dispense.Expand(fmt.Sprintf("issuer %q: jwks", c.Name), c.JWKS)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// remote reports whether the issuer's keys are at a key server.
func (c *configuredIssuer) remote() bool {
	return c.Discovery || strings.Contains(c.JWKS, "://")
}

// use puts other keys in the place of the issuer's own. Of its algorithms those
// stay that they serve.
func (c *configuredIssuer) use(k *keyFlags) error {
	keys, err := k.read()
	if err != nil {
		return err
	}
	serves := func(alg string) bool {
		return slices.ContainsFunc(keys, func(key token.Key) bool {
			_, err := token.NewStaticKeys([]token.Key{key}, []string{alg})
			return err == nil
		})
	}
	if kept := slices.DeleteFunc(slices.Clone(c.Algorithms), func(alg string) bool { return !serves(alg) }); len(kept) > 0 {
		c.issuer["algorithms"] = kept
	}
	for _, word := range []string{"discovery", "jwks", "key", "secret"} {
		delete(c.issuer, word)
	}
	c.Discovery, c.JWKS = false, ""
	word, value, err := k.setting()
	c.issuer[word] = value
	return err
}

// setting returns the keys as an issuer names them.
func (k *keyFlags) setting() (word string, value any, err error) {
	switch {
	case k.jwks != "":
		return "jwks", escaped(k.jwks), nil
	case len(k.keys) > 0:
		var keys []string
		for _, name := range k.keys {
			keys = append(keys, escaped(name))
		}
		return "key", keys, nil
	case k.secret.variable != "":
		return "secret", []string{"{env." + k.secret.variable + "}"}, nil
	}
	path, err := filepath.Abs(k.secret.file)
	return "secret", []string{"{file." + path + "}"}, err
}

// escaped keeps a value from being read as a placeholder.
func escaped(value string) string { return strings.ReplaceAll(value, "{", `\{`) }

// verifier provisions the moat app, as the gateway does when it starts, and
// returns the issuer's verifier. Nothing is started, and no keys are fetched.
func (c *configuredIssuer) verifier() (*token.Verifier, error) {
	app, err := json.Marshal(c.moat)
	if err != nil {
		return nil, err
	}
	ctx, err := caddy.ProvisionContext(&caddy.Config{
		Admin:   &caddy.AdminConfig{Disabled: true},
		Logging: quietLogging(),
		AppsRaw: caddy.ModuleMap{moatapp.ID: app},
	})
	if err != nil {
		return nil, err
	}
	source, err := moatapp.Load[token.Source](ctx)
	if err != nil {
		return nil, err
	}
	set, err := source.Verifiers([]string{c.Name})
	if err != nil {
		return nil, err
	}
	return set.Verifier(c.Name), nil
}
