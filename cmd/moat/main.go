// Command moat is Caddy's command line with Moat's modules and commands.
package main

import (
	"fmt"
	"os"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/moat-gateway/moat/caddymodule"
)

// version is Moat's own; a release build sets it with
// -ldflags "-X main.version=v1.2.3".
var version = "v0.1.0-dev"

func main() {
	caddy.CustomBinaryName = "moat"
	caddy.CustomLongDescription = "Moat is a reverse-proxy security gateway: Caddy with checks on tokens, roles, limits and headers, and an audit trail."
	// Caddy's version command cannot be replaced and would name Caddy only.
	if len(os.Args) == 2 && (os.Args[1] == "version" || os.Args[1] == "--version" || os.Args[1] == "-v") {
		_, full := caddy.Version()
		fmt.Printf("moat %s (caddy %s)\n", version, full)
		return
	}
	caddycmd.Main()
}
