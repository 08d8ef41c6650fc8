package command

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	"github.com/moat-gateway/moat/caddymodule/internal/lint"
)

// quietLogging has only errors logged, to standard error.
func quietLogging() *caddy.Logging {
	return &caddy.Logging{Logs: map[string]*caddy.CustomLog{caddy.DefaultLoggerName: {
		BaseLog: caddy.BaseLog{
			Level:     "ERROR",
			WriterRaw: json.RawMessage(`{"output":"stderr"}`),
		},
	}}}
}

// explainedConfig adapts a configuration file as Caddy's own commands do.
func explainedConfig(file, adapter string) ([]byte, error) {
	if _, err := caddy.ProvisionContext(&caddy.Config{Logging: quietLogging()}); err != nil {
		return nil, err
	}
	text, _, _, err := caddycmd.LoadConfig(file, adapter)
	switch {
	case err != nil:
		return nil, err
	case len(text) == 0:
		return nil, errors.New("there is no Caddyfile here; name a configuration with --config")
	}
	// What is read here by exact names Caddy takes in any letter case.
	return text, lint.CheckKeys(text)
}

// reduce returns what of a configuration says how requests are judged: the
// sites, with each handler in a step that can explain it, and the moat app
// without what would need Redis, a disk or secrets. Storage is where everything
// that is made on the way goes. Without keys each issuer gets a secret that
// nobody knows.
func reduce(text []byte, storage string, keys bool) (*caddy.Config, error) {
	var config map[string]any
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&config); err != nil {
		return nil, fmt.Errorf("it is not a configuration: %w", err)
	}
	apps := objectIn(config["apps"])
	site := objectIn(apps["http"])
	if len(objectIn(site["servers"])) == 0 {
		return nil, errors.New("the configuration has no sites")
	}
	delete(site, "metrics")
	for _, server := range objectIn(site["servers"]) {
		reduceServer(objectIn(server))
	}
	gate := objectIn(apps["moat"])
	delete(gate, "redis")
	delete(gate, "audit")
	if !keys {
		for _, issuer := range listIn(gate["issuer"]) {
			lock(objectIn(issuer))
		}
	}
	out := &caddy.Config{
		Admin:   &caddy.AdminConfig{Disabled: true},
		Logging: quietLogging(),
		AppsRaw: caddy.ModuleMap{},
	}
	var err error
	out.StorageRaw, err = json.Marshal(map[string]string{"module": "file_system", "root": storage})
	for _, name := range []string{"http", "moat"} {
		if app, ok := apps[name]; ok && err == nil {
			out.AppsRaw[name], err = json.Marshal(app)
		}
	}
	return out, err
}

// lock replaces an issuer's keys by a secret that nobody knows.
func lock(issuer map[string]any) {
	for _, word := range []string{"discovery", "jwks", "key", "secret", "algorithms"} {
		delete(issuer, word)
	}
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // It never fails.
	issuer["secret"] = []any{hex.EncodeToString(secret)}
}

// reduceServer takes off what answers no question, and what would need files of
// the machine that the configuration is for.
func reduceServer(server map[string]any) {
	for _, word := range []string{"errors", "logs", "listener_wrappers", "packet_conn_wrappers"} {
		delete(server, word)
	}
	for _, policy := range listIn(server["tls_connection_policies"]) {
		policy := objectIn(policy)
		if _, asks := policy["client_authentication"]; asks {
			delete(policy, "client_authentication")
			if server["strict_sni_host"] == nil {
				server["strict_sni_host"] = true // What Caddy makes of it.
			}
		}
	}
	reduceRoutes(server["routes"])
	for _, route := range objectIn(server["named_routes"]) {
		reduceRoute(objectIn(route))
	}
}

func reduceRoutes(routes any) {
	for _, route := range listIn(routes) {
		reduceRoute(objectIn(route))
	}
}

// reduceRoute puts each handler of a route into a step. Handlers that only hold
// routes stay, and run.
func reduceRoute(route map[string]any) {
	handlers := listIn(route["handle"])
	for i, handler := range handlers {
		handler := objectIn(handler)
		switch handler["handler"] {
		case "subroute":
			delete(handler, "errors")
			reduceRoutes(handler["routes"])
			continue
		case "invoke":
			continue
		case "reverse_proxy":
			reduceProxy(handler)
		}
		handlers[i] = map[string]any{"handler": stepName, "of": handler}
	}
}

// reduceProxy keeps a proxy from asking its upstreams how they are, and from
// reading certificates.
func reduceProxy(proxy map[string]any) {
	delete(proxy, "health_checks")
	switch protocol := objectIn(proxy["transport"])["protocol"]; protocol {
	case "http", "moat":
		proxy["transport"] = map[string]any{"protocol": protocol}
	}
}

// objectIn and listIn look at JSON; what is something else is empty.
func objectIn(value any) map[string]any {
	m, _ := value.(map[string]any)
	return m
}

func listIn(value any) []any {
	list, _ := value.([]any)
	return list
}
